"""The teacher in one thing that a user gives: a model, a file, a classifier or a function."""

import os
import pathlib
from typing import Any

from kd_keras.errors import InputError
from kd_keras.models.model_file import load_model
from kd_keras.teachers.base import Teacher
from kd_keras.teachers.keras_teacher import KerasTeacher, is_keras_model

_ALLOWED = "a Keras model, a file, a scikit-learn classifier, a function or a kd Teacher"
_FILES = ".tflite, .keras, .h5, the folder of a SavedModel, or .npy predictions"
_PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth")


def to_teacher(model: Any, *, from_logits: bool | None, what: str = "the teacher") -> Teacher:
    """One teacher; several together are an `Ensemble`'s.

    Args:
        model: See `kd_keras.teachers.as_teacher`.
        from_logits: See there.
        what: What the model is to the user, for errors.

    Raises:
        InputError: If it is nothing that can teach.
    """
    if isinstance(model, Teacher):
        return model
    if is_keras_model(model):
        return KerasTeacher(model, from_logits=from_logits)
    if isinstance(model, str | os.PathLike):
        # True is what a caller who says nothing has said; files are found out.
        return _from_file(pathlib.Path(model), False if from_logits is False else None, what)
    if isinstance(model, type):
        raise InputError(f"{what} is the class {model.__name__}; give an object of it")
    if hasattr(model, "predict_proba"):
        from kd_keras.teachers.classifier import SklearnTeacher

        return SklearnTeacher(model)
    if callable(model):
        from kd_keras.teachers.function import FunctionTeacher

        return FunctionTeacher(model)
    raise InputError(f"{what} is a {type(model).__name__}; give {_ALLOWED}")


def _from_file(path: pathlib.Path, from_logits: bool | None, what: str) -> Teacher:
    # The kinds are imported when they are needed: a runtime or scikit-learn costs seconds.
    suffix = path.suffix.lower()
    if suffix in _PICKLES:
        raise InputError(
            f"{what} {str(path)!r} is a pickle, which can run any code when it is opened, so it is "
            f"not; open it yourself if you trust it and give the object, or give {_FILES}"
        )
    if not path.exists():
        raise InputError(f"{what} {str(path)!r} does not exist; give {_ALLOWED}")
    if suffix == ".tflite":
        from kd_keras.teachers.tflite import TFLiteTeacher

        return TFLiteTeacher(path, from_logits=from_logits)
    if suffix in (".keras", ".h5", ".hdf5"):
        return KerasTeacher(load_model(path, any_keras=True), from_logits=from_logits)
    if suffix == ".npy":
        from kd_keras.teachers.predictions import Predictions

        return Predictions(path, from_logits=from_logits)
    if path.is_dir():
        from kd_keras.teachers.saved_model import SavedModelTeacher

        return SavedModelTeacher(path, from_logits=from_logits)
    raise InputError(
        f"{what} {str(path)!r} is of no kind that can teach; give {_FILES}, or wrap what runs it "
        "in kd_keras.teachers.FunctionTeacher(function)"
    )
