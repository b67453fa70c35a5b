"""Born-again networks (Furlanello et al. 2018): every student teaches the next of its kind."""

import contextlib
import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from kd_keras import schedules
from kd_keras.data.views import Views
from kd_keras.distiller import Distiller
from kd_keras.errors import InputError
from kd_keras.labels import LabelLoss
from kd_keras.methods.base import Method
from kd_keras.pipeline import batches, fitting, numerals, provenance
from kd_keras.pipeline.generations import (
    check_count,
    compare,
    ensemble,
    kept,
    name_of,
    train_generations,
    variant_terms,
)
from kd_keras.pipeline.staged import Stage
from kd_keras.pipeline.workdir import Workdir, read_json
from kd_keras.schedules import Scheduled
from kd_keras.teachers import Ensemble, Teacher, evaluation


@dataclasses.dataclass(frozen=True)
class BornAgain:
    """The generations of a born-again network.

    Attributes:
        teacher: Generation 0, as it was given, or trained on labels alone.
        students: Generation 1 to the last.
        accuracies: On the validation data, by name: "teacher", "BAN-1" for generation 1 and so on,
            then "Ens*2" for the ensemble of generations 1 and 2 and so on; empty without such data.
        history: The logs of each epoch, by the folder of the generation, "generation1", ...
        from_logits: Whether the models give logits.
    """

    teacher: Any
    students: tuple[Any, ...]
    accuracies: Mapping[str, float] = dataclasses.field(default_factory=dict)
    history: Mapping[str, list[dict[str, float]]] = dataclasses.field(default_factory=dict)
    from_logits: bool = True

    @property
    def student(self) -> Any:
        """The last generation."""
        return self.students[-1]

    def ensemble(self, *generations: int) -> Ensemble:
        """The ensemble of some generations, the mean of their softmax outputs.

        Args:
            *generations: Their numbers, 0 for the teacher; all the students, if none is given. The
                paper has one `Ens*3` with the teacher, which is `ensemble(0, 1, 2)`.

        Raises:
            InputError: For a number that there is not, and fewer than two.
        """
        numbers = generations or range(1, len(self.students) + 1)
        known = dict(enumerate((self.teacher, *self.students)))
        wrong = [number for number in numbers if number not in known]
        if wrong:
            raise InputError(
                f"generation {wrong[0]} does not exist; there are 0 to {len(known) - 1}"
            )
        members = {name_of(number): known[number] for number in numbers}
        return ensemble(members, self.from_logits)

    def table(self) -> str:
        """The accuracies, one a line, for a person."""
        if not self.accuracies:
            count = len(self.students)
            return f"{count} generations; without validation data, nothing is known of them"
        width = max(map(len, self.accuracies))
        figures = {name: numerals.percent(value) for name, value in self.accuracies.items()}
        return "\n".join(f"{name.ljust(width)}  {figure:>7}" for name, figure in figures.items())

    def __str__(self) -> str:
        return self.table()


