"""What can teach: one kind of teacher a file, behind the contract of `base.Teacher`."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.teachers.base import Teacher
from kd_keras.teachers.ensemble import Ensemble
from kd_keras.teachers.keras_teacher import KerasTeacher

__all__ = ["Ensemble", "KerasTeacher", "Teacher", "as_teacher"]


def as_teacher(model: Any, *, from_logits: bool = True) -> Teacher:
    """The teacher in what a user gives as one.

    Args:
        model: A `Teacher`; a Keras model; or several of them, in a list or by name, which teach
            together as an `Ensemble`.
        from_logits: Whether Keras models give logits rather than probabilities.
    """
    if isinstance(model, Teacher):
        return model
    if isinstance(model, Mapping | list | tuple):
        return Ensemble(model, from_logits=from_logits)
    if not isinstance(model, tf.keras.layers.Layer):
        raise InputError(
            f"the teacher is a {type(model).__name__}; give a Keras model of this Keras, or several"
        )
    return KerasTeacher(model, from_logits=from_logits)
