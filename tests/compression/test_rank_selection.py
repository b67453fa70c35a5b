"""The choice of ranks against an exhaustive search."""

import itertools

import numpy as np
import pytest

from kd_keras.compression import rank_selection
from kd_keras.compression.rank_selection import Candidates

pytestmark = pytest.mark.any_keras


def candidates(errors, costs):
    ranks = np.arange(1, len(errors) + 1)[:, None]
    return Candidates(ranks, np.array(errors), np.array(costs), np.array(costs))


def test_the_cheapest_within_the_error():
    some = candidates([0.9, 0.5, 0.3, 0.3], [10, 40, 35, 35])
    assert rank_selection.by_error(some, 0.95) == 0
    assert rank_selection.by_error(some, 0.5) == 2  # not 1, which is within it but dearer
    assert rank_selection.by_error(some, 0.3) == 2
    assert rank_selection.by_error(some, 0.2) is None
    assert rank_selection.by_error(some.where(some.errors > 1), 0.2) is None


def energy_left(choice, errors):
    kept = [1.0 if c is None else 1 - e[c] ** 2 for c, e in zip(choice, errors, strict=True)]
    return float(np.prod(kept))


def cost_of(choice, costs, before):
    return sum(b if c is None else c_[c] for c, c_, b in zip(choice, costs, before, strict=True))


@pytest.mark.parametrize("budget", [35, 29, 20, 12, 6, 3])
def test_with_equal_steps_no_other_choice_keeps_more_energy(budget):
    generator = np.random.default_rng(budget)
    errors, costs, before = [], [], []
    for _ in range(3):
        # -log(kept energy) convex in the cost, from the untouched layer on.
        losses = np.cumsum(np.sort(generator.uniform(0.02, 1.0, 11)))[::-1]
        errors.append(np.sqrt(1 - np.exp(-losses)))
        costs.append(np.arange(1, 12))
        before.append(12)
    found = rank_selection.by_budget(costs, errors, before, budget)
    assert cost_of(found, costs, before) == budget
    every = itertools.product([None, *range(11)], repeat=3)
    best = max(energy_left(c, errors) for c in every if cost_of(c, costs, before) <= budget)
    assert energy_left(found, errors) == pytest.approx(best)


def test_a_dear_first_rank_is_jumped_over():
    """The step is the best over all cheaper candidates, not the next one."""
    costs, errors = [np.array([10, 90])], [np.array([0.2, 0.19])]
    assert rank_selection.by_budget(costs, errors, [100], 95) == [1]  # the last step fits closer
    two = rank_selection.by_budget(costs * 2, errors * 2, [100, 100], 110)
    assert sorted(two, key=str) == [0, None]


def test_the_loss_counts_for_each_unit_saved():
    costs = [np.array([98, 99]), np.array([40, 60])]
    errors = [np.array([0.3, 0.2]), np.array([0.5, 0.4])]
    assert rank_selection.by_budget(costs, errors, [100, 100], 160) == [None, 1]


def test_no_layer_is_given_up_for_the_others():
    """With error^2 itself, the cheap way would be to lose the first layer whole."""
    costs = [np.array([10, 50]), np.array([40, 60])]
    errors = [np.array([0.99999, 0.7]), np.array([0.8, 0.75])]
    assert rank_selection.by_budget(costs, errors, [100, 100], 110) == [1, 1]


def test_a_budget_that_is_met_or_cannot_be():
    costs, errors = [np.array([3, 5])], [np.array([0.5, 0.2])]
    assert rank_selection.by_budget(costs, errors, [9], 9) == [None]
    assert rank_selection.by_budget(costs, errors, [9], 2) is None
    assert rank_selection.by_budget([np.array([])], [np.array([])], [9], 8) is None
