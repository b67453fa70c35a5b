"""The stages that train: teacher, student alone, distilled student, compressed student."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from kd_keras import data
from kd_keras.compression import order
from kd_keras.distiller import Distiller
from kd_keras.errors import InputError
from kd_keras.pipeline import (
    compressing,
    distillation,
    fitting,
    generations,
    networks,
    optimizers,
    precision,
    staged,
    teaching,
)
from kd_keras.pipeline.job import Job
from kd_keras.pipeline.staged import Stage
from kd_keras.teachers import Teacher, as_teacher, evaluation
from kd_keras.teachers.record_layout import RecordLayout


def check(job: Job) -> None:
    """Build what the run will train, so that a wrong name is told before hours of training.

    Raises:
        InputError: For what cannot be built or does not fit together.
    """
    teacher, student = teaching.build(job), build_student(job)
    _check_recorded(job, teacher)
    stages = fitted_to_any(job)
    staged.check(student, stages, lambda stage: make_distiller(job, stage, student, teacher))
    for stage in stages:
        stage.make_optimizer()
    optimizers.make(job.config.teacher.optimizer, epochs=1, steps_per_epoch=1)
    for stage, changed in compressing.untrained(job, student):
        make_distiller(job, stage.fitted_to(_any_logits(job)), changed, teacher)


def train_teacher(job: Job) -> None:
    """The teacher, or each of its members, trained on labels or loaded from a file."""
    for number, (folder, settings) in enumerate(teaching.settings(job).items()):
        with job.strategy.scope():
            model = teaching.build_member(job, settings, job.config.seed + number)
            if not settings.path:
                _train_on_labels(job, model, folder, settings, job.teacher_views)
        teaching.save(job, model, folder, settings.path)


def train_student_alone(job: Job) -> None:
    """The student with labels only: the baseline."""
    with job.strategy.scope():
        student = build_student(job)
        _train_on_labels(job, student, "student_alone", job.config.student, job.views)
    networks.save(job, student, "student_alone")


def distil(job: Job) -> None:
    """The same student, from the same start, through the config's stages or generations.

    Where nothing is distilled it is the student alone.
    """
    if distillation.labels_only(job):
        networks.save(job, networks.load(job, "student_alone"), "student")
        return
    if job.config.distillation.born_again:
        [stage] = _fitted(job, distillation.stages(job))
        generations.run(job, stage, make_distiller, fit_distiller)
        return
    with job.strategy.scope():
        student, teacher = build_student(job), teaching.load_for_training(job)
        staged.run(
            student,
            _fitted(job, distillation.stages(job)),
            make=lambda stage: make_distiller(job, stage, student, teacher),
            fit=lambda name, stage, distiller: fit_distiller(
                job, f"student/{name}" if stage.name else "student", stage, distiller
            ),
        )
    networks.save(job, student, "student")


def compress(job: Job) -> None:
    """The distilled student through the config's techniques, distilled throughout."""
    with job.strategy.scope():
        student = networks.load(job, "student")
        steps = compressing.steps(job)
        teacher = teaching.load_for_training(job) if any(step.stage for step in steps) else None
        for step in steps:
            student = _compress(job, step, student, teacher)
    networks.save(job, student, "student_compressed")


def _compress(job: Job, step: compressing.Step, student: Any, teacher: Any) -> Any:
    """One technique; what it made before is taken from its folder."""
    folder = f"student_compressed/{step.name}"
    if networks.exists(job, folder):
        return networks.load(job, folder)
    changed = _changed(job, step, student)
    if step.stage is not None:
        [stage] = _fitted(job, [step.stage])
        distiller = make_distiller(job, stage, changed, teacher)
        fit_distiller(job, folder, stage, distiller, tuple(step.module.callbacks(changed)))
    finished = step.module.finish(changed)
    networks.save(job, finished, folder)
    return finished


def _changed(job: Job, step: compressing.Step, student: Any) -> Any:
    """What a technique makes of a student before training.

    New layers are kept: a measured goal, or tensorly, may choose others when asked again.
    """
    folder = f"student_compressed/{step.name}/untrained"
    if networks.exists(job, folder):
        return networks.load(job, folder)
    tf.keras.utils.set_random_seed(job.config.seed)
    changed = step.apply(job, student)
    if not order.is_trained_in(step.technique):
        networks.save(job, changed, folder)
    return changed


