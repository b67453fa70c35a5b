"""CIFAR-10, WRN-40-10 -> WRN-10-4, by conditional adversarial networks: the source's own pair.

Source (Xu, Hsu, Huang 2018), test errors, the median of five runs: teacher 4.19 %, student alone
7.46 %, soft targets at T = 10 6.94 %; this config's L_S + L_L1 + L_GAN 6.09 %. The other rows of
its Table 2 are flags:

    L_GAN         14.82  --config.distillation.label_weight=0 --config.distillation.methods={}
    L_S + L_GAN    6.56  --config.distillation.methods={}
    L_S + L_L1     6.44  --config.distillation.conditional={}

As there: SGD, dropout 0.3 in the student and in D, a D of three layers. The rest is Zagoruyko and
Komodakis' (2016) training of wide residual networks, with a cosine in the place of steps. Files are
quantized after training.

Time: for a GPU; not measured there. On two cores an epoch of the teacher alone would take more
than a day. The smoke size takes 5 to 10 minutes. Command:

    kd-train --config=configs/cifar10_wrn40x10_to_wrn10x4.py --workdir=runs/cifar10_conditional
"""

from ml_collections import ConfigDict


def get_config(size: str = "full") -> ConfigDict:
    smoke = size == "smoke"
    sgd = {"name": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4, "warmup_epochs": 1.0}
    epochs = 1 if smoke else 200
    config = ConfigDict()
    config.data = ConfigDict(
        {
            "name": "cifar10",
            "batch_size": 8 if smoke else 128,
            "limit": 16 if smoke else 0,
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "augmentation": {"horizontal_flip": {}, "pad_and_crop": {"padding": 4}},
        }
    )
    config.teacher = ConfigDict({"model": "wrn-40-10", "epochs": epochs, "optimizer": sgd})
    config.student = ConfigDict(
        {"model": "wrn-10-4", "options": {"dropout": 0.3}, "epochs": epochs, "optimizer": sgd}
    )
    config.distillation = ConfigDict(
        {
            "label_weight": 1.0,
            "methods": {"logits_l1": {}},
            "conditional": {"adversarial_weight": 1.0, "gan_form": "saturating"},
        }
    )
    config.compression = []
    config.verify = ConfigDict({"agreement": 0.1 if smoke else 0.97})
    return config
