"""Labels weighted by the teacher's confidence (Furlanello et al. 2018, "Born-Again Neural ...")."""

from typing import Any

import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.methods.base import NO_CONTEXT, Context, Method
from kd_keras.serialization import serializable
from kd_keras.taps import Outputs
from kd_keras.updates import global_batch_size


def confidence_weighted_labels(
    teacher_log: tf.Tensor, student_logits: tf.Tensor, *, labels: Any
) -> tf.Tensor:
    """`N * w / sum(w) * CE(y, p_s)` of each example, with `w = max_c p_t` and N examples.

    Args:
        teacher_log: `log p_t`, `(batch, classes)`, float32.
        student_logits: `z_s`, `(batch, classes)`, float32.
        labels: Class indices `(batch,)`, or probabilities `(batch, classes)`.

    Returns:
        `(batch,)`, float32. N and the sum are over the global batch: its mean is the weighted mean.
    """
    confidence = tf.exp(tf.reduce_max(teacher_log, axis=-1))
    share = confidence / _over_replicas(tf.reduce_sum(confidence))
    return global_batch_size(share) * share * _cross_entropy(labels, student_logits)


@serializable(package="kd_keras")
class ConfidenceWeightedLabels(Method):
    """The label loss, weighted by how sure the teacher is: "CWTM", confidence-weighted by the max.

    It asks what of a teacher's help is in its picking of examples rather than in its dark
    knowledge: nothing of the teacher is used but the probability of its first choice. It stands in
    the place of the label loss, so train with `label_weight=0` or `compile(loss=None)`.

    The weights are normalised over the global batch, so an example's value depends on the others.

    Args:
        weight: Factor of the term in the student's loss; a number or a schedule.
        name: The term's name in the logs.

    Example:
        >>> ConfidenceWeightedLabels().needs_labels
        True
    """

    needs_labels = True

    def __call__(
        self, teacher: Outputs, student: Outputs, context: Context = NO_CONTEXT
    ) -> tf.Tensor:
        """See `confidence_weighted_labels`."""
        if context.labels is None:
            raise InputError(f"{self.name} needs labels, but the data has none: give labels")
        return confidence_weighted_labels(
            teacher.log_probabilities(), student.logits, labels=context.labels
        )


def _cross_entropy(labels: Any, logits: tf.Tensor) -> tf.Tensor:
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 1 or labels.shape[1:] == [1]:
        classes = tf.cast(tf.reshape(labels, [-1]), tf.int32)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=classes, logits=logits)
    if not labels.shape.is_compatible_with(logits.shape):
        raise InputError(
            f"labels have shape {labels.shape}, the student's output {logits.shape}: give class "
            "indices (batch,), or probabilities (batch, classes)"
        )
    targets = tf.cast(labels, logits.dtype)
    return tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits)


def _over_replicas(value: tf.Tensor) -> tf.Tensor:
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
