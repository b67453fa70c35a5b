"""What a Keras model file would run when it is loaded, found in its configuration beforehand.

tf_keras imports and calls whatever a file names, also with `safe_mode`.
"""

import builtins
from collections.abc import Iterator
from typing import Any, NamedTuple


class Foreign(NamedTuple):
    """A class or function that is neither Keras' own nor registered."""

    name: str
    module: str


def has_lambda(config: Any) -> bool:
    """Whether a model's configuration holds Python code."""
    return any(
        found.get("class_name") == "__lambda__" or found.get("function_type") == "lambda"
        for found in _objects(config)
    )


def is_quantization_aware(config: Any) -> bool:
    """Whether a model's configuration has layers in tfmot's wrappers for quantization."""
    return any(
        str(found.get("class_name")).startswith("QuantizeWrapper") for found in _objects(config)
    )


def foreign(config: Any, tf_keras: Any) -> Foreign | None:
    """The first thing that tf_keras would import for a model's configuration, or None.

    Args:
        config: of the model.
        tf_keras: the module, which knows what is registered.
    """
    for found in _objects(config):
        if _is_foreign(found, tf_keras):
            name = found["config" if found["class_name"] == "function" else "class_name"]
            return Foreign(name, found["module"])
    return None


def _objects(config: Any) -> Iterator[dict]:
    """All the dictionaries in a model's configuration."""
    if isinstance(config, dict):
        yield config
    if isinstance(config, dict | list):
        for value in config.values() if isinstance(config, dict) else config:
            yield from _objects(value)


def _is_foreign(config: dict, keras: Any) -> bool:
    """Whether tf_keras would import what this names, and it is neither registered nor its own."""
    module, name = config.get("module"), config.get("class_name")
    if module is None or name is None:
        return False
    if name == "function":  # by name, of Keras' own activations, losses and metrics only
        name = config.get("config")
        is_own = module == "builtins" and not hasattr(builtins, str(name))
        key = name
    else:  # Keras' classes, not the functions beside them, which a file could have called
        is_own = module.split(".")[0] in ("keras", "tf_keras") and str(name)[:1].isupper()
        key = config.get("registered_name")
    return not is_own and keras.utils.get_registered_object(key) is None
