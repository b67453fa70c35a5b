"""`Distiller`: its loss and its steps against references, and Keras' own habits."""

import io
import pathlib
import zipfile
from typing import Any

import numpy as np
import oracles
import pytest
import tensorflow as tf
from nets import assert_differ, assert_same, batch, convolutional, images, net, one_line, values
from oracles import Arrays

import kd_keras as kd
from kd_keras.errors import InputError

keras: Any = tf.keras
T, A = 4.0, 0.9


def crossentropy() -> Any:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def distiller(student: Any = None, teacher: Any = None, **kwargs: Any) -> kd.Distiller:
    """Soft targets and labels, over two small nets of other widths."""
    student = net(5, seed=2) if student is None else student
    teacher = net(8) if teacher is None else teacher
    methods = kwargs.pop("methods", [kd.SoftTargets(temperature=T, weight=A)])
    return kd.Distiller(student, teacher, methods, kwargs.pop("label_weight", 0.1), **kwargs)


def compiled(model: Any = None, rate: float = 0.5, **kwargs: Any) -> Any:
    model = distiller() if model is None else model
    kwargs = {"loss": crossentropy(), "optimizer": keras.optimizers.SGD(rate), **kwargs}
    model.compile(**kwargs)
    return model


def fit(model: Any, x: Any, y: Any = None, **kwargs: Any) -> dict:
    kwargs = {"verbose": 0, "shuffle": False, "batch_size": 16, **kwargs}
    return model.fit(x, y, **kwargs).history


def reference_terms(student: list, teacher: list, x: Any, y: Any) -> tuple:
    """Label loss and soft targets of each example, from the weights."""
    z_s, z_t = oracles.dense(student, x)[-1], oracles.dense(teacher, x)[-1]
    soft = oracles.soft_targets(Arrays(z_t), Arrays(z_s), T)
    return oracles.cross_entropy(y, z_s), soft


