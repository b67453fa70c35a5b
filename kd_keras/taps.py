"""Read a model's inner layers by name, in the forward pass that is run anyway.

A tap listens to the `call` of a layer for the length of one forward pass. So it works alike for
Functional, Sequential and subclassed models, for layers nested in layers, and for the wrappers of
tensorflow-model-optimization, and the user's model needs no change and no second pass.
"""

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.hooks import around_call

_WRAPPER_PREFIX = re.compile(r"^(quant_|prune_low_magnitude_|cluster_)+")
_PASSED_THROUGH = ("Identity", "StopGradient", "Cast", "FakeQuantWithMinMaxVars")
_SMALLEST_PROBABILITY = 1e-7
_EAGER_TOLERANCE = 1e-2  # float16 and bfloat16 sum to 1 no better than this


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What one forward pass of a model gave.

    Attributes:
        logits: The model's output as logits, `(batch, classes)`, at least float32; of an ensemble,
            the mean of its members' logits.
        layers: The outputs of the layers asked for, by the name that was asked for.
        members: Of an ensemble whose distributions are averaged, each member's logits and weight;
            the weights add up to 1.
    """

    logits: tf.Tensor
    layers: dict[str, tf.Tensor]
    members: tuple[tuple[tf.Tensor, float], ...] = ()

    def specs(self) -> "Outputs":
        """The `tf.TensorSpec`s of the logits and layers."""
        logits, layers = tf.nest.map_structure(
            lambda value: tf.TensorSpec(value.shape, value.dtype), (self.logits, self.layers)
        )
        return Outputs(logits, layers)

    def log_probabilities(self, temperature: Any = 1.0) -> tf.Tensor:
        """`log softmax(z / T)`, `(batch, classes)`; of `members`, the logarithm of their mean."""
        if not self.members:
            return tf.nn.log_softmax(self.logits / temperature)
        shares = [
            tf.nn.log_softmax(logits / temperature) + math.log(weight)
            for logits, weight in self.members
        ]
        return tf.reduce_logsumexp(tf.stack(shares), axis=0)


def user_name(layer_name: str) -> str:
    """The name a user gave to a layer that tensorflow-model-optimization has wrapped.

    >>> user_name("quant_logits")
    'logits'
    """
    return _WRAPPER_PREFIX.sub("", layer_name)


def find_layer(model: Any, path: str, role: str = "model") -> Any:
    """Find a layer by the user's name for it; layers inside layers are named `block/conv`.

    Args:
        model: A Keras model.
        path: The layer's name, or the names on the way to it joined by `/`.
        role: What the model is to the user ("teacher", "student"), for the error.

    Raises:
        InputError: If there is no such layer; the message lists those that are there.
    """
    layer = _descend(model, path)
    if layer is None:
        raise InputError(
            f"layer {path!r} is not in the {role}; it has: {', '.join(_names(model)) or 'none'}"
        )
    return layer


def forward(model: Any, inputs: Any, layers: Sequence[str] = (), **kwargs: Any) -> tuple[Any, dict]:
    """Run `model(inputs, **kwargs)` once and return its output and those of the named layers.

    A layer that is called several times in the pass gives its last output.

    Raises:
        InputError: If a named layer does not exist or did not run.
    """
    with contextlib.ExitStack() as taps:
        heard = {
            path: taps.enter_context(_listening(find_layer(model, path))) for path in set(layers)
        }
        outputs = model(inputs, **kwargs)
    silent = sorted(path for path, values in heard.items() if not values)
    if silent:
        raise InputError(
            f"layer {silent[0]!r} of {model.name!r} did not run in the model's own call; "
            "name a layer whose output the model computes"
        )
    return outputs, {path: values[-1] for path, values in heard.items()}


def trace(model: Any, layers: Sequence[str] = (), *, from_logits: bool, role: str) -> Outputs:
    """The `tf.TensorSpec`s of a model's outputs on its own input specs; nothing is computed.

    Args:
        model: A built Functional or Sequential model.
        layers: The layers to read.
        from_logits: See `as_logits`.
        role: See `as_logits`.

    Raises:
        InputError: See `forward` and `as_logits`.
    """
    outputs: list = []
    refusals: list = []

    def run(inputs: Any) -> None:
        try:
            output, heard = forward(model, inputs, layers, training=False)
            found = as_logits(output, from_logits=from_logits, role=role), heard
            outputs.append(tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), found))
        except InputError as refusal:  # which autograph would wrap
            refusals.append(refusal)

    tf.function(run).get_concrete_function(input_specs(model))
    for refusal in refusals:
        raise refusal
    return Outputs(*outputs[0])


def as_logits(output: tf.Tensor, from_logits: bool, role: str) -> tf.Tensor:
    """A model's output as logits, at least float32.

    Args:
        output: `(batch, classes)`, logits or probabilities.
        from_logits: Which of the two. Probabilities become `log(max(p, 1e-7))`, which has the same
            softmax.
        role: What the model is to the user, for the error.

    Raises:
        InputError: If the output is not one tensor, or is a softmax that is said to be logits.
    """
    if not tf.is_tensor(output):
        raise InputError(
            f"the {role} gives a {type(output).__name__}; one tensor (batch, classes) is needed: "
            "wrap it in a model with one output"
        )
    if from_logits and ends_in_softmax(output):
        raise InputError(
            f"the {role} ends in softmax or sigmoid, and its probabilities would be taken for "
            "logits: remove its last activation, or pass from_logits=False"
        )
    if output.dtype in (tf.float16, tf.bfloat16):
        output = tf.cast(output, tf.float32)
    return output if from_logits else log_clipped(output)


def log_clipped(probabilities: tf.Tensor) -> tf.Tensor:
    """`log(max(p, 1e-7))`: logits whose softmax is p."""
    return tf.math.log(tf.maximum(probabilities, _SMALLEST_PROBABILITY))


def are_probabilities(values: np.ndarray) -> bool:
    """Whether every row is at least 0 and sums to 1, as far as rounding allows.

    Args:
        values: `(batch, classes)`, an array.
    """
    sums = np.sum(values, axis=-1, dtype=np.float32)
    return bool((values >= 0).all() and (np.abs(sums - 1) < _EAGER_TOLERANCE).all())


def ends_in_softmax(output: tf.Tensor) -> bool:
    """Whether a tensor is the result of a softmax or a sigmoid.

    A symbolic tensor knows the operation that made it. An eager one does not: it is judged by its
    values, which are probabilities if they are at least 0 and every row's sum is 1.
    """
    if isinstance(output, tf.__internal__.EagerTensor):
        return are_probabilities(output.numpy())
    op = output.op
    while op.type in _PASSED_THROUGH:
        op = op.inputs[0].op
    return op.type in ("Softmax", "Sigmoid")


def input_specs(model: Any) -> Any:
    """The `tf.TensorSpec`s that a model takes, or None if it has not been built on any yet."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return None
    # Keras 3's Sequential has no `input`, which else keeps the structure of several inputs.
    structure = inputs[0] if len(inputs) == 1 else model.input
    return tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), structure)


