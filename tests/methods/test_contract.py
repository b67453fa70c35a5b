"""What holds for every distillation method; a new one needs its line in `oracles.METHODS`."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import oracles
import pytest
import tensorflow as tf
from nets import assert_differ, assert_same, values, with_weights
from oracles import Arrays
from replicas import two_replicas

from kd_keras import methods, taps
from kd_keras.distiller import Distiller
from kd_keras.errors import InputError
from kd_keras.methods.base import Context, snake_case
from kd_keras.serialization import deserialize, serialize
from kd_keras.taps import Outputs

keras: Any = tf.keras
BATCH, CLASSES = 6, 5
LABELS = np.array([4, 0, 2, 2, 1, 3])
CONTEXT = Context(step=0, labels=tf.constant(LABELS))


def cases() -> list:
    """Every oracle, at each of its settings."""
    return [
        pytest.param(oracle, dict(settings), id=f"{oracle.name}-{settings}")
        for oracle in oracles.METHODS
        for settings in oracle.settings
    ]


every_setting = pytest.mark.parametrize(("oracle", "settings"), cases())
every_method = pytest.mark.parametrize("name", methods.names())


@dataclasses.dataclass
class Case:
    """A method between random outputs, and what its oracle says of them."""

    method: Any
    reference: Callable[[Arrays, Arrays], np.ndarray]
    teacher: Arrays
    student: Arrays


def case(oracle: oracles.Oracle, settings: dict, scale: float = 2.0) -> Case:
    generator = np.random.default_rng(3)

    def arrays(shapes: Any) -> Arrays:
        drawn = {k: generator.normal(0, scale, (BATCH, *shape)) for k, shape in shapes.items()}
        return Arrays(generator.normal(0, scale, (BATCH, CLASSES)), drawn)

    known = {"labels": LABELS, "step": 0}
    context = {key: known[key] for key in oracle.context}
    layers = oracle.teacher_layers
    return Case(
        methods.get(oracle.name)(**settings),
        lambda t, s: oracle.reference(t, s, **settings, **context),
        arrays(layers),
        arrays(layers if oracle.student_layers is None else oracle.student_layers),
    )


def oracle_of(name: str) -> oracles.Oracle:
    """A method's first oracle."""
    found = [oracle for oracle in oracles.METHODS if oracle.name == name]
    assert found, f"method {name!r} has no oracle: write its reference into tests/oracles.py"
    return found[0]


def case_of(name: str, scale: float = 2.0) -> Case:
    """A method without hyperparameters, on the layers of its first oracle."""
    return case(oracle_of(name), {}, scale)


def tensors(arrays: Arrays, dtype: str = "float32") -> Outputs:
    layers = {key: tf.constant(value, dtype) for key, value in arrays.layers.items()}
    return Outputs(tf.constant(arrays.logits, dtype), layers)


def map_arrays(arrays: Arrays, change: Any) -> Arrays:
    return Arrays(change(arrays.logits), {k: change(v) for k, v in arrays.layers.items()})


def parts(outputs: Any) -> list:
    """The logits, then the layers."""
    return [outputs.logits, *outputs.layers.values()]


def staged(width: int, seed: int) -> Any:
    """A net with every layer that a method reads by default; nets of any width fit each other."""
    layers = keras.layers
    x = start = keras.Input((4, 4, 1))
    for number, channels in enumerate((2, 3, 2), start=1):
        kernel = 2 if number == 2 else 1
        x = layers.Conv2D(channels, kernel, kernel, "same", name=f"stage{number}")(x)
    x = layers.Dense(width, "tanh", name="features")(layers.Flatten()(x))
    return with_weights(keras.Model(start, layers.Dense(CLASSES, name="logits")(x)), seed)


def photos(examples: int) -> tuple:
    """Images for `staged`, and labels."""
    generator = np.random.default_rng(5)
    x = generator.normal(0, 0.5, (examples, 4, 4, 1)).astype("float32")
    return x, generator.integers(0, CLASSES, examples)


@every_method
def test_every_method_has_an_oracle(name: str) -> None:
    case_of(name)


def test_no_oracle_is_left_over() -> None:
    assert {oracle.name for oracle in oracles.METHODS} == set(methods.names())


@pytest.mark.any_keras
@every_setting
def test_one_value_an_example_equal_to_the_oracle(oracle: Any, settings: dict) -> None:
    c = case(oracle, settings)
    term = c.method(tensors(c.teacher), tensors(c.student), CONTEXT)
    assert term.shape == (BATCH,)
    assert term.dtype == tf.float32
    np.testing.assert_allclose(term, c.reference(c.teacher, c.student), rtol=1e-4, atol=1e-5)


