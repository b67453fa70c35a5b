"""Hyperparameters that change while a student trains: a weight or a temperature by the step.

A schedule is a function of the number of the student's update, which `optimizer.iterations` counts:
so it is right under `steps_per_execution`, and a resumed training goes on where it was.
"""

import dataclasses
import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import tensorflow as tf

from kd_keras.errors import InputError


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A value that goes from `start` to `end` over `steps` updates, and stays there.

    Attributes:
        start: The value at step 0.
        end: The value from step `steps` on.
        steps: Number of updates, at least 1; 0 says that it is not known yet, which `over` fills.
    """

    start: float
    end: float
    steps: int = 0

    #: What a config calls it.
    kind: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if not (isinstance(self.steps, numbers.Integral) and self.steps >= 0):
            raise InputError(
                f"steps of a schedule is {self.steps!r}; it must be a whole number from 1"
            )
        object.__setattr__(self, "steps", int(self.steps))
        for name in ("start", "end"):
            value = getattr(self, name)
            if not (isinstance(value, numbers.Real) and math.isfinite(value)):
                raise InputError(f"{name} of a schedule is {value!r}; it must be a finite number")
            object.__setattr__(self, name, float(value))  # of whole ones, a step would be whole

    def __call__(self, step: Any) -> tf.Tensor:
        """The value at a step, a float32 scalar."""
        if not self.steps:
            raise InputError(
                f"the {self.kind} schedule from {self.start} to {self.end} does not know how long "
                "it lasts: give steps="
            )
        progress = tf.minimum(tf.cast(step, tf.float32) / self.steps, 1.0)
        return self.at_progress(progress)

    def at_progress(self, progress: tf.Tensor) -> tf.Tensor:
        """The value at a progress from 0 to 1."""
        raise NotImplementedError

    def extremes(self) -> tuple[float, ...]:
        """Values between which all others lie."""
        return self.start, self.end

    def over(self, steps: int) -> "Schedule":
        """The same schedule, lasting so many updates if it did not say how many."""
        return self if self.steps else dataclasses.replace(self, steps=steps)

    def get_config(self) -> dict[str, Any]:
        """What `get` makes the schedule from."""
        return {"schedule": self.kind, **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class Linear(Schedule):
    """`start + (end - start) * step / steps`.

    Example:
        >>> float(Linear(4.0, 1.0, steps=100)(50))
        2.5
    """

    kind: ClassVar[str] = "linear"

    def at_progress(self, progress: tf.Tensor) -> tf.Tensor:
        """See the class."""
        return self.start + (self.end - self.start) * progress


@dataclasses.dataclass(frozen=True)
class Cosine(Schedule):
    """`end + (start - end) * (1 + cos(pi * step / steps)) / 2`: slow, fast, slow.

    Example:
        >>> round(float(Cosine(4.0, 1.0, steps=100)(50)), 6)
        2.5
    """

    kind: ClassVar[str] = "cosine"

    def at_progress(self, progress: tf.Tensor) -> tf.Tensor:
        """See the class."""
        return self.end + (self.start - self.end) * 0.5 * (1 + tf.cos(math.pi * progress))


@dataclasses.dataclass(frozen=True)
class Step(Schedule):
    """`start`, and `end` after a share `at` of the steps.

    Attributes:
        at: Where the value jumps, as a share of `steps`, in (0, 1].

    Example:
        >>> jump = Step(4.0, 1.0, steps=100, at=0.8)
        >>> float(jump(79)), float(jump(80))
        (4.0, 1.0)
    """

    at: float = 0.5

    kind: ClassVar[str] = "step"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isinstance(self.at, numbers.Real) and 0 < self.at <= 1):
            raise InputError(f"at of a step schedule is {self.at!r}; it must be above 0, at most 1")

    def at_progress(self, progress: tf.Tensor) -> tf.Tensor:
        """See the class."""
        return tf.where(progress < self.at, self.start, self.end)


_KINDS = {kind.kind: kind for kind in (Linear, Cosine, Step)}

#: A hyperparameter as a user gives it.
Scheduled = float | Schedule | Mapping


def get(value: Any, name: str = "the value") -> float | Schedule:
    """A number or a schedule from what a user or a config gives.

    Args:
        value: A number (constant), a `Schedule`, or `{"schedule": "linear", "start": 4.0, "end":
            1.0}`, with `steps` where the caller does not know the length of the training.
        name: What the value is to the user, for the error.

    Raises:
        InputError: For an unknown kind or argument, listing those that exist; for what is neither
            a number nor a schedule.
    """
    if isinstance(value, Schedule):
        return value
    if isinstance(value, numbers.Real):
        return float(value)
    if not isinstance(value, Mapping):
        raise InputError(
            f"{name} is {value!r}; it must be a number, or a schedule such as "
            "{'schedule': 'linear', 'start': 4.0, 'end': 1.0}"
        )
    arguments = dict(value)
    kind = arguments.pop("schedule", None)
    if kind not in _KINDS:
        allowed = ", ".join(_KINDS)
        raise InputError(f"schedule {kind!r} does not exist; there are: {allowed}, or a number")
    fields = [field.name for field in dataclasses.fields(_KINDS[kind])]
    unknown = sorted(set(arguments) - set(fields))
    missing = sorted({"start", "end"} - set(arguments))
    if unknown or missing:
        problem = f"has no {unknown[0]!r}" if unknown else f"needs {missing[0]!r}"
        raise InputError(f"schedule {kind!r} {problem}; it takes: {', '.join(fields)}")
    return _KINDS[kind](**arguments)


def at(value: float | Schedule, step: Any) -> Any:
    """The value at a step: a constant as it is, a schedule's as a float32 scalar."""
    return value(step) if isinstance(value, Schedule) else value


def extremes(value: float | Schedule) -> Iterable[float]:
    """The values between which a hyperparameter stays."""
    return value.extremes() if isinstance(value, Schedule) else (value,)


def config(value: float | Schedule) -> Any:
    """What `get` takes, for `get_config`."""
    return value.get_config() if isinstance(value, Schedule) else value
