"""How channels pass through each kind of layer: what filter pruning must know of it.

A *channel* is one map of a tensor, or one unit of a dense layer. A layer makes new channels (a
convolution's filters), hands on those that it reads (BatchNorm, pooling, depthwise convolution,
Concatenate, Flatten) or ties those of several inputs together (Add). For a kind of layer that is
not listed here nothing can be said, and its neighbours keep their channels.

Every rule keeps a channel that is 0 everywhere at 0: only so is removing it the same as masking it.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

layers = tf.keras.layers

Shape = tuple[int | None, ...]

_KEEP_ZERO = frozenset(
    ("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "swish", "silu", "tanh")
)


@dataclasses.dataclass(frozen=True)
class Flow:
    """What one call of a layer does with channels.

    Attributes:
        source: for each output channel the input channel it is made of, counted over all inputs
            one after another, and -1 for zeros that the layer adds; None for new channels.
        axis: of the channels in the output, from its end.
        merged: the inputs' channels are tied one to one.
        reads: weight -> (its axis of input channels, entries for each channel).
        gives: weight -> its axis of output channels.
        filters: the weight whose slices along its output axis are the layer's filters.
        products: weight -> multiply-adds of each of its entries for one example; None if open.
        settings: which output channels are kept -> the changes to the layer's config; None for a
            layer whose config does not say its channels.
        held: why the layer's new channels must stay, "" if they need not.
        reads_held: whether those that it reads must stay for the same reason.
    """

    source: np.ndarray | None = None
    axis: int = -1
    merged: bool = False
    reads: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    gives: Mapping[str, int] = dataclasses.field(default_factory=dict)
    filters: str = ""
    products: Mapping[str, int | None] = dataclasses.field(default_factory=dict)
    settings: Callable[[np.ndarray], dict[str, Any]] | None = None
    held: str = ""
    reads_held: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Channels:
    """The channels of one tensor: an id for each place along ``axis``; ``shape`` has no batch."""

    ids: np.ndarray
    shape: Shape
    axis: int = -1


def flow_of(layer: Any, inputs: Sequence[Channels], output: Shape) -> Flow | None:
    """The flow of one call, or None where nothing can be said of it.

    Args:
        layer: any Keras layer, built.
        inputs: what the call reads.
        output: shape of what it returns, without the batch.
    """
    rule = _RULES.get(type(layer))
    if rule is None or getattr(layer, "data_format", None) == "channels_first":
        return None
    if type(layer) not in _ANY_AXIS and any(x.axis != -1 for x in inputs):
        return None
    return rule(layer, inputs, output)


def costs_nothing(layer: Any) -> bool:
    """Whether a layer that no rule knows has no multiply-adds as the field counts them."""
    return type(layer) in _WITHOUT_PRODUCTS


def activation_name(layer: Any) -> str:
    """The name of a layer's activation; ``"linear"`` where it has none."""
    activation = getattr(layer, "activation", None)
    return "linear" if activation is None else getattr(activation, "__name__", str(activation))


def _handed_on(layer: Any, inputs: Sequence[Channels], output: Shape) -> Flow | None:
    if len(inputs) != 1:
        return None
    return Flow(source=np.arange(len(inputs[0].ids)), axis=inputs[0].axis)


def _activated(layer: Any, inputs: Sequence[Channels], output: Shape) -> Flow | None:
    if activation_name(layer) not in _KEEP_ZERO:
        return None
    return _handed_on(layer, inputs, output)


def _relu(layer: Any, inputs: Sequence[Channels], output: Shape) -> Flow | None:
    config = layer.get_config()
    return (
        None
        if config["negative_slope"] * config["threshold"]
        else _handed_on(layer, inputs, output)
    )


def _normalized(layer: Any, inputs: Sequence[Channels], output: Shape) -> Flow | None:
    if list(layer.axis) != [len(output)]:
        return None
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    return Flow(source=np.arange(len(inputs[0].ids)), gives=dict.fromkeys(names, 0))


def _convolved(layer: Any, inputs: Sequence[Channels], output: Shape) -> Flow | None:
    rank = len(output)  # of the kernel: size, inputs, filters
    products = {"kernel": _positions(output[:-1])}
    if layer.groups != 1:
        return Flow(
            gives={"kernel": rank, "bias": 0},
            filters="kernel",
            products=products,
            held="it is a grouped convolution",
            reads_held=True,
        )
    return _filters(
        layer, "filters", {"kernel": (rank - 1, 1)}, {"kernel": rank, "bias": 0}, products
    )


def _transposed(layer: Any, inputs: Sequence[Channels], output: Shape) -> Flow | None:
    rank = len(output)  # of the kernel: size, filters, inputs
    products = {"kernel": _positions(inputs[0].shape[:-1])}
    return _filters(
        layer, "filters", {"kernel": (rank, 1)}, {"kernel": rank - 1, "bias": 0}, products
    )


def _dense(layer: Any, inputs: Sequence[Channels], output: Shape) -> Flow | None:
    products = {"kernel": _positions(output[:-1])}
    return _filters(layer, "units", {"kernel": (0, 1)}, {"kernel": 1, "bias": 0}, products)


def _separable(layer: Any, inputs: Sequence[Channels], output: Shape) -> Flow | None:
    rank = len(output)
    positions = _positions(output[:-1])
    return _filters(
        layer,
        "filters",
        {
            "depthwise_kernel": (rank - 1, 1),
            "pointwise_kernel": (rank - 1, layer.depth_multiplier),
        },
        {"pointwise_kernel": rank, "bias": 0},
        {"depthwise_kernel": positions, "pointwise_kernel": positions},
    )


