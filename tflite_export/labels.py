"""The names of a model's classes."""

import os
from collections.abc import Sequence
from pathlib import Path

from tflite_export.errors import ExportError


def read_labels(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Reads the names of classes from a text file in UTF-8, one a line, class 0 first.

    Raises:
        ExportError: the file is missing, no such text, empty, or has an empty line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(
            f"labels {str(path)!r} cannot be read: {error}; give a text file in UTF-8, one label a "
            f"line"
        ) from error
    labels = tuple(line.strip() for line in (lines[:-1] if not lines[-1].strip() else lines))
    if not labels or not all(labels):
        place = labels.index("") + 1 if labels else 1
        raise ExportError(f"labels {str(path)!r}: line {place} is empty; write one label a line")
    return labels


def check_labels(labels: Sequence[str], classes: int) -> None:
    """Holds the names against a model's output.

    Args:
        labels: one a class.
        classes: how many outputs the model has.

    Raises:
        ExportError: there are more or fewer than outputs.
    """
    if len(labels) != classes:
        raise ExportError(
            f"there are {len(labels)} labels, from {labels[0]!r} to {labels[-1]!r}, for "
            f"{classes} outputs; give one a line for each output, in the order of training"
        )
