"""The contract of a teacher: whatever gives logits for a batch."""

import abc
import re
from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.taps import Outputs

# With several replicas, each error has a number and a code before it.
_ERROR_IN_GRAPH = re.compile(
    rf"^(?: *\(\d+\) [A-Z_]+: +)?{InputError.__name__}: (.+)$", re.MULTILINE
)


class Teacher(abc.ABC):
    """Something that a student can learn from.

    A teacher is run in inference mode, is not trained, and is no part of the distiller's weights
    and files. What it computes of a batch may depend on nothing but the batch.
    """

    #: Whether XLA can compile a training step that runs the teacher.
    supports_jit: ClassVar[bool] = True
    #: Whether the outputs were computed before and come with the batches; see `Recorded`.
    is_recorded: ClassVar[bool] = False

    @abc.abstractmethod
    def outputs(self, x: Any, layers: Sequence[str] = ()) -> Outputs:
        """The outputs for a batch.

        Args:
            x: The batch, as the student gets it.
            layers: Names of the layers to read.

        Returns:
            The logits, at least float32, and the layers by the names that were asked for.

        Raises:
            InputError: If a layer did not run, or the output cannot be taken for logits.
        """

    @abc.abstractmethod
    def specs(self, layers: Sequence[str] = ()) -> Outputs | None:
        """The `tf.TensorSpec`s of `outputs`; nothing is computed.

        Returns:
            None if the shapes are known only when the first batch comes.

        Raises:
            InputError: As `outputs`; and if a layer does not exist, listing those that do.
        """

    @abc.abstractmethod
    def input_specs(self) -> Any:
        """The `tf.TensorSpec`s of the input, or None if they are not known yet."""

    def fingerprint(self) -> str:
        """What tells this teacher from another: equal for teachers that give the same outputs.

        A text of hexadecimal digits, the same in another process and on another machine.

        Raises:
            InputError: If it cannot be told.
        """
        raise InputError(
            f"a {type(self).__name__} cannot be told from another, so its outputs cannot be cached"
        )

    def student_inputs(self, x: Any) -> Any:
        """The part of a batch that is the student's: all of it, unless teaching is recorded."""
        return x

    def batches(self, views: Any, **kwargs: Any) -> Any:
        """Training batches from which the student and this teacher can be run.

        Args:
            views: The `kd_keras.data.Views` of the examples.
            **kwargs: Of `Views.batches`.

        Raises:
            InputError: If the teacher knows nothing of these views.
        """
        return views.batches(**kwargs)


def refusal_in(error: BaseException) -> InputError | None:
    """The `InputError` that was raised by Python code in a graph that ran, or None.

    TensorFlow tells of an exception in `tf.numpy_function` as an error of its own, whose text holds
    that of the exception among the traces of the graph. This works across threads, replicas and
    teachers within teachers, and leaves no state behind.

    Args:
        error: What running the graph raised.
    """
    if not isinstance(error, tf.errors.OpError):
        return None
    found = _ERROR_IN_GRAPH.search(error.message)
    return InputError(found[1]) if found else None