def born_again(
    build_student: Callable[[], Any],
    generations: int = 3,
    x: Any = None,
    y: Any = None,
    *,
    teacher: Any = None,
    epochs: int,
    batch_size: int = 32,
    optimizer: Any = "adam",
    loss: Any = None,
    metrics: Sequence[Any] = ("accuracy",),
    validation_data: Any = None,
    variant: str | None = None,
    methods: Sequence[Method] | None = None,
    label_weight: Scheduled | None = None,
    from_logits: bool = True,
    directory: str | os.PathLike | None = None,
    seed: int = 0,
    callbacks: Sequence[Any] = (),
) -> BornAgain:
    """Train a network again and again, each time under the one before.

    Generation k starts anew, from the seed `seed + k`, and minimises

        CE(y, p_k) + CE(p_(k-1), p_k)

    with the softmax outputs `p` at temperature 1 and the frozen generation k-1 as its teacher.
    The network need not become smaller: what is gained is accuracy, for the price of as many
    trainings; on CIFAR-100 a DenseNet-112-33 went from 18.25 % errors to 17.61, 17.22 and 16.59.
    The ensemble of the first k generations, `Ens*k`, is the mean of their softmax outputs; there,
    `Ens*2` had 15.77 % errors and `Ens*3` 15.68.

    Args:
        build_student: Function without arguments that builds the network, its weights drawn anew.
        generations: How many students, at least 1.
        x: Inputs, or a `tf.data.Dataset` of batches `(x, y)`.
        y: Labels, if x is an array.
        teacher: Generation 0: a trained model, or anything that `Distiller` takes. By default it is
            a network of `build_student` too, trained on labels alone.
        epochs: Epochs of each generation.
        batch_size: The batch, for arrays.
        optimizer: A name, an optimizer, of which each generation gets a copy as it is, or a
            function without arguments that makes one.
        loss: The label loss; by default, sparse categorical cross-entropy.
        metrics: Metrics of the student's output.
        validation_data: `(x, y)` or a `tf.data.Dataset`: seen after every epoch, and what the
            generations and their ensembles are compared on.
        variant: "ban", the default; "cwtm": the labels alone, weighted by the teacher's confidence;
            "dkpp": the teacher's distribution alone, its wrong classes permuted.
        methods: The terms beside the label loss, in the place of a variant's.
        label_weight: Factor of the label loss; by default as the variant says (1 for "ban", 0 for
            the others), and 1 for `methods`. 0 leaves the labels out.
        from_logits: Whether the networks give logits; see `Distiller`.
        directory: Where each generation is kept, `generation1/model.keras` and so on, with a
            checkpoint after every epoch. The same call goes on where it was killed, and ends with
            the same weights; with more `generations`, it adds to those that are there.
        seed: Of weights, orders and dropout. The global seed is set with it.
        callbacks: Keras callbacks, given to the training of each generation.

    Raises:
        InputError: Before any training, if the models and methods do not fit, or the directory was
            made with other arguments.

    Example:
        >>> import numpy as np, kd_keras as kd
        >>> def build():
        ...     layers = [tf.keras.layers.Dense(8, "relu"), tf.keras.layers.Dense(3)]
        ...     return tf.keras.Sequential([tf.keras.Input((4,)), *layers])
        >>> x, y = np.random.normal(size=(64, 4)).astype("float32"), np.arange(64) % 3
        >>> found = kd.born_again(build, 2, x, y, epochs=1, validation_data=(x, y))
        >>> list(found.accuracies)
        ['teacher', 'BAN-1', 'BAN-2', 'Ens*2']

    Source: Furlanello, Lipton, Tschannen, Itti, Anandkumar 2018, "Born-Again Neural Networks",
    sections 3.1 (the sequence and its ensembles) and 3.3 (CWTM, DKPP). There, DKPP and CWTM have no
    other label loss.
    """
    _check_arguments(build_student, generations, x, y)
    stage = Stage(
        **_terms(variant, methods, label_weight),
        epochs=epochs,
        optimizer=_fresh(optimizer),
        distiller=functools.partial(Distiller, from_logits=from_logits),
    )
    loss = loss or tf.keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    LabelLoss(loss, from_logits=from_logits)  # refuses one that does not fit
    if getattr(teacher, "is_recorded", False):
        raise InputError(
            "the teacher's outputs are recorded, and the generations are compared with the teacher "
            "on other data: give the teacher itself"
        )
    data = _Data(x, y, batch_size, validation_data)
    with contextlib.ExitStack() as stack:
        folder = directory or stack.enter_context(tempfile.TemporaryDirectory(prefix="kd-again-"))
        workdir = Workdir(folder)
        stack.enter_context(workdir.locked())
        training = _Training(
            build_student, stage, data, loss, list(metrics), tuple(callbacks), seed, workdir
        )
        training.check(teacher)
        training.adopt(teacher, from_logits=from_logits)
        if teacher is None:
            teacher = kept(workdir, "generation0", training.alone)
        students = train_generations(generations, teacher, workdir, training.under)
        history = _histories(workdir, generations)
    measured = {}
    if validation_data is not None:
        measured = compare(teacher, students, data.accuracy, from_logits=from_logits)
    return BornAgain(teacher, tuple(students), measured, history, from_logits)


@dataclasses.dataclass(frozen=True)
class _Data:
    """What all generations are trained and compared on."""

    x: Any
    y: Any
    batch_size: int
    validation: Any

    def batches(self, seed: int) -> tuple[batches.EpochBatches, int]:
        return batches.of(self.x, self.y, batch_size=self.batch_size, seed=seed)

    def accuracy(self, teacher: Teacher) -> float:
        if isinstance(self.validation, tf.data.Dataset):
            return evaluation.accuracy(teacher, self.validation)
        return evaluation.accuracy(teacher, *self.validation[:2])


