"""What holds for every distillation method; a new one needs its line in `oracles.METHODS`."""

import dataclasses
from typing import Any

import numpy as np
import oracles
import pytest
import tensorflow as tf
from nets import batch, net
from oracles import Arrays

from kd_keras import methods, taps
from kd_keras.distiller import Distiller
from kd_keras.errors import InputError
from kd_keras.methods.base import snake_case
from kd_keras.serialization import deserialize, serialize
from kd_keras.taps import Outputs

BATCH, CLASSES = 6, 5


def cases() -> list:
    """Every method that exists, at each of its oracle's settings."""
    found = []
    for name in methods.names():
        oracle = oracles.METHODS.get(name)
        for settings in oracle.settings if oracle else ({},):
            found.append(pytest.param(name, dict(settings), id=f"{name}-{settings}"))
    return found


every_setting = pytest.mark.parametrize(("name", "settings"), cases())
every_method = pytest.mark.parametrize("name", methods.names())


@dataclasses.dataclass
class Case:
    method: Any
    oracle: oracles.Oracle
    teacher: Arrays
    student: Arrays


def case(name: str, settings: dict | None = None, scale: float = 2.0) -> Case:
    oracle = oracles.METHODS.get(name)
    assert oracle, f"method {name!r} has no oracle: write its reference into tests/oracles.py"
    generator = np.random.default_rng(3)

    def arrays() -> Arrays:
        shapes = {key: (BATCH, *shape) for key, shape in oracle.layers.items()}
        drawn = {key: generator.normal(0, scale, shape) for key, shape in shapes.items()}
        return Arrays(generator.normal(0, scale, (BATCH, CLASSES)), drawn)

    settings = dict(oracle.settings[0]) if settings is None else settings
    return Case(methods.get(name)(**settings), oracle, arrays(), arrays())


def tensors(arrays: Arrays, dtype: str = "float32") -> Outputs:
    layers = {key: tf.constant(value, dtype) for key, value in arrays.layers.items()}
    return Outputs(tf.constant(arrays.logits, dtype), layers)


def map_arrays(arrays: Arrays, change: Any) -> Arrays:
    return Arrays(change(arrays.logits), {k: change(v) for k, v in arrays.layers.items()})


@every_method
def test_every_method_has_an_oracle(name: str) -> None:
    case(name)


def test_no_oracle_is_left_over() -> None:
    assert set(oracles.METHODS) == set(methods.names())


@every_setting
def test_one_value_an_example_equal_to_the_oracle(name: str, settings: dict) -> None:
    c = case(name, settings)
    term = c.method(tensors(c.teacher), tensors(c.student))
    assert term.shape == (BATCH,)
    assert term.dtype == tf.float32
    expected = c.oracle.reference(c.teacher, c.student, **settings)
    np.testing.assert_allclose(term, expected, rtol=1e-4, atol=1e-5)


@every_setting
def test_the_gradient_for_the_students_logits_is_the_oracles(name: str, settings: dict) -> None:
    c = case(name, settings)
    student = tensors(c.student)
    with tf.GradientTape() as tape:
        tape.watch(student.logits)
        loss = tf.reduce_sum(c.method(tensors(c.teacher), student))

    def reference(weights: list) -> float:
        moved = Arrays(weights[0], c.student.layers)
        return c.oracle.reference(c.teacher, moved, **settings).sum()

    [expected] = oracles.gradient(reference, [c.student.logits])
    np.testing.assert_allclose(tape.gradient(loss, student.logits), expected, rtol=1e-3, atol=1e-4)


@every_setting
def test_zero_and_flat_where_the_student_equals_the_teacher(name: str, settings: dict) -> None:
    c = case(name, settings)
    if not c.oracle.zero_at_match:
        pytest.skip("its oracle says that it is not 0 where the student equals the teacher")
    outputs = tensors(c.teacher)
    with tf.GradientTape() as tape:
        tape.watch(outputs.logits)
        term = c.method(tensors(c.teacher), outputs)
    np.testing.assert_allclose(term, 0, atol=1e-4)
    np.testing.assert_allclose(tape.gradient(term, outputs.logits), 0, atol=1e-4)
    for direction in (1, -1):
        moved = map_arrays(c.teacher, lambda v, d=direction: v + 0.3 * d * np.sin(v))
        assert (c.method(tensors(c.teacher), tensors(moved)).numpy() > 0).all()


