"""A student's training in stages."""

import dataclasses
import functools
import json
import pathlib
import types
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from ml_collections import ConfigDict
from nets import assert_differ, assert_same, batch, net, one_line, values

import kd_keras as kd
from kd_keras.errors import InputError
from kd_keras.pipeline import batches, distillation, fitting
from kd_keras.pipeline import config as configuration


def label_loss() -> Any:
    return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def two_stages() -> list[kd.Stage]:
    """A regression of the lower part alone, then soft targets whose weight falls."""
    falling = {"schedule": "linear", "start": 4.0, "end": 1.0}
    return [
        kd.Stage(
            [kd.LogitsL2(), kd.Hint()],
            epochs=2,
            trainable="features",
            optimizer="adam",
            name="lower",
        ),
        kd.Stage([kd.SoftTargets(weight=falling)], epochs=2, label_weight=1.0, optimizer="sgd"),
    ]


def train(student: Any, stages: list[kd.Stage], **kwargs: Any) -> dict:
    x, y = batch(64)
    arguments = {"loss": label_loss(), "batch_size": 16, **kwargs}
    return kd.fit_stages(student, net(8), stages, x, y, **arguments)


def test_each_stage_trains_its_part_with_its_methods() -> None:
    student = net(4, seed=2)
    before = values(student)
    logs = train(student, two_stages()[:1])
    assert_differ(values(student)[:2], before[:2])
    assert_same(values(student)[2:], before[2:])
    expected = ["epoch", "hint", "label_loss", "logits_l2", "loss"]
    assert [sorted(log) for log in logs["lower"]] == [expected] * 2
    logs = train(student, two_stages())
    assert list(logs) == ["lower", "stage2"]
    assert "soft_targets" in logs["stage2"][0]
    assert_differ(values(student)[2:], before[2:])
    assert len(student.trainable_variables) == 4


def test_a_schedule_lasts_for_its_stage() -> None:
    [_, soft] = two_stages()
    [method] = soft.make_distiller(net(4), net(8), steps_per_epoch=5).methods
    assert [float(method.weight(step)) for step in (0, 5, 10, 20)] == [4.0, 2.5, 1.0, 1.0]


def test_stages_are_what_their_distillers_do_one_after_the_other() -> None:
    staged, by_hand = net(4, seed=2), net(4, seed=2)
    stages = [kd.Stage([kd.LogitsL2(weight=w)], epochs=1, optimizer="sgd") for w in (0.1, 0.2)]
    train(staged, stages, loss=None)
    x, y = batch(64)
    epoch_batches, steps = batches.of(x, y, batch_size=16, seed=0)
    for weight in (0.1, 0.2):
        distiller = kd.Distiller(by_hand, net(8), [kd.LogitsL2(weight=weight)])
        distiller.compile("sgd", loss=None)
        distiller.fit(epoch_batches(0), steps_per_epoch=steps, verbose=0)
    assert_same(values(staged), values(by_hand), atol=1e-6)


class Killed(BaseException):
    """What a test throws in the place of a killed process."""


