"""The arithmetic of an update that must be right on any number of replicas, in either Keras."""

from typing import Any

import tensorflow as tf

from kd_keras.errors import InputError


def replicas() -> int:
    """The number of replicas that take a step together."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def global_batch_size(values: tf.Tensor) -> tf.Tensor:
    """The number of examples of a step over all replicas, float32.

    Replicas may hold parts of unequal size (the last batch of an epoch), so it is counted.
    """
    local = tf.cast(tf.shape(values)[0], tf.float32)
    context = tf.distribute.get_replica_context()
    if context is None or replicas() == 1:
        return local
    return context.all_reduce(tf.distribute.ReduceOp.SUM, local)


def example_numbers(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The number, in the global batch, of this replica's first example, and of all; int32."""
    local = tf.shape(values)[0]
    context = tf.distribute.get_replica_context()
    if context is None or replicas() == 1:
        return tf.constant(0), local
    replica = context.replica_id_in_sync_group
    mine = tf.one_hot(replica, replicas()) * tf.cast(local, tf.float32)
    sizes = tf.cast(context.all_reduce(tf.distribute.ReduceOp.SUM, mine), tf.int32)
    return tf.reduce_sum(sizes[:replica]), tf.reduce_sum(sizes)


def weighted(values: tf.Tensor, sample_weight: Any) -> tf.Tensor:
    """The values of the examples, `(batch,)`, each times its weight if there are weights."""
    if sample_weight is None:
        return values
    return values * tf.reshape(tf.cast(sample_weight, values.dtype), [-1])


def scale_loss(optimizer: Any, loss: tf.Tensor) -> tf.Tensor:
    """The loss as the optimizer's loss scaling wants it differentiated."""
    if hasattr(optimizer, "get_scaled_loss"):  # tf_keras' LossScaleOptimizer
        return optimizer.get_scaled_loss(loss)
    if hasattr(optimizer, "scale_loss"):  # any optimizer of Keras 3
        return optimizer.scale_loss(loss)
    return loss


def apply_update(optimizer: Any, tape: tf.GradientTape, loss: tf.Tensor, variables: list) -> None:
    """Update the variables down the gradient of a loss that `scale_loss` gave.

    Optimizers sum gradients over replicas: the loss must be this replica's share of the mean over
    the global batch. Variables that the loss does not depend on are left alone.

    Raises:
        InputError: If the loss depends on none of them.
    """
    gradients = tape.gradient(loss, variables)
    reached = [pair for pair in zip(gradients, variables, strict=True) if pair[0] is not None]
    if not reached:
        raise InputError(
            "nothing to train: the loss depends on no trainable weight; train layers that the "
            "methods read, or that come before them"
        )
    gradients, variables = (list(part) for part in zip(*reached, strict=True))
    if hasattr(optimizer, "get_unscaled_gradients"):
        gradients = optimizer.get_unscaled_gradients(gradients)
    optimizer.apply_gradients(zip(gradients, variables, strict=True))


def make_step_counter(optimizer: Any) -> None:
    """Make the step counter of a legacy tf_keras optimizer, which replicas could not make.

    Legacy optimizers make it when it is first read; any other optimizer has it.
    """
    tf.convert_to_tensor(optimizer.iterations)


def build_optimizer(optimizer: Any, variables: list) -> None:
    """Make an optimizer's variables now, so that saved ones can be loaded into them."""
    if hasattr(optimizer, "build"):  # all but tf_keras' legacy optimizers
        optimizer.build(variables)
