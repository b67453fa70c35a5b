"""Thin deep maxout nets for CIFAR, FitNet 1 to 4 (Romero et al. 2015): FitNets' students.

Three stages of 3x3 SAME convolutions with two linear pieces a unit, 2x2 max pooling after the first
two and global max pooling after the third (8x8 for CIFAR), 500 maxout units and the logits: 11, 11,
13 and 19 layers.

The publication counts weights without biases: 250K, 862K, 1.6M, 2.5M, and 30M, 108M, 392M, 382M
products. With two pieces in the dense layer these are met (249,576, 861,928, 1,569,544 and
2,544,712); with five, as in the authors' training files, the first would have 347K. Of FitNet 3 we
have the depth and the widths of the second and third stage from memory; its first stage, here four
times 64, is chosen to meet both published figures (32, 48, 64, 64 gives 1.50M and 324M). The
authors' bounds on the kernels' norms are left out.

Taps: ``stage1``, ``stage2`` (the pooled maps: the guided layer is ``stage2``), ``stage3`` (the maps
before the global pooling), ``features`` (500), ``logits``.
"""

import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.models.ends import class_logits, image_input
from kd_keras.models.family import Family
from kd_keras.models.maxout import maxout_convolution, maxout_dense, require_pieces
from kd_keras.models.scaling import up_to_the_next

_UNITS = 500
_SMALLEST = 4
_STAGES = {
    "fitnet1": ((16, 16, 16), (32, 32, 32), (48, 48, 64)),
    "fitnet2": ((16, 32, 32), (48, 64, 80), (96, 96, 128)),
    "fitnet3": ((64, 64, 64, 64), (80, 80, 80, 80), (128, 128, 128)),
    "fitnet4": ((32, 32, 32, 48, 48), (80,) * 6, (128,) * 6),
}


def build_fitnet(
    name: str, *, classes: int, input_shape: tuple[int, int, int], dense_pieces: int = 2
) -> tf.keras.Model:
    """Builds ``fitnet1`` .. ``fitnet4``.

    Args:
        name: ``"fitnet"`` and its number in the publication.
        classes: number of classes.
        input_shape: ``(height, width, channels)``, at least 4x4.
        dense_pieces: linear pieces of a unit in the dense layer, at least 1.

    Returns:
        The model, named ``name``.

    Raises:
        InputError: ``dense_pieces`` is not possible, or the image is smaller than 4x4.
    """
    require_pieces(dense_pieces)
    if min(input_shape[:2]) < _SMALLEST:
        raise InputError(
            f"input_shape {input_shape} is too small for {name}; "
            f"it needs at least {_SMALLEST}x{_SMALLEST} pixels"
        )
    layers = tf.keras.layers
    x = image = image_input(input_shape)
    stages = _STAGES[name]
    for stage, widths in enumerate(stages, start=1):
        for index, channels in enumerate(widths, start=1):
            last = stage == len(stages) and index == len(widths)
            conv = f"stage{stage}_conv{index}"
            out = f"stage{stage}" if last else f"stage{stage}_maxout{index}"
            x = maxout_convolution(x, channels, 3, "same", conv, out)
        if stage < len(stages):
            x = layers.MaxPooling2D(2, name=f"stage{stage}")(x)
    x = layers.GlobalMaxPooling2D(name="global_pool")(x)
    features = maxout_dense(x, _UNITS, dense_pieces, "dense", "features")
    return tf.keras.Model(image, class_logits(features, classes), name=name)


FAMILY = Family(
    pattern="|".join(_STAGES),
    examples=tuple(_STAGES),
    build=build_fitnet,
    sizes=up_to_the_next(tuple(_STAGES)),
)
