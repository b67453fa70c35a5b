"""The ``image_size`` option: what it may be, and how an image is brought to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kd_keras.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf


def parse(image_size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """Height and width from an ``image_size`` option.

    Args:
        image_size: one number for square images, (height, width), or None to leave images alone.

    Returns:
        (height, width) in pixels, or None.

    Raises:
        InputError: if it is none of these or not positive.
    """
    if image_size is None:
        return None
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise InputError(
            f"image_size {image_size!r} cannot be used; give pixels: a number or (height, width)"
        )
    return sides


def fit(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Cuts the largest centred piece of the wanted aspect ratio and resizes it (antialiased).

    Args:
        image: uint8, (height, width, channels), of any size.
        size: the wanted height and width.

    Returns:
        uint8, (*size, channels).
    """
    import tensorflow as tf

    wanted = tf.constant(size, tf.float32)
    given = tf.cast(tf.shape(image)[:2], tf.float32)
    piece = tf.cast(tf.round(wanted * tf.reduce_min(given / wanted)), tf.int32)
    piece = tf.maximum(piece, 1)
    image = tf.image.resize_with_crop_or_pad(image, piece[0], piece[1])
    resized = tf.image.resize(image, size, antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
