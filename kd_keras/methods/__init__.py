"""Distillation methods, one a file; a method is found by the name of its file.

`soft_targets.py` holds `SoftTargets`, which a config calls "soft_targets". Nothing else lists it.
"""

import ast
import functools
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from kd_keras.errors import InputError, closest_first


def names() -> tuple[str, ...]:
    """The names of all methods, without importing any."""
    return tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name != "base"))


def get(name: str) -> Any:
    """The class of the method with that name.

    Raises:
        InputError: If there is none; the message lists those that exist.
    """
    if name not in names():
        raise InputError(
            f"method {name!r} does not exist; there are: {closest_first(name, names())}"
        )
    return getattr(importlib.import_module(f"{__name__}.{name}"), class_name(name))


@functools.cache
def class_name(name: str) -> str:
    """The name of a method's class, read from its file: TensorFlow need not be imported for it."""
    source = pkgutil.get_data(__name__, f"{name}.py") or b""
    classes = (node.name for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    return next(found for found in classes if _is_class_of(name, found))


def build(config: Mapping[str, Mapping[str, Any]]) -> list:
    """The methods that a config describes.

    Args:
        config: `{term name: hyperparameters}`. The term's name is the method's, unless the
            hyperparameters hold `method`.

    Raises:
        InputError: For an unknown method or hyperparameter, listing what exists.
    """
    return [_build_one(term, dict(settings)) for term, settings in config.items()]


def _build_one(term: str, settings: dict[str, Any]) -> Any:
    method = get(settings.pop("method", term))
    allowed = (*method.hyperparameters, "weight")
    unknown = sorted(set(settings) - set(allowed))
    if unknown:
        raise InputError(
            f"method {term!r} has no hyperparameter {unknown[0]!r}; it has: {', '.join(allowed)}"
        )
    return method(**settings, name=term)


def _is_class_of(module_name: str, key: str) -> bool:
    return key[0].isupper() and key.lower() == module_name.replace("_", "")
