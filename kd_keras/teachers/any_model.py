"""The teacher in whatever a user gives as one."""

from collections.abc import Mapping
from typing import Any

from kd_keras.teachers.base import Teacher
from kd_keras.teachers.conversion import to_teacher
from kd_keras.teachers.ensemble import Ensemble


def as_teacher(model: Any, *, from_logits: bool | None = True) -> Teacher:
    """The teacher in what a user gives as one, or as several that teach together.

    Args:
        model: One of

            - a `Teacher`;
            - a Keras model, of tf_keras or Keras 3;
            - the path of a `.keras` or `.h5` file of either Keras, a `.tflite` file, the folder of
              a SavedModel, or an `.npy` file of predictions;
            - a scikit-learn classifier, or another object with `predict_proba`;
            - a Python function that gives the classes' probabilities for a batch;
            - several of these, in a list or by name, which teach together as an `Ensemble`.
        from_logits: Whether Keras models give logits (True) or probabilities (False). True refuses
            a model that ends in softmax; None finds out. In files it is found out in any case,
            and False only says that probabilities are expected. Functions and classifiers give
            probabilities, whatever is said here.

    Raises:
        InputError: If it cannot teach: also a pickle, which is never opened.
    """
    if isinstance(model, Mapping | list | tuple):
        return Ensemble(model, from_logits=from_logits)
    return to_teacher(model, from_logits=from_logits)
