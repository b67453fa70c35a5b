"""What a teacher says of data, and how often it is right."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.teachers.base import Teacher, refusal_in


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
    run = graph(lambda inputs: teacher.outputs(inputs).logits)
    found = [run(inputs) for inputs, _ in batches]
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
        hits.append(values.argmax(axis=-1) == class_indices(np.asarray(labels)))
    return float(np.concatenate(hits or [_no_examples()]).mean())


def calibration_error(confidences: np.ndarray, hits: np.ndarray, *, bins: int = 15) -> float:
    """The expected calibration error: how far confidence is from accuracy.

    With the examples `B_m` whose confidence, the probability of their most probable class, lies in
    `((m - 1) / M, m / M]`,

        ECE = sum over m = 1..M of |B_m| / n * |accuracy(B_m) - mean confidence(B_m)|

    Args:
        confidences: Of each example, `(examples,)`, in [0, 1].
        hits: Whether that class is the label, `(examples,)`, bool.
        bins: `M`.

    Source: Guo et al. 2017, equation 3, with their 15 bins.
    """
    number = np.clip(np.ceil(confidences * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(number, weights=hits - confidences.astype(np.float64), minlength=bins)
    return float(np.abs(gaps).sum() / len(hits))


def graph(read: Callable[[Any], Any], spec: tf.TensorSpec | None = None) -> Callable[[Any], Any]:
    """A function of a batch as a graph that gives arrays, and raises an `InputError` as it is.

    Args:
        read: The function.
        spec: Of the batch, where it is known, so that one graph does for batches of every size.
    """
    refusals: list[InputError] = []

    @tf.function(input_signature=[spec] if spec else None, reduce_retracing=spec is None)
    def run(x: Any) -> Any:
        try:
            return read(x)
        except InputError as refusal:  # which autograph would wrap
            refusals.append(refusal)
            raise

    def arrays(x: Any) -> Any:
        refusals.clear()
        try:
            found = run(x)
        except Exception as error:
            refusal = refusals[0] if refusals else refusal_in(error)
            if refusal is None:
                raise
            raise refusal from None
        return tf.nest.map_structure(lambda value: value.numpy(), found)

    return arrays


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
    run = graph(lambda x: teacher.outputs(x).log_probabilities())
    for x, y in batches:
        yield run(x), y


def class_indices(labels: np.ndarray) -> np.ndarray:
    """The class of each example, from class indices `(examples,)` or one-hot rows."""
    one_hot = labels.ndim == 2 and labels.shape[-1] != 1
    return labels.argmax(axis=-1) if one_hot else labels.reshape(-1).astype(np.int64)


def _no_examples() -> Any:
    raise InputError("there is no example to look at: the data is empty")
