import doctest

import numpy as np
import pytest
import tensorflow as tf

from kd_keras.data import augmentation
from kd_keras.data.augmentation import STEPS, Augmentation
from kd_keras.data.geometry import HorizontalFlip, PadAndCrop, Shift
from kd_keras.data.mixing import CutMix, MixUp
from kd_keras.data.rand_augment import RandAugment, _apply_one_each
from kd_keras.data.stream import example_seeds
from kd_keras.errors import InputError

CLASSES = 5
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (24, 12, 10, 3), np.uint8)
LABELS = np.arange(24) % CLASSES
SEEDS = example_seeds(seed=7, view=3, rows=tf.range(24, dtype=tf.int64))
QUICK = {"rand_augment": {"layers": 1}}  # ten operations a layer take seconds to trace
SINGLE = [name for name in STEPS if name not in ("mix_up", "cut_mix")]


def _run(spec, images=IMAGES, labels=LABELS, seeds=SEEDS):
    augment = tf.function(Augmentation(spec, CLASSES))
    return [out.numpy() for out in augment(tf.constant(images), tf.constant(labels), seeds)]


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("channels", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_views_follow_from_the_seeds_alone(name, channels):
    images = IMAGES[..., :channels]
    spec = {name: QUICK.get(name, {})}
    once = _run(spec, images)
    tf.random.set_seed(99)
    again = _run(spec, images)
    for first, second in zip(once, again, strict=True):
        np.testing.assert_array_equal(first, second)
    other_seeds = example_seeds(seed=7, view=4, rows=tf.range(24, dtype=tf.int64))
    assert not np.array_equal(once[0], _run(spec, images, seeds=other_seeds)[0])
    assert once[0].shape == images.shape
    assert once[0].min() >= 0
    assert once[0].max() <= 255


@pytest.mark.parametrize("name", SINGLE)
def test_an_examples_view_does_not_depend_on_its_batch(name):
    spec = {name: QUICK.get(name, {})}
    images, labels = _run(spec)
    rows = np.array([20, 3, 11])
    alone, alone_labels = _run(spec, IMAGES[rows], LABELS[rows], tf.gather(SEEDS, rows))
    np.testing.assert_array_equal(alone, images[rows])
    np.testing.assert_array_equal(alone_labels, labels[rows])


def test_seeds_differ_between_examples_views_and_runs():
    rows = tf.range(50, dtype=tf.int64)
    seeds = {
        tuple(seed)
        for run in (0, 1)
        for view in (0, 1)
        for seed in example_seeds(run, view, rows).numpy().tolist()
    }
    assert len(seeds) == 200


def test_horizontal_flip_against_numpy():
    uniform = tf.constant(np.linspace(0, 0.99, 24, dtype=np.float32)[:, np.newaxis])
    images, _ = HorizontalFlip(probability=0.25)(tf.constant(IMAGES), LABELS, uniform)
    for i in range(24):
        expected = IMAGES[i, :, ::-1] if uniform[i, 0] < 0.25 else IMAGES[i]
        np.testing.assert_array_equal(images[i], expected)


@pytest.mark.parametrize("mode", ["constant", "reflect", "symmetric"])
def test_pad_and_crop_against_numpy(mode):
    uniform = RNG.random((24, 2), np.float32)
    uniform[0], uniform[1] = 0, np.nextafter(np.float32(1), np.float32(0))
    images, _ = PadAndCrop(padding=3, mode=mode)(tf.constant(IMAGES), LABELS, tf.constant(uniform))
    padded = np.pad(IMAGES, ((0, 0), (3, 3), (3, 3), (0, 0)), mode)
    for i, (row, column) in enumerate((uniform * 7).astype(int)):
        row, column = min(row, 6), min(column, 6)
        np.testing.assert_array_equal(images[i], padded[i, row : row + 12, column : column + 10])


def test_shift_reaches_every_offset_equally():
    image = np.zeros((900, 5, 5, 1), np.uint8)
    image[:, 2, 2] = 255
    uniform = tf.constant(RNG.random((900, 2), np.float32))
    moved = Shift(pixels=1)(tf.constant(image), np.zeros(900), uniform)[0].numpy()
    counts = (moved[..., 0] == 255).sum(axis=0)
    assert counts.sum() == 900
    assert counts[1:4, 1:4].min() > 60
    assert counts[1:4, 1:4].max() < 140


def test_mix_up_against_numpy():
    uniform = RNG.random((24, 2), np.float32)
    labels = np.eye(CLASSES, dtype=np.float32)[LABELS]
    images, mixed = MixUp(alpha=1.0)(tf.constant(IMAGES), labels, tf.constant(uniform))
    partner, share = np.argsort(uniform[:, 0]), uniform[:, 1]
    for i in range(24):
        expected = share[i] * IMAGES[i] + (1 - share[i]) * IMAGES[partner[i]]
        np.testing.assert_allclose(images[i], expected, atol=1e-3)
        expected = share[i] * labels[i] + (1 - share[i]) * labels[partner[i]]
        np.testing.assert_allclose(mixed[i], expected, atol=1e-6)


def test_mix_up_draws_from_the_beta_distribution():
    uniform = tf.constant(RNG.random((4000, 2), np.float32))
    ones_and_zeros = np.arange(4000, dtype=np.uint8).reshape(-1, 1, 1, 1) % 2
    labels = np.eye(2, dtype=np.float32)[np.arange(4000) % 2]
    _, mixed = MixUp(alpha=0.3)(tf.constant(ones_and_zeros), tf.constant(labels), uniform)
    share = mixed.numpy().max(axis=1)[mixed.numpy().min(axis=1) > 0]  # pairs of unlike examples
    expected = np.random.default_rng(1).beta(0.3, 0.3, 4000)
    assert abs(share.mean() - np.maximum(expected, 1 - expected).mean()) < 0.01


def test_cut_mix_labels_are_the_area_really_pasted():
    images = np.broadcast_to(np.arange(24, dtype=np.uint8).reshape(-1, 1, 1, 1), (24, 12, 10, 1))
    uniform = RNG.random((24, 4), np.float32)
    labels = np.eye(24, dtype=np.float32)
    pasted, mixed = CutMix()(tf.constant(images), tf.constant(labels), tf.constant(uniform))
    partner = np.argsort(uniform[:, 0])
    assert (pasted.numpy() != images).any()
    for i in range(24):
        shares = np.bincount(pasted[i].numpy().ravel(), minlength=24) / 120
        assert set(np.flatnonzero(shares)) <= {i, partner[i]}
        np.testing.assert_allclose(mixed[i], shares, atol=1e-6)


@pytest.mark.parametrize("name", ["mix_up", "cut_mix"])
def test_mixed_labels_are_distributions(name):
    augmentation = Augmentation({name: {}}, CLASSES)
    assert augmentation.mixes_labels
    _, labels = _run({name: {}})
    assert labels.shape == (24, CLASSES)
    np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-6)
    assert ((labels > 0).sum(axis=1) == 2).any()


