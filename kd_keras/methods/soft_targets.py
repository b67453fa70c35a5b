"""Soft targets (Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network")."""

from typing import Any

import tensorflow as tf

from kd_keras import schedules
from kd_keras.methods.base import NO_CONTEXT, Context, Method, above_zero
from kd_keras.schedules import Scheduled
from kd_keras.serialization import serializable
from kd_keras.taps import Outputs


def soft_targets(
    teacher_log: tf.Tensor, student_logits: tf.Tensor, *, temperature: Any
) -> tf.Tensor:
    """`T^2 * KL(q_t || q_s)` of each example, with `q = softmax(z / T)`.

    Args:
        teacher_log: `log q_t`, `(batch, classes)`, float32.
        student_logits: `z_s`, `(batch, classes)`, float32.
        temperature: `T > 0`, a number or a scalar; higher is softer.

    Returns:
        `(batch,)`, float32; 0 where the student matches the teacher.
    """
    student_log = tf.nn.log_softmax(student_logits / temperature)
    divergence = tf.reduce_sum(tf.exp(teacher_log) * (teacher_log - student_log), axis=-1)
    return temperature**2 * divergence


@serializable(package="kd_keras")
class SoftTargets(Method):
    """The teacher's softened class probabilities as targets.

    The first thing to try: it needs no layers, no equal widths and no labels, and its temperature
    and weight are forgiving. With `label_weight=1 - a` and `weight=a` the student's loss is
    `(1-a) * CE(y, softmax(z_s)) + a * T^2 * KL(q_t || q_s)`.

    `T^2` keeps the size of the gradient when the temperature changes. The divergence differs from
    the paper's cross-entropy by the entropy of the teacher, which has no gradient: so the term is
    0 when the student matches. An ensemble teaches the mean of its members' softened distributions.

    Args:
        temperature: `T > 0`; a number or a schedule.
        weight: Factor of the term in the student's loss; a number or a schedule. FitNets anneal it
            lambda linearly from 4 to 1 at T = 3; their term has no `T^2`, so here that is a weight
            from 4/9 to 1/9.
        name: The term's name in the logs.

    Raises:
        InputError: If the temperature is not above 0 or the weight below 0.

    Example:
        >>> SoftTargets(temperature=4.0, weight=0.9).get_config()
        {'temperature': 4.0, 'weight': 0.9, 'name': 'soft_targets'}
    """

    hyperparameters = ("temperature",)

    def __init__(
        self,
        *,
        temperature: Scheduled = 4.0,
        weight: Scheduled = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__(weight=weight, name=name)
        self.temperature = above_zero("temperature", temperature)

    def __call__(
        self, teacher: Outputs, student: Outputs, context: Context = NO_CONTEXT
    ) -> tf.Tensor:
        """See `soft_targets`."""
        temperature = schedules.at(self.temperature, context.step)
        return soft_targets(
            teacher.log_probabilities(temperature), student.logits, temperature=temperature
        )
