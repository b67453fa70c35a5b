"""A teacher of other classes: its mapping against a reference, alone, in ensembles, refused."""

from typing import Any

import numpy as np
import oracles
import pytest
import tensorflow as tf
from nets import assert_same, batch, net, one_line, values
from oracles import Array

import kd_keras as kd
from kd_keras.errors import InputError
from kd_keras.taps import Outputs
from kd_keras.teachers import Ensemble, KerasTeacher, evaluation
from kd_keras.teachers.class_map import ClassMap
from kd_keras.teachers.function import FunctionTeacher

keras: Any = tf.keras
MAP = [4, [0, 2], [5, 1, 6]]  # class 3 of 7 is left out
T = 3.0


def teacher_net(seed: int = 1) -> Any:
    return net(6, classes=7, seed=seed)


def mapped(z: Array) -> Array:
    """The logarithms of the sums of the probabilities."""
    q = oracles.softmax(z)
    sums = [q[:, 4], q[:, 0] + q[:, 2], q[:, 5] + q[:, 1] + q[:, 6]]
    return np.log(np.stack(sums, axis=1))


def logits(model: Any, x: Array) -> Array:
    return oracles.dense(values(model), x)[-1]


def fitted(teacher: Any, x: Array, *methods: Any) -> Any:
    methods = methods or (kd.SoftTargets(temperature=T), kd.LogitsL2(weight=0.1, standardize=False))
    model = kd.Distiller(net(5, seed=2), teacher, methods)
    model.compile(keras.optimizers.SGD(0.3), None, jit_compile=False)
    model.history_ = model.fit(x, batch_size=16, shuffle=False, verbose=0).history
    return model


def test_probabilities_are_summed_and_renormalised() -> None:
    x, _ = batch()
    teacher = ClassMap(teacher_net(), MAP)
    expected = np.exp(mapped(logits(teacher_net(), x)))
    expected /= expected.sum(axis=1, keepdims=True)
    found = np.exp(evaluation.predict(teacher, x))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("from_logits", [True, False])
def test_a_distillers_term_equals_the_reference(from_logits: bool) -> None:
    x, _ = batch()
    bare = teacher_net()
    given = bare if from_logits else net(6, classes=7, ending="softmax")
    model = fitted(ClassMap(given, MAP, from_logits=from_logits), x, kd.SoftTargets(temperature=T))
    student = oracles.Arrays(logits(net(5, seed=2), x))
    expected = oracles.soft_targets(oracles.Arrays(mapped(logits(bare, x))), student, temperature=T)
    assert model.history_["soft_targets"] == pytest.approx([expected.mean()], rel=1e-4)


def test_single_classes_are_selected_as_they_are() -> None:
    x, _ = batch()
    found = ClassMap(teacher_net(), [6, [2], np.int64(0)]).outputs(x).logits
    np.testing.assert_array_equal(found, teacher_net()(x).numpy()[:, [6, 2, 0]])
    large = FunctionTeacher(lambda x: 500 * x, classes=4, from_logits=True)
    far = ClassMap(large, [[0, 1], [2, 3]]).outputs(np.eye(4, dtype="float32")).logits
    np.testing.assert_allclose(far, [[500, np.log(2)]] * 2 + [[np.log(2), 500]] * 2, rtol=1e-6)


@pytest.mark.parametrize("mean", ["arithmetic", "logits"])
def test_an_ensemble_is_that_of_the_mapped_members(mean: str) -> None:
    x, _ = batch()
    models = {"one": teacher_net(), "two": teacher_net(seed=8)}
    each = {name: ClassMap(model, MAP) for name, model in models.items()}
    inside = Ensemble(each, mean=mean, weights=[3, 1])
    outside = ClassMap(Ensemble(models, mean=mean, weights=[3, 1]), MAP)
    if mean == "logits":  # whose mean is one teacher's logits
        z = 0.75 * logits(models["one"], x) + 0.25 * logits(models["two"], x)
        expected = mapped(z) - mapped(z).mean(axis=1, keepdims=True)
        found = outside.outputs(x).logits.numpy()
        found -= found.mean(axis=1, keepdims=True)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
        return
    assert_same(values(fitted(outside, x).student), values(fitted(inside, x).student), atol=1e-6)
    q = [oracles.softmax(mapped(logits(model, x)), T) for model in models.values()]
    found = np.exp(outside.outputs(x).log_probabilities(T))
    np.testing.assert_allclose(found, 0.75 * q[0] + 0.25 * q[1], rtol=1e-4)
    specs = outside.specs()
    assert specs is not None
    assert [(spec.shape[-1], weight) for spec, weight in specs.members] == [(3, 0.75), (3, 0.25)]


