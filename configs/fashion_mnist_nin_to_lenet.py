"""Fashion-MNIST, Network in Network -> LeNet-4, by adversarial network compression.

Source (Belagiannis, Farshad, Galasso 2018), test error: teacher 7.98 %, student alone 8.77 %,
student by D on features with dropout and adversarial samples 8.61 %. No label is used in the
distillation, as in the paper. The teacher's features (192) are wider than the student's (120): the
student's are projected.

Time: the teacher takes about 290 s an epoch on two cores; give a trained one with
--config.teacher.path=FILE.npz. The student takes 5 s an epoch and the teacher's forward pass 40
times that. The smoke size takes a minute. Command:

    kd-train --config=configs/fashion_mnist_nin_to_lenet.py --workdir=runs/fashion_mnist
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
            "augmentation": {"shift": {"pixels": 2}, "horizontal_flip": {}},
        }
    )
    config.teacher = ConfigDict({"model": "nin", "epochs": 1 if smoke else 12})
    config.student = ConfigDict({"model": "lenet4", "epochs": 1 if smoke else 80})
    config.distillation = ConfigDict(
        {
            "label_weight": 0.0,
            "methods": {"logits_l2": {"weight": 2.0}},
            "adversarial": {"teacher_layer": "features", "student_layer": "features"},
        }
    )
    config.compression = [
        {"technique": "pruning", "sparsity": 0.5, "epochs": 1 if smoke else 10},
        {"technique": "quantization", "epochs": 1 if smoke else 5},
    ]
    config.verify = ConfigDict({"agreement": 0.5 if smoke else 0.97})
    return config
