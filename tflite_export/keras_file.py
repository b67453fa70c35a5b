"""Loads a Keras model from a file, without running code that the file brings along.

`kd_keras` has such a loader too; this package knows nothing of that one.
"""

import builtins
import importlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from tflite_export.errors import ExportError


def load_keras_model(path: Path) -> Any:
    """Loads a model, without its optimizer, with the Keras that wrote it, tf_keras or Keras 3.

    Files with code in them (`Lambda` layers around a Python lambda) are refused, and so are those
    written by tf_keras that name functions or classes from outside of Keras which are not
    registered: tf_keras would import and call them, whatever they do. Keras 3 has such a check.

    Args:
        path: a `.keras` or `.h5` file.

    Raises:
        ExportError: the file is cut off, of another kind, holds weights only, or holds code.
    """
    try:
        config, version = _archived(path) if path.suffix == ".keras" else _from_hdf5(path)
        keras = importlib.import_module("tf_keras" if version < 3 else "keras")
        _refuse_code(path, config, keras if version < 3 else None)
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except ExportError:
        raise
    except Exception as error:  # h5py and both Keras raise anything here, on any foreign file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ExportError(
            f"model file {str(path)!r} cannot be loaded, it is cut off or of another kind: {reason}"
        ) from error


def _archived(path: Path) -> tuple[Any, int]:
    with zipfile.ZipFile(path) as archive:
        version = json.loads(archive.read("metadata.json"))["keras_version"]
        return json.loads(archive.read("config.json")), int(version.split(".")[0])


def _from_hdf5(path: Path) -> tuple[Any, int]:
    with h5py.File(path, "r") as file:
        config, version = file.attrs.get("model_config"), file.attrs.get("keras_version", "2")
    if config is None:
        raise ExportError(
            f"model file {str(path)!r} holds weights only; save the whole model with model.save"
        )
    version = version.decode() if isinstance(version, bytes) else version
    return json.loads(config), int(version.split(".")[0])


def _refuse_code(path: Path, config: Any, tf_keras: Any | None) -> None:
    for found in _objects(config):
        if found.get("class_name") == "__lambda__" or found.get("function_type") == "lambda":
            raise ExportError(
                f"model file {str(path)!r} holds Python code in a Lambda layer, which is not run; "
                f"rebuild the model without it, or with a registered layer"
            )
        if tf_keras is not None and _is_foreign(found, tf_keras):
            name = found["config" if found["class_name"] == "function" else "class_name"]
            raise ExportError(
                f"model file {str(path)!r} names {name!r} of the module {found['module']!r}, which "
                f"is not imported; save the model as a SavedModel, or call tflite_export.convert "
                f"with the model itself"
            )


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
