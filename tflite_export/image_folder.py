"""Representative images from a folder of pictures, one sub-folder a class."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tflite_export.balance import balanced
from tflite_export.errors import ExportError
from tflite_export.preprocessing import Preprocessing

_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class ImageFolder:
    """A choice of pictures, the same number of each class as far as there are enough.

    It is made before the model is known: size and channels come with `images`.

    Attributes:
        folder: with a sub-folder for each class.
        files: that were chosen, class after class.
        preprocessing: what the model was trained with.
    """

    folder: Path
    files: tuple[Path, ...]
    preprocessing: Preprocessing

    def images(self, shape: Sequence[int]) -> np.ndarray:
        """Returns the pictures as a model takes them.

        Args:
            shape: of one of its images, (height, width, channels).

        Returns:
            float32, (n,) + shape.

        Raises:
            ExportError: a file is no picture, or the preprocessing does not fit the shape.
        """
        fitted = self.preprocessing.fitted((1, *shape))
        pixels = [read_pixels(file, shape, str(fitted.channel_order)) for file in self.files]
        return fitted.apply(np.stack(pixels))

    def facts(self) -> dict[str, Any]:
        """Returns how many pictures there are, of which class, and the SHA-256 of all."""
        found, classes = hashlib.sha256(), Counter(file.parent.name for file in self.files)
        for file in self.files:
            name = file.relative_to(self.folder).as_posix()
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            found.update(f"{name}\0{content}\n".encode())
        return {"images": len(self.files), "classes": dict(classes), "sha256": found.hexdigest()}


def choose(folder: Path, count: int, seed: int, preprocessing: Preprocessing) -> ImageFolder:
    """Chooses pictures by `tflite_export.balance`.

    Args:
        folder: with a sub-folder for each class.
        count: how many; all where there are fewer.
        seed: the same seed chooses the same of the same folder.
        preprocessing: what the model was trained with.

    Raises:
        ExportError: there are no sub-folders, or one has no picture.
    """
    entries = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    files: list[Path] = []
    labels: list[int] = []
    for number, entry in enumerate(entries):
        found = sorted(file for file in entry.iterdir() if file.suffix.lower() in _ENDINGS)
        if not found:
            raise ExportError(
                f"representative folder {str(entry)!r} has no picture ({', '.join(_ENDINGS)}); "
                f"remove it, or put the pictures of a class there"
            )
        files += found
        labels += [number] * len(found)
    if not entries:
        raise ExportError(
            f"representative folder {str(folder)!r} has no sub-folders; put the pictures of each "
            f"class into one"
        )
    chosen = tuple(files[place] for place in balanced(np.array(labels), count, seed))
    return ImageFolder(folder, chosen, preprocessing)


def read_pixels(file: Path, shape: Sequence[int], channel_order: str) -> np.ndarray:
    """Reads a picture, resized bilinearly.

    Args:
        file: of the picture.
        shape: that it is to have, (height, width, channels).
        channel_order: RGB, BGR or gray.

    Returns:
        uint8, 0 to 255, of that shape.

    Raises:
        ExportError: the file is no picture.
    """
    height, width, _ = shape
    try:
        with Image.open(file) as picture:
            colours = picture.convert("L" if channel_order == "gray" else "RGB")
        resized = colours.resize((width, height), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ExportError(f"picture {str(file)!r} cannot be read: {error}; remove it") from error
    pixels = np.asarray(resized).reshape(tuple(shape))
    return pixels[..., ::-1] if channel_order == "BGR" else pixels
