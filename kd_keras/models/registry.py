"""Networks by name: finds the family files of this package and builds from them."""

import functools
import importlib
import inspect
import pkgutil
import re
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from kd_keras.errors import InputError, closest_first
from kd_keras.models.family import Family

_TAP = re.compile(r"stage\d+|features|logits")


def build(
    name: str, *, classes: int, input_shape: tuple[int, int, int], **options: Any
) -> tf.keras.Model:
    """Builds a network by its name, with fresh random weights.

    The model is Functional, its input is ``image`` (float32), its last layer ``logits`` is linear,
    and ``features`` is that layer's input, a flat ``(batch, d)`` tensor. Call
    ``tf.keras.utils.set_random_seed`` first for weights that can be made again.

    Args:
        name: e.g. ``"resnet20"``; ``names()`` lists what exists.
        classes: number of classes, at least 2.
        input_shape: ``(height, width, channels)`` of one image, in pixels.
        **options: options of the family, e.g. ``shortcut="A"`` for the ResNets.

    Returns:
        A ``tf.keras.Model`` called ``name``: ``(batch,) + input_shape -> (batch, classes)`` logits.

    Raises:
        InputError: the name, an option, the shape or the class count cannot be used.

    Example:
        >>> model = build("lenet4", classes=10, input_shape=(28, 28, 1))
        >>> model.count_params()
        33770
    """
    family = _family_of(name)
    shape = _checked_shape(input_shape)
    if not _is_count(classes) or classes < 2:
        raise InputError(f"classes {classes!r} is not possible; give a whole number of at least 2")
    _check_options(name, family, options)
    return family.build(name, classes=int(classes), input_shape=shape, **options)


def names() -> tuple[str, ...]:
    """The names that ``build`` knows; for a grammar such as ``mlp-W-W-...``, examples of it."""
    return tuple(example for family in _families() for example in family.examples)


def sizes(name: str) -> tuple[str, ...]:
    """The names of the smaller and larger networks of a family, ``name`` among them.

    Raises:
        InputError: there is no network ``name``.

    Example:
        >>> sizes("resnet20")
        ('resnet8', 'resnet20', 'resnet32')
    """
    return _family_of(name).sizes(name)


def size_options(name: str) -> Mapping[str, tuple[Any, ...]]:
    """The options that make a network smaller or larger, each with values to try.

    Raises:
        InputError: there is no network ``name``.
    """
    return _family_of(name).size_options


def taps(model: tf.keras.Model) -> tuple[str, ...]:
    """Names of the layers made to be read by a method: ``stage1`` .. ``features``, ``logits``."""
    return tuple(layer.name for layer in model.layers if _TAP.fullmatch(layer.name))


def weight_aliases(name: str) -> Mapping[str, str]:
    """Layer names of published weight files -> ours, for the network ``name``; {} if unknown."""
    for family in _families():
        if re.fullmatch(family.pattern, name):
            return family.weight_aliases
    return {}


@functools.cache
def _families() -> tuple[Family, ...]:
    package = importlib.import_module(__package__)
    found = []
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda module: module.name):
        family = getattr(importlib.import_module(f"{__package__}.{module.name}"), "FAMILY", None)
        if family is not None:
            found.append(family)
    return tuple(found)


def _family_of(name: str) -> Family:
    for family in _families():
        if isinstance(name, str) and re.fullmatch(family.pattern, name):
            return family
    raise InputError(f"network {name!r} does not exist; there are: {closest_first(name, names())}")


def _check_options(name: str, family: Family, options: Mapping[str, Any]) -> None:
    known = [
        parameter.name
        for parameter in inspect.signature(family.build).parameters.values()
        if parameter.name not in ("name", "classes", "input_shape")
    ]
    for option in options:
        if option not in known:
            allowed = closest_first(option, known) or "none"
            raise InputError(f"network {name!r} has no option {option!r}; it has: {allowed}")


def _checked_shape(input_shape: Any) -> tuple[int, int, int]:
    sizes = tuple(input_shape) if isinstance(input_shape, (tuple, list)) else ()
    if len(sizes) != 3 or not all(_is_count(size) and size > 0 for size in sizes):
        raise InputError(
            f"input_shape {input_shape!r} is not an image's; give (height, width, channels) "
            "without the batch, e.g. (32, 32, 3)"
        )
    return int(sizes[0]), int(sizes[1]), int(sizes[2])


def _is_count(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)
