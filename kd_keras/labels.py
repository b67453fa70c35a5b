"""The label loss, one value an example, and the checks that its labels need."""

import re
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.errors import InputError

_SPARSE = ("sparse_categorical_crossentropy", "SparseCategoricalCrossentropy")
_BINARY = ("binary_crossentropy", "BinaryCrossentropy")
_REFUSED_BY_TENSORFLOW = re.compile(
    r"Received a label value of (\S+) which is outside the valid range of \[0, (\d+)\)"
)
_CROSSENTROPIES = (*_SPARSE, *_BINARY, "categorical_crossentropy", "CategoricalCrossentropy")


class LabelLoss:
    """A Keras loss without its reduction.

    Keras reduces over the local batch, which is wrong on several replicas; so the values are taken
    before the reduction. `sample_weight` is the distiller's matter too.

    Args:
        loss: A Keras loss, a function `(y_true, y_pred) -> values`, or the name of one.
        from_logits: Whether the predictions are logits.

    Raises:
        InputError: If the loss takes logits for probabilities or the reverse.
    """

    def __init__(self, loss: Any, *, from_logits: bool) -> None:
        try:
            resolved = tf.keras.losses.get(loss)
        except ValueError as error:
            raise InputError(
                f"loss {loss!r} does not exist: name one of tf.keras.losses, such as "
                "tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)"
            ) from error
        is_object = isinstance(resolved, tf.keras.losses.Loss)
        self.name = type(resolved).__name__ if is_object else getattr(resolved, "__name__", "loss")
        self._values = resolved.call if is_object else resolved
        home = type(resolved) if is_object else resolved
        self._is_ours = home.__module__.split(".")[0] not in ("keras", "tf_keras")
        self._check_logits(resolved.get_config() if is_object else {}, from_logits)

    @property
    def sparse(self) -> bool:
        """Whether labels are class indices."""
        return self.name in _SPARSE

    def __call__(self, y: Any, prediction: tf.Tensor) -> tf.Tensor:
        """The loss of each example, `(batch,)` in float32.

        Raises:
            InputError: If the labels have a shape that the loss cannot take.
        """
        y = tf.convert_to_tensor(y)
        if not self.sparse and y.dtype.is_integer:
            y = tf.cast(y, tf.float32)
        if not self.sparse and y.shape.rank == 1 and prediction.shape[1:] == [1]:
            y = y[:, tf.newaxis]  # else (batch,) against (batch, 1) would broadcast
        self._check_shape(y.shape, prediction.shape)
        values = self._values(y, tf.cast(prediction, tf.float32))
        return tf.reduce_mean(tf.reshape(values, [tf.shape(values)[0], -1]), axis=-1)

    def _check_logits(self, config: dict, from_logits: bool) -> None:
        declared = config.get("from_logits", False if self.name in _CROSSENTROPIES else None)
        if declared is None or declared == from_logits:
            return
        if from_logits:
            raise InputError(
                f"loss {self.name} reads probabilities, but the student gives logits: use "
                "tf.keras.losses." + _class_name(self.name) + "(from_logits=True)"
            )
        raise InputError(
            f"loss {self.name}(from_logits=True) reads logits, but from_logits=False says that the "
            "student ends in softmax: drop one of the two"
        )

    def _check_shape(self, labels: tf.TensorShape, prediction: tf.TensorShape) -> None:
        if labels.rank is None or self._is_ours:
            return
        if self.sparse and labels.rank != 1 and labels[1:] != [1]:
            raise InputError(
                f"labels have shape {labels}; {self.name} takes class indices of shape (batch,): "
                "use CategoricalCrossentropy for one-hot labels"
            )
        if not self.sparse and not labels.is_compatible_with(prediction):
            raise InputError(
                f"labels have shape {labels}, the student's output {prediction}; {self.name} takes "
                "labels of the output's shape (one-hot for classes): use "
                "SparseCategoricalCrossentropy for class indices"
            )


def check_values(y: Any, classes: int | None) -> None:
    """Refuse class indices outside `[0, classes)`; looks at arrays and eager tensors only.

    One-hot labels and distributions over the classes pass.

    Raises:
        InputError: With the value found and the range allowed.
    """
    is_array = isinstance(y, np.ndarray | list | tuple) or tf.is_tensor(y)
    if not (is_array and classes):
        return
    values = np.asarray(y)
    bad = values[~((values >= 0) & (values < classes))]  # not a number is neither
    if bad.size:
        raise _out_of_range(bad.flat[0], classes)


def refusal_in(error: BaseException) -> InputError | None:
    """What `check_values` would have said of labels that only a running graph saw, or None.

    TensorFlow's CPU kernel refuses such labels amid the traces of the graph. Its GPU kernel does
    not: there the loss is NaN.

    Args:
        error: What running the graph raised.
    """
    found = _REFUSED_BY_TENSORFLOW.search(str(error))
    return _out_of_range(found[1], int(found[2])) if found else None


def _out_of_range(label: Any, classes: int) -> InputError:
    return InputError(
        f"label {label} is out of range; the student has {classes} classes, so labels are 0 to "
        f"{classes - 1}"
    )


def _class_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_")) if "_" in name else name
