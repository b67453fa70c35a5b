"""`Hint`: its regressors and its resizing against references, and the layers that it refuses."""

import pathlib
from typing import Any

import numpy as np
import oracles
import pytest
import tensorflow as tf
from nets import assert_differ, assert_same, batch, images, net, one_line, values, with_weights
from oracles import Arrays

import kd_keras as kd
from kd_keras.errors import InputError

keras: Any = tf.keras
RATE = 0.01


def mapped(size: int, channels: int, seed: int) -> Any:
    """A net on 6x6x1 images with a map of that size."""
    start = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(channels, 7 - size, activation="tanh", name="maps")(start)
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    return with_weights(keras.Model(start, keras.layers.Dense(3, name="logits")(x)), seed)


def maps_of(model: Any, x: Any) -> np.ndarray:
    inner = keras.Model(model.inputs[0], model.get_layer("maps").output)
    return np.asarray(inner(x), np.float64)


def distiller(student: Any = None, teacher: Any = None, **settings: Any) -> Any:
    student = net(5, seed=2) if student is None else student
    teacher = net(8) if teacher is None else teacher
    model = kd.Distiller(student, teacher, [kd.Hint(**settings)], label_weight=0)
    model.compile(keras.optimizers.SGD(RATE), loss=None)
    return model


def between_maps(student: int, teacher: int, **settings: Any) -> Any:
    """A distiller of maps of these sizes."""
    layers = {"teacher_layer": "maps", "student_layer": "maps"}
    return distiller(mapped(student, 3, 2), mapped(teacher, 4, 1), **{**layers, **settings})


def fit(model: Any, x: Any, **kwargs: Any) -> dict:
    return model.fit(x, verbose=0, shuffle=False, batch_size=16, **kwargs).history


class TestRegressor:
    @pytest.mark.parametrize(("regressor", "activation"), [("dense", None), ("conv", "tanh")])
    def test_a_step_down_the_whole_loss_from_numpy_alone(
        self, regressor: str, activation: str | None
    ) -> None:
        """Of the student up to the guided layer, and of the regressor; of nothing above."""
        x, _ = batch()
        model = distiller(regressor=regressor, activation=activation)
        projection = model.projections["hint/features"]
        student = values(model.student)
        trained = [*student[:2], *values(projection)]
        target = oracles.dense(values(model.teacher)[:2], x, np.tanh)[0]
        target = np.tanh(target)

        def loss(w: list) -> float:
            guided = np.tanh(x @ w[0] + w[1]) @ w[2] + w[3]
            guided = np.tanh(guided) if activation else guided
            return oracles.hint(
                Arrays(x, {"features": target}), Arrays(x, {"features": guided})
            ).mean()

        history = fit(model, x)
        np.testing.assert_allclose(history["hint"], [loss(trained)], rtol=1e-4)
        after = oracles.descend(loss, trained, RATE)
        assert_same([*values(model.student)[:2], *values(projection)], after, atol=1e-5)
        assert_same(values(model.student)[2:], student[2:])

    @pytest.mark.parametrize(
        ("student", "teacher", "kernel"), [(6, 3, (4, 4)), (4, 4, (1, 1)), (5, 4, (2, 2))]
    )
    def test_the_convolution_reaches_the_hints_size(
        self, student: int, teacher: int, kernel: tuple
    ) -> None:
        x = images(16)
        model = between_maps(student, teacher)
        weights, bias = values(model.projections["hint/maps"])
        assert weights.shape == (*kernel, 3, 4)
        bias += 0.5
        model.projections["hint/maps"].set_weights([weights, bias])
        guided = oracles.valid_convolution(maps_of(model.student, x), weights, bias)
        expected = oracles.hint(
            Arrays(x, {"u": maps_of(model.teacher, x)}), Arrays(x, {"v": guided}), "u", "v"
        )
        np.testing.assert_allclose(fit(model, x)["hint"], [expected.mean()], rtol=1e-4)

    @pytest.mark.parametrize(
        ("student", "teacher", "resize"),
        [(6, 3, "pool"), (2, 6, "pool"), (3, 5, "bilinear"), (5, 3, "bilinear")],
    )
    def test_widths_by_1x1_and_sizes_by_resizing(
        self, student: int, teacher: int, resize: str
    ) -> None:
        x = images(16)
        model = between_maps(student, teacher, regressor="1x1", resize=resize)
        weights, bias = values(model.projections["hint/maps"])
        assert weights.shape == (1, 1, 3, 4)
        guided = oracles.valid_convolution(maps_of(model.student, x), weights, bias)
        expected = oracles.hint(
            Arrays(x, {"u": maps_of(model.teacher, x)}), Arrays(x, {"v": guided}), "u", "v", resize
        )
        np.testing.assert_allclose(fit(model, x)["hint"], [expected.mean()], rtol=1e-4)

    def test_dense_between_maps_of_any_size(self) -> None:
        model = between_maps(2, 3, regressor="dense")
        [kernel, _] = values(model.projections["hint/maps"])
        assert kernel.shape == (2 * 2 * 3, 3 * 3 * 4)
        assert model.projections["hint/maps"].output_shape == (None, 3, 3, 4)

    def test_its_weights_depend_on_the_seed_alone(self) -> None:
        keras.utils.set_random_seed(1)
        one = values(distiller().projections["hint/features"])
        keras.utils.set_random_seed(2)
        assert_same(one, values(distiller().projections["hint/features"]))
        other = values(distiller(seed=1).projections["hint/features"])
        assert np.abs(one[0] - other[0]).min() > 0

    def test_computes_in_float32_under_mixed_precision(self) -> None:
        for make, x in ((distiller, batch()[0]), (lambda: between_maps(6, 3), images(16))):
            full = make()
            keras.mixed_precision.set_global_policy("mixed_float16")
            try:
                half = make()
            finally:
                keras.mixed_precision.set_global_policy("float32")
            [projection] = half.projections.values()
            assert {w.dtype for w in projection.trainable_variables} <= {tf.float32, "float32"}
            shape = (2, *projection.input_shape[1:])
            assert projection(tf.zeros(shape, tf.float16)).dtype == tf.float32
            before = values(projection)
            losses = [fit(model, x, epochs=e)["hint"][0] for model, e in ((full, 1), (half, 6))]
            np.testing.assert_allclose(losses[1], losses[0], rtol=0.01)
            assert_differ(values(projection), before)  # once the loss scale has come down

    def test_is_kept_by_the_distiller_and_not_by_the_student(self, tmp_path: pathlib.Path) -> None:
        x, _ = batch()
        through, stopped = distiller(), distiller()
        fit(through, x, epochs=4)
        fit(stopped, x, epochs=2)
        stopped.save(tmp_path / "distiller.keras")
        stopped.student.save(tmp_path / "student.keras")
        assert len(keras.models.load_model(tmp_path / "student.keras").get_weights()) == 4
        loaded = keras.models.load_model(tmp_path / "distiller.keras")
        [regressor] = loaded.projections.values()
        assert_same(values(regressor), values(stopped.projections["hint/features"]))
        loaded.teacher = net(8)
        assert loaded.projections["hint/features"] is regressor
        fit(loaded, x, epochs=2)
        assert_same(values(loaded), values(through), atol=1e-6)

    def test_two_hints_have_a_regressor_each(self) -> None:
        layers = {"teacher_layer": "maps", "student_layer": "maps"}
        methods = [kd.Hint(**layers), kd.Hint(name="top"), kd.Hint(**layers, name="same")]
        model = kd.Distiller(mapped(6, 3, 2), mapped(3, 4, 1), methods, label_weight=0)
        assert sorted(model.projections) == ["hint/maps", "same/maps", "top/features"]
        model.compile("sgd", loss=None)
        assert {"hint", "top", "same"} < set(fit(model, images(16)))

    def test_none_for_layers_of_equal_shape(self) -> None:
        model = distiller(net(8, seed=2), regressor=None)
        assert not model.projections


