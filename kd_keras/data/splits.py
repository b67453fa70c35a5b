"""What a data set is here: uint8 images and integer labels in three splits."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kd_keras.errors import InputError

SPLIT_NAMES = ("train", "validation", "test")
_HASHED_ROWS = 4096  # read at a time, so that a memory-mapped split is never held as a whole


@dataclass(frozen=True, eq=False)
class Split:
    """Labelled images.

    Attributes:
        images: uint8, (n, height, width, channels), pixels 0..255; may be memory-mapped.
        labels: int64, (n,), class numbers from 0.

    Raises:
        InputError: if a shape or a dtype is another, the lengths differ, there is no example, or
            a label is negative.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        images, labels = self.images, self.labels
        if images.ndim != 4 or images.dtype != np.uint8:
            raise InputError(
                f"images of shape {images.shape} and dtype {images.dtype} cannot be used; give "
                "uint8 (n, height, width, channels)"
            )
        if labels.ndim != 1 or labels.dtype != np.int64:
            raise InputError(
                f"labels of shape {labels.shape} and dtype {labels.dtype} cannot be used; give "
                "int64 (n,): one class number an example, not one-hot"
            )
        if len(images) != len(labels):
            raise InputError(f"{len(images)} images have {len(labels)} labels; give one each")
        if not len(labels):
            raise InputError("a split has no examples; it needs at least one")
        if labels.min() < 0:
            raise InputError(f"label {labels.min()} is out of range; labels count from 0")

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named classification data set.

    Attributes:
        name: what it was loaded as, for example ``"cifar10"``.
        class_names: one a class, in the order of the labels.
        train: what is trained on.
        validation: what choices are made on; shares no example with ``train``.
        test: what is reported on.
        notes: choices made while loading that a report should state, one sentence each.

    Raises:
        InputError: if a label has no class name, or the splits' images differ in shape.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        classes = len(self.class_names)
        for split_name, split in self.splits():
            if split.labels.max() >= classes:
                raise InputError(
                    f"label {split.labels.max()} in the {split_name} split of {self.name!r} is out "
                    f"of range; there are {classes} classes: 0..{classes - 1}"
                )
            if split.images.shape[1:] != self.image_shape:
                raise InputError(
                    f"{split_name} images of {self.name!r} have shape {split.images.shape[1:]}, "
                    f"train images {self.image_shape}; give image_size to make them equal"
                )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    def splits(self) -> Iterator[tuple[str, Split]]:
        """Yields (name, split) for train, validation and test."""
        for name in SPLIT_NAMES:
            yield name, getattr(self, name)


def checksum(dataset: Dataset) -> str:
    """SHA-256 over class names, labels and pixels, in hexadecimal.

    It depends on nothing else: not on the data set's name or notes, nor on whether its arrays lie
    in memory or in files. Reads every pixel once, a block at a time.

    Args:
        dataset: the data.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(repr(dataset.class_names).encode())
    for name, split in dataset.splits():
        digest.update(f"{name}{split.images.shape}".encode())
        digest.update(split.labels.astype("<i8").tobytes())
        for start in range(0, len(split), _HASHED_ROWS):
            digest.update(split.images[start : start + _HASHED_ROWS].tobytes())
    return digest.hexdigest()


def array_checksum(array: np.ndarray) -> str:
    """SHA-256 over an array's type, shape and values, in hexadecimal; read a block at a time."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    for start in range(0, len(array), _HASHED_ROWS):
        digest.update(array[start : start + _HASHED_ROWS].tobytes())
        release(array)
    return digest.hexdigest()


def release(array: np.ndarray) -> None:
    """Give back the memory of a memory map's pages, which else grows with all that is ever read.

    They stay in the system's cache of the file, from which they are had again.
    """
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mapped, "madvise") and not array.flags.writeable:
        mapped.madvise(mmap.MADV_DONTNEED)
