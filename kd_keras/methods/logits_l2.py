"""L2 regression on logits (Ba & Caruana 2014, "Do Deep Nets Really Need to be Deep?")."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.methods.base import NO_CONTEXT, Context, Method
from kd_keras.schedules import Scheduled
from kd_keras.serialization import serializable
from kd_keras.taps import Outputs


def logits_l2(
    teacher_logits: tf.Tensor, student_logits: tf.Tensor, *, std: Any = None
) -> tf.Tensor:
    """`1/2 * ||(z_s - z_t) / std||^2` of each example.

    Args:
        teacher_logits: `(batch, classes)`, float32.
        student_logits: `(batch, classes)`, float32.
        std: Of each class, `(classes,)`; None divides by nothing.

    Returns:
        `(batch,)`, float32; 0 where the student matches the teacher.
    """
    difference = student_logits - teacher_logits
    if std is not None:
        difference /= tf.constant(std, difference.dtype)
    return 0.5 * tf.reduce_sum(tf.square(difference), axis=-1)


def target_std(teacher_logits: Any) -> tuple[float, ...]:
    """The standard deviation of each class' logit over a data set.

    Args:
        teacher_logits: `(examples, classes)`.

    Raises:
        InputError: If a logit is not finite, or a class' logit never changes.

    Example:
        >>> target_std([[0.0, 1.0], [4.0, 3.0]])
        (2.0, 1.0)
    """
    logits = np.asarray(teacher_logits, np.float64)
    if logits.ndim != 2 or not np.isfinite(logits).all():
        raise InputError(
            f"the teacher's logits have shape {logits.shape}; standardizing needs finite ones of "
            "shape (examples, classes)"
        )
    return _positive(tuple(float(value) for value in logits.std(axis=0)))


@serializable(package="kd_keras")
class LogitsL2(Method):
    """The teacher's logits as targets of a regression.

    Uses no labels and no temperature, and keeps what the softmax throws away: the size of the
    logits. A small student that cannot reach that size does better with soft targets.

    Models that end in softmax are compared by the logarithm of their probabilities, that is by
    logits up to a constant an example.

    `standardize` gives every class the same say, however far its logits spread. The paper trains
    the student on targets of zero mean and unit variance, and has to undo both to classify. Here
    both sides are mapped by the teacher's mean and standard deviation of each class: the means
    cancel, and the student still gives ordinary logits. It is the same regression up to a
    re-parametrisation of the student's last layer, `z_s = std * g(x) + mean`.

    Args:
        standardize: Whether to divide by the standard deviation of each class of the teacher's
            logits over the training set. `kd-train` measures it; elsewhere give `std`.
        std: The standard deviations, as `target_std` gives them; giving them is standardizing.
        weight: Factor of the term in the student's loss. The `L_data` of adversarial network
            compression has no 1/2: there `lambda * L_data` is `LogitsL2(weight=2 * lambda)`.
        name: The term's name in the logs.

    Raises:
        InputError: If a standard deviation is not above 0.

    Example:
        >>> LogitsL2(weight=2.0).get_config()["weight"]
        2.0
        >>> LogitsL2(standardize=True).fitted_to([[0.0, 1.0], [4.0, 3.0]]).std
        (2.0, 1.0)
    """

    hyperparameters = ("standardize", "std")

    def __init__(
        self,
        *,
        standardize: bool = False,
        std: Sequence[float] | None = None,
        weight: Scheduled = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__(weight=weight, name=name)
        self.std = None if std is None else _positive(tuple(float(value) for value in std))
        self.standardize = bool(standardize) or std is not None

    @property
    def fitted(self) -> bool:
        """See `Method.fitted`."""
        return self.std is not None or not self.standardize

    def fitted_to(self, teacher_logits: Any) -> "LogitsL2":
        """See `Method.fitted_to`."""
        if self.fitted:
            return self
        method = copy.copy(self)
        method.std = target_std(teacher_logits)
        return method

    def __call__(
        self, teacher: Outputs, student: Outputs, context: Context = NO_CONTEXT
    ) -> tf.Tensor:
        """See `logits_l2`."""
        return logits_l2(teacher.logits, student.logits, std=self.std)

    def check(self, teacher: Outputs, student: Outputs) -> None:
        """See `Method.check`."""
        super().check(teacher, student)
        if not self.fitted:
            raise InputError(
                f"{self.name} standardizes, but has not seen the teacher's logits: give "
                "std=target_std(logits), or method.fitted_to(logits)"
            )
        classes = teacher.logits.shape[-1]
        if self.std is not None and classes not in (None, len(self.std)):
            raise InputError(
                f"{self.name} has the std of {len(self.std)} classes, but the teacher has "
                f"{classes}: give std=target_std(teacher.predict(x))"
            )


def _positive(std: tuple[float, ...]) -> tuple[float, ...]:
    for index, value in enumerate(std):
        if not 0 < value < float("inf"):
            raise InputError(
                f"std of class {index} is {value}; it must be a number above 0: a class whose "
                "logit never changes cannot be standardized, drop standardize"
            )
    return std
