"""Compression with and without a teacher, on three students, a table for each.

    fashion_mnist     Network in Network -> LeNet-4 (33,770 parameters)
    cifar10_resnet8   ResNet-56 -> ResNet-8 (78,714 parameters, MLPerf Tiny's size)
    cifar10_resnet20  ResNet-56 -> ResNet-20 (273,258 parameters)

`KD_TEACHERS` is a folder with the trained teachers' weights: `fashion_mnist_nin.npz` (7.30 % test
error) and `cifar10_resnet56.npz` (6.61 %). Configs of these pairs, in the folder above, say how
they are trained. Each row is a run of its own, which takes data, the teacher's cache and the two
float students from the runs before it.

On Fashion-MNIST there is no augmentation, under which so small a student fits neither labels nor
teacher. What is chosen here (epochs, temperature, weights of the losses) was chosen on validation
splits.

ResNet-20 has 12 epochs where ResNet-8 has 20, and half of its epochs after each compression, all
in bfloat16: what two cores can do.

Time on two cores, a seed: 25 minutes, 50 minutes, 45 minutes (two seeds side by side, a core each,
took an hour and a half). Command:

    KD_TEACHERS=DIR kd-table --table=configs/tables/compression.py:fashion_mnist \
        --output=docs/results/compression --latency
"""

from ml_collections import ConfigDict

_SGD = {"name": "sgd", "learning_rate": 0.1, "weight_decay": 1e-4, "warmup_epochs": 1.0}
_CIFAR10 = {
    "data": {
        "name": "cifar10",
        "batch_size": 128,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "augmentation": {"horizontal_flip": {}, "pad_and_crop": {"padding": 4}},
    },
    "teacher": {
        "model": "resnet56",
        "options": {"shortcut": "A"},
        "path": "$KD_TEACHERS/cifar10_resnet56.npz",
        "cache": {"views": 4},
    },
}
_STUDENTS: dict[str, dict] = {
    "fashion_mnist": {
        "title": "Fashion-MNIST: Network in Network -> LeNet-4",
        "tuning_epochs": 8,
        "filters": {},  # LeNet-4's first layer has 4
        "data": {
            "name": "fashion_mnist",
            "batch_size": 128,
            "mean": (0.2860406,),
            "std": (0.35302427,),
        },
        "teacher": {
            "model": "nin",
            "path": "$KD_TEACHERS/fashion_mnist_nin.npz",
            "cache": {"views": 1},
        },
        "student": {"model": "lenet4", "epochs": 50, "optimizer": {"learning_rate": 2e-3}},
    },
    "cifar10_resnet8": {
        "title": "CIFAR-10: ResNet-56 -> ResNet-8",
        "tuning_epochs": 4,
        "filters": {"multiple": 8},  # 11 filters take a CPU as long as 16
        **_CIFAR10,
        "student": {"model": "resnet8", "epochs": 20, "optimizer": _SGD},
    },
    "cifar10_resnet20": {
        "title": "CIFAR-10: ResNet-56 -> ResNet-20",
        "tuning_epochs": 2,
        "filters": {"multiple": 16, "epochs": 4},  # a CPU computes 16 at a time
        "precision": "bfloat16",
        **_CIFAR10,
        "student": {"model": "resnet20", "epochs": 12, "optimizer": _SGD},
    },
}


def _runs(name: str) -> dict[str, tuple[str, bool, list[dict]]]:
    """The label of each run, whether a teacher teaches it, and its compression."""
    setting = _STUDENTS[name]
    epochs = setting["tuning_epochs"]
    quantization = {"technique": "quantization", "epochs": epochs // 2}
    clustering = {"technique": "clustering", "clusters": 16, "epochs": epochs // 2}
    filters = {"technique": "filter_pruning", "multiply_adds": 0.5, "epochs": epochs}
    filters.update(setting["filters"])
    low_rank = {"technique": "low_rank", "multiply_adds": 0.5, "epochs": epochs}
    student = setting["student"]
    scratch = {**filters, "from_scratch": True, **{k: student[k] for k in ("epochs", "optimizer")}}

    def pruning(sparsity: float) -> dict:
        return {"technique": "pruning", "sparsity": sparsity, "epochs": epochs}

    shares = (50, 75, 90)
    return {
        "float_alone": ("float, alone", False, []),
        "qat_alone": ("QAT, alone", False, [quantization]),
        **{f"pruned{s}_alone": (f"{s} % pruned, alone", False, [pruning(s / 100)]) for s in shares},
        "filters_alone": ("half the multiply-adds, alone", False, [filters]),
        "float_distilled": ("float, distilled", True, []),
        "qat": ("QAT, distilled", True, [quantization]),
        **{f"pruned{s}": (f"{s} % pruned, distilled", True, [pruning(s / 100)]) for s in shares},
        "pqat50": ("50 % pruned, QAT, distilled", True, [pruning(0.5), quantization]),
        "pcqat50": (
            "50 % pruned, 16 clusters, QAT, distilled",
            True,
            [pruning(0.5), clustering, {**quantization, "keep_clusters": True}],
        ),
        "filters": ("half the multiply-adds, distilled", True, [filters]),
        "filters_scratch": ("that shape from scratch, distilled", True, [scratch]),
        "low_rank": ("low rank, half the multiply-adds, distilled", True, [low_rank]),
    }


def get_table(name: str) -> dict:
    """A float student's run gives two rows: its own file, and that file quantized."""
    rows = {
        "float_alone": {"label": "float, alone", "file": "float32", "baseline": True},
        "float_distilled": {"label": "float, distilled", "file": "float32"},
        "ptq_alone": {
            "label": "int8 after training, alone",
            "run": "float_alone",
            "baseline": True,
        },
        "ptq": {"label": "int8 after training, distilled", "run": "float_distilled"},
    }
    own = {
        run: {"label": label, "baseline": not taught}
        for run, (label, taught, steps) in _runs(name).items()
        if steps
    }
    return {"title": _STUDENTS[name]["title"], "seeds": (0, 1, 2), "rows": {**rows, **own}}


def get_config(run: str = "fashion_mnist/pqat50") -> ConfigDict:
    name, _, run = run.partition("/")
    _, taught, compression = _runs(name)[run]
    soft_targets = {"soft_targets": {"temperature": 4.0, "weight": 0.9}}
    config = ConfigDict({key: _STUDENTS[name][key] for key in ("data", "teacher", "student")})
    config.precision = _STUDENTS[name].get("precision", "float32")
    config.distillation = ConfigDict({"methods": soft_targets if taught else {}})
    config.compression = compression
    config.verify = ConfigDict({"agreement": 0.5})  # a row against us stays in the table
    return config
