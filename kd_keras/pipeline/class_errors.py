"""What a confusion matrix says: accuracy of each class, the matrix's cells, the worst mix-ups."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kd_keras.errors import InputError

Matrix = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pair:
    """Images of one class that were taken for another: how many, of how many in the class."""

    true_class: int
    predicted_class: int
    images: int
    of: int

    @property
    def share(self) -> float:
        """Fraction of the class."""
        return self.images / self.of


def as_matrix(confusion: Any, name: str) -> Matrix:
    """Returns a confusion matrix (rows true, columns predicted) as an array of shape (C, C).

    Raises:
        InputError: It is not square, or holds something else than counts.
    """
    try:
        matrix = np.asarray(confusion, dtype=np.int64)
    except (TypeError, ValueError, OverflowError):
        matrix = np.zeros(0, np.int64)
    if (
        matrix.ndim != 2
        or matrix.shape[0] != matrix.shape[1]
        or not matrix.size
        or matrix.min() < 0
    ):
        raise InputError(
            f"confusion matrix of {name!r} cannot be read; it must be C lists of C counts, "
            "rows the true classes"
        )
    return matrix


def accuracy_of_classes(matrix: Matrix) -> list[float | None]:
    """Returns the fraction of each true class that was right, None for a class without images."""
    totals = matrix.sum(axis=1)
    right = np.diagonal(matrix)
    return [float(r / n) if n else None for r, n in zip(right, totals, strict=True)]


def most_confused(matrix: Matrix, limit: int) -> list[Pair]:
    """Returns the largest off-diagonal counts, largest first, ties in order of the classes."""
    errors = matrix.copy()
    np.fill_diagonal(errors, 0)
    order = np.argsort(-errors, axis=None, kind="stable")[:limit]
    totals = matrix.sum(axis=1)
    pairs = []
    for index in order:
        true, predicted = divmod(int(index), len(matrix))
        if errors[true, predicted]:
            images = int(errors[true, predicted])
            pairs.append(Pair(true, predicted, images, int(totals[true])))
    return pairs


def hardest_classes(accuracies: Sequence[float | None], limit: int) -> list[int]:
    """Returns the classes with the lowest accuracy, lowest first, of those with images."""
    known = [index for index, accuracy in enumerate(accuracies) if accuracy is not None]
    return sorted(known, key=lambda index: accuracies[index] or 0.0)[:limit]
