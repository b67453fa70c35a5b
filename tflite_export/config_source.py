"""Images from the config of a training, read by the package that trains from it.

A package registers a reader as the one entry point of the group `tflite_export.configs`: a function
`(spec, split, choose) -> LabelledImages`, with the arguments of `read_config`, that raises
`ExportError` for what its user can mend.
"""

import hashlib
import importlib.metadata
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tflite_export.errors import ExportError
from tflite_export.preprocessing import Preprocessing

GROUP = "tflite_export.configs"

Choose = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class LabelledImages:
    """Images of a split of a data set.

    Attributes:
        data: name of the data set.
        split: "train" or "test".
        images: (n,) + shape, float32, just as a training feeds them.
        labels: (n,) class numbers.
        class_names: of all classes, in the order of their numbers.
        preprocessing: that made the images.
    """

    data: str
    split: str
    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    preprocessing: Preprocessing

    def facts(self) -> dict[str, Any]:
        """Returns what they are, how many of which class, and the SHA-256 of images and labels."""
        found = hashlib.sha256(np.ascontiguousarray(self.images).tobytes())
        found.update(self.labels.astype("<i8").tobytes())
        counts = np.bincount(self.labels, minlength=len(self.class_names)).tolist()
        return {
            "data": self.data,
            "split": self.split,
            "images": len(self.images),
            "classes": dict(zip(self.class_names, counts, strict=True)),
            "sha256": found.hexdigest(),
        }


def is_config(spec: str | os.PathLike[str]) -> bool:
    """Whether a name is that of a config: `FILE.py`, or `FILE.py:ARGUMENT`."""
    return os.fspath(spec).partition(":")[0].endswith(".py")


def read_config(
    spec: str | os.PathLike[str], split: str, choose: Choose | None = None
) -> LabelledImages:
    """Reads images of a config's data set.

    Args:
        spec: the config's file, as its own package takes it.
        split: "train", what the model is trained on, or "test", what it has not seen.
        choose: makes the places of the images that are wanted of the labels of the split; all are
            read without it.

    Raises:
        ExportError: no installed package reads configs, or this one cannot be read.
    """
    readers = tuple(importlib.metadata.entry_points(group=GROUP))
    if len(readers) != 1:
        found = ", ".join(sorted(reader.value for reader in readers)) or "none"
        raise ExportError(
            f"{os.fspath(spec)!r} is a config, and of what is installed one must read configs "
            f"(entry points {GROUP!r}; there are: {found}): install kd-keras, or give the images "
            f"themselves"
        )
    return readers[0].load()(os.fspath(spec), split, choose)
