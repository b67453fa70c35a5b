"""Wide residual networks for small images, ``wrn-D-K`` (Zagoruyko & Komodakis 2016).

D = 6n + 4 convolutions: one of 16 channels, three stages of n pre-activation blocks of two with
16K, 32K and 64K channels, and three projecting shortcuts. Dropout may lie between a block's two.

Taps: ``stage1``, ``stage2``, ``stage3`` (the ReLU after the sum of each stage, not the sum itself;
``preactivation.py`` says why), ``features`` (64K), ``logits``.
"""

import functools

import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.models.ends import class_logits, dropout_rate, image_input
from kd_keras.models.family import Family
from kd_keras.models.preactivation import basic_branch, preactivation_stages
from kd_keras.models.scaling import scaled

_CHANNELS = (16, 32, 64)


def build_wide_resnet(
    name: str, *, classes: int, input_shape: tuple[int, int, int], dropout: float = 0.0
) -> tf.keras.Model:
    """Builds e.g. ``wrn-40-10``, 55.8M weights with 10 classes.

    Args:
        name: ``"wrn"``, the depth and the factor of the widths.
        classes: number of classes.
        input_shape: ``(height, width, channels)``.
        dropout: rate between the two convolutions of each block, in [0, 1).

    Returns:
        The model, named ``name``.

    Raises:
        InputError: the depth is not 6n + 4, or ``dropout`` is outside [0, 1).
    """
    depth, factor = (int(number) for number in name.split("-")[1:])
    blocks, rest = divmod(depth - 4, 6)
    if blocks < 1 or rest:
        nearest = 6 * max(blocks, 1) + 4
        raise InputError(
            f"depth {depth} of {name!r} is not 6n + 4; "
            f"give e.g. wrn-{nearest}-{factor} or wrn-{nearest + 6}-{factor}"
        )
    # A dropout layer at rate 0 too, so that the layers' names do not depend on the options.
    branch = functools.partial(basic_branch, dropout=dropout_rate(dropout))
    image = image_input(input_shape)
    widths = [channels * factor for channels in _CHANNELS]
    x = preactivation_stages(image, widths, blocks, branch)
    features = tf.keras.layers.GlobalAveragePooling2D(name="features")(x)
    return tf.keras.Model(image, class_logits(features, classes), name=name)


FAMILY = Family(
    pattern=r"wrn-[1-9]\d*-[1-9]\d*",
    examples=("wrn-10-4", "wrn-16-2", "wrn-22-4", "wrn-40-2", "wrn-40-10"),
    build=build_wide_resnet,
    sizes=functools.partial(scaled, keep=1),
)
