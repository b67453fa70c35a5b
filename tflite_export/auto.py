"""Tries recipes and takes the one with the smallest file that is still good enough."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tflite_export import recipes
from tflite_export.errors import ExportError
from tflite_export.npy_file import read_npy
from tflite_export.recipes import Recipe
from tflite_export.tflite_model import TFLiteModel
from tflite_export.writing import Content, write_checked

#: What is tried. Not 16x8, which a phone's CPU runs far slower than float32.
TRIED = ("weight_int4", "int8", "dynamic_int8", "weight_int8", "float16", "float32")


@dataclass(frozen=True)
class Examples:
    """What recipes are judged by.

    Attributes:
        images: as the model takes them, (n,) + shape of one.
        labels: (n,) class numbers; None to count agreement with the float32 file instead.
        floor: least fraction of the images that a file must get right, or agree on.

    Raises:
        ExportError: the floor is no fraction, or the labels do not fit the images.
    """

    images: np.ndarray
    labels: np.ndarray | None
    floor: float

    @property
    def score(self) -> str:
        """What is counted: accuracy, or agreement."""
        return "agreement" if self.labels is None else "accuracy"

    def __post_init__(self) -> None:
        if not 0 < self.floor <= 1:
            raise ExportError(f"floor is {self.floor}; give a fraction above 0, up to 1")
        labels = self.labels
        if labels is not None and (
            labels.shape != self.images.shape[:1] or not np.issubdtype(labels.dtype, np.integer)
        ):
            raise ExportError(
                f"labels of the test images are {labels.dtype} of shape {labels.shape}; give a "
                f"whole number for each of {len(self.images)} images"
            )


@dataclass(frozen=True)
class Trial:
    """A recipe that was considered.

    Attributes:
        recipe: its name.
        bytes: of the file; None where none could be made.
        score: fraction of images that it gets right, or where it agrees with the float32 file; None
            where a smaller file was good enough already, or there is none.
        holds: the score reaches the floor.
        reason: why there is no file.
    """

    recipe: str
    bytes: int | None = None
    score: float | None = None
    holds: bool = False
    reason: str | None = None

    def __str__(self) -> str:
        if self.bytes is None:
            return f"{self.recipe:14} {'-':>10} {'-':>9}  {self.reason}"
        score = "-" if self.score is None else f"{self.score:.4f}"
        return (
            f"{self.recipe:14} {self.bytes:10} {score:>9}  {'taken' if self.holds else ''}".rstrip()
        )


def read_examples(images: Path, labels: Path | None, floor: float) -> Examples:
    """Reads what recipes are judged by from `.npy` files.

    Raises:
        ExportError: a file is missing or holds something else.
    """
    return Examples(
        read_npy(images, "test images"),
        None if labels is None else read_npy(labels, "labels of the test images"),
        floor,
    )


def smallest(
    make: Callable[[Recipe], Content], examples: Examples
) -> tuple[Content, tuple[Trial, ...]]:
    """Makes a file by each recipe, and takes the smallest whose score reaches the floor.

    Args:
        make: makes the file of a recipe.
        examples: that decide.

    Returns:
        The file, and all that was tried, from the smallest file to the largest.

    Raises:
        ExportError: no file reaches the floor, or float32 cannot be made.
    """
    made = {"float32": make(recipes.get("float32"))}
    trials = []
    for name in TRIED:
        try:
            made[name] = made.get(name) or make(recipes.get(name))
        except ExportError as error:
            trials.append(Trial(name, reason=str(error)))
    files = sorted(made, key=lambda name: len(made[name].data))
    judged = [Trial(name, len(made[name].data)) for name in files]
    expected = examples.labels
    if expected is None:
        expected = _classes(made["float32"], examples.images)
    for place, name in enumerate(files):
        score = float(np.mean(_classes(made[name], examples.images) == expected))
        holds = score >= examples.floor
        judged[place] = replace(judged[place], score=score, holds=holds)
        if holds:
            return made[name], (*judged, *trials)
    raise ExportError(_complaint(judged, examples))


def _classes(made: Content, images: np.ndarray) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.tflite")
        write_checked(made, path)
        outputs = TFLiteModel(path).predict(images)
    if outputs.ndim != 2:
        raise ExportError(
            f"recipe 'auto' counts classes, and the model gives {outputs.shape[1:]} for an image; "
            f"name a recipe"
        )
    return outputs.argmax(axis=1)


def _complaint(judged: Sequence[Trial], examples: Examples) -> str:
    scores = ", ".join(f"{trial.recipe} {trial.score:.4f}" for trial in judged)
    return (
        f"no recipe reaches the floor {examples.floor} of {examples.score} on "
        f"{len(examples.images)} images ({scores}); lower the floor, or check that the images are "
        f"normalised as in training"
    )