@pytest.mark.parametrize("epochs_before", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_killed_training_ends_with_the_same_weights(
    epochs_before: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    through, resumed, again = (net(4, seed=2) for _ in range(3))
    expected = train(through, two_stages(), directory=tmp_path / "through")
    done = []
    save = fitting._Checkpoints.on_epoch_end

    def save_and_die(self: Any, epoch: int, logs: Any = None) -> None:
        save(self, epoch, logs)
        done.append(epoch)
        if len(done) == epochs_before:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(fitting._Checkpoints, "on_epoch_end", save_and_die)
        with pytest.raises(Killed):
            train(resumed, two_stages(), directory=tmp_path / "resumed")
    logs = train(again, two_stages(), directory=tmp_path / "resumed")
    assert_same(values(again), values(through))
    assert logs == expected
    assert json.loads((tmp_path / "resumed/lower/history.json").read_text()) == expected["lower"]


def test_a_directory_of_other_arguments_is_refused(tmp_path: pathlib.Path) -> None:
    train(net(4, seed=2), two_stages(), directory=tmp_path)
    first, second = two_stages()
    longer = dataclasses.replace(second, epochs=3)
    with pytest.raises(InputError) as error:
        train(net(4, seed=2), [first, longer], directory=tmp_path)
    one_line(error, "stages.stage2.epochs", "another directory")
    again = net(4, seed=2)
    train(again, two_stages(), directory=tmp_path)
    assert_differ(values(again), values(net(4, seed=2)))


def test_another_distiller_a_stage() -> None:
    game = functools.partial(kd.AdversarialDistiller, regularizer="l2")
    stage = kd.Stage(epochs=1, distiller=game, compile={"discriminator_optimizer": "sgd"})
    logs = train(net(4, seed=2), [stage])
    assert "discriminator_accuracy" in logs["stage1"][0]


def test_several_updates_a_batch_stretch_the_schedules() -> None:
    game = functools.partial(
        kd.AdversarialDistiller,
        update_ratio=(1, 2),
        adversarial_weight=kd.schedules.Linear(1.0, 0.0),
    )
    stage = kd.Stage([kd.LogitsL2()], epochs=2, distiller=game)
    distiller = stage.make_distiller(net(4), net(8), steps_per_epoch=5)
    assert distiller.adversarial_weight.steps == 20


class TestBadInput:
    @pytest.mark.parametrize(
        ("stage", "given", "words"),
        [
            ({"trainable": ["logits"]}, {}, ("nothing to train", "'features'")),
            ({"label_weight": 1.0}, {"loss": None}, ("label_weight is 1.0", "loss=")),
            ({"label_weight": 1.0}, {"y": None}, ("the data has none", "y")),
            ({"methods": [kd.ConfidenceWeightedLabels()]}, {"y": None}, ("the data has none",)),
            ({}, {"y": np.full(64, 7)}, ("label 7", "0 to 2")),
        ],
        ids=["not reached", "no loss", "no labels", "method without labels", "out of range"],
    )
    def test_a_later_stage_is_refused_before_the_first_trains(
        self, stage: dict, given: dict, words: tuple, tmp_path: pathlib.Path
    ) -> None:
        student = net(4, seed=2)
        before = values(student)
        x, y = batch(64)
        first = kd.Stage([kd.LogitsL2()], epochs=1)
        later = kd.Stage(**{"methods": [kd.Hint()], "epochs": 1, **stage})
        arguments = {"y": y, "loss": label_loss(), "directory": tmp_path, **given}
        with pytest.raises(InputError) as error:
            kd.fit_stages(student, net(8), [first, later], x, **arguments)
        one_line(error, *words)
        assert_same(values(student), before)
        assert not (tmp_path / "settings.json").exists()

    def test_every_stage_is_looked_at_before_any_training(self) -> None:
        student = net(4, seed=2)
        before = values(student)
        with pytest.raises(InputError) as error:
            train(student, [two_stages()[0], kd.Stage([kd.LogitsL2()], trainable="stage9")])
        one_line(error, "'stage9' is not in the student")
        assert_same(values(student), before)

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"methods": [kd.LogitsL2()], "epochs": 0}, ("epochs", "0", "from 1")),
            ({"name": "empty"}, ("'empty'", "nothing to learn from")),
            ({"methods": [kd.LogitsL2()], "name": "../x"}, ("'../x'", "folder")),
        ],
    )
    def test_stage(self, settings: dict, words: tuple) -> None:
        with pytest.raises(InputError) as error:
            kd.Stage(**settings)
        one_line(error, *words)

    @pytest.mark.parametrize(
        ("stages", "words"),
        [([], ("no stages",)), ([kd.Stage([kd.LogitsL2()], name="a")] * 2, ("'a'", "name="))],
    )
    def test_stages(self, stages: list, words: tuple) -> None:
        with pytest.raises(InputError) as error:
            train(net(4), stages)
        one_line(error, *words)


