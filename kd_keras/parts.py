"""Train a part of a model: freeze the other layers for as long as a stage lasts."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from kd_keras import taps
from kd_keras.errors import InputError

#: All layers (None), the layers up to the named one, or just the named ones.
Part = str | Sequence[str] | None


@contextlib.contextmanager
def training_only(model: Any, part: Part) -> Iterator[None]:
    """Freeze all but a part of a model while the context lasts.

    Frozen is what Keras means by it: no gradient, and BatchNorm in inference mode. What lies above
    the part, and is read by no loss, is then not even computed.

    Args:
        model: A built Keras model. Compile inside the context.
        part: None for the whole model; the name of a layer for all that this layer's output
            depends on, itself included; a sequence of names for just those layers.

    Raises:
        InputError: If a layer does not exist or nothing is left to train.
    """
    layers = [layer for layer in _leaves(model) if layer.weights]
    kept = {id(layer) for layer in _chosen(model, part, layers)}
    frozen = [layer for layer in layers if id(layer) not in kept and layer.trainable]
    for layer in frozen:
        layer.trainable = False
    try:
        if not model.trainable_variables:
            raise InputError(
                f"nothing to train: the part {part!r} of the student {model.name!r} has no "
                "trainable weights; name a layer that has some, or one behind such a layer"
            )
        yield
    finally:
        for layer in frozen:
            layer.trainable = True


def _chosen(model: Any, part: Part, layers: list) -> list:
    if part is None:
        return layers
    if isinstance(part, str):
        needed = _variables_behind(model, part)
        return [layer for layer in layers if any(id(w) in needed for w in layer.weights)]
    named = [taps.find_layer(model, path, role="student") for path in part]
    return [leaf for layer in named for leaf in _leaves(layer)]


def _variables_behind(model: Any, path: str) -> set[int]:
    """The ids of the trainable variables that a layer's output depends on."""
    taps.find_layer(model, path, role="student")
    specs = taps.input_specs(model)
    if specs is None:
        raise InputError(
            f"the layers up to {path!r} cannot be told, since the student {model.name!r} does not "
            "say what it takes: use a Functional model, or list the layers to train by name"
        )
    needed: set[int] = set()

    def find(inputs: Any) -> None:
        with tf.GradientTape() as tape:
            _, heard = taps.forward(model, inputs, [path], training=False)
        variables = model.trainable_variables
        gradients = tape.gradient(heard[path], variables)
        found = zip(variables, gradients, strict=True)
        needed.update(id(variable) for variable, gradient in found if gradient is not None)

    tf.function(find).get_concrete_function(specs)
    return needed


def _leaves(layer: Any) -> list:
    """The layers in a layer that hold no further ones."""
    everything = layer._flatten_layers(recursive=True, include_self=True)
    return [one for one in everything if not list(one._flatten_layers(include_self=False))]
