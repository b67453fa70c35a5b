"""The stages of the main job, in order, and the loop that runs those that are not done."""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

from kd_keras.pipeline import config as configs
from kd_keras.pipeline import dataset, delivery, fitting, report, teacher_cache, teaching, training
from kd_keras.pipeline.job import Job
from kd_keras.pipeline.progress import say
from tflite_export.measuring.result import SCHEMA


@dataclasses.dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        name: What it is called in logs, in the report and in the work directory.
        reads: The sections of the config that its artefacts depend on.
        make: Function that makes the artefacts.
        trains: Whether every worker of a distributed run takes part; else the chief alone does.
        ignores: Keys of these sections, as "teacher.cache", that they do not depend on.
        also: Function of what else they depend on, by name.
        wanted: Whether a run has the stage at all.
    """

    name: str
    reads: tuple[str, ...]
    make: Callable[[Job], None]
    trains: bool = False
    ignores: tuple[str, ...] = ()
    also: Callable[[Job], dict[str, Any]] = lambda job: {}
    wanted: Callable[[Job], bool] = lambda job: True

    def inputs(self, job: Job) -> dict[str, Any]:
        """The part of the config, and whatever else, that decides on its artefacts."""
        sections = {name: configs.plain(job.config)[name] for name in self.reads}
        for key in self.ignores:
            section, name = key.split(".")
            del sections[section][name]
        return {**sections, **self.also(job)}


def prepare_data(job: Job) -> None:
    """Decode the data set once."""
    dataset.load(job.config, job.workdir.scratch("data"))


def _caches(job: Job) -> bool:
    return bool(job.config.teacher.cache.views)


_ALWAYS = ("seed", "deterministic", "precision", "strategy", "data")
_STUDENT = (*_ALWAYS, "teacher", "student", "distillation")
#: The sections that the exported files depend on.
COMPRESSED = (*_STUDENT, "compression", "export")
STAGES = (
    Stage("data", ("seed", "data"), prepare_data),
    Stage(
        *("teacher", (*_ALWAYS, "teacher"), training.train_teacher),
        trains=True,
        ignores=("teacher.cache",),
    ),
    Stage(
        *(teaching.CACHE_STAGE, (*_ALWAYS, "teacher"), teacher_cache.fill),
        also=lambda job: {
            "layers": list(teacher_cache.layers(job)),
            "student": {"transfer_set": configs.plain(job.config)["student"]["transfer_set"]},
        },
        wanted=_caches,
    ),
    Stage("student_alone", (*_ALWAYS, "student"), training.train_student_alone, trains=True),
    Stage("student", _STUDENT, training.distil, trains=True),
    Stage("student_compressed", COMPRESSED, training.compress, trains=True),
    Stage("export", COMPRESSED, delivery.export),
    Stage("verify", (*COMPRESSED, "verify"), delivery.verify),
    Stage(
        *("benchmark", (*COMPRESSED, "benchmark"), delivery.benchmark),
        also=lambda job: {"schema": SCHEMA},  # what was kept in another form is measured anew
    ),
)


def run_all(job: Job) -> dict[str, Any] | None:
    """Run the stages that are not done, then write the report.

    Returns:
        What `report.json` holds; None in a worker that is not the chief.
    """
    wanted = [stage for stage in STAGES if stage.wanted(job)]
    records = _run(job, wanted, total=len(wanted) + 1)
    if not job.workdir.chief:
        return None
    say(f"[{len(wanted) + 1}/{len(wanted) + 1}] report")
    return report.write(job, records)


def run(job: Job, names: Collection[str], *, then: Sequence[Stage] = ()) -> None:
    """Run some of the stages, those that are not done, in their order; nothing is checked before.

    Args:
        job: The run.
        names: Names of the stages; one that the config does not ask for is left out.
        then: More stages, which follow them.
    """
    wanted = [stage for stage in STAGES if stage.name in names and stage.wanted(job)]
    for number, stage in enumerate(every := [*wanted, *then], start=1):
        _run_one(job, stage, f"[{number}/{len(every)}] {stage.name}")


def fill_cache(job: Job, *, shard_index: int, num_shards: int) -> None:
    """Run the stages that the teacher's cache needs, then compute one part of it."""
    needed = STAGES[: [stage.name for stage in STAGES].index(teaching.CACHE_STAGE)]
    _run(job, needed, total=len(needed) + 1)
    say(f"[{len(needed) + 1}/{len(needed) + 1}] part {shard_index} of {num_shards} of the cache")
    teacher_cache.fill(job, shard_index=shard_index, num_shards=num_shards)


def _run(job: Job, stages: Sequence[Stage], total: int) -> dict[str, dict[str, Any]]:
    """Run the stages that are not done, and return the record of each."""
    records = {}
    for number, stage in enumerate(stages, start=1):
        records[stage.name] = _run_one(job, stage, f"[{number}/{total}] {stage.name}")
        if stage.name == "data":
            training.check(job)
        if stage.name == "teacher" and job.workdir.chief:
            teaching.show_quality(job)
    return records


def _run_one(job: Job, stage: Stage, title: str) -> dict[str, Any]:
    inputs = stage.inputs(job)
    record = job.workdir.done(stage.name, inputs)
    if record is not None:
        say(f"{title}: done before, in {record['seconds']:.1f} s")
        return record
    say(title)
    if stage.trains or job.workdir.chief:
        job.workdir.begin(stage.name, inputs)
        stage.make(job)
    record = job.workdir.finish(stage.name, inputs)
    if stage.trains:
        fitting.forget(job.workdir, stage.name)
    return record
