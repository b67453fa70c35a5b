"""The contract of a teacher: whatever gives logits for a batch."""

import abc
from collections.abc import Sequence
from typing import Any

from kd_keras.taps import Outputs


class Teacher(abc.ABC):
    """Something that a student can learn from.

    A teacher is run in inference mode, is not trained, and is no part of the distiller's weights
    and files. What it computes of a batch may depend on nothing but the batch.
    """

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
