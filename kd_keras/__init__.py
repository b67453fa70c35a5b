"""Distil, compress and export Keras models: the public names.

Names are loaded when they are first used, so that importing the package costs nothing and a script
can choose the Keras (see `TF_USE_LEGACY_KERAS`) before TensorFlow is imported.
"""

import importlib
from typing import Any

_HOMES = {
    "Distiller": "distiller",
    "AdversarialDistiller": "adversarial",
    "fully_connected": "discriminators",
    "ConditionalAdversarialDistiller": "conditional",
    "Stage": "pipeline.staged",
    "fit_stages": "pipeline.staged",
    "born_again": "pipeline.born_again",
    "Ensemble": "teachers",
    "StopOnNonFinite": "callbacks",
    "DiscriminatorWatch": "callbacks",
    "DiscriminatorWarning": "callbacks",
    "InputError": "errors",
    "compression": None,
    "data": None,
    "discriminators": None,
    "methods": None,
    "models": None,
    "schedules": None,
    "teachers": None,
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        home = _HOMES[name]
        module = importlib.import_module(f"{__name__}.{home or name}")
        return getattr(module, name) if home else module
    methods = importlib.import_module(f"{__name__}.methods")
    for method in methods.names():
        if name == methods.class_name(method):
            return methods.get(method)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    methods = importlib.import_module(f"{__name__}.methods")
    return sorted([*_HOMES, *map(methods.class_name, methods.names())])
