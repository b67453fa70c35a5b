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
    if not model.built:
        raise InputError(f"the student {model.name!r} is not built: call it on a batch first")
    kept = _variables_of(model, part)
    frozen = [layer for layer in _leaves(model) if layer.trainable and not _any(layer, kept)]
    for layer in frozen:
        layer.trainable = False
    try:
        _require_just(model, part, kept)
        yield
    finally:
        for layer in frozen:
            layer.trainable = True


def _variables_of(model: Any, part: Part) -> set[int]:
    """The ids of the trainable variables of a part."""
    if part is None:
        return {id(variable) for variable in model.trainable_variables}
    if isinstance(part, str):
        return variables_behind(model, part)
    named = [taps.find_layer(model, path, role="student") for path in part]
    return {id(variable) for layer in named for variable in layer.trainable_variables}


def _any(layer: Any, kept: set[int]) -> bool:
    """Whether a layer is in the part; one without trainable weights is never out of it."""
    own = layer.trainable_variables
    return not own or any(id(variable) in kept for variable in own)


def _require_just(model: Any, part: Part, kept: set[int]) -> None:
    """Refuse a part that is empty, or that cannot be trained without the rest."""
    trained = model.trainable_variables
    if not trained:
        raise InputError(
            f"nothing to train: the part {part!r} of the student {model.name!r} has no "
            "trainable weights; name a layer that has some, or one behind such a layer"
        )
    others = [variable.name for variable in trained if id(variable) not in kept]
    if others:
        raise InputError(
            f"the student {model.name!r} cannot be trained up to the part {part!r} alone: "
            f"{others[0]!r} is held by a layer that cannot be frozen (a quantized one, or one "
            "with layers inside); train the part before the student is wrapped"
        )


def variables_behind(model: Any, path: str) -> set[int]:
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
