"""The maxout convolutional net for CIFAR-10 (Goodfellow et al. 2013), FitNets' teacher.

A maxout unit is the largest of k linear pieces. Three convolutions (8x8x96, 8x8x192, 5x5x192, two
pieces each), each with overlapping max pooling, then 500 maxout units and the logits.

The pieces of all units are one wide layer. Reshape puts the pieces of a unit side by side and
max pooling takes the largest: so files hold no class of ours, tfmot can quantize every layer, and
TFLite needs no operator but MAX_POOL_2D.

Sizes are the authors' (paddings 4, 3, 3; pooling windows 4, 4, 2 with stride 2 that may step over
the lower and right edge). Romero et al. (2015) count 9M weights and 725M products for it: that is
this net with two pieces in the dense layer too, without biases (9.04M, 725.1M). With five pieces,
as in Goodfellow's own and in FitNets' training files, it has 16.2M. Where a pooling window steps
over the edge, a zero takes part in the maximum; the authors ignore what is outside. Their bounds on
the kernels' norms are left out.

Taps: ``stage1``, ``stage2``, ``stage3`` (the pooled maps: FitNets' hint is ``stage2``),
``features`` (500, after dropout), ``logits``.
"""

from typing import Any

import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.models.ends import class_logits, dropout_rate, image_input
from kd_keras.models.family import Family

_UNITS = 500
_SMALLEST = 4
# channels, kernel, padding, pooling window
_STAGES = ((96, 8, 4, 4), (192, 8, 3, 4), (192, 5, 3, 2))


def build_maxout(
    name: str,
    *,
    classes: int,
    input_shape: tuple[int, int, int],
    dense_pieces: int = 2,
    dropout: float = 0.5,
    input_dropout: float = 0.2,
) -> tf.keras.Model:
    """Builds ``maxout``.

    Args:
        name: ``"maxout"``.
        classes: number of classes.
        input_shape: ``(height, width, channels)``, at least 4x4.
        dense_pieces: linear pieces of a unit in the dense layer, at least 1.
        dropout: rate before every layer but the first, in [0, 1).
        input_dropout: rate on the pixels, in [0, 1).

    Returns:
        The model, named ``name``.

    Raises:
        InputError: a rate or ``dense_pieces`` is not possible, or the image smaller than 4x4.
    """
    rate, input_rate = dropout_rate(dropout), dropout_rate(input_dropout, "input_dropout")
    require_pieces(dense_pieces)
    if min(input_shape[:2]) < _SMALLEST:
        raise InputError(
            f"input_shape {input_shape} is too small for {name}; "
            f"it needs at least {_SMALLEST}x{_SMALLEST} pixels"
        )
    layers = tf.keras.layers
    image = image_input(input_shape)
    x = layers.Dropout(input_rate, name="input_dropout")(image)
    for number, (channels, kernel, padding, window) in enumerate(_STAGES, start=1):
        x = layers.ZeroPadding2D(padding, name=f"conv{number}_pad")(x)
        x = maxout_convolution(x, channels, kernel, "valid", f"conv{number}", f"maxout{number}")
        x = _pool(x, window, number)
        x = layers.Dropout(rate, name=f"dropout{number}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = maxout_dense(x, _UNITS, dense_pieces, "dense", "maxout4")
    features = layers.Dropout(rate, name="features")(x)
    return tf.keras.Model(image, class_logits(features, classes), name=name)


def require_pieces(pieces: int) -> None:
    """InputError unless a maxout unit can have that many linear pieces."""
    if isinstance(pieces, bool) or not isinstance(pieces, int) or pieces < 1:
        raise InputError(
            f"dense_pieces {pieces!r} is not possible; give a whole number of at least 1"
        )


def maxout_convolution(
    x: Any, channels: int, kernel: int, padding: str, name: str, out: str, pieces: int = 2
) -> Any:
    """A convolution of maxout units, ``(batch, h, w, c) -> (batch, h', w', channels)``.

    Args:
        x: maps of a fixed size.
        channels: maxout units.
        kernel: height and width of the kernel.
        padding: ``"same"`` or ``"valid"``.
        name: of the convolution, whose output is ``pieces`` blocks of ``channels`` maps.
        out: name of the layer that gives the largest pieces.
        pieces: linear pieces of a unit.

    Returns:
        The maps.
    """
    layers = tf.keras.layers
    x = layers.Conv2D(
        channels * pieces, kernel, padding=padding, kernel_initializer=_initializer(), name=name
    )(x)
    height, width = x.shape[1:3]
    x = layers.Reshape((height * width, pieces, channels), name=f"{name}_pieces")(x)
    x = layers.MaxPooling2D((1, pieces), name=f"{name}_largest")(x)
    return layers.Reshape((height, width, channels), name=out)(x)


def maxout_dense(x: Any, units: int, pieces: int, name: str, out: str) -> Any:
    """A dense layer of maxout units, ``(batch, d) -> (batch, units)``; see the convolution."""
    layers = tf.keras.layers
    x = layers.Dense(units * pieces, kernel_initializer=_initializer(), name=name)(x)
    x = layers.Reshape((1, pieces, units), name=f"{name}_pieces")(x)
    x = layers.MaxPooling2D((1, pieces), name=f"{name}_largest")(x)
    return layers.Reshape((units,), name=out)(x)


def _initializer() -> Any:
    # The larger of two equal normals has their second moment, so no factor as ReLU's 2 is due.
    return tf.keras.initializers.LecunNormal()


def _pool(x: Any, window: int, number: int) -> Any:
    """Max pooling with stride 2 whose last window may step over the lower and right edge."""
    beyond = [max(window - size, (window - size) % 2) for size in x.shape[1:3]]
    if any(beyond):
        below, right = beyond
        x = tf.keras.layers.ZeroPadding2D(((0, below), (0, right)), name=f"pool{number}_pad")(x)
    return tf.keras.layers.MaxPooling2D(window, 2, name=f"stage{number}")(x)


FAMILY = Family(pattern="maxout", examples=("maxout",), build=build_maxout)
