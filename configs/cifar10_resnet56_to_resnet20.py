"""CIFAR-10, ResNet-56 -> ResNet-20, soft targets.

The networks and the augmentation are He et al.'s (2016): their ResNet-56 has 6.97 % test error,
their ResNet-20 8.75 %. A trained teacher in the .npz form (93.39 % here) is given with
--config.teacher.path=cifar10_resnet56.npz and must be of shortcut "A"; without the path, one is
trained.

Time on two cores: the student takes about 82 s an epoch alone and 155 s under the teacher; the
teacher 240 s. The smoke size takes a minute. Command:

    kd-train --config=configs/cifar10_resnet56_to_resnet20.py --workdir=runs/cifar10 \
        --config.teacher.path=cifar10_resnet56.npz
"""

from ml_collections import ConfigDict


def get_config(size: str = "full") -> ConfigDict:
    smoke = size == "smoke"
    sgd = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 1e-4}
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "name": "cifar10",
            "batch_size": 32 if smoke else 128,
            "limit": 128 if smoke else 0,
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "augmentation": {"horizontal_flip": {}, "pad_and_crop": {"padding": 4}},
        }
    )
    config.teacher = ConfigDict(
        {
            "model": "resnet56",
            "options": {"shortcut": "A"},
            "epochs": 1 if smoke else 182,
            "optimizer": {**sgd, "warmup_epochs": 1.0},
        }
    )
    config.student = ConfigDict(
        {"model": "resnet20", "epochs": 1 if smoke else 182, "optimizer": sgd}
    )
    config.distillation = ConfigDict(
        {
            "label_weight": 0.1,
            "methods": {"soft_targets": {"temperature": 4.0, "weight": 0.9}},
        }
    )
    config.compression = [
        {"technique": "pruning", "sparsity": 0.5, "epochs": 1 if smoke else 20},
        {"technique": "quantization", "epochs": 1 if smoke else 10},
    ]
    config.verify = ConfigDict({"agreement": 0.1 if smoke else 0.97})
    return config
