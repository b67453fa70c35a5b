"""Python functions and scikit-learn classifiers teach; what they may give is checked."""

import copy
import functools
import os
import pathlib
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import oracles
import pytest
import tensorflow as tf
from nets import assert_same, batch, net, one_line, values
from oracles import Array
from replicas import two_replicas
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

import kd_keras as kd
from kd_keras.errors import InputError
from kd_keras.teachers import Ensemble, KerasTeacher, evaluation
from kd_keras.teachers.base import refusal_in
from kd_keras.teachers.classifier import SklearnTeacher
from kd_keras.teachers.function import FunctionTeacher

keras: Any = tf.keras
T = 3.0
WEIGHTS = np.random.default_rng(3).normal(size=(4, 3)).astype("float32")


def linear(x: Array) -> Array:
    return oracles.softmax(x @ WEIGHTS)


def distiller(teacher: Any, student: Any = None, **kwargs: Any) -> Any:
    methods = [kd.SoftTargets(temperature=T), kd.LogitsL2(weight=0.3)]
    model = kd.Distiller(student or net(5, seed=2), teacher, methods)
    model.compile(keras.optimizers.SGD(0.5), None, jit_compile=False, **kwargs)
    return model


def fit(model: Any, x: Array, **kwargs: Any) -> dict[str, float]:
    history = model.fit(x, batch_size=16, shuffle=False, verbose=0, **kwargs).history
    return {name: value[-1] for name, value in history.items()}


def refusal(run: Callable, *words: str) -> None:
    """What runs is refused in one line, by an InputError or by the one in TensorFlow's error."""
    with pytest.raises((InputError, tf.errors.OpError)) as error:
        run()
    found = refusal_in(error.value) or error.value
    assert isinstance(found, InputError)
    one_line(types.SimpleNamespace(value=found), *words)


class TestFunction:
    @pytest.mark.parametrize("from_logits", [False, True])
    def test_a_step_equals_the_reference(self, from_logits: bool) -> None:
        x, _ = batch()
        function = (lambda x: x @ WEIGHTS) if from_logits else linear
        model = distiller(FunctionTeacher(function, from_logits=from_logits))
        student = values(model.student)
        z_t = x @ WEIGHTS if from_logits else np.log(np.maximum(linear(x), 1e-7))

        def loss(w: list) -> float:
            sides = oracles.Arrays(z_t), oracles.Arrays(oracles.dense(w, x)[-1])
            soft = oracles.soft_targets(*sides, temperature=T)
            return np.mean(soft + 0.3 * oracles.logits_l2(*sides))

        assert fit(model, x)["loss"] == pytest.approx(loss(student), rel=1e-4)
        assert_same(values(model.student), oracles.descend(loss, student, 0.5), atol=1e-4)

    def test_two_replicas_take_the_step_of_one(self) -> None:
        """The last batch holds one example, so that one replica has none."""

        def never_empty(x: Array) -> Array:
            assert len(x)
            return linear(x)

        x, _ = batch(17)
        alone = distiller(FunctionTeacher(never_empty))
        fit(alone, x)
        with two_replicas().scope():
            both = distiller(FunctionTeacher(never_empty))
        fit(both, x)
        assert_same(values(both.student), values(alone.student), atol=1e-6)

    def test_a_function_cannot_change_the_students_batch(self) -> None:
        x, _ = batch()

        def in_place(x: Array) -> Array:
            x *= 2
            result = linear(x)
            x[:] = np.nan
            return result

        changed = distiller(FunctionTeacher(in_place, classes=3))
        fit(changed, x, epochs=3)
        alike = distiller(FunctionTeacher(lambda x: linear(2 * x)))
        fit(alike, x, epochs=3)
        assert_same(values(changed.student), values(alike.student), atol=1e-6)

    def test_classes_are_counted_once_or_given(self) -> None:
        x, _ = batch()
        seen = []

        def counted(x: Array) -> Array:
            assert x.dtype == np.float32
            seen.append(len(x))
            return linear(x)

        teacher = FunctionTeacher(counted)
        assert teacher.specs() is None
        assert evaluation.predict(teacher, x, batch_size=8).shape == (16, 3)
        assert (teacher.classes, seen) == (3, [1, 8, 8])
        for known in (teacher, FunctionTeacher(counted, classes=3)):
            assert known.specs().logits.shape.as_list() == [None, 3]  # type: ignore[union-attr]
        assert teacher.outputs(x.astype("float64")).logits.shape == (16, 3)

    def test_in_an_ensemble(self) -> None:
        x, _ = batch()
        model = net(4)
        members = [FunctionTeacher(linear, classes=3), KerasTeacher(model)]
        teacher = Ensemble(members)
        assert list(teacher.members) == ["linear", model.name]
        expected = (linear(x) + oracles.softmax(oracles.dense(values(model), x)[-1])) / 2
        np.testing.assert_allclose(np.exp(teacher.predict(x)), expected, rtol=1e-4)
        assert fit(distiller(teacher), x)["soft_targets"] > 0

    def test_several_inputs_keep_their_structure(self) -> None:
        x = {"left": np.ones((6, 2), "float32"), "right": np.arange(6)}
        teacher = FunctionTeacher(lambda x: np.eye(6)[x["right"]] * x["left"][:, :1], classes=6)
        assert evaluation.predict(teacher, x).argmax(axis=-1).tolist() == list(range(6))

    def test_fingerprints(self) -> None:
        one, same, other = (FunctionTeacher(linear, fingerprint=text) for text in "aab")
        logits = FunctionTeacher(linear, fingerprint="a", from_logits=True)
        assert one.fingerprint() == same.fingerprint()
        assert len({each.fingerprint() for each in (one, other, logits)}) == 3
        assert int(one.fingerprint(), 16)
        with pytest.raises(InputError) as error:
            FunctionTeacher(linear).fingerprint()
        one_line(error, "'linear'", "fingerprint='...'")


