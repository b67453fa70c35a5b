"""The contract of a distillation method: one term of the student's loss."""

import abc
import copy
import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import tensorflow as tf

from kd_keras import schedules
from kd_keras.errors import InputError
from kd_keras.schedules import Schedule, Scheduled
from kd_keras.taps import Outputs


@dataclasses.dataclass(frozen=True)
class Context:
    """What a method may know of a step beside the two models' outputs.

    Attributes:
        step: The number of the student's updates before this one, an int or an integer scalar.
        labels: The batch's labels, class indices `(batch,)` or probabilities `(batch, classes)`;
            None if there are none.
    """

    step: Any = 0
    labels: tf.Tensor | None = None


#: Nothing is known of the step.
NO_CONTEXT = Context()


class Method(abc.ABC):
    """One term of the student's loss, computed from what teacher and student put out.

    A method is a small class over a pure function: it holds the hyperparameters, names the layers
    that it reads, and gives one value an example. The mean, over the global batch, is the
    distiller's. A subclass passes its own hyperparameters to nobody: it stores them under their
    names, lists the names in `hyperparameters`, and is found by the name of its file.

    A method has no variables. One that needs some, such as a regressor, describes them in
    `projections`: the distiller makes and trains them, and they are gone when it is.

    Args:
        weight: Factor of the term in the student's loss, at least 0; a number, or a schedule as
            `kd_keras.schedules.get` takes it.
        name: The term's name in the logs; by default the class' name in snake case.
    """

    #: Names of the constructor's arguments beside `weight` and `name`.
    hyperparameters: ClassVar[tuple[str, ...]] = ()
    #: Whether the term is computed from the logits; else from layers alone.
    reads_logits: ClassVar[bool] = True
    #: Whether the term needs labels.
    needs_labels: ClassVar[bool] = False

    def __init__(self, *, weight: Scheduled = 1.0, name: str | None = None) -> None:
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
    def __call__(
        self, teacher: Outputs, student: Outputs, context: Context = NO_CONTEXT
    ) -> tf.Tensor:
        """The term of each example, `(batch,)` in float32, without the weight."""

    def check(self, teacher: Outputs, student: Outputs) -> None:
        """Refuse outputs whose shapes the method cannot compare; runs before any training.

        Args:
            teacher: The teacher's outputs, as tensors or specs.
            student: The student's, after the projections.

        Raises:
            InputError: With the two shapes and the cure.
        """
        if self.reads_logits:
            require_equal_classes(self.name, teacher, student)

    def projections(self, teacher: Outputs, student: Outputs) -> dict[str, Any]:
        """Models from a student's layer to the shape of the teacher's, trained with the student.

        Args:
            teacher: Specs of the teacher's outputs, as in `check`.
            student: Specs of the student's outputs.

        Returns:
            Built Keras models by the name of the student's layer that each is put upon; the method
            then sees the model's output in the place of the layer's. Empty if it needs none.

        Raises:
            InputError: If none can be made.
        """
        del teacher, student
        return {}

    @property
    def fitted(self) -> bool:
        """Whether the method knows all that it needs; if not, `fitted_to` tells it."""
        return True

    def fitted_to(self, teacher_logits: Any) -> "Method":
        """The method with what it has to know of the teacher's logits over the training set.

        Args:
            teacher_logits: `(examples, classes)`.
        """
        del teacher_logits
        return self

    def scheduled_over(self, steps: int) -> "Method":
        """The method with the length of the training told to schedules that did not know it."""
        method = copy.copy(self)
        for name in ("weight", *self.hyperparameters):
            value = getattr(self, name)
            if isinstance(value, schedules.Schedule):
                setattr(method, name, value.over(steps))
        return method

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        own = {key: schedules.config(getattr(self, key)) for key in self.hyperparameters}
        return {**own, "weight": schedules.config(self.weight), "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Method":
        """The method that `get_config` described."""
        return cls(**config)


def distinctly_named(methods: Iterable[Method], taken: Sequence[str]) -> tuple[Method, ...]:
    """The methods of a distiller, or a refusal of two of one name, or of a name that is taken."""
    if isinstance(methods, Method | str):
        raise InputError(f"methods is {methods!r}; give a list, as [kd.SoftTargets()]")
    methods = tuple(methods)
    wrong = [method for method in methods if not isinstance(method, Method)]
    if wrong:
        raise InputError(f"{wrong[0]!r} is no method; give objects, as [kd.SoftTargets()]")
    names = [method.name for method in methods]
    reserved = sorted(set(names) & set(taken))
    if reserved:
        raise InputError(f"{reserved[0]!r} is another term's name; give the method another name=")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"two methods are called {twice[0]!r}; give one of them another name=")
    return methods


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
            f"{shapes[0][-1]}, the student {shapes[1][-1]}: change the student's last layer, or "
            "map the teacher's classes with kd_keras.teachers.ClassMap (config.teacher.class_map)"
        )
    if shapes[1][-1] == 1:
        raise InputError(
            f"{name} needs at least 2 classes, the models have 1 output: give a binary classifier "
            "two logits"
        )


def at_least_zero(name: str, value: Scheduled) -> Any:
    """Return the value as a float or a schedule, or refuse a negative or non-finite one."""
    return _bounded(name, value, lambda v: 0 <= v < float("inf"), "of at least 0")


def above_zero(name: str, value: Scheduled) -> Any:
    """Return the value as a float or a schedule, or refuse one not positive and finite."""
    return _bounded(name, value, lambda v: 0 < v < float("inf"), "above 0")


def _bounded(name: str, value: Scheduled, holds: Any, allowed: str) -> float | Schedule:
    found = schedules.get(value, name)
    if not all(holds(extreme) for extreme in schedules.extremes(found)):
        raise InputError(f"{name} is {value!r}; it must be a number {allowed}")
    return found


def snake_case(class_name: str) -> str:
    """`SoftTargets` -> `soft_targets`, `LogitsL2` -> `logits_l2`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", class_name).lower()