@pytest.mark.any_keras
@every_setting
def test_the_students_gradients_are_the_oracles(oracle: Any, settings: dict) -> None:
    """For the logits and for each layer; logits that are not read have none."""
    c = case(oracle, settings)
    student = tensors(c.student)
    with tf.GradientTape() as tape:
        tape.watch(parts(student))
        loss = tf.reduce_sum(c.method(tensors(c.teacher), student, CONTEXT))
    found = tape.gradient(loss, parts(student))

    def reference(weights: list) -> float:
        layers = dict(zip(c.student.layers, weights[1:], strict=True))
        return c.reference(c.teacher, Arrays(weights[0], layers)).sum()

    expected = oracles.gradient(reference, parts(c.student))
    if not c.method.reads_logits:
        assert found.pop(0) is None
        assert not expected.pop(0).any()
    for ours, theirs in zip(found, expected, strict=True):
        assert theirs.any()
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.any_keras
@every_setting
def test_zero_and_flat_where_the_student_equals_the_teacher(oracle: Any, settings: dict) -> None:
    if not oracle.zero_at_match:
        pytest.skip("its oracle says that it is not 0 where the student equals the teacher")
    if oracle.student_layers is not None:
        pytest.skip("its layers have other shapes than the teacher's")
    c = case(oracle, settings)
    outputs = tensors(c.teacher)
    with tf.GradientTape() as tape:
        tape.watch(parts(outputs))
        term = c.method(tensors(c.teacher), outputs, CONTEXT)
    np.testing.assert_allclose(term, 0, atol=1e-4)
    for slope in tape.gradient(term, parts(outputs)):
        np.testing.assert_allclose(0 if slope is None else slope, 0, atol=1e-4)
    for direction in (1, -1):
        moved = map_arrays(c.teacher, lambda v, d=direction: v + 0.3 * d * np.sin(v))
        assert (c.method(tensors(c.teacher), tensors(moved), CONTEXT).numpy() > 0).all()


@pytest.mark.any_keras
@every_setting
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_finite_in_half_precision_and_for_large_values(
    oracle: Any, settings: dict, scale: float
) -> None:
    """A half-precision model's logits reach a method through `as_logits`, as in the distillers."""
    c = case(oracle, settings, scale)
    teacher, student = (tensors(a, "float16") for a in (c.teacher, c.student))
    with tf.GradientTape() as tape:
        tape.watch(parts(student))
        read = [
            Outputs(taps.as_logits(o.logits, True, "model"), o.layers) for o in (teacher, student)
        ]
        term = c.method(*read, CONTEXT)
    assert term.dtype == tf.float32
    assert np.isfinite(term).all()
    # The slopes of products of a layer's large values are beyond float16 themselves.
    steep = oracle.name == "fsp" and scale > 1
    for slope in [] if steep else tape.gradient(term, parts(student)):
        assert slope is None or np.isfinite(slope).all()


@pytest.mark.any_keras
@every_method
def test_finite_for_values_of_ten_thousand(name: str) -> None:
    c = case_of(name, scale=1e4)
    assert np.isfinite(c.method(tensors(c.teacher), tensors(c.student), CONTEXT)).all()


@every_method
def test_no_gradient_reaches_the_teacher(name: str) -> None:
    """The distiller cuts it, so that no method has to."""
    method = methods.get(name)()
    teacher, student = staged(6, seed=1), staged(4, seed=2)
    distiller = Distiller(student, teacher, [method])
    x, y = photos(BATCH)
    with tf.GradientTape(persistent=True) as tape:
        read = distiller._projected(method, distiller._student_outputs(x)[0])
        term = method(distiller._teacher_outputs(x), read, Context(0, tf.constant(y)))
        loss = tf.reduce_sum(term)
    assert set(tape.gradient(loss, teacher.trainable_variables)) == {None}
    found = tape.gradient(loss, distiller._student_variables())
    assert any(slope is not None for slope in found)
    if method.reads_logits:
        assert not any(slope is None for slope in found)


@pytest.mark.any_keras
@every_method
def test_examples_do_not_mix(name: str) -> None:
    """The order of the batch does not matter, nor does what else is in it."""
    if oracle_of(name).mixes:
        pytest.skip(oracle_of(name).mixes)
    c = case_of(name)
    order = np.random.default_rng(0).permutation(BATCH)
    for chosen in (order, [0]):
        picked = [tensors(map_arrays(a, lambda v, i=chosen: v[i])) for a in (c.teacher, c.student)]
        term = c.method(*picked, Context(0, tf.constant(LABELS[chosen])))
        whole = c.method(tensors(c.teacher), tensors(c.student), CONTEXT).numpy()
        np.testing.assert_allclose(term, whole[chosen], rtol=1e-5)


@pytest.mark.any_keras
@every_method
@pytest.mark.parametrize("jit", [False, True])
def test_same_in_a_graph_and_under_xla(name: str, jit: bool) -> None:
    if jit and oracle_of(name).other_under_xla:
        pytest.skip(oracle_of(name).other_under_xla)
    c = case_of(name)
    eager = c.method(tensors(c.teacher), tensors(c.student), CONTEXT)
    run = tf.function(
        lambda t, s, step: c.method(Outputs(*t), Outputs(*s), Context(step, CONTEXT.labels)),
        jit_compile=jit,
        autograph=False,
    )
    pair = [(o.logits, o.layers) for o in (tensors(c.teacher), tensors(c.student))]
    np.testing.assert_allclose(run(*pair, tf.constant(0, tf.int64)), eager, 1e-4, 1e-5)


