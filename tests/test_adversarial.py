"""`AdversarialDistiller`: whole steps against finite differences of NumPy references, and its use.

The nets use tanh, so that the references have no kinks, and plain SGD, so that a step shows the
gradient.
"""

import pathlib
from typing import Any

import numpy as np
import oracles
import pytest
import tensorflow as tf
from nets import (
    assert_differ,
    assert_same,
    batch,
    convolutional,
    images,
    net,
    one_line,
    values,
    with_weights,
)
from oracles import Arrays

import kd_keras as kd
from kd_keras.errors import InputError

keras: Any = tf.keras
SGD = keras.optimizers.SGD
LAMBDA = 0.3
RATE, D_RATE = 0.2, 0.4


def judge(width: int = 4, seed: int = 9) -> Any:
    """A small discriminator."""
    layers = [keras.layers.Dense(6, "tanh"), keras.layers.Dense(1)]
    return with_weights(keras.Sequential([keras.Input((width,)), *layers]), seed)


def distiller(student: Any = None, teacher: Any = None, **kwargs: Any) -> Any:
    student = net(4, seed=2) if student is None else student
    teacher = net(4) if teacher is None else teacher
    kwargs = {"methods": [kd.LogitsL2(weight=2 * LAMBDA)], **kwargs}
    return kd.AdversarialDistiller(student, teacher, **kwargs)


def compiled(model: Any, rate: float = RATE, d_rate: float = D_RATE, **kwargs: Any) -> Any:
    kwargs = {"optimizer": SGD(rate), "discriminator_optimizer": SGD(d_rate), **kwargs}
    model.compile(**kwargs)
    return model


def fit(model: Any, *data: Any, **kwargs: Any) -> dict:
    kwargs = {"verbose": 0, "shuffle": False, "batch_size": 16, **kwargs}
    return model.fit(*data, **kwargs).history


def keep_mask(width: int, dropout: float, step: int = 0, seed: int = 0) -> np.ndarray:
    """What the documented noise keeps: drawn for the batch from the seed and D's update."""
    noise = tf.random.stateless_uniform((16, width), seed=[seed, step])
    return noise.numpy() >= dropout


class Reference:
    """One adversarial step in NumPy, from Belagiannis et al. 2018 and `methods.md`."""

    def __init__(self, x: Any, teacher: list, settings: dict, dropout: float) -> None:
        self.x, self.settings, self.dropout = x, settings, dropout
        self.layer = 0 if settings.get("student_layer", "features") else 1
        *_, self.teacher_logits = oracles.dense(teacher, x)
        self.real = oracles.dense(teacher, x)[self.layer]
        self.regularizer = settings.get("regularizer", "adversarial")
        self.weight = np.asarray(settings.get("sample_weight", np.ones(16)))

    def samples(self, student: list) -> tuple:
        """The fake samples, and the adversary: the fake ones under inverted dropout."""
        fake = oracles.dense(student, self.x)[self.layer]
        if self.regularizer != "adversarial":
            return fake, None
        return fake, fake * keep_mask(fake.shape[1], self.dropout) / (1 - self.dropout)

    def judged(self, d: list, samples: Any) -> Any:
        if samples is None:
            return None
        return oracles.probability_real(oracles.dense(d, samples)[-1][:, 0])

    def discriminator_loss(self, d: list, student: list) -> float:
        judged = [self.judged(d, s) for s in (self.real, *self.samples(student))]
        loss = np.mean(self.weight * oracles.discriminator_loss(*judged))
        factor = self.settings.get("regularizer_weight", 1e-4)
        if self.regularizer == "l1":
            loss += factor * sum(np.abs(kernel).sum() for kernel in d[::2])
        if self.regularizer == "l2":
            loss += factor * sum((kernel**2).sum() for kernel in d[::2])
        return loss

    def adversarial(self, d: list, student: list) -> float:
        judged = [self.judged(d, s) for s in self.samples(student)]
        return np.mean(self.weight * oracles.student_adversarial_loss(*judged))

    def student_loss(self, d: list, student: list) -> float:
        logits = oracles.dense(student, self.x)[-1]
        data = 2 * oracles.logits_l2(Arrays(self.teacher_logits), Arrays(logits))
        factor = self.settings.get("adversarial_weight", 1.0)
        return factor * self.adversarial(d, student) + LAMBDA * np.mean(self.weight * data)


