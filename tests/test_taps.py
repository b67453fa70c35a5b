"""Taps: layers found by the user's names and heard in the model's own pass, without a trace."""

import threading
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from nets import batch, convolutional, images, net, one_line

from kd_keras import taps
from kd_keras.errors import InputError

keras: Any = tf.keras
layers: Any = keras.layers


class Block(layers.Layer):
    """A subclassed layer with two layers inside."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first = layers.Dense(5, "tanh", name="conv")
        self.second = layers.Dense(6, "tanh", name="out")

    def call(self, x: Any) -> Any:
        return self.second(self.first(x))


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="subclassed")
        self.stem, self.end = Block(name="block"), layers.Dense(3, name="logits")
        self.spare = layers.Dense(2, name="spare")

    def call(self, x: Any, training: Any = None) -> Any:
        return self.end(self.stem(x))


def functional() -> Any:
    start = keras.Input((4,))
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, "tanh", name="conv"), layers.Dense(6, name="out")],
        name="block",
    )
    return keras.Model(start, layers.Dense(3, name="logits")(inner(start)))


def sequential() -> Any:
    return keras.Sequential(
        [keras.Input((4,)), Block(name="block"), layers.Dense(3, name="logits")]
    )


models = pytest.mark.parametrize("make", [functional, sequential, Subclassed])


def inner_layers(model: Any) -> list:
    found = list(model._flatten_layers())
    assert len(found) > 2
    return found


def assert_no_trace(model: Any) -> None:
    for layer in inner_layers(model):
        assert "call" not in vars(layer), layer.name


@models
@pytest.mark.parametrize("way", ["eager", "graph"])
def test_nested_layers_are_heard_in_the_models_own_pass(make: Any, way: str) -> None:
    x, model = batch()[0], make()
    model(x)
    run = lambda x: taps.forward(model, x, ["block", "block/conv", "logits"])  # noqa: E731
    output, heard = (tf.function(run) if way == "graph" else run)(x)
    first = taps.find_layer(model, "block/conv")
    np.testing.assert_allclose(output, model(x), atol=1e-5)
    np.testing.assert_array_equal(heard["logits"], output)
    np.testing.assert_allclose(heard["block/conv"], first(x), atol=1e-5)
    assert sorted(heard) == ["block", "block/conv", "logits"]
    assert heard["block"].shape == (16, 6)
    assert_no_trace(model)


@models
def test_no_trace_is_left_by_exceptions(make: Any) -> None:
    model = make()
    model(batch()[0])
    with pytest.raises(Exception, match=r"."):
        taps.forward(model, tf.zeros((2, 9)), ["block/conv", "logits"])
    with pytest.raises(InputError):
        taps.forward(model, tf.zeros((2, 4)), ["block/conv", "nowhere"])
    assert_no_trace(model)


def test_tracing_computes_nothing_and_leaves_no_trace() -> None:
    model = net(5, batch_norm=True, dropout=0.5)
    outputs = taps.trace(model, ["features"], from_logits=True, role="student")
    assert outputs.logits.shape.as_list() == [None, 3]
    assert outputs.layers["features"].shape.as_list() == [None, 5]
    assert_no_trace(model)


def test_a_users_own_replacement_of_call_stays() -> None:
    model = net(5)
    layer = model.get_layer("features")
    plain = layer.call
    object.__setattr__(layer, "call", lambda x: 2 * plain(x))
    replaced = vars(layer)["call"]
    x = tf.constant(batch()[0])
    _, heard = taps.forward(model, x, ["features"])
    np.testing.assert_allclose(heard["features"], 2 * plain(x), rtol=1e-6)
    assert vars(layer)["call"] is replaced


def test_feature_maps() -> None:
    model = convolutional(3)
    _, heard = taps.forward(model, images(), ["maps"])
    np.testing.assert_allclose(heard["maps"], model.get_layer("maps")(images()), rtol=1e-5)


def test_a_shared_layer_gives_its_last_output() -> None:
    start = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    model = keras.Model(start, shared(shared(start)))
    x, _ = batch()
    output, heard = taps.forward(model, x, ["shared"])
    np.testing.assert_array_equal(heard["shared"], output)
    assert_no_trace(model)


def test_a_layer_that_two_models_share_is_heard_in_each() -> None:
    start = keras.Input((4,))
    shared = layers.Dense(4, "tanh", name="shared")
    one = keras.Model(start, layers.Dense(3)(shared(start)))
    other = keras.Model(start, layers.Dense(2)(shared(start)))
    x, _ = batch()
    for model in (one, other):
        np.testing.assert_allclose(taps.forward(model, x, ["shared"])[1]["shared"], shared(x))
        assert_no_trace(model)


def test_threads_hear_their_own_passes() -> None:
    """Two threads that are in the middle of a pass at the same time, as under MirroredStrategy."""
    together = threading.Barrier(2, timeout=20)

    class Meet(layers.Layer):
        meeting = False

        def call(self, x: Any) -> Any:
            if self.meeting:
                together.wait()
            return x

    meet = Meet()
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5, name="features"), meet])
    results: dict = {}

    def run(number: int, x: Any) -> None:
        results[number] = taps.forward(model, x, ["features"])

    parts = [tf.constant(batch(16, seed=s)[0]) for s in (1, 2)]
    model(parts[0])
    meet.meeting = True
    threads = [threading.Thread(target=run, args=item) for item in enumerate(parts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    meet.meeting = False
    for number, x in enumerate(parts):
        output, heard = results[number]
        np.testing.assert_array_equal(heard["features"], output)
        np.testing.assert_allclose(output, model(x), rtol=1e-6)
    assert_no_trace(model)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("conv", "conv"),
        ("quant_conv", "conv"),
        ("prune_low_magnitude_conv", "conv"),
        ("cluster_conv", "conv"),
        ("quant_prune_low_magnitude_conv", "conv"),
        ("quantum", "quantum"),
        ("my_quant_conv", "my_quant_conv"),
    ],
)
def test_user_name(given: str, expected: str) -> None:
    assert taps.user_name(given) == expected


@pytest.mark.tf_keras
@pytest.mark.parametrize("technique", ["pruning", "quantization"])
def test_wrapped_layers_are_found_by_the_users_name(technique: str) -> None:
    import tensorflow_model_optimization as tfmot

    model = net(5, activation="relu")
    if technique == "pruning":
        wrapped = tfmot.sparsity.keras.prune_low_magnitude(keras.models.clone_model(model))
    else:
        wrapped = tfmot.quantization.keras.quantize_model(model)
    output, heard = taps.forward(wrapped, batch()[0], ["features", "logits"])
    assert heard["features"].shape == (16, 5)
    np.testing.assert_array_equal(heard["logits"], output)
    with pytest.raises(InputError, match=r"'stage9' .*features.*logits"):
        taps.find_layer(wrapped, "stage9")


@models
def test_an_unknown_layer_lists_those_that_exist(make: Any) -> None:
    with pytest.raises(InputError) as error:
        taps.find_layer(make(), "stage9", "teacher")
    one_line(error, "'stage9' is not in the teacher; it has: ", "block", "logits")
    with pytest.raises(InputError) as error:
        taps.find_layer(make(), "block/stage9", "teacher")
    one_line(error, "'block/stage9'")


def test_a_layer_that_does_not_run() -> None:
    with pytest.raises(InputError) as error:
        taps.forward(Subclassed(), batch()[0], ["spare"])
    one_line(error, "'spare'", "'subclassed'", "did not run")


def test_probabilities_as_logits() -> None:
    p = tf.constant([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]])
    logits = taps.as_logits(p, from_logits=False, role="student")
    np.testing.assert_allclose(tf.nn.softmax(logits), p, atol=1e-6)
    assert np.isfinite(logits).all()
    half = taps.as_logits(tf.cast(p, tf.float16), from_logits=False, role="student")
    assert half.dtype == tf.float32