def with_row(row: list[float]) -> Callable:
    """The function `linear` with another row 2."""
    return lambda x: np.concatenate([linear(x)[:2], [row], linear(x)[3:]])


def failing(x: Array) -> Array:
    raise KeyError("weights\nInputError: of\nmine")


BAD_RESULTS: list[tuple[Callable, list[str]]] = [
    (with_row([0.5, np.nan, 0.5]), ["[0.5, nan, 0.5] in row 2", "finite"]),
    (with_row([0.5, np.inf, 0.5]), ["inf", "finite"]),
    (with_row([0.5, -0.25, 0.75]), ["-0.25", "probabilities"]),
    (with_row([0.5, 0.5, 0.5]), ["row 2", "normalise", "from_logits=True"]),
    (lambda x: linear(x)[:-1], ["(15, 3)", "16 examples"]),
    (lambda x: linear(x)[:, :2], ["(16, 2)", "3 classes"]),
    (lambda x: linear(x).argmax(axis=1), ["(16,)", "(batch, classes)"]),
    (lambda x: linear(x).astype(str), ["<U", "numbers"]),
    (failing, ["'failing'", "KeyError: ", "InputError: of", "(16, 4)"]),
]


class TestRefused:
    @pytest.mark.parametrize(("function", "words"), BAD_RESULTS)
    def test_bad_results_in_a_prediction(self, function: Callable, words: list[str]) -> None:
        refusal(
            lambda: evaluation.predict(FunctionTeacher(function, classes=3), batch()[0]), *words
        )

    @pytest.mark.parametrize("settings", [{}, {"run_eagerly": True}, {"steps_per_execution": 2}])
    @pytest.mark.parametrize(("function", "words"), BAD_RESULTS[::4])
    def test_bad_results_in_training(
        self, function: Callable, words: list[str], settings: dict
    ) -> None:
        model = distiller(FunctionTeacher(function, classes=3), **settings)
        before = values(model.student)
        refusal(lambda: fit(model, batch(32)[0]), *words)
        assert_same(values(model.student), before)

    def test_bad_results_on_two_replicas(self) -> None:
        with two_replicas().scope():
            model = distiller(FunctionTeacher(failing, classes=3))
        refusal(lambda: fit(model, batch()[0]), "'failing'", "KeyError: ", "(8, 4)")

    def test_probabilities_for_logits(self) -> None:
        model = distiller(FunctionTeacher(linear, from_logits=True))
        refusal(lambda: fit(model, batch()[0]), "probabilities", "from_logits=False")

    @pytest.mark.parametrize(
        ("function", "words"),
        [
            (failing, ["KeyError", "zeros", "classes="]),
            (lambda x: linear(x)[:, 0], ["(1,)", "(1, classes)"]),
            (lambda x: np.ones((len(x), 1)), ["(1, 1)", "at least 2"]),
            (lambda x: np.eye(5)[x[:, 0].astype(int)], ["same classes", "5", "3"]),
        ],
    )
    def test_classes_that_do_not_fit_before_anything_runs(
        self, function: Callable, words: list[str]
    ) -> None:
        with pytest.raises(InputError) as error:
            fit(distiller(FunctionTeacher(function)), batch()[0])
        one_line(error, *words)

    @pytest.mark.any_keras
    def test_what_is_refused_at_once(self) -> None:
        for arguments, words in (
            ({"function": 3}, ["int", "called"]),
            ({"function": linear, "classes": 1}, ["classes is 1", "at least 2"]),
            ({"function": linear, "classes": 2.0}, ["classes is 2.0"]),
        ):
            with pytest.raises(InputError) as error:
                FunctionTeacher(**arguments)  # type: ignore[arg-type]
            one_line(error, *words)
        unknown = tf.function(FunctionTeacher(linear).outputs, autograph=False)
        with pytest.raises(InputError) as error:
            unknown.get_concrete_function(tf.TensorSpec(None))
        one_line(error, "'linear'", "not known", "classes=")

    def test_layers(self) -> None:
        hint = kd.Hint(teacher_layer="conv", student_layer="features")
        with pytest.raises(InputError) as error:
            kd.Distiller(net(4), FunctionTeacher(linear), [hint])
        one_line(error, "'conv'", "'linear'", "no layers", "soft_targets")

    @pytest.mark.any_keras
    def test_other_errors_of_a_graph_are_no_refusals(self) -> None:
        with pytest.raises(tf.errors.OpError) as error:
            tf.function(lambda x: tf.debugging.check_numerics(x, "here"))(tf.constant(np.nan))
        assert refusal_in(error.value) is None
        assert refusal_in(KeyError("InputError: a")) is None


