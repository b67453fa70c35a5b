"""`Ensemble`: its means against references, in a distiller and alone, and what it refuses."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import oracles
import pytest
import tensorflow as tf
from nets import assert_same, batch, net, one_line, values, with_weights
from oracles import Array
from replicas import two_replicas

import kd_keras as kd
from kd_keras.errors import InputError
from kd_keras.methods.base import NO_CONTEXT, Context, Method
from kd_keras.taps import Outputs
from kd_keras.teachers import Ensemble, KerasTeacher, as_teacher, evaluation

keras: Any = tf.keras
MEANS = ("arithmetic", "geometric", "logits")
WEIGHTS = (3.0, 1.0, 2.0)
T = 3.0


def deep(seed: int = 7) -> Any:
    """A member of another architecture; its layers are `lower`, `features` and `logits`."""
    dense = keras.layers.Dense
    layers = [dense(6, "tanh", name="lower"), dense(4, "tanh", name="features")]
    model = keras.Sequential([keras.Input((4,)), *layers, dense(3, name="logits")], name="deep")
    return with_weights(model, seed)


def three() -> dict[str, Any]:
    return {"narrow": net(4), "wide": net(9, seed=3), "deep": deep()}


def logits(x: Array, members: dict[str, Any]) -> list[Array]:
    return [oracles.dense(values(model), x)[-1] for model in members.values()]


def softened(z: Sequence[Array], weights: Sequence[float], mean: str, temperature: float) -> Array:
    """Hinton et al. 2015, section 1: the arithmetic or geometric mean of the distributions."""
    weights = np.array(weights) / np.sum(weights)
    q = np.stack([oracles.softmax(member, temperature) for member in z])
    if mean == "arithmetic":
        return np.tensordot(weights, q, 1)
    if mean == "geometric":
        product = np.prod(q ** weights[:, None, None], axis=0)
        return product / product.sum(axis=-1, keepdims=True)
    return oracles.softmax(np.tensordot(weights, np.stack(z), 1), temperature)


def divergence(q_t: Array, z_s: Array, temperature: float) -> Array:
    q_s = oracles.softmax(z_s, temperature)
    return temperature**2 * (q_t * np.log(q_t / q_s)).sum(axis=-1)


class Match(Method):
    """The squared distance of two layers of equal width."""

    reads_logits = False
    hyperparameters = ("teacher_layer",)

    def __init__(self, *, teacher_layer: str, name: str | None = None) -> None:
        super().__init__(name=name)
        self.teacher_layer = teacher_layer

    @property
    def teacher_layers(self) -> tuple[str, ...]:
        return (self.teacher_layer,)

    @property
    def student_layers(self) -> tuple[str, ...]:
        return ("features",)

    def __call__(
        self, teacher: Outputs, student: Outputs, context: Context = NO_CONTEXT
    ) -> tf.Tensor:
        difference = teacher.layers[self.teacher_layer] - student.layers["features"]
        return tf.reduce_sum(difference**2, axis=-1)


def distiller(teacher: Any, *methods: Method, student: Any = None, **kwargs: Any) -> Any:
    model = kd.Distiller(student or net(5, seed=2), teacher, methods, label_weight=0.5)
    kwargs = {"loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True), **kwargs}
    model.compile(optimizer=keras.optimizers.SGD(0.5), **kwargs)
    return model


def fit(model: Any, x: Any, y: Any) -> dict[str, float]:
    history = model.fit(x, y, batch_size=16, shuffle=False, verbose=0).history
    return {name: value[0] for name, value in history.items()}


class TestMeans:
    @pytest.mark.parametrize(
        ("mean", "weights"), [("arithmetic", None), *((mean, WEIGHTS) for mean in MEANS)]
    )
    def test_a_step_equals_the_reference(self, mean: str, weights: Any) -> None:
        x, y = batch()
        members = three()
        teacher = Ensemble(members, mean=mean, weights=weights)
        soft, l2 = kd.SoftTargets(temperature=T, weight=0.8), kd.LogitsL2(weight=0.3)
        model = distiller(teacher, soft, l2)
        student = values(model.student)
        z_t = logits(x, members)
        shares = np.array(weights or (1, 1, 1)) / np.sum(weights or (1, 1, 1))
        q_t = softened(z_t, shares, mean, T)
        z_mean = sum(share * z for share, z in zip(shares, z_t, strict=True))

        def terms(w: list) -> tuple:
            z_s = oracles.dense(w, x)[-1]
            regression = 0.5 * ((z_s - z_mean) ** 2).sum(axis=-1)
            return oracles.cross_entropy(y, z_s), divergence(q_t, z_s, T), regression

        def loss(w: list) -> float:
            labels, distributions, regression = terms(w)
            return np.mean(0.5 * labels + 0.8 * distributions + 0.3 * regression)

        logged = fit(model, x, y)
        np.testing.assert_allclose(logged["soft_targets"], np.mean(terms(student)[1]), rtol=1e-4)
        np.testing.assert_allclose(logged["logits_l2"], np.mean(terms(student)[2]), rtol=1e-4)
        assert_same(values(model.student), oracles.descend(loss, student, 0.5), atol=1e-4)

    @pytest.mark.parametrize("mean", ["arithmetic", "geometric"])
    def test_predict_gives_log_probabilities(self, mean: str) -> None:
        x, y = batch(37)
        members = three()
        teacher = Ensemble(members, mean=mean, weights=dict(zip(members, WEIGHTS, strict=True)))
        expected = softened(logits(x, members), WEIGHTS, mean, 1.0)
        np.testing.assert_allclose(np.exp(teacher.predict(x, batch_size=16)), expected, rtol=1e-4)
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(10)
        np.testing.assert_allclose(np.exp(teacher.predict(data)), expected, rtol=1e-4)
        right = np.mean(expected.argmax(axis=-1) == y)
        assert teacher.accuracy(x, y) == pytest.approx(right)
        assert teacher.accuracy(x, np.eye(3)[y]) == pytest.approx(right)
        assert teacher.accuracy(data) == pytest.approx(right)

    def test_the_means_differ(self) -> None:
        x, _ = batch()
        arithmetic, geometric, of_logits = (Ensemble(three(), mean=m).predict(x) for m in MEANS)
        assert np.abs(arithmetic - geometric).max() > 0.1
        np.testing.assert_allclose(geometric, of_logits, rtol=1e-5)

    @pytest.mark.parametrize("mean", MEANS)
    def test_members_that_give_probabilities(self, mean: str) -> None:
        x, _ = batch()
        bare = {"one": net(5), "two": net(6, seed=3)}
        ended = {"one": net(5, ending="softmax"), "two": net(6, seed=3, ending="softmax")}
        expected = Ensemble(bare, mean=mean).predict(x)
        found = Ensemble(ended, mean=mean, from_logits=False).predict(x)
        np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_members_of_a_member_count_by_their_share(self) -> None:
        x, _ = batch()
        members = three()
        inner = Ensemble([members["narrow"], members["wide"]], weights=[3, 1])
        nested = Ensemble({"inner": inner, "deep": members["deep"]}, weights=[2, 1])
        expected = softened(logits(x, members), [0.5, 1 / 6, 1 / 3], "arithmetic", 1.0)
        np.testing.assert_allclose(np.exp(nested.predict(x)), expected, rtol=1e-4)
        refused = {"inner": inner, "deep": members["deep"]}
        with pytest.raises(InputError) as error:
            Ensemble(refused, mean="geometric").specs()
        one_line(error, "'inner'", "geometric", "arithmetic")


class TestInADistiller:
    def test_teacher_accuracy_is_that_of_the_mean(self) -> None:
        """Three examples where the arithmetic mean and the mean of logits disagree."""
        z = np.array([[[9, 0, 0], [0, 2, 0], [0, 2, 0]]] * 3, np.float32)
        members = [constant(z[0, i]) for i in range(3)]
        x, y = np.zeros((3, 4), np.float32), np.array([1, 1, 0])
        for mean, accuracy in (("arithmetic", 2 / 3), ("logits", 1 / 3)):
            model = distiller(Ensemble(members, mean=mean), teacher_accuracy=True)
            assert fit(model, x, y)["teacher_accuracy"] == pytest.approx(accuracy)

    def test_lists_and_mappings_are_ensembles(self) -> None:
        given = list(three().values())
        assert kd.Distiller(net(5), given).teacher is given
        softmax = [net(4, ending="softmax"), net(5, ending="softmax")]
        for members in (softmax, dict(zip("ab", softmax, strict=True))):
            teacher = as_teacher(members, from_logits=False)
            assert isinstance(teacher, Ensemble)
            assert teacher.mean == "arithmetic"
            assert not any(member.from_logits for member in teacher.members.values())

    def test_a_members_layer(self) -> None:
        x, y = batch()
        members = three()
        student = net(4, seed=2)
        features = oracles.dense(values(members["deep"]), x)[1]
        expected = ((features - own_features(student, x)) ** 2).sum(axis=-1).mean()
        model = distiller(members, Match(teacher_layer="deep/features"), student=student)
        np.testing.assert_allclose(fit(model, x, y)["match"], expected, rtol=1e-4)

    @pytest.mark.parametrize(
        ("methods", "ran"),
        [
            ([kd.SoftTargets(), kd.LogitsL2(), Match(teacher_layer="one/features")], [1, 1]),
            ([Match(teacher_layer="one/features")], [1, 0]),
        ],
        ids=["all that is read", "only what is read"],
    )
    def test_members_run_once_and_only_if_they_are_read(
        self, methods: list[Method], ran: list[int]
    ) -> None:
        x, y = batch()
        calls = [0, 0]
        members = {name: counted(calls, i) for i, name in enumerate(("one", "two"))}
        model = distiller(members, *methods)
        calls[:] = [0, 0]
        fit(model, x, y)  # one step
        assert calls == ran

    def test_two_replicas_take_the_step_of_one(self) -> None:
        x, y = batch()
        methods = [kd.SoftTargets(temperature=T), Match(teacher_layer="deep/features")]
        alone = distiller(three(), *methods, student=net(4, seed=2))
        fit(alone, x, y)
        with two_replicas().scope():
            both = distiller(three(), *methods, student=net(4, seed=2))
        fit(both, x, y)
        assert_same(values(both.student), values(alone.student), atol=1e-6)

    def test_members_are_frozen_and_in_no_file(self, tmp_path: pathlib.Path) -> None:
        x, y = batch()
        members = three()
        before = [values(model) for model in members.values()]
        model = distiller(members, kd.SoftTargets())
        fit(model, x, y)
        for model_before, member in zip(before, members.values(), strict=True):
            assert_same(values(member), model_before)
        theirs = {id(weight) for member in members.values() for weight in member.weights}
        assert not theirs & {id(weight) for weight in model.weights}
        model.save(tmp_path / "distiller.keras")
        restored = keras.models.load_model(tmp_path / "distiller.keras")
        assert restored.teacher is None
        assert_same(values(restored.student), values(model.student))
        restored.teacher = members
        fit(restored, x, y)

    def test_members_that_are_built_by_the_first_batch(self) -> None:
        x, y = batch()
        unbuilt = keras.Sequential([keras.layers.Dense(5, "tanh"), keras.layers.Dense(3)])
        teacher = Ensemble({"unbuilt": unbuilt, "built": net(4)})
        assert teacher.specs() is None
        assert fit(distiller(teacher, kd.SoftTargets()), x, y)["soft_targets"] > 0


def own_features(model: Any, x: Array) -> Array:
    return np.tanh(x @ values(model)[0] + values(model)[1])


def constant(z: Array) -> Any:
    """A model that gives the logits `z` for every example."""
    start = keras.Input((4,))
    model = keras.Model(start, keras.layers.Dense(3, name="logits")(start))
    model.set_weights([np.zeros((4, 3), np.float32), z])
    return model


class Counted(keras.layers.Layer):
    """Passes its input through, and counts how often it is computed."""

    def __init__(self, calls: list[int], index: int) -> None:
        super().__init__()
        self._count = lambda x: (calls.__setitem__(index, calls[index] + 1), x)[1]

    def call(self, x: Any) -> Any:
        counted = tf.numpy_function(self._count, [x], tf.float32, stateful=False)
        return tf.ensure_shape(counted, x.shape)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


def counted(calls: list[int], index: int) -> Any:
    layers = [Counted(calls, index), keras.layers.Dense(5, "tanh", name="features")]
    model = keras.Sequential([*layers, keras.layers.Dense(3, name="logits")])
    model.build((None, 4))
    return with_weights(model, index)


class TestNames:
    def test_members_go_by_their_models_names(self) -> None:
        models = [
            keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name=name)
            for name in "aab"
        ]
        assert list(Ensemble(models).members) == ["a", "a_2", "b"]
        assert list(Ensemble([KerasTeacher(model) for model in models]).members)[1] == "a_2"

    def test_weights_add_up_to_one(self) -> None:
        assert Ensemble(three(), weights=WEIGHTS).weights == pytest.approx(
            {"narrow": 0.5, "wide": 1 / 6, "deep": 1 / 3}
        )

    def test_specs(self) -> None:
        specs = Ensemble(three(), weights=WEIGHTS).specs(["deep/features", "wide/features"])
        assert specs is not None
        assert specs.logits.shape.as_list() == [None, 3]
        assert {name: s.shape.as_list() for name, s in specs.layers.items()} == {
            "deep/features": [None, 4],
            "wide/features": [None, 9],
        }
        assert [weight for _, weight in specs.members] == pytest.approx([0.5, 1 / 6, 1 / 3])

    def test_the_input_is_what_all_members_take(self) -> None:
        shapes = [(None, 8, 1), (8, None, 1)]
        mean, dense = keras.layers.GlobalAveragePooling2D, keras.layers.Dense
        models = [keras.Sequential([keras.Input(s), mean(), dense(3)]) for s in shapes]
        assert Ensemble(models).input_specs().shape.as_list() == [None, 8, 8, 1]


class TestRefused:
    @pytest.mark.parametrize(
        ("members", "settings", "words"),
        [
            (lambda: [net(4)], {}, ["at least two", "not 1"]),
            (list, {}, ["at least two", "not 0"]),
            (lambda: net(4), {}, ["at least two", "not 1"]),
            (three, {"weights": [1, 2]}, ["2 values", "3 members", "narrow, wide, deep"]),
            (three, {"weights": [1, 0, 1]}, ["'wide'", "0", "leave out"]),
            (three, {"weights": [1, -1, 1]}, ["'wide'", "-1", "above 0"]),
            (three, {"weights": [1, float("nan"), 1]}, ["'wide'", "nan"]),
            (three, {"weights": {"narrow": 1, "tall": 2}}, ["tall", "narrow, wide, deep"]),
            (three, {"mean": "harmonic"}, ["'harmonic'", "arithmetic, geometric, logits"]),
            (lambda: {"a/b": net(4), "c": net(4)}, {}, ["'a/b'", "by name"]),
            (lambda: {"a": [net(4)], "c": net(4)}, {}, ["'a'", "list", "Keras model"]),
            (lambda: {"a": net(4), "b": net(4, inputs=5)}, {}, ["'a'", "(None, 4)", "(None, 5)"]),
        ],
    )
    def test_bad_input_at_once(self, members: Any, settings: dict, words: list[str]) -> None:
        with pytest.raises(InputError) as error:
            Ensemble(members(), **settings)
        one_line(error, *words)

    @pytest.mark.parametrize(
        ("teacher", "layer", "words"),
        [
            (lambda: {"a": net(4), "b": net(4, classes=5)}, None, ["classes", "'a' 3", "'b' 5"]),
            (lambda: {"a": net(4), "b": net(4, ending="softmax")}, None, ["softmax"]),
            (three, "features", ["'features'", "member/layer", "narrow, wide, deep"]),
            (three, "tall/features", ["'tall/features'", "narrow, wide, deep"]),
            (three, "deep/stage9", ["'stage9'", "lower, features, logits"]),
        ],
    )
    def test_bad_members_before_training(self, teacher: Any, layer: Any, words: list[str]) -> None:
        methods = [Match(teacher_layer=layer)] if layer else [kd.SoftTargets()]
        with pytest.raises(InputError) as error:
            kd.Distiller(net(4), teacher(), methods)
        one_line(error, *words)

    def test_bad_members_in_a_prediction(self) -> None:
        x, y = batch()
        with pytest.raises(InputError) as error:
            Ensemble([net(4), net(4, classes=5)]).predict(x)
        one_line(error, "same classes")
        with pytest.raises(InputError) as error:
            evaluation.accuracy(KerasTeacher(net(4)), x)
        one_line(error, "labels")
        with pytest.raises(InputError) as error:
            evaluation.accuracy(KerasTeacher(net(4)), x[:0], y[:0])
        one_line(error, "empty")
