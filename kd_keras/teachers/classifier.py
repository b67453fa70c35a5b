"""A scikit-learn classifier as a teacher."""

import hashlib
import io
import pickle
from typing import Any

import numpy as np

from kd_keras.errors import InputError
from kd_keras.teachers.function import FunctionTeacher, sha256


class SklearnTeacher(FunctionTeacher):
    """A fitted scikit-learn classifier, or anything else with its `predict_proba` and `classes_`.

    Each example is flattened to a row of features. Column j of `predict_proba` is the class
    `classes_[j]`, as an index; a class that the classifier has not seen has probability 0.

    Args:
        classifier: The classifier, fitted on class indices as labels; it is not changed.
        classes: The number of the student's classes. By default those of the classifier, which
            must then be all from 0 up.

    Raises:
        InputError: If the classifier is not fitted, gives no probabilities, or its labels are not
            class indices.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> classifier = LogisticRegression().fit([[0.0], [1.0], [2.0]], [0, 1, 2])
        >>> SklearnTeacher(classifier).outputs(np.ones((5, 1, 1))).logits.shape
        TensorShape([5, 3])
    """

    def __init__(self, classifier: Any, *, classes: int | None = None) -> None:
        self.classifier = classifier
        name = type(classifier).__name__
        self.columns = _columns(classifier, name)
        if classes is None:
            classes = len(self.columns)
            cure = "give classes=, the number of the student's classes"
        else:
            cure = "give a larger one"
        super().__init__(self._probabilities, classes=classes, name=name)
        if max(self.columns) >= classes:
            raise InputError(
                f"classes_ of {name} is {_shown(self.columns)}, which are not all below classes, "
                f"{classes}: {cure}"
            )

    def fingerprint(self) -> str:
        """See `Teacher.fingerprint`; also parameters that change no output, as `n_jobs`, count.

        Raises:
            InputError: If the classifier holds what has no lasting name, as a lambda.
        """
        # Not by joblib.hash: it counts the padding bytes of a tree's nodes and references between
        # objects, so a forest that was saved and loaded has another one.
        file = io.BytesIO()
        try:
            _Canonical(file).dump(self.classifier)
        except Exception as error:  # whatever an object's own pickling raises
            raise InputError(
                f"{self.name} cannot be told from another ({' '.join(str(error).split())}), so its "
                "outputs cannot be cached: use FunctionTeacher(function, fingerprint='...')"
            ) from error
        content = hashlib.sha256(file.getbuffer()).hexdigest()
        return sha256("classifier", content, str(self.classes))

    def _probabilities(self, x: Any) -> np.ndarray:
        if not isinstance(x, np.ndarray):
            raise InputError(f"{self.name} takes one input, but the batch is a {type(x).__name__}")
        x = x.reshape(len(x), -1)
        features = getattr(self.classifier, "n_features_in_", x.shape[1])
        if x.shape[1] != features:
            raise InputError(
                f"{self.name} was fitted on {features} features, but an example of the batch has "
                f"{x.shape[1]}: fit it on the data that the student gets"
            )
        found = np.asarray(self.classifier.predict_proba(x))
        if found.shape != (len(x), len(self.columns)):
            raise InputError(
                f"predict_proba of {self.name} gives the shape {found.shape} for {len(x)} examples "
                f"and {len(self.columns)} classes_: (batch, classes) is needed"
            )
        values = np.zeros((len(x), self.classes or 0), found.dtype)
        values[:, self.columns] = found
        return values


def _columns(classifier: Any, name: str) -> np.ndarray:
    """The class index of each column of `predict_proba`."""
    if not hasattr(classifier, "predict_proba"):
        raise InputError(
            f"{name} has no predict_proba; give a classifier with it, or wrap it in scikit-learn's "
            "CalibratedClassifierCV"
        )
    labels = getattr(classifier, "classes_", None)
    if labels is None:
        raise InputError(f"{name} is not fitted, it has no classes_: call fit(x, y) first")
    if isinstance(labels, list):
        raise InputError(
            f"{name} has {len(labels)} outputs; give a classifier of one label an example"
        )
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu" or labels.min() < 0:
        raise InputError(
            f"classes_ of {name} is {_shown(labels)}; the student's classes are numbered from 0: "
            "fit it with class indices as labels"
        )
    return labels


def _shown(labels: np.ndarray) -> str:
    shown = ", ".join(str(label) for label in labels[:5])
    return f"{shown}, ... ({len(labels)} in all)" if len(labels) > 5 else shown


class _Canonical(pickle.Pickler):
    """Writes equal values alike, wherever they lie in memory and whether they were ever in a file.

    It is written to be hashed; nothing reads it.
    """

    def __init__(self, file: Any) -> None:
        super().__init__(file, protocol=4)
        self.fast = True  # an object that is met twice is written twice, not as a reference

    def reducer_override(self, value: Any) -> Any:
        """Arrays by their values alone; all else as pickle does."""
        if isinstance(value, np.dtype):
            return str, (str(value),)
        if not isinstance(value, np.ndarray):
            return NotImplemented
        if value.dtype.names:  # the bytes between the fields of an example are arbitrary
            return dict, ([(name, value[name]) for name in value.dtype.names],)
        data = list(value.flat) if value.dtype.hasobject else value.tobytes()
        return tuple, ((value.dtype.str, value.shape, data),)
