"""Residual networks for 224x224 images (He, Zhang, Ren, Sun 2015, table 1), post-activation.

A 7x7 convolution and 3x3 max pooling, both with stride 2, four stages of blocks, global average
pooling, logits. ``resnet18`` and ``resnet34`` have basic blocks with 64, 128, 256 and 512 channels,
``resnet50`` and ``resnet152`` bottleneck blocks with four times as many. A bottleneck block strides
in its 3x3 convolution, not in its first 1x1 one: the later habit (torchvision's), at the same
number of weights and better accuracy. Shortcuts that change the shape are projections.

Taps: ``stage1`` .. ``stage4`` (the last ReLU of each), ``features`` (512 or 2048), ``logits``.
Block b of stage s owns ``stage{s}_{b}_conv1``, ``_bn1``, .. and, where it projects,
``_shortcut_conv`` and ``_shortcut_bn``. ``resnet20`` and its like for small images are another
family, ``resnet.py``.
"""

from typing import Any

import tensorflow as tf

from kd_keras.models.convolution import batch_norm, conv, relu
from kd_keras.models.ends import class_logits, image_input
from kd_keras.models.family import Family
from kd_keras.models.scaling import up_to_the_next

_CHANNELS = (64, 128, 256, 512)
# A convolution in a block: side of the kernel, factor of the stage's channels, whether it strides.
_BASIC = ((3, 1, True), (3, 1, False))
_BOTTLENECK = ((1, 1, False), (3, 1, True), (1, 4, False))
# Depth -> block, blocks in each stage.
_PLANS = {
    18: (_BASIC, (2, 2, 2, 2)),
    34: (_BASIC, (3, 4, 6, 3)),
    50: (_BOTTLENECK, (3, 4, 6, 3)),
    152: (_BOTTLENECK, (3, 8, 36, 3)),
}


def build_imagenet_resnet(
    name: str, *, classes: int, input_shape: tuple[int, int, int]
) -> tf.keras.Model:
    """Builds ``resnet18``, ``resnet34``, ``resnet50`` or ``resnet152``.

    Args:
        name: ``"resnet"`` and the depth.
        classes: number of classes.
        input_shape: ``(height, width, channels)``; 224x224 in the publication, any size works.

    Returns:
        The model, named ``name``.
    """
    convolutions, blocks = _PLANS[int(name.removeprefix("resnet"))]
    image = image_input(input_shape)
    x = relu(batch_norm(conv(image, 64, 7, 2, "conv1"), "bn1"), "relu1")
    # Zeros are as good as minus infinity around maps that are never negative.
    x = tf.keras.layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = tf.keras.layers.MaxPooling2D(3, 2, name="pool1")(x)
    for stage, (channels, count) in enumerate(zip(_CHANNELS, blocks, strict=True), start=1):
        for block in range(count):
            stride = 2 if stage > 1 and block == 0 else 1
            prefix = f"stage{stage}_{block}"
            last = f"stage{stage}" if block == count - 1 else None
            x = _block(x, convolutions, channels, stride, prefix, last)
    features = tf.keras.layers.GlobalAveragePooling2D(name="features")(x)
    return tf.keras.Model(image, class_logits(features, classes), name=name)


def _block(
    x: Any,
    convolutions: tuple[tuple[int, int, bool], ...],
    channels: int,
    stride: int,
    prefix: str,
    out: str | None,
) -> Any:
    main = x
    for number, (kernel, factor, strides) in enumerate(convolutions, start=1):
        width = channels * factor
        main = conv(main, width, kernel, stride if strides else 1, f"{prefix}_conv{number}")
        main = batch_norm(main, f"{prefix}_bn{number}")
        if number < len(convolutions):
            main = relu(main, f"{prefix}_relu{number}")
    if stride != 1 or x.shape[-1] != width:
        x = conv(x, width, 1, stride, f"{prefix}_shortcut_conv")
        x = batch_norm(x, f"{prefix}_shortcut_bn")
    total = tf.keras.layers.Add(name=f"{prefix}_add")([main, x])
    return relu(total, out or f"{prefix}_relu{len(convolutions)}")


FAMILY = Family(
    pattern=f"resnet({'|'.join(map(str, _PLANS))})",
    examples=tuple(f"resnet{depth}" for depth in _PLANS),
    build=build_imagenet_resnet,
    input_shapes=((224, 224, 3),),
    sizes=up_to_the_next(tuple(f"resnet{depth}" for depth in _PLANS)),
)
