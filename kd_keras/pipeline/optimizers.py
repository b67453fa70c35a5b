"""Optimizers of a config, with their learning rate's schedule laid over the epochs."""

from typing import Any

import tensorflow as tf
from ml_collections import ConfigDict

from kd_keras.errors import InputError

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine")


def make(settings: ConfigDict, *, epochs: int, steps_per_epoch: int) -> Any:
    """The optimizer of a config section, its schedule laid over the epochs.

    Raises:
        InputError: For an unknown optimizer or schedule.
    """
    if settings.name not in OPTIMIZERS:
        raise InputError(
            f"optimizer {settings.name!r} does not exist; there are: {', '.join(OPTIMIZERS)}"
        )
    if settings.schedule not in SCHEDULES:
        raise InputError(
            f"schedule {settings.schedule!r} does not exist; there are: {', '.join(SCHEDULES)}"
        )
    rate: Any = settings.learning_rate
    if settings.schedule == "cosine":
        warmup = int(settings.warmup_epochs * steps_per_epoch)
        rate = tf.keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else rate,
            decay_steps=max(1, epochs * steps_per_epoch - warmup),
            warmup_target=rate if warmup else None,
            warmup_steps=warmup,
        )
    decay = settings.weight_decay or None
    if settings.name == "sgd":
        momentum = settings.momentum
        return tf.keras.optimizers.SGD(rate, momentum, nesterov=momentum > 0, weight_decay=decay)
    if settings.name == "adam":
        return tf.keras.optimizers.Adam(rate, weight_decay=decay)
    return tf.keras.optimizers.AdamW(rate, weight_decay=decay or 0.0)
