"""Representative data from what a user names: an .npy file, a folder of pictures, or a config."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export.balance import balanced
from tflite_export.config_source import is_config, read_config
from tflite_export.errors import ExportError
from tflite_export.image_folder import ImageFolder, choose
from tflite_export.npy_file import read_npy
from tflite_export.preprocessing import Preprocessing

_COUNT = 500  # of a folder or a config's data, when no number is given


@dataclass(frozen=True)
class Representative:
    """The representative data of an export.

    Attributes:
        name: of the file, the folder or the config.
        source: the images, or the folder that they are made from when their shape is known.
        chosen: how many were asked for and by which seed; empty where all were taken.
        facts: how many images there are, and the SHA-256 of the file or of the pictures.
        preprocessing: what the model was trained with; None where that is not known.
        labels: names of the classes, where a config tells them.
    """

    name: str
    source: np.ndarray | ImageFolder
    chosen: dict[str, int]
    facts: dict[str, Any]
    preprocessing: Preprocessing | None
    labels: tuple[str, ...] | None = None

    def images(self, shape: Sequence[int]) -> np.ndarray:
        """Returns the images for a model whose images have this shape."""
        return self.source.images(shape) if isinstance(self.source, ImageFolder) else self.source


def load_representative(
    path: Path, preprocessing: Preprocessing | None, count: int | None = None, seed: int = 0
) -> Representative:
    """Reads representative data, or a choice of it.

    Args:
        path: an `.npy` file of images as the model takes them, a folder with a sub-folder of
            pictures for each class, or a config, whose training images are taken.
        preprocessing: what the model was trained with; a folder needs it, a config tells it.
        count: how many images; when not given, all of a file and 500 of a folder or a config.
        seed: of the choice.

    Raises:
        ExportError: there is no such file, it holds something else, the count is below 1, or more
            than there are in the file; or see `read_config`.
    """
    if count is not None and count < 1:
        raise ExportError(f"representative_count is {count}; give a whole number from 1")
    if seed < 0:
        raise ExportError(f"seed is {seed}; give a whole number from 0")
    if is_config(path):
        return _of_config(path, preprocessing, count or _COUNT, seed)
    if path.is_dir():
        if preprocessing is None:
            raise ExportError(
                f"representative folder {str(path)!r} holds pictures, and what the model was "
                f"trained with is not known; give --pixel_range, and --mean and --std where there "
                f"were some"
            )
        folder = choose(path, count or _COUNT, seed, preprocessing)
        asked = {"count": count or _COUNT, "seed": seed}
        return Representative(path.name, folder, asked, folder.facts(), preprocessing)
    or_folder = ", or a folder with a sub-folder of pictures for each class"
    images = read_npy(path, "representative data", or_folder)
    asked = {}
    if count is not None:
        if images.ndim == 0 or count > len(images):
            raise ExportError(
                f"representative_count is {count}, but {str(path)!r} has shape {images.shape}; "
                f"leave it out for all"
            )
        places = np.random.default_rng(seed).choice(len(images), count, replace=False)
        images, asked = images[np.sort(places)], {"count": count, "seed": seed}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    facts = {"images": len(images) if images.ndim else 0, "sha256": digest}
    return Representative(path.name, images, asked, facts, preprocessing)


def _of_config(
    path: Path, preprocessing: Preprocessing | None, count: int, seed: int
) -> Representative:
    if preprocessing is not None:
        raise ExportError(
            f"config {str(path)!r} tells itself what the model was trained with; leave out "
            f"--pixel_range, --mean, --std and --channel_order"
        )
    found = read_config(path, "train", lambda labels: balanced(labels, count, seed))
    asked = {"count": count, "seed": seed}
    return Representative(
        path.name, found.images, asked, found.facts(), found.preprocessing, found.class_names
    )
