"""What export needs to know of a Keras model, whichever Keras made it.

`tf_keras` and Keras 3 are read through what both have. The wrappers of
tensorflow-model-optimization (tfmot) are recognised by their module, so that it need not be there.
"""

from collections.abc import Iterator
from typing import Any

from tflite_export.errors import ExportError

_TFMOT = "tensorflow_model_optimization"
_STRIP = {
    "PruneLowMagnitude": "tfmot.sparsity.keras.strip_pruning(model)",
    "ClusterWeights": "tfmot.clustering.keras.strip_clustering(model)",
}


def layers_of(model: Any) -> Iterator[Any]:
    """Yields every layer of `model`, those of nested models too; tfmot's wrappers are layers."""
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from layers_of(layer)


def is_tfmot(layer: Any) -> bool:
    """Tells whether `layer` was put into the model by tfmot."""
    return type(layer).__module__.split(".")[0] == _TFMOT


def user_name(layer: Any) -> str:
    """Returns the name that the user gave: `logits` for tfmot's `quant_logits`."""
    while is_tfmot(layer) and hasattr(layer, "layer"):
        layer = layer.layer
    return layer.name


def is_quantization_aware(model: Any) -> bool:
    """Tells whether `model` was made by tfmot's `quantize_model` or `quantize_apply`."""
    return any(
        is_tfmot(layer) and type(layer).__name__.startswith("QuantizeWrapper")
        for layer in layers_of(model)
    )


def refuse_training_wrappers(model: Any) -> None:
    """Refuses a model that still carries wrappers which only training needs.

    Raises:
        ExportError: a pruning or clustering wrapper is there; it would put its masks and
            assignments into the file.
    """
    for layer in layers_of(model):
        kind = type(layer).__name__
        if is_tfmot(layer) and kind in _STRIP:
            raise ExportError(
                f"layer {layer.name!r} is still wrapped by tfmot's {kind}; "
                f"export {_STRIP[kind]} instead"
            )


def refuse_half_precision(model: Any) -> None:
    """Refuses a model that computes in half precision, for which TFLite has few operators.

    Raises:
        ExportError: a layer computes in float16 or bfloat16.
    """
    for layer in layers_of(model):
        kind = getattr(layer, "compute_dtype", "float32")
        if kind in ("float16", "bfloat16"):
            raise ExportError(
                f"layer {user_name(layer)!r} computes in {kind}; rebuild the model under the "
                f"float32 policy and copy the weights with set_weights"
            )


def input_tensors(model: Any) -> list[Any]:
    """Returns the symbolic inputs of a model with fixed shapes (but for the batch).

    Raises:
        ExportError: the model has no symbolic inputs, or a dimension is open.
    """
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise ExportError(
            f"model {getattr(model, 'name', model)!r} has no input shape; give a Functional or "
            f"Sequential model that begins with tf.keras.Input"
        )
    for tensor in inputs:
        if None in tuple(tensor.shape)[1:]:
            raise ExportError(
                f"input {input_name(tensor)!r} has the open shape {tuple(tensor.shape)}; "
                f"rebuild the model with fixed sizes in tf.keras.Input"
            )
    return list(inputs)


def input_name(tensor: Any) -> str:
    """Returns the user's name of a symbolic input."""
    return user_name(tensor._keras_history[0])


def output_name(model: Any) -> str:
    """Returns the user's name of the layer that makes the only output of `model`."""
    return user_name(model.outputs[0]._keras_history[0])
