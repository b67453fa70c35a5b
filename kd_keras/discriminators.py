"""Discriminators by a short spec: `"128-256-128"` reads vectors, `"conv128-conv256"` maps."""

import re
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from kd_keras import taps
from kd_keras.errors import InputError

#: The ten that Belagiannis et al. 2018 compare on CIFAR-100, the best first (32.45 to 33.72 %).
PUBLISHED = (
    *("128-256-128", "64-128-256", "256-256", "256-128-64", "64-128-64"),
    *("500-500", "256-64", "64-64", "conv128-conv256", "128-128"),
)
_SPEC = re.compile(r"(conv[1-9]\d*-)*(conv)?[1-9]\d*(-[1-9]\d*)*")


def check_spec(spec: str) -> str:
    """Return the spec, or refuse one that `build` does not understand.

    Raises:
        InputError: With what a spec looks like.
    """
    if not (isinstance(spec, str) and _SPEC.fullmatch(spec)):
        raise InputError(
            f"discriminator {spec!r} is no spec: give the units of its hidden layers, as in "
            "'128-256-128' (fully connected) or 'conv128-conv256-64' (convolutions first), or a "
            "Keras model"
        )
    return spec


def reads_maps(spec: str) -> bool:
    """Whether a spec's discriminator reads feature maps rather than vectors.

    >>> reads_maps("conv128-conv256"), reads_maps("128-256-128")
    (True, False)
    """
    return check_spec(spec).startswith("conv")


def build(spec: str, input_shape: Sequence, outputs: int = 1, dropout: float = 0.0) -> Any:
    """A discriminator `(batch, *input_shape) -> (batch, outputs)` that gives logits, in float32.

    A number is a dense layer of so many units with ReLU. `conv` before it makes it a 3x3
    convolution with padding, stride 2 and ReLU; after the last one the map is averaged over its
    positions. So a map may have any height and width, and a score needs no more weights for a
    larger one. The paper gives the channels of its convolutional discriminator and no more.

    Args:
        spec: Hidden layers, joined by `-`; convolutions before dense layers.
        input_shape: `(width,)`, or `(height, width, channels)` if the spec begins with `conv`;
            height and width may be None.
        outputs: Number of logits.
        dropout: Rate of the dropout after every hidden layer, in [0, 1).

    Raises:
        InputError: If the spec is malformed or does not fit the shape.

    Example:
        >>> build("conv8-16", (6, 6, 3)).output_shape
        (None, 1)
    """
    shape = tuple(input_shape)
    _check_shape(check_spec(spec), shape)
    inputs = x = tf.keras.Input(shape, dtype="float32")
    for part in spec.split("-"):
        if not part.startswith("conv") and len(x.shape) == 4:
            x = _pool(x)
        x = _hidden(part)(x)
        x = tf.keras.layers.Dropout(dropout, dtype="float32")(x) if dropout else x
    x = _pool(x) if len(x.shape) == 4 else x
    scores = tf.keras.layers.Dense(outputs, dtype="float32", name="score")(x)
    return tf.keras.Model(inputs, scores, name="discriminator")


def fully_connected(width: int, units: Sequence[int] = (128, 256, 128)) -> Any:
    """A discriminator of feature vectors: `(batch, width) -> (batch, 1)`, a logit.

    128-256-128 is the best of the ten that Belagiannis et al. 2018 compare.
    """
    return build("-".join(map(str, units)), (width,))


def check_model(model: Any) -> None:
    """Refuse a discriminator that does not give logits `(batch,)` or `(batch, outputs)`.

    Raises:
        InputError: If the model is not built, ends in softmax or sigmoid, or gives something else.
    """
    if taps.input_specs(model) is None:
        name = getattr(model, "name", model)
        raise InputError(
            f"discriminator {name!r} is not a built Functional or Sequential model: begin it "
            "with tf.keras.Input((width,)), or give a spec such as '128-256-128'"
        )
    scores = taps.trace(model, from_logits=True, role="discriminator").logits
    if scores.shape.rank not in (1, 2):
        raise InputError(
            f"discriminator {model.name!r} gives {scores.shape}; it must give its logits as "
            "(batch, outputs): end it with a Dense layer"
        )


def outputs_of(model: Any) -> int:
    """How many logits a discriminator gives of each example."""
    shape = model.output_shape
    return shape[1] if len(shape) == 2 else 1


def _hidden(part: str) -> Any:
    if part.startswith("conv"):
        return tf.keras.layers.Conv2D(
            int(part[4:]), 3, strides=2, padding="same", activation="relu", dtype="float32"
        )
    return tf.keras.layers.Dense(int(part), activation="relu", dtype="float32")


def _pool(x: Any) -> Any:
    return tf.keras.layers.GlobalAveragePooling2D(dtype="float32")(x)


def _check_shape(spec: str, shape: tuple) -> None:
    if reads_maps(spec) and len(shape) != 3:
        raise InputError(
            f"discriminator {spec!r} reads feature maps (height, width, channels), but what it "
            f"would read has the shape {shape}: name layers that give maps, or use a fully "
            "connected one such as '128-256-128'"
        )
    if not reads_maps(spec) and len(shape) != 1:
        raise InputError(
            f"discriminator {spec!r} reads vectors (width,), but what it would read has the shape "
            f"{shape}: name layers that give vectors, or use 'conv128-conv256' for feature maps"
        )
