"""`AdversarialDistiller`: whole steps against finite differences of NumPy references, and its use.

The nets use tanh, so that the references have no kinks, and plain SGD, so that a step shows the
gradient. Most fits are eager, which is quicker for a step or two; `test_every_way_to_fit` holds the
graph against it.
"""

import pathlib
import warnings
from typing import Any, ClassVar

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
from kd_keras import game
from kd_keras.callbacks import DiscriminatorWarning, DiscriminatorWatch
from kd_keras.errors import InputError
from kd_keras.schedules import Linear, Step

pytestmark = pytest.mark.filterwarnings("ignore::kd_keras.callbacks.DiscriminatorWarning")

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
    if "jit_compile" not in kwargs and "steps_per_execution" not in kwargs:
        kwargs = {"run_eagerly": True, **kwargs}
    kwargs = {"optimizer": SGD(rate), "discriminator_optimizer": SGD(d_rate), **kwargs}
    model.compile(**kwargs)
    return model


def fit(model: Any, *data: Any, **kwargs: Any) -> dict:
    kwargs = {"verbose": 0, "shuffle": False, "batch_size": 16, **kwargs}
    return model.fit(*data, **kwargs).history


def keep_mask(width: int, dropout: float, updates: tuple = (0, 0), seed: int = 0) -> np.ndarray:
    """What the noise keeps: drawn for the batch from the seed and both players' updates so far."""
    student, d = updates
    noise = tf.random.stateless_uniform((16, width), seed=[seed + student - d, d])
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
        self.updates = 0, 0

    def samples(self, student: list) -> tuple:
        """The fake samples, and the adversary: the fake ones under inverted dropout."""
        fake = oracles.dense(student, self.x)[self.layer]
        if self.regularizer != "adversarial":
            return fake, None
        mask = keep_mask(fake.shape[1], self.dropout, self.updates)
        return fake, fake * mask / (1 - self.dropout)

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
    @pytest.mark.parametrize(
        ("settings", "dropout"), [(VARIANTS[0], 0.0), *((v, 0.5) for v in VARIANTS)], ids=str
    )
    def test_equals_the_reference(self, settings: dict, dropout: float) -> None:
        """D first, then the student against the new D; both by descending NumPy's gradients."""
        x, _ = batch()
        d = judge(3 if settings.get("student_layer", "") is None else 4)
        model = distiller(discriminator=d, dropout=dropout, **settings)
        compiled(model)
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
        real, fake, *_ = (
            reference.judged(judge_before, s) for s in (reference.real, *reference.samples(student))
        )
        np.testing.assert_allclose(history["discriminator_real"], [np.mean(real)], rtol=1e-4)
        np.testing.assert_allclose(history["discriminator_fake"], [np.mean(fake)], rtol=1e-4)

    @pytest.mark.parametrize("ratio", [(3, 1), (1, 2), (2, 3)], ids=str)
    def test_update_ratio(self, ratio: tuple) -> None:
        """D first, each time on fresh noise; the student's first turn on D's last samples."""
        x, _ = batch()
        d = judge()
        model = compiled(distiller(discriminator=d, update_ratio=ratio))
        student, weights = values(model.student), values(d)
        reference = Reference(x, values(model.teacher), {}, 0.5)
        losses = []
        for update in range(ratio[0]):
            reference.updates = 0, update
            losses.append(reference.discriminator_loss(weights, student))
            weights = oracles.descend(
                lambda w, s=student: reference.discriminator_loss(w, s), weights, D_RATE
            )
        for turn in range(ratio[1]):
            reference.updates = (turn, ratio[0]) if turn else (0, ratio[0] - 1)
            student = oracles.descend(
                lambda w, d=weights: reference.student_loss(d, w), student, RATE
            )
        history = fit(model, x)
        assert_same(values(d), weights, atol=2e-5)
        assert_same(values(model.student), student, atol=2e-5)
        np.testing.assert_allclose(history["discriminator_loss"], [np.mean(losses)], rtol=1e-4)

    def test_noise_is_fresh_at_every_step(self) -> None:
        """Two steps, each with its own draw, whatever the ratio."""
        seeds: list = []
        model = compiled(distiller(discriminator=judge(), update_ratio=(2, 2)))
        plain = model._noise_seed
        object.__setattr__(model, "_noise_seed", lambda: seeds.append(plain()) or seeds[-1])
        fit(model, batch(48)[0])
        assert len(seeds) == 9  # D's two and the student's second turn, in three steps
        assert len({tuple(seed.numpy()) for seed in seeds}) == 9

    def test_weighs_each_example_in_both_updates(self) -> None:
        x, y = batch()
        weight = np.linspace(0, 2, 16).astype("float32")
        d = judge()
        model = compiled(distiller(discriminator=d))
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
        model = compiled(distiller(regularizer=None), rate=0.0, d_rate=0.5, jit_compile=False)
        units = [layer.units for layer in model.discriminator.layers if hasattr(layer, "units")]
        assert units == [128, 256, 128, 1]
        history = fit(model, batch(64)[0], epochs=15)
        assert history["discriminator_loss"][-1] < history["discriminator_loss"][0]
        assert history["discriminator_accuracy"][-1] > 0.8

    def test_a_student_alone_learns_to_fool_a_still_discriminator(self) -> None:
        model = compiled(distiller(methods=[], discriminator=judge()), rate=0.2, d_rate=0.0)
        history = fit(model, batch(64)[0], epochs=4)
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