def _check_recorded(job: Job, teacher: Teacher) -> None:
    """Refuse what cannot be cached, and predictions that the run cannot use."""
    if job.config.teacher.cache.views:
        own = job.config.teacher.cache
        RecordLayout(job.classes, own.dtype, own.top_k or None)
        teacher.fingerprint()
        job.taught_views.identity  # noqa: B018 - it refuses views that no cache can hold
    if teacher.is_recorded:
        teacher.batches(job.taught_views, batch_size=job.config.data.batch_size, epochs=1)
        if job.config.teacher.cache.views or job.config.distillation.born_again:
            raise InputError(
                f"config.teacher.path {job.config.teacher.path!r} holds predictions for the "
                "training images only: leave teacher.cache and distillation.born_again out"
            )


def fitted_to_any(job: Job) -> list[Stage]:
    """The stages as far as they are known without the teacher's logits, for checks."""
    return [stage.fitted_to(_any_logits(job)) for stage in distillation.stages(job)]


def _any_logits(job: Job) -> Callable[[], Any]:
    return lambda: np.eye(job.classes)


def _fitted(job: Job, stages: list[Stage]) -> list[Stage]:
    """The stages with what their methods have to know of the teacher's logits."""

    @functools.cache
    def teacher_logits() -> Any:
        teacher = teaching.load(job)
        if teacher.is_recorded:
            size = job.config.data.batch_size
            batches = teacher.batches(job.views, batch_size=size, epochs=1, drop_remainder=False)
            return evaluation.mean_logits(teacher, batches)
        return evaluation.mean_logits(teacher, _in_order(job))

    return [stage.fitted_to(teacher_logits) for stage in stages]


def _in_order(job: Job) -> Any:
    """The transfer set's batches without augmentation, each example once."""
    size = job.config.data.batch_size
    return job.plain_views.batches(batch_size=size, epochs=1, shuffle=False, drop_remainder=False)


def build_student(job: Job) -> Any:
    """The config's student before training."""
    return networks.build(job, job.config.student, job.config.seed)


def make_distiller(job: Job, stage: Stage, student: Any, teacher: Any) -> Distiller:
    """The distiller of a stage, not compiled.

    The seed is set anew, so that a discriminator does not depend on what the process did before.
    """
    tf.keras.utils.set_random_seed(job.config.seed)
    return stage.make_distiller(student, teacher, job.steps_per_epoch)


def _train_on_labels(
    job: Job, model: Any, stage: str, settings: ConfigDict, views: data.Views
) -> None:
    steps = views.steps(job.config.data.batch_size)
    optimizer = optimizers.make(settings.optimizer, epochs=settings.epochs, steps_per_epoch=steps)
    model.compile(optimizer=optimizer, loss=job.label_loss(views), metrics=["accuracy"])
    _fit(job, model, stage, settings.epochs, views)


def fit_distiller(
    job: Job, name: str, stage: Stage, distiller: Distiller, callbacks: tuple = ()
) -> list[dict[str, float]]:
    """Train a distiller as its stage says; what it did before is kept in the folder `name`."""
    distiller.compile(
        loss=job.label_loss(job.taught_views), metrics=["accuracy"], **stage.compile_arguments()
    )
    watchers = () if stage.reads_layers_only else job.watch(name)
    teacher = as_teacher(distiller.teacher)
    return _fit(
        *(job, distiller, name, stage.epochs, job.taught_views, teacher), callbacks, watchers
    )


def _fit(
    job: Job,
    model: Any,
    stage: str,
    epochs: int,
    views: data.Views,
    teacher: Teacher | None = None,
    callbacks: tuple = (),
    watchers: tuple = (),
) -> list[dict[str, float]]:
    size = job.config.data.batch_size
    read = views.batches if teacher is None else functools.partial(teacher.batches, views)
    with precision.computing_in(job.config.precision):
        return fitting.fit(
            model,
            job.workdir,
            stage,
            batches=lambda first: read(batch_size=size, epochs=epochs, first_epoch=first),
            steps_per_epoch=views.steps(size),
            validation=job.validation_batches(views),
            epochs=epochs,
            seed=job.config.seed,
            callbacks=callbacks,
            watchers=watchers,
        )
