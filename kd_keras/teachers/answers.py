"""What a teacher answers to some examples of the data, each asked once."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.teachers import evaluation
from kd_keras.teachers.base import Teacher
from kd_keras.teachers.ensemble import Ensemble

_BATCH = 128
Prepare = Callable[[Any], Any]


class Examples:
    """At most `limit` examples: of arrays a random sample, of a data set the first.

    Args:
        name: What they are to the user, for errors: "train", "validation".
        given: Arrays `(x, y)`, where `x` may be a nest, or a `tf.data.Dataset` of batches `(x, y)`.
        limit: See above.
        seed: Of the sample.

    Raises:
        InputError: If it is neither, or the arrays differ in length.
    """

    def __init__(self, name: str, given: Any, limit: int, seed: int) -> None:
        self.name = name
        self._limit = limit
        self._data_set = given if isinstance(given, tf.data.Dataset) else None
        if self._data_set is not None:
            return
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise InputError(
                f"{name} is a {type(given).__name__}; give arrays (x, y), or a tf.data.Dataset of "
                "batches (x, y)"
            )
        self._x, self._y = tf.nest.map_structure(np.asarray, given[0]), np.asarray(given[1])
        shapes = [array.shape[:1] for array in (*tf.nest.flatten(self._x), self._y)]
        if len(set(shapes)) > 1 or not shapes[0]:
            raise InputError(
                f"the arrays of {name} begin with the lengths {', '.join(map(str, shapes))}; give "
                "a row and a label for each example"
            )
        count = len(self._y)
        chosen = np.random.default_rng(seed).choice(count, min(limit, count), replace=False)
        self._rows = np.sort(chosen)  # files are read from front to back

    @property
    def are_images(self) -> bool:
        """Whether they are known to be pixels, uint8 `(examples, height, width, channels)`."""
        pixels = None if self._data_set is not None else self._x
        return isinstance(pixels, np.ndarray) and pixels.ndim == 4 and pixels.dtype == np.uint8

    def batches(self, prepare: Prepare | None = None) -> Iterator[tuple[Any, Any]]:
        """Batches `(x, y)`; `prepare` is applied to rows of arrays."""
        if self._data_set is not None:
            yield from self._first_batches(self._data_set)
            return
        for start in range(0, len(self._rows), _BATCH):
            rows = self._rows[start : start + _BATCH]
            x = tf.nest.map_structure(lambda array, rows=rows: array[rows], self._x)
            yield (prepare(x) if prepare else x), self._y[rows]

    def _first_batches(self, batches: tf.data.Dataset) -> Iterator[tuple[Any, Any]]:
        left = self._limit
        for batch in batches:
            x, y, _ = tf.keras.utils.unpack_x_y_sample_weight(batch)
            if y is None:
                raise InputError(f"the batches of {self.name} have no labels; give batches (x, y)")
            yield tf.nest.map_structure(lambda value, left=left: value[:left], (x, y))
            left -= len(y)
            if left <= 0:
                return


@dataclasses.dataclass(frozen=True)
class Answers:
    """A teacher's answers.

    Attributes:
        classes: How many classes it tells apart.
        labels: The class of each example, `(examples,)`.
        choices: The most probable class, `(examples,)`.
        confidences: Its probability, `(examples,)`.
        members: The first choices of an ensemble's members, `(members, examples)`; else no rows.
    """

    classes: int
    labels: np.ndarray
    choices: np.ndarray
    confidences: np.ndarray
    members: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def accuracy(self) -> float:
        """The share of the examples whose most probable class is the label."""
        return float((self.choices == self.labels).mean())

    @property
    def chance(self) -> float:
        """The share of the most frequent label."""
        return float(np.bincount(self.labels).max() / len(self))

    @property
    def calibration_error(self) -> float:
        """See `evaluation.calibration_error`."""
        return evaluation.calibration_error(self.confidences, self.choices == self.labels)

    @property
    def agreement(self) -> float | None:
        """The share of examples of which two members choose the same class, over all pairs."""
        pairs = itertools.combinations(self.members, 2)
        shares = [(one == other).mean() for one, other in pairs]
        return float(np.mean(shares)) if shares else None

    def member_accuracy(self, names: Iterable[str]) -> dict[str, float]:
        """Each member's accuracy; members of members go by their numbers."""
        given = list(names)
        if len(given) != len(self.members):
            given = [str(number) for number in range(1, len(self.members) + 1)]
        hits = (self.members == self.labels).mean(axis=-1)
        return {name: float(share) for name, share in zip(given, hits, strict=True)}


class Interview:
    """Asks a teacher; the graph that runs it is made once for all examples.

    Args:
        teacher: The teacher.
    """

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self._run = evaluation.graph(self._read)

    def answers(self, examples: Examples, prepare: Prepare | None = None) -> Answers:
        """The teacher's answers to examples; `prepare` makes its inputs of rows of arrays.

        Raises:
            InputError: If there is no example, a label is no class of the teacher, the teacher
                gives NaN, or its output cannot be taken for logits.
        """
        found = []
        classes = 0
        for x, y in examples.batches(prepare):
            values, members = self._run(x)
            classes = values.shape[-1]
            _require_defined(values, examples.name)
            labels = evaluation.class_indices(np.asarray(y))
            _require_classes(labels, classes, examples.name)
            choices, confidences = values.argmax(axis=-1), np.exp(values.max(axis=-1))
            found.append((labels, choices, confidences, np.reshape(members, (-1, len(labels)))))
        if not found:
            raise InputError(f"there is no example in {examples.name}: the data is empty")
        parts = zip(*found, strict=True)
        return Answers(classes, *(np.concatenate(part, axis=-1) for part in parts))

    def _read(self, x: Any) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        """The teacher's log-probabilities, and the first choices of its members."""
        found = self._teacher.outputs(x)
        logits = [values for values, _ in found.members]
        if not logits and isinstance(self._teacher, Ensemble):  # only one mean shows its members
            logits = [member.outputs(x).logits for member in self._teacher.members.values()]
        return found.log_probabilities(), tuple(tf.argmax(values, axis=-1) for values in logits)


def _require_defined(values: np.ndarray, name: str) -> None:
    undefined = int(np.isnan(values).any(axis=-1).sum())
    if undefined:
        raise InputError(
            f"the teacher gives NaN for {undefined} of {len(values)} examples of {name}: look at "
            "its weights, and at the range of its inputs (config.data.mean, config.data.std)"
        )


def _require_classes(labels: np.ndarray, classes: int, name: str) -> None:
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise InputError(
            f"label {wrong[0]} of {name} is out of range; the teacher has {classes} classes, so "
            f"labels are 0 to {classes - 1}: take a teacher of the data's classes"
        )
