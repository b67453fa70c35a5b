"""The stages of the main job, in order, and the loop that runs those that are not done."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from kd_keras import data
from kd_keras.pipeline import config as configs
from kd_keras.pipeline import delivery, fitting, report, training
from kd_keras.pipeline.job import Job
from kd_keras.pipeline.progress import say


@dataclasses.dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        name: What it is called in logs, in the report and in the work directory.
        reads: The sections of the config that its artefacts depend on.
        make: Function that makes the artefacts.
        trains: Whether every worker of a distributed run takes part; else the chief alone does.
    """

    name: str
    reads: tuple[str, ...]
    make: Callable[[Job], None]
    trains: bool = False


def prepare_data(job: Job) -> None:
    """Decode the data set once."""
    settings = job.config.data
    data.load(
        settings.name,
        data_dir=configs.expanded(settings.data_dir) or None,
        image_size=settings.image_size or None,
        validation=settings.validation,
        limit=settings.limit or None,
        seed=job.config.seed,
        directory=job.workdir.scratch("data"),
    )


_ALWAYS = ("seed", "deterministic", "strategy", "data")
_STUDENT = (*_ALWAYS, "teacher", "student", "distillation")
_COMPRESSED = (*_STUDENT, "compression")
STAGES = (
    Stage("data", ("seed", "data"), prepare_data),
    Stage("teacher", (*_ALWAYS, "teacher"), training.train_teacher, trains=True),
    Stage("student_alone", (*_ALWAYS, "student"), training.train_student_alone, trains=True),
    Stage("student", _STUDENT, training.distil, trains=True),
    Stage("student_compressed", _COMPRESSED, training.compress, trains=True),
    Stage("export", _COMPRESSED, delivery.export),
    Stage("verify", (*_COMPRESSED, "verify"), delivery.verify),
    Stage("benchmark", (*_COMPRESSED, "benchmark"), delivery.benchmark),
)


def run_all(job: Job) -> dict[str, Any] | None:
    """Run the stages that are not done, then write the report.

    Returns:
        What `report.json` holds; None in a worker that is not the chief.
    """
    seconds = {}
    total = len(STAGES) + 1
    for number, stage in enumerate(STAGES, start=1):
        seconds[stage.name] = _run_one(job, stage, f"[{number}/{total}] {stage.name}")
        if stage.name == "data":
            training.check(job)
    if not job.workdir.chief:
        return None
    say(f"[{total}/{total}] report")
    return report.write(job, seconds)


def _run_one(job: Job, stage: Stage, title: str) -> float:
    inputs = {section: configs.plain(job.config)[section] for section in stage.reads}
    record = job.workdir.done(stage.name, inputs)
    if record is not None:
        say(f"{title}: done before, in {record['seconds']:.1f} s")
        return record["seconds"]
    say(title)
    started = time.monotonic()
    if stage.trains or job.workdir.chief:
        job.workdir.begin(stage.name, inputs)
        stage.make(job)
    record = job.workdir.finish(stage.name, inputs, time.monotonic() - started)
    if stage.trains:
        fitting.forget(job.workdir, stage.name)
    return record["seconds"]
