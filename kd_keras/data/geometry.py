"""Augmentations that move pixels: horizontal flip, pad-and-crop, shift."""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from kd_keras.data.ranges import require
from kd_keras.errors import InputError


@dataclass(frozen=True)
class HorizontalFlip:
    """Mirrors an image left to right.

    Attributes:
        probability: of mirroring it, in [0, 1].
    """

    probability: float = 0.5

    def __post_init__(self):
        require("horizontal_flip", "probability", self.probability, 0, 1)

    @property
    def draws(self) -> int:
        """One: whether."""
        return 1

    def __call__(
        self, images: tf.Tensor, labels: tf.Tensor, uniform: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """See `kd_keras.data.augmentation.Step`."""
        flipped = (uniform[:, 0] < self.probability)[:, tf.newaxis]
        width = tf.shape(images)[2]
        columns = tf.range(width)
        columns = tf.where(flipped, width - 1 - columns, columns)
        return tf.gather(images, columns, axis=2, batch_dims=1), labels


@dataclass(frozen=True)
class PadAndCrop:
    """Pads every side and cuts out a piece of the old size at a random place.

    Source: He et al., Deep Residual Learning for Image Recognition, 2015, section 4.2 (padding 4).

    Attributes:
        padding: pixels added on every side.
        mode: what is added: "constant" (zeros, as in the paper), "reflect" or "symmetric".
    """

    padding: int = 4
    mode: str = "constant"

    def __post_init__(self):
        require("pad_and_crop", "padding", self.padding, 0, 1024)
        require("pad_and_crop", "mode", self.mode, "constant", "reflect", "symmetric")

    @property
    def draws(self) -> int:
        """Two: the row and the column of the piece."""
        return 2

    def __call__(
        self, images: tf.Tensor, labels: tf.Tensor, uniform: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """See `kd_keras.data.augmentation.Step`."""
        return _pad_and_crop(images, uniform, self.padding, self.mode), labels


@dataclass(frozen=True)
class Shift:
    """Moves an image by up to n pixels in each direction, zeros moving in.

    The jitter with which Hinton et al. trained their MNIST teacher (2 pixels). Every whole number
    of pixels from -n to n is equally likely.

    Attributes:
        pixels: n, the most it is moved by.
    """

    pixels: int = 2

    def __post_init__(self):
        require("shift", "pixels", self.pixels, 0, 1024)

    @property
    def draws(self) -> int:
        """Two: down and right."""
        return 2

    def __call__(
        self, images: tf.Tensor, labels: tf.Tensor, uniform: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """See `kd_keras.data.augmentation.Step`."""
        return _pad_and_crop(images, uniform, self.pixels, "constant"), labels


def _pad_and_crop(images: tf.Tensor, uniform: tf.Tensor, padding: int, mode: str) -> tf.Tensor:
    smallest = min(images.shape[1:3])
    if mode != "constant" and padding >= smallest:
        raise InputError(
            f"pad_and_crop.padding {padding} is too much to {mode} images of {smallest} pixels; "
            f"give at most {smallest - 1}, or mode 'constant'"
        )
    height, width = images.shape[1:3]
    margin = [padding, padding]
    padded = tf.pad(images, [[0, 0], margin, margin, [0, 0]], mode)
    # The product in float32 may round up to the bound itself, which would be one place too far.
    offsets = tf.minimum(tf.cast(uniform * (2 * padding + 1), tf.int32), 2 * padding)
    rows = offsets[:, :1] + tf.range(height)
    columns = offsets[:, 1:] + tf.range(width)
    cropped = tf.gather(padded, rows, axis=1, batch_dims=1)
    cropped = tf.gather(cropped, columns, axis=2, batch_dims=1)
    return tf.ensure_shape(cropped, images.shape)
