"""scikit-learn's digits: two teachers of different architectures, conditional adversarial networks.

Sources: Hinton, Vinyals, Dean 2015 (an ensemble as teacher); Xu, Hsu, Huang 2018, whose table 2 is
five settings of this config's `distillation`, with its errors on CIFAR-10 (WRN-40-10 -> WRN-10-4):

    L_S                 7.46   label_weight 1, no methods, adversarial_weight 0
    L_GAN              14.82   label_weight 0, no methods, adversarial_weight 1
    L_S + L_GAN         6.56   label_weight 1, no methods, adversarial_weight 1
    L_S + L_L1          6.44   label_weight 1, methods {"logits_l1": {}}, adversarial_weight 0
    L_S + L_L1 + L_GAN  6.09   label_weight 1, methods {"logits_l1": {}}, adversarial_weight 1

Time: about 2 minutes on two cores. Command:

    kd-train --config=configs/digits_ensemble_conditional.py --workdir=runs/digits_conditional
"""

from ml_collections import ConfigDict


def get_config(size: str = "full") -> ConfigDict:
    smoke = size == "smoke"
    config = ConfigDict()
    config.data = ConfigDict({"name": "digits", "batch_size": 32})
    config.teacher = ConfigDict(
        {
            "members": {"convnet": {"model": "convnet-32-64-64"}, "mlp": {"model": "mlp-256-256"}},
            "mean": "arithmetic",
            "epochs": 2 if smoke else 30,
        }
    )
    config.student = ConfigDict(
        {
            "model": "convnet-8-8-16",
            "epochs": 2 if smoke else 40,
            "optimizer": {"learning_rate": 3e-3},
        }
    )
    config.distillation = ConfigDict(
        {
            "label_weight": 1.0,
            "methods": {"logits_l1": {}},
            "conditional": {"adversarial_weight": 1.0, "gan_form": "saturating"},
        }
    )
    config.compression = [
        {"technique": "pruning", "sparsity": 0.5, "epochs": 1 if smoke else 10},
        {"technique": "quantization", "epochs": 1 if smoke else 5},
    ]
    config.verify = ConfigDict({"agreement": 0.5 if smoke else 0.95})
    config.benchmark = ConfigDict({"runs": 50 if smoke else 500})
    return config
