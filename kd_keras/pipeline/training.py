"""The stages that train: teacher, student alone, distilled student, compressed student."""

from typing import Any

import tensorflow as tf
from ml_collections import ConfigDict

from kd_keras import methods, models
from kd_keras.adversarial import AdversarialDistiller
from kd_keras.compression import pruning, quantization
from kd_keras.distiller import Distiller
from kd_keras.errors import InputError
from kd_keras.pipeline import fitting
from kd_keras.pipeline.config import expanded
from kd_keras.pipeline.job import Job
from kd_keras.pipeline.workdir import replacing

MODEL = "model.keras"
QUANTIZED_MODEL = "model.h5"
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine")
_ADVERSARIAL = (
    *("teacher_layer", "student_layer", "regularizer", "regularizer_weight"),
    *("adversarial_weight", "dropout", "discriminator_learning_rate"),
)


def check(job: Job) -> None:
    """Build what the run will train, so that a wrong name is told before hours of training.

    Raises:
        InputError: For what cannot be built or does not fit together.
    """
    teacher, student = build(job, "teacher"), build(job, "student")
    make_distiller(job, student, teacher)
    for role in ("teacher", "student"):
        make_optimizer(job, job.config[role].optimizer, epochs=1)


def train_teacher(job: Job) -> None:
    """The teacher, trained on labels, or loaded from a file."""
    settings = job.config.teacher
    with job.strategy.scope():
        teacher = build(job, "teacher")
        if not settings.path:
            _train_on_labels(job, teacher, "teacher", settings)
    _save(job, teacher, "teacher")


def train_student_alone(job: Job) -> None:
    """The student with labels only: the baseline."""
    with job.strategy.scope():
        student = build(job, "student")
        _train_on_labels(job, student, "student_alone", job.config.student)
    _save(job, student, "student_alone")


def distil(job: Job) -> None:
    """The same student, from the same start, with the config's methods."""
    settings = job.config.student
    with job.strategy.scope():
        distiller = make_distiller(job, build(job, "student"), load(job, "teacher"))
        optimizer = make_optimizer(job, settings.optimizer, settings.epochs)
        _train_distiller(job, distiller, "student", optimizer, settings.epochs)
    _save(job, distiller.student, "student")


def compress(job: Job) -> None:
    """The distilled student pruned, then quantized with its zeros kept, distilled throughout."""
    with job.strategy.scope():
        pruned = _prune(job, load(job, "student"), load(job, "teacher"))
        quantized = _quantize(job, pruned, load(job, "teacher"))
    path = job.workdir.scratch("student_compressed", QUANTIZED_MODEL)
    quantization.save(quantized, path)


def load(job: Job, stage: str) -> Any:
    """The model that a stage has made."""
    if stage == "student_compressed":
        return quantization.load(job.workdir.path(stage, QUANTIZED_MODEL))
    return models.load_model(job.workdir.path(stage, MODEL))


def build(job: Job, role: str) -> Any:
    """The config's teacher or student before training, or the teacher of a file.

    The seed is set anew, so that every stage starts the same student from the same weights.
    """
    settings = job.config[role]
    path = expanded(settings.get("path", ""))
    tf.keras.utils.set_random_seed(job.config.seed)
    if path and not settings.model:
        return models.load_model(path)
    options = settings.options.to_dict()
    model = models.build(
        settings.model, classes=job.classes, input_shape=job.input_shape, **options
    )
    if path:
        models.load_weights(model, path)
    return model


def make_distiller(job: Job, student: Any, teacher: Any) -> Distiller:
    """The config's distiller, not compiled.

    The seed is set anew, so that a discriminator does not depend on what the process did before.
    """
    tf.keras.utils.set_random_seed(job.config.seed)
    settings = job.config.distillation
    terms = methods.build(settings.methods.to_dict())
    adversarial = settings.adversarial.to_dict()
    if not adversarial:
        return Distiller(student, teacher, terms, settings.label_weight)
    unknown = sorted(set(adversarial) - set(_ADVERSARIAL))
    if unknown:
        raise InputError(
            f"config.distillation.adversarial has no key {unknown[0]!r}; it has: "
            f"{', '.join(_ADVERSARIAL)}"
        )
    adversarial.pop("discriminator_learning_rate", None)
    return AdversarialDistiller(
        student, teacher, terms, settings.label_weight, seed=job.config.seed, **adversarial
    )


