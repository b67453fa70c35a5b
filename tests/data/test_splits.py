import numpy as np
import pytest
from nets import one_line

from kd_keras.data.selection import stratified, transfer_set
from kd_keras.data.splits import Dataset, Split, checksum
from kd_keras.errors import InputError

pytestmark = pytest.mark.any_keras


def _split(n=6, classes=3, shape=(4, 5, 1), seed=0):
    rng = np.random.default_rng(seed)
    return Split(
        rng.integers(0, 256, (n, *shape), np.uint8), np.arange(n, dtype=np.int64) % classes
    )


def _dataset(**changes):
    parts = {
        "name": "toy",
        "class_names": ("a", "b", "c"),
        "train": _split(seed=1),
        "validation": _split(seed=2),
        "test": _split(seed=3),
    }
    return Dataset(**{**parts, **changes})


IMAGES = np.zeros((3, 2, 2, 1), np.uint8)
LABELS = np.zeros(3, np.int64)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES.astype(np.float32), LABELS, "float32"),
        (IMAGES[..., 0], LABELS, r"\(3, 2, 2\)"),
        (IMAGES, np.eye(3, dtype=np.int64), "one-hot"),
        (IMAGES, LABELS.astype(np.float64), "float64"),
        (IMAGES, LABELS[:2], "3 images have 2 labels"),
        (IMAGES[:0], LABELS[:0], "no examples"),
        (IMAGES, LABELS - 1, "label -1"),
    ],
)
def test_split_refuses(images, labels, message):
    with pytest.raises(InputError, match=message):
        Split(images, labels)


def test_dataset_refuses_a_label_without_a_class_and_unequal_image_shapes():
    with pytest.raises(InputError, match=r"label 2 in the train split of 'toy'.*0\.\.1"):
        _dataset(class_names=("a", "b"))
    with pytest.raises(InputError, match="test images"):
        _dataset(test=_split(shape=(4, 4, 1)))


def test_checksum_sees_every_part_and_nothing_else():
    reference = checksum(_dataset())
    assert reference == checksum(_dataset(name="other", notes=("a note.",)))
    one_pixel = _split(seed=3)
    one_pixel.images[-1, -1, -1, -1] ^= 1
    swapped = {"train": _split(seed=2), "validation": _split(seed=1)}
    changed = [
        _dataset(class_names=("a", "c", "b")),
        _dataset(test=one_pixel),
        _dataset(test=Split(_split(seed=3).images, (_split().labels + 1) % 3)),
        _dataset(**swapped),
    ]
    assert len({reference, *map(checksum, changed)}) == 5


def test_stratified_keeps_every_class_in_its_share():
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    np.random.default_rng(0).shuffle(labels)
    chosen = stratified(labels, 100, seed=3)
    np.testing.assert_array_equal(np.bincount(labels[chosen]), [60, 30, 10])
    assert np.all(np.diff(chosen) > 0)
    np.testing.assert_array_equal(chosen, stratified(labels, 100, seed=3))
    assert set(chosen) != set(stratified(labels, 100, seed=4))
    assert set(chosen) <= set(stratified(labels, 150, seed=3))


def test_a_transfer_set_is_balanced_and_without_what_is_left_out():
    labels = np.repeat(np.arange(10), 40)
    settings = {"classes": 10, "without_classes": (3,), "seed": 5}
    whole = transfer_set(labels, share=1.0, **settings)
    np.testing.assert_array_equal(whole, np.flatnonzero(labels != 3))
    tenth = transfer_set(labels, share=0.1, **settings)
    counts = np.bincount(labels[tenth], minlength=10)
    np.testing.assert_array_equal(counts, [4, 4, 4, 0, 4, 4, 4, 4, 4, 4])
    assert set(tenth) < set(transfer_set(labels, share=0.5, **settings)) < set(whole)
    others = transfer_set(labels, share=0.1, **{**settings, "seed": 6})
    assert set(tenth) != set(others)


@pytest.mark.parametrize(
    ("share", "without", "words"),
    [
        (1.0, (10,), ("class 10", "0 to 9")),
        (1.0, ("three",), ("class 'three'",)),
        (1.0, range(10), ("leaves none",)),
        (1e-4, (), ("share 0.0001", "leaves none")),
    ],
)
def test_an_impossible_transfer_set_is_refused(share, without, words):
    labels = np.repeat(np.arange(10), 40)
    with pytest.raises(InputError) as error:
        transfer_set(labels, 10, share=share, without_classes=without, seed=0)
    one_line(error, *words)


def test_stratified_with_fewer_places_than_classes_is_not_always_the_first():
    labels = np.arange(10)
    assert len({int(stratified(labels, 1, seed)[0]) for seed in range(20)}) > 3
    assert len(stratified(labels, 99, seed=0)) == 10
