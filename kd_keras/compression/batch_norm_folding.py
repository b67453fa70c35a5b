"""BatchNorm folding: in inference BatchNorm is an affine map, and goes into the layer before it.

With ``s = gamma / sqrt(variance + epsilon)`` of each channel, the layer's kernel becomes ``W * s``
and its bias ``(b - mean) * s + beta`` (Jacob et al. 2018, eq. 14): the outputs in inference stay
equal up to rounding. In training there is no normalization any more, so it belongs at the end, or
before what trains without BatchNorm's statistics.

Example (the second line names each BatchNorm that stays, with the reason):

    folded = batch_norm_folding.apply(student)
    left = batch_norm_folding.unfolded(student)
"""

from collections import Counter
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.compression import toolkit
from kd_keras.compression.channel_graph import is_nested, nodes
from kd_keras.compression.channel_rules import activation_name
from kd_keras.compression.ordinary import callbacks, finish
from kd_keras.errors import InputError

__all__ = ["apply", "callbacks", "finish", "unfolded"]

layers = tf.keras.layers

# Kind -> its last kernel. BatchNorm scales this one's outputs.
_KERNELS = {
    **dict.fromkeys((layers.Conv1D, layers.Conv2D, layers.Conv3D, layers.Dense), "kernel"),
    **dict.fromkeys((layers.Conv2DTranspose, layers.Conv3DTranspose), "kernel"),
    layers.DepthwiseConv2D: "depthwise_kernel",
    **dict.fromkeys((layers.SeparableConv1D, layers.SeparableConv2D), "pointwise_kernel"),
}


def apply(student: tf.keras.Model) -> tf.keras.Model:
    """Returns a copy of ``student`` with every BatchNorm folded that can be.

    A BatchNorm can be folded if it is all that reads a linear convolution, depthwise, separable or
    dense layer, and both are used once. In its place stays an identity of its name, so that every
    layer that was there is found. What the layer before it gives is then BatchNorm's output.

    Args:
        student: a built Functional or Sequential model; it is not changed.

    Returns:
        The copy, with the same layer and output names.

    Raises:
        InputError: no BatchNorm can be folded, the model is subclassed, or TensorFlow runs with
            Keras 3.
    """
    _require_graph(student)
    pairs, left = _examined(student, "")
    if not pairs:
        listed = "; ".join(f"{name}: {reason}" for name, reason in left.items())
        raise InputError(
            f"model {student.name!r} has no BatchNorm to fold ({listed or 'it has none'})"
        )
    owners = {owner: norm for norm, owner in pairs.items()}
    copies: dict[Any, Any] = {}

    def clone(layer: Any) -> Any:
        if is_nested(layer):
            return tf.keras.models.clone_model(layer, clone_function=clone)
        if layer in pairs:
            return layers.Activation("linear", name=layer.name, dtype=layer.dtype)
        config = layer.get_config()
        if layer in owners:
            config["use_bias"] = True
        copies[layer] = layer.__class__.from_config(config)
        return copies[layer]

    folded = tf.keras.models.clone_model(student, clone_function=clone)
    for layer, copy in copies.items():
        if layer in owners:
            _fold(layer, owners[layer], copy)
        else:
            copy.set_weights(layer.get_weights())
    return folded


def unfolded(student: tf.keras.Model) -> dict[str, str]:
    """The BatchNorms that ``apply`` leaves: name -> the reason.

    Those of a nested model ``block`` are named ``block/norm``.

    Raises:
        InputError: the model is subclassed, or TensorFlow runs with Keras 3.
    """
    _require_graph(student)
    return _examined(student, "")[1]


def _require_graph(student: tf.keras.Model) -> None:
    toolkit.require_tf_keras()
    toolkit.require_graph(student)


def _examined(model: Any, prefix: str) -> tuple[dict[Any, Any], dict[str, str]]:
    """BatchNorm -> the layer to fold it into; and the name of each other -> why not."""
    calls = list(nodes(model))
    makers = {id(tensor): node.layer for node in calls for tensor in tf.nest.flatten(node.outputs)}
    read = [id(tensor) for node in calls for tensor in node.keras_inputs]
    readers = Counter([*read, *map(id, model.outputs)])
    uses = Counter(node.layer for node in calls)
    pairs: dict[Any, Any] = {}
    left: dict[str, str] = {}
    for layer in uses:
        if is_nested(layer):
            inner_pairs, inner_left = _examined(layer, f"{prefix}{layer.name}/")
            pairs |= inner_pairs
            left |= inner_left
    for node in calls:
        if type(node.layer) is layers.BatchNormalization:
            tensor = node.keras_inputs[0]
            owner = makers.get(id(tensor))
            reason = _reason_against(node.layer, owner, uses, readers[id(tensor)])
            if reason:
                left[prefix + node.layer.name] = reason
            else:
                pairs[node.layer] = owner
    return pairs, left


def _reason_against(norm: Any, owner: Any, uses: Counter[Any], readers: int) -> str:
    """Why ``norm`` cannot be folded into ``owner``, the layer that it reads; "" if it can."""
    if uses[norm] > 1:
        return "it is used more than once"
    if owner is None:
        return "it reads an input"
    if type(owner) not in _KERNELS:
        return f"it reads {owner.name} ({type(owner).__name__}), which has no kernel to scale"
    if activation_name(owner) != "linear":
        return f"it reads {owner.name} behind its activation {activation_name(owner)}"
    if uses[owner] > 1:
        return f"it reads {owner.name}, which is used more than once"
    if readers > 1:
        return f"it is not all that reads {owner.name}"
    if _channels_first(owner) or list(norm.axis) != [norm.input_spec.ndim - 1]:
        return "its axis is not the last"
    return ""


def _channels_first(layer: Any) -> bool:
    return getattr(layer, "data_format", None) == "channels_first"


def _fold(layer: Any, norm: Any, copy: Any) -> None:
    """Writes the scaled weights of ``layer`` into ``copy``."""
    mean, variance = norm.moving_mean.numpy(), norm.moving_variance.numpy()
    gamma = norm.gamma.numpy() if norm.scale else np.ones_like(mean)
    beta = norm.beta.numpy() if norm.center else np.zeros_like(mean)
    scale = gamma / np.sqrt(variance + norm.epsilon)
    bias = layer.bias.numpy() if layer.use_bias else np.zeros_like(mean)
    name = _KERNELS[type(layer)]
    kernel = getattr(layer, name).numpy()
    if type(layer) is layers.DepthwiseConv2D:
        shaped = scale.reshape(kernel.shape[2:])  # inputs, multiplier
    elif type(layer) in (layers.Conv2DTranspose, layers.Conv3DTranspose):
        shaped = scale[:, None]  # outputs, inputs
    else:
        shaped = scale
    getattr(copy, name).assign(kernel * shaped)
    if name == "pointwise_kernel":
        copy.depthwise_kernel.assign(layer.depthwise_kernel)
    copy.bias.assign((bias - mean) * scale + beta)