def make_optimizer(job: Job, settings: ConfigDict, epochs: int) -> Any:
    """The optimizer of a config section, its schedule laid over the epochs.

    Raises:
        InputError: For an unknown optimizer or schedule.
    """
    if settings.name not in OPTIMIZERS:
        raise InputError(
            f"optimizer {settings.name!r} does not exist; there are: {', '.join(OPTIMIZERS)}"
        )
    if settings.schedule not in SCHEDULES:
        raise InputError(
            f"schedule {settings.schedule!r} does not exist; there are: {', '.join(SCHEDULES)}"
        )
    rate: Any = settings.learning_rate
    if settings.schedule == "cosine":
        warmup = int(settings.warmup_epochs * job.steps_per_epoch)
        rate = tf.keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else rate,
            decay_steps=max(1, epochs * job.steps_per_epoch - warmup),
            warmup_target=rate if warmup else None,
            warmup_steps=warmup,
        )
    decay = settings.weight_decay or None
    if settings.name == "sgd":
        momentum = settings.momentum
        return tf.keras.optimizers.SGD(rate, momentum, nesterov=momentum > 0, weight_decay=decay)
    if settings.name == "adam":
        return tf.keras.optimizers.Adam(rate, weight_decay=decay)
    return tf.keras.optimizers.AdamW(rate, weight_decay=decay or 0.0)


def _train_on_labels(job: Job, model: Any, stage: str, settings: ConfigDict) -> None:
    optimizer = make_optimizer(job, settings.optimizer, settings.epochs)
    model.compile(optimizer=optimizer, loss=job.label_loss(), metrics=["accuracy"])
    _fit(job, model, stage, settings.epochs)


def _train_distiller(
    job: Job, distiller: Distiller, stage: str, optimizer: Any, epochs: int, callbacks: tuple = ()
) -> None:
    extra = {}
    if isinstance(distiller, AdversarialDistiller):
        rate = job.config.distillation.adversarial.get("discriminator_learning_rate", 1e-3)
        extra["discriminator_optimizer"] = tf.keras.optimizers.Adam(rate)
    distiller.compile(
        optimizer=optimizer,
        loss=job.label_loss(),
        metrics=["accuracy"],
        teacher_accuracy=True,
        **extra,
    )
    _fit(job, distiller, stage, epochs, callbacks)


def _fit(job: Job, model: Any, stage: str, epochs: int, callbacks: tuple = ()) -> None:
    fitting.fit(
        model,
        job.workdir,
        stage,
        batches=lambda first: job.training_batches(first, epochs),
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
    distiller = make_distiller(job, pruned, teacher)
    optimizer = tf.keras.optimizers.Adam(settings.learning_rate)
    _train_distiller(
        job,
        distiller,
        "student_compressed/pruned",
        optimizer,
        settings.pruning_epochs,
        tuple(pruning.callbacks(pruned)),
    )
    return pruning.finish(pruned)


def _quantize(job: Job, pruned: Any, teacher: Any) -> Any:
    settings = job.config.compression
    train = job.dataset.train
    calibration = job.normalization.apply(train.images[: settings.calibration_examples])
    quantized = quantization.apply(pruned, keep_zeros=True, calibration=calibration)
    distiller = make_distiller(job, quantized, teacher)
    optimizer = make_optimizer(
        job,
        ConfigDict({**job.config.student.optimizer, "learning_rate": settings.learning_rate}),
        settings.quantization_epochs,
    )
    _train_distiller(
        job, distiller, "student_compressed/quantized", optimizer, settings.quantization_epochs
    )
    return quantization.finish(quantized)


def _save(job: Job, model: Any, stage: str) -> None:
    path = job.workdir.scratch(stage, MODEL)
    with replacing(path) as temporary:
        model.save(temporary)