VARIANTS = [
    {"regularizer": "adversarial"},
    {"regularizer": None},
    {"regularizer": "l1", "regularizer_weight": 0.05},
    {"regularizer": "l2", "regularizer_weight": 0.05},
    {"regularizer": "adversarial", "adversarial_weight": 2.5},
    {"regularizer": "adversarial", "teacher_layer": None, "student_layer": None},
]


class TestStep:
    @pytest.mark.parametrize("dropout", [0.0, 0.5])
    @pytest.mark.parametrize("settings", VARIANTS, ids=str)
    def test_equals_the_reference(self, settings: dict, dropout: float) -> None:
        """D first, then the student against the new D; both by descending NumPy's gradients."""
        x, _ = batch()
        d = judge(3 if settings.get("student_layer", "") is None else 4)
        model = distiller(discriminator=d, dropout=dropout, **settings)
        # XLA may draw other noise; here the reference has to draw the same.
        compiled(model, jit_compile=False)
        student, judge_before = values(model.student), values(d)
        reference = Reference(x, values(model.teacher), settings, dropout)
        history = fit(model, x)
        d_loss = reference.discriminator_loss(judge_before, student)
        judge_after = oracles.descend(
            lambda w: reference.discriminator_loss(w, student), judge_before, D_RATE
        )
        expected = oracles.descend(lambda w: reference.student_loss(judge_after, w), student, RATE)
        assert_same(values(d), judge_after, atol=2e-5)
        assert_same(values(model.student), expected, atol=2e-5)
        adversarial = reference.adversarial(judge_after, student)
        loss = reference.student_loss(judge_after, student)
        np.testing.assert_allclose(history["discriminator_loss"], [d_loss], rtol=1e-4)
        np.testing.assert_allclose(history["adversarial"], [adversarial], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(history["loss"], [loss], rtol=1e-4, atol=1e-5)

    def test_weighs_each_example_in_both_updates(self) -> None:
        x, y = batch()
        weight = np.linspace(0, 2, 16).astype("float32")
        d = judge()
        model = compiled(distiller(discriminator=d), jit_compile=False)
        student, before = values(model.student), values(d)
        reference = Reference(x, values(model.teacher), {"sample_weight": weight}, 0.5)
        fit(model, x, y, sample_weight=weight)
        after = oracles.descend(lambda w: reference.discriminator_loss(w, student), before, D_RATE)
        expected = oracles.descend(lambda w: reference.student_loss(after, w), student, RATE)
        assert_same(values(d), after, atol=2e-5)
        assert_same(values(model.student), expected, atol=2e-5)

    def test_labels_count_when_they_have_a_weight(self) -> None:
        x, y = batch()
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        moved = []
        for label_weight in (0.0, 0.7):
            model = distiller(discriminator=judge(), label_weight=label_weight)
            before = values(model.student)
            history = fit(compiled(model, loss=loss), x, y)
            moved.append(values(model.student))
        slopes = oracles.gradient(
            lambda w: 0.7 * np.mean(oracles.cross_entropy(y, oracles.dense(w, x)[-1])), before
        )
        expected = [w - RATE * slope for w, slope in zip(moved[0], slopes, strict=True)]
        assert_same(moved[1], expected, atol=2e-5)
        assert "label_loss" in history

    def test_the_default_discriminator_learns_to_tell_a_still_student(self) -> None:
        model = compiled(distiller(regularizer=None), rate=0.0, d_rate=0.5)
        units = [layer.units for layer in model.discriminator.layers if hasattr(layer, "units")]
        assert units == [128, 256, 128, 1]
        history = fit(model, batch(64)[0], epochs=15)
        assert history["discriminator_loss"][-1] < history["discriminator_loss"][0]
        assert history["discriminator_accuracy"][-1] > 0.8

    def test_a_student_alone_learns_to_fool_a_still_discriminator(self) -> None:
        model = compiled(distiller(methods=[], discriminator=judge()), rate=0.2, d_rate=0.0)
        history = fit(model, batch(64)[0], epochs=10)
        assert history["adversarial"][-1] < history["adversarial"][0]

    def test_discriminator_accuracy(self) -> None:
        x, _ = batch()
        model = compiled(distiller(discriminator=judge()), rate=0.0, d_rate=0.0)
        real, fake = (
            oracles.dense(values(model.discriminator), oracles.dense(values(m), x)[0])[-1] > 0
            for m in (model.teacher, model.student)
        )
        expected = (np.mean(real) + np.mean(~fake)) / 2
        np.testing.assert_allclose(fit(model, x)["discriminator_accuracy"], [expected], rtol=1e-6)


class TestSeparation:
    """Neither player's gradient reaches the other."""

    def test_the_discriminator_stands_still_at_rate_zero(self) -> None:
        model = compiled(distiller(discriminator=judge()), rate=0.3, d_rate=0.0)
        before = values(model.discriminator), values(model.student)
        fit(model, batch(64)[0])
        assert_same(values(model.discriminator), before[0])
        assert_differ(values(model.student), before[1])

    def test_the_student_stands_still_at_rate_zero(self) -> None:
        model = compiled(distiller(discriminator=judge()), rate=0.0, d_rate=0.3)
        before = values(model.discriminator), values(model.student)
        fit(model, batch(64)[0])
        assert_differ(values(model.discriminator), before[0])
        assert_same(values(model.student), before[1])

    def test_each_optimizer_is_given_its_own_gradients_only(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: dict = {}
        model = compiled(distiller(net(3, seed=2)), run_eagerly=True)

        def record(optimizer: Any, name: str) -> None:
            plain = optimizer.apply_gradients

            def apply(pairs: Any, *args: Any, **kwargs: Any) -> Any:
                pairs = list(pairs)
                seen.setdefault(name, []).append([id(variable) for _, variable in pairs])
                return plain(pairs, *args, **kwargs)

            monkeypatch.setattr(optimizer, "apply_gradients", apply)

        record(model.optimizer, "student")
        record(model.discriminator_optimizer, "discriminator")
        fit(model, batch()[0])

        def ids(*models: Any) -> list:
            return [id(v) for m in models for v in m.trainable_variables]

        assert seen == {
            "discriminator": [ids(model.discriminator)],
            "student": [ids(model.student, model.projection)],
        }

    def test_the_teacher_is_not_touched(self) -> None:
        teacher = net(4, batch_norm=True, dropout=0.5)
        before = values(teacher)
        fit(compiled(distiller(teacher=teacher)), batch(64)[0], epochs=2)
        assert_same(values(teacher), before)

    def test_the_student_runs_once_a_step(self) -> None:
        student = net(4, seed=2)
        layer = student.get_layer("features")
        calls, plain = [], layer.call

        def counted(x: Any, **_: Any) -> Any:
            calls.append(1)
            return plain(x)

        object.__setattr__(layer, "call", counted)
        model = compiled(distiller(student), run_eagerly=True)
        calls.clear()
        fit(model, batch(48)[0])
        assert len(calls) == 3


class TestFeatures:
    def test_maps_are_pooled_for_a_discriminator_of_vectors(self) -> None:
        """Averaging the map is reading the pooled layer after it."""
        weights = []
        for layer in ("maps", "features"):
            model = distiller(
                convolutional(4, seed=2),
                convolutional(4),
                teacher_layer=layer,
                student_layer=layer,
                discriminator=judge(),
            )
            fit(compiled(model), images(32), epochs=2)
            weights.append(values(model.student) + values(model.discriminator))
        assert_same(weights[0], weights[1], atol=1e-5)

    def test_a_discriminator_of_maps(self) -> None:
        layers = [
            keras.layers.Conv2D(5, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1),
        ]
        d = keras.Sequential([keras.Input((4, 4, 4)), *layers])
        names = {"teacher_layer": "maps", "student_layer": "maps"}
        nets = convolutional(4, seed=2), convolutional(4)
        model = compiled(distiller(*nets, discriminator=d, **names))
        before = values(d), values(model.student)
        history = fit(model, images(32), epochs=2)
        assert_differ(values(d), before[0])
        assert_differ(values(model.student), before[1])
        assert np.isfinite(history["loss"]).all()

    def test_other_widths_are_projected_and_the_projection_is_trained(self) -> None:
        model = compiled(distiller(net(3, seed=2), net(7)))
        assert model.projection.output_shape == (None, 7)
        before = values(model.projection)
        fit(model, batch(64)[0])
        assert_differ(values(model.projection), before)

    def test_layers_inside_layers(self) -> None:
        def nested(seed: int) -> Any:
            conv = keras.layers.Dense(4, "tanh", name="conv")
            block = keras.Sequential([keras.Input((4,)), conv], name="block")
            layers = [keras.Input((4,)), block, keras.layers.Dense(3)]
            return with_weights(keras.Sequential(layers), seed)

        names = {"teacher_layer": "block/conv", "student_layer": "block/conv"}
        deep = compiled(distiller(nested(2), nested(1), discriminator=judge(), **names))
        flat = compiled(distiller(discriminator=judge()))
        for model in (deep, flat):
            fit(model, batch(32)[0])
        assert_same(values(deep), values(flat), atol=1e-5)

    def test_equal_widths_are_not_projected(self) -> None:
        assert distiller().projection is None

    def test_an_own_projection(self) -> None:
        projection = keras.Sequential([keras.Input((3,)), keras.layers.Dense(7, "relu")])
        model = compiled(distiller(net(3, seed=2), net(7), projection=projection))
        before = values(projection)
        fit(model, batch(64)[0])
        assert model.projection is projection
        assert_differ(values(projection), before)

    def test_other_class_counts_when_only_features_are_compared(self) -> None:
        model = compiled(distiller(net(4, classes=5, seed=2), methods=[]))
        assert np.isfinite(fit(model, batch(32)[0])["loss"]).all()

    @pytest.mark.parametrize("kind", ["sequential", "subclassed"])
    def test_models_that_know_their_inputs_only_after_a_call(self, kind: str) -> None:
        class Subclassed(keras.Model):
            def __init__(self) -> None:
                super().__init__()
                self.features = keras.layers.Dense(4, "tanh", name="features")
                self.out = keras.layers.Dense(3)

            def call(self, x: Any, training: Any = None) -> Any:
                return self.out(self.features(x))

        def make() -> Any:
            features = keras.layers.Dense(4, "tanh", name="features")
            sequential = keras.Sequential([features, keras.layers.Dense(3)])
            return sequential if kind == "sequential" else Subclassed()

        x, _ = batch(64)
        teacher, student = make(), make()
        teacher(x), student(x)
        if kind == "subclassed":
            with pytest.raises(InputError, match=r"discriminator=kd\.fully_connected\(width\)"):
                fit(compiled(distiller(student, teacher)), x)
        # The cure that the error names.
        model = compiled(distiller(student, teacher, discriminator=kd.fully_connected(4)))
        before = values(student)
        fit(model, x)
        assert_differ(values(student), before)


class TestKerasHabits:
    @pytest.mark.parametrize("way", ["eager", "steps_per_execution"])
    def test_every_way_to_fit_trains_alike(self, way: str) -> None:
        x, _ = batch(64)
        models = [compiled(distiller(discriminator=judge()), jit_compile=False)]
        extra = {"run_eagerly": True} if way == "eager" else {"steps_per_execution": 2}
        models.append(compiled(distiller(discriminator=judge()), jit_compile=False, **extra))
        for model in models:
            fit(model, x, epochs=2)
        assert_same(values(models[0]), values(models[1]), atol=1e-5)

    def test_xla_trains_alike_without_noise(self) -> None:
        x, _ = batch(64)
        models = [
            compiled(distiller(discriminator=judge(), dropout=0.0), jit_compile=jit)
            for jit in (False, True)
        ]
        for model in models:
            fit(model, x, epochs=2)
        assert_same(values(models[0]), values(models[1]), atol=1e-5)

    def test_mixed_precision(self) -> None:
        x, _ = batch(64)
        keras.mixed_precision.set_global_policy("mixed_float16")
        try:
            model = compiled(distiller(net(3, seed=2)), rate=0.05)
            history = fit(model, x, epochs=3)
        finally:
            keras.mixed_precision.set_global_policy("float32")
        assert model.student(x).dtype == tf.float16
        for own in (model.discriminator, model.projection):
            assert own(np.zeros((1, own.input_shape[1]), "float32")).dtype == tf.float32
        assert np.isfinite(history["loss"]).all()
        assert history["logits_l2"][-1] < history["logits_l2"][0]

    def test_loss_scaling_of_the_discriminators_optimizer_changes_nothing(self) -> None:
        x, _ = batch(32)
        scaled = keras.mixed_precision.LossScaleOptimizer(SGD(D_RATE))
        models = [
            compiled(distiller(discriminator=judge()), discriminator_optimizer=o)
            for o in (SGD(D_RATE), scaled)
        ]
        for model in models:
            fit(model, x)
        one, other = (values(m.discriminator) for m in models)
        assert_same(one, other, atol=1e-5)

    def test_evaluate_is_the_students(self) -> None:
        x, y = batch(40)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model = compiled(distiller(), loss=loss, metrics=["accuracy"])
        fit(model, x, y)
        before = values(model)
        ours = model.evaluate(x, y, verbose=0, return_dict=True)
        model.student.compile(loss=loss, metrics=["accuracy"])
        own = model.student.evaluate(x, y, verbose=0, return_dict=True)
        assert ours == pytest.approx(own, rel=1e-5)
        assert_same(values(model), before)

    @pytest.mark.parametrize("d_width", [4, 6])
    def test_saved_it_goes_on_with_both_optimizers(
        self, tmp_path: pathlib.Path, d_width: int
    ) -> None:
        x, _ = batch(64)
        through, stopped = (
            compiled(
                distiller(
                    teacher=net(d_width),
                    discriminator=judge(d_width),
                    projection=None if d_width == 4 else self.projection(d_width),
                ),
                optimizer="adam",
                discriminator_optimizer=keras.optimizers.Adam(0.01),
            )
            for _ in range(2)
        )
        fit(through, x, epochs=4)
        fit(stopped, x, epochs=2)
        stopped.save(tmp_path / "adversarial.keras")
        loaded = keras.models.load_model(tmp_path / "adversarial.keras")
        assert loaded.teacher is None
        loaded.teacher = net(d_width)
        fit(loaded, x, epochs=2)
        for part in ("student", "discriminator"):
            one, other = (values(getattr(m, part)) for m in (loaded, through))
            assert_same(one, other, atol=1e-5)

    @staticmethod
    def projection(width: int) -> Any:
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(width, use_bias=False)])
        return with_weights(model, 3)


