"""Schedules: their values, their forms in a config, and what they do in `fit`."""

import pathlib
from typing import Any

import numpy as np
import oracles
import pytest
import tensorflow as tf
from nets import assert_same, batch, net, one_line, values
from oracles import Arrays

import kd_keras as kd
from kd_keras import methods, schedules
from kd_keras.errors import InputError
from kd_keras.schedules import Cosine, Linear, Step

keras: Any = tf.keras
RATE = 0.5


def reference(kind: str, start: float, end: float, steps: int, step: int) -> float:
    """From the words: the share of the way that is gone."""
    share = min(step / steps, 1.0)
    if kind == "linear":
        return (1 - share) * start + share * end
    if kind == "cosine":
        return start + (end - start) * (1 - np.cos(np.pi * share)) / 2
    return start if step < steps / 2 else end


@pytest.mark.any_keras
class TestValues:
    @pytest.mark.parametrize("kind", ["linear", "cosine", "step"])
    @pytest.mark.parametrize(("start", "end"), [(4, 1), (0.5, 3.25)])
    def test_at_every_step_and_after_the_last(self, kind: str, start: float, end: float) -> None:
        schedule = schedules.get({"schedule": kind, "start": start, "end": end, "steps": 7})
        for step in range(10):
            for given in (step, tf.constant(step, tf.int64), tf.Variable(step, dtype=tf.int64)):
                value = schedules.at(schedule, given)
                assert (value.dtype, value.shape) == (tf.float32, ())
                np.testing.assert_allclose(value, reference(kind, start, end, 7, step), rtol=1e-6)

    @pytest.mark.parametrize(("at", "jump"), [(0.8, 8), (0.25, 3), (1.0, 10)])
    def test_a_step_jumps_at_its_share(self, at: float, jump: int) -> None:
        found = [float(Step(4, 1, 10, at=at)(step)) for step in range(12)]
        assert found == [4.0] * jump + [1.0] * (12 - jump)

    def test_the_same_in_a_graph_and_under_xla(self) -> None:
        for schedule in (Linear(4, 1, 7), Cosine(4, 1, 7), Step(4, 1, 7)):
            for jit in (False, True):
                run = tf.function(schedule, jit_compile=jit, autograph=False)
                found = [float(run(tf.constant(step, tf.int64))) for step in range(9)]
                np.testing.assert_allclose(found, [schedule(s) for s in range(9)], rtol=1e-6)

    def test_a_number_is_itself(self) -> None:
        assert (schedules.at(schedules.get(2), 5), schedules.get(np.float32(0.5))) == (2.0, 0.5)
        assert schedules.config(schedules.get(2)) == 2.0

    def test_a_long_training_ends_exactly(self) -> None:
        assert float(Linear(4, 1, 10_000_000)(10_000_000)) == 1.0


@pytest.mark.any_keras
class TestForms:
    @pytest.mark.parametrize("schedule", [Linear(4, 1), Cosine(4, 1, 9), Step(4, 1, 9, at=0.75)])
    def test_a_config_and_back(self, schedule: Any) -> None:
        config = schedule.get_config()
        assert config["schedule"] == schedule.kind
        assert schedules.get(config) == schedule
        assert schedules.get(schedule) is schedule

    def test_over_fills_only_what_is_not_known(self) -> None:
        assert Linear(4, 1).over(9) == Linear(4, 1, 9)
        assert Step(4, 1, 5, at=0.75).over(9) == Step(4, 1, 5, at=0.75)

    def test_a_method_over_the_length_of_a_training(self) -> None:
        method = kd.SoftTargets(temperature=Linear(4, 1), weight=Cosine(2, 0, 5), name="mine")
        over = method.scheduled_over(9)
        assert (over.temperature, over.weight, over.name) == (
            Linear(4, 1, 9),
            Cosine(2, 0, 5),
            "mine",
        )
        assert method.temperature == Linear(4, 1)
        assert kd.LogitsL2().scheduled_over(9).get_config() == kd.LogitsL2().get_config()

    @pytest.mark.parametrize("name", methods.names())
    def test_the_weight_of_every_method(self, name: str) -> None:
        ramp = {"schedule": "linear", "start": 4.0, "end": 1.0}
        [built] = methods.build({name: {"weight": ramp}})
        assert built.weight == Linear(4, 1)
        assert type(built).from_config(built.get_config()).weight == Linear(4, 1)
        assert built.scheduled_over(3).weight == Linear(4, 1, 3)

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            (
                {"schedule": "exponential", "start": 4, "end": 1},
                ["'exponential'", "linear, cosine"],
            ),
            ({"start": 4, "end": 1}, ["None", "linear, cosine, step, or a number"]),
            ({"schedule": "linear", "start": 4}, ["needs 'end'", "start, end, steps"]),
            (
                {"schedule": "cosine", "start": 4, "end": 1, "at": 0.5},
                ["'at'", "start, end, steps"],
            ),
            ({"schedule": "linear", "start": 4, "end": 1, "steps": -1}, ["steps", "-1"]),
            ({"schedule": "linear", "start": 4, "end": 1, "steps": 2.5}, ["steps", "2.5"]),
            ({"schedule": "linear", "start": "4", "end": 1}, ["start", "'4'", "finite number"]),
            ({"schedule": "linear", "start": 4, "end": float("nan")}, ["end", "nan", "finite"]),
            ({"schedule": "step", "start": 4, "end": 1, "at": 0}, ["at", "above 0, at most 1"]),
            ({"schedule": "step", "start": 4, "end": 1, "at": "end"}, ["at", "'end'", "at most 1"]),
            ("warm", ["temperature is 'warm'", "a number, or a schedule", "'linear'"]),
            (None, ["temperature is None", "a number, or a schedule"]),
        ],
    )
    def test_what_is_no_schedule(self, given: Any, words: list) -> None:
        with pytest.raises(InputError) as error:
            kd.SoftTargets(temperature=given)
        one_line(error, *words)

    @pytest.mark.parametrize("ends", [(4.0, 0.0), (-1.0, 4.0)])
    def test_a_schedule_that_leaves_what_is_allowed(self, ends: tuple) -> None:
        with pytest.raises(InputError) as error:
            kd.SoftTargets(temperature=Linear(*ends))
        one_line(error, "temperature is", "above 0")
        with pytest.raises(InputError) as error:
            kd.SoftTargets(weight=Linear(-1.0, 4.0))
        one_line(error, "weight is", "at least 0")


