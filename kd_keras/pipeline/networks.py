"""The networks of a run: built from the config, and the trained ones on disk."""

from typing import Any

import tensorflow as tf
from ml_collections import ConfigDict

from kd_keras import models
from kd_keras.compression import quantization
from kd_keras.errors import InputError
from kd_keras.pipeline.config import expanded
from kd_keras.pipeline.job import Job
from kd_keras.pipeline.workdir import replacing
from kd_keras.teachers import Ensemble, KerasTeacher

MODEL = "model.keras"
QUANTIZED_MODEL = "model.h5"
_OF_A_MEMBER = ("model", "options", "path", "epochs", "optimizer")


def teachers(job: Job) -> dict[str, ConfigDict]:
    """The settings of the teacher, or of each member of an ensemble, by the folder it lies in."""
    settings = job.config.teacher
    if not settings.members:
        return {"teacher": settings}
    return {f"teacher/{name}": _member(settings, name) for name in sorted(settings.members)}


def build_teacher(job: Job) -> Any:
    """The teacher before training; of an ensemble, with all members."""
    built = {}
    for number, (folder, settings) in enumerate(teachers(job).items()):
        built[folder] = build(job, settings, job.config.seed + number)
    return _together(job, built)


def build(job: Job, settings: ConfigDict, seed: int) -> Any:
    """A network before training, or with the weights of a file.

    The seed is set anew, so that every stage starts the same student from the same weights.
    """
    path = expanded(settings.get("path", ""))
    tf.keras.utils.set_random_seed(seed)
    if path and not settings.model:
        return models.load_model(path)
    options = settings.options.to_dict()
    model = models.build(
        settings.model, classes=job.classes, input_shape=job.input_shape, **options
    )
    if path:
        models.load_weights(model, path)
    return model


def load(job: Job, stage: str) -> Any:
    """The model that a stage has made."""
    if stage == "teacher":
        return _together(job, {folder: _load(job, folder) for folder in teachers(job)})
    if stage == "student_compressed":
        return quantization.load(job.workdir.path(stage, QUANTIZED_MODEL))
    return _load(job, stage)


def members(model: Any) -> list[Any]:
    """The Keras models that a loaded model consists of."""
    if not isinstance(model, Ensemble):
        return [model]
    return [one.model for one in model.members.values() if isinstance(one, KerasTeacher)]


def save(job: Job, model: Any, folder: str) -> None:
    """Keep a model, whole or not at all."""
    with replacing(job.workdir.scratch(folder, MODEL)) as temporary:
        model.save(temporary)


def _load(job: Job, folder: str) -> Any:
    return models.load_model(job.workdir.path(folder, MODEL))


def _together(job: Job, by_folder: dict[str, Any]) -> Any:
    settings = job.config.teacher
    if not settings.members:
        return by_folder["teacher"]
    members = {folder.removeprefix("teacher/"): model for folder, model in by_folder.items()}
    return Ensemble(members, mean=settings.mean, weights=settings.weights or None)


def _member(teacher: ConfigDict, name: str) -> ConfigDict:
    own = teacher.members[name].to_dict()
    unknown = sorted(set(own) - set(_OF_A_MEMBER))
    if unknown:
        raise InputError(
            f"config.teacher.members.{name} has no key {unknown[0]!r}; it has: "
            f"{', '.join(_OF_A_MEMBER)}"
        )
    common = {key: value for key, value in teacher.to_dict().items() if key in _OF_A_MEMBER}
    own["optimizer"] = {**common["optimizer"], **own.get("optimizer", {})}
    return ConfigDict({**common, **own})
