"""A student's training in stages, each with its own methods, part of the student and optimizer.

FitNets are two stages: a hint for the lower part, then soft targets for the whole. So is FSP.
"""

import contextlib
import dataclasses
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from kd_keras import schedules, taps
from kd_keras.data.views import Views
from kd_keras.distiller import Distiller
from kd_keras.errors import InputError
from kd_keras.labels import check_values
from kd_keras.methods.base import Method
from kd_keras.parts import Part, training_only, variables_behind
from kd_keras.pipeline import batches, fitting, provenance
from kd_keras.pipeline.workdir import Workdir
from kd_keras.schedules import Schedule, Scheduled
from kd_keras.teachers import as_teacher


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of a student's training.

    Attributes:
        methods: The terms of the loss beside the label loss. Schedules without `steps` last for
            the stage.
        epochs: Number of epochs.
        label_weight: Factor of the label loss.
        trainable: The part of the student that is trained: None for all of it, a layer's name for
            all up to that layer, a sequence of names for just those layers. What is not trained
            is frozen, as `layer.trainable = False` freezes it.
        optimizer: Name of an optimizer, or a function without arguments that makes one.
        distiller: What is trained: `Distiller`, or one of its subclasses; `functools.partial` gives
            it arguments.
        compile: More arguments of the distiller's `compile`; a `discriminator_optimizer` may be,
            like `optimizer`, a function that makes one.
        name: Of the stage, in folders and logs; by default "stage1", "stage2", ...

    Example:
        >>> import kd_keras as kd
        >>> hints = kd.Stage([kd.Hint(teacher_layer="stage2", student_layer="stage2")],
        ...                  trainable="stage2")
        >>> soft = kd.Stage([kd.SoftTargets(temperature=3.0)], label_weight=1.0, epochs=20)
    """

    methods: Sequence[Method] = ()
    epochs: int = 10
    label_weight: Scheduled = 0.0
    trainable: Part = None
    optimizer: str | Callable[[], Any] = "adam"
    distiller: Callable[..., Distiller] = Distiller
    compile: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        if not (isinstance(self.epochs, int) and self.epochs >= 1):
            raise InputError(
                f"epochs of a stage is {self.epochs!r}; it must be a whole number from 1"
            )
        if not re.fullmatch(r"[\w.-]*", self.name) or set(self.name) == {"."}:
            raise InputError(
                f"a stage is called {self.name!r}; its name is a folder's: use letters, digits, "
                "'_', '-' and '.'"
            )
        if not self.methods and not self.label_weight and self.distiller is Distiller:
            raise InputError(
                f"stage {self.name!r} has nothing to learn from: give it methods, or a "
                "label_weight above 0"
            )

    def make_distiller(self, student: Any, teacher: Any, steps_per_epoch: int) -> Distiller:
        """The distiller of the stage, not compiled.

        Raises:
            InputError: If the models do not fit the methods.
        """
        steps = self.epochs * steps_per_epoch * self.updates_per_batch[1]
        methods = [method.scheduled_over(steps) for method in self.methods]
        weight = schedules.get(self.label_weight, name="label_weight")
        arguments = {
            name: value.over(steps)
            for name, value in getattr(self.distiller, "keywords", {}).items()
            if isinstance(value, Schedule)
        }
        weight = weight.over(steps) if isinstance(weight, Schedule) else weight
        return self.distiller(student, teacher, methods, weight, **arguments)

    @property
    def updates_per_batch(self) -> tuple[int, int]:
        """How often a batch updates D and the student, as a distiller's `update_ratio` says."""
        return getattr(self.distiller, "keywords", {}).get("update_ratio", (1, 1))

    @property
    def reads_layers_only(self) -> bool:
        """Whether the student's loss is computed from inner layers alone."""
        logits_are_read = any(method.reads_logits for method in self.methods)
        return self.distiller is Distiller and not (logits_are_read or self.label_weight)

    def fitted_to(self, teacher_logits: Callable[[], Any]) -> "Stage":
        """The stage with what its methods have to know of the teacher's logits.

        Args:
            teacher_logits: Gives the logits over the training set; called only if a method asks.
        """
        if all(method.fitted for method in self.methods):
            return self
        methods = [method.fitted_to(teacher_logits()) for method in self.methods]
        return dataclasses.replace(self, methods=methods)

    def make_optimizer(self) -> Any:
        """A new optimizer."""
        return _made(self.optimizer)

    def compile_arguments(self) -> dict[str, Any]:
        """The arguments of the distiller's `compile`, with new optimizers."""
        arguments = {"optimizer": self.make_optimizer(), **self.compile}
        if "discriminator_optimizer" in arguments:
            arguments["discriminator_optimizer"] = _made(arguments["discriminator_optimizer"])
        return arguments


def _made(optimizer: Any) -> Any:
    return optimizer() if callable(optimizer) else optimizer


