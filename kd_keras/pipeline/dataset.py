"""The data of a config: a folder with all of it, or some of its images, and their normalization."""

import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from kd_keras import data
from kd_keras.data import normalization, selection
from kd_keras.pipeline import config as configs


def load(config: ConfigDict, directory: str | os.PathLike) -> data.Dataset:
    """Decode a config's data set into a folder, from which it is memory-mapped.

    Raises:
        InputError: See `kd_keras.data.load`.
    """
    name, origin = _origin(config)
    return data.load(name, **origin, **_division(config), directory=pathlib.Path(directory))


def opened(config: ConfigDict) -> Any:
    """A config's data set with nothing decoded, a `kd_keras.data.source.Source`.

    Raises:
        InputError: See `kd_keras.data.load`.
    """
    name, origin = _origin(config)
    return data.open_source(name, **origin)


def part(config: ConfigDict, source: Any, split: str, choose: Any = None) -> data.Split:
    """Examples of the split that `load` gives; see `kd_keras.data.part`."""
    return data.part(source, split, choose, **_division(config))


def transfer_rows(config: ConfigDict, labels: np.ndarray, classes: int) -> np.ndarray | None:
    """The numbers of the training images that the student sees; None for all of them.

    Raises:
        InputError: See `kd_keras.data.selection.transfer_set`.
    """
    own = config.student.transfer_set
    if own.share == 1 and not own.without_classes:
        return None
    return selection.transfer_set(
        *(labels, classes),
        share=own.share,
        without_classes=own.without_classes,
        seed=config.seed,
    )


def normalization_of(config: ConfigDict, train: Callable[[], data.Split]) -> Any:
    """The config's normalization, or that of the training images, which are asked for then."""
    settings = config.data
    if settings.mean:
        return data.Normalization(tuple(settings.mean), tuple(settings.std))
    return normalization.from_data(train())


def _origin(config: ConfigDict) -> tuple[str, dict[str, Any]]:
    settings = config.data
    folder = configs.expanded(settings.data_dir) or None
    return settings.name, {"data_dir": folder, "image_size": settings.image_size or None}


def _division(config: ConfigDict) -> dict[str, Any]:
    settings = config.data
    return {
        "validation": settings.validation,
        "limit": settings.limit or None,
        "seed": config.seed,
    }
