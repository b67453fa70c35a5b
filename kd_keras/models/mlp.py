"""Multi-layer perceptrons, ``mlp-W-W-...``: the nets of Hinton, Vinyals and Dean (2015).

Their teacher on MNIST is ``mlp-1200-1200`` with dropout and a max-norm constraint, the student
``mlp-800-800``.

Taps: ``stage1`` .. (each hidden layer with its ReLU), ``features`` (the last one after its dropout,
so equal to it at inference), ``logits``.
"""

from typing import Any

import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.models.ends import class_logits, dropout_rate, image_input
from kd_keras.models.family import Family
from kd_keras.models.scaling import scaled


def build_mlp(
    name: str,
    *,
    classes: int,
    input_shape: tuple[int, int, int],
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    max_norm: float | None = None,
    l2: float = 0.0,
) -> tf.keras.Model:
    """Builds e.g. ``mlp-1200-1200``, two hidden layers of 1,200 ReLU units.

    Args:
        name: ``"mlp"`` and the width of each hidden layer.
        classes: number of classes.
        input_shape: ``(height, width, channels)``; flattened.
        dropout: rate on the hidden units, in [0, 1).
        input_dropout: rate on the pixels, in [0, 1).
        max_norm: largest L2 norm of a hidden unit's incoming weights; None for no limit.
        l2: factor of the hidden kernels' squared L2 norm in the model's losses.

    Returns:
        The model, named ``name``.

    Raises:
        InputError: a rate is outside [0, 1), ``max_norm`` is not positive or ``l2`` is negative.
    """
    rate, input_rate = dropout_rate(dropout), dropout_rate(input_dropout, "input_dropout")
    if max_norm is not None and not max_norm > 0:
        raise InputError(f"max_norm {max_norm!r} is not possible; give a positive number or None")
    if not l2 >= 0:
        raise InputError(f"l2 {l2!r} is not possible; give a number of at least 0")
    layers = tf.keras.layers
    image = image_input(input_shape)
    x = layers.Flatten(name="flatten")(image)
    if input_rate:
        x = layers.Dropout(input_rate, name="input_dropout")(x)
    widths = [int(width) for width in name.split("-")[1:]]
    for number, width in enumerate(widths, start=1):
        x = _hidden(width, max_norm, l2, f"stage{number}")(x)
        # Present at rate 0 too, so that the layers' names do not depend on the options.
        x = layers.Dropout(rate, name="features" if number == len(widths) else f"dropout{number}")(
            x
        )
    return tf.keras.Model(image, class_logits(x, classes), name=name)


def _hidden(width: int, max_norm: float | None, l2: float, name: str) -> Any:
    # ReLU inside the layer: tfmot leaves a kernel in float if a ReLU layer follows directly.
    return tf.keras.layers.Dense(
        width,
        activation="relu",
        kernel_initializer="he_normal",
        kernel_regularizer=tf.keras.regularizers.L2(l2) if l2 else None,
        kernel_constraint=tf.keras.constraints.MaxNorm(max_norm) if max_norm else None,
        name=name,
    )


FAMILY = Family(
    pattern=r"mlp(-[1-9]\d*)+",
    examples=("mlp-1200-1200", "mlp-800-800"),
    build=build_mlp,
    input_shapes=((28, 28, 1),),
    sizes=scaled,
)
