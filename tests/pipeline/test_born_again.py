"""`born_again`: what a generation minimises, what is kept, and that it can be cut off anywhere."""

import pathlib
import types
from typing import Any, ClassVar

import numpy as np
import oracles
import pytest
import tensorflow as tf
from ml_collections import ConfigDict
from nets import assert_differ, assert_same, batch, net, one_line, values
from oracles import Array, softmax

import kd_keras as kd
from kd_keras.errors import InputError
from kd_keras.pipeline import generations, networks
from kd_keras.pipeline.born_again import BornAgain
from kd_keras.pipeline.staged import Stage
from kd_keras.pipeline.workdir import Workdir
from kd_keras.teachers import evaluation

keras: Any = tf.keras
EXAMPLES, EPOCHS = 48, 2
VALIDATION = batch(40, seed=6)


def build(width: int = 5, dropout: float = 0.0) -> Any:
    """A student whose weights come from the global seed."""
    start = keras.Input((4,))
    x = keras.layers.Dense(width, "tanh", name="features")(start)
    x = keras.layers.Dropout(dropout)(x) if dropout else x
    return keras.Model(start, keras.layers.Dense(3, name="logits")(x))


def sgd() -> Any:
    return keras.optimizers.SGD(0.5, momentum=0.5)


def train(count: int = 2, **settings: Any) -> Any:
    x, y = batch(EXAMPLES)
    settings = {"epochs": EPOCHS, "batch_size": 16, "optimizer": sgd, **settings}
    return kd.born_again(settings.pop("build", build), count, x, y, **settings)


class PullThePlug(keras.callbacks.Callback):
    """Ends the process in the middle of an epoch of one generation, counted over all of them."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self._epochs_left = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._epochs_left == 0 and batch == 1:
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._epochs_left -= 1


class TestGenerations:
    """One epoch of one batch holds all examples, so that a generation is one known step."""

    SETTINGS: ClassVar[dict[str, Any]] = {"epochs": 1, "batch_size": EXAMPLES, "seed": 3}

    @pytest.mark.parametrize(
        ("settings", "labels", "distilled"),
        [({}, 1.0, True), ({"label_weight": 0}, 0.0, True), ({"methods": []}, 1.0, False)],
        ids=["ban", "without labels", "without teacher"],
    )
    def test_a_step_of_a_generation(self, settings: dict, labels: float, distilled: bool) -> None:
        """`CE(y, p_k) + CE(p_(k-1), p_k)`, from the weights of the seed `seed + k`."""
        count = 1 if settings else 2
        teacher = net(6)
        found = train(count, teacher=teacher, optimizer=plain_sgd, **self.SETTINGS, **settings)
        assert found.teacher is teacher
        assert_same(values(teacher), values(net(6)))
        teachers = [teacher, *found.students]
        for number, student in enumerate(found.students, start=1):
            expected = step(
                fresh(3 + number), teachers[number - 1], labels=labels, distilled=distilled
            )
            assert_same(values(student), expected, atol=1e-4)

    def test_generation_0_learns_from_labels_alone(self) -> None:
        found = train(1, optimizer=plain_sgd, **self.SETTINGS)
        expected = step(fresh(3), None, labels=1.0, distilled=False)
        assert_same(values(found.teacher), expected, atol=1e-4)
        assert sorted(found.history) == ["generation0", "generation1"]

    @pytest.mark.parametrize("variant", ["cwtm", "dkpp"])
    def test_variants(self, variant: str) -> None:
        found = train(1, teacher=net(6), variant=variant, optimizer=plain_sgd, **self.SETTINGS)
        (logs,) = found.history["generation1"]
        (term,) = {"confidence_weighted_labels", "permuted_soft_targets"} & set(logs)
        assert logs["loss"] == pytest.approx(logs[term])  # the labels are not in the loss
        expected = {"cwtm": "confidence_weighted_labels", "dkpp": "permuted_soft_targets"}
        assert term == expected[variant]
        if variant == "cwtm":
            assert_same(values(found.student), step_of_cwtm(fresh(4), net(6)), atol=1e-4)


def plain_sgd() -> Any:
    return keras.optimizers.SGD(0.5)


def fresh(seed: int) -> list[Array]:
    keras.utils.set_random_seed(seed)
    return values(build())


def step(weights: list[Array], teacher: Any, *, labels: float, distilled: bool) -> list[Array]:
    """One step of gradient descent on the two cross-entropies, from NumPy alone."""
    x, y = batch(EXAMPLES)

    def loss(w: list[Array]) -> float:
        z = oracles.dense(w, x)[-1]
        total = labels * oracles.cross_entropy(y, z)
        if distilled:
            p = softmax(oracles.dense(values(teacher), x)[-1])
            total = total - (p * np.log(softmax(z))).sum(axis=-1)
        return np.mean(total)

    return oracles.descend(loss, weights, 0.5)


def step_of_cwtm(weights: list[Array], teacher: Any) -> list[Array]:
    x, y = batch(EXAMPLES)
    sure = softmax(oracles.dense(values(teacher), x)[-1]).max(axis=-1)

    def loss(w: list[Array]) -> float:
        return np.sum(sure / sure.sum() * oracles.cross_entropy(y, oracles.dense(w, x)[-1]))

    return oracles.descend(loss, weights, 0.5)


class TestResult:
    def test_accuracies_and_ensembles(self) -> None:
        x, y = VALIDATION
        teacher, *students = models = [net(4 + k, seed=k) for k in range(4)]
        measured = generations.compare(teacher, students, lambda t: evaluation.accuracy(t, x, y))
        p = [softmax(oracles.dense(values(model), x)[-1]) for model in models]
        expected = {
            "teacher": p[0],
            **{f"BAN-{k}": p[k] for k in (1, 2, 3)},
            "Ens*2": p[1] + p[2],
            "Ens*3": p[1] + p[2] + p[3],
        }
        assert list(measured) == list(expected)
        for name, value in expected.items():
            right = np.mean(value.argmax(axis=-1) == y)
            assert measured[name] == pytest.approx(right), name
        found = BornAgain(teacher, tuple(students), measured)
        lines = str(found).splitlines()
        assert [line.split()[0] for line in lines] == list(expected)
        assert lines[0].split()[1] == f"{100 * measured['teacher']:.2f}"
        np.testing.assert_allclose(np.exp(found.ensemble().predict(x)), sum(p[1:]) / 3, rtol=1e-4)
        with_teacher = np.exp(found.ensemble(0, 3).predict(x))
        np.testing.assert_allclose(with_teacher, (p[0] + p[3]) / 2, rtol=1e-4)
        with pytest.raises(InputError) as error:
            found.ensemble(1, 4)
        one_line(error, "generation 4", "0 to 3")

    def test_data_sets(self) -> None:
        x, y = batch(EXAMPLES)
        batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)
        held_out = tf.data.Dataset.from_tensor_slices(VALIDATION).batch(10)
        found = kd.born_again(
            build, 2, batches, epochs=1, teacher=[net(4), net(6)], validation_data=held_out
        )
        assert list(found.accuracies) == ["teacher", "BAN-1", "BAN-2", "Ens*2"]
        assert found.student is found.students[1]
        for number in (1, 2):
            logs = found.history[f"generation{number}"][-1]
            assert found.accuracies[f"BAN-{number}"] == pytest.approx(logs["val_accuracy"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three trainings that nothing disturbs: generations 0, 1, 2, of two epochs each."""
    folder = tmp_path_factory.mktemp("whole")
    return train(build=noisy, directory=folder), folder


