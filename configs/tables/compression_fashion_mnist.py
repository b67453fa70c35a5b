"""Compression with and without a teacher: Fashion-MNIST, Network in Network -> LeNet-4.

Each row is a run of its own that takes the data, the teacher's cache and the two float students
from the rows before it. `KD_TEACHERS` is a folder that holds a trained teacher's weights,
`fashion_mnist_nin.npz` (7.30 % test error); the fashion_mnist config says how one is trained.

There is no augmentation, under which so small a student fits neither labels nor teacher; the
epochs, the temperature and the weights of the losses were chosen on the validation split.

Time: about 25 minutes a seed on two cores. Command:

    KD_TEACHERS=DIR kd-table --table=configs/tables/compression_fashion_mnist.py
"""

from ml_collections import ConfigDict

TITLE = "Fashion-MNIST: Network in Network -> LeNet-4 (33,770 parameters)"
SEEDS = (0, 1, 2)


def _quantization(epochs: int = 4) -> dict:
    return {"technique": "quantization", "epochs": epochs}


def _pruning(sparsity: float, epochs: int = 8) -> dict:
    return {"technique": "pruning", "sparsity": sparsity, "epochs": epochs}


def _filters(**options) -> dict:
    return {"technique": "filter_pruning", "multiply_adds": 0.5, "epochs": 8, **options}


#: Name -> label, whether a teacher teaches, the compression, and the file that is measured.
_RUNS = {
    "float_alone": ("float, alone", False, []),
    "qat_alone": ("quantization-aware, alone", False, [_quantization()]),
    "pruned50_alone": ("50 % pruned, alone", False, [_pruning(0.5)]),
    "pruned75_alone": ("75 % pruned, alone", False, [_pruning(0.75)]),
    "pruned90_alone": ("90 % pruned, alone", False, [_pruning(0.9)]),
    "filters_alone": ("half the multiply-adds, alone", False, [_filters()]),
    "float_distilled": ("float, distilled", True, []),
    "qat": ("quantization-aware, distilled", True, [_quantization()]),
    "pruned50": ("50 % pruned, distilled", True, [_pruning(0.5)]),
    "pruned75": ("75 % pruned, distilled", True, [_pruning(0.75)]),
    "pruned90": ("90 % pruned, distilled", True, [_pruning(0.9)]),
    "pqat50": ("50 % pruned + QAT, distilled", True, [_pruning(0.5), _quantization()]),
    "pcqat50": (
        "50 % pruned + 16 clusters + QAT, distilled",
        True,
        [
            _pruning(0.5),
            {"technique": "clustering", "clusters": 16, "epochs": 4},
            {**_quantization(), "keep_clusters": True},
        ],
    ),
    "filters": ("half the multiply-adds, distilled", True, [_filters()]),
    "filters_scratch": (
        "that shape from scratch, distilled",
        True,
        [_filters(from_scratch=True, epochs=50, optimizer={"learning_rate": 2e-3})],
    ),
    "low_rank": (
        "low rank, half the multiply-adds, distilled",
        True,
        [{"technique": "low_rank", "multiply_adds": 0.5, "epochs": 8}],
    ),
}
#: The rows of the table. A float student's run gives two: its own file, and that file quantized.
ROWS = {
    "float_alone": {"label": "float, alone", "file": "float32"},
    "float_distilled": {"label": "float, distilled", "file": "float32"},
    "ptq_alone": {"label": "int8 after training, alone", "run": "float_alone"},
    "ptq": {"label": "int8 after training, distilled", "run": "float_distilled"},
    **{name: {"label": label} for name, (label, _, compression) in _RUNS.items() if compression},
}


def get_config(run: str = "pqat50") -> ConfigDict:
    _, taught, compression = _RUNS[run]
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
        {
            "model": "nin",
            "path": "$KD_TEACHERS/fashion_mnist_nin.npz",
            "cache": {"views": 1},
        }
    )
    config.student = ConfigDict(
        {"model": "lenet4", "epochs": 50, "optimizer": {"learning_rate": 2e-3}}
    )
    soft_targets = {"soft_targets": {"temperature": 4.0, "weight": 0.9}}
    config.distillation = ConfigDict({"methods": soft_targets if taught else {}})
    config.compression = compression
    config.verify = ConfigDict({"agreement": 0.5})  # a row against us stays in the table
    return config