def fit_stages(
    student: Any,
    teacher: Any,
    stages: Sequence[Stage],
    x: Any,
    y: Any = None,
    *,
    loss: Any = None,
    metrics: Any = None,
    batch_size: int = 32,
    validation_data: Any = None,
    directory: str | os.PathLike | None = None,
    seed: int = 0,
) -> dict[str, list[dict[str, float]]]:
    """Train a student in stages; each begins with the weights that the one before has left.

    Args:
        student: The model to train.
        teacher: The model to learn from, or several; see `Distiller`.
        stages: The stages, in order.
        x: Inputs, `kd_keras.data.Views`, or a `tf.data.Dataset` of batches.
        y: Labels, if x is an array.
        loss: The label loss, for stages with a `label_weight`.
        metrics: Metrics of the student's output.
        batch_size: The batch, for arrays; an epoch leaves out what does not fill its last one.
        validation_data: As in `tf.keras.Model.fit`.
        directory: Where checkpoints and logs are kept. A training that was killed goes on there,
            between and within stages, when it is called again with the same arguments. It ends with
            the weights of one that was not killed; a student with dropout layers does so under
            tf_keras only if `tf.keras.backend.experimental.enable_tf_random_generator()` was called
            before it was built.
        seed: Of orders, dropout and projections.

    Returns:
        The logs of each epoch, by the stage's name.

    Raises:
        InputError: Before any training, if a stage does not fit the models, or the directory was
            made with other arguments.
    """
    _, steps_per_epoch = batches.of(x, y, batch_size=batch_size, seed=seed)

    def make(stage: Stage) -> Distiller:
        tf.keras.utils.set_random_seed(seed)
        with fitting.resettable_noise():
            distiller = stage.make_distiller(student, teacher, steps_per_epoch)
        _check_labels(distiller, loss, x, y)
        return distiller

    def fit(name: str, stage: Stage, distiller: Distiller) -> list[dict[str, float]]:
        distiller.compile(loss=loss, metrics=metrics, **stage.compile_arguments())
        taught = as_teacher(distiller.teacher, from_logits=distiller.teacher_from_logits)
        epoch_batches, _ = batches.of(x, y, batch_size=batch_size, seed=seed, teacher=taught)
        return fitting.fit(
            distiller,
            workdir,
            name,
            batches=epoch_batches,
            steps_per_epoch=steps_per_epoch,
            validation=validation_data,
            epochs=stage.epochs,
            seed=seed,
        )

    made_of: dict[str, Any] = {
        "stages": {name: provenance.of_stage(stage) for name, stage in by_name(stages).items()},
        "loss": loss,
        "batch_size": batch_size,
        "seed": seed,
        "data": [x, y],
        "teacher": teacher,
        "student": student,
    }
    with contextlib.ExitStack() as stack:
        folder = directory or stack.enter_context(tempfile.TemporaryDirectory(prefix="kd-stages-"))
        workdir = Workdir(folder)
        stack.enter_context(workdir.locked())
        check(student, stages, make)
        provenance.adopt(workdir, made_of)
        return run(student, stages, make, fit)


def run(
    student: Any,
    stages: Sequence[Stage],
    make: Callable[[Stage], Distiller],
    fit: Callable[[str, Stage, Distiller], list[dict[str, float]]],
) -> dict[str, list[dict[str, float]]]:
    """Train a student through the stages, with the caller's way to make and fit a distiller."""
    logs = {}
    for name, stage in by_name(stages).items():
        with training_only(student, stage.trainable):
            logs[name] = fit(name, stage, make(stage))
    return logs


def check(student: Any, stages: Sequence[Stage], make: Callable[[Stage], Distiller]) -> None:
    """Refuse stages that do not fit the models, before any of them trains.

    Raises:
        InputError: If a distiller cannot be made, or a stage trains what no term reads.
    """
    for name, stage in by_name(stages).items():
        with training_only(student, stage.trainable):
            make(stage)
            if stage.reads_layers_only:
                layers = {path for method in stage.methods for path in method.student_layers}
                behind = set().union(*(variables_behind(student, path) for path in layers))
                if not behind & {id(variable) for variable in student.trainable_variables}:
                    raise InputError(
                        f"stage {name!r} has nothing to train: no term depends on the part "
                        f"{stage.trainable!r}; train up to {sorted(layers)[0]!r}"
                    )


def _check_labels(distiller: Distiller, loss: Any, x: Any, y: Any) -> None:
    """Refuse a stage whose terms ask for labels that are not there, or that are out of range."""
    weighs_labels = max(schedules.extremes(distiller.label_weight)) > 0
    if weighs_labels and loss is None:
        raise InputError(
            f"label_weight is {distiller.label_weight} but there is no label loss: give loss=, or "
            "label_weight=0 to learn without labels"
        )
    if isinstance(x, Views):
        y = x.y
    is_dataset = isinstance(x, tf.data.Dataset)
    has_labels = len(tf.nest.flatten(x.element_spec)) > 1 if is_dataset else y is not None
    if (weighs_labels or distiller.needs_labels) and not has_labels:
        raise InputError(
            "a stage learns from labels, but the data has none: give y, or label_weight=0 and "
            "methods that need none"
        )
    check_values(y, taps.classes_of(distiller.student))


def by_name(stages: Sequence[Stage]) -> dict[str, Stage]:
    """The stages by their names.

    Raises:
        InputError: If there are none, or two of one name.
    """
    if not stages:
        raise InputError("there are no stages: give at least one kd.Stage")
    names = [stage.name or f"stage{number}" for number, stage in enumerate(stages, start=1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"two stages are called {twice[0]!r}; give one of them another name=")
    return dict(zip(names, stages, strict=True))
