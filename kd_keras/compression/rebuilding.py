"""A changed copy of a model, layer by layer."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


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

    def clone(layer: Any) -> Any:
        if isinstance(layer, tf.keras.Model):
            return tf.keras.models.clone_model(layer, clone_function=clone)
        pairs.append((layer, rebuild(layer)))
        return pairs[-1][1]

    result = tf.keras.models.clone_model(model, clone_function=clone)
    for old, new in pairs:
        values = old.get_weights() if weights is None else weights(old)
        if values is not None:
            new.set_weights(values)
    return result