def _rand_augment(operation, strength, images):
    """One of keras-cv's ten operations, with our draws for its strength."""
    operations = RandAugment(magnitude_stddev=0.0)._operations(channels=3)
    draws = tf.tile(tf.constant([strength], tf.float32), [len(images), 1])
    return operations[operation](tf.constant(images, tf.float32), draws).numpy()


def test_rand_augment_operations_against_numpy():
    images = IMAGES.astype(np.float64)
    low, high = images.min((1, 2), keepdims=True), images.max((1, 2), keepdims=True)
    stretched = (images - low) * 255 / (high - low)
    np.testing.assert_allclose(_rand_augment(0, [0.5] * 3, IMAGES), stretched, atol=1e-3)
    added = np.clip(images + 55, 0, 255)
    solarized = np.where(added < 127.5, added, 255 - added)
    np.testing.assert_allclose(_rand_augment(2, [0.5] * 3, IMAGES), solarized, atol=1e-3)
    mean = images.mean((1, 2), keepdims=True)
    contrast = np.clip((images - mean) * 1.25 + mean, 0, 255)
    np.testing.assert_allclose(_rand_augment(4, [0.75, 0, 0], IMAGES), contrast, atol=1e-2)
    brighter = np.clip(images + 63.75, 0, 255)
    np.testing.assert_allclose(_rand_augment(5, [0.75, 0, 0], IMAGES), brighter, atol=1e-3)


