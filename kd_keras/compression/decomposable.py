"""Which layers of a student can be decomposed, at what cost, and the layers to do it with."""

import dataclasses
import math
from collections.abc import Container
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.compression import substitution
from kd_keras.compression.factorization import FACTORIZATIONS, Factorization, Factors
from kd_keras.compression.rank_selection import Candidates
from kd_keras.errors import InputError

_layers = tf.keras.layers
# Their weights of two axes and more are multiplied once for every pixel of the output ...
_BY_OUTPUTS = (
    *(_layers.Dense, _layers.Conv1D, _layers.Conv2D, _layers.Conv3D),
    *(_layers.DepthwiseConv1D, _layers.DepthwiseConv2D),
    *(_layers.SeparableConv1D, _layers.SeparableConv2D),
)
# ... and those of these layers of the input.
_BY_INPUTS = (_layers.Conv1DTranspose, _layers.Conv2DTranspose, _layers.Conv3DTranspose)


@dataclasses.dataclass
class Target:
    """A layer with kernels, over all of its calls.

    Attributes:
        layer: the student's.
        method: the name of the factorization that it would get; "" if it cannot be decomposed.
        reason: why it cannot be, else "".
        places: how many pixels the calls compute, by the names of ``Part.place``.
    """

    layer: Any
    method: str
    reason: str
    places: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def factorization(self) -> Factorization:
        """What ``method`` names."""
        return FACTORIZATIONS[self.method]

    @property
    def kernel(self) -> np.ndarray:
        """float64 ``(kh, kw, in, out)``; that of a dense layer has ``kh = kw = 1``."""
        kernel = np.asarray(self.layer.kernel, "float64")
        return kernel.reshape((1,) * (4 - kernel.ndim) + kernel.shape)

    @property
    def parameters(self) -> int:
        """Of the layer as it is."""
        return self.layer.count_params()

    @property
    def multiply_adds(self) -> int:
        """Of the layer as it is, for one example."""
        place = "inputs" if type(self.layer) in _BY_INPUTS else "outputs"
        return self.places[place] * sum(math.prod(w.shape) for w in _kernels(self.layer))

    def costs(self, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Parameters and multiply-adds at each of the ranks ``(n, d)``: ``(n,)`` each."""
        sizes = self.factorization.sizes(self.kernel.shape, ranks)
        pixels = [self.places[part.place] for part in self.factorization.parts]
        bias = self.parameters - self.kernel.size
        products = [size * count for size, count in zip(sizes, pixels, strict=True)]
        return np.sum(sizes, 0) + bias, np.sum(products, 0)

    def candidates(self) -> Candidates:
        """All ranks at which both costs are less than they are."""
        ranks, errors = self.factorization.errors(self.kernel)
        every = Candidates(ranks, errors, *self.costs(ranks))
        smaller = (every.parameters < self.parameters) & (every.multiply_adds < self.multiply_adds)
        return every.where(smaller)


def targets(student: tf.keras.Model, method: str) -> list[Target]:
    """All convolution and dense layers, in the order of computation.

    Args:
        student: a model that ``toolkit.require_graph`` accepts.
        method: the factorization of kernels larger than 1x1; the others get an SVD.

    Raises:
        InputError: a nested model is subclassed, or an input shape is open.
    """
    found: dict[int, Target] = {}
    for node in substitution.calls(student):
        layer = node.layer
        if type(layer) not in (*_BY_OUTPUTS, *_BY_INPUTS):
            continue
        if id(layer) not in found:
            own = "svd" if _is_flat(layer) else method
            reason = _reason_against(layer, own)
            found[id(layer)] = Target(layer, "" if reason else own, reason)
        target = found[id(layer)]
        for place, pixels in _pixels(node).items():
            target.places[place] = target.places.get(place, 0) + pixels
    return list(found.values())


def uncounted(student: tf.keras.Model) -> list[str]:
    """The layers with kernels whose multiply-adds are not known here, with their class."""
    known = (*_BY_OUTPUTS, *_BY_INPUTS)
    others = {node.layer.name: node.layer for node in substitution.calls(student)}.items()
    return [
        f"{name} ({type(layer).__name__})"
        for name, layer in others
        if type(layer) not in known and _kernels(layer)
    ]


def parts(target: Target, factors: Factors, taken: Container[str]) -> substitution.Parts:
    """The layers for ``target``: all linear and without bias but the last, which is the user's.

    Args:
        target: a layer that can be decomposed.
        factors: a kernel for each layer.
        taken: names that no new layer may have.

    Returns:
        The layers with their weights. A regularizer of the kernel is on each of them.
    """
    layer, config = target.layer, target.layer.get_config()
    *inner, (_, last) = _settings(target, factors)
    result: list[tuple[Any, list[np.ndarray]]] = []
    for (kind, own), factor, part in zip(inner, factors, target.factorization.parts, strict=False):
        name = layer.name + ("_reduce" if _is_flat(layer) else part.end)
        while name in taken:
            name += "_"
        shared = {"use_bias": False, "trainable": layer.trainable, "dtype": config["dtype"]}
        result.append((kind(**own, **shared, name=name), [_as_weight(layer, factor)]))
    config.pop("batch_input_shape", None)  # that of the first layer of a Sequential model
    user_layer = type(layer).from_config({**config, **last})
    weights = [_as_weight(layer, factors[-1]), *layer.get_weights()[1:]]
    return [*result, (user_layer, weights)]


def _settings(target: Target, factors: Factors) -> list[tuple[Any, dict[str, Any]]]:
    """For each part its class, and what it has of its own."""
    layer = target.layer
    if isinstance(layer, _layers.Dense):
        regularizer = {"kernel_regularizer": layer.kernel_regularizer}
        return [(_layers.Dense, {"units": factor.shape[-1], **regularizer}) for factor in factors]
    settings = []
    for part, factor, strides in zip(
        target.factorization.parts, factors, _strides(target), strict=True
    ):
        own = {
            "kernel_size": factor.shape[:2],
            "strides": strides,
            "dilation_rate": tuple(np.where(np.equal(factor.shape[:2], 1), 1, layer.dilation_rate)),
            "padding": layer.padding,
            "data_format": layer.data_format,
        }
        if part.depthwise:
            regularizer = {"depthwise_regularizer": layer.kernel_regularizer}
            settings.append((_layers.DepthwiseConv2D, {**own, **regularizer}))
        else:
            regularizer = {"kernel_regularizer": layer.kernel_regularizer}
            settings.append((_layers.Conv2D, {**own, "filters": factor.shape[3], **regularizer}))
    return settings


def _strides(target: Target) -> list[tuple[int, int]]:
    """Of each part: the rows are skipped as early, and the columns, as a kernel's width allows."""
    (down, right), width = target.layer.strides, target.layer.kernel_size[1]
    if target.method == "tucker":
        return [(1, 1), (down, right), (1, 1)]
    if target.method == "cp":
        return [(1, 1)] * 4
    return [(down, 1), (1, right)] if width > 1 else [(down, right), (1, 1)]


def _as_weight(layer: Any, factor: np.ndarray) -> np.ndarray:
    return factor[0, 0] if isinstance(layer, _layers.Dense) else factor


def _is_flat(layer: Any) -> bool:
    """Whether a layer is a matrix: dense, or a 1x1 convolution."""
    return isinstance(layer, _layers.Dense) or set(getattr(layer, "kernel_size", ())) == {1}


def _reason_against(layer: Any, method: str) -> str:
    if type(layer) not in (_layers.Dense, _layers.Conv2D):
        return f"{type(layer).__name__} is not decomposed"
    if getattr(layer, "groups", 1) > 1:
        return "a grouped convolution is not decomposed"
    if layer.kernel_constraint is not None:
        return "its kernel's constraint would not hold"
    if method == "cp" and tuple(layer.strides) != (1, 1):
        return "a depthwise convolution cannot stride one way, as cp needs"
    return ""


def _kernels(layer: Any) -> list[Any]:
    return [weight for weight in layer.weights if len(weight.shape) > 1]


def _pixels(node: Any) -> dict[str, int]:
    """How many pixels (of a dense layer: vectors) one call computes, at each place."""
    channels_first = getattr(node.layer, "data_format", "") == "channels_first"
    inputs, outputs = (
        shape[2:] if channels_first else shape[1:-1]
        for shape in (node.input_shapes, node.output_shapes)
    )
    if None in (*inputs, *outputs):
        raise InputError(
            f"the multiply-adds of layer {node.layer.name!r} cannot be counted: its shape is open; "
            "rebuild the model with fixed sizes in tf.keras.Input"
        )
    between = outputs
    if len(inputs) == 2 and getattr(node.layer, "kernel_size", (1, 1))[1] > 1:
        between = (outputs[0], inputs[1])
    places = {"inputs": inputs, "between": between, "outputs": outputs}
    return {place: math.prod(shape) for place, shape in places.items()}