class TestLoss:
    @pytest.mark.parametrize("weighting", ["none", "sample", "class"])
    def test_logged_terms_and_the_step_equal_the_reference(self, weighting: str) -> None:
        """One step of gradient descent on the whole loss, from NumPy alone."""
        x, y = batch()
        model = compiled(distiller(net(5, seed=2, l2=0.01)), rate=0.5)
        student, teacher = values(model.student), values(model.teacher)
        per_class = {0: 0.5, 1: 2.0, 2: 1.5}
        weights = np.ones(16)
        settings: dict = {}
        if weighting == "sample":
            weights = np.linspace(0, 2, 16)
            settings = {"sample_weight": weights.astype("float32")}
        elif weighting == "class":
            weights = np.array([per_class[int(label)] for label in y])
            settings = {"class_weight": per_class}

        def loss(w: list) -> float:
            labels, soft = reference_terms(w, teacher, x, y)
            return np.mean(weights * (0.1 * labels + A * soft)) + 0.01 * np.sum(w[0] ** 2)

        history = fit(model, x, y, **settings)
        labels, soft = reference_terms(student, teacher, x, y)
        np.testing.assert_allclose(history["label_loss"], [np.mean(weights * labels)], rtol=1e-4)
        np.testing.assert_allclose(history["soft_targets"], [np.mean(weights * soft)], rtol=1e-4)
        np.testing.assert_allclose(history["loss"], [loss(student)], rtol=1e-4)
        assert_same(values(model.student), oracles.descend(loss, student, 0.5), atol=1e-4)

    def test_activity_regularization_counts_once_a_step(self) -> None:
        start = keras.Input((4,))
        hidden = keras.layers.Dense(5, activity_regularizer=keras.regularizers.L2(0.1))(start)
        student = keras.Model(start, keras.layers.Dense(3)(hidden))
        alone = keras.models.clone_model(student)
        alone.set_weights(student.get_weights())
        x, y = batch(48)
        settings: dict = {"loss": crossentropy(), "run_eagerly": True}
        ours = compiled(kd.Distiller(student, net(8)), **settings)
        alone.compile(optimizer=keras.optimizers.SGD(0.5), **settings)
        np.testing.assert_allclose(fit(ours, x, y)["loss"], fit(alone, x, y)["loss"], rtol=1e-5)
        assert_same(values(student), values(alone), atol=1e-5)

    @pytest.mark.parametrize(
        ("loss", "ending", "classes"),
        [
            ("sparse_categorical_crossentropy", "softmax", 3),
            (crossentropy(), None, 3),
            ("mse", None, 1),
            (keras.losses.BinaryCrossentropy(from_logits=True), None, 1),
            (keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1), None, 3),
        ],
        ids=["sparse by name", "sparse object", "mse", "binary", "one-hot"],
    )
    def test_label_only_training_is_the_students_own(
        self, loss: Any, ending: str | None, classes: int
    ) -> None:
        x, y = batch(40, classes=max(classes, 2))
        if isinstance(loss, keras.losses.CategoricalCrossentropy):
            y = np.eye(3, dtype="float32")[y]
        ours, alone = (net(5, classes=classes, ending=ending) for _ in range(2))
        teacher = net(8, classes=classes, ending=ending)
        model = kd.Distiller(ours, teacher, from_logits=ending is None)
        compiled(model, loss=loss)
        alone.compile(optimizer=keras.optimizers.SGD(0.5), loss=loss)
        weights = np.linspace(0, 2, 40).astype("float32")
        histories = [fit(m, x, y, sample_weight=weights, epochs=2) for m in (model, alone)]
        assert_same(values(ours), values(alone), atol=1e-5)
        np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], rtol=1e-4)

    def test_no_labels_at_all(self) -> None:
        x, _ = batch()
        model = compiled(distiller(), loss=None)
        student, teacher = values(model.student), values(model.teacher)

        def loss(w: list) -> float:
            return A * np.mean(reference_terms(w, teacher, x, np.zeros(16, int))[1])

        history = fit(model, x)
        assert sorted(history) == ["loss", "soft_targets"]
        np.testing.assert_allclose(history["loss"], [loss(student)], rtol=1e-4)
        assert_same(values(model.student), oracles.descend(loss, student, 0.5), atol=1e-4)

    def test_two_methods_of_one_kind_under_their_own_names(self) -> None:
        warm, hot = kd.SoftTargets(temperature=2.0), kd.SoftTargets(temperature=9.0, name="hot")
        model = compiled(distiller(methods=[warm, hot, kd.LogitsL2(weight=0.5)]))
        h = {key: value[0] for key, value in fit(model, *batch()).items()}
        assert sorted(h) == ["hot", "label_loss", "logits_l2", "loss", "soft_targets"]
        expected = 0.1 * h["label_loss"] + h["hot"] + h["soft_targets"] + 0.5 * h["logits_l2"]
        np.testing.assert_allclose(h["loss"], expected, rtol=1e-5)

    def test_a_weight_of_a_single_term_counts(self) -> None:
        light, heavy = (
            compiled(distiller(methods=[kd.SoftTargets(weight=w)], label_weight=0))
            for w in (0.01, 1.0)
        )
        before = values(light.student)
        for model in (light, heavy):
            fit(model, *batch())
        moves = [values(m.student)[0] - before[0] for m in (light, heavy)]
        np.testing.assert_allclose(100 * moves[0], moves[1], rtol=1e-2, atol=1e-5)


