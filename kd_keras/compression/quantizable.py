"""Prepares a student's graph so that tfmot quantizes all of it, or says why it cannot."""

from typing import Any

import tensorflow as tf

from kd_keras.compression import toolkit
from kd_keras.errors import InputError

# Layers that tfmot handles while it rewrites the graph; its registry does not list them.
_REWRITTEN = ("SeparableConv1D", "SeparableConv2D")
_BEFORE_BATCH_NORM = ("Conv2D", "DepthwiseConv2D", "Dense", *_REWRITTEN)
_BATCH_NORMS = ("BatchNormalization", "SyncBatchNormalization")
_ACTIVATIONS = ("linear", "relu", "swish", "gelu", "softmax", "sigmoid", "tanh")


def fused_copy(student: tf.keras.Model) -> tf.keras.Model:
    """A copy in which a convolution or dense layer owns the ReLU layer that directly follows it.

    tfmot leaves the kernel before a bare ReLU layer in float, without a word; inside the layer it
    quantizes both. The ReLU layer stays, as an identity of the same name, so that it can be read.
    The output of the layer before it is then that after ReLU.
    """
    copy = toolkit.copy_model(student)
    relus = [layer for layer in copy.layers if _is_plain_relu(layer)]
    owners = {relu.name: _owner(relu, copy) for relu in relus}
    fused = {relu: owner for relu, owner in owners.items() if owner is not None}
    if not fused:
        return copy

    def rebuild(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name in fused:
            return tf.keras.layers.Activation("linear", name=layer.name, dtype=config["dtype"])
        if layer.name in fused.values():
            config["activation"] = "relu"
        return layer.__class__.from_config(config)

    result = tf.keras.models.clone_model(copy, clone_function=rebuild)
    result.set_weights(copy.get_weights())
    return result


def require_quantizable(model: tf.keras.Model, registries: tuple[Any, ...]) -> None:
    """Refuses a model with layers that tfmot rejects.

    Args:
        model: a copy as ``fused_copy`` makes it (each layer is called in this model only).
        registries: tfmot's quantize registries that must know each layer.

    Raises:
        InputError: lists all such layers by name, with the reason.
    """
    rejected = {
        layer.name: reason
        for layer in model.layers
        if (reason := _reason_against(layer, registries)) is not None
    }
    if rejected:
        listed = ", ".join(f"{name} ({reason})" for name, reason in rejected.items())
        raise InputError(
            f"model {model.name!r} cannot be quantized because of {listed}; "
            "replace these layers, or leave quantization to the export"
        )


def require_ranges(quantized: tf.keras.Model) -> None:
    """InputError if a kernel was left in float: then the int8 file would differ from the model."""
    left = []
    for layer in quantized.layers:
        names = [weight.name.split("/")[-1] for weight in layer.weights]
        if any("kernel" in name for name in names) and not any("_min" in name for name in names):
            left.append(layer.name.removeprefix("quant_"))
    if left:
        raise InputError(
            f"model {quantized.name!r} cannot be quantized: tfmot leaves the kernels of "
            f"{', '.join(left)} in float, for the layer after them; put BatchNormalization between"
        )


def _reason_against(layer: Any, registries: tuple[Any, ...]) -> str | None:
    kind = type(layer).__name__
    if isinstance(layer, tf.keras.layers.InputLayer) or kind in _REWRITTEN:
        return None
    if isinstance(layer, tf.keras.Model):
        return "a nested model"
    if kind in _BATCH_NORMS:
        producer = _producer(layer)
        if type(producer).__name__ in _BEFORE_BATCH_NORM and _activation(producer) == "linear":
            return None
        return f"{kind} not directly after a linear convolution or dense layer"
    if not all(registry.supports(layer) for registry in registries):
        return kind
    if _activation(layer) not in _ACTIVATIONS:
        return f"{kind} with activation {_activation(layer)}"
    return None


def _activation(layer: Any) -> str:
    activation = getattr(layer, "activation", None)
    return "linear" if activation is None else getattr(activation, "__name__", str(activation))


def _is_plain_relu(layer: Any) -> bool:
    if type(layer).__name__ == "Activation":
        return _activation(layer) == "relu"
    config = layer.get_config() if type(layer).__name__ == "ReLU" else {"max_value": 1}
    return config["max_value"] is None and not config["negative_slope"] and not config["threshold"]


def _owner(relu: Any, model: tf.keras.Model) -> str | None:
    """The name of the layer that can take ``relu`` in: its only reader is this ReLU."""
    producer = _producer(relu)
    fits = (
        type(producer).__name__ in ("Conv2D", "DepthwiseConv2D", "Dense")
        and _activation(producer) == "linear"
        and len(producer.inbound_nodes) == len(producer.outbound_nodes) == 1
        and producer.name not in model.output_names
    )
    return producer.name if fits else None


def _producer(layer: Any) -> Any:
    """The one layer whose output ``layer`` reads, or None if there are several."""
    sources = tf.nest.flatten([node.inbound_layers for node in layer.inbound_nodes])
    return sources[0] if len(sources) == 1 else None
