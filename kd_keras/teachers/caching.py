"""A teacher's outputs computed once, in files, for all the trainings that will ask for them."""

import functools
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tqdm

from kd_keras.data.views import Views
from kd_keras.errors import InputError
from kd_keras.taps import Outputs
from kd_keras.teachers import shards
from kd_keras.teachers.any_model import as_teacher
from kd_keras.teachers.base import Teacher
from kd_keras.teachers.cache_plan import Plan, Shard, refuse_differences
from kd_keras.teachers.record_layout import RecordLayout
from kd_keras.teachers.recorded import Recorded


def cache(
    teacher: Any,
    dataset: Any,
    path: str | os.PathLike,
    *,
    layers: Sequence[str] = (),
    dtype: str = "float16",
    top_k: int | None = None,
    batch_size: int = 128,
    from_logits: bool | None = True,
) -> "Cached":
    """Compute a teacher's outputs once, and teach from them.

    What is there already is checked and kept, so a cache that was killed goes on, and a complete
    one costs no more than reading it. Files that are missing, cut off, corrupt or foreign are made
    anew, alone.

    A cache belongs to its teacher's weights, its inputs, their normalization and augmentation: if
    any of them is another, it is refused.

    Args:
        teacher: What teaches; see `kd_keras.teachers.as_teacher`.
        dataset: The `kd_keras.data.Views` that the student will be trained on, or an array of
            inputs, `(examples, ...)`, which has one view.
        path: The folder.
        layers: The teacher's layers to keep, for methods that read them.
        dtype: "float32", which teaches as the live teacher does, or "float16": half the bytes,
            for an error of 1/2048 of each value.
        top_k: Keep only so many classes of each example; see `RecordLayout`.
        batch_size: Examples that the teacher sees at once.
        from_logits: As in `as_teacher`.

    Returns:
        The teacher to give to a distiller, whose `fit` takes the same views or array.

    Raises:
        InputError: If the teacher, the data or the folder's cache cannot be used.

    Example:
        >>> import tempfile
        >>> import kd_keras as kd
        >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
        >>> net = lambda width: tf.keras.Sequential(
        ...     [tf.keras.Input((4,)), tf.keras.layers.Dense(width), tf.keras.layers.Dense(3)])
        >>> folder = tempfile.TemporaryDirectory()
        >>> teacher = cache(net(64), x, folder.name)
        >>> distiller = kd.Distiller(net(4), teacher, [kd.SoftTargets()])
        >>> distiller.compile("sgd")
        >>> history = distiller.fit(x, batch_size=16, epochs=2, verbose=0)
        >>> folder.cleanup()
    """
    views = _views_of(dataset)
    fill(
        *(teacher, views, path),
        layers=layers,
        dtype=dtype,
        top_k=top_k,
        batch_size=batch_size,
        from_logits=from_logits,
    )
    return Cached(path, checked=True)


def fill(
    teacher: Any,
    dataset: Any,
    path: str | os.PathLike,
    *,
    layers: Sequence[str] = (),
    dtype: str = "float16",
    top_k: int | None = None,
    batch_size: int = 128,
    from_logits: bool | None = True,
    shard_index: int = 0,
    num_shards: int = 1,
) -> None:
    """Compute one process' part of a cache; see `cache`.

    Any number of processes, on any machines that share the folder, may work at once. They do not
    wait for each other; two that do the same part do it twice, and nothing else happens.

    Args:
        teacher: See `cache`.
        dataset: See `cache`.
        path: See `cache`.
        layers: See `cache`.
        dtype: See `cache`.
        top_k: See `cache`.
        batch_size: See `cache`.
        from_logits: See `cache`.
        shard_index: Which part is computed, from 0.
        num_shards: How many parts there are.

    Raises:
        InputError: See `cache`; and for a part that does not exist.
    """
    if not 0 <= shard_index < num_shards:
        raise InputError(
            f"shard_index is {shard_index} with num_shards {num_shards}; it must be from 0 to "
            f"num_shards - 1"
        )
    views = _views_of(dataset)
    teacher = as_teacher(teacher, from_logits=from_logits)
    run = _runner(teacher, tuple(layers), views)
    first_example = next(iter(views.in_order(np.array([[0, 0, 1]]))))
    plan = Plan.of(teacher, views, RecordLayout.of(run(first_example), dtype, top_k))
    folder = pathlib.Path(path)
    plan.adopt(folder)
    shards.remove_stale(folder)
    mine = [shard for n, shard in enumerate(plan.shards()) if n % num_shards == shard_index]
    missing = [shard for shard in mine if _is_missing(folder, plan, shard)]
    spans = [span for shard in missing for span in shard.spans(batch_size)]
    batches = iter(views.in_order(np.array(spans)))
    with _bar(sum(shard.last - shard.first for shard in missing)) as bar:
        for shard in missing:
            with shards.writing(folder / shard.name, plan.header(shard)) as append:
                for _ in shard.spans(batch_size):
                    records = plan.layout.encode(run(next(batches)))
                    append(records)
                    bar.update(len(records))


