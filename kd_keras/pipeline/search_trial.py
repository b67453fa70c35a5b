"""One trial of a search: cost before training, the pipeline's own stages, and what came out."""

import gzip
import json
import pathlib
import re
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

import tflite_export
from kd_keras.errors import InputError
from kd_keras.pipeline import (
    compressing,
    delivery,
    distillation,
    fitting,
    networks,
    numerals,
    search_sampling,
    stages,
    teaching,
    training,
)
from kd_keras.pipeline.device import Device
from kd_keras.pipeline.job import Job, opened
from kd_keras.pipeline.search_front import FAILED, FINISHED, REJECTED, STOPPED, Limits, Trial
from kd_keras.pipeline.workdir import read_json, write_json

_TRAINED = ("student", "student_compressed")
_STAGES = ("teacher", teaching.CACHE_STAGE, *_TRAINED, "export")
_MEASURE = "measure"


class Stopped(Exception):  # noqa: N818 - it is no error
    """A training that is not worth its end."""


def run(
    trial: Trial,
    config: ConfigDict,
    workdir: pathlib.Path,
    *,
    lenders: Sequence[pathlib.Path],
    limits: Limits,
    device: Device,
    peers: Sequence[Trial],
) -> Trial:
    """Run a trial, or what is left of it, in a work directory of its own.

    Args:
        trial: Its number, name and choices.
        config: The complete config that they make.
        workdir: Where it runs.
        lenders: Work directories whose stages it takes: data, teacher, cache, equal students.
        limits: A trial that is over them before it is trained is not trained.
        device: Where latency is measured.
        peers: The trials that are over, which its trainings are compared with.

    Returns:
        The trial as it ended.
    """
    started = time.monotonic()
    tf.keras.backend.clear_session()
    try:
        with opened(config, workdir, reuse=lenders) as job:
            ended = _run(job, trial, limits, device, peers)
    except (InputError, tflite_export.ExportError) as error:
        ended = trial.but(state=FAILED, reason=" ".join(str(error).split()))
    return ended.but(seconds=time.monotonic() - started)


def untrained_cost(job: Job, device: Device) -> dict[str, Any]:
    """Size and latency of the int8 file that the student would have.

    The trained one's file is as large or a little larger, and as fast, unless the list has a
    technique that looks at trained weights.
    """
    model = compressing.shaped(job, training.build_student(job))
    with tempfile.TemporaryDirectory(prefix="kd-search-") as folder:
        path = pathlib.Path(folder, "untrained.tflite")
        delivery.convert(job, model, path, "int8")
        size = path.stat().st_size
        sizes = {"bytes": size, "untrained_bytes": size}
        return {**sizes, "latency_us": _latency(job, path, device), **_counted(model)}


def _run(job: Job, trial: Trial, limits: Limits, device: Device, peers: Sequence[Trial]) -> Trial:
    stages.run(job, ("data",))
    trial = trial.but(**untrained_cost(job, device))
    if compressing.shape_is_known(job) and (broken := limits.broken(trial)):
        return trial.but(state=REJECTED, reason=broken)
    training.check(job)
    job.watch = lambda folder: (Watcher(job, folder, trial, peers),)
    alone = ("student_alone",) if distillation.labels_only(job) else ()
    measure = stages.Stage(
        *(_MEASURE, (*stages.COMPRESSED, "benchmark"), lambda job: _measure(job, device)),
        also=lambda job: {"device": device.name},
    )
    try:
        stages.run(job, (*_STAGES, *alone), then=[measure])
    except Stopped as reason:
        for stage in _TRAINED:
            fitting.forget(job.workdir, stage)
        curves = _curves(job)
        best = max(accuracy for curve in curves.values() for accuracy in curve)
        return trial.but(state=STOPPED, accuracy=best, curves=curves, reason=str(reason))
    found = read_json(job.workdir.path(_MEASURE, "measure.json"))
    trial = trial.but(state=FINISHED, curves=_curves(job), **found)
    return trial.but(reason=limits.broken(trial))


def _measure(job: Job, device: Device) -> None:
    """What the int8 file costs, and how accurate it is on the validation images."""
    path = delivery.file_path(job, "int8")
    content, split = path.read_bytes(), job.dataset.validation
    logits = tflite_export.TFLiteModel(path).predict(job.images(split), progress=False)
    found = {
        "bytes": len(content),
        "gzip_bytes": len(gzip.compress(content, compresslevel=9, mtime=0)),
        "latency_us": _latency(job, path, device),
        "accuracy": float(np.mean(logits.argmax(-1) == np.asarray(split.labels))),
        **_counted(networks.load(job, "student_compressed")),
    }
    write_json(job.workdir.scratch(_MEASURE, "measure.json"), found)


def _counted(model: Any) -> dict[str, int]:
    return {
        "parameters": tflite_export.parameters(model),
        "macs": tflite_export.multiply_adds(model),
    }


def _latency(job: Job, path: pathlib.Path, device: Device) -> float:
    settings = job.config.benchmark
    return device.latency(path, threads=settings.threads[0], runs=settings.runs)


def _training(folder: str) -> str:
    """What a training is called, in whatever place of a list of techniques it stands."""
    return re.sub(r"^student_compressed/\d+_", "", folder)


def _curves(job: Job) -> dict[str, list[float]]:
    """The validation accuracies of each training that has begun."""
    found = {}
    for stage in _TRAINED:
        for path in sorted(job.workdir.path(stage).rglob("history.json")):
            folder = path.parent.relative_to(job.workdir.root).as_posix()
            found[_training(folder)] = [epoch["val_accuracy"] for epoch in read_json(path)]
    return found


class Watcher(tf.keras.callbacks.Callback):
    """Ends a training in which cheaper students were better at the same epoch.

    Args:
        job: The trial's run.
        folder: Of the training, in its work directory.
        trial: With its size and latency.
        peers: The trials that are over.
    """

    def __init__(self, job: Job, folder: str, trial: Trial, peers: Sequence[Trial]) -> None:
        super().__init__()
        self._history = job.workdir.path(folder, "history.json")
        self._training, self._trial, self._peers = _training(folder), trial, peers
        self._accuracies: dict[int, float] = {}
        self._why = ""

    def on_train_begin(self, logs: Any = None) -> None:
        """Take up what was seen before the search was killed."""
        if self._history.exists():
            known = json.loads(self._history.read_text())
            self._accuracies = {epoch["epoch"]: epoch["val_accuracy"] for epoch in known}
        self._judge()
        self.on_train_end()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Compare the epoch; a stopped training ends as any other."""
        self._accuracies[epoch] = (logs or {})["val_accuracy"]
        self._judge()
        if self._why:
            self.model.stop_training = True

    def on_train_end(self, logs: Any = None) -> None:
        """Leave the trial."""
        if self._why:
            raise Stopped(self._why)

    def _judge(self) -> None:
        epochs = self.params["epochs"]
        last = max(self._accuracies, default=None)
        if last is None or last + 1 == epochs:
            return
        given = (self._trial, self._training, self._accuracies, epochs, self._peers)
        if search_sampling.is_hopeless(*given):
            best = numerals.percent(max(self._accuracies.values()))
            self._why = (
                f"{best} after epoch {last + 1}/{epochs} of {self._training}, below the median of "
                "trials that cost no more"
            )
