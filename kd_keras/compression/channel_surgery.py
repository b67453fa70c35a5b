"""Builds the smaller model when it is known which classes of channels stay."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.compression.channel_graph import ChannelGraph, is_nested


def smaller(
    model: tf.keras.Model,
    graph: ChannelGraph,
    kept: np.ndarray,
    biases: Mapping[Any, np.ndarray] | None = None,
) -> tf.keras.Model:
    """A copy of ``model`` that has only the channels of the kept classes.

    Args:
        model: the model that ``graph`` was made of; it is not changed.
        graph: its channels.
        kept: bool, whether to keep each id.
        biases: layer -> its bias in the place of its own, with all of its channels; a layer
            without a bias gets one.

    Returns:
        A model of the same kind (Functional or Sequential) with the same names.
    """
    new_biases = biases or {}
    copies: dict[Any, Any] = {}

    def clone(layer: Any) -> Any:
        if is_nested(layer):
            inputs = [
                _narrow_input(tensor, int(kept[graph.roots[x.ids]].sum()))
                for tensor, x in zip(layer.inputs, graph.nested[layer], strict=True)
            ]
            return tf.keras.models.clone_model(layer, inputs, clone)
        config = layer.get_config()
        settings = graph.flows[layer].settings if layer in graph.flows else None
        if settings is not None:
            config |= settings(kept[graph.outputs[layer]])
        if layer in new_biases:
            config["use_bias"] = True
        copies[layer] = layer.__class__.from_config(config)
        return copies[layer]

    result = tf.keras.models.clone_model(model, clone_function=clone)
    for layer, copy in copies.items():
        if layer in graph.flows and graph.flows[layer].gives:
            _copy_weights(layer, copy, graph, kept)
        else:
            copy.set_weights(layer.get_weights())
    for layer, bias in new_biases.items():
        copies[layer].bias.assign(bias[kept[graph.outputs[layer]]])
    return result


def kept_channels(graph: ChannelGraph, kept: np.ndarray) -> dict[str, list[int]]:
    """For each layer that loses some of the channels that its weights give: those that stay."""
    lists = {}
    for layer, flow in graph.flows.items():
        stays = kept[graph.outputs[layer]]
        if flow.gives and not stays.all():
            lists[graph.names[layer]] = np.flatnonzero(stays).tolist()
    return lists


def _copy_weights(layer: Any, copy: Any, graph: ChannelGraph, kept: np.ndarray) -> None:
    flow = graph.flows[layer]
    for name in {*flow.reads, *flow.gives}:
        weight = getattr(layer, name, None)
        if weight is None:
            continue
        values = weight.numpy()
        for axis, classes in graph.weights[layer].get(name, {}).items():
            values = np.compress(kept[classes], values, axis)
        getattr(copy, name).assign(values)


def _narrow_input(tensor: Any, channels: int) -> Any:
    shape = (*tensor.shape[1:-1], channels)
    return tf.keras.Input(shape, dtype=tensor.dtype, name=tensor.node.layer.name)
