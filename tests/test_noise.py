"""The adversarial game's noise, and the hooks by which layers are changed for a pass."""

import threading
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from nets import assert_differ, assert_same, net, values

from kd_keras import noise, taps
from kd_keras.hooks import around_call

keras: Any = tf.keras
X = np.ones((4, 4), "float32")


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.inner = keras.Sequential([keras.layers.Dense(4), keras.layers.Dropout(0.5)])
        self.noisy = keras.layers.GaussianDropout(0.5, name="noisy")

    def call(self, x: Any, training: Any = None) -> Any:
        return self.noisy(self.inner(x, training=training), training=training)


def functional() -> Any:
    return net(4, dropout=0.5)


def sequential() -> Any:
    layers = [keras.layers.AlphaDropout(0.5), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((4,)), *layers])


def nested() -> Any:
    start = keras.Input((4,))
    return keras.Model(start, functional()(sequential_of(4)(start)))


def sequential_of(width: int) -> Any:
    layers = [keras.layers.Dense(width), keras.layers.Dropout(0.5)]
    return keras.Sequential([keras.Input((4,)), *layers])


@pytest.mark.parametrize("make", [functional, sequential, nested, Subclassed])
@pytest.mark.parametrize("graph", [False, True])
def test_without_dropout(make: Any, graph: bool) -> None:
    """A pass without dropout is one in inference, where nothing else tells the two apart."""
    model = make()
    model(X)  # builds it

    def passes() -> Any:
        with noise.without_dropout(model):
            off = model(X, training=True)
        return off, model(X, training=True)

    off, on = tf.function(passes)() if graph else passes()
    np.testing.assert_allclose(off, model(X, training=False), atol=1e-6)
    assert (np.array(on) != np.array(off)).any()
    assert not any("call" in layer.__dict__ for layer in noise.dropout_layers(model))


def test_dropout_layers_at_any_depth() -> None:
    assert [len(noise.dropout_layers(make())) for make in (functional, nested, Subclassed)] == [
        *(1, 2, 2)
    ]
    assert noise.dropout_layers(net(4)) == []
    still = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.0)])
    assert noise.dropout_layers(still) == []


def test_batch_norm_uses_the_batch_without_dropout() -> None:
    model = net(4, batch_norm=True, dropout=0.5)
    before = values(model)
    with noise.without_dropout(model):
        model(np.random.default_rng(0).normal(size=(8, 4)).astype("float32"), training=True)
    assert_differ(values(model), before)


@pytest.mark.parametrize("graph", [False, True])
def test_statistics_kept(graph: bool) -> None:
    model = net(4, batch_norm=True, dropout=0.5)
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    before = values(model)

    def twice() -> tuple:
        with noise.statistics_kept(model):
            return model(x, training=True), model(x, training=True)

    one, other = tf.function(twice)() if graph else twice()
    assert_same(values(model), before)
    assert (np.array(one) != np.array(other)).any()  # the generators go on
    assert np.abs(np.array(one) - model(x, training=False)).max() > 1e-3


def test_a_dropout_layer_can_be_tapped_meanwhile() -> None:
    model = functional()
    with noise.without_dropout(model):
        _, heard = taps.forward(model, X, ["dropout", "features"], training=True)
    np.testing.assert_array_equal(heard["dropout"], heard["features"])
    assert "call" not in model.get_layer("dropout").__dict__


def test_hooks_of_two_threads_do_not_mix() -> None:
    """One thread is inside, with its hook, while another enters, runs and leaves."""
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    layer(X)
    found: dict = {}

    def doubled(call: Any, x: Any) -> Any:
        return 2 * call(x)

    def other() -> None:
        found["unhooked"] = float(layer(X)[0, 0])
        with around_call(layer, doubled), around_call(layer, doubled):
            found["twice"] = float(layer(X)[0, 0])

    with around_call(layer, doubled):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        found["once"] = float(layer(X)[0, 0])
    assert found == {"unhooked": 4.0, "twice": 16.0, "once": 8.0}
    assert "call" not in layer.__dict__


def test_a_hook_goes_when_the_pass_fails() -> None:
    layer = keras.layers.Dense(1)
    own = layer.call
    object.__setattr__(layer, "call", own)
    with pytest.raises(ZeroDivisionError), around_call(layer, lambda call, x: call(x)):
        raise ZeroDivisionError
    assert layer.__dict__["call"] == own