class TestSigns:
    """Each player alone moves its own way: what D thinks before and after says so."""

    def opinions(self, model: Any, x: Any) -> tuple[float, float]:
        d = values(model.discriminator)
        judged = [
            oracles.probability_real(oracles.dense(d, oracles.dense(values(m), x)[0])[-1])
            for m in (model.teacher, model.student)
        ]
        return float(np.mean(judged[0])), float(np.mean(judged[1]))

    @pytest.mark.parametrize("regularizer", [None, "adversarial"])
    def test_the_student_makes_its_samples_look_real(self, regularizer: str | None) -> None:
        x, _ = batch()
        model = distiller(methods=[], discriminator=judge(), regularizer=regularizer, dropout=0.0)
        before = self.opinions(model, x)
        fit(compiled(model, rate=0.1, d_rate=0.0), x)
        after = self.opinions(model, x)
        assert after[0] == before[0]
        assert after[1] > before[1]

    def test_the_discriminator_tells_real_from_fake(self) -> None:
        x, _ = batch()
        model = distiller(discriminator=judge(), regularizer=None)
        real, fake = self.opinions(model, x)
        fit(compiled(model, rate=0.0, d_rate=0.1), x)
        after = self.opinions(model, x)
        assert after[0] - after[1] > real - fake

    def test_the_adversary_weakens_the_discriminator(self) -> None:
        x, _ = batch()
        fakes = []
        for regularizer in (None, "adversarial"):
            model = distiller(discriminator=judge(), regularizer=regularizer, dropout=0.0)
            fit(compiled(model, rate=0.0, d_rate=0.1), x)
            fakes.append(self.opinions(model, x)[1])
        assert fakes[1] > fakes[0]


class Dropped(keras.layers.Dropout):
    """Dropout whose mask is known."""

    def mask(self, width: int) -> np.ndarray:
        return (np.arange(width) % 2 == 0) / (1 - self.rate)

    def call(self, inputs: Any, training: Any = None) -> Any:
        return inputs * self.mask(inputs.shape[-1]).astype("float32") if training else inputs


def noisy_net(batch_norm: bool = False, seed: int = 2) -> Any:
    """`pixels -> hidden -> dropout -> features -> logits`."""
    start = x = keras.Input((4,))
    x = keras.layers.Dense(4, "tanh", name="hidden")(x)
    x = keras.layers.BatchNormalization(momentum=0.5, name="norm")(x) if batch_norm else x
    x = Dropped(0.5, name="dropout")(x)
    x = keras.layers.Dense(4, "tanh", name="features")(x)
    return with_weights(keras.Model(start, keras.layers.Dense(3)(x)), seed)