class Cached(Recorded):
    """A complete cache as a teacher; made by `cache`, or opened from its folder.

    Args:
        path: The folder.

    Raises:
        InputError: If the folder holds no cache, or one that is not complete or damaged.
    """

    def __init__(self, path: str | os.PathLike, *, checked: bool = False) -> None:
        self.path = pathlib.Path(path)
        self._plan = Plan.read(self.path)
        # Those of two views: an epoch's batches are read ahead while the one before is trained on.
        most = 2 * (self._plan.shards_a_view + 1)
        self._opened = functools.lru_cache(maxsize=most)(self._open)
        for shard in () if checked else self._plan.shards():
            wrong = self._plan.what_is_wrong(self.path, shard)
            if wrong:
                raise InputError(
                    f"{str(self.path / shard.name)!r} cannot be used: {wrong}; delete it and call "
                    "kd.teachers.cache again, which makes it anew"
                )

    def require_same(self, views: Any) -> None:
        """See `Recorded.require_same`."""
        refuse_differences(self.path, {"data": self._plan.data}, {"data": views.identity})

    def read(self, rows: tf.Tensor, view: tf.Tensor) -> dict[str, tf.Tensor]:
        """See `Recorded.read`."""
        record = self._plan.layout.record
        names = list(record.names or ())
        types = [tf.as_dtype(record[name].base) for name in names]
        fields = tf.numpy_function(self._gathered, [rows, view], types, stateful=False)
        return {
            name: tf.ensure_shape(field, (rows.shape[0], *record[name].shape))
            for name, field in zip(names, fields, strict=True)
        }

    def decoded(self, recorded: dict[str, tf.Tensor], layers: Sequence[str]) -> Outputs:
        """See `Recorded.decoded`."""
        return self._plan.layout.decode(recorded, layers)

    def specs(self, layers: Sequence[str] = ()) -> Outputs:
        """See `Teacher.specs`."""
        return self._plan.layout.specs(layers)

    def input_specs(self) -> Any:
        """See `Teacher.input_specs`; what was recorded does not say."""
        return None

    def fingerprint(self) -> str:
        """See `Teacher.fingerprint`; that of the teacher that was recorded."""
        return self._plan.teacher

    @property
    def nbytes(self) -> int:
        """The size of the cache on disk."""
        return sum((self.path / shard.name).stat().st_size for shard in self._plan.shards())

    def _gathered(self, rows: np.ndarray, view: np.ndarray) -> list[np.ndarray]:
        taken = np.empty(len(rows), self._plan.layout.record)
        numbers = rows // self._plan.shard_examples
        for number in np.unique(numbers):
            here = numbers == number
            records = self._opened(int(view), int(number))
            taken[here] = records[rows[here] - number * self._plan.shard_examples]
        return [np.ascontiguousarray(taken[name]) for name in taken.dtype.names or ()]

    def _open(self, view: int, number: int) -> np.ndarray:
        shard = self._plan.shard(view, number)
        header, record = self._plan.header(shard), self._plan.layout.record
        return shards.open_records(self.path / shard.name, header, record)


def _views_of(dataset: Any) -> Views:
    if isinstance(dataset, Views):
        return dataset
    if isinstance(dataset, tf.data.Dataset):
        raise InputError(
            "a tf.data.Dataset does not number its examples, so their teacher's outputs cannot be "
            "found again: give kd.data.Views(x, y, ...), or the array of inputs"
        )
    return Views(dataset)


def _runner(teacher: Teacher, layers: tuple[str, ...], views: Views) -> Any:
    """A function from a batch of inputs to the teacher's outputs as arrays."""
    spec = views.in_order(np.array([[0, 0, 1]])).element_spec
    signature = tf.TensorSpec([None, *spec.shape[1:]], spec.dtype)
    weights: list[float] = []

    @tf.function(input_signature=[signature], autograph=False)
    def outputs(x: tf.Tensor) -> Any:
        found = teacher.outputs(x, layers)
        weights[:] = [weight for _, weight in found.members]
        return found.logits, found.layers, [logits for logits, _ in found.members]

    def run(x: tf.Tensor) -> Outputs:
        logits, heard, members = tf.nest.map_structure(lambda value: value.numpy(), outputs(x))
        return Outputs(logits, heard, tuple(zip(members, weights, strict=True)))

    return run


def _is_missing(folder: pathlib.Path, plan: Plan, shard: Shard) -> bool:
    wrong = plan.what_is_wrong(folder, shard)
    if wrong and (folder / shard.name).exists():
        tqdm.tqdm.write(f"{folder / shard.name} is made anew: {wrong}", file=sys.stderr)
    return bool(wrong)


def _bar(total: int) -> Any:
    hidden = total == 0 or not sys.stderr.isatty()
    return tqdm.tqdm(desc="caching the teacher", total=total, unit="example", disable=hidden)
