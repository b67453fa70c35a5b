"""L2 regression on logits (Ba & Caruana 2014, "Do Deep Nets Really Need to be Deep?")."""

import tensorflow as tf

from kd_keras.methods.base import Method
from kd_keras.serialization import serializable
from kd_keras.taps import Outputs


def logits_l2(teacher_logits: tf.Tensor, student_logits: tf.Tensor) -> tf.Tensor:
    """`1/2 * ||z_s - z_t||^2` of each example.

    Args:
        teacher_logits: `(batch, classes)`, float32.
        student_logits: `(batch, classes)`, float32.

    Returns:
        `(batch,)`, float32; 0 where the student matches the teacher.
    """
    return 0.5 * tf.reduce_sum(tf.math.squared_difference(student_logits, teacher_logits), axis=-1)


@serializable(package="kd_keras")
class LogitsL2(Method):
    """The teacher's logits as targets of a regression.

    Uses no labels and no temperature, and keeps what the softmax throws away: the size of the
    logits. A small student that cannot reach that size does better with soft targets.

    Models that end in softmax are compared by the logarithm of their probabilities, that is by
    logits up to a constant an example.

    Args:
        weight: Factor of the term in the student's loss. The `L_data` of adversarial network
            compression has no 1/2: there `lambda * L_data` is `LogitsL2(weight=2 * lambda)`.
        name: The term's name in the logs.

    Example:
        >>> LogitsL2(weight=2.0).get_config()
        {'weight': 2.0, 'name': 'logits_l2'}
    """

    def __call__(self, teacher: Outputs, student: Outputs) -> tf.Tensor:
        """See `logits_l2`."""
        return logits_l2(teacher.logits, student.logits)
