"""From a config's `distillation` section to the stages that train the student."""

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from kd_keras import methods
from kd_keras.adversarial import AdversarialDistiller
from kd_keras.conditional import ConditionalAdversarialDistiller
from kd_keras.distiller import Distiller
from kd_keras.errors import InputError
from kd_keras.pipeline import generations, optimizers
from kd_keras.pipeline.job import Job
from kd_keras.pipeline.staged import Stage

#: The distillers with a discriminator, by the key that holds their arguments.
_GAMES = {"adversarial": AdversarialDistiller, "conditional": ConditionalAdversarialDistiller}
_STAGE_KEYS = ("methods", "label_weight", *_GAMES, "trainable", "epochs", "optimizer")
_NOT_IN_A_CONFIG = ("seed", "projection", "projections")


def stages(job: Job) -> list[Stage]:
    """The stages of the config, in the order of their names; one, if it names none.

    Raises:
        InputError: For an unknown key, method or optimizer, listing those that exist.
    """
    return _stages(job, {})


def _stages(job: Job, changes: dict[str, Any]) -> list[Stage]:
    """The stages, with what is changed in the settings of each."""
    settings = job.config.distillation
    common = {**settings.to_dict(), "epochs": job.config.student.epochs}
    own, born_again = common.pop("stages"), common.pop("born_again")
    if own and born_again:
        raise InputError(
            "config.distillation has stages and born_again: a generation is trained in one stage; "
            "leave one of them out"
        )
    beside = [key for key in ("methods", *_GAMES) if own and common[key]]
    if beside:
        raise InputError(
            f"config.distillation has stages and, beside them, {beside[0]}: give each stage its "
            "own, or leave the stages out"
        )
    if own:
        names = sorted(own, key=_in_order)
        return [_stage(job, name, {**own[name], **changes}) for name in names]
    stage = _stage(job, "", {**common, **changes})
    return [generations.configured(born_again, stage) if born_again else stage]


def last_stage(
    job: Job, name: str, own: dict[str, Any], *, epochs: int, optimizer: Mapping[str, Any]
) -> Stage:
    """The stage that goes on with the whole student: the config's last, or one with its own terms.

    Args:
        job: The run.
        name: Of the stage.
        own: `methods`, `label_weight`, `adversarial` or `conditional`, as a stage has them. One
            that has no term but the labels weighs them by 1.
        epochs: Of the stage.
        optimizer: Its settings, as `config.student.optimizer` has them.
    """
    training = {"epochs": epochs, "optimizer": optimizer, "trainable": None}
    if not own:
        weight = {"label_weight": 1.0} if labels_only(job) else {}
        return dataclasses.replace(_stages(job, {**training, **weight})[-1], name=name)
    if not any(own.get(key) for key in ("methods", *_GAMES)) and "label_weight" not in own:
        own = {**own, "label_weight": 1.0}
    return _stage(job, name, {**own, **training})


def labels_only(job: Job) -> bool:
    """Whether a config distils nothing, so that its student is the student alone."""
    settings = job.config.distillation
    return not any(settings[key] for key in ("methods", *_GAMES, "stages", "born_again"))


def _in_order(name: str) -> list:
    """A key that puts "stage10" behind "stage9"."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _stage(job: Job, name: str, settings: dict[str, Any]) -> Stage:
    unknown = sorted(set(settings) - set(_STAGE_KEYS))
    if unknown:
        raise InputError(
            f"config.distillation.stages.{name} has no key {unknown[0]!r}; it has: "
            f"{', '.join(_STAGE_KEYS)}"
        )
    epochs = settings.get("epochs") or job.config.student.epochs
    optimizer = _optimizer(job, name, settings)
    distiller, d_rate = _distiller(job, settings)
    terms = methods.build(settings.get("methods", {}))
    # Asking for the teacher's accuracy would have it computed to its top.
    reads_logits = not terms or any(term.reads_logits for term in terms)
    stage = Stage(
        methods=terms,
        epochs=epochs,
        label_weight=settings.get("label_weight", job.config.distillation.label_weight),
        trainable=settings.get("trainable") or None,
        distiller=distiller,
        compile={"teacher_accuracy": reads_logits},
        name=name,
    )
    d_updates, updates = stage.updates_per_batch
    stage = dataclasses.replace(stage, optimizer=_laid_over(job, optimizer, epochs * updates))
    if d_rate is None:
        return stage
    # With the student's schedule: against a student that slows down, a D that does not wins.
    discriminators = {**optimizer, "name": "adam", "learning_rate": d_rate, "weight_decay": 0.0}
    make = _laid_over(job, ConfigDict(discriminators), epochs * d_updates)
    return dataclasses.replace(stage, compile={**stage.compile, "discriminator_optimizer": make})


def _laid_over(job: Job, settings: ConfigDict, epochs: int) -> Callable[[], Any]:
    """A function that makes an optimizer whose schedule lasts for the epochs."""
    return lambda: optimizers.make(settings, epochs=epochs, steps_per_epoch=job.steps_per_epoch)


def _optimizer(job: Job, name: str, settings: dict[str, Any]) -> ConfigDict:
    """The student's optimizer with what the stage changes."""
    common, own = job.config.student.optimizer, settings.get("optimizer", {})
    unknown = sorted(set(own) - set(common))
    if unknown:
        raise InputError(
            f"config.distillation.stages.{name}.optimizer has no key {unknown[0]!r}; it has: "
            f"{', '.join(common)}"
        )
    return ConfigDict({**common, **own})


def _distiller(job: Job, settings: dict[str, Any]) -> tuple[Any, float | None]:
    """The class of the distiller with its arguments, and its discriminator's learning rate."""
    asked = [key for key in _GAMES if settings.get(key)]
    if len(asked) > 1:
        raise InputError(
            f"config.distillation asks for {' and '.join(asked)}: a stage has one discriminator; "
            "leave one out, or give each a stage of its own"
        )
    if not asked:
        return Distiller, None
    [key] = asked
    arguments = dict(settings[key])
    rate = arguments.pop("discriminator_learning_rate", 1e-3)
    allowed = _arguments(_GAMES[key])
    unknown = sorted(set(arguments) - set(allowed))
    if unknown:
        raise InputError(
            f"config.distillation.{key} has no key {unknown[0]!r}; it has: "
            f"{', '.join([*allowed, 'discriminator_learning_rate'])}"
        )
    return functools.partial(_GAMES[key], seed=job.config.seed, **arguments), rate


def _arguments(distiller: Any) -> list[str]:
    """The keyword arguments of a distiller that a config can give."""
    parameters = inspect.signature(distiller.__init__).parameters.values()
    names = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    return [name for name in names if name not in _NOT_IN_A_CONFIG]