@pytest.mark.any_keras
@every_method
def test_an_example_has_its_value_on_whichever_replica(name: str) -> None:
    """Four of the six examples are on the first replica, two on the second."""
    c = case_of(name)
    whole = c.method(tensors(c.teacher), tensors(c.student), CONTEXT)

    def run() -> tf.Tensor:
        first = tf.distribute.get_replica_context().replica_id_in_sync_group == 0
        start, end = tf.unstack(tf.where(first, [0, 4], [4, 6]))
        own = [tensors(a) for a in (c.teacher, c.student)]
        own = [Outputs(*tf.nest.map_structure(lambda v: v[start:end], parts_of(o))) for o in own]
        return c.method(*own, Context(0, CONTEXT.labels[start:end]))

    def parts_of(outputs: Outputs) -> tuple:
        return outputs.logits, outputs.layers

    replicas = tf.function(lambda: two_replicas().run(run), autograph=False)()
    found = tf.concat(two_replicas().experimental_local_results(replicas), axis=0)
    np.testing.assert_allclose(found, whole, rtol=1e-5)


def test_one_replica_and_two_take_the_same_steps_down_all_terms_together() -> None:
    """The last batch is divided unevenly."""
    x, y = photos(8 + 8 + 5)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)

    def trained() -> tuple[Any, dict]:
        every = [methods.get(name)() for name in methods.names()]
        model = Distiller(staged(4, seed=2), staged(6, seed=1), every, label_weight=0)
        model.compile(keras.optimizers.SGD(0.01), loss=None, jit_compile=False)
        return model, model.fit(data, verbose=0).history

    alone, history = trained()
    with two_replicas().scope():
        mirrored, mirrored_history = trained()
    assert_differ(values(alone.student), values(staged(4, seed=2)))
    assert_same(values(mirrored), values(alone), atol=1e-5)
    assert set(methods.names()) < set(history)
    for term, value in history.items():
        np.testing.assert_allclose(mirrored_history[term], value, rtol=1e-4, err_msg=term)


def test_a_method_that_needs_labels_says_so() -> None:
    needy = {name for name in methods.names() if methods.get(name).needs_labels}
    assert needy == {oracle.name for oracle in oracles.METHODS if "labels" in oracle.context}
    for name in needy:
        method = methods.get(name)()
        model = Distiller(staged(4, seed=2), staged(6, seed=1), [method], label_weight=0)
        model.compile("sgd", loss=None)
        with pytest.raises(InputError, match=f"^{name} needs labels, .* give labels$"):
            model.fit(photos(8)[0], verbose=0)


@pytest.mark.any_keras
@every_method
def test_a_method_that_lacks_nothing_is_not_changed_by_fitting(name: str) -> None:
    method = methods.get(name)(weight=0.3, name="mine")
    assert method.fitted
    assert method.fitted_to(np.zeros((3, CLASSES))).get_config() == method.get_config()


def test_an_ensemble_teaches_the_mean_of_its_softened_distributions() -> None:
    """Not the softened mean: the two differ at every temperature but 1."""
    generator = np.random.default_rng(1)
    draws = [generator.normal(0, 2.0, (BATCH, CLASSES)) for _ in range(4)]
    members = list(zip(draws[:3], (0.5, 0.3, 0.2), strict=True))
    mean = sum(weight * logits for logits, weight in members)
    given = tuple((tf.constant(logits, tf.float32), weight) for logits, weight in members)
    teacher = Outputs(tf.constant(mean, tf.float32), {}, given)
    student = Outputs(tf.constant(draws[3], tf.float32), {})
    for temperature in (0.5, 1.0, 5.0):
        term = methods.get("soft_targets")(temperature=temperature)(teacher, student)
        expected = oracles.averaged_soft_targets(members, draws[3], temperature)
        np.testing.assert_allclose(term, expected, rtol=1e-4, atol=1e-5)
        other = oracles.soft_targets(Arrays(mean), Arrays(draws[3]), temperature)
        assert np.abs(term - other).max() > 1e-3


@every_setting
def test_config_and_keras_serialization_round_trip(oracle: Any, settings: dict) -> None:
    method = methods.get(oracle.name)(**settings, weight=0.3, name="mine")
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


@pytest.mark.any_keras
@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf")])
def test_temperature_of_soft_targets(temperature: float) -> None:
    with pytest.raises(InputError, match=r"^temperature is .*above 0$"):
        methods.get("soft_targets")(temperature=temperature)


def test_unknown_method_lists_those_that_exist() -> None:
    with pytest.raises(InputError, match=r"^method 'soft_target' .*: soft_targets, "):
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
    """A method that reads layers alone has no opinion on them."""
    c = case_of(name)
    layers = tensors(c.teacher).layers, tensors(c.student).layers
    outputs = Outputs(tf.zeros(teacher), layers[0]), Outputs(tf.zeros(student), layers[1])
    if not c.method.reads_logits:
        c.method.check(*outputs)
        return
    with pytest.raises(InputError, match=words):
        c.method.check(*outputs)
