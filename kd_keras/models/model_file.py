"""Whole models from files, without running code that a file brings along."""

import importlib
import json
import os
import re
import zipfile
from collections.abc import Callable
from typing import Any

import h5py
import tensorflow as tf

from kd_keras.errors import InputError
from tflite_export import model_code


def load_model(path: str | os.PathLike[str], *, any_keras: bool = False) -> tf.keras.Model:
    """Loads a model, without its optimizer.

    Files with code in them (``Lambda`` layers around a Python lambda) are refused, and so are those
    written by tf_keras that name functions or classes from outside of Keras which are not
    registered: tf_keras would import and call them, whatever they do. Keras 3 has such a check.

    Args:
        path: a ``.keras`` or ``.h5`` file, or (under tf_keras) the folder of a SavedModel that
            Keras wrote.
        any_keras: whether a file is loaded by the Keras that wrote it, tf_keras or Keras 3, which
            need not be the one in use. Custom layers must be registered with that Keras.

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
    if path.endswith((".keras", ".h5", ".hdf5")):
        keras = _read(path, _keras_that_wrote) if any_keras else tf.keras
        _read(path, lambda _: _refuse_code(path, keras))
        return _load(path, keras)
    raise InputError(
        f"model file {path!r} is of no known kind; give .keras, .h5 or the folder of a SavedModel"
    )


def may_hold_weights_only(path: str) -> bool:
    """Whether a file, by its name and what it holds, is of weights rather than a whole model."""
    if path.endswith((".npz", ".weights.h5")):
        return True
    if not path.endswith((".h5", ".hdf5")):
        return False
    try:
        with h5py.File(path, "r") as file:
            return "model_config" not in file.attrs
    except OSError:  # missing or damaged, which whoever reads it says
        return True


def _load_saved_model(path: str) -> tf.keras.Model:
    if not os.path.exists(os.path.join(path, "saved_model.pb")):
        raise InputError(f"model folder {path!r} is no SavedModel: it has no saved_model.pb")
    if not _is_tf_keras(tf.keras):
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
    return _load(path, tf.keras)


def _load(path: str, keras: Any) -> tf.keras.Model:
    def load() -> tf.keras.Model:
        return keras.models.load_model(path, compile=False, safe_mode=True)

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


def _keras_that_wrote(path: str) -> Any:
    """The Keras to load a file with.

    The one place that may import a Keras by name: `tf.keras` is only ever the one in use.
    """
    if path.endswith(".keras"):
        version = json.loads(_archived(path, "metadata.json"))["keras_version"]
    else:
        with h5py.File(path, "r") as file:
            version = file.attrs.get("keras_version", "2")
    version = version.decode() if isinstance(version, bytes) else version
    by_tf_keras = int(version.split(".")[0]) < 3
    if by_tf_keras == _is_tf_keras(tf.keras):
        return tf.keras
    return importlib.import_module("tf_keras" if by_tf_keras else "keras")


def _is_tf_keras(keras: Any) -> bool:
    return keras.Model.__module__.startswith("tf_keras")


def _archived(path: str, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def _refuse_code(path: str, keras: Any) -> None:
    if path.endswith(".keras"):
        config = _archived(path, "config.json")
    else:
        with h5py.File(path, "r") as file:
            config = file.attrs.get("model_config")
        if config is None:
            raise InputError(
                f"model file {path!r} holds weights only; build the model and use load_weights"
            )
    described = json.loads(config)
    if model_code.has_lambda(described):
        raise _holds_code(path)
    foreign = model_code.foreign(described, keras) if _is_tf_keras(keras) else None
    if foreign is not None:
        raise InputError(
            f"model file {path!r} names {foreign.name!r} of the module {foreign.module!r}, which "
            "is not imported: register it with tf_keras before loading, or rebuild the model "
            "without it"
        )


def _holds_code(path: str) -> InputError:
    return InputError(
        f"model file {path!r} holds Python code in a Lambda layer, which is not run; "
        "rebuild the model without it, or with a registered layer"
    )
