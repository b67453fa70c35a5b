"""`ConditionalAdversarialDistiller`: whole steps against NumPy references, and its use.

The nets use tanh and plain SGD, as in `test_adversarial`; D has no dropout where it is compared.
"""

import pathlib
from typing import Any

import numpy as np
import oracles
import pytest
import tensorflow as tf
from nets import assert_differ, assert_same, batch, net, one_line, values, with_weights

import kd_keras as kd
from kd_keras import discriminators
from kd_keras.conditional import ConditionalAdversarialDistiller
from kd_keras.errors import InputError
from kd_keras.methods.logits_l1 import LogitsL1

pytestmark = pytest.mark.filterwarnings("ignore::kd_keras.callbacks.DiscriminatorWarning")

keras: Any = tf.keras
SGD = keras.optimizers.SGD
RATE, D_RATE = 0.2, 0.4
FORMS = ["saturating", "non_saturating", "least_squares", "wasserstein"]


def judge(classes: int = 3, outputs: int = 5, seed: int = 9) -> Any:
    layers = [keras.layers.Dense(6, "tanh"), keras.layers.Dense(outputs)]
    return with_weights(keras.Sequential([keras.Input((classes,)), *layers]), seed)


def crossentropy() -> Any:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def distiller(student: Any = None, teacher: Any = None, **kwargs: Any) -> Any:
    student = net(4, seed=2) if student is None else student
    teacher = net(6) if teacher is None else teacher
    return ConditionalAdversarialDistiller(student, teacher, **kwargs)


def compiled(model: Any, rate: float = RATE, d_rate: float = D_RATE, **kwargs: Any) -> Any:
    if "jit_compile" not in kwargs:
        kwargs = {"run_eagerly": True, **kwargs}
    kwargs = {"loss": crossentropy(), **kwargs}
    model.compile(**{"optimizer": SGD(rate), "discriminator_optimizer": SGD(d_rate), **kwargs})
    return model


def fit(model: Any, *data: Any, **kwargs: Any) -> dict:
    kwargs = {"verbose": 0, "shuffle": False, "batch_size": 16, **kwargs}
    return model.fit(*data, **kwargs).history


class Reference:
    """One step in NumPy, from Xu et al. 2018, equations 1 to 5; every mean is over the batch."""

    def __init__(self, x: Any, y: Any, teacher: list, *, form: str, weight: Any = 1.0) -> None:
        self.x, self.y, self.form, self.weight = x, y, form, weight
        self.real = oracles.dense(teacher, x)[-1]

    def fake(self, student: list) -> np.ndarray:
        return oracles.dense(student, self.x)[-1]

    def judged(self, d: list, logits: np.ndarray) -> tuple:
        return oracles.judgement(oracles.dense(d, logits)[-1])

    def likelihood(self, judged: tuple) -> np.ndarray:
        return np.log(judged[0][np.arange(16), self.y])

    def discriminator_loss(self, d: list, student: list) -> float:
        """Minus equation 2."""
        real, fake = (self.judged(d, z) for z in (self.real, self.fake(student)))
        minus_l_a = oracles.plain_adversarial(self.form, real, fake)
        if self.form == "wasserstein":
            share = tf.random.stateless_uniform((16, 1), seed=[0, 0]).numpy()
            between = share * self.real + (1 - share) * self.fake(student)
            minus_l_a = minus_l_a + 10.0 * oracles.steepness(d, between)
        l_ds = self.likelihood(real) + self.likelihood(fake)
        return np.mean(self.weight * (minus_l_a - l_ds) / 2)

    def adversarial(self, d: list, student: list) -> float:
        """The student's part of L_GAN."""
        fake = self.judged(d, self.fake(student))
        values = (oracles.plain_fooling(self.form, fake) - self.likelihood(fake)) / 2
        return np.mean(self.weight * values)

    def student_loss(self, d: list, student: list, factors: tuple = (1, 1, 1)) -> float:
        """Equation 5, with a factor of each term."""
        logits = self.fake(student)
        l_s = oracles.cross_entropy(self.y, logits)
        l_1 = np.abs(logits - self.real).sum(axis=-1)
        loss = np.mean(self.weight * (factors[0] * l_s + factors[1] * l_1))
        return loss + (factors[2] * self.adversarial(d, student) if factors[2] else 0)


def assert_step(
    model: Any, reference: Reference, data: tuple, factors: tuple, **kwargs: Any
) -> Any:
    student, before = values(model.student), values(model.discriminator)
    history = fit(model, *data, **kwargs)
    after = oracles.descend(lambda w: reference.discriminator_loss(w, student), before, D_RATE)
    expected = oracles.descend(lambda w: reference.student_loss(after, w, factors), student, RATE)
    assert_same(values(model.discriminator), after, atol=3e-5)
    assert_same(values(model.student), expected, atol=3e-5)
    return history, before, after, student


