"""Fashion-MNIST, Network in Network -> a small convolutional net, of the size that a phone allows.

Soft targets (Hinton, Vinyals, Dean 2015) with quantization-aware training; `kd-search` walks the
net's widths, its zeros and two ways to int8 under limits of bytes and latency.
`docs/results/search.md` has what it found. `KD_TEACHERS` is a folder with the teacher's weights,
`fashion_mnist_nin.npz` (7.30 % test error), whose outputs are cached.

Time on two cores: the student a minute, a search of 6 trials 6 minutes. The smoke size
takes a minute and trains a teacher of its own. Commands:

    KD_TEACHERS=DIR kd-train --config=configs/fashion_mnist_convnets.py --workdir=runs/convnet
    KD_TEACHERS=DIR kd-search --config=configs/fashion_mnist_convnets.py --workdir=runs/search \
        --max_bytes=40000 --max_latency_us=20 --trials=6
"""

from ml_collections import ConfigDict


def get_config(size: str = "full") -> ConfigDict:
    smoke = size == "smoke"
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "name": "fashion_mnist",
            "batch_size": 64 if smoke else 128,
            "limit": 256 if smoke else 0,
            "mean": (0.2860406,),
            "std": (0.35302427,),
        }
    )
    config.teacher = ConfigDict({"model": "nin", "epochs": 1, "cache": {"views": 1}})
    if not smoke:
        config.teacher.path = "$KD_TEACHERS/fashion_mnist_nin.npz"
    epochs = 1 if smoke else 8
    config.student = ConfigDict(
        {"model": "convnet-16-32-64", "epochs": epochs, "optimizer": {"learning_rate": 5e-3}}
    )
    config.distillation = ConfigDict(
        {"methods": {"soft_targets": {"temperature": 4.0, "weight": 0.9}}}
    )
    tuned = max(1, epochs // 4)
    pruned = {"technique": "pruning", "sparsity": 0.5, "epochs": tuned}
    quantized = {"technique": "quantization", "epochs": tuned}
    config.compression = [quantized]
    config.verify = ConfigDict({"agreement": 0.5 if smoke else 0.97})
    widths = ("8-16-32", "8-16-32-64", "12-24-48", "16-32-64", "16-32-64-64", "24-48-96")
    config.search = ConfigDict(
        {
            "student": {"model": [f"convnet-{width}" for width in widths]},
            "compression": {"ptq": [], "qat": [quantized], "sparse50-qat": [pruned, quantized]},
        }
    )
    return config
