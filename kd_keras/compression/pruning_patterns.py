"""Where the zeros of pruning may lie: single weights, blocks, two of four, or for XNNPACK."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from kd_keras.compression import kernels, toolkit
from kd_keras.errors import InputError

_TWO_OF_FOUR = "2:4"


def wrapper_options(
    block_size: Sequence[int], block_pooling: str, pattern: str | None
) -> dict[str, Any]:
    """The options of tfmot's pruning wrapper for a block or a pattern.

    Raises:
        InputError: one of them is not possible, or both are given.
    """
    sizes = tuple(block_size)
    if len(sizes) != 2 or not all(isinstance(size, int) and size >= 1 for size in sizes):
        raise InputError(f"block_size {block_size!r} is not possible; give two numbers, (1, 4)")
    if block_pooling not in ("avg", "max"):
        raise InputError(f"block_pooling {block_pooling!r} is not possible; give 'avg' or 'max'")
    if pattern not in (None, _TWO_OF_FOUR):
        raise InputError(f"pattern {pattern!r} is not known; give '2:4', or none")
    if pattern and sizes != (1, 1):
        raise InputError(f"block_size {sizes} and pattern '2:4' exclude each other; give one")
    if pattern:
        return {"sparsity_m_by_n": (2, 4)}
    return {"block_size": sizes, "block_pooling_type": block_pooling.upper()}


def possible_layers(
    student: tf.keras.Model, pattern: str | None, policy: str | None
) -> list[str] | None:
    """The names of the layers that a pattern or policy can prune; None for all with a kernel.

    The pattern 2:4 needs a dense layer or convolution whose input channels are a multiple of four.

    Raises:
        InputError: the policy is not known, or the model does not fit it.
    """
    if policy not in (None, "xnnpack"):
        raise InputError(f"policy {policy!r} is not known; give 'xnnpack', or none")
    leaves = [la for la in toolkit.leaf_layers(student) if kernels.kernel_of(la) is not None]
    if policy == "xnnpack":
        rule = toolkit.tfmot().sparsity.keras.PruneForLatencyOnXNNPack()
        try:
            rule.ensure_model_supports_pruning(student)
        except ValueError as error:
            raise InputError(
                f"model {student.name!r} does not fit policy 'xnnpack' ({_one_line(error)}): it "
                "must begin with ZeroPadding2D(1) and a 3x3 convolution of 3 channels, strides 2, "
                "padding 'valid', end in GlobalAveragePooling2D(keepdims=True), and hold only 1x1 "
                "and depthwise convolutions, BatchNormalization, Add, Multiply and activations "
                "between; or prune it without a policy"
            ) from error
        leaves = [layer for layer in leaves if rule.allow_pruning(layer)]
    if pattern:
        kinds = (tf.keras.layers.Dense, tf.keras.layers.Conv2D)
        leaves = [la for la in leaves if type(la) in kinds and la.kernel.shape[-2] % 4 == 0]
    return [layer.name for layer in leaves] if pattern or policy else None


def require_blocks_fit(
    student: tf.keras.Model, names: list[str], block_size: Sequence[int]
) -> None:
    """InputError if a layer to prune cannot be pruned in blocks: all such are named."""
    if tuple(block_size) == (1, 1):
        return
    shapes = {name: kernel.shape for name, kernel in kernels.kernels(student).items()}
    flat = [name for name in names if len(shapes[name]) != 2]
    if flat:
        raise InputError(
            f"layers {', '.join(flat)} cannot be pruned in blocks, which only dense layers can; "
            "name them in skip"
        )
    # tfmot fails while training where a side of the kernel is a single block.
    small = [
        name
        for name in names
        if any(size <= side for size, side in zip(shapes[name], block_size, strict=True))
    ]
    if small:
        raise InputError(
            f"layers {', '.join(small)} are too small for blocks of {tuple(block_size)}: their "
            "kernels need at least two blocks each way; name them in skip, or take smaller blocks"
        )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
