"""Whole models from files, without running code that a file brings along."""

import json
import os
import re
from collections.abc import Callable
from typing import Any

import h5py
import tensorflow as tf

from kd_keras.errors import InputError


def load_model(path: str | os.PathLike[str]) -> tf.keras.Model:
    """Loads a model, without its optimizer.

    Files with code in them (``Lambda`` layers around a Python lambda) are refused.

    Args:
        path: a ``.keras`` or ``.h5`` file, or (under tf_keras) the folder of a SavedModel that
            Keras wrote.

    Returns:
        The model, not compiled.

    Raises:
        InputError: the file is absent, cut off, of another kind or holds code.
    """
    path = os.fspath(path)
    if not os.path.exists(path):
        raise InputError(f"model file {path!r} does not exist")
    if os.path.isdir(path):
        return _load_saved_model(path)
    if path.endswith(".keras"):
        return _load(path)
    if path.endswith((".h5", ".hdf5")):
        _read(path, _refuse_code_in_h5)
        return _load(path)
    raise InputError(
        f"model file {path!r} is of no known kind; give .keras, .h5 or the folder of a SavedModel"
    )


def _load_saved_model(path: str) -> tf.keras.Model:
    if not os.path.exists(os.path.join(path, "saved_model.pb")):
        raise InputError(f"model folder {path!r} is no SavedModel: it has no saved_model.pb")
    if not tf.keras.Model.__module__.startswith("tf_keras"):
        raise InputError(
            f"model folder {path!r} is a SavedModel, which Keras 3 does not load as a model; save "
            "it as .keras, or set TF_USE_LEGACY_KERAS=1 before TensorFlow is imported"
        )
    metadata = os.path.join(path, "keras_metadata.pb")
    if not os.path.exists(metadata):
        raise InputError(f"model folder {path!r} was not written by Keras: no keras_metadata.pb")
    with open(metadata, "rb") as file:
        content = file.read()
    # Keras escapes no letter in its JSON, so an escaped one hides a word from this search.
    if re.search(rb"__lambda__|\"function_type\":\s*\"lambda\"|\\u00[2-7]", content):
        raise _holds_code(path)
    return _load(path)


def _load(path: str) -> tf.keras.Model:
    def load() -> tf.keras.Model:
        return tf.keras.models.load_model(path, compile=False, safe_mode=True)

    return _read(path, lambda _: load())


def _read(path: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(path)
    except InputError:
        raise
    except Exception as error:  # h5py and both Keras raise anything here, on any foreign file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"model file {path!r} cannot be loaded, it is cut off or of another kind: {reason}"
        ) from error


def _refuse_code_in_h5(path: str) -> None:
    with h5py.File(path, "r") as file:
        config = file.attrs.get("model_config")
    if config is None:
        raise InputError(
            f"model file {path!r} holds weights only; build the model and use load_weights"
        )
    if _has_code(json.loads(config)):
        raise _holds_code(path)


def _has_code(config: Any) -> bool:
    if isinstance(config, dict):
        if config.get("class_name") == "__lambda__" or config.get("function_type") == "lambda":
            return True
        return any(_has_code(value) for value in config.values())
    return isinstance(config, list) and any(_has_code(value) for value in config)


def _holds_code(path: str) -> InputError:
    return InputError(
        f"model file {path!r} holds Python code in a Lambda layer, which is not run; "
        "rebuild the model without it, or with a registered layer"
    )
