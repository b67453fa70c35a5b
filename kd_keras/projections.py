"""Small trained models from a student's layer to the shape of a teacher's.

They compute in float32 under any policy, and start from weights that depend on the seed alone.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def convolution(
    shape: Sequence[int],
    channels: int,
    kernel: tuple[int, int] = (1, 1),
    *,
    activation: Any = None,
    seed: int = 0,
) -> Any:
    """A convolution with bias and without padding, so that a kernel of k takes k - 1 pixels away.

    Args:
        shape: Of the student's map, `(height, width, channels)`.
        channels: Of the teacher's map.
        kernel: Height and width.
        activation: Name of a Keras activation; None is linear.
        seed: Of the weights.

    Example:
        >>> convolution((8, 8, 3), 16, kernel=(5, 5)).output_shape
        (None, 4, 4, 16)
    """
    layer = tf.keras.layers.Conv2D(
        channels, kernel, activation=activation, kernel_initializer=_initial(seed), dtype="float32"
    )
    return _model(shape, [layer])


def dense(
    shape: Sequence[int], target: Sequence[int], *, activation: Any = None, seed: int = 0
) -> Any:
    """A dense layer from all values of one layer to all values of another.

    Between vectors it is what one would write; between maps it has
    `height * width * channels` of the one times those of the other weights.

    Args:
        shape: Of the student's layer, without the batch.
        target: Of the teacher's layer, without the batch.
        activation: Name of a Keras activation; None is linear.
        seed: Of the weights.

    Example:
        >>> dense((4,), (6,)).count_params(), dense((4, 4, 2), (2, 2, 8)).output_shape
        (30, (None, 2, 2, 8))
    """
    units = int(tf.TensorShape(target).num_elements())
    layer = tf.keras.layers.Dense(
        units, activation=activation, kernel_initializer=_initial(seed), dtype="float32"
    )
    before = [tf.keras.layers.Flatten(dtype="float32")] if len(shape) > 1 else []
    after = [tf.keras.layers.Reshape(tuple(target), dtype="float32")] if len(target) > 1 else []
    return _model(shape, [*before, layer, *after])


def _initial(seed: int) -> Any:
    return tf.keras.initializers.GlorotUniform(seed)


def _model(shape: Sequence[int], layers: list) -> Any:
    start = tf.keras.Input(tuple(shape), dtype="float32")
    return tf.keras.Sequential([start, *layers], name="projection")
