"""Fashion-MNIST, Network in Network -> LeNet-4, by adversarial network compression.

Source (Belagiannis, Farshad, Galasso 2018; its talk and thesis talk), test errors in %:

    teacher 7.98, student alone 8.77
    D reads logits 8.90, with dropout in the student 8.84; features 8.86, with dropout 8.61
    D's regularizer: none 9.62, L1 8.91, L2 8.75, adversarial samples 8.61 (8.64 in the talk)

Adversarial samples without dropout are the student's own, told to D as the teacher's. Dropout
(0.5) falls on the student's last features, also where D reads logits. lambda is 1. Ours beside
them: soft targets, L2 on logits, and the student alone for a quarter of the epochs, since it
overfits in the other rows' time.

The talks do not tell the width of their LeNet-4. LeNet-4 as published has 33,770 weights here and
cannot fit the teacher's logits even on training images (91 % of them right after 80 epochs), so the
rows are those of `lenet-20-50-500`, which has the same layers in Caffe's width: 431,080 weights. A
second group has five rows of the small one.

D learns at 1e-4 from features with adversarial samples, else at 1e-3, as the validation images and
D's accuracy had it. At 1e-3 (and 3e-4) such a D is soon right on all features and teaches nothing,
at 3e-5 it is fooled instead of matched. A D without adversarial samples wins at both rates, but at
1e-4 later, and the student has 8.4 % validation errors for 7.9; with L2 on D it broke out in epoch
35 and ended at 26 %.

There is no augmentation, under which so small a student fits neither labels nor teacher (chosen on
the validation images). `KD_TEACHERS` is a folder with the teacher's weights,
`fashion_mnist_nin.npz` (7.30 % test error); `configs/fashion_mnist_nin_to_lenet.py` trains one.
That one has seen the validation images.

Time on one core, a seed: about an hour and a half (11 trainings of 40 epochs of 8 s, 5 of 80 of
3 s; the teacher's outputs are computed once for all of them, 100 s). `fashion_mnist_anc.py:smoke`
has the same rows at a size of minutes. Command:

    KD_TEACHERS=DIR kd-table --table=configs/tables/fashion_mnist_anc.py --output=docs/results
"""

from ml_collections import ConfigDict

_SMOKE = {"data": {"limit": 300, "batch_size": 32}, "student": {"epochs": 2}}
_L2 = {"logits_l2": {"weight": 2.0}}  # which has a 1/2
_FAST = {"discriminator_learning_rate": 1e-3}
_LOGITS = {"teacher_layer": None, "student_layer": None, **_FAST}
_BEHIND_FEATURES = {"noise": "network", "noise_layer": "features", "dropout": 0.5}


def _game(**arguments: object) -> dict:
    game = {"discriminator_learning_rate": 1e-4, **arguments}
    return {"label_weight": 0.0, "methods": _L2, "adversarial": game}


#: Of each run: its label, the source's error in %, and what is distilled.
_RUNS: dict[str, tuple[str, str, dict]] = {
    "alone": ("student alone", "8.77", {}),
    "alone_short": ("alone, a quarter of the epochs", "", {}),
    "soft_targets": (
        "soft targets",
        "",
        {"methods": {"soft_targets": {"temperature": 4.0, "weight": 0.9}}},
    ),
    "l2": ("L2 on logits", "", {"label_weight": 0.0, "methods": _L2}),
    "logits": ("D with logits", "8.90", _game(**_LOGITS, dropout=0.0)),
    "logits_dropout": ("D with logits + dropout", "8.84", _game(**_LOGITS, **_BEHIND_FEATURES)),
    "features": ("D with features", "8.86", _game(dropout=0.0)),
    "no_regularizer": ("D with features, no regularizer", "9.62", _game(regularizer=None, **_FAST)),
    "l1_regularizer": ("D with features, L1 on D", "8.91", _game(regularizer="l1", **_FAST)),
    "l2_regularizer": ("D with features, L2 on D", "8.75", _game(regularizer="l2", **_FAST)),
    "features_dropout": (
        "features + dropout, adversarial",
        "8.61",
        _game(regularizer="adversarial", dropout=0.5),
    ),
}


_SMALL = "_lenet4"
#: The students by the ending of their runs' names: the network and its epochs.
_STUDENTS = {"": ("lenet-20-50-500", 40), _SMALL: ("lenet4", 80)}
_ALSO_SMALL = ("alone", "alone_short", "soft_targets", "l2", "features_dropout")


def get_table(size: str = "full") -> dict:
    (wide, _), (small, _) = _STUDENTS.values()
    rows: dict[str, dict] = {
        "teacher": {"label": "teacher", "run": "alone", "model": "teacher", "source": "7.98"}
    }
    for run, (label, source, _) in _RUNS.items():
        rows[run] = {"label": label, "source": source, "baseline": run.startswith("alone")}
    for run in _ALSO_SMALL:
        rows[run + _SMALL] = {**rows[run], "source": "", "group": small}
    return {
        "title": "Fashion-MNIST: adversarial compression of Network in Network to LeNet-4",
        "seeds": (0,) if size == "smoke" else (0, 1, 2),
        "columns": ("error", "file_error", "epochs", "cpu_seconds"),
        "spread": "error",
        "rows": {name: {"group": wide, **row} for name, row in rows.items()},
    }


def get_config(run: str = "features_dropout") -> ConfigDict:
    size, _, run = run.rpartition("/")
    ending = next(end for end in reversed(_STUDENTS) if run.endswith(end))
    run = run.removesuffix(ending)
    student, epochs = _STUDENTS[ending]
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "name": "fashion_mnist",
            "batch_size": 128,
            "mean": (0.2860406,),
            "std": (0.35302427,),
        }
    )
    config.teacher = ConfigDict(
        {"model": "nin", "path": "$KD_TEACHERS/fashion_mnist_nin.npz", "cache": {"views": 1}}
    )
    config.student = ConfigDict(
        {"model": student, "epochs": epochs, "optimizer": {"learning_rate": 2e-3}}
    )
    config.distillation = ConfigDict(_RUNS[run][2])
    config.compression = []
    config.verify = ConfigDict({"agreement": 0.5})  # a row against us stays in the table
    if size == "smoke":
        config.update(_SMOKE)
    if run == "alone_short":
        config.student.epochs = max(1, config.student.epochs // 4)
    return config
