"""Batches of a user's own data, for trainings that can be resumed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.data import stream
from kd_keras.errors import InputError

#: From the number of the first epoch to the batches of it and of all later ones.
EpochBatches = Callable[[int], tf.data.Dataset]

_FOREVER = np.iinfo(np.int64).max


def of(x: Any, y: Any = None, *, batch_size: int, seed: int) -> tuple[EpochBatches, int]:
    """Batches by epoch, and their number in an epoch.

    Arrays are shuffled anew in every epoch, by (seed, epoch): a resumed training sees what an
    uninterrupted one would. The order of a `tf.data.Dataset` is its own; it is resumed exactly only
    if it gives the same batches in every epoch.

    Args:
        x: An array of inputs, or a `tf.data.Dataset` of batches, `x` or `(x, y)`.
        y: An array of labels; None for a data set, or to train without labels.
        batch_size: The global batch, for arrays.
        seed: Of the orders.

    Raises:
        InputError: If the lengths differ or are unknown, or the batch does not fit.
    """
    if isinstance(x, tf.data.Dataset):
        return _of_dataset(x, y)
    arrays = [np.asarray(x)] if y is None else [np.asarray(x), np.asarray(y)]
    examples = len(arrays[0])
    if len(arrays[-1]) != examples:
        raise InputError(f"x has {examples} examples, y {len(arrays[-1])}: give as many labels")
    if not 1 <= batch_size <= examples:
        raise InputError(
            f"batch_size {batch_size} cannot be used with {examples} examples; give 1 to {examples}"
        )

    def read(rows: np.ndarray) -> list[np.ndarray]:
        return [array[rows] for array in arrays]

    def load(rows: tf.Tensor) -> Any:
        types = [tf.as_dtype(array.dtype) for array in arrays]
        parts = tf.numpy_function(read, [rows], types, stateful=False)
        for part, array in zip(parts, arrays, strict=True):
            part.set_shape((rows.shape[0], *array.shape[1:]))
        return parts[0] if y is None else tuple(parts)

    def from_epoch(first: int) -> tf.data.Dataset:
        orders = tf.data.Dataset.range(first, _FOREVER).flat_map(
            lambda epoch: tf.data.Dataset.from_tensor_slices(
                stream.epoch_order(examples, seed, epoch)
            ).batch(batch_size, drop_remainder=True)
        )
        return stream.finish(orders.map(load, num_parallel_calls=tf.data.AUTOTUNE))

    return from_epoch, examples // batch_size


def _of_dataset(batches: tf.data.Dataset, y: Any) -> tuple[EpochBatches, int]:
    if y is not None:
        raise InputError("y is given beside a tf.data.Dataset: put the labels into the data set")
    count = int(batches.cardinality())
    if count < 1:
        raise InputError(
            "the number of batches in the data set is not known or infinite: set it with "
            "dataset.apply(tf.data.experimental.assert_cardinality(n))"
        )
    return lambda first: batches.repeat(), count
