"""The views of examples, by number: what a student sees is what a cache is asked about."""

import pathlib
import re
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from nets import one_line

from kd_keras import data
from kd_keras.errors import InputError

pytestmark = pytest.mark.any_keras

EXAMPLES = 20


def images() -> np.ndarray:
    made = np.random.default_rng(0).integers(0, 256, (EXAMPLES, 8, 8, 3), np.uint8)
    made[:, 0, 0, 0] = np.arange(EXAMPLES)
    return made


def views(count: int | None = 2, **kwargs: Any) -> data.Views:
    spec = kwargs.pop("augmentation", {"horizontal_flip": {}, "shift": {"pixels": 2}})
    augmentation = data.Augmentation(spec, 10) if spec else None
    settings = {"seed": 3, "count": count, "augmentation": augmentation, **kwargs}
    return data.Views(images(), np.arange(EXAMPLES) % 10, **settings)


def by_example(found: data.Views, epoch: int) -> np.ndarray:
    """What an epoch shows of each example, in the examples' order."""
    shown = np.empty((EXAMPLES, 8, 8, 3), np.float32)
    stream = found.batches(
        batch_size=5,
        epochs=epoch + 1,
        first_epoch=epoch,
        attach=lambda x, rows, view: (x, rows, view),
    )
    for (x, rows, view), _ in stream:
        assert int(view) == (epoch if found.count is None else epoch % found.count)
        shown[rows.numpy()] = x
    return shown


def test_epochs_go_round_the_views_in_new_orders() -> None:
    found = views(count=2)
    epochs = [by_example(found, epoch) for epoch in range(4)]
    np.testing.assert_array_equal(epochs[0], epochs[2])
    np.testing.assert_array_equal(epochs[1], epochs[3])
    assert (epochs[0] != epochs[1]).any()
    labels = [list(y.numpy()) for _, y in found.batches(batch_size=20, epochs=3)]
    assert labels[0] != labels[2]


def test_without_a_count_every_epoch_has_a_view_of_its_own() -> None:
    epochs = [by_example(views(count=None), epoch) for epoch in range(3)]
    assert (epochs[0] != epochs[2]).any()


@pytest.mark.parametrize("size", [1, 7, EXAMPLES])
def test_in_order_shows_what_training_shows(size: int) -> None:
    found = views(normalization=data.Normalization((0.5,), (0.25,)))
    starts = range(0, EXAMPLES, size)
    spans = [(1, start, min(start + size, EXAMPLES)) for start in starts]
    batches = list(found.in_order(np.array(spans)))
    assert [len(batch) for batch in batches] == [last - first for _, first, last in spans]
    np.testing.assert_array_equal(np.concatenate(batches), by_example(found, epoch=1))


def test_arrays_of_any_kind_without_labels() -> None:
    x = np.random.default_rng(1).normal(size=(7, 3))
    [batch] = data.Views(x, seed=1).batches(batch_size=7, epochs=1)
    assert batch.dtype == tf.float64
    np.testing.assert_array_equal(np.sort(batch, axis=0), np.sort(x, axis=0))
    assert data.Views(x).count == 1


def test_chosen_examples_look_as_they_do_among_all_of_them() -> None:
    rows = np.array([3, 4, 11, 19])
    found = views(rows=rows)
    assert (len(found), found.steps(2)) == (4, 2)
    stream = found.batches(batch_size=4, epochs=2, first_epoch=1, attach=lambda x, n, view: (x, n))
    [((x, numbers), y)] = stream
    np.testing.assert_array_equal(np.sort(numbers), np.arange(4))
    np.testing.assert_array_equal(x, by_example(views(), epoch=1)[rows[numbers]])
    np.testing.assert_array_equal(y, rows[numbers] % 10)
    [ordered] = found.in_order(np.array([[1, 0, 4]]))
    np.testing.assert_array_equal(ordered, by_example(views(), epoch=1)[rows])


def test_equal_settings_have_equal_identities_and_others_others() -> None:
    reference = views().identity
    assert views().identity == reference
    others = [
        views(seed=4),
        views(count=3),
        views(normalization=data.Normalization((0.5,), (0.25,))),
        views(augmentation={"shift": {"pixels": 2}}),
        views(augmentation={"horizontal_flip": {}, "shift": {"pixels": 1}}),
        data.Views(images() + 1, seed=3),
        views(rows=[0, 1]),
        views(rows=[0, 2]),
    ]
    found = [reference, *(other.identity for other in others)]
    assert all(one != other for i, one in enumerate(found) for other in found[:i])
    plain = [views(augmentation=None, seed=seed).identity for seed in (1, 2)]
    assert plain[0] == plain[1], "without augmentation the seed moves the order alone"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: data.Views(np.zeros((0, 3))), ("x is empty",)),
        (lambda: data.Views(np.zeros((2, 3)), [1]), ("2 examples", "y 1")),
        (lambda: views(count=0), ("count is 0", "from 1")),
        (lambda: views(rows=[]), ("rows []", "at least one")),
        (lambda: views(rows=[1, EXAMPLES]), ("rows [ 1 20]", "0 to 19")),
        (lambda: views(count=None).identity, ("new view in every epoch", "teacher.cache.views")),
        (lambda: views(augmentation={"mix_up": {}}).identity, ("mix_up", "leave them out")),
        (
            lambda: data.Views(images(), count=1, augmentation=lambda x, y, s: (x, y)).identity,
            ("does not say what it does", "kd.data.Augmentation"),
        ),
    ],
)
def test_bad_input(make: Any, words: tuple) -> None:
    with pytest.raises(InputError) as error:
        make()
    one_line(error, *words)


def test_a_memory_map_is_the_array_and_keeps_no_memory(tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "images.npy", np.tile(images(), (500, 1, 1, 1)))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    found, expected = data.Views(mapped), data.Views(np.array(mapped))
    assert found.identity == expected.identity
    for one, other in zip(
        *(v.batches(batch_size=4000, epochs=1) for v in (found, expected)), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert resident_kilobytes(tmp_path / "images.npy") < mapped.nbytes / 1024 / 2


def resident_kilobytes(path: pathlib.Path) -> int:
    """What a mapped file takes of this process' memory."""
    maps = pathlib.Path("/proc/self/smaps")
    if not maps.exists():
        pytest.skip("only Linux tells how much of a mapped file is in memory")
    entries = [text for text in maps.read_text().split("VmFlags") if str(path) in text]
    assert entries
    return sum(int(size) for text in entries for size in re.findall(r"\nRss:\s+(\d+)", text))
