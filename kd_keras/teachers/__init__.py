"""What can teach: one kind of teacher a file, behind the contract of `base.Teacher`."""

import importlib
from typing import TYPE_CHECKING, Any

from kd_keras.teachers.any_model import as_teacher
from kd_keras.teachers.base import Teacher
from kd_keras.teachers.ensemble import Ensemble
from kd_keras.teachers.keras_teacher import KerasTeacher

if TYPE_CHECKING:
    from kd_keras.teachers.caching import Cached, cache, fill
    from kd_keras.teachers.class_map import ClassMap
    from kd_keras.teachers.classifier import SklearnTeacher
    from kd_keras.teachers.function import FunctionTeacher
    from kd_keras.teachers.predictions import Predictions
    from kd_keras.teachers.quality import Quality, examine
    from kd_keras.teachers.saved_model import SavedModelTeacher
    from kd_keras.teachers.tflite import TFLiteTeacher

__all__ = [
    "Cached",
    "ClassMap",
    "Ensemble",
    "FunctionTeacher",
    "KerasTeacher",
    "Predictions",
    "Quality",
    "SavedModelTeacher",
    "SklearnTeacher",
    "TFLiteTeacher",
    "Teacher",
    "as_teacher",
    "cache",
    "examine",
    "fill",
]

# Imported when they are used: the runtime of TFLite files is not needed for Keras models.
_HOMES = {
    "Cached": "caching",
    "Predictions": "predictions",
    "Quality": "quality",
    "cache": "caching",
    "examine": "quality",
    "fill": "caching",
    "ClassMap": "class_map",
    "FunctionTeacher": "function",
    "SavedModelTeacher": "saved_model",
    "SklearnTeacher": "classifier",
    "TFLiteTeacher": "tflite",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