TEMPERATURE, WEIGHT, LABEL_WEIGHT = Linear(4, 1, 2), Cosine(1.0, 0.2, 3), Step(0.1, 0.9, 4, at=0.5)


def distiller(**kwargs: Any) -> Any:
    soft = kd.SoftTargets(temperature=TEMPERATURE, weight=WEIGHT)
    model = kd.Distiller(net(5, seed=2), net(8), [soft], LABEL_WEIGHT)
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(RATE), crossentropy, **kwargs)
    return model


def fit(model: Any, epochs: int, start: int = 0) -> dict:
    """A step an epoch."""
    settings: dict = {"verbose": 0, "shuffle": False, "batch_size": 16}
    return model.fit(*batch(), epochs=start + epochs, initial_epoch=start, **settings).history


class TestTraining:
    def test_four_steps_from_numpy_alone(self) -> None:
        """Every term at its own step's temperature, and every step at its weights."""
        x, y = batch()
        model = distiller()
        weights, teacher = values(model.student), oracles.dense(values(model.teacher), x)[-1]
        history = fit(model, 4)
        for step in range(4):
            temperature = reference("linear", 4, 1, 2, step)
            weight = reference("cosine", 1.0, 0.2, 3, step)
            label_weight = reference("step", 0.1, 0.9, 4, step)

            def terms(w: list, t: float = temperature) -> tuple[float, float]:
                z = oracles.dense(w, x)[-1]
                soft = oracles.soft_targets(Arrays(teacher), Arrays(z), t)
                return oracles.cross_entropy(y, z).mean(), soft.mean()

            def loss(w: list, parts: Any = terms, a: Any = (label_weight, weight)) -> float:
                labels, soft = parts(w)
                return a[0] * labels + a[1] * soft

            labels, soft = terms(weights)
            logged = [history[name][step] for name in ("label_loss", "soft_targets", "loss")]
            np.testing.assert_allclose(logged, [labels, soft, loss(weights)], rtol=2e-4)
            weights = oracles.descend(loss, weights, RATE)
        assert_same(values(model.student), weights, atol=1e-4)

    @pytest.mark.parametrize("way", ["steps_per_execution", "saved and resumed"])
    def test_counts_updates_however_they_are_run(self, way: str, tmp_path: pathlib.Path) -> None:
        through, other = distiller(), distiller()
        fit(through, 4)
        if way == "steps_per_execution":
            other = distiller(steps_per_execution=4)
            x, y = (np.tile(part, [4] + [1] * (part.ndim - 1)) for part in batch())
            other.fit(x, y, batch_size=16, shuffle=False, verbose=0)
        else:
            fit(other, 2)
            other.save(tmp_path / "distiller.keras")
            other = keras.models.load_model(tmp_path / "distiller.keras")
            assert other.methods[0].temperature == TEMPERATURE
            assert (other.methods[0].weight, other.label_weight) == (WEIGHT, LABEL_WEIGHT)
            other.teacher = net(8)
            fit(other, 2, start=2)
        assert_same(values(other.student), values(through.student), atol=1e-5)

    def test_one_that_does_not_know_its_length(self) -> None:
        soft = kd.SoftTargets(temperature=Linear(4, 1))
        model = kd.Distiller(net(5, seed=2), net(8), [soft])
        model.compile("sgd", loss=None)
        before = values(model.student)
        with pytest.raises(InputError) as error:
            fit(model, 1)
        one_line(error, "linear", "from 4.0 to 1.0", "give steps=")
        assert_same(values(model.student), before)