def noisy() -> Any:
    return build(dropout=0.3)


@pytest.mark.slow
class TestResuming:
    @pytest.mark.parametrize(
        "epoch",
        [
            pytest.param(2, marks=pytest.mark.slow, id="at the start of 1"),
            pytest.param(3, id="in 1"),
        ],
    )
    def test_cut_off_training_ends_alike(
        self, whole: Any, tmp_path: pathlib.Path, epoch: int
    ) -> None:
        settings: dict = {"build": noisy, "directory": tmp_path}
        with pytest.raises(KeyboardInterrupt):
            train(callbacks=[PullThePlug(epoch)], **settings)
        found = train(**settings)
        for one, other in zip(
            (found.teacher, *found.students), (whole[0].teacher, *whole[0].students), strict=True
        ):
            assert_same(values(one), values(other))
        assert {k: len(v) for k, v in found.history.items()} == dict.fromkeys(found.history, 2)

    def test_finished_generations_are_not_trained_again(self, whole: Any) -> None:
        result, folder = whole
        settings: dict = {"build": noisy, "directory": folder}
        again = train(callbacks=[PullThePlug(0)], **settings)  # would raise in any training
        assert_same(values(again.student), values(result.student))
        assert again.history == result.history
        for number, model in enumerate((result.teacher, *result.students)):
            stored = kd.models.load_model(folder / f"generation{number}" / "model.keras")
            assert_same(values(stored), values(model))

    def test_generations_are_added(self, whole: Any) -> None:
        _, folder = whole
        found = train(3, build=noisy, directory=folder)
        assert len(found.students) == 3
        assert_differ(values(found.students[2]), values(found.students[1]))

    @pytest.mark.parametrize(
        ("changed", "key"),
        [
            ({"epochs": 3}, "epochs"),
            ({"seed": 1}, "seed"),
            ({"label_weight": 0.5}, "label_weight"),
            ({"methods": [kd.SoftTargets(temperature=2.0)]}, "methods"),
            ({"optimizer": lambda: keras.optimizers.SGD(0.25, momentum=0.5)}, "optimizer."),
            ({"teacher": net(6)}, "teacher"),
            ({"build": lambda: build(6)}, "student"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_other_settings_are_refused(self, whole: Any, changed: dict, key: str) -> None:
        settings = {"build": noisy, **changed}
        with pytest.raises(InputError) as error:
            train(directory=whole[1], callbacks=[PullThePlug(0)], **settings)
        one_line(error, str(whole[1]), f"differ: {key}", "name another directory")

    def test_other_data_is_refused(self, whole: Any) -> None:
        x, y = batch(EXAMPLES)
        settings: dict = {"epochs": EPOCHS, "batch_size": 16, "optimizer": sgd}
        with pytest.raises(InputError) as error:
            kd.born_again(noisy, 2, x + 1, y, directory=whole[1], **settings)
        one_line(error, "differ: data")


class TestRefused:
    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"count": 0}, ["generations is 0", "from 1"]),
            ({"build": net(4)}, ["build_student", "function"]),
            ({"build": lambda: keras.Sequential([keras.layers.Dense(3)])}, ["not built", "Input"]),
            ({"variant": "bam"}, ["'bam'", "ban, cwtm, dkpp"]),
            ({"variant": "ban", "methods": []}, ["'ban'", "methods"]),
            ({"epochs": 0}, ["epochs", "0", "from 1"]),
            ({"teacher": net(4, classes=5)}, ["classes", "5", "3"]),
            ({"loss": "sparse_categorical_crossentropy"}, ["probabilities", "from_logits=True"]),
        ],
    )
    def test_before_any_training(self, settings: dict, words: list[str]) -> None:
        with pytest.raises(InputError) as error:
            train(settings.pop("count", 2), callbacks=[PullThePlug(0)], **settings)
        one_line(error, *words)

    def test_no_labels(self) -> None:
        with pytest.raises(InputError) as error:
            kd.born_again(build, 2, batch()[0], epochs=1)
        one_line(error, "labels", "give x and y")


