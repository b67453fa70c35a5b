"""Finds the operators of the layers that a recipe keeps in float."""

import functools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from tflite_export import keras_model
from tflite_export.errors import ExportError
from tflite_export.file_facts import FileFacts, Operator
from tflite_export.layer_names import MARK


@contextmanager
def marked(model: Any, names: Sequence[str]) -> Iterator[None]:
    """Lets the operations of the named layers carry a mark in their names while they are traced.

    A layer's own name is no such mark: Keras 3 calls the operations of the first layer `conv`
    those of `conv_1`, which may be a layer too. The model is as before afterwards.

    Args:
        model: a Keras model.
        names: of layers, also of nested models, as the user gave them.

    Raises:
        ExportError: there is no such layer; the message lists those that are there.
    """
    layers = list(keras_model.layers_of(model))
    for name in names:
        if not any(layer.name == name for layer in layers):
            raise ExportError(
                f"layer {name!r} to keep in float is not in model {model.name!r}; it has: "
                f"{', '.join(layer.name for layer in layers)}"
            )
    chosen = [layer for layer in dict.fromkeys(layers) if layer.name in names]
    try:
        for layer in chosen:
            call = _in_scope(layer.call, f"{MARK}{names.index(layer.name)}")
            object.__setattr__(layer, "call", call)
        yield
    finally:
        for layer in chosen:
            layer.__dict__.pop("call", None)


def _in_scope(call: Any, scope: str) -> Any:
    @functools.wraps(call)
    def in_scope(*args: Any, **kwargs: Any) -> Any:
        with tf.name_scope(scope):
            return call(*args, **kwargs)

    return in_scope


def marked_operators(
    facts: FileFacts, names: Sequence[str], output_layer: str
) -> tuple[Operator, ...]:
    """Returns the operators of the float file that the marked layers went into.

    Raises:
        ExportError: a layer is in no operator, for it computes nothing or was folded into others.
    """
    found: dict[str, list[Operator]] = {name: [] for name in names}
    for operator in facts.operators:
        scopes = _scopes(operator)
        for place, name in enumerate(names):
            mark = re.compile(rf"{MARK}{place}(_\d+)?")  # numbered where a layer is called twice
            if any(map(mark.fullmatch, scopes)) or (operator.last and name == output_layer):
                found[name].append(operator)
    return _all_found(found)


def scoped_operators(
    facts: FileFacts, names: Sequence[str], output_name: str
) -> tuple[Operator, ...]:
    """Returns the operators of a file whose tensors stand in one of the named scopes.

    For files and SavedModels, where nothing but the names of the tensors tells of layers. The last
    operator, whose tensor is often called otherwise, is known by the output's name too.

    Raises:
        ExportError: no operator stands in such a scope; the message lists the scopes.
    """
    found = {
        name: [
            operator
            for operator in facts.operators
            if name in _scopes(operator) or (operator.last and name == output_name)
        ]
        for name in names
    }
    scopes = dict.fromkeys(scope for o in facts.operators for scope in sorted(_scopes(o)))
    for name, operators in found.items():
        if not operators:
            raise ExportError(
                f"layer {name!r} to keep in float is in no tensor's name; there are: "
                f"{', '.join([*scopes, output_name])}"
            )
    return _all_found(found)


def _scopes(operator: Operator) -> set[str]:
    """The parts of `model/relu/Relu;model/conv/Conv2D`; the last operator's name tells nothing."""
    named = [*operator.tensors, *(operator.constants if operator.last else ())]
    return {scope for name in named for scope in re.split("[/;]", name)}


def _all_found(found: dict[str, list[Operator]]) -> tuple[Operator, ...]:
    for name, operators in found.items():
        if not operators:
            raise ExportError(
                f"layer {name!r} to keep in float has no operator of its own in the file; name a "
                f"layer that computes, such as a convolution"
            )
    return tuple(dict.fromkeys(operator for group in found.values() for operator in group))
