"""Feature maps `(batch, height, width, channels)` brought to one height and width."""

from typing import Any

import tensorflow as tf

from kd_keras.errors import InputError


def common_size(first: Any, second: Any, what: str) -> tuple[int, int]:
    """The size to which pooling can bring two maps: that of the smaller one.

    Args:
        first: Shape of a map, `(batch, height, width, channels)`.
        second: Shape of another.
        what: What the two are to the user, for the error: "the layers 'a' and 'b'".

    Raises:
        InputError: If a shape is not a map's or not known, or neither size divides the other.
    """
    sizes = [size(shape, what) for shape in (first, second)]
    smaller = min(sizes)
    if any(larger % small for it in sizes for larger, small in zip(it, smaller, strict=True)):
        raise InputError(
            f"{what} have sizes {as_text(sizes[0])} and {as_text(sizes[1])}, and no whole number "
            "of pixels of the one makes a pixel of the other: name layers whose sizes divide"
        )
    return smaller


def size(shape: Any, what: str) -> tuple[int, int]:
    """Height and width in the shape of a map.

    Raises:
        InputError: If it is not a map's, or they are not known.
    """
    dimensions = tf.TensorShape(shape).as_list()
    if len(dimensions) != 4:
        raise InputError(
            f"{what} must be maps (batch, height, width, channels), but one is "
            f"{tuple(dimensions)}: name layers that give maps"
        )
    if None in dimensions[1:]:
        raise InputError(
            f"{what} must have a known size, but one is {tuple(dimensions)}: build the models for "
            "an Input of fixed height and width"
        )
    return dimensions[1], dimensions[2]


def average_pooled(values: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """A map at a size that divides its own, by the mean of the pixels."""
    factors = _factors(values, size)
    return values if factors == (1, 1) else tf.nn.avg_pool2d(values, factors, factors, "VALID")


def max_pooled(values: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """A map at a size that divides its own, by the largest of the pixels."""
    factors = _factors(values, size)
    return values if factors == (1, 1) else tf.nn.max_pool2d(values, factors, factors, "VALID")


def as_text(size: tuple[int, int]) -> str:
    """A height and width as users write them.

    >>> as_text((8, 6))
    '8x6'
    """
    return f"{size[0]}x{size[1]}"


def _factors(values: tf.Tensor, size: tuple[int, int]) -> tuple[int, int]:
    return values.shape[1] // size[0], values.shape[2] // size[1]
