"""From what a user asked of a decomposition to the rank of each layer, or why it is left."""

import dataclasses
import math
import operator
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from kd_keras.compression import decomposable, rank_selection, toolkit
from kd_keras.compression.decomposable import Target
from kd_keras.compression.factorization import Rank
from kd_keras.errors import InputError

Ranks = Mapping[str, int | tuple[int, int]]
#: A rank, or None and the reason.
Choice = tuple[Rank | None, str]


@dataclasses.dataclass(frozen=True)
class Goals:
    """What a user asked for: exactly one is not None.

    Raises:
        InputError: there is none or more than one, or a share is out of its range.
    """

    error: float | None
    energy: float | None
    ranks: Ranks | None
    parameters: int | None
    multiply_adds: int | None

    def __post_init__(self) -> None:
        given = [name for name, value in vars(self).items() if value is not None]
        if len(given) != 1:
            raise InputError(
                f"low rank needs exactly one goal and has {' and '.join(given) or 'none'}; give "
                "one of error, energy, ranks, parameters, multiply_adds"
            )
        if self.error is not None and not 0 <= self.error < 1:
            raise InputError(
                f"error {self.error!r} is not possible; give a relative error in [0, 1)"
            )
        if self.energy is not None and not 0 < self.energy <= 1:
            raise InputError(
                f"energy {self.energy!r} is not possible; give a share to keep in (0, 1]"
            )

        if self.ranks is not None and not self.ranks:
            raise InputError("ranks is empty; give the rank of each layer to decompose by its name")
        for name in ("parameters", "multiply_adds"):
            budget = getattr(self, name)
            if budget is not None and (not isinstance(budget, (int, np.integer)) or budget < 1):
                raise InputError(
                    f"{name} {budget!r} is not possible; give a whole number of at least 1"
                )

    @property
    def greatest_error(self) -> float | None:
        """Of ``error`` or ``energy``."""
        return self.error if self.energy is None else math.sqrt(1 - self.energy)


def choices(student: tf.keras.Model, targets: list[Target], goals: Goals) -> list[Choice]:
    """The choice for each of the targets.

    Raises:
        InputError: the goal cannot be met, or ``ranks`` names what cannot be decomposed.
    """
    if goals.ranks is not None:
        return _given_ranks(student, targets, goals.ranks)
    able = [target for target in targets if target.method]
    candidates = [target.candidates() for target in able]
    indices: Sequence[int | None]
    if goals.greatest_error is None:
        indices = _within_budget(student, targets, able, candidates, goals)
        reason = "the budget is met without it"
    else:
        indices = _within_error(student, candidates, goals.greatest_error)
        reason = "nothing smaller keeps to the error"
    found = {
        id(target): (tuple(int(r) for r in c.ranks[index]), "")
        for target, c, index in zip(able, candidates, indices, strict=True)
        if index is not None
    }
    return [found.get(id(target), (None, target.reason or reason)) for target in targets]


def refuse_unknown(
    names: Iterable[str], role: str, student: tf.keras.Model, targets: list[Target]
) -> None:
    """InputError unless ``student`` has layers of these names, with kernels if they are "ranks"."""
    there = {layer.name for layer in toolkit.leaf_layers(student)}
    for name in names:
        if name not in there or (role == "ranks" and name not in {t.layer.name for t in targets}):
            able = sorted({target.layer.name for target in targets if target.method})
            raise InputError(
                f"layer {name!r} in {role} is not one of model {student.name!r} that can be "
                f"decomposed; these can: {', '.join(able)}"
            )


def _given_ranks(student: tf.keras.Model, targets: list[Target], ranks: Ranks) -> list[Choice]:
    refuse_unknown(ranks, "ranks", student, targets)
    chosen: list[Choice] = []
    for target in targets:
        name = target.layer.name
        if name not in ranks:
            chosen.append((None, target.reason or "not in ranks"))
            continue
        if not target.method:
            raise InputError(
                f"layer {name!r} in ranks cannot be decomposed ({target.reason}); take it out"
            )
        chosen.append((_checked_rank(target, ranks[name]), ""))
    return chosen


def _checked_rank(target: Target, rank: int | tuple[int, int]) -> Rank:
    shape = target.kernel.shape
    limits = target.factorization.limits(shape)
    given = tuple(rank) if isinstance(rank, Sequence) else (rank,)
    whole = all(isinstance(r, (int, np.integer)) for r in given)
    if (
        not whole
        or len(given) != len(limits)
        or not all(1 <= r <= limit for r, limit in zip(given, limits, strict=True))
    ):
        allowed = " and ".join(f"1 to {limit}" for limit in limits)
        kind = "a pair of whole numbers, from" if len(limits) > 1 else "a whole number from"
        raise InputError(
            f"rank {rank!r} of layer {target.layer.name!r} is not possible for {target.method}; "
            f"give {kind} {allowed}"
        )
    if target.method == "tucker" and max(given) > shape[0] * shape[1] * min(given):
        raise InputError(
            f"rank {rank!r} of layer {target.layer.name!r} is not possible for tucker; with a "
            f"{shape[0]}x{shape[1]} kernel one number is at most {shape[0] * shape[1]} times the "
            "other"
        )
    return tuple(operator.index(r) for r in given)


def _within_error(
    student: tf.keras.Model, candidates: list[rank_selection.Candidates], error: float
) -> list[int | None]:
    found = [rank_selection.by_error(c, error) for c in candidates]
    if all(index is None for index in found):
        raise InputError(
            f"no layer of model {student.name!r} gets smaller with an error of at most "
            f"{error:.4g}; allow more (a smaller energy), or take another method"
        )
    return found


def _within_budget(
    student: tf.keras.Model,
    targets: list[Target],
    able: list[Target],
    candidates: list[rank_selection.Candidates],
    goals: Goals,
) -> list[int | None]:
    if goals.parameters is not None:
        goal, budget, whole = "parameters", goals.parameters, student.count_params()
    else:
        goal, budget = "multiply_adds", goals.multiply_adds or 0
        whole = sum(target.multiply_adds for target in targets)
        for layer in decomposable.uncounted(student):
            raise InputError(
                f"multiply_adds of {layer} in model {student.name!r} cannot be counted; "
                "give another goal, such as parameters"
            )
    costs = [getattr(c, goal) for c in candidates]
    before = [getattr(target, goal) for target in able]
    rest = whole - sum(before)
    found = rank_selection.by_budget(costs, [c.errors for c in candidates], before, budget - rest)
    if found is None:
        least = rest + sum(min([cost, *c]) for cost, c in zip(before, costs, strict=True))
        raise InputError(
            f"{goal} {budget!r} cannot be met: model {student.name!r} has {whole}, and at the "
            f"lowest ranks {least}; give at least that many, or a smaller student"
        )
    return found