@functools.cache
def digits() -> tuple[Array, Array]:
    """8x8 images with values in [0, 1], and labels."""
    data = load_digits()
    return (data.images[..., None] / 16).astype("float32"), data.target


@functools.cache
def forest(without: int | None = None, seed: int = 0) -> Any:
    x, y = digits()
    x, y = x[:1200].reshape(1200, -1), y[:1200]
    kept = y != without
    return RandomForestClassifier(30, random_state=seed).fit(x[kept], y[kept])


class TestClassifier:
    def test_a_forest_teaches_an_mlp(self) -> None:
        """Without labels: a wrong order of the columns would teach the wrong classes."""
        x, y = digits()
        teacher = SklearnTeacher(forest())
        accuracy = evaluation.accuracy(teacher, x[1200:], y[1200:])
        assert accuracy == pytest.approx(forest().score(x[1200:].reshape(597, -1), y[1200:]))
        assert accuracy > 0.9
        layers = [keras.layers.Flatten(), keras.layers.Dense(32, "relu"), keras.layers.Dense(10)]
        student = keras.Sequential([keras.Input((8, 8, 1)), *layers])
        model = kd.Distiller(student, teacher, [kd.SoftTargets(temperature=1.0)])
        model.compile(keras.optimizers.Adam(0.01), None, jit_compile=False)
        model.fit(x[1200 - 1152 : 1200], batch_size=64, epochs=8, verbose=0)
        found = student.predict(x[1200:], verbose=0).argmax(axis=-1)
        assert np.mean(found == y[1200:]) > 0.85

    def test_columns_are_the_classes_of_the_classifier(self) -> None:
        x, _ = digits()
        teacher = SklearnTeacher(forest(without=1), classes=12)
        logits = teacher.outputs(x[:50]).logits.numpy()
        expected = forest(without=1).predict_proba(x[:50].reshape(50, -1))
        seen = [0, *range(2, 10)]
        np.testing.assert_allclose(logits[:, seen], np.log(np.maximum(expected, 1e-7)), rtol=1e-5)
        np.testing.assert_allclose(logits[:, [1, 10, 11]], np.log(1e-7), rtol=1e-5)

    @pytest.mark.any_keras
    def test_fingerprint_is_of_the_values(self) -> None:
        one = SklearnTeacher(forest()).fingerprint()
        forest().predict_proba(digits()[0][:5].reshape(5, -1))
        assert SklearnTeacher(forest()).fingerprint() == one
        assert SklearnTeacher(copy.deepcopy(forest())).fingerprint() == one
        shared = np.arange(3)
        notes = [[shared, shared], [shared, shared.copy()], [shared, shared + 1]]
        noted = [copy.copy(forest()) for _ in notes]
        for classifier, note in zip(noted, notes, strict=True):
            classifier.note = note
        found = [SklearnTeacher(classifier).fingerprint() for classifier in noted]
        assert found[0] == found[1] != found[2]
        others = [SklearnTeacher(forest(), classes=12), SklearnTeacher(forest(seed=1))]
        assert len({one, *(other.fingerprint() for other in others)}) == 3

    @pytest.mark.any_keras
    def test_fingerprint_is_that_of_another_process(self) -> None:
        code = (
            "import test_function as t; print(t.SklearnTeacher(t.forest()).fingerprint(), end='')"
        )
        here = pathlib.Path(__file__).parent
        path = os.pathsep.join(map(str, (here, here.parent, here.parent.parent)))
        found = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "7"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout == SklearnTeacher(forest()).fingerprint()

    @pytest.mark.any_keras
    def test_refused(self) -> None:
        x, y = digits()
        x = x[:100].reshape(100, -1)
        names = np.array(["even", "odd"])[y[:100] % 2]
        unnamed = copy.copy(forest())
        unnamed.monitor = lambda: None
        cases: list[tuple[Callable, list[str]]] = [
            (lambda: SklearnTeacher(LinearSVC().fit(x, y[:100])), ["LinearSVC", "predict_proba"]),
            (lambda: SklearnTeacher(LogisticRegression()), ["not fitted", "fit(x, y)"]),
            (lambda: SklearnTeacher(LogisticRegression().fit(x, names)), ["even", "indices"]),
            (lambda: SklearnTeacher(LogisticRegression().fit(x, y[:100] % 2 * 2 - 1)), ["-1, 1"]),
            (lambda: SklearnTeacher(forest(without=1)), ["0, 2, 3", "classes="]),
            (lambda: SklearnTeacher(forest(), classes=5), ["5", "larger"]),
            (
                lambda: SklearnTeacher(
                    RandomForestClassifier(2).fit(x, np.stack([y[:100], y[:100]], axis=1))
                ),
                ["2 outputs"],
            ),
            (lambda: SklearnTeacher(unnamed).fingerprint(), ["lambda", "FunctionTeacher"]),
        ]
        for run, words in cases:
            refusal(run, *words)

    def test_features_and_inputs(self) -> None:
        teacher = SklearnTeacher(forest())
        other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(10)])
        refusal(lambda: fit(distiller(teacher, other), batch()[0]), "64 features", "has 4")
        x = {"a": np.ones((5, 8), "float32")}
        refusal(lambda: teacher.outputs(x), "one input", "dict")
