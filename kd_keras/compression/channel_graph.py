"""Which channels of a model belong together: a class of channels stays or goes as one.

Every filter, unit and padded zero is a channel with an id. Ids that an Add ties together, or two
uses of one layer, are one class (union-find). So a residual group, the offsets of a Concatenate,
the rows of a Flatten and the zero channels of shortcut "A" all come out of the same ids.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.compression import toolkit
from kd_keras.compression.channel_rules import Channels, Flow, costs_nothing, flow_of


@dataclasses.dataclass(frozen=True)
class Call:
    """One use of a layer; ``flow`` is None where the layer's kind is not known."""

    layer: Any
    inputs: tuple[Channels, ...]
    output: Channels
    flow: Flow | None


@dataclasses.dataclass(frozen=True)
class Group:
    """Classes made by the same layers, which are ranked among themselves.

    Attributes:
        layers: names of the layers whose filters make them.
        classes: ids of the classes.
        norms: ``(len(classes),)``, the sum of the L1 norms of each class's filters.
        held: why none of them may go, "" if they may; ``unknown`` if that is for want of a rule.
    """

    layers: tuple[str, ...]
    classes: np.ndarray
    norms: np.ndarray
    held: str
    unknown: bool


class ChannelGraph:
    """The channels of a Functional or Sequential model.

    Attributes:
        calls: the uses of all layers, inputs before outputs, those of nested models in their place.
        names: layer -> its name, in a nested model after the model's name and a slash.
        weights: layer -> weight -> axis -> the class of each entry along it.
        outputs: layer -> the class of each of its output channels.
        flows: layer -> the flow of its first call; layers of unknown kind are left out.
        nested: nested model -> what its first call reads.
        roots: id -> id of its class.
    """

    def __init__(self, model: tf.keras.Model) -> None:
        self.calls: list[Call] = []
        self.names: dict[Any, str] = {}
        self.flows: dict[Any, Flow] = {}
        self.nested: dict[Any, list[Channels]] = {}
        self._parents: list[int] = []
        self._held: list[tuple[np.ndarray, str, bool]] = []
        self._ids: dict[Any, dict[tuple[str, int], np.ndarray]] = {}
        inputs = [self._given(tensor, "it is joined to the input") for tensor in model.inputs]
        for output in self._walk(model, inputs, ""):
            self._hold(output.ids, "it makes the output", False)
        for call in self.calls:
            if call.flow is None and call.layer in self._ids:  # another use of it is known
                self._hold_all(call.layer)
        self.roots = np.array([self._root(number) for number in range(len(self._parents))], int)
        self.weights = {layer: self._axes(ids) for layer, ids in self._ids.items()}
        self.outputs = {layer: self.roots[ids["", 0]] for layer, ids in self._ids.items()}

    def groups(self, skip: Iterable[str] = ()) -> list[Group]:
        """All classes that filters make, by the layers that make them, in the model's order.

        Args:
            skip: names of layers whose filters stay.
        """
        made: dict[int, dict[str, float]] = {}
        for layer, flow in self.flows.items():
            if flow.filters:
                norms = _filter_norms(layer, flow)
                for root, norm in zip(self.outputs[layer].tolist(), norms.tolist(), strict=True):
                    sums = made.setdefault(root, {})
                    sums[self.names[layer]] = sums.get(self.names[layer], 0.0) + norm
        held = self._reasons([*skip])
        grouped: dict[Any, list[int]] = {}
        for root, sums in made.items():
            grouped.setdefault((tuple(sums), held.get(root, ("", False))), []).append(root)
        return [
            Group(
                names, np.array(roots), np.array([sum(made[root].values()) for root in roots]), *why
            )
            for (names, why), roots in grouped.items()
        ]

    def uncounted(self) -> str:
        """The name of a layer whose multiply-adds cannot be told, or ""."""
        for call in self.calls:
            if call.flow is None:
                if not costs_nothing(call.layer):
                    return self.names[call.layer]
            elif None in call.flow.products.values():
                return self.names[call.layer]
        return ""

    def size(self, layer: Any, weight: str, kept: np.ndarray) -> int:
        """Entries of a layer's weight when only the classes of ``kept`` are left.

        Args:
            layer: a layer of the model.
            weight: the attribute that holds it.
            kept: bool, whether to keep each id.
        """
        shape = list(getattr(layer, weight).shape)
        for axis, classes in self.weights.get(layer, {}).get(weight, {}).items():
            shape[axis] = int(kept[classes].sum())
        return int(np.prod(shape))

    def _walk(self, model: Any, inputs: Sequence[Channels], prefix: str) -> list[Channels]:
        tensors = {id(tensor): x for tensor, x in zip(model.inputs, inputs, strict=True)}
        for node in nodes(model):
            layer = node.layer
            self.names[layer] = prefix + layer.name
            read = [tensors[id(tensor)] for tensor in node.keras_inputs]
            written = tf.nest.flatten(node.outputs)
            if is_nested(layer):
                for x, before in zip(read, self.nested.setdefault(layer, read), strict=True):
                    self._unite(before.ids, x.ids)
                made = self._walk(layer, read, f"{prefix}{layer.name}/")
            else:
                made = self._call(layer, read, written)
            tensors.update(zip(map(id, written), made, strict=True))
        return [tensors[id(tensor)] for tensor in model.outputs]

    def _call(self, layer: Any, read: list[Channels], written: list[Any]) -> list[Channels]:
        shape = tuple(written[0].shape[1:])
        flow = flow_of(layer, read, shape) if len(written) == 1 and written[0].shape.rank else None
        if flow is None:
            reason = self._unknown(layer)
            for x in read:
                self._hold(x.ids, reason, True)
            made = [self._given(tensor, reason, unknown=True) for tensor in written]
            self.calls += [Call(layer, tuple(read), x, None) for x in made]
            return made
        output = Channels(self._output_ids(flow, read, shape), shape, flow.axis)
        if flow.held:
            for x in [output, *(read if flow.reads_held else ())]:
                self._hold(x.ids, f"{self.names[layer]}: {flow.held}", True)
        self._keep_alike(layer, flow, read, output)
        self.calls.append(Call(layer, tuple(read), output, flow))
        return [output]

    def _output_ids(self, flow: Flow, read: list[Channels], shape: Any) -> np.ndarray:
        if flow.source is None:
            return self._new(shape[-1])
        if flow.merged:
            for x in read[1:]:
                self._unite(read[0].ids, x.ids)
        ids = np.concatenate([x.ids for x in read])[flow.source]
        zeros = flow.source < 0
        ids[zeros] = self._new(int(zeros.sum()))
        return ids

    def _keep_alike(self, layer: Any, flow: Flow, read: list[Channels], output: Channels) -> None:
        """Notes which ids a layer's weights follow; a second use of the layer ties its ids."""
        ids = {("", 0): output.ids}
        for weight, (axis, entries) in flow.reads.items():
            ids[weight, axis] = np.repeat(read[0].ids, entries)
        for weight, axis in flow.gives.items():
            if getattr(layer, weight, None) is not None:
                ids[weight, axis] = output.ids
        if layer not in self._ids:
            self._ids[layer], self.flows[layer] = ids, flow
            return
        before, axis = self._ids[layer], self.flows[layer].axis
        if not (flow.gives or flow.settings):
            return  # such as a ReLU, which may be used on maps of any width
        if len(before["", 0]) == len(output.ids) and axis == flow.axis:
            for key, along in before.items():
                self._unite(along, ids[key])
        else:
            self._hold_all(layer)
            self._hold(output.ids, self._unknown(layer), True)

    def _axes(self, ids: dict[tuple[str, int], np.ndarray]) -> dict[str, dict[int, np.ndarray]]:
        axes: dict[str, dict[int, np.ndarray]] = {}
        for (weight, axis), along in ids.items():
            if weight:
                axes.setdefault(weight, {})[axis] = self.roots[along]
        return axes

    def _reasons(self, skip: list[str]) -> dict[int, tuple[str, bool]]:
        skipped = [
            (self._ids[layer]["", 0], f"{name} is in skip", False)
            for layer, name in self.names.items()
            if layer in self._ids and self.flows[layer].filters and name in skip
        ]
        reasons: dict[int, tuple[str, bool]] = {}
        # What was asked for comes first; then what is for want of a rule.
        for ids, reason, unknown in sorted([*self._held, *skipped], key=lambda held: held[2]):
            for root in np.unique(self.roots[ids]).tolist():
                reasons.setdefault(root, (reason, unknown))
        return reasons

    def _given(self, tensor: Any, reason: str, unknown: bool = False) -> Channels:
        shape = tuple(tensor.shape[1:])
        ids = self._new((shape[-1] if shape else None) or 0)
        self._hold(ids, reason, unknown)
        return Channels(ids, shape)

    def _hold(self, ids: np.ndarray, reason: str, unknown: bool) -> None:
        self._held.append((ids, reason, unknown))

    def _hold_all(self, layer: Any) -> None:
        for ids in self._ids[layer].values():
            self._hold(ids, self._unknown(layer), True)

    def _unknown(self, layer: Any) -> str:
        return f"{self.names[layer]} ({type(layer).__name__}) is of unknown kind or use"

    def _new(self, count: int) -> np.ndarray:
        first = len(self._parents)
        self._parents += range(first, first + count)
        return np.arange(first, first + count)

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number

    def _unite(self, left: np.ndarray, right: np.ndarray) -> None:
        for one, other in zip(left.tolist(), right.tolist(), strict=True):
            low, high = sorted((self._root(one), self._root(other)))
            self._parents[high] = low


def nodes(model: Any) -> Iterator[Any]:
    """The calls that make up a graph model, inputs before outputs, its input layers left out."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        yield from (node for node in model._nodes_by_depth[depth] if not node.is_input)


def is_nested(layer: Any) -> bool:
    """Whether a layer is a graph model whose calls can be followed.

    Raises:
        InputError: it is a subclassed model, which cannot be copied.
    """
    if isinstance(layer, tf.keras.Model):
        toolkit.require_graph(layer)
    plain = not isinstance(getattr(layer, "_nested_inputs", None), dict)
    return bool(getattr(layer, "_is_graph_network", False)) and plain


def _filter_norms(layer: Any, flow: Flow) -> np.ndarray:
    kernel = np.abs(np.asarray(getattr(layer, flow.filters)))
    return (
        np.moveaxis(kernel, flow.gives[flow.filters], 0)
        .reshape(kernel.shape[flow.gives[flow.filters]], -1)
        .sum(axis=1)
    )
