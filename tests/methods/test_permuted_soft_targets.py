"""`PermutedSoftTargets`: which permutations it draws, and when it draws the same."""

import itertools
import pathlib
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from nets import assert_same, batch, net, values
from oracles import softmax

import kd_keras as kd
from kd_keras.methods.base import Context
from kd_keras.taps import Outputs

keras: Any = tf.keras
TEACHER = np.array([1.0, 3.0, 0.0, 2.0, -1.0])
STUDENT = np.array([0.3, 0.1, -0.7, 1.1, 0.4])


def possible() -> np.ndarray:
    """The divergence under each of the 24 permutations of all but the second class, sorted."""
    p, q = softmax(TEACHER), softmax(STUDENT)
    found = []
    for order in itertools.permutations([0, 2, 3, 4]):
        permuted = p.copy()
        permuted[[0, 2, 3, 4]] = p[list(order)]
        found.append((permuted * np.log(permuted / q)).sum())
    return np.sort(found)


def drawn(examples: int, step: Any = 0, seed: int = 0) -> np.ndarray:
    """Which of the permutations, in the order of `possible`, each example got."""
    pair = (tf.constant(np.tile(z, (examples, 1)), tf.float32) for z in (TEACHER, STUDENT))
    outputs = (Outputs(z, {}) for z in pair)
    term = kd.PermutedSoftTargets(seed=seed)(*outputs, Context(step))
    distance = np.abs(term.numpy()[:, None] - possible())
    assert distance.min(axis=1).max() < 1e-5
    return distance.argmin(axis=1)


@pytest.mark.any_keras
def test_every_permutation_is_as_likely_as_any_other() -> None:
    """The chi-squared of 24 kinds is above 49.7 once in a thousand draws; and so of each step."""
    assert np.diff(possible()).min() > 1e-4
    over_examples = np.bincount(drawn(4800), minlength=24)
    over_steps = np.bincount([drawn(2, step)[1] for step in range(480)], minlength=24)
    for counts in (over_examples, over_steps):
        assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 49.7


@pytest.mark.any_keras
def test_two_examples_or_steps_are_independent() -> None:
    draws = drawn(4800)
    assert 0.03 < np.mean(draws[1:] == draws[:-1]) < 0.055  # 1/24 is 0.042
    assert 0.03 < np.mean(draws == drawn(4800, step=1)) < 0.055
    assert 0.03 < np.mean(draws == drawn(4800, seed=1)) < 0.055


@pytest.mark.any_keras
def test_the_same_again_for_the_same_seed_and_step() -> None:
    for step in (3, tf.constant(3, tf.int64), tf.constant(3, tf.int32)):
        np.testing.assert_array_equal(drawn(50, step, seed=9), drawn(50, 3, seed=9))


@pytest.mark.any_keras
def test_a_permutation_under_xla_too() -> None:
    pair = [tf.constant(np.tile(z, (50, 1)), tf.float32) for z in (TEACHER, STUDENT)]
    run = tf.function(
        lambda t, s, step: kd.PermutedSoftTargets()(Outputs(t, {}), Outputs(s, {}), Context(step)),
        jit_compile=True,
    )
    distance = np.abs(run(*pair, tf.constant(1)).numpy()[:, None] - possible())
    assert distance.min(axis=1).max() < 1e-5
    assert len(set(distance.argmin(axis=1))) > 12


def test_a_training_that_was_saved_goes_on_as_if_never_stopped(tmp_path: pathlib.Path) -> None:
    def distiller() -> Any:
        model = kd.Distiller(net(5, classes=5, seed=2), net(8, classes=5), label_weight=0, **terms)
        model.compile(keras.optimizers.SGD(0.5), loss=None)
        return model

    terms: Any = {"methods": [kd.PermutedSoftTargets(seed=4)]}
    x, _ = batch(32)
    settings: dict = {"verbose": 0, "shuffle": False, "batch_size": 16}
    through, stopped = distiller(), distiller()
    through.fit(x, epochs=4, **settings)
    stopped.fit(x, epochs=2, **settings)
    stopped.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    loaded.teacher = net(8, classes=5)
    loaded.fit(x, epochs=2, **settings)
    assert_same(values(loaded.student), values(through.student), atol=1e-6)
