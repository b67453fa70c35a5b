"""What ``tf.data`` streams are made of: orders and seeds as pure functions, batches in order.

Memory holds a few batches and one epoch's order (8 bytes an example), never the images.
"""

from __future__ import annotations

from collections.abc import Callable, Sized

import numpy as np
import tensorflow as tf

from kd_keras.data.normalization import Normalization
from kd_keras.data.splits import Split, release
from kd_keras.errors import InputError

# Order and views draw from different streams of the same seed.
_ORDER, _VIEW = 0, 1
_BATCHES_AHEAD = 2
Augment = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def steps_per_epoch(split: Sized, batch_size: int, *, drop_remainder: bool = True) -> int:
    """How many batches an epoch has.

    Args:
        split: the data: anything with a length.
        batch_size: the global batch.
        drop_remainder: whether examples beyond the last full batch are left out of the epoch.

    Returns:
        The number, at least 1.

    Raises:
        InputError: if the batch is not positive or larger than the data.
    """
    if not 1 <= batch_size <= len(split):
        raise InputError(
            f"batch_size {batch_size} cannot be used with {len(split)} examples; give 1 to "
            f"{len(split)}"
        )
    return len(split) // batch_size if drop_remainder else -(-len(split) // batch_size)


def evaluation(split: Split, *, batch_size: int, normalization: Normalization) -> tf.data.Dataset:
    """Every example once, in order, normalized; the last batch may be smaller.

    Args:
        split: the examples; memory-mapped arrays stay on disk.
        batch_size: the global batch; one larger than the data gives one batch of all.
        normalization: applied to the images.

    Returns:
        Pairs of float32 images (batch, height, width, channels) and int64 labels (batch,).

    Raises:
        InputError: if the batch is not positive.
    """
    if batch_size < 1:
        raise InputError(f"batch_size {batch_size} is out of range; give at least 1")

    def load(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return normalization.apply(gather(split.images, rows)), gather(split.labels, rows)

    rows = tf.data.Dataset.range(len(split)).batch(batch_size)
    return finish(rows.map(load, num_parallel_calls=tf.data.AUTOTUNE))


def example_seeds(seed: int, view: int | tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """One seed for each example's view; a view's number is its epoch, unless views are cached.

    Args:
        seed: of the run.
        view: the number of the view.
        rows: int64, (batch,), the examples' numbers in their split.

    Returns:
        int64, (batch, 2): what `tf.random.stateless_uniform` takes, one an example.
    """
    start = _fold(seed, _VIEW, view)
    # Two random words, and not those of `fold_in`: it passes `view` on as the second one, so that
    # example 1 of view 0 would have the seed of example 0 of view 1.
    base = tf.random.stateless_uniform([2], start, None, None, tf.int64, alg="philox")
    return tf.stack([tf.fill(tf.shape(rows), base[0]), base[1] + rows], axis=1)


def epoch_order(examples: int, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """The order of an epoch: a permutation of 0..examples-1 from (seed, epoch), int64."""
    rows = tf.range(examples, dtype=tf.int64)
    return tf.random.experimental.stateless_shuffle(rows, _fold(seed, _ORDER, epoch), alg="philox")


def _fold(seed: int, purpose: int, number: int | tf.Tensor) -> tf.Tensor:
    start = tf.constant([seed, purpose], tf.int64)
    return tf.random.fold_in(start, tf.cast(number, tf.int64), alg="philox")


def gather(array: np.ndarray, rows: tf.Tensor) -> tf.Tensor:
    """The rows of an array, which may be a memory map, inside ``tf.data``."""

    def read(chosen: np.ndarray) -> np.ndarray:
        values = array[chosen]
        release(array)
        return values

    taken = tf.numpy_function(read, [rows], tf.as_dtype(array.dtype), stateful=False)
    # The output of a NumPy function carries no shape, and models and Keras need it.
    return tf.ensure_shape(taken, (rows.shape[0], *array.shape[1:]))


def finish(batches: tf.data.Dataset) -> tf.data.Dataset:
    """The batches in a fixed order, read ahead, and divisible between workers."""
    options = tf.data.Options()
    options.deterministic = True
    # Every worker runs this whole pipeline and keeps its part of each global batch; by FILE there
    # is nothing to shard, and with OFF all workers would train on the same examples.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.with_options(options).prefetch(_BATCHES_AHEAD)
