"""A part of a student is trained and the rest stays as it is."""

from typing import Any

import pytest
import tensorflow as tf
from nets import assert_differ, assert_same, batch, net, one_line, values, with_weights

import kd_keras as kd
from kd_keras.errors import InputError
from kd_keras.parts import training_only

layers = tf.keras.layers


def deep() -> Any:
    """Two hidden layers with BatchNorm, a branch that `second` does not depend on, and logits."""
    start = tf.keras.Input((4,))
    first = layers.Dense(5, "tanh", name="first")(start)
    second = layers.Dense(5, "tanh", name="second")(first)
    aside = layers.Dense(5, name="aside")(start)
    both = layers.BatchNormalization(name="norm")(layers.Add()([second, aside]))
    return with_weights(tf.keras.Model(start, layers.Dense(3, name="logits")(both)), 2)


def trained(model: Any) -> list[str]:
    return [layer.name for layer in model.layers if layer.trainable_weights]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (None, ["first", "second", "aside", "norm", "logits"]),
        ("second", ["first", "second"]),
        ("logits", ["first", "second", "aside", "norm", "logits"]),
        (["second"], ["second"]),
        (("aside", "norm"), ["aside", "norm"]),
    ],
)
def test_part(part: Any, expected: list[str]) -> None:
    model = deep()
    with training_only(model, part):
        assert sorted(trained(model)) == sorted(expected)
    assert len(trained(model)) == 5


def test_what_was_frozen_before_stays_frozen() -> None:
    model = deep()
    model.get_layer("first").trainable = False
    with training_only(model, "second"):
        assert trained(model) == ["second"]
    assert "first" not in trained(model)


def test_layers_inside_layers() -> None:
    block = tf.keras.Sequential([tf.keras.Input((4,)), layers.Dense(4, name="inner")], name="block")
    model = tf.keras.Sequential([tf.keras.Input((4,)), block, layers.Dense(3, name="logits")])
    with training_only(model, "block/inner"):
        assert len(model.trainable_variables) == 2
    with training_only(model, ["logits"]):
        assert len(model.trainable_variables) == 2


def test_the_rest_does_not_move_nor_do_its_statistics() -> None:
    x, _ = batch(32)
    model = deep()
    before = {layer.name: values(layer) for layer in model.layers}
    with training_only(model, "second"):
        distiller = kd.Distiller(model, net(8), [kd.LogitsL2()])
        distiller.compile("sgd", loss=None)
        distiller.fit(x, verbose=0)
    for name in ("first", "second"):
        assert_differ(values(model.get_layer(name)), before[name])
    for name in ("aside", "norm", "logits"):
        assert_same(values(model.get_layer(name)), before[name])


@pytest.mark.parametrize("part", [["norm2"], "norm2"])
def test_unknown_layer(part: Any) -> None:
    with pytest.raises(InputError) as error, training_only(deep(), part):
        pass
    one_line(error, "'norm2' is not in the student", "second")


def test_nothing_trainable() -> None:
    model = deep()
    model.get_layer("second").trainable = False
    with pytest.raises(InputError) as error, training_only(model, ["second"]):
        pass
    one_line(error, "nothing to train", "second")
    assert "first" in trained(model)


def test_a_distiller_of_a_frozen_student_is_refused() -> None:
    student = net(4)
    student.trainable = False
    distiller = kd.Distiller(student, net(8), [kd.LogitsL2()])
    distiller.compile("sgd", loss=None)
    with pytest.raises(InputError) as error:
        distiller.fit(batch(32)[0], verbose=0)
    one_line(error, "nothing to train")


def test_up_to_a_layer_needs_the_models_input() -> None:
    class Subclassed(tf.keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(3, name="dense")

        def call(self, x: Any) -> Any:
            return self.dense(x)

    model = Subclassed()
    model(batch(4)[0])
    with pytest.raises(InputError) as error, training_only(model, "dense"):
        pass
    one_line(error, "'dense'", "Functional")
    with training_only(model, ["dense"]):
        assert len(model.trainable_variables) == 2


@pytest.mark.tf_keras
def test_a_quantized_student_cannot_be_trained_in_part() -> None:
    """tfmot's wrapper holds the kernel itself, whatever `trainable` says."""
    import tensorflow_model_optimization as tfmot

    start = tf.keras.Input((4,))
    features = layers.Dense(4, "relu", name="features")(start)
    model = tf.keras.Model(start, layers.Dense(3, name="logits")(features))
    model = tfmot.quantization.keras.quantize_model(model)
    with pytest.raises(InputError) as error, training_only(model, "features"):
        pass
    one_line(error, "logits", "cannot be frozen")
