"""L1 regression on logits (Xu, Hsu, Huang 2018, "Training Shallow and Thin Networks ...")."""

import tensorflow as tf

from kd_keras.methods.base import NO_CONTEXT, Context, Method
from kd_keras.serialization import serializable
from kd_keras.taps import Outputs


def logits_l1(teacher_logits: tf.Tensor, student_logits: tf.Tensor) -> tf.Tensor:
    """`||z_s - z_t||_1` of each example.

    Args:
        teacher_logits: `(batch, classes)`, float32.
        student_logits: `(batch, classes)`, float32.

    Returns:
        `(batch,)`, float32; 0 where the student matches the teacher.
    """
    return tf.reduce_sum(tf.abs(student_logits - teacher_logits), axis=-1)


@serializable(package="kd_keras")
class LogitsL1(Method):
    """The teacher's logits as targets of a regression that forgives outliers.

    Every logit pulls with the same strength, however far it is from the teacher's: a few logits
    that the student cannot reach do not rule the training, as they do with `LogitsL2`. It is the
    `L_L1` of conditional adversarial distillation, which stabilises the game there. It keeps
    pulling at full strength near the teacher, so it wants a learning rate that ends small.

    Args:
        weight: Factor of the term in the student's loss; a number or a schedule.
        name: The term's name in the logs.

    Example:
        >>> LogitsL1(weight=2.0).get_config()
        {'weight': 2.0, 'name': 'logits_l1'}
    """

    def __call__(
        self, teacher: Outputs, student: Outputs, context: Context = NO_CONTEXT
    ) -> tf.Tensor:
        """See `logits_l1`."""
        return logits_l1(teacher.logits, student.logits)
