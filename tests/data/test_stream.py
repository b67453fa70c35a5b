import numpy as np
import pytest
import tensorflow as tf
from replicas import two_replicas

from kd_keras import data
from kd_keras.data.augmentation import STEPS
from kd_keras.data.normalization import from_data
from kd_keras.errors import InputError

pytestmark = pytest.mark.any_keras

ROWS = 50
_OF_VIEWS = ("seed", "count", "normalization", "augmentation")
IDENTITY = data.Normalization((0.0,), (1.0,))


@pytest.fixture(scope="module")
def split():
    """Images that name their row: pixel (0, 0) is the row's number."""
    images = np.random.default_rng(0).integers(0, 256, (ROWS, 6, 6, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(ROWS)
    return data.Split(images, np.arange(ROWS, dtype=np.int64) % 10)


def _training(split, **options):
    defaults = {"batch_size": 8, "epochs": 3, "seed": 5, "normalization": IDENTITY}
    options = {**defaults, **options}
    made = {key: options.pop(key) for key in _OF_VIEWS if key in options}
    return data.Views(split.images, split.labels, **made).batches(**options)


def _rows(images):
    return np.rint(images[:, 0, 0, 0] * 255).astype(int)


def _epochs(stream, steps):
    rows = [_rows(images) for images, _ in stream.as_numpy_iterator()]
    return [np.concatenate(rows[i : i + steps]) for i in range(0, len(rows), steps)]


def test_every_epoch_is_another_order_of_distinct_examples(split):
    epochs = _epochs(_training(split), steps=6)
    assert len(epochs) == 3
    for rows in epochs:
        assert len(rows) == len(set(rows)) == 48
    assert len({tuple(rows) for rows in epochs}) == 3
    assert set(epochs[0]) != set(epochs[1])
    np.testing.assert_array_equal(epochs[0], _epochs(_training(split), 6)[0])
    assert not np.array_equal(epochs[0], _epochs(_training(split, seed=6), 6)[0])


def test_the_rest_of_an_epoch_can_be_kept(split):
    stream = _training(split, drop_remainder=False)
    assert int(stream.cardinality()) == 21
    assert data.steps_per_epoch(split, 8, drop_remainder=False) == 7
    for rows in _epochs(stream, steps=7):
        np.testing.assert_array_equal(np.sort(rows), np.arange(ROWS))


@pytest.mark.parametrize(
    "name", [None, *(pytest.param(step, marks=pytest.mark.slow) for step in STEPS), "all"]
)
def test_resuming_gives_the_batches_of_an_uninterrupted_run(split, name):
    names = [] if name is None else list(STEPS) if name == "all" else [name]
    whole = list(_training(split, augmentation=_augment(names)).as_numpy_iterator())
    tf.random.set_seed(1234)
    resumed = _training(split, first_epoch=2, augmentation=_augment(names))
    resumed = list(resumed.as_numpy_iterator())
    assert len(whole) == 18
    assert len(resumed) == data.steps_per_epoch(split, 8) == 6
    for (images, labels), (again, labels_again) in zip(whole[12:], resumed, strict=True):
        np.testing.assert_array_equal(images, again)
        np.testing.assert_array_equal(labels, labels_again)


def _augment(names):
    options = {"rand_augment": {"layers": 1}}  # ten operations a layer take seconds to trace
    return data.Augmentation({name: options.get(name, {}) for name in names}, 10)


def test_views_differ_between_epochs(split):
    augment = _augment(["shift"])
    plain = {int(_rows(i[np.newaxis])[0]): i for i in _images(_training(split, epochs=1))}
    one = _training(split, epochs=1, augmentation=augment)
    two = _training(split, epochs=2, first_epoch=1, augmentation=augment)
    assert len(plain) == 48
    stacks = [np.stack(sorted(_images(stream), key=np.sum)) for stream in (one, two)]
    assert not np.array_equal(*stacks)


def _images(stream):
    return [image for images, _ in stream.as_numpy_iterator() for image in images]


def test_labels_normalization_and_static_shapes(split):
    normalization = from_data(split)
    stream = _training(split, normalization=normalization)
    images_spec, labels_spec = stream.element_spec
    assert images_spec == tf.TensorSpec((8, 6, 6, 3), tf.float32)
    assert labels_spec == tf.TensorSpec((8,), tf.int64)
    expected = normalization.apply(split.images)
    by_row = _training(split, epochs=1)
    for (images, labels), (plain, _) in zip(
        stream.take(6).as_numpy_iterator(), by_row.as_numpy_iterator(), strict=True
    ):
        rows = _rows(plain)
        np.testing.assert_array_equal(images, expected[rows])
        np.testing.assert_array_equal(labels, split.labels[rows])


def test_evaluation_is_everything_in_order(split):
    for batch_size in (7, 50, 1000):
        stream = data.evaluation(split, batch_size=batch_size, normalization=IDENTITY)
        batches = list(stream.as_numpy_iterator())
        images, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
        np.testing.assert_array_equal(images, IDENTITY.apply(split.images))
        np.testing.assert_array_equal(labels, split.labels)


def test_memory_mapped_data_gives_the_same_batches(tmp_path):
    digits = data.load("digits", limit=64)
    mapped = data.save(digits, tmp_path)
    for one, other in zip(_training(digits.train), _training(mapped.train), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_bad_sizes(split):
    with pytest.raises(InputError, match="batch_size 51 cannot be used with 50 examples"):
        _training(split, batch_size=51)
    with pytest.raises(InputError, match="batch_size 0"):
        data.steps_per_epoch(split, 0)
    with pytest.raises(InputError, match="batch_size 0"):
        data.evaluation(split, batch_size=0, normalization=IDENTITY)
    with pytest.raises(InputError, match="first_epoch 4 is out of range; give 0 to 3"):
        _training(split, first_epoch=4)
    assert list(_training(split, first_epoch=3)) == []


def test_two_replicas_share_each_global_batch(split):
    strategy = two_replicas()
    augment = _augment(["horizontal_flip", "mix_up"])
    stream = _training(split, epochs=2, augmentation=augment)
    shared = list(strategy.experimental_distribute_dataset(stream))
    assert len(shared) == 12
    for (images, labels), batch in zip(shared, stream, strict=True):
        per_replica = [strategy.experimental_local_results(part) for part in (images, labels)]
        assert [len(part) for part in per_replica[0]] == [4, 4]
        for parts, whole in zip(per_replica, batch, strict=True):
            np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_two_replicas_evaluate_every_example_once(split):
    strategy = two_replicas()
    stream = data.evaluation(split, batch_size=8, normalization=IDENTITY)
    seen = [
        _rows(part.numpy())
        for images, _ in strategy.experimental_distribute_dataset(stream)
        for part in strategy.experimental_local_results(images)
    ]
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(ROWS))


def test_two_workers_share_each_global_batch(split):
    """What `tf.distribute` does on each of two workers: rebatch, then keep one's part."""
    from tensorflow.python.data.experimental.ops import distribute

    stream = _training(split, epochs=2)
    assert int(distribute.compute_batch_size(stream)) == 8
    policy = stream.options().experimental_distribute.auto_shard_policy
    assert policy == tf.data.experimental.AutoShardPolicy.DATA
    parts = []
    for worker in (0, 1):
        sizes = distribute.batch_sizes_for_worker(8, 2, 1, worker)
        mine = distribute._AutoShardDataset(stream.rebatch(sizes), 2, worker, 2)
        parts.append([_rows(images) for images, _ in mine.as_numpy_iterator()])
    for one, two, (images, _) in zip(*parts, stream.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(np.concatenate([one, two]), _rows(images))
