"""What the techniques share: the optional library behind them, and checks of the student."""

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from kd_keras.errors import InputError


def tfmot() -> Any:
    """The module ``tensorflow_model_optimization``, imported only now: it needs tf_keras.

    Raises:
        InputError: TensorFlow runs with Keras 3.
    """
    require_tf_keras()
    import tensorflow_model_optimization

    return tensorflow_model_optimization


def require_tf_keras() -> None:
    """InputError if TensorFlow runs with Keras 3."""
    if not tf.keras.Model.__module__.startswith("tf_keras"):
        raise InputError(
            "compression needs tf_keras, and this is Keras 3; set TF_USE_LEGACY_KERAS=1 in the "
            "environment before TensorFlow is imported"
        )


def require_graph(student: tf.keras.Model) -> None:
    """InputError unless ``student`` is a built Functional or Sequential model in float32."""
    name = getattr(student, "name", student)
    if not getattr(student, "_is_graph_network", False):
        raise InputError(
            f"model {name!r} cannot be compressed: only Functional and built Sequential models "
            "can; make it one with tf.keras.Model(inputs, outputs)"
        )
    mixed = [layer.name for layer in leaf_layers(student) if layer.compute_dtype == "float16"]
    if mixed:
        raise InputError(
            f"model {name!r} cannot be compressed in mixed precision (layers {mixed[0]}, ...); "
            "build it under the policy float32"
        )


def leaf_layers(model: tf.keras.Model) -> Iterator[Any]:
    """All layers, those of nested models in their place."""
    for layer in model.layers:
        if isinstance(layer, tf.keras.Model):
            yield from leaf_layers(layer)
        else:
            yield layer


def copy_layer(layer: Any) -> Any:
    """A fresh layer of the same configuration, with weights of its own."""
    return layer.__class__.from_config(layer.get_config())


def copy_model(model: tf.keras.Model) -> tf.keras.Model:
    """A copy with the same names and weights that shares nothing with ``model``."""
    copy = tf.keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy
