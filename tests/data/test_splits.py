import numpy as np
import pytest

from kd_keras.data.selection import stratified
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


def test_stratified_with_fewer_places_than_classes_is_not_always_the_first():
    labels = np.arange(10)
    assert len({int(stratified(labels, 1, seed)[0]) for seed in range(20)}) > 3
    assert len(stratified(labels, 99, seed=0)) == 10
