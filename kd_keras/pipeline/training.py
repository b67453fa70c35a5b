"""The stages that train: teacher, student alone, distilled student, compressed student."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from kd_keras.compression import pruning, quantization
from kd_keras.distiller import Distiller
from kd_keras.errors import InputError
from kd_keras.pipeline import (
    distillation,
    fitting,
    generations,
    networks,
    optimizers,
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
    optimizers.make(job, job.config.teacher.optimizer, epochs=1)


def train_teacher(job: Job) -> None:
    """The teacher, or each of its members, trained on labels or loaded from a file."""
    for number, (folder, settings) in enumerate(teaching.settings(job).items()):
        with job.strategy.scope():
            model = teaching.build_member(job, settings, job.config.seed + number)
            if not settings.path:
                _train_on_labels(job, model, folder, settings)
        teaching.save(job, model, folder, settings.path)


def train_student_alone(job: Job) -> None:
    """The student with labels only: the baseline."""
    with job.strategy.scope():
        student = build_student(job)
        _train_on_labels(job, student, "student_alone", job.config.student)
    networks.save(job, student, "student_alone")


def distil(job: Job) -> None:
    """The same student, from the same start, through the config's stages or generations."""
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
    """The distilled student pruned, then quantized with its zeros kept, distilled throughout."""
    with job.strategy.scope():
        teacher = teaching.load_for_training(job)
        pruned = _prune(job, networks.load(job, "student"), teacher)
        quantized = _quantize(job, pruned, teacher)
    path = job.workdir.scratch("student_compressed", networks.QUANTIZED_MODEL)
    quantization.save(quantized, path)


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
    any_logits = np.eye(job.classes)
    return [stage.fitted_to(lambda: any_logits) for stage in distillation.stages(job)]


def _fitted(job: Job, stages: list[Stage]) -> list[Stage]:
    """The stages with what their methods have to know of the teacher's logits."""

    @functools.cache
    def teacher_logits() -> Any:
        teacher = teaching.load(job)
        if teacher.is_recorded:
            size = job.config.data.batch_size
            batches = teacher.batches(job.views, batch_size=size, epochs=1, drop_remainder=False)
            return evaluation.mean_logits(teacher, batches)
        return evaluation.mean_logits(teacher, job.batches_in_order(job.dataset.train))

    return [stage.fitted_to(teacher_logits) for stage in stages]


def build_student(job: Job) -> Any:
    """The config's student before training."""
    return networks.build(job, job.config.student, job.config.seed)


def make_distiller(job: Job, stage: Stage, student: Any, teacher: Any) -> Distiller:
    """The distiller of a stage, not compiled.

    The seed is set anew, so that a discriminator does not depend on what the process did before.
    """
    tf.keras.utils.set_random_seed(job.config.seed)
    return stage.make_distiller(student, teacher, job.steps_per_epoch)


def _train_on_labels(job: Job, model: Any, stage: str, settings: ConfigDict) -> None:
    optimizer = optimizers.make(job, settings.optimizer, settings.epochs)
    model.compile(optimizer=optimizer, loss=job.label_loss(), metrics=["accuracy"])
    _fit(job, model, stage, settings.epochs, job.views.batches)


def fit_distiller(
    job: Job, name: str, stage: Stage, distiller: Distiller, callbacks: tuple = ()
) -> list[dict[str, float]]:
    """Train a distiller as its stage says; what it did before is kept in the folder `name`."""
    distiller.compile(
        stage.make_optimizer(), job.label_loss(), metrics=["accuracy"], **stage.compile
    )
    teacher = as_teacher(distiller.teacher)
    batches = functools.partial(teacher.batches, job.taught_views)
    return _fit(job, distiller, name, stage.epochs, batches, callbacks)


def _fit(
    job: Job,
    model: Any,
    stage: str,
    epochs: int,
    batches: Callable[..., Any],
    callbacks: tuple = (),
) -> list[dict[str, float]]:
    size = job.config.data.batch_size
    return fitting.fit(
        model,
        job.workdir,
        stage,
        batches=lambda first: batches(batch_size=size, epochs=epochs, first_epoch=first),
        steps_per_epoch=job.steps_per_epoch,
        validation=job.validation_batches(),
        epochs=epochs,
        seed=job.config.seed,
        callbacks=callbacks,
    )


def _prune(job: Job, student: Any, teacher: Any) -> Any:
    settings = job.config.compression
    steps = settings.pruning_epochs * job.steps_per_epoch
    # The last quarter trains at the final sparsity, so that the student can recover.
    last = max(1, steps * 3 // 4)
    pruned = pruning.apply(
        student,
        sparsity=settings.sparsity,
        begin_step=0,
        end_step=last,
        frequency=max(1, last // 20),
    )
    stage = dataclasses.replace(
        _fitted(job, distillation.stages(job))[-1],
        epochs=settings.pruning_epochs,
        trainable=None,
        optimizer=lambda: tf.keras.optimizers.Adam(settings.learning_rate),
    )
    distiller = make_distiller(job, stage, pruned, teacher)
    callbacks = tuple(pruning.callbacks(pruned))
    fit_distiller(job, "student_compressed/pruned", stage, distiller, callbacks)
    return pruning.finish(pruned)


def _quantize(job: Job, pruned: Any, teacher: Any) -> Any:
    settings = job.config.compression
    train = job.dataset.train
    calibration = job.normalization.apply(train.images[: settings.calibration_examples])
    quantized = quantization.apply(pruned, keep_zeros=True, calibration=calibration)
    optimizer = ConfigDict(
        {**job.config.student.optimizer, "learning_rate": settings.learning_rate}
    )
    stage = dataclasses.replace(
        _fitted(job, distillation.stages(job))[-1],
        epochs=settings.quantization_epochs,
        trainable=None,
    )
    stage = distillation.with_optimizer(job, stage, optimizer)
    distiller = make_distiller(job, stage, quantized, teacher)
    fit_distiller(job, "student_compressed/quantized", stage, distiller)
    return quantization.finish(quantized)
