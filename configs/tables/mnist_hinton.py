"""MNIST, 2x1200 -> 2x800 (Hinton, Vinyals, Dean 2015, section 3), beside the paper's errors.

    teacher     two layers of 1,200 units, dropout, max-norm, inputs shifted by up to 2 pixels:
                67 errors of 10,000
    student     two layers of 800 units without regularization: 146; with soft targets at T = 20: 74
    without 3s  soft targets on a transfer set without the digit 3: 206, of which 133 are on the
                1,010 threes; with the bias of class 3 raised by 3.5: 109, of which 14 on threes
                (98.6 % of them right)

The teacher drops hidden units only: with a fifth of the pixels dropped as well it was worse after
20 epochs (1.18 for 1.04 % on validation images, one seed). It needs long: after 100 epochs in
batches of 128 it had 0.88 %, after 240 in batches of 512 0.76 %. Students of these two teachers had
1.28 (40 epochs) and 1.02 % (80; at half the learning rate 1.08).

As in the paper the student never sees a shifted image: what it knows of them comes from the
teacher. Two more rows, ours, show it shifted images as well.

We train on 55,000 images and keep 5,000 to choose by; the paper trains on all 60,000. It chose the
bias on the test images ("which optimizes overall performance on the test set"), we on those 5,000,
and do not say which offset is best on the test set. The transfer set could not choose it: it has
no 3s. The paper does not tell the weights of its two losses; ours are 0.9 for soft targets (with
their factor T^2) and 0.1 for labels. Files are int8, quantized after training.

Time on one core, a seed: 45 minutes (the teacher's 240 epochs 6 s each; six students of 80).
Needs MNIST (`TFDS_DATA_DIR`). `mnist_hinton.py:smoke` has the same
rows at a size of minutes. Command:

    kd-table --table=configs/tables/mnist_hinton.py --output=docs/results
"""

from ml_collections import ConfigDict

_SMOKE = {
    "data": {"limit": 600, "batch_size": 128},
    "teacher": {"epochs": 2},
    "student": {"epochs": 2},
}
_AS_IT_IS = {"augmented": False}
_NO_THREES = {"augmented": False, "without_classes": (3,)}
#: Of each run: its label, the source's error in %, the transfer set, whether a teacher teaches.
_RUNS: dict[str, tuple[str, str, dict, bool]] = {
    "alone": ("2x800, no regularization", "1.46", _AS_IT_IS, False),
    "soft_targets": ("soft targets", "0.74", _AS_IT_IS, True),
    "alone_shifted": ("2x800, shifted images", "", {}, False),
    "soft_targets_shifted": ("soft targets, shifted images", "", {}, True),
    "alone_without_3": ("2x800, without 3s", "", _NO_THREES, False),
    "without_3": ("soft targets, without 3s", "2.06 (3s: 13.17)", _NO_THREES, True),
    "without_3_bias": ("the same, bias of 3 raised", "1.09 (3s: 1.39)", _NO_THREES, True),
}


def get_table(size: str = "full") -> dict:
    teacher = {"label": "teacher, 2x1200", "source": "0.67"}
    students = {
        run: {"label": label, "source": source, "baseline": not taught}
        for run, (label, source, _, taught) in _RUNS.items()
    }
    return {
        "title": "MNIST: Hinton, Vinyals and Dean's 2x1200 -> 2x800",
        "seeds": (0,) if size == "smoke" else (0, 1, 2, 3, 4),
        "columns": ("error", "file_error", "epochs", "bytes", "cpu_seconds"),
        "classes": ("3",),
        "spread": "error",
        "rows": {"teacher": {**teacher, "run": "soft_targets", "model": "teacher"}, **students},
    }


def get_config(run: str = "soft_targets") -> ConfigDict:
    size, _, run = run.rpartition("/")
    _, _, transfer_set, taught = _RUNS[run]
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "name": "mnist",
            "batch_size": 512,
            "validation": 1 / 12,
            "mean": (0.1307,),
            "std": (0.3081,),
            "augmentation": {"shift": {"pixels": 2}},
        }
    )
    config.teacher = ConfigDict(
        {
            "model": "mlp-1200-1200",
            "options": {"dropout": 0.5, "max_norm": 3.0},
            "epochs": 240,  # so strongly regularized, it learns slowly
            "optimizer": {"learning_rate": 2e-3},
            # Shifted images are new in every epoch, so no cache can hold them.
            "cache": {"views": 1 if transfer_set else 0},
        }
    )
    config.student = ConfigDict(
        {
            "model": "mlp-800-800",
            "epochs": 80,
            "optimizer": {"learning_rate": 4e-3},
            "transfer_set": transfer_set,
        }
    )
    soft_targets = {"soft_targets": {"temperature": 20.0, "weight": 0.9}}
    config.distillation = ConfigDict({"methods": soft_targets if taught else {}})
    raised = {"technique": "class_bias", "classes": (3,)}
    config.compression = [raised] if run == "without_3_bias" else []
    config.verify = ConfigDict({"agreement": 0.5})  # a row against us stays in the table
    if size == "smoke":
        config.update(_SMOKE)
    return config
