"""Whether a teacher names the classes in another order than the data."""

from collections.abc import Callable

import numpy as np
from scipy.optimize import linear_sum_assignment

_FOLDS = 5


def reordered_accuracy(labels: np.ndarray, choices: np.ndarray) -> float:
    """The accuracy after the permutation of the classes that is best for it.

    A permutation that is judged by the few examples that it is chosen on gains by chance. So it is
    chosen on four fifths of them and judged on the last one, five times over.

    Args:
        labels: Class indices `(examples,)`.
        choices: What the teacher says, `(examples,)`.
    """
    fold = np.random.default_rng(0).permutation(len(labels)) % _FOLDS
    right = 0
    for number in range(_FOLDS):
        chosen, judged = fold != number, fold == number
        order = _best(labels[chosen], choices[chosen])
        right += int((order(labels[judged]) == choices[judged]).sum())
    return right / len(labels)


def misplaced(labels: np.ndarray, choices: np.ndarray) -> list[tuple[int, int]]:
    """The classes that the best permutation moves, as (label, what the teacher says instead).

    Those with the most examples come first. Arguments as in `reordered_accuracy`.
    """
    order = _best(labels, choices)
    moved = labels[(order(labels) == choices) & (labels != choices)]
    found, counts = np.unique(moved, return_counts=True)
    ranked = found[np.argsort(-counts, kind="stable")]
    return [(int(one), int(said)) for one, said in zip(ranked, order(ranked), strict=True)]


def _best(labels: np.ndarray, choices: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The permutation, from labels to what the teacher says, that makes most choices right."""
    # The classes that occur: there may be very many that do not, and those stay where they are.
    classes = np.unique(np.concatenate([labels, choices]))
    confusion = np.zeros((len(classes), len(classes)))
    np.add.at(confusion, (classes.searchsorted(labels), classes.searchsorted(choices)), 1)
    # Less than one example in all: a class moves only if that gains something.
    staying = np.eye(len(classes)) / (len(classes) + 1)
    said = classes[linear_sum_assignment(confusion + staying, maximize=True)[1]]

    def order(asked: np.ndarray) -> np.ndarray:
        place = np.minimum(classes.searchsorted(asked), len(classes) - 1)
        return np.where(classes[place] == asked, said[place], asked)

    return order
