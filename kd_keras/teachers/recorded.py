"""Teachers whose outputs lie on disk and come with the batches, instead of being computed."""

import abc
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.taps import Outputs
from kd_keras.teachers.base import Teacher

_INPUTS, _TEACHER = "inputs", "teacher"


class Recorded(Teacher):
    """A teacher that was asked before: its outputs are looked up by an example's number and view.

    They are read where batches are made, ahead of the step that needs them. So a batch of such a
    teacher is `{"inputs": x, "teacher": {...}}` with the student's inputs in it, made by `batches`
    from the same `kd_keras.data.Views` that the teacher was asked about.
    """

    is_recorded = True

    @abc.abstractmethod
    def require_same(self, views: Any) -> None:
        """Refuse views that are not those that the teacher was asked about.

        Raises:
            InputError: Naming what differs.
        """

    @abc.abstractmethod
    def read(self, rows: tf.Tensor, view: tf.Tensor) -> dict[str, tf.Tensor]:
        """What is recorded of the examples with these numbers in this view, inside `tf.data`."""

    @abc.abstractmethod
    def decoded(self, recorded: dict[str, tf.Tensor], layers: Sequence[str]) -> Outputs:
        """The teacher's outputs from what `read` gave."""

    def batches(self, views: Any, **kwargs: Any) -> tf.data.Dataset:
        """See `Teacher.batches`; the batches hold the teacher's outputs."""
        self.require_same(views)

        def attach(x: Any, rows: tf.Tensor, view: tf.Tensor) -> dict[str, Any]:
            return {_INPUTS: x, _TEACHER: self.read(rows, view)}

        return views.batches(attach=attach, **kwargs)

    def outputs(self, x: Any, layers: Sequence[str] = ()) -> Outputs:
        """See `Teacher.outputs`."""
        if not _is_attached(x):
            raise InputError(
                "the teacher's outputs are recorded, and these batches do not hold them: train "
                "with fit(views), or fit(x, y) on the arrays that were recorded"
            )
        return self.decoded(x[_TEACHER], layers)

    def student_inputs(self, x: Any) -> Any:
        """See `Teacher.student_inputs`."""
        return x[_INPUTS] if _is_attached(x) else x


def _is_attached(x: Any) -> bool:
    return isinstance(x, dict) and set(x) == {_INPUTS, _TEACHER}