class TestStep:
    @pytest.mark.parametrize("form", FORMS)
    def test_equals_the_reference(self, form: str) -> None:
        x, y = batch()
        model = compiled(distiller(discriminator=judge(), gan_form=form))
        reference = Reference(x, y, values(model.teacher), form=form)
        history, before, after, student = assert_step(model, reference, (x, y), (1, 1, 1))
        expected = {
            "discriminator_loss": reference.discriminator_loss(before, student),
            "adversarial": reference.adversarial(after, student),
            "loss": reference.student_loss(after, student),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(history[name], [value], rtol=1e-4, err_msg=name)

    @pytest.mark.parametrize("form", FORMS)
    def test_what_is_logged_of_the_discriminator(self, form: str) -> None:
        x, y = batch()
        model = compiled(distiller(discriminator=judge(), gan_form=form), rate=0.0, d_rate=0.0)
        reference = Reference(x, y, values(model.teacher), form=form)
        logits = reference.real, reference.fake(values(model.student))
        judged = [reference.judged(values(model.discriminator), z) for z in logits]
        real, fake = (j[1] for j in judged)
        if form == "wasserstein":
            real, fake = (j[2] for j in judged)
            accuracy = np.mean(real > fake)
        elif form == "least_squares":
            real, fake = (np.clip(j[2], 0, 1) for j in judged)
            accuracy = np.mean([real > 0.5, fake < 0.5])
        else:
            accuracy = np.mean([real > 0.5, fake < 0.5])
        history = fit(model, x, y)
        np.testing.assert_allclose(history["discriminator_accuracy"], [accuracy], rtol=1e-5)
        np.testing.assert_allclose(history["discriminator_real"], [np.mean(real)], rtol=1e-4)
        np.testing.assert_allclose(history["discriminator_fake"], [np.mean(fake)], rtol=1e-4)

    @pytest.mark.parametrize("factors", [(0, 0, 1), (1, 0, 1), (0.3, 0.7, 2.0)], ids=str)
    def test_the_terms_of_table_2_with_the_game(self, factors: tuple) -> None:
        x, y = batch()
        model = distiller(
            discriminator=judge(),
            label_weight=factors[0],
            methods=[LogitsL1(weight=factors[1])] if factors[1] else [],
            adversarial_weight=factors[2],
        )
        reference = Reference(x, y, values(model.teacher), form="saturating")
        loss = crossentropy() if factors[0] else None
        assert_step(compiled(model, loss=loss), reference, (x, y), factors)

    @pytest.mark.parametrize("factors", [(1, 0, 0), (1, 1, 0)], ids=str)
    def test_the_terms_of_table_2_without_the_game(self, factors: tuple) -> None:
        x, y = batch()
        methods = [LogitsL1()] if factors[1] else []
        model = compiled(distiller(methods=methods, adversarial_weight=0.0))
        student = values(model.student)
        reference = Reference(x, y, values(model.teacher), form="saturating")
        history = fit(model, x, y)
        expected = oracles.descend(lambda w: reference.student_loss([], w, factors), student, RATE)
        assert_same(values(model.student), expected, atol=2e-5)
        assert model.discriminator is None
        assert not any("discriminator" in name or name == "adversarial" for name in history)

    @pytest.mark.parametrize("form", ["saturating", "wasserstein"])
    def test_weighs_each_example_in_both_updates(self, form: str) -> None:
        x, y = batch()
        weight = np.linspace(0, 2, 16).astype("float32")
        model = compiled(distiller(discriminator=judge(), gan_form=form))
        reference = Reference(x, y, values(model.teacher), form=form, weight=weight)
        assert_step(model, reference, (x, y), (1, 1, 1), sample_weight=weight)

    @pytest.mark.parametrize("kind", ["one-hot", "column"])
    def test_other_kinds_of_labels_train_alike(self, kind: str) -> None:
        x, y = batch()
        others = {"one-hot": np.eye(3, dtype="float32")[y], "column": y[:, np.newaxis]}
        trained = []
        for labels in (y, others[kind]):
            model = compiled(distiller(discriminator=judge(), label_weight=0), loss=None)
            fit(model, x, labels)
            trained.append(values(model))
        assert_same(*trained, atol=1e-6)

    def test_update_ratio(self) -> None:
        x, y = batch()
        model = compiled(distiller(discriminator=judge(), update_ratio=(2, 2)))
        student, d = values(model.student), values(model.discriminator)
        reference = Reference(x, y, values(model.teacher), form="saturating")
        for _ in range(2):
            d = oracles.descend(lambda w, s=student: reference.discriminator_loss(w, s), d, D_RATE)
        for _ in range(2):
            student = oracles.descend(lambda w, d=d: reference.student_loss(d, w), student, RATE)
        fit(model, x, y)
        assert_same(values(model.discriminator), d, atol=3e-5)
        assert_same(values(model.student), student, atol=3e-5)


class TestSigns:
    """Each player alone moves its own way, in every form; the class terms pull the same way."""

    @staticmethod
    def opinions(model: Any, x: Any, y: Any) -> dict:
        reference = Reference(x, y, values(model.teacher), form="saturating")
        logits = {"real": reference.real, "fake": reference.fake(values(model.student))}
        judged = {k: reference.judged(values(model.discriminator), z) for k, z in logits.items()}
        scores = {f"score of {k}": float(np.mean(j[2])) for k, j in judged.items()}
        return scores | {f"label of {k}": reference.likelihood(j).mean() for k, j in judged.items()}

    @pytest.mark.parametrize("form", FORMS)
    def test_the_student(self, form: str) -> None:
        """It makes its samples look real, or of their class; alone both need not grow."""
        x, y = batch()
        model = distiller(discriminator=judge(), methods=[], label_weight=0, gan_form=form)
        reference = Reference(x, y, values(model.teacher), form=form)
        d, before = values(model.discriminator), values(model.student)
        fit(compiled(model, loss=None, rate=0.02, d_rate=0.0), x, y)
        assert reference.adversarial(d, values(model.student)) < reference.adversarial(d, before)
        assert_same(values(model.discriminator), d)

    @pytest.mark.parametrize("form", FORMS)
    def test_the_discriminator(self, form: str) -> None:
        x, y = batch()
        model = distiller(discriminator=judge(), gan_form=form, gradient_penalty=0.0)
        before, student = self.opinions(model, x, y), values(model.student)
        fit(compiled(model, rate=0.0, d_rate=0.02), x, y)
        after = self.opinions(model, x, y)
        assert (
            after["score of real"] - after["score of fake"]
            > before["score of real"] - before["score of fake"]
        )
        for name in ("label of real", "label of fake"):
            assert after[name] > before[name]
        assert_same(values(model.student), student)

    def test_each_optimizer_is_given_its_own_gradients_only(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: dict = {}
        model = compiled(distiller(discriminator=judge()))

        def record(optimizer: Any, name: str) -> None:
            plain = optimizer.apply_gradients

            def apply(pairs: Any, *args: Any, **kwargs: Any) -> Any:
                pairs = list(pairs)
                seen.setdefault(name, []).append([id(variable) for _, variable in pairs])
                return plain(pairs, *args, **kwargs)

            monkeypatch.setattr(optimizer, "apply_gradients", apply)

        record(model.optimizer, "student")
        record(model.discriminator_optimizer, "discriminator")
        fit(model, *batch())
        parts = {"student": model.student, "discriminator": model.discriminator}
        expected = {k: [[id(v) for v in m.trainable_variables]] for k, m in parts.items()}
        assert seen == expected
        assert list(seen) == ["discriminator", "student"]  # D first


class TestDiscriminator:
    def test_the_default_has_three_layers_c_plus_2_outputs_and_dropout(self) -> None:
        d = distiller().discriminator
        kinds = [type(layer).__name__ for layer in d.layers]
        assert kinds[1:] == ["Dense", "Dropout", "Dense", "Dropout", "Dense"]
        assert (d.input_shape, d.output_shape) == ((None, 3), (None, 5))
        assert [layer.rate for layer in d.layers if hasattr(layer, "rate")] == [0.3, 0.3]

    def test_by_spec(self) -> None:
        d = distiller(discriminator="7", discriminator_dropout=0.0).discriminator
        assert [layer.units for layer in d.layers if hasattr(layer, "units")] == [7, 5]

    def test_models_that_know_their_classes_only_after_a_call(self) -> None:
        class Subclassed(keras.Model):
            def __init__(self) -> None:
                super().__init__()
                self.out = keras.layers.Dense(3)

            def call(self, x: Any, training: Any = None) -> Any:
                return self.out(x)

        x, y = batch(16)
        teacher, student = Subclassed(), Subclassed()
        teacher(x), student(x)
        with pytest.raises(InputError) as error:
            fit(compiled(distiller(student, teacher)), x, y)
        one_line(error, "classes", "discriminator=")
        d = discriminators.build("8", (3,), 3 + 2, dropout=0.3)  # the cure that the error names
        model = compiled(distiller(student, teacher, discriminator=d), jit_compile=False)
        before = values(student)
        fit(model, x, y)
        assert_differ(values(student), before)


class TestKerasHabits:
    @pytest.mark.parametrize("form", ["saturating", "wasserstein"])
    def test_eager_and_graph_train_alike(self, form: str) -> None:
        x, y = batch(32)
        models = [
            compiled(distiller(discriminator=judge(), gan_form=form), jit_compile=False, **extra)
            for extra in ({}, {"run_eagerly": True})
        ]
        for model in models:
            fit(model, x, y)
        assert_same(values(models[0]), values(models[1]), atol=1e-5)

    def test_saved_it_goes_on_with_both_optimizers(self, tmp_path: pathlib.Path) -> None:
        data = batch(32)
        through, stopped = (
            compiled(
                distiller(
                    discriminator="6",
                    discriminator_dropout=0.0,
                    gan_form="wasserstein",
                    gradient_penalty=2.0,
                ),
                optimizer="adam",
                discriminator_optimizer=keras.optimizers.Adam(0.01),
            )
            for _ in range(2)
        )
        through.discriminator.set_weights(values(stopped.discriminator))
        fit(through, *data, epochs=4)
        fit(stopped, *data, epochs=2)
        stopped.save(tmp_path / "conditional.keras")
        loaded = keras.models.load_model(tmp_path / "conditional.keras")
        assert (loaded.gan_form, loaded.gradient_penalty) == ("wasserstein", 2.0)
        loaded.teacher = net(6)
        fit(loaded, *data, epochs=2)
        for part in ("student", "discriminator"):
            one, other = (values(getattr(m, part)) for m in (loaded, through))
            assert_same(one, other, atol=1e-5)

    def test_mixed_precision(self) -> None:
        keras.mixed_precision.set_global_policy("mixed_float16")
        try:
            model = compiled(distiller(gan_form="wasserstein"), rate=0.02)
            history = fit(model, *batch(48))
        finally:
            keras.mixed_precision.set_global_policy("float32")
        assert np.isfinite([value for term in history.values() for value in term]).all()

    def test_the_teacher_is_not_touched(self) -> None:
        teacher = net(6, batch_norm=True, dropout=0.5)
        before = values(teacher)
        fit(compiled(distiller(teacher=teacher)), *batch(32))
        assert_same(values(teacher), before)

    def test_a_critic_may_win(self, recwarn: pytest.WarningsRecorder) -> None:
        model = compiled(distiller(gan_form="wasserstein"), rate=0.0)
        fit(model, *batch())
        assert not [w for w in recwarn if "discriminator" in str(w.message)]


class TestBadInput:
    def test_no_labels_for_the_game(self) -> None:
        model = compiled(distiller(label_weight=0), loss=None)
        before = values(model)
        with pytest.raises(InputError) as error:
            fit(model, batch()[0])
        one_line(error, "labels", "L_DS", "adversarial_weight=0")
        assert_same(values(model), before)

    def test_no_loss_for_the_labels(self) -> None:
        with pytest.raises(InputError) as error:
            compiled(distiller(), loss=None)
        one_line(error, "label_weight is 1.0", "compile(loss=...)", "label_weight=0")

    def test_nothing_to_learn_from(self) -> None:
        with pytest.raises(InputError) as error:
            compiled(distiller(methods=[], label_weight=0, adversarial_weight=0), loss=None)
        one_line(error, "nothing to learn from")

    def test_gan_form(self) -> None:
        with pytest.raises(InputError) as error:
            distiller(gan_form="hinge")
        one_line(error, "'hinge'", *FORMS)

    @pytest.mark.parametrize("outputs", [1, 3, 4])
    def test_a_discriminator_without_c_plus_2_outputs(self, outputs: int) -> None:
        with pytest.raises(InputError) as error:
            distiller(discriminator=judge(outputs=outputs))
        one_line(error, f"(None, {outputs})", "(None, 5)", "real and fake")

    def test_a_convolutional_discriminator(self) -> None:
        with pytest.raises(InputError) as error:
            distiller(discriminator="conv8")
        one_line(error, "'conv8'", "feature maps", "(3,)")

    def test_other_classes(self) -> None:
        with pytest.raises(InputError) as error:
            distiller(net(4, classes=5), methods=[])
        one_line(error, "same classes", "3", "5")

    @pytest.mark.parametrize("dropout", [-0.1, 1.0])
    def test_dropout(self, dropout: float) -> None:
        with pytest.raises(InputError) as error:
            distiller(discriminator_dropout=dropout)
        one_line(error, "discriminator_dropout is", "below 1")

    def test_labels_of_another_shape(self) -> None:
        model = compiled(distiller(label_weight=0), loss=None)
        with pytest.raises(InputError) as error:
            fit(model, batch()[0], np.zeros((16, 2), "float32"))
        one_line(error, "(16, 2)", "(batch, 3)")

    def test_a_method_with_the_name_of_an_own_term(self) -> None:
        with pytest.raises(InputError) as error:
            distiller(methods=[kd.LogitsL2(name="discriminator_fake")])
        one_line(error, "'discriminator_fake'")
