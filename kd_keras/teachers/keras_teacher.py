"""A Keras model as a teacher."""

from collections.abc import Sequence
from typing import Any

from kd_keras import taps
from kd_keras.taps import Outputs
from kd_keras.teachers.base import Teacher


class KerasTeacher(Teacher):
    """A Keras model of the Keras that is in use: Functional, Sequential or subclassed.

    In a training step, which is a graph, nothing above the highest layer that is read is computed:
    operations whose result nobody uses are not run.

    Args:
        model: The model; it is not changed.
        from_logits: Whether it gives logits; else it ends in softmax.
    """

    def __init__(self, model: Any, *, from_logits: bool = True) -> None:
        self.model = model
        self.from_logits = from_logits

    def outputs(self, x: Any, layers: Sequence[str] = ()) -> Outputs:
        """See `Teacher.outputs`."""
        output, heard = taps.forward(self.model, x, layers, training=False)
        return Outputs(taps.as_logits(output, self.from_logits, role="teacher"), heard)

    def specs(self, layers: Sequence[str] = ()) -> Outputs | None:
        """See `Teacher.specs`."""
        for path in layers:
            taps.find_layer(self.model, path, "teacher")
        if self.input_specs() is None:
            return None
        return taps.trace(self.model, layers, from_logits=self.from_logits, role="teacher")

    def input_specs(self) -> Any:
        """See `Teacher.input_specs`."""
        return taps.input_specs(self.model)
