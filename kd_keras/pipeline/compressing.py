"""From a config's `compression`, a list, to the steps that make the student smaller, in order."""

import dataclasses
import inspect
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import tensorflow as tf

import tflite_export
from kd_keras import compression
from kd_keras.compression import order
from kd_keras.compression.rank_goals import Goals
from kd_keras.errors import InputError
from kd_keras.pipeline import distillation
from kd_keras.pipeline.config import STEP_KEYS, STEP_TERMS
from kd_keras.pipeline.device import Device
from kd_keras.pipeline.job import Job
from kd_keras.pipeline.staged import Stage

#: The share of pruning's training steps at which its sparsity is reached; the rest recovers.
_PRUNED_BY = 0.75
_PRUNINGS = 20
#: Inferences that a goal of latency is measured by, at least.
_RUNS = 150
#: Goals that a config may give as a share of what the student has, and how that is counted.
_COUNTED: dict[str, Callable[[Any], int]] = {
    "parameters": tflite_export.parameters,
    "multiply_adds": tflite_export.multiply_adds,
}
#: Arguments of a technique that a run knows better than a config.
_NOT_IN_A_CONFIG = (
    *("student", "calibration", "begin_step", "end_step", "frequency", "training_steps"),
    *("cost", "at_most", "configs", "images", "labels"),
)


@dataclasses.dataclass(frozen=True)
class Step:
    """One technique of the list, with the training that follows.

    Attributes:
        name: Of its folder: its number and the technique.
        where: It stands in the config, for messages.
        technique: The technique's name.
        arguments: What the config gives the technique's `apply`.
        from_scratch: Whether the smaller network starts from new weights.
        stage: How it is trained; None for a technique that is not.
    """

    name: str
    where: str
    technique: str
    arguments: Mapping[str, Any]
    from_scratch: bool
    stage: Stage | None

    @property
    def module(self) -> ModuleType:
        """The technique: `apply`, `callbacks`, `finish`."""
        return getattr(compression, self.technique)

    def apply(self, job: Job, student: Any) -> Any:
        """What the technique makes of a student, ready to train.

        Raises:
            InputError: If the student or the arguments do not fit the technique.
        """
        adapt = _ADAPTED.get(self.technique, _as_given)
        try:
            changed = self.module.apply(student, **adapt(job, self, student))
        except InputError as error:
            raise InputError(f"{self.where}: {error}") from error
        # A clone has new weights.
        return tf.keras.models.clone_model(changed) if self.from_scratch else changed


def steps(job: Job) -> list[Step]:
    """The steps of the config.

    Raises:
        InputError: For an unknown technique or key, and an order in which a technique undoes an
            earlier one.
    """
    entries = job.config.compression
    order.require_sequence([entry["technique"] for entry in entries])
    return [_step(job, number, entry) for number, entry in enumerate(entries, start=1)]


def untrained(job: Job, student: Any) -> Iterator[tuple[Stage, Any]]:
    """Each step's stage and what it would train, made of a student before training, for checks.

    Raises:
        InputError: For what does not fit together.
    """
    for step in steps(job):
        changed = _triable(step).apply(job, student)
        if step.stage is not None:
            yield step.stage, changed
        if step.technique != "pruning":  # whose zeros only training makes
            student = step.module.finish(changed)


def _triable(step: Step) -> Step:
    """The step with a goal that asks neither a clock nor trained weights."""
    arguments = dict(step.arguments)
    if "latency" in arguments:
        arguments["keep"] = _share(step, "latency")
        del arguments["latency"]
    if step.technique == "low_rank" and {"error", "energy"} & set(arguments):
        goals = [field.name for field in dataclasses.fields(Goals)]
        Goals(*(arguments.pop(name, None) for name in goals))  # refuses what is out of range
        arguments["multiply_adds"] = 0.9
    return dataclasses.replace(step, arguments=arguments)


