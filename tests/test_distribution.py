"""Several replicas given the same global batches take the steps of one device."""

import json
import os
import pathlib
import socket
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from nets import (
    assert_differ,
    assert_same,
    batch,
    convolutional,
    images,
    net,
    values,
    with_weights,
)
from replicas import two_replicas

import kd_keras as kd

keras: Any = tf.keras
SGD = keras.optimizers.SGD
STEPS, GLOBAL_BATCH = 20, 8


def crossentropy() -> Any:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def plain(student: Any = None, **kwargs: Any) -> Any:
    loss = kwargs.pop("loss", crossentropy())
    student = net(5, seed=2, l2=0.01) if student is None else student
    methods = kwargs.pop("methods", [kd.SoftTargets(weight=0.9), kd.LogitsL2(weight=0.1)])
    model = kd.Distiller(student, kwargs.pop("teacher", net(8)), methods, 0.5, **kwargs)
    model.compile(
        SGD(0.1), loss, ["accuracy"] if loss else None, teacher_accuracy=True, jit_compile=False
    )
    return model


def adversarial(student: Any = None, **kwargs: Any) -> Any:
    student = net(4, seed=2, l2=0.01) if student is None else student
    kwargs = {"label_weight": 0.5, "teacher": net(6), **kwargs}
    model = kd.AdversarialDistiller(student, **kwargs)
    for own in filter(None, (model.discriminator, model.projection)):
        generator = np.random.default_rng(4)
        for w in own.trainable_variables:
            w.assign(generator.normal(0, 0.2, w.shape))
    model.compile(SGD(0.05), crossentropy(), discriminator_optimizer=SGD(0.05), jit_compile=False)
    return model


def softmax_ending() -> Any:
    return plain(
        net(5, seed=2, ending="softmax"),
        teacher=net(8, ending="softmax"),
        from_logits=False,
        loss="sparse_categorical_crossentropy",
    )


def compiled_outside() -> Any:
    """What a user forgets to do in the scope is done there all the same."""
    model = kd.AdversarialDistiller(net(4, seed=2), net(4))
    generator = np.random.default_rng(4)
    for w in model.discriminator.trainable_variables:
        w.assign(generator.normal(0, 0.2, w.shape))
    return model


def dataset(examples: int = STEPS * GLOBAL_BATCH, *, weighted: bool = False) -> Any:
    parts = batch(examples)
    if weighted:
        parts = (*parts, np.linspace(0, 2, examples).astype("float32"))
    return tf.data.Dataset.from_tensor_slices(parts).batch(GLOBAL_BATCH)


def assert_equal_training(make: Any, data: Any, **kwargs: Any) -> Any:
    """Train alone and on two replicas: the same weights, the same logs."""
    alone = make()
    before = values(alone)
    history = alone.fit(data, verbose=0, **kwargs).history
    with two_replicas().scope():
        mirrored = make()
    assert_same(values(mirrored), before)
    mirrored_history = mirrored.fit(data, verbose=0, **kwargs).history
    assert_differ(values(alone), before)
    assert_same(values(mirrored), values(alone), atol=1e-5)
    assert sorted(history) == sorted(mirrored_history)
    for term, value in history.items():
        np.testing.assert_allclose(mirrored_history[term], value, rtol=1e-3, err_msg=term)
    return alone, mirrored


class TestTwoReplicas:
    @pytest.mark.parametrize(
        "make",
        [
            plain,
            pytest.param(softmax_ending, marks=pytest.mark.slow),
            pytest.param(lambda: plain(loss=None), marks=pytest.mark.slow),
        ],
        ids=["loss object", "loss by name", "no labels"],
    )
    def test_plain(self, make: Any) -> None:
        assert_equal_training(make, dataset())

    def test_plain_with_sample_weight(self) -> None:
        assert_equal_training(plain, dataset(weighted=True))

    def test_evaluate(self) -> None:
        alone = plain()
        with two_replicas().scope():
            mirrored = plain()
        data = dataset(44)
        one, two = (m.evaluate(data, verbose=0, return_dict=True) for m in (alone, mirrored))
        assert two == pytest.approx(one, rel=1e-4)

    @pytest.mark.parametrize(
        "examples", [GLOBAL_BATCH + 5, pytest.param(GLOBAL_BATCH + 2, marks=pytest.mark.slow)]
    )
    def test_plain_with_a_last_batch_that_does_not_divide(self, examples: int) -> None:
        assert_equal_training(plain, dataset(examples), epochs=3)

    @pytest.mark.parametrize(
        "regularizer", ["adversarial", pytest.param("l2", marks=pytest.mark.slow)]
    )
    def test_adversarial_with_sample_weight(self, regularizer: str) -> None:
        data = dataset(weighted=True)
        assert_equal_training(lambda: adversarial(regularizer=regularizer), data)

    def test_adversarial_with_a_last_batch_that_does_not_divide(self) -> None:
        assert_equal_training(adversarial, dataset(GLOBAL_BATCH + 5), epochs=3)

    @pytest.mark.slow
    def test_adversarial_on_arrays(self) -> None:
        x, y = batch(64)
        alone = adversarial()
        alone.fit(x, y, batch_size=GLOBAL_BATCH, shuffle=False, verbose=0)
        with two_replicas().scope():
            mirrored = adversarial()
        mirrored.fit(x, y, batch_size=GLOBAL_BATCH, shuffle=False, verbose=0)
        assert_same(values(mirrored), values(alone), atol=1e-5)

    def test_feature_maps(self) -> None:
        """The taps of two replicas hear their own passes."""
        data = tf.data.Dataset.from_tensor_slices((images(64), batch(64)[1])).batch(GLOBAL_BATCH)
        names = {"teacher_layer": "maps", "student_layer": "maps"}

        def make() -> Any:
            layers = [keras.Input((4, 4, 4)), keras.layers.Flatten(), keras.layers.Dense(1)]
            d = keras.Sequential(layers)
            student, teacher = convolutional(4, seed=2), convolutional(4)
            return adversarial(student, teacher=teacher, discriminator=d, **names)

        assert_equal_training(make, data)

    def test_a_layer_that_makes_replicas_wait_for_each_other_in_the_middle(self) -> None:
        """Replicas take turns where they meet, so taps must not mix their passes."""

        class Meet(keras.layers.Layer):
            """The mean over the global batch is taken off, as SyncBatchNormalization does."""

            def call(self, x: Any) -> Any:
                total = tf.reduce_sum(x, axis=0)
                count = tf.cast(tf.shape(x)[0], x.dtype)
                context = tf.distribute.get_replica_context()
                if context is not None:
                    total, count = context.all_reduce("SUM", [total, count])
                return x - total / count

        def make() -> Any:
            start = keras.Input((4,))
            hidden = Meet()(keras.layers.Dense(4, "tanh", name="early")(start))
            features = keras.layers.Dense(4, "tanh", name="features")(hidden)
            student = keras.Model(start, keras.layers.Dense(3)(features))
            for number, w in enumerate(student.trainable_variables):
                w.assign(np.random.default_rng(number).normal(0, 0.7, w.shape))
            return adversarial(student, teacher=net(4), student_layer="early")

        assert_equal_training(make, dataset())

    @pytest.mark.tf_keras
    def test_legacy_optimizers(self) -> None:
        """They make their step counter late, which no replica can do."""
        adam = keras.optimizers.legacy.Adam

        def make() -> Any:
            model = adversarial()
            model.compile(adam(), crossentropy(), discriminator_optimizer=adam())
            return model

        assert_equal_training(make, dataset())

    @pytest.mark.tf_keras
    def test_compiled_outside_the_scope(self) -> None:
        """tf_keras enters the scope by itself in `compile`; so do we."""
        data = dataset()
        with two_replicas().scope():
            mirrored = compiled_outside()
        alone = compiled_outside()
        for model in (alone, mirrored):
            model.compile("sgd", discriminator_optimizer="sgd")
            model.fit(data, verbose=0)
        assert_same(values(mirrored), values(alone), atol=1e-5)


