"""Batches of a user's own data, for trainings that can be resumed."""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from kd_keras.data.views import Views
from kd_keras.errors import InputError
from kd_keras.teachers import Teacher

#: From the number of the first epoch to the batches of it and of all later ones.
EpochBatches = Callable[[int], tf.data.Dataset]

_FOREVER = 10**9  # epochs


def of(
    x: Any, y: Any = None, *, batch_size: int, seed: int, teacher: Teacher | None = None
) -> tuple[EpochBatches, int]:
    """Batches by epoch, and their number in an epoch.

    Arrays are shuffled anew in every epoch, by (seed, epoch): a resumed training sees what an
    uninterrupted one would. The order of a `tf.data.Dataset` is its own; it is resumed exactly only
    if it gives the same batches in every epoch.

    Args:
        x: An array of inputs, `kd_keras.data.Views`, or a `tf.data.Dataset` of batches, `x` or
            `(x, y)`.
        y: An array of labels; None for views or a data set, or to train without labels.
        batch_size: The global batch, for arrays and views.
        seed: Of the orders of arrays.
        teacher: Who teaches from the batches; one that is recorded adds its outputs.

    Raises:
        InputError: If the lengths differ or are unknown, or the batch does not fit.
    """
    if isinstance(x, tf.data.Dataset):
        return _of_dataset(x, y)
    views = x if isinstance(x, Views) else Views(x, y, seed=seed)
    read = views.batches if teacher is None else functools.partial(teacher.batches, views)
    steps = views.steps(batch_size)
    return lambda first: read(batch_size=batch_size, epochs=_FOREVER, first_epoch=first), steps


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
