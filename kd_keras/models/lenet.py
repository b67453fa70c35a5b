"""LeNet-4 with ReLU (LeCun et al. 1995), the small student of adversarial compression.

Two 5x5 convolutions of 4 and 16 maps without padding, each with 2x2 max pooling, a dense layer of
120 and the logits: 33,770 weights for 28x28x1 and 10 classes. ``lenet-A-B-C`` has other widths:
``lenet-20-50-500``, 431,080 weights, is the one that Caffe's and later tutorials call LeNet.

Taps: ``stage1``, ``stage2`` (the pooled maps), ``features`` (the dense layer after ReLU),
``logits``.
"""

import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.models.ends import class_logits, image_input
from kd_keras.models.family import Family
from kd_keras.models.scaling import scaled

_SMALLEST = 16
_LENET4 = (4, 16, 120)


def build_lenet(name: str, *, classes: int, input_shape: tuple[int, int, int]) -> tf.keras.Model:
    """Builds e.g. ``lenet4``.

    Args:
        name: ``"lenet4"``, or ``"lenet"`` and the widths of its three hidden layers.
        classes: number of classes.
        input_shape: ``(height, width, channels)``, at least 16x16.

    Returns:
        The model, named ``name``.

    Raises:
        InputError: the image is smaller than 16x16.
    """
    if min(input_shape[:2]) < _SMALLEST:
        raise InputError(
            f"input_shape {input_shape} is too small for {name}; it needs at least "
            f"{_SMALLEST}x{_SMALLEST} pixels (a convnet-... takes smaller ones)"
        )
    *maps, units = _LENET4 if name == "lenet4" else map(int, name.split("-")[1:])
    layers = tf.keras.layers
    x = image = image_input(input_shape)
    for number, channels in enumerate(maps, start=1):
        # ReLU inside the layer: tfmot leaves a kernel in float if a ReLU layer follows directly.
        x = layers.Conv2D(
            channels, 5, activation="relu", kernel_initializer="he_normal", name=f"conv{number}"
        )(x)
        x = layers.MaxPooling2D(2, name=f"stage{number}")(x)
    x = layers.Flatten(name="flatten")(x)
    features = layers.Dense(
        units, activation="relu", kernel_initializer="he_normal", name="features"
    )(x)
    return tf.keras.Model(image, class_logits(features, classes), name=name)


FAMILY = Family(
    pattern=r"lenet(4|(-[1-9]\d*){3})",
    examples=("lenet4", "lenet-20-50-500"),
    build=build_lenet,
    input_shapes=((28, 28, 1),),
    sizes=lambda name: (name,) if name == "lenet4" else scaled(name),
)
