"""`examine` on teachers whose answers are known, and its warnings."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from nets import one_line

from kd_keras import data, models
from kd_keras.errors import InputError
from kd_keras.taps import Outputs
from kd_keras.teachers import Ensemble, KerasTeacher, Teacher, class_order, evaluation
from kd_keras.teachers.function import FunctionTeacher
from kd_keras.teachers.quality import Quality, examine

TEACHERS = pathlib.Path(__file__).resolve().parents[3] / "shared" / "teachers"
CIFAR = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Told(Teacher):
    """Gives what a function of the batch gives as logits."""

    def __init__(self, logits: Callable[[Any], Any]) -> None:
        self._logits = logits
        self.asked = 0

    def outputs(self, x: Any, layers: Any = ()) -> Outputs:
        self._count()
        return Outputs(self._logits(x), {})

    def _count(self) -> None:
        def add() -> None:
            self.asked += 1

        tf.py_function(add, [], [])

    def specs(self, layers: Any = ()) -> None:
        return None

    def input_specs(self) -> None:
        return None


def identity() -> Told:
    """Takes logits for its input."""
    return Told(lambda x: tf.cast(x, tf.float32))


def answers(said: Any, classes: int, *, logit: float = 4.0) -> np.ndarray:
    """The logits of a teacher that says these classes."""
    return logit * np.eye(classes, dtype="float32")[np.asarray(said)]


def labels(examples: int, classes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, examples)


def wrong_in(y: np.ndarray, share: float, classes: int, seed: int = 1) -> np.ndarray:
    """The labels, but any class in a share of the examples."""
    generator = np.random.default_rng(seed)
    return np.where(generator.random(len(y)) < share, labels(len(y), classes, seed + 1), y)


def warning(quality: Quality, *words: str) -> str:
    """The one warning, which is a line with a cause and a cure and holds the words."""
    [text] = quality.warnings()
    assert "\n" not in text
    for word in ("likely cause", "cure", *words):
        assert word in text, f"{word!r} is not in: {text}"
    return text


def expected_calibration_error(z: np.ndarray, y: np.ndarray) -> float:
    """Guo et al. 2017, equation 3, bin by bin."""
    z = z.astype(np.float64)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    total = 0.0
    for m in range(1, 16):
        inside = [i for i in range(len(y)) if (m - 1) / 15 < p[i].max() <= m / 15]
        if inside:
            right = sum(p[i].argmax() == y[i] for i in inside) / len(inside)
            confidence = sum(p[i].max() for i in inside) / len(inside)
            total += len(inside) / len(y) * abs(right - confidence)
    return total


@pytest.mark.any_keras
class TestFigures:
    def test_accuracy_and_calibration(self) -> None:
        z = np.random.default_rng(3).normal(0, 1.5, (700, 5)).astype("float32")
        y = wrong_in(z.argmax(axis=1), 0.3, 5)
        quality = examine(identity(), (z[:300], y[:300]), (z[300:], y[300:]))
        assert quality.train_accuracy == pytest.approx((z.argmax(1) == y)[:300].mean())
        assert quality.validation_accuracy == pytest.approx((z.argmax(1) == y)[300:].mean())
        assert (quality.train_examples, quality.validation_examples) == (300, 400)
        assert quality.calibration_error == pytest.approx(
            expected_calibration_error(z[300:], y[300:]), abs=1e-6
        )
        assert quality.classes == 5
        assert quality.warnings() == []

    def test_calibration_at_the_borders_of_the_bins(self) -> None:
        hits = np.array([True, False, True, True])
        assert evaluation.calibration_error(np.array([0.0, 1.0, 1.0, 0.2]), hits) == pytest.approx(
            (1 + 1 + 0.8) / 4
        )
        # 0.5 closes the first of two bins.
        found = evaluation.calibration_error(np.array([0.75, 0.5]), hits[:2], bins=2)
        assert found == pytest.approx((0.25 + 0.5) / 2)

    @pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
    def test_members(self, mean: str) -> None:
        y = labels(400, 4)
        said = [wrong_in(y, 0.1, 4), wrong_in(y, 0.4, 4, seed=5), y]
        x = tuple(answers(one, 4) for one in said)

        def member(number: int) -> Told:
            return Told(lambda x: x[number])

        teacher = Ensemble({name: member(i) for i, name in enumerate(("a", "b", "c"))}, mean=mean)
        quality = examine(teacher, (x, y), (x, y))
        pairs = [(0, 1), (0, 2), (1, 2)]
        agreement = np.mean([(said[i] == said[j]).mean() for i, j in pairs])
        assert quality.agreement == pytest.approx(agreement)
        assert quality.member_accuracy == pytest.approx(
            {name: (one == y).mean() for name, one in zip("abc", said, strict=True)}
        )
        assert f"members agree on {100 * agreement:.1f} % (a 9" in quality.describe()

    def test_members_of_members(self) -> None:
        y = labels(50, 4)
        inner = Ensemble({"a": identity(), "b": identity()})
        quality = examine(Ensemble({"inner": inner, "c": identity()}), *[(answers(y, 4), y)] * 2)
        assert quality.member_accuracy == {"1": 1.0, "2": 1.0, "3": 1.0}

    def test_description_and_report(self) -> None:
        y = labels(40, 4)
        x = answers(y, 4, logit=50)
        quality = examine(identity(), (x, y), (x[:20], (y[:20] + (np.arange(20) < 1)) % 4))
        assert quality.describe() == (
            "teacher: accuracy 100.0 % on train (40 examples), 95.0 % on validation (20), "
            "calibration error 5.0 %"
        )
        report = json.loads(json.dumps(quality.to_json()))
        assert report["validation_accuracy"] == 0.95
        assert (report["agreement"], report["warnings"]) == (None, [])

    def test_without_validation(self) -> None:
        y = labels(500, 10)
        quality = examine(Ensemble([identity(), identity()]), (answers(y, 10), y))
        assert quality.describe() == "teacher: accuracy 100.0 % on train (500 examples)"
        assert quality.calibration_error is quality.agreement is quality.validation_accuracy is None
        quality = examine(identity(), (answers((y + 1) % 10, 10), y))
        warning(quality, "on train is 0.0 %", "100.0 % with its classes in another order")


class TestExamples:
    def test_a_seeded_sample(self) -> None:
        y = np.repeat([0, 1], 500)
        x = np.concatenate([answers(y[:500], 2), answers(1 - y[500:], 2)])
        shares = [examine(identity(), (x, y), examples=100, seed=seed) for seed in (0, 0, 1)]
        assert shares[0] == shares[1] != shares[2]
        assert shares[0].train_examples == 100
        assert 0.3 < shares[0].train_accuracy < 0.7

    def test_a_data_set_gives_its_first(self) -> None:
        y = labels(100, 3)
        x = answers(np.where(np.arange(100) < 45, y, (y + 1) % 3), 3)
        batches = tf.data.Dataset.from_tensor_slices(({"inputs": x}, np.eye(3)[y])).batch(10)
        quality = examine(Told(lambda x: x["inputs"]), batches.repeat(), examples=45)
        assert (quality.train_examples, quality.train_accuracy) == (45, 1.0)

    @pytest.mark.parametrize(
        ("given", "settings", "words"),
        [
            ((answers([0], 3), [3]), {}, ["label 3", "train", "3 classes", "0 to 2"]),
            ((answers([0], 3), [-1]), {}, ["label -1"]),
            ((answers([0], 3), [0, 1]), {}, ["train", "(1,), (2,)"]),
            ((np.zeros((0, 3)), []), {}, ["train", "empty"]),
            (answers([0], 3), {}, ["ndarray", "(x, y)"]),
            (tf.data.Dataset.from_tensors(answers([0], 3)), {}, ["no labels"]),
            ((answers([0], 3) * np.nan, [0]), {}, ["NaN", "1 of 1", "config.data.mean"]),
            ((answers([0], 3), [0]), {"examples": 0}, ["examples is 0"]),
        ],
    )
    def test_bad_input(self, given: Any, settings: dict, words: list[str]) -> None:
        with pytest.raises(InputError) as error:
            examine(identity(), given, **settings)
        one_line(error, *words)

    def test_a_teachers_refusal_is_raised_as_it_is(self) -> None:
        model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Softmax()])
        with pytest.raises(InputError) as error:
            examine(KerasTeacher(model, from_logits=True), (answers([0], 3), [0]))
        one_line(error, "softmax", "from_logits=False")
        with pytest.raises(InputError) as error:
            examine(FunctionTeacher(lambda x: x * np.nan, classes=3), (answers([0], 3), [0]))
        one_line(error, "not finite")


@pytest.mark.any_keras
class TestChance:
    @pytest.mark.parametrize(("classes", "examples"), [(2, 300), (10, 50), (10, 2000), (100, 500)])
    def test_a_random_teacher(self, classes: int, examples: int) -> None:
        y, said = labels(examples, classes), labels(examples, classes, seed=7)
        quality = examine(identity(), (answers(said, classes), y))
        assert quality.train_accuracy < quality.chance + 0.05
        warning(quality, "not trained", "config.teacher.path")

    def test_chance_is_the_share_of_the_most_frequent_class(self) -> None:
        y = np.where(np.arange(400) % 10 < 9, 1, labels(400, 5))
        constant = examine(identity(), (answers(np.ones_like(y), 5), y))
        assert constant.chance == pytest.approx((y == 1).mean())
        warning(constant, f"{100 * constant.chance:.1f} % is had by always naming")
        assert examine(identity(), (answers(wrong_in(y, 0.03, 5), 5), y)).warnings() == []

    def test_a_weak_teacher_is_not_warned_of(self) -> None:
        y = labels(2000, 10)
        assert examine(identity(), (answers(wrong_in(y, 0.8, 10), 10), y)).warnings() == []


@pytest.mark.any_keras
class TestOrder:
    @pytest.mark.parametrize("examples", [100, 2000])
    def test_a_permuted_teacher(self, examples: int) -> None:
        y = labels(examples, 10)
        order = np.roll(np.arange(10), 3)
        said = order[wrong_in(y, 0.2, 10)]
        quality = examine(identity(), *[(answers(said, 10), y)] * 2)
        text = warning(quality, "another order", "(it says class ", "and 7 more", "class_map")
        assert text.count(" for class ") == 3
        assert quality.validation_accuracy == pytest.approx((said == y).mean())
        assert quality.reordered_accuracy == pytest.approx((said == order[y]).mean(), abs=0.1)
        assert sorted(quality.misplaced) == [(f"class {i}", f"class {order[i]}") for i in range(10)]

    def test_two_swapped_classes_are_named(self) -> None:
        y = labels(1000, 10)
        order = np.array([0, 1, 2, 5, 4, 3, 6, 7, 8, 9])
        names = [f"n{number}" for number in range(10)]
        x = answers(order[wrong_in(y, 0.1, 10)], 10)
        quality = examine(identity(), (x, y), class_names=names)
        text = warning(quality, "'n3' for 'n5'", "'n5' for 'n3'")
        assert "more)" not in text

    def test_a_gain_by_chance_is_none(self) -> None:
        """The permutation of all examples would gain much; judged on others, it gains nothing."""
        y, said = labels(60, 10), labels(60, 10, seed=9)
        gained = sum((said[y == a] == b).mean() for a, b in class_order.misplaced(y, said)) / 10
        assert gained > (said == y).mean() + 0.1
        assert class_order.reordered_accuracy(y, said) < (said == y).mean() + 0.05

    def test_very_many_classes(self) -> None:
        y = labels(2000, 5) * 100_000
        assert class_order.reordered_accuracy(y, y + 7) == 1.0
        assert class_order.reordered_accuracy(y, y) == 1.0


#: The colours, as pixels, of pictures of four classes.
COLOURS = np.array([(4, 8, 96), (100, 64, 8), (36, 80, 12), (68, 24, 40)], np.float32)
#: Ranges by name, the mean and std of the config that give them.
RANGES: dict[str, tuple] = {"0..255": (0, 1 / 255), "0..1": (0, 1), "-1..1": (0.5, 0.5)}


def pictures(examples: int) -> tuple[np.ndarray, np.ndarray]:
    y = labels(examples, 4)
    noise = np.random.default_rng(2).integers(-9, 10, (examples, 2, 2, 3))
    return np.clip(COLOURS[y][:, None, None] + noise, 0, 255).astype(np.uint8), y


def normalised(mean: Any, std: Any) -> Callable[[Any], Any]:
    return data.Normalization(np.atleast_1d(mean), np.atleast_1d(std)).apply


def wants(prepare: Callable[[Any], Any]) -> Told:
    """A teacher that finds the colour, if the pictures are prepared so; else it says class 0."""
    colours = tf.constant(prepare(COLOURS))
    near = 0.2 * tf.norm(colours[3] - colours[2])

    def logits(x: Any) -> Any:
        distances = tf.norm(tf.reduce_mean(x, [1, 2])[:, tf.newaxis] - colours, axis=-1)
        return tf.cast(distances < near, tf.float32)

    return Told(logits)


@pytest.mark.any_keras
class TestInput:
    @pytest.mark.parametrize(
        ("given", "wanted", "words"),
        [
            ("0..1", "0..255", ["pixels in 0..255", "mean=(0,)", "std=(0.00392157,)"]),
            ("0..255", "0..1", ["pixels in 0..1", "mean=(0,)", "std=(1,)"]),
            ("0..255", "-1..1", ["pixels in -1..1", "mean=(0.5,)", "std=(0.5,)"]),
            ("0..1", None, ["standardised by the training images", "mean=()", "std=()"]),
        ],
    )
    def test_another_range(self, given: str, wanted: str | None, words: list[str]) -> None:
        x, y = pictures(300)
        own = (x / 255).mean((0, 1, 2)), (x / 255).std((0, 1, 2))
        teacher = wants(normalised(*(RANGES[wanted] if wanted else own)))
        quality = examine(teacher, (x, y), (x, y), preprocess=normalised(*RANGES[given]))
        warning(quality, "on images as it gets them", "100.0 % with", *words)
        assert f"pixels in {given}" not in quality.other_inputs
        assert len(quality.other_inputs) == 4
        assert json.loads(json.dumps(quality.to_json()))["other_inputs"] == quality.other_inputs

    def test_swapped_channels(self) -> None:
        x, y = pictures(300)
        apply = normalised(*RANGES["0..1"])
        quality = examine(wants(lambda x: apply(x[..., ::-1])), (x, y), preprocess=apply)
        warning(quality, "colour channels the other way round", "swaps the channels")
        constant = Told(lambda x: tf.tile([[1.0, 0, 0, 0]], [tf.shape(x)[0], 1]))
        assert len(examine(constant, (x[..., :1], y), preprocess=apply).other_inputs) == 3

    def test_pixels_that_are_given_as_they_are(self) -> None:
        x, y = pictures(300)
        teacher = wants(normalised(*RANGES["0..1"]))
        by_pixels = Told(lambda x: teacher._logits(tf.cast(x, tf.float32)))
        warning(examine(by_pixels, (x, y)), "pixels in 0..1")

    def test_a_good_teacher_runs_once_on_each_split(self) -> None:
        x, y = pictures(200)
        apply = normalised(*RANGES["0..1"])
        for prepare, batches in ((apply, 4), (normalised(*RANGES["0..255"]), 4 + 4 * 2)):
            teacher = wants(prepare)
            quality = examine(teacher, (x, y), (x, y), preprocess=apply)
            assert bool(quality.other_inputs) == (batches > 4)
            assert teacher.asked == batches

    def test_what_is_no_image_is_not_tried(self) -> None:
        y = labels(50, 4)
        quality = examine(identity(), (answers(y * 0, 4), y))
        assert quality.other_inputs == {}
        warning(quality, "or its inputs are in another range")

    def test_a_range_that_the_teacher_refuses(self) -> None:
        x, y = pictures(200)

        def logits(x: Any) -> Any:
            with tf.control_dependencies([tf.debugging.assert_less(x, 1.5)]):
                return tf.one_hot(tf.zeros(tf.shape(x)[0], tf.int32), 4)

        quality = examine(Told(logits), (x, y), preprocess=normalised(*RANGES["0..1"]))
        assert "pixels in -1..1" in quality.other_inputs
        assert "pixels in 0..255" not in quality.other_inputs
        assert "range" not in warning(quality, "not trained")

    def test_a_constant_channel(self) -> None:
        x, y = pictures(200)
        mean, std = (x / 255).mean((0, 1, 2)), (x / 255).std((0, 1, 2))
        x[..., 1] = 0
        apply = normalised((mean[0], 0, mean[2]), (std[0], 1, std[2]))
        teacher = wants(lambda x: apply(x * np.float32([1, 0, 1])))
        quality = examine(teacher, (x, y), preprocess=normalised(*RANGES["0..1"]))
        assert quality.other_inputs["pixels standardised by the training images"] == 1.0


class TestMargins:
    """A cause is named if it explains a third of the errors, 5 points, and more than chance."""

    @pytest.mark.parametrize(
        ("accuracy", "other", "examples", "is_named"),
        [
            (0.10, 0.45, 2000, True),
            (0.10, 0.30, 2000, False),  # what untrained networks gain
            (0.86, 0.95, 2000, True),
            (0.95, 0.99, 2000, False),
            (0.30, 0.60, 20, False),
        ],
    )
    def test_cases(self, accuracy: float, other: float, examples: int, is_named: bool) -> None:
        y = labels(200, 10)
        plain = examine(identity(), (answers(y, 10), y))
        quality = dataclasses.replace(plain, train_accuracy=accuracy, train_examples=examples)
        for changed in ({"reordered_accuracy": other}, {"other_inputs": {"pixels in 0..1": other}}):
            found = dataclasses.replace(quality, reordered_accuracy=accuracy)
            found = dataclasses.replace(found, **changed)
            assert bool([w for w in found.warnings() if f"{100 * other:.1f} %" in w]) == is_named

    def test_an_untrained_network_is_not_called_permuted(self) -> None:
        """Its answers do depend on the class, so that a permutation gains something real."""
        digits = data.load("digits").train
        for seed in range(5):
            tf.keras.utils.set_random_seed(seed)
            dense = [tf.keras.layers.Dense(32, "relu"), tf.keras.layers.Dense(10)]
            start = [tf.keras.Input((8, 8, 1)), tf.keras.layers.Flatten()]
            teacher = KerasTeacher(tf.keras.Sequential(start + dense))
            quality = examine(teacher, (digits.images, digits.labels), preprocess=_between_0_and_1)
            assert not [text for text in quality.warnings() if "order" in text]


def _between_0_and_1(x: Any) -> Any:
    return (x / 255).astype("float32")


@functools.cache
def cifar(tfds_dir: str) -> Any:
    return data.load("cifar10", data_dir=tfds_dir, limit=300)


@functools.cache
def resnet56() -> KerasTeacher:
    path = TEACHERS / "cifar10_resnet56.npz"
    if not path.is_file():
        pytest.skip(f"no trained teacher: {path} is not there")
    model = models.build("resnet56", classes=10, input_shape=(32, 32, 3), shortcut="A")
    models.load_weights(model, path)
    return KerasTeacher(model)


@pytest.mark.any_keras
@pytest.mark.parametrize(
    ("mean", "std", "is_right"),
    [
        (*CIFAR, True),
        ((0,), (1 / 255,), False),
        pytest.param((0,), (1,), False, marks=pytest.mark.slow),
    ],
    ids=["as trained", "0..255", "0..1"],
)
def test_a_trained_teacher(tfds_dir: str, mean: Any, std: Any, is_right: bool) -> None:
    loaded = cifar(tfds_dir)
    quality = examine(
        resnet56(),
        (loaded.train.images, loaded.train.labels),
        (loaded.test.images, loaded.test.labels),
        preprocess=data.Normalization(mean, std).apply,
        class_names=loaded.class_names,
    )
    if not is_right:
        warning(quality, "on images as it gets them", "with pixels ")
        return
    assert quality.warnings() == []
    assert quality.train_accuracy > 0.97
    assert 0.88 < quality.accuracy < 0.98
    assert 0.0 < quality.calibration_error < 0.1