class TestConfig:
    def stage(self, methods: tuple = (), **settings: Any) -> Stage:
        return generations.configured(settings, Stage(methods, label_weight=0.1, epochs=7))

    @pytest.mark.parametrize(
        ("settings", "method", "weight"),
        [
            ({}, "soft_targets", 1.0),
            ({"generations": 2, "variant": "cwtm"}, "confidence_weighted_labels", 0.0),
            ({"variant": "dkpp", "label_weight": 0.5}, "permuted_soft_targets", 0.5),
            ({"methods": (kd.LogitsL2(),)}, "logits_l2", 0.1),
        ],
    )
    def test_the_stage_of_a_generation(self, settings: dict, method: str, weight: float) -> None:
        stage = self.stage(**settings)
        assert [term.name for term in stage.methods] == [method]
        assert (stage.label_weight, stage.epochs) == (weight, 7)

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"generation": 2}, ["'generation'", "generations, variant, label_weight"]),
            ({"generations": 0}, ["generations is 0"]),
            ({"variant": "bam"}, ["'bam'"]),
            ({"variant": "ban", "methods": (kd.LogitsL2(),)}, ["'ban'", "methods of its own"]),
        ],
    )
    def test_refused(self, settings: dict, words: list[str]) -> None:
        with pytest.raises(InputError) as error:
            self.stage(**settings)
        one_line(error, *words)

    def test_a_run(self, tmp_path: pathlib.Path) -> None:
        """The "student" stage of a run, cut off after its first generation."""
        job = tiny_job(tmp_path)
        stage = generations.configured({"generations": 2}, Stage(label_weight=0.1, epochs=1))
        seen = []

        def make(job: Any, stage: Stage, student: Any, teacher: Any) -> Any:
            seen.append((values(student)[0], teacher))
            return stage.make_distiller(student, teacher, 1)

        def fit(job: Any, folder: str, stage: Stage, distiller: Any) -> None:
            if len(seen) == 2:
                raise KeyboardInterrupt
            distiller.student.trainable_variables[-1].assign([float(len(seen)), 0, 0])

        with pytest.raises(KeyboardInterrupt):
            generations.run(job, stage, make, fit)
        generations.run(job, stage, make, fit)
        first, *seconds = seen
        assert len(seconds) == 2
        assert (first[0] != seconds[0][0]).any()
        np.testing.assert_array_equal(seconds[0][0], seconds[1][0])
        stored = kd.models.load_model(tmp_path / "student" / "generation1" / "model.keras")
        assert_same(values(seconds[1][1]), values(stored))
        student = kd.models.load_model(tmp_path / "student" / "model.keras")
        assert values(student)[-1].tolist() == [3, 0, 0]
        assert list(generations.accuracies(job)) == ["teacher", "BAN-1", "BAN-2", "Ens*2"]


def tiny_job(folder: pathlib.Path) -> Any:
    """What `run` reads of a job, with a teacher on disk."""
    network = {"model": "mlp-4", "options": {}, "path": ""}
    config = ConfigDict(
        {
            "seed": 0,
            "data": {"batch_size": 8},
            "teacher": {**network, "members": {}, "class_map": (), "cache": {"views": 0}},
            "student": network,
            "distillation": {"born_again": {"generations": 2}},
        }
    )
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1), dtype=np.uint8)
    job = types.SimpleNamespace(
        config=config,
        workdir=Workdir(folder),
        strategy=tf.distribute.get_strategy(),
        dataset=types.SimpleNamespace(test=kd.data.Split(images, np.arange(20) % 3)),
        normalization=kd.data.Normalization((0.5,), (0.5,)),
        classes=3,
        input_shape=(4, 4, 1),
    )
    networks.save(job, networks.build(job, config.teacher, seed=9), "teacher")
    return job
