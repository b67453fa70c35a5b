"""scikit-learn's digits: born-again networks, three generations of the student.

Source (Furlanello et al. 2017): generation k minimises CE(y, p_k) + CE(p_{k-1}, p_k); on CIFAR-100
a DenseNet-BC-112-33 goes from 18.25 % errors to 17.61, 17.22 and 16.59 %, and the ensembles of the
first two and three generations to 15.77 and 15.68 %. Here generation 0 is the bigger teacher of the
config; "generations" in `report.json` holds the accuracy of each generation and ensemble.

Time: about 3 minutes on two cores. Command:

    kd-train --config=configs/digits_born_again.py --workdir=runs/digits_born_again
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
            "epochs": 2 if smoke else 40,
            "optimizer": {"learning_rate": 3e-3},
        }
    )
    config.distillation = ConfigDict({"born_again": {"generations": 2 if smoke else 3}})
    config.compression = [
        {"technique": "pruning", "sparsity": 0.5, "epochs": 1 if smoke else 10},
        {"technique": "quantization", "epochs": 1 if smoke else 5},
    ]
    config.verify = ConfigDict({"agreement": 0.5 if smoke else 0.95})
    config.benchmark = ConfigDict({"runs": 50 if smoke else 500})
    return config
