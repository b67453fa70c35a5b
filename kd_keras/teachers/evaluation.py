"""What a teacher says of data, and how often it is right."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.teachers.base import Teacher


def predict(teacher: Teacher, x: Any, *, batch_size: int = 128) -> np.ndarray:
    """The teacher's log-probabilities at `T = 1`.

    Args:
        teacher: The teacher.
        x: Inputs: an array, a nest of arrays, or a `tf.data.Dataset` of batches, `x` or `(x, y)`.
        batch_size: The batch, for arrays.

    Returns:
        `(examples, classes)`, at least float32.

    Raises:
        InputError: If the teacher's output cannot be taken for logits, or there is no example.
    """
    pairs = _predictions(teacher, _batches(x, None, batch_size))
    return np.concatenate([values for values, _ in pairs] or [_no_examples()])


def mean_logits(teacher: Teacher, x: Any, *, batch_size: int = 128) -> np.ndarray:
    """The teacher's logits; of an ensemble, the mean of its members'. Arguments as in `predict`."""
    batches = _batches(x, None, batch_size)
    run = tf.function(lambda inputs: teacher.outputs(inputs).logits, autograph=False)
    found = [run(inputs).numpy() for inputs, _ in batches]
    return np.concatenate(found or [_no_examples()])


def accuracy(teacher: Teacher, x: Any, y: Any = None, *, batch_size: int = 128) -> float:
    """The share of the examples whose most probable class is the label.

    Args:
        teacher: The teacher.
        x: Inputs: an array, a nest of arrays, or a `tf.data.Dataset` of batches `(x, y)`.
        y: Labels beside arrays: class indices `(examples,)`, or `(examples, classes)`.
        batch_size: The batch, for arrays.

    Raises:
        InputError: As `predict`; and if there are no labels.
    """
    hits: list[np.ndarray] = []
    for values, labels in _predictions(teacher, _batches(x, y, batch_size)):
        if labels is None:
            raise InputError("accuracy needs labels: give y, or a data set of batches (x, y)")
        hits.append(values.argmax(axis=-1) == _class_indices(np.asarray(labels)))
    return float(np.concatenate(hits or [_no_examples()]).mean())


def _batches(x: Any, y: Any, batch_size: int) -> Iterator[tuple[Any, Any]]:
    if isinstance(x, tf.data.Dataset):
        if y is not None:
            raise InputError("y is given beside a tf.data.Dataset: put the labels into it")
        for batch in x:
            inputs, labels, _ = tf.keras.utils.unpack_x_y_sample_weight(batch)
            yield inputs, labels
        return
    for start in range(0, len(tf.nest.flatten(x)[0]), batch_size):
        rows = slice(start, start + batch_size)
        inputs = tf.nest.map_structure(lambda array, rows=rows: array[rows], x)
        yield inputs, None if y is None else y[rows]


def _predictions(teacher: Teacher, batches: Iterator) -> Iterator[tuple[np.ndarray, Any]]:
    refusals: list[InputError] = []

    @tf.function(reduce_retracing=True)
    def run(x: Any) -> tf.Tensor:
        try:
            return teacher.outputs(x).log_probabilities()
        except InputError as refusal:  # which autograph would wrap
            refusals.append(refusal)
            raise

    for x, y in batches:
        try:
            values = run(x)
        except Exception:
            if not refusals:
                raise
            raise refusals[0] from None
        yield values.numpy(), y


def _class_indices(labels: np.ndarray) -> np.ndarray:
    one_hot = labels.ndim == 2 and labels.shape[-1] != 1
    return labels.argmax(axis=-1) if one_hot else labels.reshape(-1).astype(np.int64)


def _no_examples() -> Any:
    raise InputError("there is no example to look at: the data is empty")
