"""Densely connected networks for small images, ``densenet-bc-D-K`` (Huang et al. 2017).

A 3x3 convolution to 2K channels and three stages of n layers; each layer is
BN-ReLU-conv 1x1 (4K) - BN-ReLU-conv 3x3 (K) and is concatenated to its input (growth rate K). After
a stage, BN-ReLU; between two, a 1x1 convolution halves the channels and average pooling the size.

The depth is D = 6n + 4. For another D, such as the 90 and 80 of the born-again networks, n is
rounded up: their counts of weights rule out rounding down. These counts (16.1M for 90-60, 22.4M for
80-80, 50.4M for 80-120) are met within 1 % with ``stem=16``; their 6.3M for 112-33 is met by no
reading of the definition (6.7M with ``stem=16``, 7.0M without). Those of Huang et al. are exact.

Taps: ``stage1``, ``stage2``, ``stage3`` (the ReLU on all maps of a stage, before the channels are
halved), ``features``, ``logits``.
"""

import functools
from typing import Any

import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.models.convolution import batch_norm, conv, relu, require_size
from kd_keras.models.ends import class_logits, image_input
from kd_keras.models.family import Family
from kd_keras.models.scaling import scaled

_STAGES = 3
_LEAST_DEPTH = 10


def build_densenet(
    name: str, *, classes: int, input_shape: tuple[int, int, int], stem: int | None = None
) -> tf.keras.Model:
    """Builds e.g. ``densenet-bc-100-12``.

    Args:
        name: ``"densenet-bc"``, the depth and the growth rate.
        classes: number of classes.
        input_shape: ``(height, width, channels)``, at least 4x4.
        stem: channels of the first convolution; None for twice the growth rate.

    Returns:
        The model, named ``name``.

    Raises:
        InputError: the depth is below 10, ``stem`` is no positive number or the image is too small.
    """
    depth, growth = (int(number) for number in name.split("-")[2:])
    if depth < _LEAST_DEPTH:
        raise InputError(f"depth {depth} of {name!r} is too small; give at least {_LEAST_DEPTH}")
    if stem is not None and (isinstance(stem, bool) or not isinstance(stem, int) or stem < 1):
        raise InputError(f"stem {stem!r} is not possible; give a number of channels or None")
    require_size(name, input_shape, halvings=_STAGES - 1)
    layers_in_stage = -(-(depth - 4) // (2 * _STAGES))  # rounded up
    image = image_input(input_shape)
    x = conv(image, stem or 2 * growth, 3, 1, "conv1")
    for stage in range(1, _STAGES + 1):
        for number in range(layers_in_stage):
            x = _dense_layer(x, growth, f"stage{stage}_{number}")
        x = relu(batch_norm(x, f"stage{stage}_bn"), f"stage{stage}")
        if stage < _STAGES:
            x = conv(x, x.shape[-1] // 2, 1, 1, f"stage{stage}_conv")
            x = tf.keras.layers.AveragePooling2D(2, name=f"pool{stage}")(x)
    features = tf.keras.layers.GlobalAveragePooling2D(name="features")(x)
    return tf.keras.Model(image, class_logits(features, classes), name=name)


def _dense_layer(x: Any, growth: int, prefix: str) -> Any:
    new = relu(batch_norm(x, f"{prefix}_bn1"), f"{prefix}_relu1")
    new = conv(new, 4 * growth, 1, 1, f"{prefix}_conv1")
    new = relu(batch_norm(new, f"{prefix}_bn2"), f"{prefix}_relu2")
    new = conv(new, growth, 3, 1, f"{prefix}_conv2")
    return tf.keras.layers.Concatenate(name=f"{prefix}_concat")([x, new])


FAMILY = Family(
    pattern=r"densenet-bc-[1-9]\d*-[1-9]\d*",
    examples=(
        *("densenet-bc-100-12", "densenet-bc-112-33"),
        *("densenet-bc-90-60", "densenet-bc-80-80", "densenet-bc-80-120"),
    ),
    build=build_densenet,
    sizes=functools.partial(scaled, keep=1),
)
