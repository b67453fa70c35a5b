"""scikit-learn's digits: 1,797 real 8x8 images that ship in a package, so no download.

A convolutional teacher, a student at least 8 times smaller, soft targets and adversarial network
compression together, then pruning to half the weights and int8. The weights of the terms and the
learning rate were chosen on the validation split.

Time: about 2 minutes on two cores. Command:

    kd-train --config=configs/quickstart.py --workdir=runs/quickstart
"""

from ml_collections import ConfigDict


def get_config(size: str = "full") -> ConfigDict:
    smoke = size == "smoke"
    config = ConfigDict()
    config.data = ConfigDict({"name": "digits", "batch_size": 32})
    config.teacher = ConfigDict({"model": "convnet-32-64-64", "epochs": 2 if smoke else 30})
    config.student = ConfigDict(
        {
            "model": "convnet-8-8-16",
            "epochs": 2 if smoke else 50,
            "optimizer": {"learning_rate": 3e-3},
        }
    )
    config.distillation = ConfigDict(
        {
            "label_weight": 0.1,
            "methods": {"soft_targets": {"temperature": 4.0, "weight": 0.9}},
            "adversarial": {
                "adversarial_weight": 0.02,
                "regularizer": "adversarial",
                "dropout": 0.5,
            },
        }
    )
    config.compression = [
        {"technique": "pruning", "sparsity": 0.5, "epochs": 1 if smoke else 10},
        {"technique": "quantization", "epochs": 1 if smoke else 5},
    ]
    config.verify = ConfigDict({"agreement": 0.5 if smoke else 0.95})
    config.benchmark = ConfigDict({"runs": 50 if smoke else 500})
    return config
