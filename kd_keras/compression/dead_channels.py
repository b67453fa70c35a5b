"""Dead channels: maps that are the same constant for every input are removed, exactly.

A filter of zeros makes such a map (its bias), and so does whatever reads only such maps; BatchNorm
with ``gamma = 0`` makes one of any map. The constant that is left after BatchNorm and activation,
``relu(beta)``, is added to the biases of the layers that read it: ``b + sum(W) * constant``. That
is exact where every window lies inside the map: without padding, for 1x1 kernels, and for dense
layers (after global pooling or Flatten). Behind zero padding a constant other than 0 is less at the
border, so there the channel stays.

"Exactly" is about inference. In training BatchNorm would have gone on to learn from such a channel.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.compression import channel_surgery, toolkit
from kd_keras.compression.channel_graph import Call, ChannelGraph
from kd_keras.compression.channel_rules import activation_name
from kd_keras.compression.ordinary import callbacks, finish

__all__ = ["apply", "callbacks", "finish"]

layers = tf.keras.layers

_MERGES: dict[type, Callable[[list[np.ndarray]], np.ndarray]] = {
    layers.Add: lambda values: np.sum(values, axis=0),
    layers.Subtract: lambda values: values[0] - values[1],
    layers.Average: lambda values: np.mean(values, axis=0),
    layers.Maximum: lambda values: np.max(values, axis=0),
}
_PADDINGS = (layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)
_CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.SeparableConv2D)


def apply(student: tf.keras.Model) -> tf.keras.Model:
    """Returns a copy of ``student`` without channels that hold one constant, of equal outputs.

    Args:
        student: a built Functional or Sequential model; it is not changed.

    Returns:
        The copy, with the same layer and output names; each layer keeps at least one channel. A
        layer that had no bias has one if a constant other than 0 is added to it.

    Raises:
        InputError: the model is subclassed, or TensorFlow runs with Keras 3.
    """
    toolkit.require_tf_keras()
    toolkit.require_graph(student)
    graph = ChannelGraph(student)
    values = _constants(graph)
    kept = _kept(graph, values)
    return channel_surgery.smaller(student, graph, kept, _biases(graph, values, kept))


def _constants(graph: ChannelGraph) -> dict[Any, np.ndarray]:
    """Channels of a tensor -> the constant that each holds, NaN where it varies."""
    values: dict[Any, np.ndarray] = {}
    for call in graph.calls:
        for x in call.inputs:
            values.setdefault(x, np.full(len(x.ids), np.nan))  # the model's inputs
        values[call.output] = _made(call, [values[x] for x in call.inputs])
    return values


def _made(call: Call, read: list[np.ndarray]) -> np.ndarray:
    layer, flow = call.layer, call.flow
    if flow is None or flow.reads_held:
        return np.full(len(call.output.ids), np.nan)
    if flow.source is None:
        return _filtered(layer, read[0])
    if flow.merged:
        return _MERGES[type(layer)](read)
    together = np.concatenate([*read, [0.0]])  # the last is what -1 finds
    value = together[flow.source]
    if type(layer) is layers.BatchNormalization:
        return _normalized(layer, value)
    if type(layer) is layers.DepthwiseConv2D:
        return _depthwise(layer, value)
    if type(layer) in _PADDINGS and call.output.axis == -1:
        return np.where(value == 0, 0.0, np.nan)
    if type(layer) in (layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU):
        return _where_constant(value, layer.call)
    return value


def _filtered(layer: Any, value: np.ndarray) -> np.ndarray:
    sums, sizes = _sums(layer)
    taken = _absorbable(layer, value)
    constant = ~(sizes[~taken] > 0).any(axis=0)
    return _activated(layer, np.where(constant, _bias(layer) + value[taken] @ sums[taken], np.nan))


def _depthwise(layer: Any, value: np.ndarray) -> np.ndarray:
    kernel = layer.depthwise_kernel.numpy()
    sums, sizes = (k.sum(axis=(0, 1)).reshape(-1) for k in (kernel, np.abs(kernel)))
    taken = _absorbable(layer, value) | (sizes == 0)
    return _activated(layer, np.where(taken, _bias(layer) + np.nan_to_num(value) * sums, np.nan))


def _normalized(norm: Any, value: np.ndarray) -> np.ndarray:
    scale = 1 / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
    scale = scale * (norm.gamma.numpy() if norm.scale else 1.0)
    beta = norm.beta.numpy() if norm.center else np.zeros_like(scale)
    return np.where(scale == 0, beta, (value - norm.moving_mean.numpy()) * scale + beta)


def _sums(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """``(inputs, outputs)``: each kernel's sum over its window, and that of absolute values."""
    if type(layer) is layers.SeparableConv2D:
        depthwise, pointwise = layer.depthwise_kernel.numpy(), layer.pointwise_kernel.numpy()[0, 0]
        shape = (*depthwise.shape[2:], -1)  # inputs, multiplier, outputs
        each = [
            (d.sum(axis=(0, 1)).reshape(-1, 1) * p).reshape(shape).sum(axis=1)
            for d, p in ((depthwise, pointwise), (np.abs(depthwise), np.abs(pointwise)))
        ]
        return each[0], each[1]
    kernel = layer.kernel.numpy()
    if type(layer) in (layers.Conv2DTranspose, layers.Conv3DTranspose):
        kernel = np.swapaxes(kernel, -1, -2)
    window = tuple(range(kernel.ndim - 2))
    return kernel.sum(axis=window), np.abs(kernel).sum(axis=window)


