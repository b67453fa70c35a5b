"""What every network of this package shares: its first and last layer, and a check."""

from typing import Any

import tensorflow as tf

from kd_keras.errors import InputError


def image_input(input_shape: tuple[int, int, int]) -> Any:
    """The input ``image``: float32, ``(batch,) + input_shape``, normalised by the data pipeline."""
    return tf.keras.Input(shape=input_shape, dtype="float32", name="image")


def class_logits(features: Any, classes: int) -> Any:
    """The layer ``logits``: linear, ``(batch, d) -> (batch, classes)``.

    Always float32, also under a mixed-precision policy: float16 logits lose the small differences
    that soft targets are made of.
    """
    return tf.keras.layers.Dense(classes, name="logits", dtype="float32")(features)


def dropout_rate(rate: float, option: str = "dropout") -> float:
    """``rate`` as a float; InputError when it is outside [0, 1)."""
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
        raise InputError(f"{option} {rate!r} is not a rate; give a number from 0 to below 1")
    return float(rate)
