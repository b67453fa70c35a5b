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
from kd_keras.pipeline.run import Run
from kd_keras.pipeline.workdir import replacing

MODEL = "model.keras"
QUANTIZED_MODEL = "model.h5"
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine")
_ADVERSARIAL = (
    *("teacher_layer", "student_layer", "regularizer", "regularizer_weight"),
    *("adversarial_weight", "dropout", "discriminator_learning_rate"),
)


def check(run: Run) -> None:
    """Build what the run will train, so that a wrong name is told before hours of training.

    Raises:
        InputError: For what cannot be built or does not fit together.
    """
    teacher, student = build(run, "teacher"), build(run, "student")
    make_distiller(run, student, teacher)
    for role in ("teacher", "student"):
        make_optimizer(run, run.config[role].optimizer, epochs=1)


def train_teacher(run: Run) -> None:
    """The teacher, trained on labels, or loaded from a file."""
    settings = run.config.teacher
    with run.strategy.scope():
        teacher = build(run, "teacher")
        if not settings.path:
            _train_on_labels(run, teacher, "teacher", settings)
    _save(run, teacher, "teacher")


def train_student_alone(run: Run) -> None:
    """The student with labels only: the baseline."""
    with run.strategy.scope():
        student = build(run, "student")
        _train_on_labels(run, student, "student_alone", run.config.student)
    _save(run, student, "student_alone")


def distil(run: Run) -> None:
    """The same student, from the same start, with the config's methods."""
    settings = run.config.student
    with run.strategy.scope():
        distiller = make_distiller(run, build(run, "student"), load(run, "teacher"))
        optimizer = make_optimizer(run, settings.optimizer, settings.epochs)
        _train_distiller(run, distiller, "student", optimizer, settings.epochs)
    _save(run, distiller.student, "student")


def compress(run: Run) -> None:
    """The distilled student pruned, then quantized with its zeros kept, distilled throughout."""
    with run.strategy.scope():
        pruned = _prune(run, load(run, "student"), load(run, "teacher"))
        quantized = _quantize(run, pruned, load(run, "teacher"))
    path = run.workdir.scratch("student_compressed", QUANTIZED_MODEL)
    quantization.save(quantized, path)


def load(run: Run, stage: str) -> Any:
    """The model that a stage has made."""
    if stage == "student_compressed":
        return quantization.load(run.workdir.path(stage, QUANTIZED_MODEL))
    return models.load_model(run.workdir.path(stage, MODEL))


def build(run: Run, role: str) -> Any:
    """The config's teacher or student before training, or the teacher of a file.

    The seed is set anew, so that every stage starts the same student from the same weights.
    """
    settings = run.config[role]
    path = expanded(settings.get("path", ""))
    tf.keras.utils.set_random_seed(run.config.seed)
    if path and not settings.model:
        return models.load_model(path)
    options = settings.options.to_dict()
    model = models.build(
        settings.model, classes=run.classes, input_shape=run.input_shape, **options
    )
    if path:
        models.load_weights(model, path)
    return model


def make_distiller(run: Run, student: Any, teacher: Any) -> Distiller:
    """The config's distiller, not compiled.

    The seed is set anew, so that a discriminator does not depend on what the process did before.
    """
    tf.keras.utils.set_random_seed(run.config.seed)
    settings = run.config.distillation
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
        student, teacher, terms, settings.label_weight, seed=run.config.seed, **adversarial
    )


def make_optimizer(run: Run, settings: ConfigDict, epochs: int) -> Any:
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
        warmup = int(settings.warmup_epochs * run.steps_per_epoch)
        rate = tf.keras.optimizers.schedules.CosineDecay(
            0.0 if warmup else rate,
            decay_steps=max(1, epochs * run.steps_per_epoch - warmup),
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


def _train_on_labels(run: Run, model: Any, stage: str, settings: ConfigDict) -> None:
    optimizer = make_optimizer(run, settings.optimizer, settings.epochs)
    model.compile(optimizer=optimizer, loss=run.label_loss(), metrics=["accuracy"])
    _fit(run, model, stage, settings.epochs)


def _train_distiller(
    run: Run, distiller: Distiller, stage: str, optimizer: Any, epochs: int, callbacks: tuple = ()
) -> None:
    extra = {}
    if isinstance(distiller, AdversarialDistiller):
        rate = run.config.distillation.adversarial.get("discriminator_learning_rate", 1e-3)
        extra["discriminator_optimizer"] = tf.keras.optimizers.Adam(rate)
    distiller.compile(
        optimizer=optimizer,
        loss=run.label_loss(),
        metrics=["accuracy"],
        teacher_accuracy=True,
        **extra,
    )
    _fit(run, distiller, stage, epochs, callbacks)


def _fit(run: Run, model: Any, stage: str, epochs: int, callbacks: tuple = ()) -> None:
    fitting.fit(
        model,
        run.workdir,
        stage,
        batches=lambda first: run.training_batches(first, epochs),
        steps_per_epoch=run.steps_per_epoch,
        validation=run.validation_batches(),
        epochs=epochs,
        seed=run.config.seed,
        callbacks=callbacks,
    )


def _prune(run: Run, student: Any, teacher: Any) -> Any:
    settings = run.config.compression
    steps = settings.pruning_epochs * run.steps_per_epoch
    # The last quarter trains at the final sparsity, so that the student can recover.
    last = max(1, steps * 3 // 4)
    pruned = pruning.apply(
        student,
        sparsity=settings.sparsity,
        begin_step=0,
        end_step=last,
        frequency=max(1, last // 20),
    )
    distiller = make_distiller(run, pruned, teacher)
    optimizer = tf.keras.optimizers.Adam(settings.learning_rate)
    _train_distiller(
        run,
        distiller,
        "student_compressed/pruned",
        optimizer,
        settings.pruning_epochs,
        tuple(pruning.callbacks(pruned)),
    )
    return pruning.finish(pruned)


def _quantize(run: Run, pruned: Any, teacher: Any) -> Any:
    settings = run.config.compression
    train = run.dataset.train
    calibration = run.normalization.apply(train.images[: settings.calibration_examples])
    quantized = quantization.apply(pruned, keep_zeros=True, calibration=calibration)
    distiller = make_distiller(run, quantized, teacher)
    optimizer = make_optimizer(
        run,
        ConfigDict({**run.config.student.optimizer, "learning_rate": settings.learning_rate}),
        settings.quantization_epochs,
    )
    _train_distiller(
        run, distiller, "student_compressed/quantized", optimizer, settings.quantization_epochs
    )
    return quantization.finish(quantized)


def _save(run: Run, model: Any, stage: str) -> None:
    path = run.workdir.scratch(stage, MODEL)
    with replacing(path) as temporary:
        model.save(temporary)
