"""MobileNet v1: depthwise separable convolutions (Howard et al. 2017).

A 3x3 convolution with 32 channels, then 13 blocks of a 3x3 depthwise and a 1x1 convolution, each
convolution with BatchNorm and ReLU; global average pooling, logits. At 224x224 the stem and four
depthwise convolutions have stride 2, down to 7x7. A smaller image skips the first of these strides
so that 2x2 is left: 32x32 has stride 1 in the stem only. Strided convolutions are padded as
TensorFlow's SAME.

With 1,000 classes 4,231,976 trainable parameters (the publication: 4.2M) and, with BatchNorm's
moving averages, 4,253,864 in all; 569M multiply-adds at 224x224. tfmot can quantize every layer.

Taps: ``stage1`` .. ``stage5`` (the last ReLU of each size in the full-size net: 64, 128, 256, 512,
1,024 channels), ``features`` (1,024), ``logits``.
"""

from typing import Any

import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.models.ends import class_logits, image_input
from kd_keras.models.family import Family
from kd_keras.models.halvings import strides

_STEM = 32
_STAGES = ((64, 1), (128, 2), (256, 2), (512, 6), (1024, 2))  # channels, blocks


def build_mobilenet(
    name: str,
    *,
    classes: int,
    input_shape: tuple[int, int, int],
    width: float = 1.0,
    halvings: int | None = None,
) -> tf.keras.Model:
    """Builds ``mobilenet``.

    Args:
        name: ``"mobilenet"``.
        classes: number of classes.
        input_shape: ``(height, width, channels)``.
        width: factor of all channels, positive; the publication's are 1, 0.75, 0.5, 0.25.
        halvings: how many of the five strides are 2, the last ones; None for as many as leave
            maps of 2x2.

    Returns:
        The model, named ``name``.

    Raises:
        InputError: ``width`` or ``halvings`` is not possible.
    """
    if isinstance(width, bool) or not isinstance(width, (int, float)) or not width > 0:
        raise InputError(f"width {width!r} is not possible; give a positive number, e.g. 0.5")
    stem_stride, *stage_strides = strides(input_shape, len(_STAGES), 2, halvings)
    image = image_input(input_shape)
    x = _convolution(image, _scaled(_STEM, width), 3, stem_stride, "conv1", "relu1")
    for stage, (channels, blocks) in enumerate(_STAGES, start=1):
        for block in range(blocks):
            stride = stage_strides[stage - 2] if stage > 1 and block == 0 else 1
            prefix = f"stage{stage}_{block}"
            out = f"stage{stage}" if block == blocks - 1 else f"{prefix}_relu"
            x = _depthwise(x, stride, f"{prefix}_depthwise")
            x = _convolution(x, _scaled(channels, width), 1, 1, f"{prefix}_pointwise", out)
    features = tf.keras.layers.GlobalAveragePooling2D(name="features")(x)
    return tf.keras.Model(image, class_logits(features, classes), name=name)


def _scaled(channels: int, width: float) -> int:
    return max(1, int(channels * width))


def _convolution(x: Any, channels: int, kernel: int, stride: int, name: str, out: str) -> Any:
    x = tf.keras.layers.Conv2D(
        channels,
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)
    return _norm_relu(x, name, out)


def _depthwise(x: Any, stride: int, name: str) -> Any:
    x = tf.keras.layers.DepthwiseConv2D(
        3,
        strides=stride,
        padding="same",
        use_bias=False,
        depthwise_initializer=_depthwise_initializer(),
        name=name,
    )(x)
    return _norm_relu(x, name, f"{name}_relu")


def _depthwise_initializer() -> Any:
    # Keras counts all channels as a depthwise kernel's inputs; each output reads 3x3 pixels of one.
    return tf.keras.initializers.TruncatedNormal(stddev=(2 / 9) ** 0.5)


def _norm_relu(x: Any, prefix: str, out: str) -> Any:
    layers = tf.keras.layers
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-3, name=f"{prefix}_bn")(x)
    return layers.ReLU(name=out)(x)


FAMILY = Family(
    pattern="mobilenet",
    examples=("mobilenet",),
    build=build_mobilenet,
    input_shapes=((32, 32, 3), (224, 224, 3)),
    size_options={"width": (0.25, 0.5, 0.75, 1.0)},
)
