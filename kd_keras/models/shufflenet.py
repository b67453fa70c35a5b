"""ShuffleNet v1: grouped 1x1 convolutions and channel shuffle (Zhang et al. 2018).

A 3x3 convolution with 24 channels and 3x3 max pooling, three stages of 4, 8 and 4 units, global
average pooling, logits. A unit is a grouped 1x1 convolution to a quarter of the channels, the
shuffle, a 3x3 depthwise convolution without ReLU, and a grouped 1x1 convolution; its input is added
or, where the size halves, average-pooled and concatenated; ReLU. The very first 1x1 convolution,
with 24 input channels, is not grouped.

At 224x224 the convolution, the pooling and the stages halve down to 7x7. A smaller image skips the
first of these so that 4x4 is left: at 32x32 the convolution has stride 1 and there is no pooling.

With 1x channels at 224x224 142.5M, 140.0M, 136.5M, 133.3M and 136.8M multiply-adds for 1, 2, 3, 4
and 8 groups without the logits; the publication gives 143, 140, 137, 133, 137. At ``width=0.5``
and 3 groups 37.1M (38); at 0.25 10.8M, where it gives 13 and does not say how.

Channel shuffle is Reshape, Permute, Reshape, and a grouped convolution is Keras' own: tfmot can
quantize every layer, and TFLite's CONV_2D has groups built in.

Taps: ``stage1`` (what the stages read), ``stage2``, ``stage3``, ``stage4`` (the last ReLU of each;
the publication's numbers), ``features``, ``logits``.
"""

from typing import Any

import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.models.ends import class_logits, image_input
from kd_keras.models.family import Family
from kd_keras.models.halvings import strides

_STEM = 24
_CHANNELS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}  # of stage 2; the others double
_UNITS = (4, 8, 4)
_HALVINGS = 5


def build_shufflenet(
    name: str,
    *,
    classes: int,
    input_shape: tuple[int, int, int],
    groups: int = 3,
    width: float = 1.0,
    halvings: int | None = None,
) -> tf.keras.Model:
    """Builds ``shufflenet``.

    Args:
        name: ``"shufflenet"``.
        classes: number of classes.
        input_shape: ``(height, width, channels)``.
        groups: of the 1x1 convolutions: 1, 2, 3, 4 or 8.
        width: factor of all channels, positive; rounded up to what the groups can share.
        halvings: how many of the five layers with stride 2 keep it, the last ones; None for as
            many as leave maps of 4x4.

    Returns:
        The model, named ``name``.

    Raises:
        InputError: ``groups``, ``width`` or ``halvings`` is not possible.
    """
    if isinstance(groups, bool) or groups not in _CHANNELS:
        allowed = ", ".join(map(str, _CHANNELS))
        raise InputError(f"groups {groups!r} is not possible for {name}; there are: {allowed}")
    if isinstance(width, bool) or not isinstance(width, (int, float)) or not width > 0:
        raise InputError(f"width {width!r} is not possible; give a positive number, e.g. 0.5")
    stem_stride, pool_stride, *stage_strides = strides(input_shape, _HALVINGS, 4, halvings)
    image = image_input(input_shape)
    x = _stem(image, _multiple(_STEM * width, groups), stem_stride, pool_stride)
    narrowest = _multiple(_CHANNELS[groups] * width, 4 * groups)
    for stage, (units, stride) in enumerate(zip(_UNITS, stage_strides, strict=True), start=2):
        channels = narrowest * 2 ** (stage - 2)
        for unit in range(units):
            prefix = f"stage{stage}_{unit}"
            out = f"stage{stage}" if unit == units - 1 else f"{prefix}_relu"
            if unit == 0:
                x = _widening_unit(x, channels, stride, groups, prefix, out)
            else:
                x = _unit(x, channels, groups, prefix, out)
    features = tf.keras.layers.GlobalAveragePooling2D(name="features")(x)
    return tf.keras.Model(image, class_logits(features, classes), name=name)


def _multiple(channels: float, of: int) -> int:
    """The least multiple of ``of`` that is no less than ``channels``."""
    return max(1, -int(-channels // of)) * of


def _stem(image: Any, channels: int, stride: int, pool_stride: int) -> Any:
    layers = tf.keras.layers
    x = _convolution(image, channels, 3, stride, 1, "conv1")
    if pool_stride == 1:
        return layers.ReLU(name="stage1")(x)
    x = layers.ReLU(name="relu1")(x)
    return layers.MaxPooling2D(3, pool_stride, padding="same", name="stage1")(x)


def _unit(x: Any, channels: int, groups: int, prefix: str, out: str) -> Any:
    branch = _branch(x, channels, channels // 4, 1, (groups, groups), prefix)
    x = tf.keras.layers.Add(name=f"{prefix}_add")([x, branch])
    return tf.keras.layers.ReLU(name=out)(x)


def _widening_unit(x: Any, channels: int, stride: int, groups: int, prefix: str, out: str) -> Any:
    """The first unit of a stage: the pooled input is concatenated, so the branch gives the rest."""
    layers = tf.keras.layers
    first = 1 if prefix == "stage2_0" else groups
    rest = channels - x.shape[-1]
    branch = _branch(x, rest, channels // 4, stride, (first, groups), prefix)
    pooled = layers.AveragePooling2D(3, stride, padding="same", name=f"{prefix}_pool")(x)
    x = layers.Concatenate(name=f"{prefix}_concat")([pooled, branch])
    return layers.ReLU(name=out)(x)


def _branch(
    x: Any, channels: int, inner: int, stride: int, groups: tuple[int, int], prefix: str
) -> Any:
    layers = tf.keras.layers
    x = _convolution(x, inner, 1, 1, groups[0], f"{prefix}_conv1")
    x = layers.ReLU(name=f"{prefix}_relu1")(x)
    x = _shuffled(x, groups[1], f"{prefix}_shuffle")
    x = layers.DepthwiseConv2D(
        3,
        strides=stride,
        padding="same",
        use_bias=False,
        # Keras counts all channels as a depthwise kernel's inputs; an output reads 3x3 of one.
        depthwise_initializer=tf.keras.initializers.TruncatedNormal(stddev=1 / 3),
        name=f"{prefix}_depthwise",
    )(x)
    x = _batch_norm(x, f"{prefix}_depthwise_bn")
    return _convolution(x, channels, 1, 1, groups[1], f"{prefix}_conv2")


def _shuffled(x: Any, groups: int, name: str) -> Any:
    """Channel ``g * n + i`` becomes channel ``i * groups + g``, n channels a group."""
    if groups == 1:
        return x
    layers = tf.keras.layers
    _, height, width, channels = x.shape
    x = layers.Reshape((height * width, groups, channels // groups), name=f"{name}_groups")(x)
    x = layers.Permute((1, 3, 2), name=f"{name}_permute")(x)
    return layers.Reshape((height, width, channels), name=name)(x)


def _convolution(x: Any, channels: int, kernel: int, stride: int, groups: int, name: str) -> Any:
    x = tf.keras.layers.Conv2D(
        channels,
        kernel,
        strides=stride,
        padding="same",
        groups=groups,
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)
    return _batch_norm(x, f"{name}_bn")


def _batch_norm(x: Any, name: str) -> Any:
    return tf.keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


FAMILY = Family(
    pattern="shufflenet",
    examples=("shufflenet",),
    build=build_shufflenet,
    input_shapes=((32, 32, 3), (224, 224, 3)),
    size_options={"width": (0.25, 0.5, 0.75, 1.0)},
)
