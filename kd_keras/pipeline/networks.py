"""The networks of a run: built from the config, and the trained ones on disk."""

import pathlib
from typing import Any

import tensorflow as tf
from ml_collections import ConfigDict

from kd_keras import models
from kd_keras.compression import quantization
from kd_keras.pipeline.config import expanded
from kd_keras.pipeline.job import Job
from kd_keras.pipeline.workdir import replacing

MODEL = "model.keras"
QUANTIZED_MODEL = "model.h5"


def build(job: Job, settings: ConfigDict, seed: int) -> Any:
    """A network before training, or with the weights of a file.

    The seed is set anew, so that every stage starts the same student from the same weights.
    """
    path = expanded(settings.get("path", ""))
    tf.keras.utils.set_random_seed(seed)
    options = settings.options.to_dict()
    model = models.build(
        settings.model, classes=job.classes, input_shape=job.input_shape, **options
    )
    if path:
        models.load_weights(model, path)
    return model


def exists(job: Job, folder: str) -> bool:
    """Whether a network was left in a folder."""
    return any(job.workdir.path(folder, name).exists() for name in (MODEL, QUANTIZED_MODEL))


def file_path(job: Job, folder: str) -> pathlib.Path:
    """Where the network of a folder lies."""
    quantized = job.workdir.path(folder, QUANTIZED_MODEL)
    return quantized if quantized.exists() else job.workdir.path(folder, MODEL)


def load(job: Job, folder: str) -> Any:
    """The network that was left in a folder."""
    found = file_path(job, folder)
    return quantization.load(found) if found.name == QUANTIZED_MODEL else models.load_model(found)


def save(job: Job, model: Any, folder: str) -> None:
    """Keep a model, whole or not at all."""
    if quantization.is_quantized(model):
        quantization.save(model, job.workdir.scratch(folder, QUANTIZED_MODEL))
        return
    with replacing(job.workdir.scratch(folder, MODEL)) as temporary:
        model.save(temporary)
