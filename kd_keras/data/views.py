"""The views of its examples that a student sees in training, the same for whoever asks for them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.data import stream
from kd_keras.data.normalization import Normalization
from kd_keras.data.splits import array_checksum
from kd_keras.errors import InputError

#: From a batch's inputs, its examples' numbers and its view to what the batch holds instead.
Attach = Callable[[Any, tf.Tensor, tf.Tensor], Any]


class Views:
    """Examples by number, each in views by number.

    View v of example i is a pure function of (seed, v, i). Epoch e shows view `e mod count`, or
    view e if there is no count; the order of an epoch is a function of (seed, e). So a training
    that is resumed, another process, and a cache of a teacher's outputs see the same views.

    Args:
        x: Inputs, `(examples, ...)`; a memory map stays on disk. For an augmentation they are
            images, `(examples, height, width, channels)`, pixels 0..255.
        y: Labels, `(examples, ...)`, or None.
        seed: Of the orders and the views.
        count: How many views an example has. None: a new one in every epoch, which no cache can
            hold. Without an augmentation there is one.
        normalization: Applied last, or None.
        augmentation: Makes the views, or None; see `kd_keras.data.Augmentation`.
        rows: The numbers in x of the examples that are looked at; None for all. They look as they
            do among all of them.

    Raises:
        InputError: If there is no example, the lengths differ, the count is not positive, or a row
            is not in x.

    Example:
        >>> views = Views(np.eye(4, dtype="float32"), np.arange(4), seed=1)
        >>> len(views), views.count
        (4, 1)
        >>> [y.shape for _, y in views.batches(batch_size=2, epochs=1)]
        [TensorShape([2]), TensorShape([2])]
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        *,
        seed: int = 0,
        count: int | None = None,
        normalization: Normalization | None = None,
        augmentation: stream.Augment | None = None,
        rows: Any = None,
    ) -> None:
        self.x, self.y = np.asanyarray(x), None if y is None else np.asanyarray(y)
        self.seed = int(seed)
        self.normalization, self.augmentation = normalization, augmentation
        self.rows = None if rows is None else np.asarray(rows, np.int64)
        if not self.x.ndim or not len(self.x):
            raise InputError("there is no example to look at: x is empty")
        if self.y is not None and len(self.y) != len(self.x):
            raise InputError(
                f"x has {len(self.x)} examples, y {len(self.y)}: give as many labels as inputs"
            )
        if count is not None and not (isinstance(count, int) and count >= 1):
            raise InputError(f"count is {count!r}; it must be a whole number of views from 1")
        if self.rows is not None:
            _require_rows(self.rows, len(self.x))
        self.count = 1 if augmentation is None else count

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.x) if self.rows is None else len(self.rows)

    @property
    def mixes_labels(self) -> bool:
        """Whether the augmentation makes labels that are distributions over the classes."""
        return getattr(self.augmentation, "mixes_labels", False)

    def steps(self, batch_size: int, *, drop_remainder: bool = True) -> int:
        """How many batches an epoch has; see `kd_keras.data.steps_per_epoch`."""
        return stream.steps_per_epoch(self, batch_size, drop_remainder=drop_remainder)

    def batches(
        self,
        *,
        batch_size: int,
        epochs: int,
        first_epoch: int = 0,
        drop_remainder: bool = True,
        shuffle: bool = True,
        attach: Attach | None = None,
    ) -> tf.data.Dataset:
        """Batches of the epochs first_epoch .. epochs-1, in one stream.

        With `first_epoch=e` it gives, bit for bit, what the stream from 0 gives after e epochs.
        Under `tf.distribute` a batch is the global batch: replicas and workers get disjoint parts.

        Args:
            batch_size: The global batch.
            epochs: The number after the last epoch.
            first_epoch: The epoch to begin with.
            drop_remainder: Leave out what does not fill the last batch of an epoch; with the next
                epoch's order, other examples are left out.
            shuffle: Whether an epoch has an order of its own; else all have the examples'.
            attach: What a batch's inputs become, given `(x, numbers, view)`; the numbers are those
                among the examples that are looked at, 0 to len - 1.

        Returns:
            Pairs `(x, y)`, or x alone if there are no labels. x is float32 if it is normalized; y
            is what the augmentation makes of it.

        Raises:
            InputError: If the batch is larger than the data, or first_epoch is not in 0..epochs.
        """
        steps = self.steps(batch_size, drop_remainder=drop_remainder)
        if not 0 <= first_epoch <= epochs:
            raise InputError(
                f"first_epoch {first_epoch} is out of range; give 0 to {epochs} (epochs)"
            )

        def batches_of(epoch: tf.Tensor) -> tf.data.Dataset:
            order = tf.range(len(self), dtype=tf.int64)
            if shuffle:
                order = stream.epoch_order(len(self), self.seed, epoch)
            rows = tf.data.Dataset.from_tensor_slices(order)
            rows = rows.batch(batch_size, drop_remainder=drop_remainder)
            return rows.map(lambda batch: (batch, epoch))

        def load(rows: tf.Tensor, epoch: tf.Tensor) -> Any:
            view = epoch if self.count is None else epoch % self.count
            x, y = self._read(rows, view)
            if attach is not None:
                x = attach(x, rows, view)
            return x if self.y is None else (x, y)

        batches = tf.data.Dataset.range(first_epoch, epochs).flat_map(batches_of)
        known = tf.data.experimental.assert_cardinality(steps * (epochs - first_epoch))
        return stream.finish(batches.apply(known).map(load, num_parallel_calls=tf.data.AUTOTUNE))

    def in_order(self, spans: np.ndarray) -> tf.data.Dataset:
        """The inputs of given spans of examples, one batch a span.

        Args:
            spans: Integers, `(batches, 3)`: the view, the first example, and the one after the
                last.
        """

        def load(span: tf.Tensor) -> Any:
            return self._read(tf.range(span[1], span[2]), span[0])[0]

        given = tf.data.Dataset.from_tensor_slices(np.asarray(spans, np.int64).reshape(-1, 3))
        return stream.finish(given.map(load, num_parallel_calls=tf.data.AUTOTUNE))

    @property
    def settings(self) -> dict[str, Any]:
        """What beside the inputs decides how the views look, as plain values."""
        augmentation = getattr(self.augmentation, "config", None)
        return {
            "normalization": _plain(self.normalization and dataclasses.asdict(self.normalization)),
            "augmentation": _plain(augmentation),
            "seed": None if self.augmentation is None else self.seed,
            "views": self.count,
        }

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What tells these views from others: their settings, and the inputs' number and SHA-256.

        Raises:
            InputError: If the views are without number, depend on the batch that they are in, or
                come from an augmentation that does not describe itself.
        """
        if self.augmentation is not None:
            _require_repeatable(self.augmentation, self.count)
        rows = {} if self.rows is None else {"rows": array_checksum(self.rows)}
        return {"examples": len(self), "data": array_checksum(self.x), **rows, **self.settings}

    def _read(self, numbers: tf.Tensor, view: tf.Tensor) -> tuple[Any, Any]:
        rows = numbers if self.rows is None else tf.gather(self.rows, numbers)
        x = stream.gather(self.x, rows)
        y = tf.zeros(tf.shape(rows), tf.int64) if self.y is None else stream.gather(self.y, rows)
        if self.augmentation is not None:
            x, y = self.augmentation(x, y, stream.example_seeds(self.seed, view, rows))
        return x if self.normalization is None else self.normalization.apply(x), y


def _require_rows(rows: np.ndarray, examples: int) -> None:
    if not rows.size or rows.ndim != 1 or rows.min() < 0 or rows.max() >= examples:
        raise InputError(
            f"rows {rows} cannot be looked at: give numbers from 0 to {examples - 1}, at least one"
        )


def _require_repeatable(augmentation: Any, count: int | None) -> None:
    if count is None:
        raise InputError(
            "an augmentation shows a new view in every epoch, which no cache can hold: say how "
            "many views an example has, as count=4 (in a config, teacher.cache.views)"
        )
    if getattr(augmentation, "mixes_labels", False):
        raise InputError(
            "mix_up and cut_mix mix an example with another one of its batch, which every epoch "
            "makes anew, so no cache can hold the result: leave them out, or the cache"
        )
    if getattr(augmentation, "config", None) is None:
        raise InputError(
            f"augmentation {augmentation!r} does not say what it does, so a cache cannot tell it "
            "from another: use kd.data.Augmentation"
        )


def _plain(value: Any) -> Any:
    """The value with lists for tuples, as JSON gives it back."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
