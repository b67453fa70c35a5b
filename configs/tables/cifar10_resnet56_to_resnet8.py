"""CIFAR-10, ResNet-56 -> ResNet-8: adversarial compression and its rivals at a size for two cores.

The sources' figures are of larger pairs, and stand here for the order of the rows: adversarial
network compression and its rivals (Belagiannis, Farshad, Galasso 2018) of ResNet-164 -> ResNet-20,
conditional adversarial networks (Xu, Hsu, Huang 2018) and their Table 2 of WRN-40-10 -> WRN-10-4,
whose student alone (L_S) has 7.46 %. Configs of these pairs, for a GPU:
`configs/cifar10_resnet164_to_resnet20.py`, `configs/cifar10_wrn40x10_to_wrn10x4.py`.

All rows have 20 epochs, Adam and one learning rate, chosen on the validation images for soft
targets (errors: 19.1 % at 4e-3, 16.1 at 1.5e-2, 15.3 at 4e-2; alone 17.3 and 15.6 at the first
two); FitNets and FSP divide the epochs, a quarter for their first stage (FSP's at a lower rate: at
that of the others it spoils the start that it is to give). The teacher's outputs are cached in 4
views of each image; these two rows, which read maps, run the teacher live. lambda is 1: at 0.02 D
teaches more and the student is far worse on the validation images (34 % errors for 21 after half of
the epochs). ResNet-8 has 78,714 parameters and no dropout: the noise falls on its last features.
`KD_TEACHERS` is a folder with the teacher's weights, `cifar10_resnet56.npz` (6.61 %).

Trainings compute in bfloat16, where the CPU does. Time on one core that does, a seed: about 2 hours
(14 trainings of 20 epochs of 22 s; the teacher's outputs are computed twice, in 4 to 5 minutes, for
rows with and without its features). The table `...:smoke` has the same rows at a size of minutes.
Command:

    KD_TEACHERS=DIR kd-table --table=configs/tables/cifar10_resnet56_to_resnet8.py \
        --output=docs/results
"""

from ml_collections import ConfigDict

_SMOKE = {"data": {"limit": 200, "batch_size": 32}, "student": {"epochs": 2}}
_L1: dict[str, dict] = {"logits_l1": {}}
_L2 = {"logits_l2": {"weight": 2.0}}  # which has a 1/2
_LOGITS = {"teacher_layer": None, "student_layer": None, "discriminator_learning_rate": 1e-3}
_BEHIND_FEATURES = {"noise": "network", "noise_layer": "features", "dropout": 0.5}
_HINT = {"hint": {"teacher_layer": "stage2", "student_layer": "stage2"}}
# FitNets' lambda, 4 to 1, over the T^2 that soft_targets has and the paper's term has not.
_FALLING = {"schedule": "linear", "start": 4 / 9, "end": 1 / 9}
_SOFT_FALLING = {"soft_targets": {"temperature": 3.0, "weight": _FALLING}}


def _anc(**arguments: object) -> dict:
    game = {"discriminator_learning_rate": 3e-4, **arguments}
    return {"label_weight": 0.0, "methods": _L2, "adversarial": game}


def _conditional(label_weight: float, methods: dict) -> dict:
    game = {"adversarial_weight": 1.0, "gan_form": "saturating"}
    return {"label_weight": label_weight, "methods": methods, "conditional": game}


def _two_stages(first: dict, second: dict, epochs: int) -> dict:
    start = {"label_weight": 0.0, "epochs": max(1, epochs // 4), **first}
    return {
        "stages": {
            "stage1": start,
            "stage2": {"label_weight": 1.0, "epochs": epochs - start["epochs"], **second},
        }
    }


def _fsp(epochs: int) -> dict:
    first = {"methods": {"fsp": {}}, "trainable": "stage3", "optimizer": {"learning_rate": 2e-4}}
    return _two_stages(first, {}, epochs)


def _runs(epochs: int) -> dict[str, tuple[str, str, dict]]:
    """Of each run: its label, the source's error in %, and what is distilled."""
    soft_targets = {"soft_targets": {"temperature": 4.0, "weight": 0.9}}
    hint = {"methods": _HINT, "trainable": "stage2"}
    return {
        "alone": ("student alone (L_S)", "8.58", {}),
        "soft_targets": ("soft targets", "8.88", {"methods": soft_targets}),
        "l2": ("L2 on logits", "9.07", {"label_weight": 0.0, "methods": _L2}),
        "l1": ("L1 on logits", "", {"label_weight": 0.0, "methods": _L1}),
        "fitnets": ("FitNets", "8.39", _two_stages(hint, {"methods": _SOFT_FALLING}, epochs)),
        "fsp": ("FSP", "11.30", _fsp(epochs)),
        "anc_logits": ("ANC, D with logits", "8.31", _anc(**_LOGITS, dropout=0.0)),
        "anc_logits_dropout": (
            "ANC, D with logits + dropout",
            "8.10",
            _anc(**_LOGITS, **_BEHIND_FEATURES),
        ),
        "anc_features": ("ANC, D with features", "8.10", _anc(dropout=0.0)),
        "anc_features_dropout": ("ANC, D with features + dropout", "8.08", _anc(dropout=0.5)),
        "gan": ("conditional, L_GAN", "14.82", _conditional(0.0, {})),
        "labels_gan": ("conditional, L_S + L_GAN", "6.56", _conditional(1.0, {})),
        "labels_l1": ("L_S + L_L1", "6.44", {"label_weight": 1.0, "methods": _L1}),
        "conditional": ("conditional, L_S + L_L1 + L_GAN", "6.09", _conditional(1.0, _L1)),
    }


def get_table(size: str = "full") -> dict:
    teacher = {"label": "teacher", "run": "alone", "model": "teacher", "source": "6.57"}
    students = {
        run: {"label": label, "source": source, "baseline": run == "alone"}
        for run, (label, source, _) in _runs(20).items()
    }
    return {
        "title": "CIFAR-10: ResNet-56 -> ResNet-8, adversarial compression and its rivals",
        "seeds": (0,) if size == "smoke" else (0, 1, 2),
        "columns": ("error", "file_error", "epochs", "cpu_seconds"),
        "spread": "error",
        "rows": {"teacher": teacher, **students},
    }


def get_config(run: str = "anc_features_dropout") -> ConfigDict:
    size, _, run = run.rpartition("/")
    config = ConfigDict({"precision": "bfloat16"})
    config.data = ConfigDict(
        {
            "name": "cifar10",
            "batch_size": 128,
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "augmentation": {"horizontal_flip": {}, "pad_and_crop": {"padding": 4}},
        }
    )
    config.teacher = ConfigDict(
        {
            "model": "resnet56",
            "options": {"shortcut": "A"},
            "path": "$KD_TEACHERS/cifar10_resnet56.npz",
            "cache": {"views": 0 if run in ("fitnets", "fsp") else 4},
        }
    )
    config.student = ConfigDict(
        {
            "model": "resnet8",
            "epochs": 20,
            "optimizer": {"learning_rate": 4e-2, "warmup_epochs": 1.0},
        }
    )
    config.compression = []
    config.verify = ConfigDict({"agreement": 0.5})  # a row against us stays in the table
    if size == "smoke":
        config.update(_SMOKE)
    config.distillation = ConfigDict(_runs(config.student.epochs)[run][2])
    return config
