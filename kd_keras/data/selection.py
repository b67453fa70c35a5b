"""Which examples go where: seeded, and with every class in its share."""

from __future__ import annotations

import numpy as np


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
