"""The search for a student: which network and which compression fit a phone, and how accurate.

A search's folder holds `base` (data, teacher, its cache), `trials/N` (a work directory each, whose
`trial.json` is its record) and, when it is over, `search.json`, `search.html` and `front`.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from kd_keras.errors import InputError
from kd_keras.pipeline import (
    compressing,
    device,
    numerals,
    search_report,
    search_sampling,
    search_space,
    search_trial,
    stages,
    teaching,
    training,
)
from kd_keras.pipeline import config as configs
from kd_keras.pipeline.job import Job, opened
from kd_keras.pipeline.progress import say
from kd_keras.pipeline.search_front import FINISHED, REJECTED, RUNNING, Limits, Trial
from kd_keras.pipeline.search_space import Dimension
from kd_keras.pipeline.workdir import Workdir, read_json, write_json

#: A search ends when it has looked at so many times the trials that it was to train.
_MOST_LOOKED_AT = 5


def run(
    config: ConfigDict,
    workdir: str | os.PathLike,
    limits: Limits,
    *,
    trials: int = 30,
    seed: int = 0,
    profile: str = "",
    reuse: Sequence[str | os.PathLike] = (),
    command: str = "",
) -> dict[str, Any]:
    """Search, or go on with a search that was killed.

    Args:
        config: Of a run, with a section `search`; see `search_space.read`.
        workdir: The folder of the search.
        limits: What the int8 file may cost.
        trials: How many students to train; those over the limits before training do not count. A
            larger number goes on with a search that is over.
        seed: Of the sampler; the trainings have the config's.
        profile: A device's profile, in the place of this host; see `device.load`.
        reuse: Work directories of runs or searches, whose finished stages are taken.
        command: The command line, for the page.

    Returns:
        What `search.json` holds.

    Raises:
        InputError: For a config, limits or a folder that cannot be used, and if no trial is within
            the limits; the results are written then, too.
        tflite_export.ExportError: If the first student cannot be exported.
    """
    config = configs.complete(config)
    if not (isinstance(trials, int) and trials >= 1):
        raise InputError(f"--trials is {trials!r}; it must be a whole number from 1")
    if config.strategy == "multi_worker":
        raise InputError("strategy 'multi_worker' runs no search; search on one machine")
    space, host = search_space.read(config), device.load(profile)
    root = Workdir(workdir)
    with root.locked():
        _adopt(root, config, space, limits, seed, host.name)
        lenders = [folder for given in reuse for folder in _stages_of(pathlib.Path(given))]
        _prepare(config, space, root.path("base"), lenders)
        lenders.insert(0, root.path("base"))
        over = _recorded(root)
        while (trial := _next(root, space, over, limits, trials, seed)) is not None:
            say(f"trial {trial.number}, {_trained(over) + 1} of {trials} to train: {trial.title}")
            over.append(_try(root, config, space, trial, over, lenders, limits, host))
        return search_report.write(root, config, space, over, limits, seed, host, command)


def _adopt(
    root: Workdir,
    config: ConfigDict,
    space: tuple[Dimension, ...],
    limits: Limits,
    seed: int,
    host: str,
) -> None:
    """Take what is searched for this folder, or refuse what differs from that which made it."""
    asked = search_report.asked(config, space, limits, seed, host)
    path = root.path("asked.json")
    if path.exists() and (keys := configs.differences(read_json(path), asked)):
        raise InputError(
            f"{root.root} was made by another search; these differ: {', '.join(keys)}: name "
            f"another --workdir; with --reuse={root.root} it takes what would be the same"
        )
    write_json(path, asked)


def _stages_of(folder: pathlib.Path) -> list[pathlib.Path]:
    """The work directories of a run or a search."""
    return [folder, folder / "base", *_folders(folder)]


def _folders(root: pathlib.Path) -> list[pathlib.Path]:
    found = (root / "trials").glob("*")
    return sorted((f for f in found if f.name.isdigit()), key=lambda f: int(f.name))


def _prepare(
    config: ConfigDict,
    space: tuple[Dimension, ...],
    folder: pathlib.Path,
    lenders: list[pathlib.Path],
) -> None:
    """Make what all trials share; every choice is looked at before the teacher is trained."""
    say("base: data, teacher and what else all trials share")
    with opened(search_space.configured(config, (), {}), folder, reuse=lenders) as job:
        stages.run(job, ("data",))
        training.check(job)
        for dimension in space:
            for label in dimension.choices:
                _check_choice(job, config, dimension, label)
        stages.run(job, ("teacher", teaching.CACHE_STAGE))
        teaching.show_quality(job)
    if not config.teacher.cache.views:
        say("the teacher answers anew in every trial: config.teacher.cache.views keeps its answers")


def _check_choice(job: Job, config: ConfigDict, dimension: Dimension, label: str) -> None:
    chosen = search_space.configured(config, (dimension,), {dimension.key: label})
    one = Job(chosen, job.workdir, job.strategy, "")
    try:
        training.build_student(one)
        compressing.steps(one)
    except InputError as error:
        raise InputError(f"config.search.{dimension.key}, choice {label!r}: {error}") from error


def _recorded(root: Workdir) -> list[Trial]:
    """The trials that are over."""
    records = [folder / "trial.json" for folder in _folders(root.root)]
    trials = [Trial(**read_json(path)) for path in records if path.exists()]
    return [trial for trial in trials if trial.state != RUNNING]


def _next(
    root: Workdir,
    space: tuple[Dimension, ...],
    over: Sequence[Trial],
    limits: Limits,
    trials: int,
    seed: int,
) -> Trial | None:
    """The trial that was running when the search was killed, or a new one; None at the end."""
    if _trained(over) >= trials or len(over) >= _MOST_LOOKED_AT * trials:
        return None
    number = len(over) + 1
    path = root.path("trials", str(number), "trial.json")
    if path.exists():
        return Trial(**read_json(path))
    choices = search_sampling.suggest(space, over, limits, seed)
    if choices is None:
        say(f"all {len(over)} combinations were tried")
        return None
    trial = Trial(number, search_space.name(choices), choices)
    write_json(path, vars(trial))
    return trial


def _told(ended: Trial) -> str:
    """How a trial ended, for a person."""
    if ended.state != FINISHED:
        return f"{ended.state}: {ended.reason}"
    figures = [numerals.percent(ended.accuracy), numerals.size(ended.bytes)]
    told = ", ".join([*figures, numerals.latency(ended.latency_us)])
    return f"finished: {told}" + (f"; {ended.reason}" if ended.reason else "")


def _trained(over: Sequence[Trial]) -> int:
    return sum(trial.state != REJECTED for trial in over)


def _try(
    root: Workdir,
    config: ConfigDict,
    space: tuple[Dimension, ...],
    trial: Trial,
    over: Sequence[Trial],
    lenders: list[pathlib.Path],
    limits: Limits,
    host: device.Device,
) -> Trial:
    """Run a trial and record how it ended."""
    others = [root.path("trials", str(other.number)) for other in over if other.state == FINISHED]
    ended = search_trial.run(
        trial,
        search_space.configured(config, space, trial.choices),
        root.path("trials", str(trial.number)),
        lenders=[*lenders, *others],
        limits=limits,
        device=host,
        peers=over,
    )
    write_json(root.path("trials", str(trial.number), "trial.json"), vars(ended))
    say(f"trial {trial.number}: {_told(ended)} ({numerals.duration(ended.seconds)})")
    return ended