WORKER = """
import sys
sys.path[:0] = {path!r}
import tensorflow as tf
tf.config.set_soft_device_placement(True)
strategy = tf.distribute.MultiWorkerMirroredStrategy()
import numpy as np
import test_distribution as t
with strategy.scope():
    model = getattr(t, {maker!r})()
model.fit(t.dataset(), verbose=0)
np.savez(sys.argv[1], *t.values(model.student))
"""


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def no_noise() -> Any:
    """Workers read other examples of the global batch, so noise would fall on others."""
    return adversarial(dropout=0.0)


@pytest.mark.slow
@pytest.mark.tf_keras
@pytest.mark.parametrize("maker", ["plain", "no_noise"])
def test_two_workers_on_loopback(maker: str, tmp_path: pathlib.Path) -> None:
    here = pathlib.Path(__file__).parent
    code = WORKER.format(path=[str(here), str(here.parent)], maker=maker)
    workers = [f"localhost:{_free_port()}" for _ in range(2)]
    running = []
    for index in range(2):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(task)}
        command = [sys.executable, "-c", code, str(tmp_path / f"{index}.npz")]
        running.append(
            subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        )
    errors = [process.communicate(timeout=300)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], errors[0][-3000:]
    alone = globals()[maker]()
    alone.fit(dataset(), verbose=0)
    for index in range(2):
        with np.load(tmp_path / f"{index}.npz", allow_pickle=False) as found:
            assert_same([found[name] for name in found.files], values(alone.student), atol=1e-5)


def conditional(**kwargs: Any) -> Any:
    settings = {"discriminator": "6", "discriminator_dropout": 0.0, **kwargs}
    model = kd.ConditionalAdversarialDistiller(net(4, seed=2), net(6), **settings)
    with_weights(model.discriminator, 4)
    model.compile(SGD(0.05), crossentropy(), discriminator_optimizer=SGD(0.05), jit_compile=False)
    return model


class TestGamesOnTwoReplicas:
    @pytest.mark.parametrize(
        "form", [pytest.param("saturating", marks=pytest.mark.slow), "wasserstein"]
    )
    def test_conditional(self, form: str) -> None:
        """With weights, a last batch that does not divide, and points drawn for a penalty."""
        data = dataset(3 * GLOBAL_BATCH + 5, weighted=True)
        assert_equal_training(lambda: conditional(gan_form=form), data)

    @pytest.mark.slow
    def test_noise_of_the_network_and_several_updates(self) -> None:
        """The two passes of two replicas do not mix, and updates follow each other on both."""

        class Halved(keras.layers.Dropout):
            """Dropout that drops the same every time, for masks are drawn by replica."""

            def call(self, x: Any, training: Any = None) -> Any:
                return x * [0.0, 2.0, 0.0, 2.0] if training else x

        def make() -> Any:
            start = keras.Input((4,))
            x = Halved(0.5)(keras.layers.Dense(4, "tanh")(start))
            x = keras.layers.Dense(4, "tanh", name="features")(x)
            student = with_weights(keras.Model(start, keras.layers.Dense(3)(x)), 2)
            settings = {"noise": "network", "update_ratio": (2, 2), "discriminator": "6"}
            return adversarial(student, teacher=net(4), **settings)

        assert_equal_training(make, dataset(3 * GLOBAL_BATCH + 5))
