"""Data sets in a folder: one ``.npy`` file an array, read through memory maps.

``data.json`` is written last: a folder without it is not finished, whatever else it holds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from kd_keras.data.splits import SPLIT_NAMES, Dataset, Split, checksum
from kd_keras.errors import InputError

MANIFEST = "data.json"
_VERSION = 1
_COPIED_ROWS = 4096


def save(dataset: Dataset, directory: str | os.PathLike) -> Dataset:
    """Writes a data set into a folder, each file atomically.

    Args:
        dataset: the data.
        directory: the folder; made if it is not there. An older data set in it is replaced.

    Returns:
        The saved data set, memory-mapped.

    Raises:
        InputError: if the folder cannot be written (read-only, disk full).
    """
    folder = Path(directory)
    begin(folder)
    for name, split in dataset.splits():
        with _writing(folder):
            images = create_images(folder, name, split.images.shape)
            for start in range(0, len(split), _COPIED_ROWS):
                images[start : start + _COPIED_ROWS] = split.images[start : start + _COPIED_ROWS]
            images.flush()
    return publish(dataset, folder)


def begin(folder: Path) -> None:
    """Makes the folder and marks what it holds as unfinished, before arrays are replaced."""
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MANIFEST).unlink(missing_ok=True)


def create_images(folder: Path, split_name: str, shape: tuple[int, ...]) -> np.memmap:
    """A writable uint8 array in a file of the folder that `publish` will name and count in."""
    with _writing(folder):
        path = _partial(folder, f"{split_name}_images")
        images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        # A memory map on a full disk dies of SIGBUS; reserving the space raises an error instead.
        if hasattr(os, "posix_fallocate"):  # macOS has none
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return images


def publish(dataset: Dataset, folder: Path) -> Dataset:
    """Completes a folder whose images were filled in through `create_images`.

    Args:
        dataset: the data; its images may be the arrays of `create_images` or equal ones.
        folder: the folder.

    Returns:
        The data set, memory-mapped read-only.

    Raises:
        InputError: if the folder cannot be written.
    """
    manifest = {
        "version": _VERSION,
        "name": dataset.name,
        "class_names": list(dataset.class_names),
        "notes": list(dataset.notes),
        "checksum": checksum(dataset),
        "splits": {name: list(split.images.shape) for name, split in dataset.splits()},
    }
    with _writing(folder):
        for name, split in dataset.splits():
            os.replace(_partial(folder, f"{name}_images"), folder / f"{name}_images.npy")
            labels_file = _partial(folder, f"{name}_labels")
            with labels_file.open("wb") as file:
                np.save(file, split.labels, allow_pickle=False)
            os.replace(labels_file, folder / f"{name}_labels.npy")
        partial = _partial(folder, MANIFEST)
        partial.write_text(json.dumps(manifest, indent=1))
        os.replace(partial, folder / MANIFEST)
    return open_saved(folder)


def open_saved(directory: str | os.PathLike, *, verify: bool = False) -> Dataset:
    """Opens what `save` wrote; images stay on disk until they are read.

    Args:
        directory: the folder.
        verify: also read every pixel and compare the checksum.

    Returns:
        The data set; its images are read-only memory maps.

    Raises:
        InputError: if a file is missing, truncated or not as `data.json` says, naming the file.
    """
    folder = Path(directory)
    manifest = read_manifest(folder)
    splits = {name: _open_split(folder, name, manifest["splits"][name]) for name in SPLIT_NAMES}
    dataset = Dataset(
        name=manifest["name"],
        class_names=tuple(manifest["class_names"]),
        notes=tuple(manifest["notes"]),
        **splits,
    )
    if verify and checksum(dataset) != manifest["checksum"]:
        raise _damaged(folder / MANIFEST, "the arrays beside it do not have its checksum")
    return dataset


def read_manifest(directory: str | os.PathLike) -> dict:
    """The contents of a folder's ``data.json``: name, class names, notes, checksum, shapes.

    Args:
        directory: the folder.

    Returns:
        The decoded JSON object.

    Raises:
        InputError: if it is missing, is not JSON, or lacks an entry.
    """
    path = Path(directory) / MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise _damaged(path, _reason(error)) from error
    keys = {"version", "name", "class_names", "notes", "checksum", "splits"}
    if not isinstance(manifest, dict) or set(manifest) != keys or manifest["version"] != _VERSION:
        raise _damaged(path, "it is of another version of kd_keras")
    if set(manifest["splits"]) != set(SPLIT_NAMES):
        raise _damaged(path, f"its splits are not {', '.join(SPLIT_NAMES)}")
    return manifest


def _open_split(folder: Path, name: str, shape: list[int]) -> Split:
    images = _open_array(folder / f"{name}_images.npy", shape, memory_map=True)
    labels = _open_array(folder / f"{name}_labels.npy", shape[:1], memory_map=False)
    try:
        return Split(images, labels)
    except InputError as error:
        raise _damaged(folder / f"{name}_labels.npy", str(error)) from error


def _open_array(path: Path, shape: list[int], *, memory_map: bool) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r" if memory_map else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(path, _reason(error)) from error
    if list(array.shape) != shape:
        raise _damaged(path, f"its shape is {list(array.shape)}, {MANIFEST} says {shape}")
    return array


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(
        f"{str(path)!r} is missing or damaged ({reason}); delete the folder {str(path.parent)!r} "
        "and run again to make it anew"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]


def _partial(folder: Path, name: str) -> Path:
    # A fixed name: what a killed run left behind is overwritten by the next, not piled up.
    return folder / f"{name}.partial"


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"data cannot be written into {str(folder)!r} ({_reason(error)}); give a writable "
            "folder on a disk with enough space"
        ) from error
