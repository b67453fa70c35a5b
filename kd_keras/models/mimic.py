"""Shallow mimic nets with a linear bottleneck (Ba and Caruana 2014), ``mimic-64c-1200-30000``.

One wide ReLU layer learns a deep teacher's logits. A linear layer before it, much narrower,
factorizes its weight matrix: without it the net would learn far too slowly. In front stands nothing
(``mimic-B-W``, on the flattened image) or one convolution with pooling (``mimic-Cc-B-W``; "64c-p-
1200L-30k" in the publication).

The publication gives 54M parameters for ``mimic-64c-1200-30000`` and 70M for 128c, but neither
kernel nor pooling. Here: 5x5 SAME convolution with ReLU, 3x3 max pooling with stride 2, unpadded:
15x15 maps, 53.6M and 70.9M parameters and, with the 32x32 maps before pooling, 111k and 191k hidden
units (the publication: 110k and 190k). 16x16 maps would have 56M.

Taps: ``stage1`` (the pooled maps) and ``stage2`` (the linear bottleneck), or ``stage1`` (the
bottleneck) where there is no convolution; ``features`` (the wide layer), ``logits``.
"""

import re

import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.models.ends import class_logits, image_input
from kd_keras.models.family import Family

_NAME = re.compile(r"mimic(?:-([1-9]\d*)c)?-([1-9]\d*)-([1-9]\d*)")
_WINDOW = 3


def build_mimic(name: str, *, classes: int, input_shape: tuple[int, int, int]) -> tf.keras.Model:
    """Builds e.g. ``mimic-1200-30000`` or ``mimic-64c-1200-30000``.

    Args:
        name: ``"mimic"``, optionally the channels of the convolution with a ``c``, the width of
            the linear bottleneck, the width of the ReLU layer.
        classes: number of classes.
        input_shape: ``(height, width, channels)``; at least 3x3 before a convolution.

    Returns:
        The model, named ``name``.

    Raises:
        InputError: the image is smaller than the pooling window.
    """
    channels, bottleneck, width = _NAME.fullmatch(name).groups()  # type: ignore[union-attr]
    layers = tf.keras.layers
    x = image = image_input(input_shape)
    if channels is not None:
        if min(input_shape[:2]) < _WINDOW:
            raise InputError(
                f"input_shape {input_shape} is too small for {name}; it needs at least "
                f"{_WINDOW}x{_WINDOW} pixels (mimic-{bottleneck}-{width} takes smaller ones)"
            )
        # ReLU inside the layer: tfmot leaves a kernel in float if a ReLU layer follows directly.
        x = layers.Conv2D(
            int(channels),
            5,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
            name="conv1",
        )(x)
        x = layers.MaxPooling2D(_WINDOW, 2, name="stage1")(x)
    x = layers.Flatten(name="flatten")(x)
    linear = "stage1" if channels is None else "stage2"
    x = layers.Dense(int(bottleneck), kernel_initializer="lecun_normal", name=linear)(x)
    features = layers.Dense(
        int(width), activation="relu", kernel_initializer="he_normal", name="features"
    )(x)
    return tf.keras.Model(image, class_logits(features, classes), name=name)


FAMILY = Family(
    pattern=_NAME.pattern,
    examples=("mimic-64c-1200-30000", "mimic-1200-30000"),
    build=build_mimic,
)
