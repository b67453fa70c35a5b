"""Residual networks for small images, post-activation (He, Zhang, Ren, Sun 2015, section 4.2).

A 3x3 convolution, three stages of n blocks with 16, 32 and 64 channels, global average pooling,
logits: 6n + 2 layers. Each block is conv-BN-ReLU-conv-BN, plus its input, ReLU. Where a stage
halves the size, the 3x3 convolution pads one pixel on every side (the publication's own
convention, not TensorFlow's SAME, which pads only right and below).

Taps: ``stage1``, ``stage2``, ``stage3`` (the last ReLU of each), ``features`` (64), ``logits``.
Block b of stage s owns ``stage{s}_{b}_conv1``, ``_bn1``, ``_conv2``, ``_bn2``.
"""

from typing import Any

import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.models.convolution import batch_norm, conv, relu
from kd_keras.models.ends import class_logits, image_input
from kd_keras.models.family import Family
from kd_keras.models.scaling import up_to_the_next

_DEPTHS = (8, 20, 32, 44, 56, 110, 164)
_CHANNELS = (16, 32, 64)


def build_resnet(
    name: str, *, classes: int, input_shape: tuple[int, int, int], shortcut: str = "B"
) -> tf.keras.Model:
    """Builds ``resnet8`` .. ``resnet164``.

    Args:
        name: ``"resnet"`` and the depth.
        classes: number of classes.
        input_shape: ``(height, width, channels)``.
        shortcut: where the size halves, ``"B"`` is a strided 1x1 convolution with BatchNorm and
            ``"A"`` the every-second-pixel map with zero channels around it (no weights).

    Returns:
        The model, named ``name``.

    Raises:
        InputError: ``shortcut`` is neither A nor B.
    """
    if shortcut not in ("A", "B"):
        raise InputError(f"shortcut {shortcut!r} is not possible for {name}; there are: A, B")
    blocks = (int(name.removeprefix("resnet")) - 2) // 6
    image = image_input(input_shape)
    x = conv(image, 16, 3, 1, "conv1")
    x = relu(batch_norm(x, "bn1"), "relu1")
    for stage, channels in enumerate(_CHANNELS, start=1):
        for block in range(blocks):
            stride = 2 if stage > 1 and block == 0 else 1
            out = f"stage{stage}" if block == blocks - 1 else f"stage{stage}_{block}_relu2"
            x = _block(x, channels, stride, shortcut, f"stage{stage}_{block}", out)
    features = tf.keras.layers.GlobalAveragePooling2D(name="features")(x)
    return tf.keras.Model(image, class_logits(features, classes), name=name)


def _block(x: Any, channels: int, stride: int, shortcut: str, prefix: str, out: str) -> Any:
    main = conv(x, channels, 3, stride, f"{prefix}_conv1")
    main = relu(batch_norm(main, f"{prefix}_bn1"), f"{prefix}_relu1")
    main = conv(main, channels, 3, 1, f"{prefix}_conv2")
    main = batch_norm(main, f"{prefix}_bn2")
    if stride != 1:
        x = _SHORTCUTS[shortcut](x, channels, prefix)
    return relu(tf.keras.layers.Add(name=f"{prefix}_add")([main, x]), out)


def _zero_padded_shortcut(x: Any, channels: int, prefix: str) -> Any:
    """``x[:, ::2, ::2, :]`` between ``channels / 4`` zero channels on either side.

    Spelled in pooling, reshape and padding layers because tfmot accepts these and no Lambda.
    """
    layers = tf.keras.layers
    x = layers.MaxPooling2D(1, strides=2, name=f"{prefix}_subsample")(x)
    _, height, width, narrow = x.shape
    x = layers.Reshape((height * width, narrow, 1), name=f"{prefix}_pixels")(x)
    x = layers.ZeroPadding2D(((0, 0), (channels // 4, channels // 4)), name=f"{prefix}_widen")(x)
    return layers.Reshape((height, width, channels), name=f"{prefix}_shortcut")(x)


def _projected_shortcut(x: Any, channels: int, prefix: str) -> Any:
    x = conv(x, channels, 1, 2, f"{prefix}_shortcut_conv")
    return batch_norm(x, f"{prefix}_shortcut_bn")


_SHORTCUTS = {"A": _zero_padded_shortcut, "B": _projected_shortcut}


FAMILY = Family(
    pattern=f"resnet({'|'.join(map(str, _DEPTHS))})",
    examples=tuple(f"resnet{depth}" for depth in _DEPTHS),
    build=build_resnet,
    sizes=up_to_the_next(tuple(f"resnet{depth}" for depth in _DEPTHS)),
)
