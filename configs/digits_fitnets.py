"""scikit-learn's digits by FitNets: a hint first, then soft targets for the whole student.

Source (Romero et al. 2015): stage 1 trains the student up to its guided layer with
1/2 ||u - r(v)||^2, stage 2 the whole of it with the label loss and soft targets at T = 3, whose
lambda goes linearly from 4 to 1. The paper's accuracies are CIFAR-10's (teacher 90.18 %, FitNet
91.61 %); on digits there is little to gain, this config shows the form.

Time: about 2 minutes on two cores. Command:

    kd-train --config=configs/digits_fitnets.py --workdir=runs/digits_fitnets
"""

from ml_collections import ConfigDict


def get_config(size: str = "full") -> ConfigDict:
    smoke = size == "smoke"
    config = ConfigDict()
    config.data = ConfigDict({"name": "digits", "batch_size": 32})
    config.teacher = ConfigDict({"model": "convnet-32-64-64", "epochs": 2 if smoke else 30})
    config.student = ConfigDict({"model": "convnet-8-8-16", "epochs": 2 if smoke else 40})
    hint = {"teacher_layer": "stage2", "student_layer": "stage2"}
    # lambda / T^2, since soft_targets brings the factor T^2, which the paper's term has not.
    falling = {"schedule": "linear", "start": 4.0 / 9.0, "end": 1.0 / 9.0}
    soft = {"temperature": 3.0, "weight": falling}
    config.distillation = ConfigDict(
        {
            "stages": {
                "stage1": {
                    "methods": {"hint": hint},
                    "trainable": "stage2",
                    "label_weight": 0.0,
                    "epochs": 1 if smoke else 10,
                },
                "stage2": {"methods": {"soft_targets": soft}, "label_weight": 1.0},
            }
        }
    )
    config.compression = [
        {"technique": "pruning", "sparsity": 0.5, "epochs": 1 if smoke else 10},
        {"technique": "quantization", "epochs": 1 if smoke else 5},
    ]
    config.verify = ConfigDict({"agreement": 0.5 if smoke else 0.95})
    config.benchmark = ConfigDict({"runs": 50 if smoke else 500})
    return config