def unbuilt(width: int) -> Any:
    features = keras.layers.Dense(width, "tanh", name="features")
    return keras.Sequential([features, keras.layers.Dense(3, name="logits")])


class TestBadInput:
    @pytest.mark.parametrize(
        ("student", "teacher", "settings", "words"),
        [
            (3, 5, {}, ["(5, 5, 4)", "(3, 3, 3)", "only smaller", "resize='bilinear'"]),
            (6, 3, {"regressor": "1x1"}, ["(3, 3, 4)", "(6, 6, 3)", "resize='pool'"]),
            (6, 4, {"resize": "pool"}, ["'maps'", "4x4", "6x6", "divide"]),
            (3, 3, {"regressor": None}, ["(3, 3, 4)", "(3, 3, 3)", "regressor='1x1'"]),
            (6, 3, {"regressor": None, "resize": "pool"}, ["(3, 3, 4)", "(6, 6, 3)", "regressor"]),
            (3, 3, {"student_layer": "features"}, ["(3, 3, 4)", "(3,)", "two maps", "two vectors"]),
            (
                3,
                3,
                {"student_layer": "features", "teacher_layer": "features", "resize": "pool"},
                ["(4,)", "(3,)", "resize='pool'", "leave it out"],
            ),
            (3, 3, {"student_layer": "map"}, ["'map'", "maps, features, logits"]),
        ],
    )
    def test_layers_that_cannot_be_compared(
        self, student: int, teacher: int, settings: dict, words: list
    ) -> None:
        with pytest.raises(InputError) as error:
            between_maps(student, teacher, **settings)
        one_line(error, *words)

    def test_models_whose_shapes_are_not_known_before_they_run(self) -> None:
        x, _ = batch()
        assert fit(distiller(unbuilt(8), unbuilt(8)), x)["hint"][0] > 0
        model = distiller(unbuilt(5), unbuilt(8))
        with pytest.raises(InputError) as error:
            fit(model, x)
        one_line(error, "(8,)", "(5,)", "begin with an Input", "layers of equal shape")

    def test_maps_without_a_known_size(self) -> None:
        start = keras.Input((None, None, 1))
        x = keras.layers.Conv2D(4, 3, name="maps")(start)
        x = keras.layers.GlobalAveragePooling2D()(x)
        teacher = keras.Model(start, keras.layers.Dense(3)(x))
        with pytest.raises(InputError) as error:
            distiller(mapped(4, 3, 2), teacher, teacher_layer="maps", student_layer="maps")
        one_line(error, "(None, None, 4)", "fixed height and width")

    @pytest.mark.any_keras
    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"regressor": "linear"}, ["'linear'", "'conv', '1x1', 'dense', None"]),
            ({"resize": "nearest"}, ["'nearest'", "None, 'pool', 'bilinear'"]),
            ({"regressor": "dense", "resize": "pool"}, ["'pool'", "'dense'", "leave resize out"]),
            ({"activation": "relux"}, ["'relux'", "'relu'"]),
        ],
    )
    def test_settings(self, settings: dict, words: list) -> None:
        with pytest.raises(InputError) as error:
            kd.Hint(**settings)
        one_line(error, *words)
