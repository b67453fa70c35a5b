"""A model's graph built anew, with several layers one after another where there was one."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.compression import toolkit

#: Fresh layers, to be called one after another, and the weights of each.
Parts = Sequence[tuple[Any, Sequence[np.ndarray]]]


def calls(model: tf.keras.Model) -> Iterator[Any]:
    """Each call of a layer in ``model``, as Keras' node, those in nested models in their place.

    Args:
        model: a Functional or Sequential model, checked by ``toolkit.require_graph``.

    Raises:
        InputError: a nested model is subclassed.
    """
    for node in _nodes(model):
        if isinstance(node.layer, tf.keras.Model):
            toolkit.require_graph(node.layer)
            yield from calls(node.layer)
        elif not node.is_input:
            yield node


def substituted(model: tf.keras.Model, parts: Callable[[Any], Parts | None]) -> tf.keras.Model:
    """A copy of ``model`` in which the layers of ``parts(layer)`` stand in the place of ``layer``.

    Keras' ``clone_model`` exchanges a layer for one other only, so the nodes are called here.

    Args:
        model: a Functional or Sequential model whose ``calls`` can be listed; it is not changed.
        parts: the layers for one, or None to copy it.

    Returns:
        A Functional model of the same name, inputs, outputs and weights elsewhere.
    """
    made: dict[int, Parts] = {}
    tensors: dict[int, Any] = {}
    for node in _nodes(model):
        layer = node.layer
        if node.is_input:
            outputs = toolkit.copy_layer(layer).output
        else:
            if id(layer) not in made:
                made[id(layer)] = _replacement(layer, parts)
            args, kwargs = tf.nest.map_structure(
                lambda value: tensors.get(id(value), value), (node.call_args, node.call_kwargs)
            )
            (first, _), *others = made[id(layer)]
            outputs = first(*args, **kwargs)
            for part, _ in others:
                outputs = part(outputs)
        pairs = zip(tf.nest.flatten(node.outputs), tf.nest.flatten(outputs), strict=True)
        tensors.update((id(old), new) for old, new in pairs)
    for replacement in made.values():
        for part, weights in replacement:
            part.set_weights(weights)
    inputs, outputs = tf.nest.map_structure(
        lambda tensor: tensors[id(tensor)], (model.input, model.output)
    )
    return tf.keras.Model(inputs, outputs, name=model.name)


def _replacement(layer: Any, parts: Callable[[Any], Parts | None]) -> Parts:
    if isinstance(layer, tf.keras.Model):
        nested = substituted(layer, parts)
        return [(nested, nested.get_weights())]
    return parts(layer) or [(toolkit.copy_layer(layer), layer.get_weights())]


def _nodes(model: tf.keras.Model) -> Iterator[Any]:
    """In the order of computation. Keras has no public way to list the calls of one model only."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        yield from model._nodes_by_depth[depth]