def _absorbable(layer: Any, value: np.ndarray) -> np.ndarray:
    """Whether what a kernel makes of each input channel is one constant at all places."""
    inside = type(layer) is layers.Dense or (
        type(layer) in (*_CONVOLUTIONS, layers.DepthwiseConv2D)
        and (layer.padding == "valid" or set(layer.kernel_size) == {1})
    )
    return (value == 0) | (inside & ~np.isnan(value))


def _kept(graph: ChannelGraph, values: dict[Any, np.ndarray]) -> np.ndarray:
    dead = np.ones(len(graph.roots), bool)
    for group in graph.groups():
        if group.held:
            dead[group.classes] = False
    uses: dict[Any, int] = {}
    for call in graph.calls:
        uses[call.layer] = uses.get(call.layer, 0) + 1
    for call in graph.calls:
        # What layers without filters make of a channel is seen where it is read in the end.
        if call.flow is not None and call.flow.filters:
            (x,) = call.inputs
            value = values[x]
            # A layer used twice has one bias for what may be two constants.
            taken = value == 0 if uses[call.layer] > 1 else _absorbable(call.layer, value)
            dead[graph.roots[x.ids[~taken]]] = False
    kept = ~dead
    made = np.zeros(len(kept), bool)
    for layer, flow in graph.flows.items():
        if flow.filters:
            classes = graph.outputs[layer]
            made[classes] = True
            if not kept[classes].any():
                kept[classes[0]] = True
    return kept | ~made


def _biases(
    graph: ChannelGraph, values: dict[Any, np.ndarray], kept: np.ndarray
) -> dict[Any, np.ndarray]:
    biases = {}
    for call in graph.calls:
        if call.flow is None or not call.flow.reads or call.flow.source is not None:
            continue
        (x,) = call.inputs
        gone = ~kept[graph.roots[x.ids]]
        added = values[x][gone] @ _sums(call.layer)[0][gone]
        if added.any():
            biases[call.layer] = (_bias(call.layer) + added).astype("float32")
    return biases


def _bias(layer: Any) -> Any:
    return layer.bias.numpy() if layer.use_bias else 0.0


def _activated(layer: Any, value: np.ndarray) -> np.ndarray:
    if activation_name(layer) == "linear":
        return value
    return _where_constant(value, layer.activation)


def _where_constant(value: np.ndarray, function: Callable[[Any], Any]) -> np.ndarray:
    made = np.asarray(function(tf.constant(np.nan_to_num(value), tf.float32)))
    return np.where(np.isnan(value), np.nan, made)
