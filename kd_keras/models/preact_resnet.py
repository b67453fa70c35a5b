"""Pre-activation residual networks for small images (He, Zhang, Ren, Sun 2016).

``preact-resnet20`` has three stages of basic blocks with 16, 32 and 64 channels (6n + 2 layers),
``preact-resnet164`` of bottleneck blocks with 64, 128 and 256 (9n + 2 layers, 1.70M weights with 10
classes). Adversarial network compression states 2.6M for its ResNet-164: that is 6n + 2 = 164 with
basic blocks, ``preact-resnet164`` with ``block="basic"``.

Taps: ``stage1``, ``stage2``, ``stage3`` (the ReLU after the sum of each stage, not the sum itself;
``preactivation.py`` says why), ``features`` (64, or 256 with bottlenecks), ``logits``.
"""

import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.models.ends import class_logits, image_input
from kd_keras.models.family import Family
from kd_keras.models.preactivation import basic_branch, bottleneck_branch, preactivation_stages
from kd_keras.models.scaling import up_to_the_next

# Kind of block -> its residual branch, its convolutions, the channels of the three stages.
_BLOCKS = {
    "basic": (basic_branch, 2, (16, 32, 64)),
    "bottleneck": (bottleneck_branch, 3, (64, 128, 256)),
}
_USUAL_BLOCK = {20: "basic", 164: "bottleneck"}


def build_preact_resnet(
    name: str, *, classes: int, input_shape: tuple[int, int, int], block: str | None = None
) -> tf.keras.Model:
    """Builds ``preact-resnet20`` or ``preact-resnet164``.

    Args:
        name: ``"preact-resnet"`` and the depth.
        classes: number of classes.
        input_shape: ``(height, width, channels)``.
        block: ``"basic"`` or ``"bottleneck"``; None for the publication's, basic in 20 layers and
            bottleneck in 164.

    Returns:
        The model, named ``name``.

    Raises:
        InputError: ``block`` is neither.
    """
    depth = int(name.removeprefix("preact-resnet"))
    kind = _USUAL_BLOCK[depth] if block is None else block
    if kind not in _BLOCKS:
        raise InputError(
            f"block {block!r} is not possible for {name}; there are: {', '.join(_BLOCKS)}"
        )
    branch, convolutions, widths = _BLOCKS[kind]
    blocks = (depth - 2) // (len(widths) * convolutions)
    image = image_input(input_shape)
    x = preactivation_stages(image, widths, blocks, branch)
    features = tf.keras.layers.GlobalAveragePooling2D(name="features")(x)
    return tf.keras.Model(image, class_logits(features, classes), name=name)


FAMILY = Family(
    pattern=f"preact-resnet({'|'.join(map(str, _USUAL_BLOCK))})",
    examples=tuple(f"preact-resnet{depth}" for depth in _USUAL_BLOCK),
    build=build_preact_resnet,
    sizes=up_to_the_next(tuple(f"preact-resnet{depth}" for depth in _USUAL_BLOCK)),
)
