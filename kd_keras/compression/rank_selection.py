"""Chooses ranks: of one layer by its error, of several layers by a budget that they share."""

import dataclasses
import heapq
from collections.abc import Sequence

import numpy as np

_LEAST_ENERGY = 1e-12


@dataclasses.dataclass(frozen=True)
class Candidates:
    """What one layer could become, all smaller than the layer.

    Attributes:
        ranks: ``(n, d)`` integers.
        errors: ``(n,)``, relative errors of the kernel.
        parameters: ``(n,)`` of the layers that would stand for it.
        multiply_adds: ``(n,)`` likewise, for one example.
    """

    ranks: np.ndarray
    errors: np.ndarray
    parameters: np.ndarray
    multiply_adds: np.ndarray

    def where(self, keep: np.ndarray) -> "Candidates":
        """Those of a mask ``(n,)``."""
        return Candidates(*(getattr(self, f.name)[keep] for f in dataclasses.fields(self)))


def by_error(candidates: Candidates, error: float) -> int | None:
    """The candidate of the fewest multiply-adds whose error is at most ``error``, or None."""
    (allowed,) = np.nonzero(candidates.errors <= error)
    if not len(allowed):
        return None
    order = np.lexsort((candidates.errors[allowed], candidates.multiply_adds[allowed]))
    return int(allowed[order[0]])


def by_budget(
    costs: Sequence[np.ndarray], errors: Sequence[np.ndarray], before: Sequence[int], budget: int
) -> list[int | None] | None:
    """Spends a budget over layers, greedily: the least loss of energy for each unit saved.

    The energy of a model is the product over its layers of what they keep, ``1 - error^2``, as for
    Zhang, Zou, He and Sun (2016), because what one layer loses no later one gets back; so no layer
    is given up whole. (Theirs is that of responses, ours that of kernels, which needs no data.)

    All layers begin as they are. The step taken next is the one, over all layers and all of their
    cheaper candidates, with the least rise of ``-log(1 - error^2)`` per unit of cost saved; so each
    layer walks along the lower convex hull of its points, and where the steps are small the energy
    is the most that the budget allows. The last step, which may save more than is needed, goes to
    its layer's least error within the budget instead.

    Args:
        costs: of each layer, ``(n,)`` for its candidates.
        errors: of each layer, ``(n,)``.
        before: the cost of each layer as it is.
        budget: for all of them together.

    Returns:
        For each layer the index of its candidate, or None to leave it; None for all if the budget
        cannot be met.
    """
    chosen: list[int | None] = [None] * len(costs)
    now, lost = list(before), [0.0] * len(costs)
    losses = [-np.log(np.maximum(1 - error**2, _LEAST_ENERGY)) for error in errors]
    total = sum(before)
    steps: list[tuple[float, int, int]] = []

    def offer(layer: int) -> None:
        (cheaper,) = np.nonzero(costs[layer] < now[layer])
        if len(cheaper):
            rise = losses[layer][cheaper] - lost[layer]
            slopes = rise / (now[layer] - costs[layer][cheaper])
            best = int(np.argmin(slopes))
            heapq.heappush(steps, (float(slopes[best]), layer, int(cheaper[best])))

    for layer in range(len(costs)):
        offer(layer)
    while total > budget:
        if not steps:
            return None
        _, layer, candidate = heapq.heappop(steps)
        others = total - now[layer]
        if others + costs[layer][candidate] <= budget:
            within = np.where(others + costs[layer] <= budget, errors[layer], np.inf)
            candidate = int(np.argmin(within))
        chosen[layer], now[layer] = candidate, int(costs[layer][candidate])
        lost[layer] = float(losses[layer][candidate])
        total = others + now[layer]
        offer(layer)
    return chosen