@every_setting
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_finite_in_half_precision_and_for_large_logits(
    name: str, settings: dict, scale: float
) -> None:
    """A half-precision model's logits reach a method through `as_logits`, as in the distillers."""
    c = case(name, settings, scale)
    teacher, student = (tensors(a, "float16") for a in (c.teacher, c.student))
    with tf.GradientTape() as tape:
        tape.watch(student.logits)
        read = [
            Outputs(taps.as_logits(o.logits, True, "model"), o.layers) for o in (teacher, student)
        ]
        term = c.method(*read)
    assert np.isfinite(term).all()
    assert np.isfinite(tape.gradient(term, student.logits)).all()


@every_method
def test_finite_for_logits_of_ten_thousand(name: str) -> None:
    c = case(name, scale=1e4)
    assert np.isfinite(c.method(tensors(c.teacher), tensors(c.student))).all()


@every_method
def test_no_gradient_reaches_the_teacher(name: str) -> None:
    """The distiller cuts it, so that no method has to."""
    c = case(name)
    teacher, student = net(8, classes=CLASSES), net(8, classes=CLASSES, seed=2)
    distiller = Distiller(student, teacher, [c.method])
    x, _ = batch()
    with tf.GradientTape(persistent=True) as tape:
        read = distiller._teacher_outputs(x), distiller._student_outputs(x)[0]
        loss = tf.reduce_sum(c.method(*read))
    assert tape.gradient(loss, teacher.trainable_variables) == [None] * 4
    assert None not in tape.gradient(loss, student.trainable_variables)


@every_method
def test_examples_do_not_mix(name: str) -> None:
    """The order of the batch does not matter, nor does what else is in it."""
    c = case(name)
    order = np.random.default_rng(0).permutation(BATCH)
    term = c.method(tensors(c.teacher), tensors(c.student)).numpy()
    mixed = [tensors(map_arrays(a, lambda v: v[order])) for a in (c.teacher, c.student)]
    np.testing.assert_allclose(c.method(*mixed), term[order], rtol=1e-5)
    alone = [tensors(map_arrays(a, lambda v: v[:1])) for a in (c.teacher, c.student)]
    np.testing.assert_allclose(c.method(*alone), term[:1], rtol=1e-5)


@every_method
def test_same_in_a_graph_and_under_xla(name: str) -> None:
    c = case(name)
    eager = c.method(tensors(c.teacher), tensors(c.student))
    for jit in (False, True):
        run = tf.function(
            lambda t, s: c.method(Outputs(*t), Outputs(*s)), jit_compile=jit, autograph=False
        )
        pair = [(o.logits, o.layers) for o in (tensors(c.teacher), tensors(c.student))]
        np.testing.assert_allclose(run(*pair), eager, rtol=1e-4, atol=1e-5)


@every_setting
def test_config_and_keras_serialization_round_trip(name: str, settings: dict) -> None:
    method = methods.get(name)(**settings, weight=0.3, name="mine")
    config = method.get_config()
    assert config == {**config, **settings, "weight": 0.3, "name": "mine"}
    assert type(method).from_config(config).get_config() == config
    restored = deserialize(serialize(method))
    assert type(restored) is type(method)
    assert restored.get_config() == config


@every_method
def test_found_by_name_and_named_after_its_class(name: str) -> None:
    import kd_keras as kd

    cls = methods.get(name)
    assert snake_case(cls.__name__) == name
    assert getattr(kd, cls.__name__) is cls
    assert cls().name == name
    [built] = methods.build({"my_term": {"method": name, "weight": 2.0}})
    assert (type(built), built.name, built.weight) == (cls, "my_term", 2.0)
    assert methods.build({name: {}})[0].name == name


@every_method
@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_weight_below_zero_or_not_finite(name: str, weight: float) -> None:
    with pytest.raises(InputError, match=r"^weight is .*at least 0$"):
        methods.get(name)(weight=weight)


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf")])
def test_temperature_of_soft_targets(temperature: float) -> None:
    with pytest.raises(InputError, match=r"^temperature is .*above 0$"):
        methods.get("soft_targets")(temperature=temperature)


def test_unknown_method_lists_those_that_exist() -> None:
    with pytest.raises(InputError, match=r"^method 'soft_target' .*logits_l2, soft_targets.*did "):
        methods.build({"soft_target": {}})


@every_method
def test_unknown_hyperparameter_lists_those_that_exist(name: str) -> None:
    with pytest.raises(InputError, match=rf"^method '{name}' has no .*'heat'; it has: .*weight$"):
        methods.build({name: {"heat": 3}})


@every_method
@pytest.mark.parametrize(
    ("teacher", "student", "words"),
    [((4, 5), (4, 3), "teacher has 5, the student 3"), ((4, 1), (4, 1), "at least 2 classes")],
)
def test_logits_that_cannot_be_compared(
    name: str, teacher: tuple, student: tuple, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        methods.get(name)().check(Outputs(tf.zeros(teacher), {}), Outputs(tf.zeros(student), {}))
