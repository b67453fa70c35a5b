"""VGG nets with BatchNorm for small images (after Simonyan & Zisserman 2015).

Five stages of 3x3 convolutions with 64, 128, 256, 512 and 512 channels, each conv-BN-ReLU; global
average pooling and one dense layer in place of the original's three.
``vgg8`` and ``vgg13`` halve the size between the first four stages only, as in contrastive
representation distillation (Tian et al. 2020): the last stage of a 32x32 image is 4x4. ``vgg16``,
the net of few-shot distillation, halves it between all five. The convolutions have no bias, since
BatchNorm follows; published counts may include one weight a channel more.

Taps: ``stage1`` .. ``stage5`` (the last ReLU of each stage), ``features`` (512), ``logits``.
"""

import tensorflow as tf

from kd_keras.models.convolution import batch_norm, conv, relu, require_size
from kd_keras.models.ends import class_logits, image_input
from kd_keras.models.family import Family
from kd_keras.models.scaling import up_to_the_next

_CHANNELS = (64, 128, 256, 512, 512)
# Depth -> convolutions in each stage, poolings.
_PLANS = {
    8: ((1, 1, 1, 1, 1), 3),
    13: ((2, 2, 2, 2, 2), 3),
    16: ((2, 2, 3, 3, 3), 4),
}


def build_vgg(name: str, *, classes: int, input_shape: tuple[int, int, int]) -> tf.keras.Model:
    """Builds ``vgg8``, ``vgg13`` or ``vgg16``.

    Args:
        name: ``"vgg"`` and the depth of the original net.
        classes: number of classes.
        input_shape: ``(height, width, channels)``; at least 8x8, for ``vgg16`` 16x16.

    Returns:
        The model, named ``name``.

    Raises:
        InputError: the image is too small.
    """
    convolutions, poolings = _PLANS[int(name.removeprefix("vgg"))]
    require_size(name, input_shape, poolings)
    x = image = image_input(input_shape)
    for stage, (count, channels) in enumerate(zip(convolutions, _CHANNELS, strict=True), start=1):
        for number in range(1, count + 1):
            out = f"stage{stage}" if number == count else f"stage{stage}_relu{number}"
            x = conv(x, channels, 3, 1, f"stage{stage}_conv{number}")
            x = relu(batch_norm(x, f"stage{stage}_bn{number}"), out)
        if stage <= poolings:
            x = tf.keras.layers.MaxPooling2D(2, name=f"pool{stage}")(x)
    features = tf.keras.layers.GlobalAveragePooling2D(name="features")(x)
    return tf.keras.Model(image, class_logits(features, classes), name=name)


FAMILY = Family(
    pattern=f"vgg({'|'.join(map(str, _PLANS))})",
    examples=tuple(f"vgg{depth}" for depth in _PLANS),
    build=build_vgg,
    sizes=up_to_the_next(tuple(f"vgg{depth}" for depth in _PLANS)),
)