class NetworkReference(Reference):
    """The adversary is the student under its own dropout, and only the adversary."""

    def forward(self, weights: list, mask: Any) -> tuple:
        hidden = oracles.dense(weights[:2], self.x, np.tanh)[-1]
        features, logits = oracles.dense(weights[2:], np.tanh(hidden) * mask)
        return features, logits

    def samples(self, student: list) -> tuple:
        mask = Dropped(0.5).mask(4)
        return self.forward(student, np.ones(4))[0], self.forward(student, mask)[0]

    def student_loss(self, d: list, student: list) -> float:
        logits = self.forward(student, np.ones(4))[1]
        data = 2 * oracles.logits_l2(Arrays(self.teacher_logits), Arrays(logits))
        return self.adversarial(d, student) + LAMBDA * np.mean(data)


class BehindFeaturesReference(Reference):
    """D reads logits; the adversary's come from features under dropout."""

    def samples(self, student: list) -> tuple:
        features, logits = oracles.dense(student, self.x)
        noisy = features * keep_mask(features.shape[1], self.dropout) / (1 - self.dropout)
        return logits, oracles.dense(student[2:], noisy)[-1]


class TestNoiseBehindALayer:
    SETTINGS: ClassVar = {"teacher_layer": None, "student_layer": None}

    def test_equals_the_reference(self) -> None:
        x, _ = batch()
        d = judge(3)
        noise = {"noise": "network", "noise_layer": "features", "dropout": 0.4}
        model = compiled(distiller(discriminator=d, **noise, **self.SETTINGS))
        student, before = values(model.student), values(d)
        reference = BehindFeaturesReference(x, values(model.teacher), self.SETTINGS, 0.4)
        fit(model, x)
        after = oracles.descend(lambda w: reference.discriminator_loss(w, student), before, D_RATE)
        expected = oracles.descend(lambda w: reference.student_loss(after, w), student, RATE)
        assert_same(values(d), after, atol=2e-5)
        assert_same(values(model.student), expected, atol=2e-5)

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"noise_layer": "features"}, ("'features'", "noise='network'")),
            ({"noise": "network", "noise_layer": "top"}, ("'top'", "student", "features")),
        ],
    )
    def test_bad_input(self, settings: dict, words: tuple) -> None:
        with pytest.raises(InputError) as error:
            distiller(**settings)
        one_line(error, *words)


class TestNoiseOfTheNetwork:
    def test_equals_the_reference(self) -> None:
        x, _ = batch()
        d = judge()
        model = compiled(distiller(noisy_net(), discriminator=d, noise="network"))
        student, before = values(model.student), values(d)
        reference = NetworkReference(x, values(model.teacher), {}, 0.5)
        fit(model, x)
        after = oracles.descend(lambda w: reference.discriminator_loss(w, student), before, D_RATE)
        expected = oracles.descend(lambda w: reference.student_loss(after, w), student, RATE)
        assert_same(values(d), after, atol=2e-5)
        assert_same(values(model.student), expected, atol=2e-5)

    def test_the_statistics_are_those_of_the_first_pass(self) -> None:
        x, _ = batch()
        student = noisy_net(batch_norm=True)
        hidden = oracles.dense(values(student)[:2], x)[-1]
        expected = 0.5 * np.tanh(hidden).mean(axis=0)
        model = compiled(
            distiller(student, discriminator=judge(), noise="network", update_ratio=(2, 1)),
            jit_compile=False,
        )
        fit(model, x)
        moved = student.get_layer("norm").moving_mean.numpy()
        np.testing.assert_allclose(moved, expected, atol=1e-5)

    def test_kerass_own_dropout_is_fresh_in_every_draw(self) -> None:
        adversaries: list = []
        student = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.5)])
        student.add(keras.layers.Dense(4, "tanh", name="features"))
        student.add(keras.layers.Dense(3))
        model = distiller(student, discriminator=judge(), noise="network", update_ratio=(2, 1))
        plain = model._adversary

        def kept(*args: Any) -> Any:
            adversaries.append(plain(*args))
            return adversaries[-1]

        object.__setattr__(model, "_adversary", kept)
        fit(compiled(model), batch(32)[0])
        one, two, three, four = (np.array(a) for a in adversaries)
        assert (one != two).any()
        assert (three != four).any()

    def test_the_student_runs_a_second_time_for_the_noise(self) -> None:
        student = noisy_net()
        layer = student.get_layer("features")
        calls, plain = [], layer.call
        object.__setattr__(layer, "call", lambda x, **_: calls.append(1) or plain(x))
        model = compiled(distiller(student, noise="network"))
        calls.clear()
        fit(model, batch(32)[0])
        assert len(calls) == 4

    def test_it_needs_dropout_in_the_student(self) -> None:
        for student in (net(4), net(4, dropout=0.0)):
            with pytest.raises(InputError) as error:
                distiller(student, noise="network")
            one_line(error, "noise='network'", "Dropout layer", "noise='features'")

    def test_it_needs_adversarial_samples(self) -> None:
        with pytest.raises(InputError) as error:
            distiller(noisy_net(), noise="network", regularizer="l2")
        one_line(error, "'network'", "'l2'", "regularizer='adversarial'")