class TestKerasHabits:
    @pytest.mark.parametrize("way", ["eager", "steps_per_execution", "jit", "dataset", "weighted"])
    def test_every_way_to_fit_trains_alike(self, way: str) -> None:
        x, y = batch(64)
        plain, other = compiled(jit_compile=False), distiller()
        fit(plain, x, y, epochs=2)
        options: dict[str, dict] = {
            "eager": {"run_eagerly": True, "jit_compile": False},
            "steps_per_execution": {"steps_per_execution": 3},
            "jit": {"jit_compile": True},
        }
        compiled(other, **options.get(way, {}))
        if way in ("dataset", "weighted"):
            parts = (x, y) if way == "dataset" else (x, y, np.ones(64, "float32"))
            data = tf.data.Dataset.from_tensor_slices(parts).batch(16)
            other.fit(data, epochs=2, verbose=0)
        else:
            fit(other, x, y, epochs=2)
        assert_same(values(plain.student), values(other.student), atol=1e-5)

    def test_mixed_precision_trains_close_to_float32(self) -> None:
        x, y = batch(64)
        full = compiled()
        fit(full, x, y, epochs=3)
        keras.mixed_precision.set_global_policy("mixed_float16")
        try:
            half = compiled()
            history = fit(half, x, y, epochs=3)
        finally:
            keras.mixed_precision.set_global_policy("float32")
        assert half.student(x).dtype == tf.float16
        assert history["loss"][-1] < history["loss"][0]
        assert_same(values(half.student), values(full.student), atol=0.02)

    def test_evaluate_and_predict_are_the_students_and_change_nothing(self) -> None:
        x, y = batch(40)
        student = net(5, seed=2, batch_norm=True, dropout=0.5)
        weights = np.linspace(0, 2, 40).astype("float32")
        model = compiled(distiller(student), metrics=["accuracy"])
        fit(model, x, y)
        before = values(model), values(model.teacher)
        ours = model.evaluate(x, y, 16, 0, weights, return_dict=True)
        predicted = model.predict(x, verbose=0)
        student.compile(loss=crossentropy(), metrics=["accuracy"])
        own = student.evaluate(x, y, 16, 0, weights, return_dict=True)
        assert sorted(ours) == ["accuracy", "loss"]
        for key, value in own.items():
            np.testing.assert_allclose(ours[key], value, rtol=1e-5, err_msg=key)
        np.testing.assert_array_equal(predicted, student.predict(x, verbose=0))
        np.testing.assert_allclose(model(x), student(x), rtol=1e-6)
        assert_same(values(model), before[0])
        assert_same(values(model.teacher), before[1])

    def test_validation_and_callbacks(self) -> None:
        x, y = batch(32)
        seen = []
        watch = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: seen.append(sorted(logs))
        )
        model = compiled(metrics=["accuracy"])
        history = fit(model, x, y, validation_data=batch(16, seed=8), callbacks=[watch])
        terms = ["accuracy", "label_loss", "loss", "soft_targets"]
        assert seen == [terms, terms]
        assert sorted(history) == sorted([*terms, "val_accuracy", "val_loss"])

    def test_teacher_accuracy(self) -> None:
        x, y = batch(40)
        model = compiled(teacher_accuracy=True)
        expected = np.mean(np.argmax(model.teacher(x), -1) == y)
        for labels in (y, y[:, None].astype("float32")):
            history = fit(model, x, labels)
            np.testing.assert_allclose(history["teacher_accuracy"], [expected], rtol=1e-6)
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        compiled(model, loss=loss, teacher_accuracy=True)
        history = fit(model, x, np.eye(3)[y])
        np.testing.assert_allclose(history["teacher_accuracy"], [expected], rtol=1e-6)

    def test_stop_on_non_finite_names_the_term_and_the_step(self) -> None:
        x, y = batch(64)
        x[40] = np.nan
        with pytest.raises(InputError) as error:
            fit(compiled(), x, y, callbacks=[kd.StopOnNonFinite()])
        one_line(error, "label_loss is nan", "step 3", "epoch 1", "learning rate")

    def test_stop_on_non_finite_takes_a_metric_of_several_values(self) -> None:
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        model = compiled(loss=loss, metrics=[keras.metrics.F1Score()])
        x, y = batch(32)
        y = np.eye(3, dtype="float32")[y]
        assert "loss" in fit(model, x, y, callbacks=[kd.StopOnNonFinite()])


