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

from kd_keras import taps
from kd_keras.data.views import Views
from kd_keras.errors import InputError
from kd_keras.taps import Outputs
from kd_keras.teachers import evaluation, shards
from kd_keras.teachers.any_model import as_teacher
from kd_keras.teachers.base import Teacher
from kd_keras.teachers.cache_plan import Plan, Shard, refuse_differences
from kd_keras.teachers.record_layout import RecordLayout
from kd_keras.teachers.recorded import Recorded

_FIRST_EXAMPLE = (0, 0, 1)  # its view, its number, and the number after it
_ROUNDING = 0.02  # what processors and batch sizes may differ in, and float16 loses


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
    require_part(shard_index, num_shards)
    if not (isinstance(batch_size, int) and batch_size >= 1):
        raise InputError(f"batch_size is {batch_size!r}; it must be a whole number from 1")
    views = _views_of(dataset)
    teacher = as_teacher(teacher, from_logits=from_logits)
    if teacher.is_recorded:
        raise InputError("the teacher's outputs are recorded already: give it to the distiller")
    beginning = views.in_order(np.array([_FIRST_EXAMPLE]))
    run = _runner(teacher, tuple(layers), beginning.element_spec)
    first = run(next(iter(beginning)))
    layout = RecordLayout.of(first, dtype, top_k)
    plan = Plan.of(teacher, views, layout)
    folder = pathlib.Path(path)
    plan.adopt(folder)
    _require_same_outputs(folder, plan, layout.encode(first)[0])
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


def require_part(shard_index: Any, num_shards: Any) -> None:
    """Refuse a part of a cache that does not exist."""
    are_whole = isinstance(shard_index, int) and isinstance(num_shards, int)
    if not are_whole or not 0 <= shard_index < num_shards:
        raise InputError(
            f"shard_index is {shard_index!r} with num_shards {num_shards!r}; they must be whole "
            "numbers, shard_index from 0 to num_shards - 1"
        )


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
                    f"{str(self.path / shard.name)!r} cannot be used: {wrong}; call "
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
        return self._plan.open(self.path, self._plan.shard(view, number))


def _views_of(dataset: Any) -> Views:
    if isinstance(dataset, Views):
        return dataset
    if isinstance(dataset, tuple):
        return Views(*dataset)
    if isinstance(dataset, tf.data.Dataset | dict):
        raise InputError(
            f"the dataset is a {type(dataset).__name__}, which does not number its examples, so "
            "their teacher's outputs cannot be found again: give kd.data.Views(x, y, ...), or the "
            "array of inputs"
        )
    return Views(dataset)


def _runner(teacher: Teacher, layers: tuple[str, ...], batch: tf.TensorSpec) -> Any:
    """A function from a batch of inputs to the teacher's outputs as arrays."""
    spec = tf.TensorSpec([None, *batch.shape[1:]], batch.dtype)
    known = teacher.input_specs()
    if known is not None:
        taps.require_equal_inputs(known, spec, ("teacher", "data"))
    weights: list[float] = []

    def outputs(x: tf.Tensor) -> Any:
        given = teacher.outputs(x, layers)
        weights[:] = [weight for _, weight in given.members]
        return given.logits, given.layers, [logits for logits, _ in given.members]

    graph = evaluation.graph(outputs, spec)

    def run(x: tf.Tensor) -> Outputs:
        logits, heard, members = graph(x)
        return Outputs(logits, heard, tuple(zip(members, weights, strict=True)))

    return run


def _require_same_outputs(folder: pathlib.Path, plan: Plan, first: np.ndarray) -> None:
    """Refuse a cache that says of the first example what the teacher does not.

    A fingerprint knows nothing of names, and layers are kept by theirs.
    """
    shard = plan.shard(0, 0)
    if plan.what_is_wrong(folder, shard):
        return
    [stored] = plan.open(folder, shard)[:1]
    for name in first.dtype.names or ():
        one, other = (np.asarray(record[name], np.float64) for record in (first, stored))
        is_real = np.issubdtype(first[name].dtype, np.floating)
        if is_real and np.abs(one - other).max() > _ROUNDING * max(np.abs(other).max(), 1.0):
            raise InputError(
                f"the cache in {str(folder)!r} is of other outputs: {name!r} of its first example "
                "is not the teacher's; name another folder, or delete this one"
            )


def _is_missing(folder: pathlib.Path, plan: Plan, shard: Shard) -> bool:
    wrong = plan.what_is_wrong(folder, shard)
    if wrong and (folder / shard.name).exists():
        tqdm.tqdm.write(f"{folder / shard.name} is made anew: {wrong}", file=sys.stderr)
    return bool(wrong)


def _bar(total: int) -> Any:
    hidden = total == 0 or not sys.stderr.isatty()
    return tqdm.tqdm(desc="caching the teacher", total=total, unit="example", disable=hidden)
