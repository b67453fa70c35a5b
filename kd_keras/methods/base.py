"""The contract of a distillation method: one term of the student's loss."""

import abc
import re
from typing import Any, ClassVar

import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.taps import Outputs


class Method(abc.ABC):
    """One term of the student's loss, computed from what teacher and student put out.

    A method is a small class over a pure function: it holds the hyperparameters, names the layers
    that it reads, and gives one value an example. The mean, over the global batch, is the
    distiller's. A subclass passes its own hyperparameters to nobody: it stores them under their
    names, lists the names in `hyperparameters`, and is found by the name of its file.

    Args:
        weight: Factor of the term in the student's loss, at least 0.
        name: The term's name in the logs; by default the class' name in snake case.
    """

    #: Names of the constructor's arguments beside `weight` and `name`.
    hyperparameters: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, weight: float = 1.0, name: str | None = None) -> None:
        self.weight = at_least_zero("weight", weight)
        self.name = name or snake_case(type(self).__name__)

    @property
    def teacher_layers(self) -> tuple[str, ...]:
        """Names of the teacher's layers that the method reads, beside the logits."""
        return ()

    @property
    def student_layers(self) -> tuple[str, ...]:
        """Names of the student's layers that the method reads, beside the logits."""
        return ()

    @abc.abstractmethod
    def __call__(self, teacher: Outputs, student: Outputs) -> tf.Tensor:
        """The term of each example, `(batch,)` in float32, without the weight."""

    def check(self, teacher: Outputs, student: Outputs) -> None:
        """Refuse outputs whose shapes the method cannot compare; runs before any training.

        Raises:
            InputError: With the two shapes and the cure.
        """
        require_equal_classes(self.name, teacher, student)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        own = {key: getattr(self, key) for key in self.hyperparameters}
        return {**own, "weight": self.weight, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Method":
        """The method that `get_config` described."""
        return cls(**config)


def require_equal_classes(name: str, teacher: Outputs, student: Outputs) -> None:
    """Refuse logits that are not two equal `(batch, classes)` with at least two classes."""
    shapes = teacher.logits.shape, student.logits.shape
    if any(shape.rank is not None and shape.rank != 2 for shape in shapes):
        raise InputError(
            f"{name} compares logits of shape (batch, classes); "
            f"the teacher gives {shapes[0]}, the student {shapes[1]}"
        )
    if not shapes[0].is_compatible_with(shapes[1]):
        raise InputError(
            f"{name} needs teacher and student with the same classes; the teacher has "
            f"{shapes[0][-1]}, the student {shapes[1][-1]}: change the student's last layer"
        )
    if shapes[1][-1] == 1:
        raise InputError(
            f"{name} needs at least 2 classes, the models have 1 output: give a binary classifier "
            "two logits"
        )


def at_least_zero(name: str, value: float) -> float:
    """Return the value as a float, or refuse a negative or non-finite one."""
    if not 0 <= float(value) < float("inf"):
        raise InputError(f"{name} is {value!r}; it must be a number of at least 0")
    return float(value)


def above_zero(name: str, value: float) -> float:
    """Return the value as a float, or refuse one that is not positive and finite."""
    if not 0 < float(value) < float("inf"):
        raise InputError(f"{name} is {value!r}; it must be a number above 0")
    return float(value)


def snake_case(class_name: str) -> str:
    """`SoftTargets` -> `soft_targets`, `LogitsL2` -> `logits_l2`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", class_name).lower()