class TestBatches:
    def test_epochs_differ_and_are_re_entered(self) -> None:
        x, y = np.arange(10.0), np.arange(10)
        from_epoch, steps = batches.of(x, y, batch_size=3, seed=1)
        assert steps == 3
        found = [np.concatenate([b[1] for b in from_epoch(0).skip(3 * e).take(3)]) for e in (0, 1)]
        assert sorted(set(found[0])) != list(found[0]) or list(found[0]) != list(found[1])
        assert len(set(found[0].tolist())) == 9
        again = np.concatenate([b[1] for b in from_epoch(1).take(3)])
        np.testing.assert_array_equal(again, found[1])
        for images, labels in from_epoch(0).take(2):
            np.testing.assert_array_equal(images, labels)

    def test_a_data_set_is_repeated(self) -> None:
        data = tf.data.Dataset.range(4).batch(2)
        from_epoch, steps = batches.of(data, batch_size=1, seed=0)
        assert steps == 2
        assert len(list(from_epoch(0).take(6))) == 6

    @pytest.mark.parametrize(
        ("x", "y", "batch_size", "words"),
        [
            (np.zeros(4), np.zeros(3), 1, ("4 examples", "y 3")),
            (np.zeros(4), None, 5, ("batch_size 5", "1 to 4")),
            (tf.data.Dataset.range(4).batch(2), np.zeros(4), 2, ("y is given",)),
            (tf.data.Dataset.range(4).repeat(), None, 2, ("assert_cardinality",)),
        ],
    )
    def test_bad_input(self, x: Any, y: Any, batch_size: int, words: tuple) -> None:
        with pytest.raises(InputError) as error:
            batches.of(x, y, batch_size=batch_size, seed=0)
        one_line(error, *words)


def test_methods_are_told_of_the_teachers_logits_only_if_they_ask() -> None:
    logits = np.array([[0.0, 1.0], [4.0, 3.0]])
    plain, asking = kd.Stage([kd.LogitsL2()]), kd.Stage([kd.LogitsL2(standardize=True)])
    assert plain.fitted_to(lambda: pytest.fail("nobody asked")) is plain
    [method] = asking.fitted_to(lambda: logits).methods
    np.testing.assert_allclose(method.std, [2.0, 1.0])


def test_a_game_in_a_config_trains_its_discriminator_with_keras_own_adam() -> None:
    """From a plain dictionary tf_keras would make a legacy optimizer."""
    game = {"adversarial": {"discriminator_learning_rate": 0.25}}
    optimizer = arguments_in_a_config(game)["discriminator_optimizer"]
    assert isinstance(optimizer, tf.keras.optimizers.Adam)
    assert float(optimizer.learning_rate) == 0.25


def test_a_discriminator_slows_down_with_its_student() -> None:
    game = {"discriminator_learning_rate": 0.25, "update_ratio": (2, 1)}
    arguments = arguments_in_a_config({"adversarial": game})
    student, judge = (rates(arguments[name]) for name in ("optimizer", "discriminator_optimizer"))
    for batch_number in range(0, 41, 8):  # 40 updates of the student, 80 of D
        rate = float(student(batch_number))
        np.testing.assert_allclose(rate, 0.25 + 0.25 * np.cos(np.pi * batch_number / 40), atol=1e-6)
        np.testing.assert_allclose(float(judge(2 * batch_number)), rate / 2, atol=1e-6)


def rates(optimizer: Any) -> Any:
    return tf.keras.optimizers.schedules.deserialize(optimizer.get_config()["learning_rate"])


def arguments_in_a_config(game: dict) -> dict[str, Any]:
    """What `compile` is given for a game in a config, 4 epochs of 10 batches."""
    student = {"epochs": 4, "optimizer": {"learning_rate": 0.5}}
    config = configuration.complete(ConfigDict({"student": student, "distillation": game}))
    [stage] = distillation.stages(types.SimpleNamespace(config=config, steps_per_epoch=10))
    return stage.compile_arguments()


@pytest.mark.any_keras
def test_a_directory_belongs_to_its_teacher_of_any_kind(tmp_path: pathlib.Path) -> None:
    stages = [kd.Stage([kd.SoftTargets()], epochs=1, optimizer="sgd", label_weight=0.0)]
    x, _ = batch(64)

    def under(version: str) -> Any:
        uniform = kd.teachers.FunctionTeacher(
            lambda x: np.full((len(x), 3), 1 / 3), classes=3, fingerprint=version
        )
        return kd.fit_stages(net(4), uniform, stages, x, batch_size=16, directory=tmp_path)

    under("1")
    with pytest.raises(InputError) as error:
        under("2")
    one_line(error, "teacher", "made with other settings")
