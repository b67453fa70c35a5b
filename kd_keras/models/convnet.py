"""Plain small convolutional nets, ``convnet-C-C-...``: conv-BN-ReLU, for tiny images.

Each C is a 3x3 SAME convolution with that many channels, BatchNorm and ReLU; 2x2 max pooling lies
between two of them, global average pooling and the logits follow. tfmot can quantize every layer.

Taps: ``stage1`` .. (the ReLU of each convolution), ``features`` (the last C), ``logits``.
"""

import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.models.ends import class_logits, image_input
from kd_keras.models.family import Family
from kd_keras.models.scaling import scaled


def build_convnet(name: str, *, classes: int, input_shape: tuple[int, int, int]) -> tf.keras.Model:
    """Builds e.g. ``convnet-32-32-64``.

    Args:
        name: ``"convnet"`` and the channels of each convolution.
        classes: number of classes.
        input_shape: ``(height, width, channels)``.

    Returns:
        The model, named ``name``.

    Raises:
        InputError: the image is too small for that many poolings.
    """
    channels = [int(width) for width in name.split("-")[1:]]
    smallest = 2 ** (len(channels) - 1)
    if min(input_shape[:2]) < smallest:
        raise InputError(
            f"input_shape {input_shape} is too small for {name}, which halves it "
            f"{len(channels) - 1} times; give at least {smallest}x{smallest} pixels or fewer layers"
        )
    layers = tf.keras.layers
    x = image = image_input(input_shape)
    for number, width in enumerate(channels, start=1):
        if number > 1:
            x = layers.MaxPooling2D(2, name=f"pool{number - 1}")(x)
        x = layers.Conv2D(
            width,
            3,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"conv{number}",
        )(x)
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"bn{number}")(x)
        x = layers.ReLU(name=f"stage{number}")(x)
    features = layers.GlobalAveragePooling2D(name="features")(x)
    return tf.keras.Model(image, class_logits(features, classes), name=name)


FAMILY = Family(
    pattern=r"convnet(-[1-9]\d*)+",
    examples=("convnet-16-32", "convnet-32-32-64"),
    build=build_convnet,
    sizes=scaled,
)
