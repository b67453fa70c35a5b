"""Loads a Keras model from a file, without running code that the file brings along."""

import importlib
import json
import zipfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import h5py

from tflite_export import model_code
from tflite_export.errors import ExportError


def load_keras_model(path: Path) -> Any:
    """Loads a model, without its optimizer, with the Keras that wrote it, tf_keras or Keras 3.

    Files with code in them (`Lambda` layers around a Python lambda) are refused, and so are those
    written by tf_keras that name functions or classes from outside of Keras which are not
    registered: tf_keras would import and call them, whatever they do. Keras 3 has such a check. In
    an `.h5` file of a quantization-aware model tfmot's own classes are known.

    Args:
        path: a `.keras` or `.h5` file.

    Raises:
        ExportError: the file is cut off, of another kind, holds weights only, or holds code.
    """
    try:
        config, version = _archived(path) if path.suffix == ".keras" else _from_hdf5(path)
        keras = importlib.import_module("tf_keras" if version < 3 else "keras")
        with _quantize_scope(path, config):
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


def _quantize_scope(path: Path, config: Any) -> AbstractContextManager[Any]:
    """Where tf_keras knows tfmot's classes. A `.keras` file does not hold what those learned."""
    if path.suffix == ".keras" or not model_code.is_quantization_aware(config):
        return nullcontext()
    import tensorflow_model_optimization as tfmot  # only now: it needs tf_keras

    return tfmot.quantization.keras.quantize_scope()


def _refuse_code(path: Path, config: Any, tf_keras: Any | None) -> None:
    if model_code.has_lambda(config):
        raise ExportError(
            f"model file {str(path)!r} holds Python code in a Lambda layer, which is not run; "
            f"rebuild the model without it, or with a registered layer"
        )
    foreign = None if tf_keras is None else model_code.foreign(config, tf_keras)
    if foreign is not None:
        raise ExportError(
            f"model file {str(path)!r} names {foreign.name!r} of the module {foreign.module!r}, "
            f"which is not imported; save the model as a SavedModel, or call "
            f"tflite_export.convert with the model itself"
        )
