"""Soft targets without their dark knowledge (Furlanello et al. 2018, "Born-Again Neural ...")."""

from typing import Any

import tensorflow as tf

from kd_keras.methods.base import NO_CONTEXT, Context, Method
from kd_keras.schedules import Scheduled
from kd_keras.serialization import serializable
from kd_keras.taps import Outputs
from kd_keras.updates import example_numbers


def permuted_soft_targets(
    teacher_log: tf.Tensor, student_logits: tf.Tensor, *, keys: tf.Tensor
) -> tf.Tensor:
    """`KL(p'_t || p_s)` of each example, where `p'_t` is `p_t` with all but its largest permuted.

    Args:
        teacher_log: `log p_t`, `(batch, classes)`, float32.
        student_logits: `z_s`, `(batch, classes)`, float32.
        keys: `(batch, classes)`, in [0, 1): of the classes but the largest, the i-th gets the
            probability of the one with the i-th smallest key.

    Returns:
        `(batch,)`, float32.
    """
    largest = tf.one_hot(tf.argmax(teacher_log, axis=-1), tf.shape(teacher_log)[-1])
    # Both orders end with the largest, so that it keeps its place.
    places = tf.argsort(largest, axis=-1, stable=True)
    sources = tf.argsort(keys + largest, axis=-1, stable=True)
    order = tf.gather(sources, tf.argsort(places, axis=-1), batch_dims=1)
    permuted_log = tf.gather(teacher_log, order, batch_dims=1)
    student_log = tf.nn.log_softmax(student_logits)
    return tf.reduce_sum(tf.exp(permuted_log) * (permuted_log - student_log), axis=-1)


@serializable(package="kd_keras")
class PermutedSoftTargets(Method):
    """Soft targets with the wrong classes shuffled: "DKPP", permuted dark knowledge.

    The teacher's first choice keeps its probability; the probabilities of all other classes are
    permuted, every permutation as likely as any other, anew for each example at each update. What
    is left is how sure the teacher is and how its doubt is spread, but not between which classes:
    so it shows what soft targets owe to likeness between classes. For use, take `SoftTargets`.

    The permutation depends on the seed, the number of the update and the number of the example in
    the global batch: it is the same on any number of replicas, and in a training that was resumed.
    (XLA has random numbers of its own: with `jit_compile` it is another.)
    The divergence differs from the paper's cross-entropy by the entropy of the teacher, which has
    no gradient; unlike that of `SoftTargets`, it is not 0 where the student equals the teacher.

    Args:
        seed: Of the permutations, an int.
        weight: Factor of the term in the student's loss; a number or a schedule.
        name: The term's name in the logs.

    Example:
        >>> PermutedSoftTargets(seed=3).get_config()
        {'seed': 3, 'weight': 1.0, 'name': 'permuted_soft_targets'}
    """

    hyperparameters = ("seed",)

    def __init__(self, *, seed: int = 0, weight: Scheduled = 1.0, name: str | None = None) -> None:
        super().__init__(weight=weight, name=name)
        self.seed = int(seed)

    def __call__(
        self, teacher: Outputs, student: Outputs, context: Context = NO_CONTEXT
    ) -> tf.Tensor:
        """See `permuted_soft_targets`."""
        keys = self._keys(teacher.logits, context.step)
        return permuted_soft_targets(teacher.log_probabilities(), student.logits, keys=keys)

    def _keys(self, logits: tf.Tensor, step: Any) -> tf.Tensor:
        """Uniform numbers for the examples of this replica, cut out of the global batch's."""
        first, total = example_numbers(logits)
        step = tf.cast(step, tf.int64)
        drawn = tf.random.stateless_uniform(
            [total, tf.shape(logits)[-1]],
            seed=tf.stack([tf.constant(self.seed, tf.int64), step]),
        )
        return drawn[first : first + tf.shape(logits)[0]]
