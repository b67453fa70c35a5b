"""Network in Network (Lin, Chen, Yan 2014) with BatchNorm.

Three blocks of one spatial convolution and two 1x1 ones, each conv-BN-ReLU; 3x3 max pooling with
stride 2 and dropout after the first two. The original ends in a 1x1 convolution to one map a class,
without ReLU, and averages the maps. Both are linear, so they swap: here the maps are averaged first
(``features``, 192) and a dense layer ``logits`` with the same weights follows - equal, and cheaper.

Taps: ``stage1``, ``stage2``, ``stage3`` (the last ReLU of each block), ``features``, ``logits``.
"""

from typing import Any

import tensorflow as tf

from kd_keras.models.ends import class_logits, dropout_rate, image_input
from kd_keras.models.family import Family

_BLOCKS = (
    ((5, 192), (1, 160), (1, 96)),
    ((5, 192), (1, 192), (1, 192)),
    ((3, 192), (1, 192)),
)


def build_network_in_network(
    name: str, *, classes: int, input_shape: tuple[int, int, int], dropout: float = 0.5
) -> tf.keras.Model:
    """Builds ``nin``.

    Args:
        name: ``"nin"``.
        classes: number of classes.
        input_shape: ``(height, width, channels)``.
        dropout: rate after the first two blocks, in [0, 1).

    Returns:
        The model, named ``name``.

    Raises:
        InputError: ``dropout`` is outside [0, 1).
    """
    rate = dropout_rate(dropout)
    image = image_input(input_shape)
    x = image
    for number, convolutions in enumerate(_BLOCKS, start=1):
        x = _block(x, convolutions, number)
        if number < len(_BLOCKS):
            x = tf.keras.layers.MaxPooling2D(3, 2, padding="same", name=f"pool{number}")(x)
            x = tf.keras.layers.Dropout(rate, name=f"dropout{number}")(x)
    features = tf.keras.layers.GlobalAveragePooling2D(name="features")(x)
    return tf.keras.Model(image, class_logits(features, classes), name=name)


def _block(x: Any, convolutions: tuple[tuple[int, int], ...], number: int) -> Any:
    layers = tf.keras.layers
    for index, (kernel, channels) in enumerate(convolutions, start=1):
        x = layers.Conv2D(
            channels,
            kernel,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"block{number}_conv{index}",
        )(x)
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-3, name=f"block{number}_bn{index}")(
            x
        )
        last = index == len(convolutions)
        x = layers.ReLU(name=f"stage{number}" if last else f"block{number}_relu{index}")(x)
    return x


FAMILY = Family(
    pattern="nin",
    examples=("nin",),
    build=build_network_in_network,
    weight_aliases={"block3_conv3": "logits"},
    input_shapes=((28, 28, 1),),
)