class Count(keras.layers.Layer):
    """Passes its input through and counts how often it has run."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.calls = 0

    def call(self, x: Any) -> Any:
        self.calls += 1
        return x


class TestModels:
    def test_the_student_runs_once_a_step(self) -> None:
        counter = Count()
        student = keras.Sequential(
            [keras.Input((4,)), counter, keras.layers.Dense(5), keras.layers.Dense(3)]
        )
        methods = [kd.SoftTargets(), kd.LogitsL2()]
        model = compiled(distiller(student, methods=methods), run_eagerly=True)
        counter.calls = 0
        fit(model, *batch(48))
        assert counter.calls == 3

    def test_batch_norm_is_updated_once_a_step(self) -> None:
        x, y = batch()
        student = net(5, seed=2, batch_norm=True)
        hidden = oracles.dense(values(student)[:2], x, np.tanh)[-1]
        model = compiled(distiller(student, methods=[kd.SoftTargets(), kd.LogitsL2()]))
        fit(model, x, y)
        moving = student.get_layer("norm").moving_mean
        np.testing.assert_allclose(moving, 0.01 * np.tanh(hidden).mean(axis=0), rtol=1e-3)

    def test_the_teacher_is_not_touched(self) -> None:
        teacher = net(8, batch_norm=True, dropout=0.5)
        teacher.get_layer("features").trainable = False
        before = values(teacher), [layer.trainable for layer in teacher.layers]
        model = compiled(distiller(teacher=teacher))
        fit(model, *batch(64), epochs=3)
        model.evaluate(*batch(16), verbose=0)
        assert_same(values(teacher), before[0])
        assert [layer.trainable for layer in teacher.layers] == before[1]
        assert teacher.trainable

    @pytest.mark.parametrize("kind", ["sequential", "unbuilt sequential", "subclassed", "nested"])
    def test_kinds_of_models(self, kind: str) -> None:
        class Subclassed(keras.Model):
            def __init__(self) -> None:
                super().__init__()
                self.hidden, self.out = keras.layers.Dense(6, "relu"), keras.layers.Dense(3)

            def call(self, x: Any, training: Any = None) -> Any:
                return self.out(self.hidden(x))

        def make() -> Any:
            if kind == "subclassed":
                return Subclassed()
            if kind == "nested":
                inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(6, "relu")])
                return keras.Sequential([keras.Input((4,)), inner, keras.layers.Dense(3)])
            start = [keras.Input((4,))] if kind == "sequential" else []
            return keras.Sequential([*start, keras.layers.Dense(6), keras.layers.Dense(3)])

        model = compiled(distiller(make(), make()), rate=0.1, metrics=["accuracy"])
        x, y = batch(64)
        history = fit(model, x, y, epochs=8)
        assert history["loss"][-1] < history["loss"][0]
        np.testing.assert_array_equal(
            model.predict(x, verbose=0), model.student.predict(x, verbose=0)
        )

    def test_convolutional_images(self) -> None:
        model = compiled(distiller(convolutional(3, seed=2), convolutional(6)))
        history = fit(model, images(32), batch(32)[1], epochs=3)
        assert history["loss"][-1] < history["loss"][0]


class TestSoftmaxEndings:
    @staticmethod
    def ending_in_softmax(kind: str, width: int = 5, seed: int = 2) -> Any:
        if kind == "dense":
            return net(width, ending="softmax", seed=seed)
        logits = net(width, seed=seed)
        if kind == "layer":
            return keras.Sequential([keras.Input((4,)), logits, keras.layers.Softmax()])
        if kind == "activation":
            last = keras.layers.Activation("softmax", dtype="float32")
            return keras.Sequential([keras.Input((4,)), logits, last])

        class Subclassed(keras.Model):
            def __init__(self) -> None:
                super().__init__()
                self.inner = net(width, ending="softmax", seed=seed)

            def call(self, x: Any, training: Any = None) -> Any:
                return self.inner(x)

        return Subclassed()

    @pytest.mark.parametrize("role", ["student", "teacher"])
    @pytest.mark.parametrize("kind", ["dense", "layer", "activation", "subclassed"])
    def test_are_refused_before_any_update(self, kind: str, role: str) -> None:
        ending = self.ending_in_softmax(kind)
        with pytest.raises(InputError) as error:
            fit(compiled(distiller(**{role: ending}), loss=None), batch()[0])
        one_line(error, f"the {role} ends in softmax", "from_logits=False")

    @pytest.mark.parametrize("role", ["student", "teacher"])
    def test_are_refused_when_run_eagerly(self, role: str) -> None:
        ending = self.ending_in_softmax("subclassed")
        model = compiled(distiller(**{role: ending}), loss=None, run_eagerly=True)
        with pytest.raises(InputError) as error:
            fit(model, batch()[0])
        one_line(error, f"the {role} ends in softmax", "from_logits=False")

    @pytest.mark.parametrize("kind", ["dense", "layer", "subclassed"])
    def test_declared_they_train_as_logits_do(self, kind: str) -> None:
        """The softmax of a log-probability is the probability: the same loss, the same step."""
        x, y = batch(32)
        logits = compiled()
        student, teacher = (self.ending_in_softmax(kind, w, s) for w, s in ((5, 2), (8, 1)))
        ours = distiller(student, teacher, from_logits=False)
        compiled(ours, loss=keras.losses.SparseCategoricalCrossentropy())
        histories = [fit(m, x, y, epochs=2) for m in (logits, ours)]
        for term in ("soft_targets", "label_loss", "loss"):
            np.testing.assert_allclose(histories[0][term], histories[1][term], rtol=1e-4)
        assert_same(values(logits.student), values(student), atol=1e-4)

    def test_of_the_teacher_alone(self) -> None:
        x, y = batch(32)
        teacher = self.ending_in_softmax("dense", 8, 1)
        ours = compiled(distiller(teacher=teacher, teacher_from_logits=False))
        np.testing.assert_allclose(fit(ours, x, y)["loss"], fit(compiled(), x, y)["loss"], 1e-4)

    def test_a_loss_that_disagrees_with_the_student(self) -> None:
        with pytest.raises(InputError) as error:
            compiled(loss="sparse_categorical_crossentropy")
        one_line(error, "reads probabilities", "SparseCategoricalCrossentropy(from_logits=True)")
        student = self.ending_in_softmax("dense")
        with pytest.raises(InputError) as error:
            compiled(distiller(student, from_logits=False, teacher_from_logits=True))
        one_line(error, "reads logits", "from_logits=False")


class TestFiles:
    def test_a_saved_distiller_has_no_teacher_and_goes_on_as_if_never_stopped(
        self, tmp_path: pathlib.Path
    ) -> None:
        x, y = batch(64)
        path = tmp_path / "distiller.keras"
        through, stopped = (compiled(optimizer="adam", metrics=["accuracy"]) for _ in range(2))
        fit(through, x, y, epochs=4)
        fit(stopped, x, y, epochs=2)
        stopped.save(path)
        loaded = keras.models.load_model(path)
        assert loaded.teacher is None
        assert len(loaded.get_weights()) == len(loaded.student.get_weights()) == 4
        loaded.teacher = net(8)
        history = fit(loaded, x, y, epochs=2)
        assert sorted(history) == ["accuracy", "label_loss", "loss", "soft_targets"]
        assert_same(values(loaded.student), values(through.student), atol=1e-6)

    def test_the_file_does_not_grow_with_the_teacher(self, tmp_path: pathlib.Path) -> None:
        sizes = []
        for width in (8, 2000):
            model = compiled(distiller(teacher=net(width)))
            fit(model, *batch())
            model.save(tmp_path / "d.keras")
            with zipfile.ZipFile(tmp_path / "d.keras") as archive:
                sizes.append(sum(len(archive.read(n)) for n in archive.namelist()))
                assert b"2000" not in archive.read("config.json")
        assert abs(sizes[0] - sizes[1]) < 2000

    def test_weights_alone(self, tmp_path: pathlib.Path) -> None:
        one, other = compiled(), compiled(distiller(net(5, seed=7), net(8, seed=8)))
        fit(one, *batch())
        one.save_weights(tmp_path / "d.weights.h5")
        teacher = values(other.teacher)
        other.load_weights(tmp_path / "d.weights.h5")
        assert_same(values(one.student), values(other.student))
        assert_same(values(other.teacher), teacher)

    def test_the_student_is_an_ordinary_model(self, tmp_path: pathlib.Path) -> None:
        x, y = batch()
        model = compiled()
        fit(model, x, y)
        model.student.save(tmp_path / "student.keras")
        loaded = keras.models.load_model(tmp_path / "student.keras")
        assert type(loaded) is keras.Model or type(loaded).__name__ == "Functional"
        np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))

    def test_backup_and_restore_ends_with_the_same_weights(self, tmp_path: pathlib.Path) -> None:
        class Killed(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                if epoch == 2:
                    raise KeyboardInterrupt

        x, y = batch(32)
        through, stopped, resumed = (compiled(optimizer="adam") for _ in range(3))
        fit(through, x, y, epochs=4)
        backup = [keras.callbacks.BackupAndRestore(str(tmp_path / "backup")) for _ in range(2)]
        with pytest.raises(KeyboardInterrupt):
            fit(stopped, x, y, epochs=4, callbacks=[backup[0], Killed()])
        fit(resumed, x, y, epochs=4, callbacks=[backup[1]])
        assert_same(values(resumed.student), values(through.student), atol=1e-6)

    def test_the_summary_is_printed(self) -> None:
        lines = io.StringIO()
        compiled().summary(print_fn=lambda line, **_: lines.write(line + "\n"))
        assert "Distiller" in lines.getvalue() or "distiller" in lines.getvalue()


class TestBadInput:
    def test_teacher_and_student_with_other_inputs(self) -> None:
        with pytest.raises(InputError) as error:
            distiller(teacher=net(8, inputs=9))
        one_line(error, "9", "4", "the teacher's input", "one input shape")

    def test_teacher_and_student_with_other_class_counts(self) -> None:
        with pytest.raises(InputError) as error:
            distiller(teacher=net(8, classes=7))
        one_line(error, "soft_targets", "7", "3", "same classes")

    @pytest.mark.parametrize("label", [3, -1, 255])
    def test_label_out_of_range(self, label: int) -> None:
        x, y = batch()
        y[7] = label
        model = compiled()
        before = values(model.student)
        with pytest.raises(InputError) as error:
            fit(model, x, y)
        one_line(error, f"label {label}", "3 classes", "0 to 2")
        assert_same(values(model.student), before)

    def test_label_out_of_range_in_a_dataset(self) -> None:
        x, y = batch()
        y[7] = 3
        model = compiled()
        before = values(model.student)
        with pytest.raises(InputError) as error:
            model.fit(tf.data.Dataset.from_tensor_slices((x, y)).batch(16), verbose=0)
        one_line(error, "label 3 ", "3 classes", "0 to 2")
        assert_same(values(model.student), before)

    @pytest.mark.parametrize("source", ["arrays", "dataset"])
    def test_labels_of_the_wrong_shape(self, source: str) -> None:
        x, y = batch()
        data: Any = (x, np.eye(3)[y])
        if source == "dataset":
            data = (tf.data.Dataset.from_tensor_slices(data).batch(16),)
        with pytest.raises(InputError) as error:
            compiled().fit(*data, verbose=0)
        one_line(error, "labels have shape", "3", "CategoricalCrossentropy")

    def test_class_indices_for_a_loss_of_one_hot_labels(self) -> None:
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        with pytest.raises(InputError) as error:
            fit(compiled(loss=loss), *batch())
        one_line(error, "labels have shape", "SparseCategoricalCrossentropy")

    def test_missing_labels(self) -> None:
        with pytest.raises(InputError) as error:
            fit(compiled(), batch()[0])
        one_line(error, "label_weight is 0.1", "no labels", "loss=None")

    def test_missing_teacher(self) -> None:
        model = kd.Distiller(net(5), methods=[kd.SoftTargets()])
        with pytest.raises(InputError) as error:
            fit(compiled(model), *batch())
        one_line(error, "no teacher", "distiller.teacher = ")

    def test_nothing_to_learn_from(self) -> None:
        with pytest.raises(InputError) as error:
            compiled(kd.Distiller(net(5)), loss=None)
        one_line(error, "nothing to learn from")

    @pytest.mark.parametrize("weight", [-1, float("nan")])
    def test_label_weight(self, weight: float) -> None:
        with pytest.raises(InputError) as error:
            distiller(label_weight=weight)
        one_line(error, "label_weight is", "at least 0")

    def test_two_methods_of_one_name(self) -> None:
        with pytest.raises(InputError) as error:
            distiller(methods=[kd.SoftTargets(), kd.SoftTargets(temperature=1.0)])
        one_line(error, "'soft_targets'", "name=")

    @pytest.mark.parametrize("name", ["loss", "label_loss", "teacher_accuracy"])
    def test_a_method_with_the_name_of_another_term(self, name: str) -> None:
        """It would take the other's place in the loss or in the logs without a word."""
        with pytest.raises(InputError) as error:
            compiled(distiller(methods=[kd.SoftTargets(name=name)]), teacher_accuracy=True)
        one_line(error, f"{name!r}")

    def test_a_model_with_two_outputs(self) -> None:
        start = keras.Input((4,))
        two = keras.Model(start, [keras.layers.Dense(3)(start), keras.layers.Dense(3)(start)])
        with pytest.raises(InputError) as error:
            distiller(two)
        one_line(error, "the student gives", "one tensor", "one output")


