"""Image-classification data: loaded, saved, normalized, augmented and streamed.

`load` makes a `Dataset`; `save` and `open_saved` keep it in a folder, memory-mapped; `Views` and
`evaluation` stream it as ``tf.data``. Importing the package imports neither TensorFlow nor a source
of data; each is imported when it is first used.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from kd_keras.data.image_size import parse
from kd_keras.data.splits import Dataset, Split, checksum
from kd_keras.errors import InputError

_HOMES = {
    "Augmentation": "augmentation",
    "Normalization": "normalization",
    "Views": "views",
    "evaluation": "stream",
    "example_seeds": "stream",
    "open_saved": "storage",
    "part": "source",
    "save": "storage",
    "steps_per_epoch": "stream",
}
__all__ = ["Dataset", "Split", "checksum", "load", "open_source", *_HOMES]


def load(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    image_size: int | tuple[int, int] | None = None,
    validation: float = 0.1,
    limit: int | None = None,
    seed: int = 0,
    directory: str | os.PathLike | None = None,
) -> Dataset:
    """Loads a classification data set and divides it into train, validation and test.

    Splits that the set brings are used as they are. A missing test split is a fifth of the training
    set, the same for every seed. Every division is stratified by class.

    Args:
        name: ``"digits"`` (scikit-learn's, no download), ``"folder"`` (one sub-folder of images a
            class) or a set of TensorFlow Datasets, for example ``"cifar10"``.
        data_dir: the folder of ``"folder"``, or where TensorFlow Datasets keeps its sets (default:
            its own, ``TFDS_DATA_DIR`` or ``~/tensorflow_datasets``). ``"digits"`` needs none.
        image_size: pixels, one number or (height, width); needed where images differ in size.
        validation: the fraction of the training set that becomes the validation split, if the set
            has none of its own; in (0, 1).
        limit: at most so many examples in each of the three splits, for quick trials.
        seed: chooses the validation split and the examples within the limit.
        directory: decode straight into files of this folder, as `save` writes them, so that memory
            does not grow with the data.

    Returns:
        The data set: in memory, or memory-mapped if a directory is given.

    Raises:
        InputError: if an option is out of range, there is no such set, or it cannot be read; each
            names the cause and the cure.
    """
    if not 0 < validation < 1:
        raise InputError(f"validation {validation!r} is out of range; give a fraction in (0, 1)")
    if limit is not None and limit < 1:
        raise InputError(f"limit {limit!r} is out of range; give at least 1, or None for all")
    source_module = importlib.import_module("kd_keras.data.source")
    return source_module.assemble(
        open_source(name, data_dir=data_dir, image_size=image_size),
        validation=validation,
        limit=limit,
        seed=seed,
        directory=directory,
    )


def open_source(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> Any:
    """Opens what `load` reads, and decodes nothing yet; `part` reads some of it.

    Args:
        name: see `load`, as the others.
        data_dir: likewise.
        image_size: likewise.

    Returns:
        A `kd_keras.data.source.Source`.

    Raises:
        InputError: see `load`.
    """
    image_size = parse(image_size)
    if name == "digits":
        if image_size not in (None, (8, 8)):
            raise InputError(f"image_size {image_size} cannot be had: digits are 8x8; give none")
        return importlib.import_module("kd_keras.data.digits").source()
    if name == "folder":
        return importlib.import_module("kd_keras.data.folder").source(
            data_dir, image_size=image_size
        )
    return importlib.import_module("kd_keras.data.tfds_source").source(
        name, data_dir=data_dir, image_size=image_size
    )


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
