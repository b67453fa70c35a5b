"""A Python function as a teacher."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras import taps
from kd_keras.errors import InputError
from kd_keras.taps import Outputs
from kd_keras.teachers.base import Teacher

_ENOUGH_ROWS = 8  # fewer rows of logits may happen to look like probabilities


class FunctionTeacher(Teacher):
    """A Python function that gives the classes' probabilities for a batch.

    It runs within the training step, outside of TensorFlow: on the CPU, under Python's global lock,
    and not under XLA. Every batch's result is checked. Probabilities become logits
    as `log(max(p, 1e-7))`, so a class of probability 0 is 16.1 below one that is certain.

    Args:
        function: `(batch, ...) -> (batch, classes)` on NumPy arrays. It gets the batch as the
            student does, floating numbers as float32, in an array of its own; several inputs in
            the structure that the student takes.
        classes: The number of classes. By default the function is called once on one example of
            zeros, when the first training step is traced, to count them.
        from_logits: Whether it gives logits rather than probabilities.
        name: What to call it in errors and in an ensemble; by default the function's own name.
        fingerprint: A text that changes whenever what the function computes does, such as a
            version or a file's checksum. Code cannot be told from other code, so the outputs can
            be cached only with it.

    Attributes:
        classes: The number of classes; None as long as it is not known.

    Raises:
        InputError: If the function cannot be called, or `classes` is below 2.

    Example:
        >>> import kd_keras as kd
        >>> def by_sign(x):
        ...     p = 1 / (1 + np.exp(-x.sum(axis=1)))
        ...     return np.stack([1 - p, p], axis=1)
        >>> teacher = FunctionTeacher(by_sign, fingerprint="by_sign 1")
        >>> student = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(2)])
        >>> distiller = kd.Distiller(student, teacher, methods=[kd.SoftTargets(temperature=2.0)])
    """

    supports_jit = False

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        classes: int | None = None,
        from_logits: bool = False,
        name: str | None = None,
        fingerprint: str | None = None,
    ) -> None:
        if not callable(function):
            raise InputError(
                f"the function is a {type(function).__name__}, which cannot be called; give one "
                "that takes a batch and returns (batch, classes)"
            )
        if classes is not None and (not _is_index(classes) or classes < 2):
            raise InputError(f"classes is {classes!r}; it must be a whole number of at least 2")
        self.function = function
        self.classes = classes
        self.from_logits = from_logits
        self.name = name or getattr(function, "__name__", type(function).__name__)
        self._fingerprint = fingerprint

    def outputs(self, x: Any, layers: Sequence[str] = ()) -> Outputs:
        """See `Teacher.outputs`.

        Raises:
            InputError: If the function fails or gives something else than finite logits or
                probabilities, one row for each example. In a graph that is known only when it
                runs: see `refusal_in`.
        """
        self._refuse(layers)
        x = tf.nest.map_structure(_as_float32, x)
        flat = tf.nest.flatten(x)
        if self.classes is None:
            self.classes = self._count_classes(x)

        def run(*arrays: np.ndarray) -> np.ndarray:
            # TensorFlow shares its memory with these arrays: a function that changes its argument
            # would change the student's batch.
            return self._checked(
                tf.nest.pack_sequence_as(structure, [np.array(array) for array in arrays])
            )

        structure = tf.nest.map_structure(lambda _: None, x)
        # Stateless: what no loss reads is dropped from the graph.
        values = tf.numpy_function(run, flat, tf.float32, stateful=False)
        values.set_shape((_rows(flat[0].shape), self.classes))
        return Outputs(taps.as_logits(values, self.from_logits, role="teacher"), {})

    def specs(self, layers: Sequence[str] = ()) -> Outputs | None:
        """See `Teacher.specs`; None as long as the number of classes is not known."""
        self._refuse(layers)
        if self.classes is None:
            return None
        return Outputs(tf.TensorSpec((None, self.classes), tf.float32), {})

    def input_specs(self) -> Any:
        """See `Teacher.input_specs`; a function does not tell."""
        return None

    def fingerprint(self) -> str:
        """See `Teacher.fingerprint`; made from the text that was given as `fingerprint`."""
        if not self._fingerprint:
            raise InputError(
                f"the function {self.name!r} cannot be told from another, so its outputs cannot be "
                "cached: give FunctionTeacher(..., fingerprint='...'), a text that changes with "
                "what it computes"
            )
        return sha256("function", self._fingerprint, str(self.from_logits))

    def _refuse(self, layers: Sequence[str]) -> None:
        if layers:
            raise InputError(
                f"layer {layers[0]!r} cannot be read: the teacher {self.name!r} is a Python "
                "function, which has no layers; take methods that read logits, as soft_targets or "
                "logits_l2"
            )

    def _count_classes(self, x: Any) -> int:
        """The classes that the function gives for one example of zeros."""
        cure = "give FunctionTeacher(..., classes=)"
        flat = tf.nest.flatten(x)
        if not all(value.shape[1:].is_fully_defined() for value in flat):
            raise InputError(
                f"the classes of {self.name!r} cannot be counted, since the shape of its input is "
                f"not known ({', '.join(str(value.shape) for value in flat)}): {cure}"
            )
        zeros = [np.zeros([1, *value.shape[1:]], value.dtype.as_numpy_dtype) for value in flat]
        try:
            with tf.init_scope():  # a function of TensorFlow runs now, and is not traced
                shape = self._called(tf.nest.pack_sequence_as(x, zeros)).shape
        except InputError as error:
            raise InputError(f"{error}; that was one example of zeros: {cure}") from error
        if len(shape) != 2 or shape[1] < 2:
            raise InputError(
                f"{self.name!r} gives {shape} for one example, where (1, classes) with at least 2 "
                f"classes is needed: return one row for each example, or {cure}"
            )
        return shape[1]

    def _called(self, x: Any) -> np.ndarray:
        """What the function gives, as float32."""
        try:
            values = np.asarray(self.function(x))
        except InputError:
            raise
        except Exception as error:
            shapes = ", ".join(str(array.shape) for array in tf.nest.flatten(x))
            text = " ".join(str(error).split())
            raise InputError(
                f"the teacher {self.name!r} failed on a batch of shape {shapes}: "
                f"{type(error).__name__}: {text}; call it on such an array to see where"
            ) from error
        if values.dtype.kind not in "fiub":
            raise InputError(
                f"the teacher {self.name!r} gives an array of {values.dtype}; it must be numbers"
            )
        with np.errstate(over="ignore"):  # infinity, which is refused
            return values.astype(np.float32)

    def _checked(self, x: Any) -> np.ndarray:
        """What the function gives for a batch, or the refusal of it."""
        rows = len(tf.nest.flatten(x)[0])
        if rows == 0:  # a replica's share of a short last batch
            return np.zeros((0, self.classes or 0), np.float32)
        values = self._called(x)
        if values.shape != (rows, self.classes):
            raise InputError(
                f"the teacher {self.name!r} gives the shape {values.shape} for {rows} examples and "
                f"{self.classes} classes: return one row for each example, (batch, classes)"
            )
        self._require(_are_finite, values, "finite numbers", "correct the function")
        if not self.from_logits:
            cure = "normalise the rows, or pass from_logits=True if they are logits"
            self._require(taps.are_probabilities, values, "probabilities, which sum to 1", cure)
        elif rows >= _ENOUGH_ROWS and taps.are_probabilities(values):
            raise InputError(
                f"the teacher {self.name!r} gives probabilities, which would be taken for logits: "
                "pass from_logits=False"
            )
        return values

    def _require(self, hold: Callable, values: np.ndarray, what: str, cure: str) -> None:
        if not hold(values):
            row = next(row for row in range(len(values)) if not hold(values[row : row + 1]))
            shown = ", ".join(f"{value:.4g}" for value in values[row, :5])
            shown += ", ..." if values.shape[1] > 5 else ""
            raise InputError(
                f"the teacher {self.name!r} gives [{shown}] in row {row} of a batch, which are not "
                f"{what}: {cure}"
            )


def _are_finite(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).all())


def _rows(shape: tf.TensorShape) -> int | None:
    return shape[0] if shape.rank else None


def _as_float32(x: Any) -> tf.Tensor:
    x = tf.convert_to_tensor(x)
    return tf.cast(x, tf.float32) if x.dtype.is_floating else x


def _is_index(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def sha256(*parts: str) -> str:
    """One checksum of several texts, in hexadecimal."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