def test_layers_inputs_and_all_else_are_the_teachers() -> None:
    x, _ = batch()
    inner = teacher_net()
    teacher = ClassMap(inner, MAP)
    np.testing.assert_allclose(
        teacher.outputs(x, ["features"]).layers["features"],
        np.tanh(x @ values(inner)[0] + values(inner)[1]),
        rtol=1e-5,
    )
    specs = teacher.specs(["features"])
    assert specs is not None
    assert specs.logits.shape.as_list() == [None, 3]
    assert specs.layers["features"].shape.as_list() == [None, 6]
    assert teacher.input_specs().shape.as_list() == [None, 4]
    assert teacher.student_inputs(x) is x
    assert teacher.supports_jit
    assert not ClassMap(FunctionTeacher(np.exp), MAP).supports_jit
    assert ClassMap(keras.Sequential([keras.layers.Dense(7)]), MAP).specs() is None


@pytest.mark.any_keras
def test_the_fingerprint_holds_the_map() -> None:
    inner, other = (FunctionTeacher(np.exp, fingerprint=text) for text in "ab")
    same = [ClassMap(inner, MAP), ClassMap(inner, [[4], (0, 2), np.array([5, 1, 6])])]
    differing = [inner, same[0], ClassMap(inner, [4, [0, 2], [5, 1]]), ClassMap(other, MAP)]
    assert len({teacher.fingerprint() for teacher in same}) == 1
    assert len({teacher.fingerprint() for teacher in differing}) == 4


@pytest.mark.parametrize(
    ("class_map", "words"),
    [
        ([0, [1, 7], 2], ["entry 1", "class 7", "0 to 6"]),
        ([0, -1], ["entry 1", "-1"]),
        ([0, 1.0], ["entry 1", "1.0"]),
        ([0, True], ["entry 1", "True"]),
        ([0, "1"], ["entry 1", "'1'"]),
        ([0, []], ["entry 1", "at least one"]),
        ([0, [1, [2]]], ["entry 1"]),
        ([[0, 1, 2]], ["length 1", "at least two"]),
        ([], ["length 0"]),
        ([0, [1, 2], [3, 0]], ["class 0 twice", "entries 0 and 2"]),
        ([0, [1, 1]], ["class 1 twice"]),
        ({0: 1, 1: 2}, ["dict", "list"]),
        ("012", ["str", "list"]),
        (3, ["int"]),
    ],
)
def test_bad_maps(class_map: Any, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        kd.Distiller(net(4), ClassMap(teacher_net(), class_map), [kd.SoftTargets()])
    one_line(error, *words)


def test_bad_teachers() -> None:
    with pytest.raises(InputError) as error:
        ClassMap(3, MAP)
    one_line(error, "int")
    with pytest.raises(InputError) as error:
        kd.Distiller(net(4, classes=2), ClassMap(teacher_net(), MAP), [kd.SoftTargets()])
    one_line(error, "same classes", "3", "2")

    class Unknown(KerasTeacher):
        def outputs(self, x: Any, layers: Any = ()) -> Outputs:
            return Outputs(tf.ensure_shape(x, (None, None)), {})

    run = tf.function(ClassMap(Unknown(teacher_net()), MAP).outputs, autograph=False)
    with pytest.raises(InputError) as error:
        run.get_concrete_function(tf.TensorSpec((None, None)))
    one_line(error, "(None, None)")
