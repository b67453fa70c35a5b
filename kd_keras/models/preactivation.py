"""The frame of the pre-activation residual networks: BatchNorm and ReLU before each convolution.

He, Zhang, Ren, Sun (2016), "Identity mappings in deep residual networks". The sum that runs through
the blocks is never normalised itself; each block normalises its own copy. As in the publication,
the first block of a stage reads the activated maps on both ways: directly after ``conv1`` in stage
1, and before the projecting shortcut in the others.

So the sum of a whole stage is activated once, and this ReLU is its tap ``stage{s}``. It is all that
the next stage (or the pooling) reads of the stage, and its scale is BatchNorm's, whereas the bare
sum grows with every block: a teacher's and a student's of unequal depth could not be compared.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from kd_keras.models.convolution import batch_norm, conv, relu

#: ``(activated maps, channels, stride, prefix of the layers' names) -> what is added to the sum``.
Branch = Callable[[Any, int, int, str], Any]


def preactivation_stages(image: Any, widths: Sequence[int], blocks: int, branch: Branch) -> Any:
    """A 3x3 convolution to 16 channels and one stage of residual blocks for each width.

    Block b of stage s owns ``stage{s}_{b}_conv1`` .. and ``_add``; all but a stage's first own
    ``_bn1`` and ``_relu1``; a first one that changes the shape owns ``_shortcut_conv``.

    Args:
        image: ``(batch, h, w, c)``.
        widths: channels of each stage's sum. Stages after the first halve height and width.
        blocks: in every stage.
        branch: makes the residual branch of one block.

    Returns:
        The last stage's activated maps, also the layer ``stage{len(widths)}``.
    """
    active = relu(batch_norm(conv(image, 16, 3, 1, "conv1"), "bn1"), "relu1")
    for stage, channels in enumerate(widths, start=1):
        total = active
        for block in range(blocks):
            prefix = f"stage{stage}_{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            if block > 0:
                active = relu(batch_norm(total, f"{prefix}_bn1"), f"{prefix}_relu1")
            elif stride != 1 or total.shape[-1] != channels:
                total = conv(active, channels, 1, stride, f"{prefix}_shortcut_conv")
            added = branch(active, channels, stride, prefix)
            total = tf.keras.layers.Add(name=f"{prefix}_add")([added, total])
        active = relu(batch_norm(total, f"stage{stage}_bn"), f"stage{stage}")
    return active


def basic_branch(
    x: Any, channels: int, stride: int, prefix: str, *, dropout: float | None = None
) -> Any:
    """Two 3x3 convolutions; a dropout layer between them if ``dropout`` is not None."""
    x = conv(x, channels, 3, stride, f"{prefix}_conv1")
    x = relu(batch_norm(x, f"{prefix}_bn2"), f"{prefix}_relu2")
    if dropout is not None:
        x = tf.keras.layers.Dropout(dropout, name=f"{prefix}_dropout")(x)
    return conv(x, channels, 3, 1, f"{prefix}_conv2")


def bottleneck_branch(x: Any, channels: int, stride: int, prefix: str) -> Any:
    """1x1 to a quarter of the channels, 3x3, 1x1 back; the publication strides in the first."""
    x = conv(x, channels // 4, 1, stride, f"{prefix}_conv1")
    x = relu(batch_norm(x, f"{prefix}_bn2"), f"{prefix}_relu2")
    x = conv(x, channels // 4, 3, 1, f"{prefix}_conv2")
    x = relu(batch_norm(x, f"{prefix}_bn3"), f"{prefix}_relu3")
    return conv(x, channels, 1, 1, f"{prefix}_conv3")
