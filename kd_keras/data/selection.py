"""Which examples go where: seeded, and with every class in its share."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from kd_keras.errors import InputError


def stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Chooses examples so that each class keeps its share.

    Every example gets ``(r + 1/2) / n_c``: ``n_c`` the size of its class, ``r`` its place in a
    random order of that class. The ``count`` smallest are chosen, ties in random order, so that
    class ``c`` contributes ``count * n_c / n``, rounded. For one seed, a smaller choice is a
    subset of a larger one.

    Args:
        labels: integer, (n,).
        count: how many to choose, 0..n.
        seed: of the random order.

    Returns:
        int64, (count,): the chosen row numbers, ascending.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    _, starts, sizes = np.unique(labels[by_class], return_index=True, return_counts=True)
    place = np.arange(len(labels)) - np.repeat(starts, sizes)
    key = np.empty(len(labels))
    key[by_class] = (place + 0.5) / np.repeat(sizes, sizes)
    chosen = order[np.argsort(key[order], kind="stable")[:count]]
    return np.sort(chosen)


def transfer_set(
    labels: np.ndarray,
    classes: int,
    *,
    share: float,
    without_classes: Collection[int],
    seed: int,
) -> np.ndarray:
    """Chooses the part of a training set that a student sees.

    Args:
        labels: integer, (n,).
        classes: the number of classes.
        share: the part of what is left without some classes, in (0, 1]; every class keeps its share
            of it. For one seed, a smaller part lies within a larger one.
        without_classes: the numbers of the classes that are left out.
        seed: of the choice.

    Returns:
        int64: the chosen row numbers, ascending.

    Raises:
        InputError: if there is no such class, or nothing is left.
    """
    unknown = [number for number in without_classes if number not in range(classes)]
    if unknown:
        raise InputError(
            f"class {unknown[0]!r} cannot be left out: the classes are 0 to {classes - 1}"
        )
    rows = np.flatnonzero(~np.isin(labels, list(without_classes)))
    count = round(share * len(rows))
    if not count:
        raise InputError(
            f"share {share} of {len(rows)} training examples without the classes "
            f"{sorted(without_classes)} leaves none; give a larger share, or leave out fewer"
        )
    return rows[stratified(labels[rows], count, seed)]
