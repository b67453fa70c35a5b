"""Chooses ranges wide enough that every bias can be stored.

A bias is an int32 in steps of input scale times weight scale. Where a whole filter is zero (pruned,
say), or an activation is always zero, that step can be as small as one likes, and the bias would
overflow: litert-quantizer 0.11 writes what is left of it, a wrong number. Zeros are zeros in any
scale, so these are made wider. A bias that is large beside all that its filter can add gets room in
the same way, which costs only what cannot be seen beside it.
"""

from collections.abc import MutableMapping
from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.model_schema import unpacked

_LARGEST = 2.0**30  # of a bias in steps, half of what int32 holds
_WEIGHT_STEPS = 127  # of int8, symmetric


class _Places(NamedTuple):
    """Which inputs of an operator are what, and the axis of its kernel's output channels."""

    activations: int
    kernel: int
    bias: int
    axis: int


_PLACES = {
    schema.BuiltinOperator.CONV_2D: _Places(0, 1, 2, axis=0),
    schema.BuiltinOperator.DEPTHWISE_CONV_2D: _Places(0, 1, 2, axis=3),
    schema.BuiltinOperator.FULLY_CONNECTED: _Places(0, 1, 2, axis=0),
    schema.BuiltinOperator.TRANSPOSE_CONV: _Places(2, 1, 3, axis=0),
}


def make_room(content: bytes, ranges: MutableMapping[str, Any], activation_steps: int) -> None:
    """Widens ranges that leave a bias no room, in place, and adds those of the kernels.

    Args:
        content: the float file.
        ranges: of activations by tensor name, `{"min": array, "max": array}`.
        activation_steps: how many steps an activation has between its least and largest value.
    """
    for found in ranges.values():
        if found and not np.any(found["min"]) and not np.any(found["max"]):
            found["max"] = np.ones_like(found["max"])
    model = unpacked(content)
    for graph in model.subgraphs:
        for operator in graph.operators or ():
            kind = model.operatorCodes[operator.opcodeIndex]
            places = _PLACES.get(max(kind.builtinCode, kind.deprecatedBuiltinCode))
            if places is not None and len(operator.inputs) > places.bias:
                _make_room(model, graph, operator, places, ranges, activation_steps)


def _make_room(
    model: schema.ModelT,
    graph: schema.SubGraphT,
    operator: schema.OperatorT,
    places: _Places,
    ranges: MutableMapping[str, Any],
    activation_steps: int,
) -> None:
    if operator.inputs[places.bias] < 0:  # the operator has none
        return
    activations, kernel, bias = (
        graph.tensors[operator.inputs[place]]
        for place in (places.activations, places.kernel, places.bias)
    )
    weights, values = stored_numbers(model, kernel), stored_numbers(model, bias)
    reached = ranges.get(activations.name.decode())
    if weights is None or values is None or not reached:
        return
    width = np.maximum(reached["max"], 0) - np.minimum(reached["min"], 0)
    step = float(np.max(width)) / activation_steps
    others = tuple(axis for axis in range(weights.ndim) if axis != places.axis)
    largest = np.abs(weights).max(axis=others, keepdims=True)
    needed = np.abs(values).reshape(largest.shape) * (_WEIGHT_STEPS / _LARGEST / step)
    earlier = ranges.get(kernel.name.decode(), {"max": 0})["max"]  # operators may share a kernel
    bound = np.maximum(np.maximum(largest, needed), earlier).astype(np.float32)
    ranges[kernel.name.decode()] = {"min": -bound, "max": bound}


def stored_numbers(model: schema.ModelT, tensor: schema.TensorT) -> np.ndarray | None:
    """Returns the float32 numbers of a tensor that the file stores, None for other tensors."""
    data = model.buffers[tensor.buffer].data
    if data is None or tensor.type != schema.TensorType.FLOAT32:
        return None
    return np.frombuffer(bytes(data), np.float32).reshape(tensor.shape)
