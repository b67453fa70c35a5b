"""Filter pruning: the filters of smallest L1 norm are removed, with the maps that they make.

Li, Kadav, Durdanovic, Samet, Graf (2017), "Pruning Filters for Efficient ConvNets": the filters of
a layer are ranked by the sum of their kernel's absolute values; the smallest go, and with them
their BatchNorm's entries and the kernel entries that read their maps. The result is an ordinary,
smaller model, whose outputs equal those of the model with these filters, and all that BatchNorm and
depthwise layers add to their maps, set to 0. Units of dense layers are filters of 1 x 1 here.

Where maps are added, all layers that end in the sum lose the same channels, ranked by the sum of
the norms of *all* filters that make such a channel. The publication goes by the projected
shortcut's filter alone, and where the shortcut is the identity leaves the sum as it is. Filters are
ranked once, before anything is removed (the publication's independent pruning). A depthwise filter
goes with the map that it reads, and has no say.

Example (any distiller trains ``smaller``; for iterative pruning, apply again and train again):

    smaller = filter_pruning.apply(student, multiply_adds=6_000_000)
    distiller.fit(train, callbacks=filter_pruning.callbacks(smaller))
    student = filter_pruning.finish(smaller)
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.compression import channel_surgery, toolkit
from kd_keras.compression.channel_graph import ChannelGraph, Group
from kd_keras.compression.ordinary import callbacks, finish
from kd_keras.errors import InputError

__all__ = ["apply", "callbacks", "finish", "plan"]

Cost = Callable[[tf.keras.Model], float]


def apply(
    student: tf.keras.Model,
    *,
    keep: float | None = None,
    parameters: int | None = None,
    multiply_adds: int | None = None,
    cost: Cost | None = None,
    at_most: float | None = None,
    skip: Sequence[str] = (),
    minimum: int = 1,
    multiple: int = 1,
    strict: bool = False,
) -> tf.keras.Model:
    """Returns a smaller copy of ``student``. Give exactly one target.

    All targets set one share of filters for all layers. Of the layers that are joined by an Add
    the channels are counted once. With a target other than ``keep`` it is the greatest share that
    meets it, found by bisection.

    Args:
        student: a built Functional or Sequential model; it is not changed.
        keep: share of the filters of each layer to keep, in (0, 1], rounded to the nearest.
        parameters: most parameters to have, BatchNorm's moving averages included.
        multiply_adds: most multiply-adds of one example to have; those of convolutions and dense
            layers are counted.
        cost: a measure of a model, such as its latency, to be ``at_most``; it is called with about
            ten smaller models. It should not grow when filters are removed.
        at_most: goes with ``cost``.
        skip: names of layers that keep their filters. Those of a nested model ``block`` are named
            ``block/conv``.
        minimum: least filters to keep in a layer.
        multiple: number that the filters of each layer are kept in multiples of, where it has as
            many. XNNPACK and most accelerators compute 8 or 16 at a time: 11 cost them what 16 do.
        strict: whether to refuse a model in which filters must stay because of a layer that is not
            known here. Without it they are left alone and listed by ``plan``.

    Returns:
        The smaller model, with the same layer and output names.

    Raises:
        InputError: a number is out of its range, a name in ``skip`` is no layer, not even
            ``minimum`` meets the target, no filter may go, the model is subclassed, or TensorFlow
            runs with Keras 3.
    """
    target = _Target(keep, parameters, multiply_adds, cost, at_most)
    graph, _, kept = _decided(student, target, skip, _Counts(minimum, multiple), strict)
    return channel_surgery.smaller(student, graph, kept)


def plan(
    student: tf.keras.Model,
    *,
    keep: float | None = None,
    parameters: int | None = None,
    multiply_adds: int | None = None,
    cost: Cost | None = None,
    at_most: float | None = None,
    skip: Sequence[str] = (),
    minimum: int = 1,
    multiple: int = 1,
    strict: bool = False,
) -> dict[str, Any]:
    """What ``apply`` with the same arguments would do, as plain data for a report.

    Returns:
        ``groups``: for each set of layers that lose channels together ``layers``, ``channels`` and
        ``kept`` (their numbers). ``left_alone``: layer -> why its filters stay, all of them or
        those that are joined to another layer's. ``layers``: layer -> the channels that stay, for
        each layer with weights that loses some. ``parameters`` and ``multiply_adds`` of the result
        (None where a layer's cannot be told).

    Raises:
        InputError: as ``apply``.
    """
    target = _Target(keep, parameters, multiply_adds, cost, at_most)
    graph, groups, kept = _decided(student, target, skip, _Counts(minimum, multiple), strict)
    return {
        "groups": [
            {
                "layers": [*group.layers],
                "channels": len(group.classes),
                "kept": int(kept[group.classes].sum()),
            }
            for group in groups
            if not group.held
        ],
        "left_alone": {name: group.held for group in groups if group.held for name in group.layers},
        "layers": channel_surgery.kept_channels(graph, kept),
        "parameters": _parameters(graph, kept),
        "multiply_adds": None if graph.uncounted() else _multiply_adds(graph, kept),
    }


@dataclasses.dataclass(frozen=True)
class _Target:
    keep: float | None
    parameters: int | None
    multiply_adds: int | None
    cost: Cost | None
    at_most: float | None

    def __post_init__(self) -> None:
        given = [
            name
            for name in ("keep", "parameters", "multiply_adds", "cost")
            if getattr(self, name) is not None
        ]
        if len(given) != 1:
            raise InputError(
                f"filter pruning has {len(given)} targets ({', '.join(given) or 'none'}); give one "
                "of keep, parameters, multiply_adds, and cost with at_most"
            )
        if (self.cost is None) != (self.at_most is None):
            raise InputError(
                f"at_most {self.at_most!r} and cost {self.cost!r} go together; give both or neither"
            )
        if self.keep is not None and not 0 < self.keep <= 1:
            raise InputError(
                f"keep {self.keep!r} is not possible; give a share of filters in (0, 1]"
            )
        for name in ("parameters", "multiply_adds", "at_most"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} {value!r} is not possible; give a positive number")

    def limit(self) -> tuple[str, float]:
        if self.parameters is not None:
            return "parameters", self.parameters
        if self.multiply_adds is not None:
            return "multiply_adds", self.multiply_adds
        return "cost", self.at_most or math.nan


@dataclasses.dataclass(frozen=True)
class _Counts:
    """How many filters of a layer may stay."""

    minimum: int
    multiple: int

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} {value!r} is not possible; give at least 1 filter")

    @property
    def least(self) -> int:
        return max(self.minimum, 1 if self.multiple == 1 else self.multiple)

    def of(self, share: float, count: int) -> int:
        # Half a filter, or multiple, is kept; the hair's breadth is for shares such as 0.35 * 10.
        multiples = math.floor(share * count / self.multiple + 0.5 + 1e-9)
        return min(count, max(self.least, self.multiple * multiples))

    def steps(self, counts: set[int]) -> list[float]:
        """The shares at which more filters stay in a layer of one of these counts."""
        kept = {
            (k, n) for n in counts for k in range(self.multiple, n + self.multiple, self.multiple)
        }
        return sorted({0.0, *((k - self.multiple / 2) / n for k, n in kept)})


def _decided(
    student: tf.keras.Model, target: _Target, skip: Sequence[str], counts: _Counts, strict: bool
) -> tuple[ChannelGraph, list[Group], np.ndarray]:
    """The channels of ``student``, their groups, and whether to keep each id."""
    toolkit.require_tf_keras()
    toolkit.require_graph(student)
    graph = ChannelGraph(student)
    groups = graph.groups(_known(skip, graph, student))
    free = [group for group in groups if not group.held]
    for group in groups:
        if strict and group.unknown:
            raise InputError(
                f"the filters of {', '.join(group.layers)} cannot be pruned: {group.held}; replace "
                "that layer, name these in skip, or give strict=False to leave them alone"
            )
    if not free:
        reasons = "; ".join(f"{', '.join(g.layers)}: {g.held}" for g in groups) or "it has none"
        raise InputError(f"model {student.name!r} has no filter to prune ({reasons})")
    if target.keep is not None:
        return graph, groups, _kept(graph, free, target.keep, counts)
    share = _greatest_share(student, graph, free, target, counts)
    return graph, groups, _kept(graph, free, share, counts)


def _kept(graph: ChannelGraph, groups: list[Group], share: float, counts: _Counts) -> np.ndarray:
    kept = np.ones(len(graph.roots), bool)
    for group in groups:
        count = len(group.classes)
        stay = counts.of(share, count)
        smallest = np.argsort(group.norms, kind="stable")[: count - stay]
        kept[group.classes[smallest]] = False
    return kept


def _greatest_share(
    student: tf.keras.Model,
    graph: ChannelGraph,
    groups: list[Group],
    target: _Target,
    counts: _Counts,
) -> float:
    name, limit = target.limit()
    if name == "multiply_adds" and graph.uncounted():
        raise InputError(
            f"the multiply-adds of layer {graph.uncounted()!r} cannot be told (an unknown kind, or "
            "an open shape); give cost=, a function that counts them, and at_most="
        )

    def cost(share: float) -> float:
        kept = _kept(graph, groups, share, counts)
        if target.cost is not None:
            return float(target.cost(channel_surgery.smaller(student, graph, kept)))
        return {"parameters": _parameters, "multiply_adds": _multiply_adds}[name](graph, kept)

    shares = counts.steps({len(group.classes) for group in groups})
    low, high = 0, len(shares)
    least = cost(shares[0])
    if not least <= limit:
        raise InputError(
            f"{name} of at most {limit:g} cannot be met: with {counts.least} filters in each layer "
            f"that may lose some there are {least:g}; allow that much, or remove names from skip"
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(shares[middle]) <= limit else (low, middle)
    return shares[low]


def _parameters(graph: ChannelGraph, kept: np.ndarray) -> int:
    total = 0
    for layer in dict.fromkeys(call.layer for call in graph.calls):
        names = {id(getattr(layer, name)): name for name in graph.weights.get(layer, ())}
        for weight in layer.weights:
            name = names.get(id(weight))
            if name is not None:
                total += graph.size(layer, name, kept)
            elif weight.dtype.is_floating:  # random generators' state is no parameter
                total += math.prod(weight.shape)
    return total


def _multiply_adds(graph: ChannelGraph, kept: np.ndarray) -> int:
    return sum(
        positions * graph.size(call.layer, weight, kept)
        for call in graph.calls
        if call.flow is not None
        for weight, positions in call.flow.products.items()
        if positions is not None
    )


def _known(skip: Sequence[str], graph: ChannelGraph, student: tf.keras.Model) -> list[str]:
    names = set(graph.names.values())
    for name in skip:
        if name not in names:
            able = [graph.names[layer] for layer, flow in graph.flows.items() if flow.filters]
            raise InputError(
                f"layer {name!r} in skip is not in model {student.name!r}; it can prune: "
                f"{', '.join(able)}"
            )
    return [*skip]