def _depthwise(layer: Any, inputs: Sequence[Channels], output: Shape) -> Flow | None:
    if activation_name(layer) not in _KEEP_ZERO:
        return None
    return Flow(
        source=np.repeat(np.arange(len(inputs[0].ids)), layer.depth_multiplier),
        reads={"depthwise_kernel": (len(output) - 1, 1)},
        gives={"bias": 0},
        products={"depthwise_kernel": _positions(output[:-1])},
    )


def _filters(layer: Any, size: str, reads: Any, gives: Any, products: Any) -> Flow:
    name = activation_name(layer)
    return Flow(
        reads=reads,
        gives=gives,
        filters=next(iter(gives)),
        products=products,
        settings=lambda kept: {size: int(kept.sum())},
        held="" if name in _KEEP_ZERO else f"its activation {name} is not known to keep 0 at 0",
    )


def _merged(layer: Any, inputs: Sequence[Channels], output: Shape) -> Flow | None:
    kinds = {(len(x.ids), len(x.shape), x.axis) for x in inputs}
    if len(kinds) != 1:
        return None  # broadcasting over channels
    return Flow(source=np.arange(len(inputs[0].ids)), axis=inputs[0].axis, merged=True)


def _concatenated(layer: Any, inputs: Sequence[Channels], output: Shape) -> Flow | None:
    if layer.axis not in (-1, len(output)):
        return None
    return Flow(source=np.arange(sum(len(x.ids) for x in inputs)))


def _padded(layer: Any, inputs: Sequence[Channels], output: Shape) -> Flow | None:
    """Spatial zeros; or zero channels, in the shortcut "A" of the residual nets for CIFAR."""
    (x,) = inputs
    if x.axis == -1:
        return _handed_on(layer, inputs, output)
    if x.axis != -2 or type(layer) is not layers.ZeroPadding2D:
        return None
    rows, (left, right) = layer.padding
    source = np.concatenate([np.full(left, -1), np.arange(len(x.ids)), np.full(right, -1)])

    def settings(kept: np.ndarray) -> dict[str, Any]:
        end = len(kept) - right
        return {"padding": (rows, (int(kept[:left].sum()), int(kept[end:].sum())))}

    return Flow(source=source, axis=-2, settings=settings)


def _reshaped(layer: Any, inputs: Sequence[Channels], output: Shape) -> Flow | None:
    """Flatten and Reshape, where the result has the channels along one axis of its own."""
    (x,) = inputs
    before, after = ([size for size in shape if size is not None] for shape in (x.shape, output))
    if len(before) < len(x.shape) or len(after) < len(output):
        return None
    along = [1] * len(before)
    along[x.axis] = -1
    places = np.broadcast_to(np.arange(len(x.ids)).reshape(along), before).reshape(after)
    for axis in range(-1, -len(output) - 1, -1):
        lines = np.moveaxis(places, axis, 0).reshape(places.shape[axis], -1)
        if (lines == lines[:, :1]).all():
            break
    else:
        return None

    def settings(kept: np.ndarray) -> dict[str, Any]:
        shape = list(output)
        shape[axis] = int(kept.sum())
        return {"target_shape": tuple(shape)}

    follows = settings if type(layer) is layers.Reshape else None
    return Flow(source=lines[:, 0], axis=axis, settings=follows)


def _positions(shape: Shape) -> int | None:
    return None if None in shape else math.prod(size for size in shape if size is not None)


_SPATIAL = (
    *(layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D),
    *(layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D),
    *(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D),
    *(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D),
    *(layers.Cropping1D, layers.Cropping2D, layers.Cropping3D),
    *(layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D),
    *(layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
)
_ELEMENTWISE = (
    *(layers.Dropout, layers.GaussianDropout, layers.GaussianNoise, layers.LeakyReLU, layers.ELU),
    layers.ActivityRegularization,
)

_RULES: dict[type, Callable[[Any, Sequence[Channels], Shape], Flow | None]] = {
    **dict.fromkeys((*_SPATIAL, *_ELEMENTWISE), _handed_on),
    layers.Activation: _activated,
    layers.ReLU: _relu,
    layers.BatchNormalization: _normalized,
    **dict.fromkeys((layers.Conv1D, layers.Conv2D, layers.Conv3D), _convolved),
    **dict.fromkeys((layers.Conv2DTranspose, layers.Conv3DTranspose), _transposed),
    layers.Dense: _dense,
    layers.SeparableConv2D: _separable,
    layers.DepthwiseConv2D: _depthwise,
    **dict.fromkeys((layers.Add, layers.Subtract, layers.Average, layers.Maximum), _merged),
    layers.Concatenate: _concatenated,
    **dict.fromkeys((layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D), _padded),
    **dict.fromkeys((layers.Flatten, layers.Reshape), _reshaped),
}

#: Layers for which the place of the channels does not matter, or that move it.
_ANY_AXIS = frozenset(
    (*_ELEMENTWISE, layers.Activation, layers.ReLU, layers.Add, layers.Subtract, layers.Average)
    + (layers.Maximum, layers.ZeroPadding2D, layers.Flatten, layers.Reshape)
)

_WITHOUT_PRODUCTS = frozenset(
    (*_RULES, layers.Multiply, layers.Minimum, layers.Permute, layers.RepeatVector, layers.Softmax)
    + (layers.PReLU, layers.AlphaDropout, layers.Rescaling)
    + (layers.LayerNormalization, layers.UnitNormalization, layers.Normalization)
)