def classes_of(model: Any) -> int | None:
    """The number of a model's classes, if its output shape says it."""
    shape = getattr(model, "output_shape", None) if getattr(model, "inputs", None) else None
    return shape[-1] if isinstance(shape, tuple) else None


def require_equal_inputs(
    teacher: Any, student: Any, names: tuple[str, str] = ("teacher", "student")
) -> None:
    """Refuse input specs, as `input_specs` gives them, that no one batch fits.

    Args:
        teacher: The specs of the one.
        student: The specs of the other.
        names: What the two are.

    Raises:
        InputError: With both shapes.
    """
    pairs = [[spec.shape for spec in tf.nest.flatten(specs)] for specs in (teacher, student)]
    if len(pairs[0]) != len(pairs[1]) or not all(
        t.is_compatible_with(s) for t, s in zip(*pairs, strict=True)
    ):
        raise InputError(
            f"{names[0]} and {names[1]} see the same batch, but the {names[0]}'s input is "
            f"{pairs[0]} and the {names[1]}'s {pairs[1]}: make both of one input shape"
        )


def _children(layer: Any) -> list:
    # The one accessor of sub-layers that both Keras share; `.layers` exists on models only.
    return list(layer._flatten_layers(recursive=False, include_self=False))


def _names(model: Any) -> list[str]:
    return [user_name(layer.name) for layer in _children(model)]


def _descend(layer: Any, path: str) -> Any:
    children = {user_name(child.name): child for child in _children(layer)}
    if path in children:
        return children[path]
    for name, child in children.items():
        if path.startswith(name + "/"):
            found = _descend(child, path[len(name) + 1 :])
            if found is not None:
                return found
    return None


@contextlib.contextmanager
def _listening(layer: Any) -> Iterator[list]:
    """Collect a layer's outputs in this thread while the context lasts."""
    values: list = []

    def heard(call: Any, *args: Any, **kwargs: Any) -> Any:
        output = call(*args, **kwargs)
        values.append(output)
        return output

    with around_call(layer, heard):
        yield values
