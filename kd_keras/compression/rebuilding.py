"""A changed copy of a model, layer by layer."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from kd_keras.compression import toolkit


def rebuilt(
    model: tf.keras.Model,
    rebuild: Callable[[Any], Any],
    weights: Callable[[Any], list | None] | None = None,
) -> tf.keras.Model:
    """Clones ``model`` with ``rebuild`` on each layer, and copies each layer's weights over.

    Args:
        model: a Functional or Sequential model; it is not changed, and shares no layer with the
            copy. Nested models are rebuilt in their place.
        rebuild: gives the new layer for an old one.
        weights: gives what is set on the new layer for an old one, or None where the new layer has
            its weights already; the old layer's ``get_weights()`` if not given.

    Returns:
        The copy.
    """
    pairs: list[tuple[Any, Any]] = []
    with _all_trainable(model) as frozen:
        result = _clone(model, rebuild, pairs)
        for old, new in pairs:
            values = old.get_weights() if weights is None else weights(old)
            if values is not None:
                new.set_weights(values)
    for old, new in pairs:
        if old in frozen:
            new.trainable = False
    return result


def _clone(model: Any, rebuild: Callable[[Any], Any], pairs: list[tuple[Any, Any]]) -> Any:
    """The copy without its weights; each layer and its new one are added to ``pairs``."""

    def clone(layer: Any) -> Any:
        if isinstance(layer, tf.keras.Model):
            return tf.keras.models.clone_model(layer, clone_function=clone)
        pairs.append((layer, rebuild(layer)))
        return pairs[-1][1]

    return tf.keras.models.clone_model(model, clone_function=clone)


@contextlib.contextmanager
def _all_trainable(model: tf.keras.Model) -> Iterator[list[Any]]:
    """Thaw the layers for a while, and yield those that are frozen.

    A wrapper of tfmot lists the weights of a layer that was frozen later twice, and in an order of
    its own.
    """
    frozen = [layer for layer in toolkit.leaf_layers(model) if not layer.trainable]
    try:
        for layer in frozen:
            layer.trainable = True
        yield frozen
    finally:
        for layer in frozen:
            layer.trainable = False