def test_soft_targets_alone_teach_the_digits() -> None:
    """What Keras' own distiller fails at: it stays at chance, having neither softmax nor T^2."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x, test, known, hidden = (x[:1300] / 16.0, x[1300:] / 16.0, y[:1300], y[1300:])
    teacher = net(64, inputs=64, classes=10, activation="relu")
    for weight in teacher.trainable_variables:
        weight.assign(0.2 * weight)
    teacher.compile("adam", crossentropy(), steps_per_execution=20)
    fit(teacher, x, known, epochs=12, batch_size=32)
    student = net(16, inputs=64, classes=10, activation="relu", seed=2)
    model = distiller(student, teacher, methods=[kd.SoftTargets(temperature=4.0)], label_weight=0)
    adam = keras.optimizers.Adam(0.01)
    compiled(model, optimizer=adam, loss=None, steps_per_execution=20)
    fit(model, x, epochs=20, batch_size=32)
    accuracy = np.mean(model.predict(test, verbose=0).argmax(-1) == hidden)
    assert accuracy > 0.8
    assert_differ(values(student), values(net(16, inputs=64, classes=10, seed=2)))


def test_another_teacher_is_learned_from_after_a_fit() -> None:
    x, _ = batch(32)
    model = kd.Distiller(net(4, seed=2), net(8), [kd.LogitsL2()], 0.0)
    model.compile(tf.keras.optimizers.SGD(0.0), None)
    [first] = model.fit(x, verbose=0).history["loss"]
    model.teacher = net(8, seed=7)
    [second] = model.fit(x, verbose=0).history["loss"]
    fresh = kd.Distiller(net(4, seed=2), net(8, seed=7), [kd.LogitsL2()], 0.0)
    fresh.compile(tf.keras.optimizers.SGD(0.0), None)
    [expected] = fresh.fit(x, verbose=0).history["loss"]
    assert first != second
    assert second == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("methods", [kd.LogitsL2(), "logits_l2", ["logits_l2"]])
def test_methods_that_are_none(methods: object) -> None:
    with pytest.raises(InputError) as error:
        kd.Distiller(net(4), net(8), methods)
    one_line(error, "[kd.SoftTargets()]")


def test_a_teacher_that_is_none() -> None:
    with pytest.raises(InputError) as error:
        kd.Distiller(net(4), 3)
    one_line(error, "the teacher is a int", "a Keras model")
