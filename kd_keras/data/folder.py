"""A folder of images, one sub-folder a class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from kd_keras.data.source import Source
from kd_keras.data.splits import SPLIT_NAMES
from kd_keras.errors import InputError

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_DECODED_AT_ONCE = 256  # images in flight between the threads and whoever takes them
_GREY_MODES = ("1", "L", "LA")
_DEEP_MODES = ("I", "F")  # the first letter of Pillow's modes with more than 8 bits
# What Pillow raises over damaged files, by format.
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def source(root: str | os.PathLike | None, *, image_size: tuple[int, int] | None = None) -> Source:
    """Lists a folder: ``root/<class>/<image>``, or ``root/train/<class>/<image>`` and so on.

    With a sub-folder ``train``, the sub-folders ``validation`` and ``test`` are used where they
    exist. Class names are the sorted names of the training set's sub-folders. If every image is
    grey, images have one channel; else three, grey ones repeated. Transparency is dropped, the
    first frame of an animation is taken, and a photo is turned as its EXIF orientation says. Files
    that are hidden or have another extension than `EXTENSIONS` are not read.

    Args:
        root: the folder.
        image_size: height and width; the largest centred piece of that aspect ratio is resized.
            None if all images have one size.

    Returns:
        The source.

    Raises:
        InputError: if there is no such folder, it or a class has no image, or a file is not a
            readable image; `Source.read` raises it for truncated images and for mixed sizes.
    """
    if root is None:
        raise InputError("data set 'folder' needs data_dir: the folder with one sub-folder a class")
    folder = Path(root)
    if not folder.is_dir():
        raise InputError(f"data_dir {str(root)!r} is not a folder; it needs one sub-folder a class")
    homes = _split_folders(folder)
    class_names = tuple(_subfolders(homes["train"]))
    if not class_names:
        raise InputError(
            f"folder {str(homes['train'])!r} has no sub-folders; put the images of each class into "
            "a sub-folder of its name"
        )
    files = {split: _files(home, class_names) for split, home in homes.items()}
    paths = {split: [path for path, _ in listed] for split, listed in files.items()}
    mode = _common_mode([path for listed in paths.values() for path in listed])
    first = paths["train"][0]
    shape = _decode(first, mode, image_size).shape

    def read(split: str, rows: np.ndarray) -> Iterator[np.ndarray]:
        chosen = [paths[split][row] for row in rows]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(chosen), _DECODED_AT_ONCE):
                block = chosen[start : start + _DECODED_AT_ONCE]
                images = pool.map(lambda path: _decode(path, mode, image_size), block)
                for path, image in zip(block, images, strict=True):
                    _require_shape(path, image, first, shape)
                    yield image

    return Source(
        name="folder",
        class_names=class_names,
        image_shape=shape,
        labels={
            split: np.array([label for _, label in listed], np.int64)
            for split, listed in files.items()
        },
        read=read,
    )


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _split_folders(folder: Path) -> dict[str, Path]:
    names = _subfolders(folder)
    if "train" not in names:
        return {"train": folder}
    strange = [name for name in names if name not in SPLIT_NAMES]
    if strange:
        raise InputError(
            f"{str(folder)!r} has the sub-folder 'train' beside {strange[0]!r}; give either class "
            "folders, or only train, validation and test with class folders in them"
        )
    return {split: folder / split for split in SPLIT_NAMES if split in names}


def _files(home: Path, class_names: tuple[str, ...]) -> list[tuple[Path, int]]:
    """Every image of one split with its label, sorted."""
    listed: list[tuple[Path, int]] = []
    for name in _subfolders(home):
        if name not in class_names:
            raise InputError(
                f"class {name!r} of {str(home)!r} is not in the training set; it has: "
                f"{', '.join(class_names)}"
            )
        images = sorted(
            path
            for path in (home / name).iterdir()
            if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")
        )
        if not images:
            raise InputError(
                f"class folder {str(home / name)!r} has no images; add some "
                f"({' '.join(EXTENSIONS)}) or delete the folder"
            )
        listed += [(path, class_names.index(name)) for path in images]
    if not listed:
        raise InputError(f"folder {str(home)!r} has no images; fill it or delete it")
    return listed


def _common_mode(paths: list[Path]) -> str:
    """Pillow's "L" if every image is grey, else "RGB"; reads headers only."""
    grey = True
    for path in tqdm(paths, desc="image headers", unit="image", delay=2, disable=None):
        try:
            with Image.open(path) as image:
                mode = image.mode
        except _UNREADABLE as error:
            raise _unreadable(path, error) from error
        if mode.startswith(_DEEP_MODES):
            raise InputError(
                f"image {str(path)!r} has more than 8 bits a pixel (mode {mode}); convert it to 8"
            )
        grey = grey and mode in _GREY_MODES
    return "L" if grey else "RGB"


def _decode(path: Path, mode: str, size: tuple[int, int] | None) -> np.ndarray:
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert(mode)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    if size is not None and image.size != size[::-1]:
        image = _fit(image, size)
    pixels = np.asarray(image, np.uint8)
    return pixels[..., np.newaxis] if mode == "L" else pixels


def _fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """As `image_size.fit`; cut before resizing, so that nothing beyond the cut bleeds in."""
    scale = min(image.height / size[0], image.width / size[1])
    height, width = (max(1, round(side * scale)) for side in size)
    top, left = (image.height - height) // 2, (image.width - width) // 2
    piece = image.crop((left, top, left + width, top + height))
    return piece.resize(size[::-1], Image.Resampling.BILINEAR)


def _require_shape(path: Path, image: np.ndarray, first: Path, shape: tuple[int, ...]) -> None:
    if image.shape != shape:
        raise InputError(
            f"images differ in size: {str(path)!r} is {image.shape[1]}x{image.shape[0]}, "
            f"{str(first)!r} is {shape[1]}x{shape[0]}; give image_size, for example 224"
        )


def _unreadable(path: Path, error: BaseException) -> InputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(f"image {str(path)!r} cannot be read ({reason}); replace or delete the file")