@dataclasses.dataclass(frozen=True)
class _Training:
    """How one generation is trained."""

    build_student: Callable[[], Any]
    stage: Stage
    data: _Data
    loss: Any
    metrics: list
    callbacks: tuple
    seed: int
    workdir: Workdir

    def build(self, number: int) -> Any:
        """The student of a generation before training."""
        tf.keras.utils.set_random_seed(self.seed + number)
        with fitting.resettable_noise():
            student = self.build_student()
        if not getattr(student, "built", False):
            raise InputError(
                "build_student gave a model that is not built: give it a tf.keras.Input, so that "
                "its weights are there before the first batch"
            )
        return student

    def check(self, teacher: Any) -> None:
        """Make what will be trained, so that a wrong name is told before hours of training."""
        _, steps = self.data.batches(self.seed)
        first = self.build(0) if teacher is None else teacher
        self.stage.make_distiller(self.build(1), first, steps)

    def adopt(self, teacher: Any, *, from_logits: bool) -> None:
        """Refuse a directory in which something else was trained."""
        rest = {
            "batch_size": self.data.batch_size,
            "seed": self.seed,
            "from_logits": from_logits,
            "loss": self.loss,
            "data": [self.data.x, self.data.y],
            "teacher": teacher,
            "student": self.build(1),
        }
        provenance.adopt(self.workdir, {**provenance.of_stage(self.stage), **rest})

    def alone(self) -> Any:
        """Generation 0, on labels alone."""
        model = self.build(0)
        model.compile(self.stage.make_optimizer(), self.loss, metrics=self.metrics)
        self._fit(model, 0, "generation0")
        return model

    def under(self, number: int, teacher: Any, folder: str) -> Any:
        """A later generation, under the one before."""
        _, steps = self.data.batches(self.seed)
        distiller = self.stage.make_distiller(self.build(number), teacher, steps)
        distiller.compile(loss=self.loss, metrics=self.metrics, **self.stage.compile_arguments())
        self._fit(distiller, number, folder)
        return distiller.student

    def _fit(self, model: Any, number: int, folder: str) -> None:
        epoch_batches, steps = self.data.batches(self.seed + number)
        fitting.fit(
            model,
            self.workdir,
            folder,
            batches=epoch_batches,
            steps_per_epoch=steps,
            validation=self.data.validation,
            epochs=self.stage.epochs,
            seed=self.seed + number,
            callbacks=self.callbacks,
        )


def _terms(
    variant: str | None, methods: Sequence[Method] | None, label_weight: Scheduled | None
) -> dict[str, Any]:
    """The methods and the label weight of a generation's stage."""
    if methods is not None and variant is not None:
        raise InputError(f"variant {variant!r} is given beside methods: leave one of them out")
    terms, weight = variant_terms(variant or "ban") if methods is None else (list(methods), 1.0)
    chosen = weight if label_weight is None else schedules.get(label_weight)
    return {"methods": terms, "label_weight": chosen}


def _fresh(optimizer: Any) -> Callable[[], Any]:
    """A function that makes a new optimizer, like the one that is given."""
    if callable(optimizer):
        return optimizer
    made = tf.keras.optimizers.get(optimizer)
    return lambda: type(made).from_config(made.get_config())


def _check_arguments(build_student: Any, generations: Any, x: Any, y: Any) -> None:
    if not callable(build_student) or isinstance(build_student, tf.keras.Model):
        raise InputError(
            f"build_student is a {type(build_student).__name__}; give a function that builds a new "
            "student, such as lambda: kd.models.build('resnet20', ...)"
        )
    check_count(generations)
    brings_labels = isinstance(x, tf.data.Dataset) or (isinstance(x, Views) and x.y is not None)
    if x is None or (y is None and not brings_labels):
        raise InputError(
            "born-again networks learn from labels: give x and y, or Views or a tf.data.Dataset as "
            "x (label_weight=0 leaves the labels out of the loss)"
        )


def _histories(workdir: Workdir, generations: int) -> dict[str, list[dict[str, float]]]:
    folders = [f"generation{number}" for number in range(generations + 1)]
    paths = {folder: workdir.path(folder, "history.json") for folder in folders}
    return {folder: read_json(path) for folder, path in paths.items() if path.exists()}
