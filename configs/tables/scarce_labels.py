"""Fashion-MNIST: what each method gives where labelled images are many, few and very few.

The student sees all, 10 % or 1 % of the training images (57,000, 5,700, 570; every class its share,
chosen anew by each seed) with their labels, and nothing of the rest. Its teacher has seen all of
them: that is the case of somebody who has a good model and few images of his own. One more row
shows what unlabelled images are worth: all of them, and no label.

A ResNet-20 teaches convnet-16-32-64, whose stages have its sizes and channels, as FSP needs; so all
methods train one student. No augmentation. Each share has one budget for all its rows: 12, 50 or
200 epochs of batches of 32; rows with stages divide it, and a born-again student has it in each of
its two generations. The rates of L1, whose gradient does not grow with the error, and of FSP's
first stage were chosen on validation images; all other rows have one.

Time on two cores, a seed: 3 hours (the teacher 15 minutes; 12 rows a share, of about 6, 3 and 3
minutes, 1 of them for export and tests). Needs Fashion-MNIST (`TFDS_DATA_DIR`), and no trained
teacher. `scarce_labels.py:smoke` has the same rows at a size of half an hour. Command:

    kd-table --table=configs/tables/scarce_labels.py --output=docs/results
"""

from ml_collections import ConfigDict

#: Percent of the training images: epochs of the student.
_SHARES = {100: 12, 10: 50, 1: 200}
_RATE, _L1_RATE, _FSP_RATE = 5e-3, 1.5e-2, 2e-4
_SMOKE = {"data": {"limit": 400, "batch_size": 4}, "teacher": {"epochs": 1}}
_HINT = {"hint": {"teacher_layer": "stage2", "student_layer": "stage2"}}
_SOFT = {"soft_targets": {"temperature": 4.0, "weight": 0.9}}
# FitNets' lambda, 4 to 1, over the T^2 that soft_targets has and the paper's term has not.
_FALLING = {"schedule": "linear", "start": 4 / 9, "end": 1 / 9}
_SOFT_FALLING = {"soft_targets": {"temperature": 3.0, "weight": _FALLING}}
_UNLABELLED = "soft_targets_unlabelled"


def _two_stages(first: dict, second: dict, epochs: int) -> dict:
    start = {"label_weight": 0.0, "epochs": max(1, epochs // 4), **first}
    return {
        "stages": {
            "stage1": start,
            "stage2": {"label_weight": 1.0, "epochs": epochs - start["epochs"], **second},
        }
    }


def _methods(epochs: int) -> dict[str, tuple[str, dict]]:
    """The label of each method, and what is distilled."""
    hint = {"methods": _HINT, "trainable": "stage2"}
    flow = {
        "methods": {"fsp": {}},
        "trainable": "stage3",
        "optimizer": {"learning_rate": _FSP_RATE},
    }
    l2 = {"logits_l2": {"weight": 2.0}}  # which has a 1/2
    game = {"dropout": 0.5, "discriminator_learning_rate": 1e-4}
    return {
        "alone": ("student alone", {}),
        "soft_targets": ("soft targets", {"methods": _SOFT}),
        "l2": ("L2 on logits", {"label_weight": 0.0, "methods": l2}),
        "l1": ("L1 on logits", {"label_weight": 0.0, "methods": {"logits_l1": {}}}),
        "fitnets": ("FitNets", _two_stages(hint, {"methods": _SOFT_FALLING}, epochs)),
        "fsp": ("FSP, then labels", _two_stages(flow, {}, epochs)),
        "anc": (
            "adversarial (features)",
            {"label_weight": 0.0, "methods": l2, "adversarial": game},
        ),
        "conditional": (
            "conditional adversarial",
            {
                "label_weight": 1.0,
                "methods": {"logits_l1": {}},
                "conditional": {"adversarial_weight": 1.0},
            },
        ),
        "confidence": (
            "confidence-weighted labels",
            {"label_weight": 0.0, "methods": {"confidence_weighted_labels": {}}},
        ),
        "permuted": (
            "permuted soft targets",
            {"label_weight": 0.0, "methods": {"permuted_soft_targets": {}}},
        ),
        "born_again": ("born-again, generation 2", {"born_again": {"generations": 2}}),
    }


def get_table(size: str = "full") -> dict:
    rows = {
        f"{method}_{percent}": {
            "label": label,
            "group": f"{percent} %",
            "baseline": method == "alone",
        }
        for percent in _SHARES
        for method, (label, _) in _methods(4).items()
    }
    rows[_UNLABELLED] = {"label": "soft targets, no label", "group": "100 %"}
    teacher = {"label": "teacher", "group": "100 %", "run": "alone_100", "model": "teacher"}
    return {
        "title": "Fashion-MNIST: distillation with few labelled images",
        "seeds": (0,) if size == "smoke" else (0, 1, 2),
        "columns": ("error", "file_error", "epochs", "cpu_seconds"),
        "spread": "error",
        "rows": {"teacher": teacher, **rows},
    }


def get_config(run: str = "soft_targets_1") -> ConfigDict:
    size, _, run = run.rpartition("/")
    unlabelled = run == _UNLABELLED
    method, _, percent = ("soft_targets_100" if unlabelled else run).rpartition("_")
    epochs = 2 if size == "smoke" else _SHARES[int(percent)]
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "name": "fashion_mnist",
            "batch_size": 32,
            "validation": 0.05,
            "mean": (0.2860406,),
            "std": (0.35302427,),
        }
    )
    live = method in ("fitnets", "fsp")  # they read maps, too large a cache for all images
    config.teacher = ConfigDict(
        {"model": "resnet20", "epochs": 8, "cache": {"views": 0 if live else 1}}
    )
    config.student = ConfigDict(
        {
            "model": "convnet-16-32-64",
            "epochs": epochs,
            "optimizer": {"learning_rate": _L1_RATE if method == "l1" else _RATE},
            "transfer_set": {"share": int(percent) / 100},
        }
    )
    config.distillation = ConfigDict(_methods(epochs)[method][1])
    if unlabelled:
        config.distillation.label_weight = 0.0
    config.compression = []
    config.verify = ConfigDict({"agreement": 0.5})  # a row against us stays in the table
    if size == "smoke":
        config.update(_SMOKE)
    return config