def shaped(job: Job, student: Any) -> Any:
    """A student as the list leaves it but for its training, to be exported and measured.

    Raises:
        InputError: If a technique does not fit the student.
    """
    for step in steps(job):
        if step.technique != "pruning":  # which changes no shape
            student = step.module.finish(_triable(step).apply(job, student))
    return student


def shape_is_known(job: Job) -> bool:
    """Whether `shaped` has the trained student's layers: no step looks at weights or a clock."""
    return all(
        step.technique != "dead_channels" and _triable(step).arguments == step.arguments
        for step in steps(job)
    )


def latency(model: Any) -> float:
    """Microseconds that one inference of a model's float32 file takes on this host."""
    with tempfile.TemporaryDirectory(prefix="kd-latency-") as folder:
        path = tflite_export.convert(model, pathlib.Path(folder, "model.tflite"), "float32")
        return Device().latency(path, threads=1, runs=_RUNS)


def _step(job: Job, number: int, entry: Mapping[str, Any]) -> Step:
    technique, name = entry["technique"], f"{number}_{entry['technique']}"
    where = f"config.compression[{number - 1}], {technique}"
    arguments = {k: v for k, v in entry.items() if k not in STEP_KEYS}
    allowed = _arguments(technique)
    unknown = sorted(set(arguments) - set(allowed))
    if unknown:
        raise InputError(
            f"{where}: there is no key {unknown[0]!r}; there are: "
            f"{', '.join([*STEP_KEYS, *allowed])}"
        )
    stage = None
    if entry["epochs"]:
        own = {k: v for k, v in entry.items() if k in STEP_TERMS}
        stage = distillation.last_stage(
            job, name, own, epochs=entry["epochs"], optimizer=entry["optimizer"]
        )
    elif technique == "pruning":
        raise InputError(
            f"{where}: epochs 0 is not possible, since training prunes; give at least 1"
        )
    return Step(name, where, technique, arguments, bool(entry.get("from_scratch")), stage)


def _arguments(technique: str) -> list[str]:
    """The arguments of a technique that a config can give."""
    parameters = inspect.signature(getattr(compression, technique).apply).parameters
    extra = ["latency"] if "cost" in parameters else []
    return [name for name in parameters if name not in _NOT_IN_A_CONFIG] + extra


def _as_given(job: Job, step: Step, student: Any) -> dict[str, Any]:
    return dict(step.arguments)


def _for_pruning(job: Job, step: Step, student: Any) -> dict[str, Any]:
    if step.arguments.get("pattern"):
        return dict(step.arguments)
    epochs = step.stage.epochs if step.stage else 0
    last = max(1, int(epochs * job.steps_per_epoch * _PRUNED_BY))
    every = max(1, last // _PRUNINGS)
    return {**step.arguments, "begin_step": 0, "end_step": last, "frequency": every}


def _for_quantization(job: Job, step: Step, student: Any) -> dict[str, Any]:
    return {**step.arguments, "calibration": job.calibration_images()}


def _for_class_bias(job: Job, step: Step, student: Any) -> dict[str, Any]:
    validation = job.dataset.validation
    return {**step.arguments, "images": job.images(validation), "labels": validation.labels}


def _for_goals(job: Job, step: Step, student: Any) -> dict[str, Any]:
    """Shares of what the student has turned into numbers."""
    arguments = dict(step.arguments)
    for goal, count in _COUNTED.items():
        if isinstance(arguments.get(goal), float):
            arguments[goal] = int(_share(step, goal) * count(student))
    if "latency" in arguments:
        arguments["cost"] = latency
        arguments["at_most"] = _share(step, "latency") * latency(student)
        del arguments["latency"]
    return arguments


def _share(step: Step, goal: str) -> float:
    share = step.arguments[goal]
    if not 0 < share < 1:
        raise InputError(
            f"{goal} of {step.technique} is {share!r}; a share of what the student has is above 0 "
            "and below 1"
        )
    return share


_ADAPTED = {
    "pruning": _for_pruning,
    "quantization": _for_quantization,
    "filter_pruning": _for_goals,
    "low_rank": _for_goals,
    "class_bias": _for_class_bias,
}