def test_rand_augment_translates_along_its_axis_only():
    columns = np.zeros((2, 12, 10, 3), np.uint8) + np.arange(10, dtype=np.uint8)[:, None] * 20
    rows = np.zeros((2, 12, 10, 3), np.uint8) + np.arange(12, dtype=np.uint8)[:, None, None] * 20
    for operation, moved, still in ((8, columns, rows), (9, rows, columns)):
        np.testing.assert_allclose(_rand_augment(operation, [0.9, 0, 0], still), still, atol=1e-3)
        assert np.abs(_rand_augment(operation, [0.9, 0, 0], moved) - moved).max() > 10


def test_each_image_gets_the_operation_that_its_draw_chooses():
    operations = [lambda images, draws, k=k: images + k for k in (1, 10, 100)]
    draws = tf.constant([[0.0, 0.99], [0.0, 0.0], [0.95, 0.5], [0.5, 0.5]])
    draws = tf.concat([draws, tf.zeros((4, 3))], axis=1)
    out = _apply_one_each(operations, tf.zeros((4, 1, 1, 1)), draws, rate=0.9)
    np.testing.assert_array_equal(tf.reshape(out, [-1]), [100, 1, 0, 10])


def test_rand_augment_rate_zero_changes_nothing():
    images, _ = _run({"rand_augment": {"rate": 0, "layers": 1}})
    np.testing.assert_array_equal(images, IMAGES)


def test_order_is_fixed_and_an_empty_spec_changes_nothing():
    forwards = _run({"horizontal_flip": {}, "shift": {}, "mix_up": {}})
    backwards = _run({"mix_up": {}, "shift": {}, "horizontal_flip": {}})
    np.testing.assert_array_equal(forwards[0], backwards[0])
    np.testing.assert_array_equal(_run({})[0], IMAGES)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"flip": {}}, "'flip' does not exist; there are: horizontal_flip, pad_and_crop, shift"),
        ({"shift": {"pixel": 2}}, "shift has no hyperparameter 'pixel'; it has: pixels"),
        ({"shift": {"pixels": -1}}, r"shift\.pixels -1 is out of range"),
        ({"shift": {"pixels": 1.5}}, "whole number"),
        ({"horizontal_flip": {"probability": 1.5}}, r"probability 1\.5 is out of range"),
        ({"pad_and_crop": {"mode": "wrap"}}, "'wrap' is unknown; there are: constant, reflect"),
        ({"mix_up": {"alpha": 0}}, r"mix_up\.alpha 0"),
        ({"cut_mix": {"alpha": float("nan")}}, r"cut_mix\.alpha nan"),
        ({"rand_augment": {"layers": 0}}, r"rand_augment\.layers 0"),
        ({"rand_augment": {"magnitude": 9}}, "magnitude 9"),
    ],
)
def test_bad_specs(spec, message):
    with pytest.raises(InputError, match=message):
        Augmentation(spec, CLASSES)


def test_too_much_reflection_is_refused():
    with pytest.raises(InputError, match="padding 10 is too much to reflect images of 10 pixels"):
        PadAndCrop(10, "reflect")(tf.constant(IMAGES), LABELS, tf.zeros((24, 2)))


def test_the_documented_example():
    assert doctest.testmod(augmentation) == (0, 2)
