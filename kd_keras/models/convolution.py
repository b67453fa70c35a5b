"""What the deep convolutional families share: layers with their settings, and a check of size."""

from typing import Any

import tensorflow as tf

from kd_keras.errors import InputError


def conv(x: Any, channels: int, kernel: int, stride: int, name: str) -> Any:
    """A convolution without bias, padded by ``kernel // 2`` pixels on every side.

    With stride 1 that is TensorFlow's SAME; with a larger one it is the publications' convention,
    where SAME would pad only right and below. The padding is then a layer of its own,
    ``{name}_pad``.

    Args:
        x: ``(batch, h, w, c)``.
        channels: of the output.
        kernel: side of the kernel in pixels, odd.
        stride: in pixels.
        name: of the layer.

    Returns:
        ``(batch, ceil(h / stride), ceil(w / stride), channels)``.
    """
    padding = "same" if stride == 1 else "valid"
    if stride != 1 and kernel > 1:
        x = tf.keras.layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    return tf.keras.layers.Conv2D(
        channels,
        kernel,
        strides=stride,
        padding=padding,
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def batch_norm(x: Any, name: str) -> Any:
    """BatchNorm with the publications' momentum (0.9 for the old statistics) and epsilon."""
    return tf.keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def relu(x: Any, name: str) -> Any:
    """ReLU as a layer of its own, so that a method can read it by its name."""
    return tf.keras.layers.ReLU(name=name)(x)


def require_size(name: str, input_shape: tuple[int, int, int], halvings: int) -> None:
    """InputError when no pixel would be left after ``halvings`` poolings by 2."""
    smallest = 2**halvings
    if min(input_shape[:2]) < smallest:
        raise InputError(
            f"input_shape {input_shape} is too small for {name}, which halves it {halvings} times; "
            f"give at least {smallest}x{smallest} pixels"
        )
