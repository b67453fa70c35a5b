"""Chooses examples so that all classes have a part."""

import numpy as np


def balanced(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Chooses at random, in turn from each class until there are enough.

    Args:
        labels: (n,) class numbers.
        count: how many; all where there are fewer.
        seed: the same seed chooses the same.

    Returns:
        Places in `labels`, class after class.
    """
    generator = np.random.default_rng(seed)
    rank = np.empty(len(labels), np.int64)  # of an example within its class
    for number in np.unique(labels):
        places = np.flatnonzero(labels == number)
        rank[generator.permutation(places)] = np.arange(len(places))
    # By rank first: so every class is taken from once, then once more.
    taken = np.lexsort((labels, rank))[:count]
    return taken[np.lexsort((rank[taken], labels[taken]))]
