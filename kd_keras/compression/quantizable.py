"""Prepares a student's graph for tfmot, and says which layers it leaves in float, and why."""

from collections.abc import Collection, Mapping
from typing import Any

import tensorflow as tf

from kd_keras.compression import toolkit
from kd_keras.errors import InputError

# Layers that tfmot handles while it rewrites the graph; its registry does not list them.
_REWRITTEN = ("SeparableConv1D", "SeparableConv2D")
_BEFORE_BATCH_NORM = ("Conv2D", "DepthwiseConv2D", "Dense", *_REWRITTEN)
_BATCH_NORMS = ("BatchNormalization", "SyncBatchNormalization")
_ACTIVATIONS = ("linear", "relu", "swish", "gelu", "softmax", "sigmoid", "tanh")


def fused_copy(student: tf.keras.Model, apart: Collection[str] = ()) -> tf.keras.Model:
    """A copy in which a convolution or dense layer owns the ReLU layer that directly follows it.

    tfmot leaves the kernel before a bare ReLU layer in float, without a word; inside the layer it
    quantizes both. The ReLU layer stays, as an identity of the same name, so that it can be read.
    The output of the layer before it is then that after ReLU. Layers in ``apart`` stay as they are.
    """
    copy = toolkit.copy_model(student)
    relus = [layer for layer in copy.layers if _is_plain_relu(layer)]
    owners = {relu.name: _owner(relu, copy) for relu in relus}
    fused = {
        relu: owner
        for relu, owner in owners.items()
        if owner is not None and not {relu, owner} & set(apart)
    }
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


def left_in_float(
    model: tf.keras.Model,
    registries: tuple[Any, ...],
    asked: Collection[str] = (),
    configured: Collection[str] = (),
) -> dict[str, str]:
    """The layers that cannot be quantized, or shall not be, and the reason for each.

    Args:
        model: a copy as ``fused_copy`` makes it (each layer is called in this model only).
        registries: tfmot's quantize registries that must know each layer.
        asked: names of layers that the user wants in float.
        configured: names of layers with a ``QuantizeConfig`` of their own, whatever they are.

    Returns:
        Reasons by layer name, in the model's order.
    """
    left: dict[str, str] = {}
    for layer in model.layers:
        if layer.name in configured:
            continue
        reason = "asked for" if layer.name in asked else _reason_against(layer, registries)
        producer = _producer(layer) if type(layer).__name__ in _BATCH_NORMS else None
        if reason is None and producer is not None and producer.name in {*left, *configured}:
            # tfmot folds it into that layer, or not at all.
            reason = f"{type(layer).__name__} after {producer.name}"
        if reason is not None:
            left[layer.name] = reason
    return left


def overlooked(quantized: tf.keras.Model) -> list[str]:
    """The layers whose kernels tfmot left in float though it quantizes their outputs.

    It does so, without a word, before a bare ReLU6 layer.
    """
    left = []
    for layer in quantized.layers:
        names = [weight.name.split("/")[-1] for weight in layer.weights]
        kernel = any("kernel" in name for name in names)
        if kernel and _is_wrapped(layer) and not getattr(layer, "_weight_vars", ()):
            left.append(layer.name.removeprefix("quant_"))
    return left


def in_float(quantized: tf.keras.Model) -> list[str]:
    """The user's names of the layers that a quantization-aware model computes in float."""
    left = []
    for layer in quantized.layers:
        if isinstance(layer, tf.keras.layers.InputLayer) or type(layer).__name__ == "QuantizeLayer":
            continue
        config = type(getattr(layer, "quantize_config", None)).__name__
        # tfmot quantizes the output of a float layer where a quantized one reads it.
        if not _is_wrapped(layer) or config == "OutputOnlyConfig":
            left.append(layer.name.removeprefix("quant_"))
    apart = {*left, *overlooked(quantized)}
    names = [layer.name.removeprefix("quant_") for layer in quantized.layers]
    return [name for name in names if name in apart]


def require_rebuildable(student: tf.keras.Model) -> None:
    """InputError if a Lambda layer holds a Python lambda: tfmot rebuilds layers from configs."""
    for layer in toolkit.leaf_layers(student):
        if isinstance(layer, tf.keras.layers.Lambda) and layer.function.__name__ == "<lambda>":
            raise InputError(
                f"layer {layer.name!r} of model {student.name!r} is a Lambda of a Python lambda, "
                "which cannot be rebuilt from its configuration; make it a layer class"
            )


def require_layers(student: tf.keras.Model, named: Mapping[str, Collection[str]]) -> None:
    """InputError if a name, given under the argument that is its key, is no layer."""
    names = [layer.name for layer in student.layers]
    for argument, given in named.items():
        for name in given:
            if name not in names:
                raise InputError(
                    f"layer {name!r} in {argument} is not in model {student.name!r}; "
                    f"it has: {', '.join(names)}"
                )


def _is_wrapped(layer: Any) -> bool:
    return hasattr(layer, "quantize_config")


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
