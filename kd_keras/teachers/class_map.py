"""A teacher of other classes than the student's."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.taps import Outputs
from kd_keras.teachers.base import Teacher
from kd_keras.teachers.conversion import to_teacher


class ClassMap(Teacher):
    """A teacher of which some classes, or sums of classes, are the student's.

    The logit of the student's class c is, with the teacher's logits z,

        z'_c = log(sum over k in class_map[c] of exp(z_k))

    so its probability at `T = 1` is the sum of theirs. Classes of the teacher that no entry names
    are left out, and the softmax shares their probability out among the others in proportion. The
    sums are taken at `T = 1`, whatever the temperature of a method.

    Of an ensemble, each member's logits are mapped, before their distributions or logits are
    averaged: it is the ensemble of the mapped members.

    Args:
        teacher: Whatever `kd_keras.teachers.as_teacher` takes as one teacher.
        class_map: For each class of the student, the index of the teacher's class, or the indices
            of several.
        from_logits: Whether a Keras model gives logits rather than probabilities; see
            `kd_keras.teachers.as_teacher`.

    Attributes:
        class_map: The indices, one tuple for each class of the student.

    Raises:
        InputError: For fewer than two classes, an entry without an index, an index below 0 or
            named twice; before training, for an index that the teacher does not have.

    Example:
        A teacher of dogs, cats, cars and trucks for a student of animals and vehicles.

        >>> import kd_keras as kd
        >>> def net(classes):
        ...     return tf.keras.Sequential(
        ...         [tf.keras.Input((4,)), tf.keras.layers.Dense(classes)])
        >>> teacher = ClassMap(net(4), [[0, 1], [2, 3]])
        >>> distiller = kd.Distiller(net(2), teacher, methods=[kd.SoftTargets(temperature=2.0)])
        >>> teacher.outputs(tf.zeros((5, 4))).logits.shape
        TensorShape([5, 2])
    """

    def __init__(
        self,
        teacher: Any,
        class_map: Sequence[int | Sequence[int]],
        *,
        from_logits: bool | None = True,
    ) -> None:
        self.teacher = to_teacher(teacher, from_logits=from_logits)
        self.class_map = _entries(class_map)

    @property
    def supports_jit(self) -> bool:  # type: ignore[override]
        """See `Teacher.supports_jit`."""
        return self.teacher.supports_jit

    @property
    def is_recorded(self) -> bool:  # type: ignore[override]
        """See `Teacher.is_recorded`."""
        return self.teacher.is_recorded

    def outputs(self, x: Any, layers: Sequence[str] = ()) -> Outputs:
        """See `Teacher.outputs`."""
        found = self.teacher.outputs(x, layers)
        if not found.members:
            return Outputs(self._mapped(found.logits), found.layers)
        members = tuple((self._mapped(logits), weight) for logits, weight in found.members)
        mean = tf.add_n([weight * logits for logits, weight in members])
        return Outputs(mean, found.layers, members)

    def specs(self, layers: Sequence[str] = ()) -> Outputs | None:
        """See `Teacher.specs`."""
        found = self.teacher.specs(layers)
        if found is None:
            return None
        members = tuple((self._mapped_spec(spec), weight) for spec, weight in found.members)
        return Outputs(self._mapped_spec(found.logits), found.layers, members)

    def input_specs(self) -> Any:
        """See `Teacher.input_specs`."""
        return self.teacher.input_specs()

    def fingerprint(self) -> str:
        """See `Teacher.fingerprint`."""
        content = json.dumps([self.teacher.fingerprint(), self.class_map])
        return hashlib.sha256(content.encode()).hexdigest()

    def student_inputs(self, x: Any) -> Any:
        """See `Teacher.student_inputs`."""
        return self.teacher.student_inputs(x)

    def batches(self, views: Any, **kwargs: Any) -> Any:
        """See `Teacher.batches`."""
        return self.teacher.batches(views, **kwargs)

    def _mapped(self, logits: tf.Tensor) -> tf.Tensor:
        self._check(logits.shape)
        # Entries are filled up to one length with the index of a class of probability 0.
        longest = max(map(len, self.class_map))
        index = [[*entry, *[logits.shape[1]] * (longest - len(entry))] for entry in self.class_map]
        nothing = tf.fill((tf.shape(logits)[0], 1), tf.constant(-np.inf, logits.dtype))
        grouped = tf.gather(tf.concat([logits, nothing], axis=1), index, axis=1)
        return tf.reduce_logsumexp(grouped, axis=2)

    def _mapped_spec(self, spec: tf.TensorSpec) -> tf.TensorSpec:
        self._check(spec.shape)
        return tf.TensorSpec((spec.shape[0], len(self.class_map)), spec.dtype)

    def _check(self, shape: tf.TensorShape) -> None:
        """Refuse logits that do not have the classes that the map names."""
        if shape.rank != 2 or shape[1] is None:
            raise InputError(
                f"class_map needs a teacher that gives (batch, classes), with as many classes as "
                f"can be told before it runs; it gives {shape}: flatten its output, or fix its "
                "number of classes"
            )
        for number, entry in enumerate(self.class_map):
            if max(entry) >= shape[1]:
                raise InputError(
                    f"entry {number} of class_map names the teacher's class {max(entry)}, but the "
                    f"teacher has {shape[1]}: name classes from 0 to {shape[1] - 1}"
                )


def _entries(class_map: Any) -> tuple[tuple[int, ...], ...]:
    """The indices of each of the student's classes."""
    if not isinstance(class_map, Sequence | np.ndarray) or isinstance(class_map, str | bytes):
        raise InputError(
            f"class_map is a {type(class_map).__name__}; give a list with one entry for each class "
            "of the student"
        )
    entries = tuple(_indices(number, entry) for number, entry in enumerate(class_map))
    if len(entries) < 2:
        raise InputError(
            f"class_map has length {len(entries)}; give one entry for each class of the student, "
            "at least two"
        )
    first: dict[int, int] = {}
    for number, entry in enumerate(entries):
        for index in entry:
            if index in first:
                raise InputError(
                    f"class_map names the teacher's class {index} twice, in the entries "
                    f"{first[index]} and {number}: give it to one class of the student"
                )
            first[index] = number
    return entries


def _indices(number: int, entry: Any) -> tuple[int, ...]:
    several = isinstance(entry, Sequence | np.ndarray) and not isinstance(entry, str | bytes)
    given = list(entry) if several else [entry]
    wrong = [
        index
        for index in given
        if not isinstance(index, int | np.integer) or isinstance(index, bool) or index < 0
    ]
    if wrong or not given:
        raise InputError(
            f"entry {number} of class_map is {entry!r}; it must be the index of one of the "
            "teacher's classes, from 0, or a list of at least one"
        )
    return tuple(int(index) for index in given)