class TestNoGame:
    def test_weight_0_is_a_training_without_a_discriminator(self) -> None:
        x, _ = batch(32)
        model = compiled(distiller(adversarial_weight=0.0))
        plain = kd.Distiller(net(4, seed=2), net(4), [kd.LogitsL2(weight=2 * LAMBDA)])
        plain.compile(SGD(RATE), run_eagerly=True)
        histories = [fit(m, x) for m in (model, plain)]
        assert histories[0] == histories[1]
        assert model.discriminator is None
        assert_same(values(model.student), values(plain.student))

    def test_a_weight_can_have_a_schedule(self) -> None:
        x, _ = batch(32)
        jump = Step(0.0, 1.0, steps=2, at=0.5)
        model = compiled(distiller(methods=[], adversarial_weight=jump), rate=1.0)
        before = values(model.student)
        fit(model, x[:16])
        assert_same(values(model.student), before)
        fit(model, x[16:])
        assert_differ(values(model.student), before)


class TestWatch:
    def logs(self, accuracy: float, real: float, fake: float) -> dict:
        judged = {"accuracy": accuracy, "real": real, "fake": fake}
        return {f"discriminator_{name}": value for name, value in judged.items()}

    @pytest.mark.parametrize(
        ("judged", "result"),
        [
            ((0.97, 0.9, 0.1), "won"),
            ((0.95, 0.99, 0.4), "won"),
            ((0.5, 0.5, 0.5), "lost"),
            ((0.3, 0.4, 0.6), "lost"),
        ],
    )
    def test_it_warns(self, judged: tuple, result: str) -> None:
        with pytest.warns(DiscriminatorWarning) as caught:
            DiscriminatorWatch().on_epoch_end(6, self.logs(*judged))
        [warning] = caught
        text = str(warning.message)
        assert "\n" not in text
        assert f"epoch 7: the discriminator has {result}" in text
        assert "learning rate" in text

    @pytest.mark.parametrize("judged", [(0.8, 0.7, 0.3), (0.5, 0.75, 0.6), (0.6, 0.51, 0.5)])
    def test_it_is_silent_while_the_game_is_on(self, judged: tuple) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            DiscriminatorWatch().on_epoch_end(0, self.logs(*judged))
            DiscriminatorWatch().on_epoch_end(0, {"loss": 0.3})

    def test_fit_watches_and_warns_of_the_first_such_epoch(self) -> None:
        undecided = judge()
        undecided.set_weights([0 * w for w in values(undecided)])
        model = compiled(distiller(discriminator=undecided), rate=0.0, d_rate=0.0)
        with pytest.warns(DiscriminatorWarning, match="lost") as caught:
            fit(model, batch(32)[0], epochs=2)
        assert [str(w.message)[:7] for w in caught] == ["epoch 1"]

    def test_it_warns_anew_after_an_open_game(self) -> None:
        watch = DiscriminatorWatch()
        accuracies = (0.97, 0.98, 0.8, 0.99, 0.4)
        with pytest.warns(DiscriminatorWarning) as caught:
            [watch.on_epoch_end(e, self.logs(a, a, a)) for e, a in enumerate(accuracies)]
        assert [str(w.message)[:7] for w in caught] == ["epoch 1", "epoch 4", "epoch 5"]

    @pytest.mark.parametrize("kind", ["list", "one", "positional"])
    def test_the_callbacks_of_the_user_are_kept(self, kind: str) -> None:
        own = DiscriminatorWatch(won_from=2.0, lost_gap=-2.0)
        model = compiled(distiller(), rate=0.0, d_rate=0.0)
        x = batch(16)[0]
        with warnings.catch_warnings():
            warnings.simplefilter("error", DiscriminatorWarning)
            if kind == "positional":
                model.fit(x, None, 16, 1, 0, [own])
            else:
                model.fit(x, verbose=0, callbacks=own if kind == "one" else [own])
        assert own.model is model

    def test_a_callback_list_of_keras_is_left_alone(self) -> None:
        own = keras.callbacks.CallbackList([])
        assert game._watched(own) is own


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
        model = compiled(distiller(net(3, seed=2)))

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
        model = compiled(distiller(student))
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
    @pytest.mark.parametrize(
        "way", [pytest.param("eager", marks=pytest.mark.slow), "steps_per_execution"]
    )
    def test_every_way_to_fit_trains_alike(self, way: str) -> None:
        x, _ = batch(64)
        extra = {"run_eagerly": True} if way == "eager" else {"steps_per_execution": 2}
        models = [
            compiled(
                distiller(discriminator=judge(), update_ratio=(2, 2)), jit_compile=False, **settings
            )
            for settings in ({}, extra)
        ]
        histories = [fit(model, x, epochs=2) for model in models]
        assert_same(values(models[0]), values(models[1]), atol=1e-5)
        for name, logged in histories[0].items():
            np.testing.assert_allclose(histories[1][name], logged, rtol=1e-4, err_msg=name)

    @pytest.mark.slow
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

    def test_saved_it_goes_on_with_both_optimizers(self, tmp_path: pathlib.Path) -> None:
        """With a projection and all that a config can hold."""
        x, _ = batch(32)
        d_width = 6
        through, stopped = (
            compiled(
                distiller(
                    teacher=net(d_width),
                    discriminator=judge(d_width),
                    projection=self.projection(d_width),
                    update_ratio=(2, 1),
                    adversarial_weight=Linear(2.0, 1.0, steps=5),
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
        models = ("student", "discriminator", "projection")
        configs = [m.get_config() for m in (loaded, stopped)]
        one, other = ({k: v for k, v in c.items() if k not in models} for c in configs)
        assert one == other
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
    @pytest.mark.parametrize("ratio", [(0, 1), (1,), (1, 1.5), 2, (True, 1), "12", (1, 1, 1)])
    def test_update_ratio(self, ratio: Any) -> None:
        with pytest.raises(InputError) as error:
            distiller(update_ratio=ratio)
        one_line(error, "update_ratio is", repr(ratio), "whole numbers from 1", "(1, 1)")

    def test_noise(self) -> None:
        with pytest.raises(InputError) as error:
            distiller(noise="pixels")
        one_line(error, "'pixels'", "'features'", "'network'")

    def test_a_label_weight_without_a_label_loss(self) -> None:
        with pytest.raises(InputError) as error:
            compiled(distiller(label_weight=0.5))
        one_line(error, "label_weight is 0.5", "compile(loss=...)", "label_weight=0")

    def test_a_label_weight_without_labels(self) -> None:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model = compiled(distiller(label_weight=0.5), loss=loss)
        before = values(model)
        with pytest.raises(InputError) as error:
            fit(model, batch()[0])
        one_line(error, "label_weight is 0.5", "no labels")
        assert_same(values(model), before)

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

    @pytest.mark.parametrize("name", ["adversarial", "discriminator_loss", "discriminator_real"])
    def test_a_method_with_the_name_of_an_own_term(self, name: str) -> None:
        with pytest.raises(InputError) as error:
            distiller(methods=[kd.LogitsL2(name=name)])
        one_line(error, f"{name!r}")