class TestBadInput:
    @pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
    def test_dropout(self, dropout: float) -> None:
        with pytest.raises(InputError) as error:
            distiller(dropout=dropout)
        one_line(error, "dropout is", "below 1")

    def test_regularizer(self) -> None:
        with pytest.raises(InputError) as error:
            distiller(regularizer="l3")
        one_line(error, "'l3'", "None", "'l1'", "'l2'", "'adversarial'")

    @pytest.mark.parametrize("name", ["regularizer_weight", "adversarial_weight"])
    def test_negative_weights(self, name: str) -> None:
        with pytest.raises(InputError) as error:
            distiller(**{name: -1.0})
        one_line(error, f"{name} is -1.0", "at least 0")

    @pytest.mark.parametrize("role", ["teacher", "student"])
    def test_unknown_layer(self, role: str) -> None:
        with pytest.raises(InputError) as error:
            distiller(**{f"{role}_layer": "stage9"})
        one_line(error, f"'stage9' is not in the {role}", "features", "logits")

    def test_a_discriminator_of_another_width(self) -> None:
        with pytest.raises(InputError) as error:
            distiller(discriminator=judge(5))
        one_line(error, "(None, 5)", "(None, 4)", "'features'")

    def test_a_projection_to_another_width(self) -> None:
        projection = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5)])
        with pytest.raises(InputError) as error:
            distiller(net(3, seed=2), net(7), projection=projection)
        one_line(error, "(None, 7)", "(None, 5)")

    def test_a_discriminator_of_two_outputs(self) -> None:
        two = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        with pytest.raises(InputError) as error:
            distiller(discriminator=two)
        one_line(error, "discriminator", "2", "1")

    def test_a_discriminator_that_ends_in_sigmoid(self) -> None:
        """Its probability would be taken for a logit."""
        sigmoid = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])
        with pytest.raises(InputError) as error:
            distiller(discriminator=sigmoid)
        one_line(error, "discriminator", "sigmoid")

    def test_a_discriminator_that_is_not_built(self) -> None:
        with pytest.raises(InputError) as error:
            distiller(discriminator=keras.Sequential([keras.layers.Dense(1)]))
        one_line(error, "discriminator")

    @pytest.mark.parametrize("name", ["adversarial", "discriminator_loss"])
    def test_a_method_with_the_name_of_an_own_term(self, name: str) -> None:
        with pytest.raises(InputError) as error:
            distiller(methods=[kd.LogitsL2(name=name)])
        one_line(error, f"{name!r}")
