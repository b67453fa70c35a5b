"""Pixels to network input: ``(pixel / 255 - mean) / std``, the same in NumPy and TensorFlow."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from kd_keras.data.splits import Split
from kd_keras.errors import InputError

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Normalization:
    """Per-channel shift and scale, in units of pixel / 255.

    Attributes:
        mean: one a channel, or one for all.
        std: as many, each positive.

    Raises:
        InputError: if the two differ in length, or a value is not finite or a std not positive.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self):
        # Lists come out of configs and JSON; tuples make equal normalizations compare equal.
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        if not self.mean or len(self.mean) != len(self.std):
            raise InputError(
                f"normalization has {len(self.mean)} means and {len(self.std)} stds; give one "
                "of each a channel"
            )
        if not all(map(math.isfinite, self.mean + self.std)) or min(self.std) <= 0:
            raise InputError(
                f"normalization mean {self.mean} and std {self.std} cannot be used; both must be "
                "finite and every std positive"
            )

    def apply(self, images: Any) -> Any:
        """Normalizes images.

        Args:
            images: uint8 or float, pixels 0..255, (..., channels): an array or a tensor.

        Returns:
            float32 of the same shape and kind: an array for an array, a tensor for a tensor.

        Raises:
            InputError: if the images have another number of channels.
        """
        channels = images.shape[-1]
        if len(self.mean) not in (1, channels):
            raise InputError(
                f"normalization has {len(self.mean)} channels, the images {channels}; give one "
                "mean and std, or one a channel"
            )
        # One product and one difference, for TensorFlow turns divisions by constants into products
        # inside graphs: written as divisions, NumPy and a graph differ in the last bit.
        mean, std = np.array(self.mean), np.array(self.std)
        scale, shift = (1 / (255 * std)).astype(np.float32), (mean / std).astype(np.float32)
        return _as_float32(images) * scale - shift


def from_data(split: Split) -> Normalization:
    """The mean and standard deviation of every channel over all pixels of a split.

    Args:
        split: the training data; read once, a block at a time.

    Returns:
        The normalization that gives those images mean 0 and standard deviation 1.

    Raises:
        InputError: if a channel is constant.
    """
    channels = split.images.shape[-1]
    histogram = np.zeros((channels, 256), np.int64)
    for start in range(0, len(split), _ROWS_AT_ONCE):
        block = split.images[start : start + _ROWS_AT_ONCE]
        for channel in range(channels):
            histogram[channel] += np.bincount(block[..., channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    share = histogram / histogram.sum(axis=1, keepdims=True)
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, np.newaxis]) ** 2).sum(axis=1))
    if not std.all():
        raise InputError(
            f"channel {int(np.argmin(std))} of the training images is constant, so it has no "
            "standard deviation; give the normalization by hand or drop the channel"
        )
    return Normalization(tuple(mean), tuple(std))


def _as_float32(images: Any) -> Any:
    # There is no tensor while TensorFlow is not imported, and no need to import it for arrays.
    tf = sys.modules.get("tensorflow")
    if tf is not None and tf.is_tensor(images):
        return tf.cast(images, tf.float32)
    return np.asarray(images, np.float32)
