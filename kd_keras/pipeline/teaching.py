"""The teacher of a run: trained or given, alone or with others, live or from a cache."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from kd_keras import models
from kd_keras.errors import InputError
from kd_keras.pipeline import networks
from kd_keras.pipeline.config import expanded
from kd_keras.pipeline.job import Job
from kd_keras.pipeline.progress import say
from kd_keras.pipeline.workdir import read_json, write_json
from kd_keras.teachers import (
    ClassMap,
    Ensemble,
    KerasTeacher,
    Teacher,
    as_teacher,
    caching,
    quality,
)

_OF_A_MEMBER = ("model", "options", "path", "epochs", "optimizer")
_SOURCE, _QUALITY, _CACHED = "source.json", "quality.json", "stage.json"
CACHE_STAGE = "teacher_cache"


def settings(job: Job) -> dict[str, ConfigDict]:
    """The settings of the teacher, or of each member of an ensemble, by the folder it lies in."""
    own = job.config.teacher
    if not own.members:
        return {"teacher": own}
    return {f"teacher/{name}": _of_member(own, name) for name in sorted(own.members)}


def build(job: Job) -> Teacher:
    """The teacher before training, with all members."""
    return _together(
        job,
        {
            folder: build_member(job, own, job.config.seed + number)
            for number, (folder, own) in enumerate(settings(job).items())
        },
    )


def build_member(job: Job, own: ConfigDict, seed: int) -> Any:
    """A network before training, or whatever teaches from a file.

    A file of weights needs `teacher.model`; one that holds all that teaches does not look at it.
    """
    path = expanded(own.path)
    if path and not (own.model and models.may_hold_weights_only(path)):
        return as_teacher(path, from_logits=None)
    return networks.build(job, own, seed)


def save(job: Job, model: Any, folder: str, path: str) -> None:
    """Keep a trained network; of a file that teaches as it is, keep where it lies."""
    if isinstance(model, Teacher):
        source = {"path": os.path.abspath(expanded(path)), "fingerprint": model.fingerprint()}
        write_json(job.workdir.scratch(folder, _SOURCE), source)
    else:
        networks.save(job, model, folder)


def load(job: Job) -> Teacher:
    """The teacher of the "teacher" stage, as it computes.

    Raises:
        InputError: If a file that teaches is no longer what it was.
    """
    return _together(job, {folder: _load(job, folder) for folder in settings(job)})


def load_for_training(job: Job) -> Teacher:
    """What students learn from: the teacher, or the cache of its outputs.

    The cache is checked once more, and what is missing or damaged is made anew: it may lie in a
    folder that others share.
    """
    teacher = load(job)
    if not job.config.teacher.cache.views:
        return teacher
    layers = read_json(job.workdir.path(CACHE_STAGE, _CACHED))["layers"]
    return caching.cache(teacher, job.taught_views, cache_path(job), **cache_options(job, layers))


def cache_options(job: Job, layers: Sequence[str]) -> dict[str, Any]:
    """The arguments of `caching.cache` and `fill` beside teacher, data and folder."""
    own = job.config.teacher.cache
    options = {"dtype": own.dtype, "top_k": own.top_k or None}
    return {**options, "layers": layers, "batch_size": job.config.data.batch_size}


def record_cache(job: Job, layers: Sequence[str]) -> None:
    """Write down what is cached; a stage is done if its folder is there, wherever the cache is."""
    found = {"path": str(cache_path(job)), "layers": list(layers)}
    write_json(job.workdir.scratch(CACHE_STAGE, _CACHED), found)


def show_quality(job: Job) -> None:
    """Print how good the teacher is, and what is likely wrong with it; look at it only once."""
    path = job.workdir.path("teacher", _QUALITY)
    if not path.exists():
        answers = _examined(job)
        write_json(path, {**answers.to_json(), "description": answers.describe()})
    found = quality_of(job)
    say(found["description"])
    for warning in found["warnings"]:
        say(f"warning: {warning}")


def quality_of(job: Job) -> dict[str, Any]:
    """What `show_quality` has found, as plain values."""
    return read_json(job.workdir.path("teacher", _QUALITY))


def _examined(job: Job) -> quality.Quality:
    teacher, dataset = load(job), job.dataset
    options = {"seed": job.config.seed, "class_names": dataset.class_names}
    if teacher.is_recorded:
        size = job.config.data.batch_size
        recorded = teacher.batches(job.views, batch_size=size, epochs=1, drop_remainder=False)
        return quality.examine(teacher, recorded, **options)
    splits = [(split.images, split.labels) for split in (dataset.train, dataset.validation)]
    return quality.examine(teacher, *splits, preprocess=job.normalization.apply, **options)


def cache_path(job: Job) -> pathlib.Path:
    """The folder of the cache."""
    given = job.config.teacher.cache.path
    return pathlib.Path(expanded(given)) if given else job.workdir.path(CACHE_STAGE)


def keras_models(teacher: Teacher) -> list[Any] | None:
    """The Keras models that a teacher consists of; None if it is not of such alone."""
    if isinstance(teacher, ClassMap):
        return keras_models(teacher.teacher)
    if isinstance(teacher, KerasTeacher):
        return [teacher.model]
    if not isinstance(teacher, Ensemble):
        return None
    found = [keras_models(member) for member in teacher.members.values()]
    return None if None in found else [model for models in found for model in models or ()]


def _load(job: Job, folder: str) -> Any:
    source = job.workdir.path(folder, _SOURCE)
    if not source.exists():
        return networks.load(job, folder)
    found = read_json(source)
    teacher = as_teacher(found["path"], from_logits=None)
    if teacher.fingerprint() != found["fingerprint"]:
        raise InputError(
            f"{found['path']!r} is not the teacher that this run began with: put that one back, or "
            "name another --workdir"
        )
    return teacher


def _together(job: Job, by_folder: dict[str, Any]) -> Teacher:
    own = job.config.teacher
    teachers = {folder: as_teacher(model, from_logits=None) for folder, model in by_folder.items()}
    if own.members:
        members = {folder.removeprefix("teacher/"): one for folder, one in teachers.items()}
        teacher: Teacher = Ensemble(members, mean=own.mean, weights=own.weights or None)
    else:
        teacher = teachers["teacher"]
    return ClassMap(teacher, own.class_map) if own.class_map else teacher


def _of_member(teacher: ConfigDict, name: str) -> ConfigDict:
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
