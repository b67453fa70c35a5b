"""One generation of a network after the other, each taught by the one before."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kd_keras import data, models
from kd_keras import methods as all_methods
from kd_keras.distiller import Distiller
from kd_keras.errors import InputError
from kd_keras.methods.base import Method
from kd_keras.pipeline import fitting, networks, teaching
from kd_keras.pipeline.job import Job
from kd_keras.pipeline.progress import say
from kd_keras.pipeline.staged import Stage
from kd_keras.pipeline.workdir import Workdir, replacing
from kd_keras.teachers import Ensemble, Teacher, as_teacher, evaluation

#: The method of each variant, its hyperparameters, and the weight of the label loss beside it.
VARIANTS: dict[str, tuple[str, dict[str, Any], float]] = {
    "ban": ("soft_targets", {"temperature": 1.0}, 1.0),
    "cwtm": ("confidence_weighted_labels", {}, 0.0),
    "dkpp": ("permuted_soft_targets", {}, 0.0),
}
_KEYS = ("generations", "variant", "label_weight")


def configured(settings: Mapping[str, Any], stage: Stage) -> Stage:
    """The stage of every generation, from a config's `distillation.born_again`.

    Args:
        settings: `generations`, 3 by default; `variant` and `label_weight`, as `born_again` takes
            them. Without a variant, the generations learn by the methods of the config, and by
            "ban" if it has none.
        stage: What the rest of the config describes.

    Raises:
        InputError: For an unknown key or variant, and a variant beside other methods.
    """
    unknown = sorted(set(settings) - set(_KEYS))
    if unknown:
        raise InputError(
            f"config.distillation.born_again has no key {unknown[0]!r}; it has: {', '.join(_KEYS)}"
        )
    check_count(settings.get("generations", 3))
    own = bool(stage.methods) or stage.distiller is not Distiller
    variant = settings.get("variant")
    if own and variant:
        raise InputError(
            f"config.distillation has methods of its own beside born_again.variant {variant!r}: "
            "leave one of them out"
        )
    if not own:
        terms, weight = variant_terms(variant or "ban")
        stage = dataclasses.replace(stage, methods=terms, label_weight=weight)
    weight = settings.get("label_weight", stage.label_weight)
    return dataclasses.replace(stage, label_weight=weight)


def run(
    job: Job,
    stage: Stage,
    make: Callable[[Job, Stage, Any, Any], Distiller],
    fit: Callable[[Job, str, Stage, Distiller], Any],
) -> None:
    """The "student" stage of a run with `distillation.born_again`.

    The student is the last generation. Each lies in `student/generation1` and so on.

    Args:
        job: The run.
        stage: What `configured` gave.
        make: Function of job, stage, student and teacher that makes the distiller.
        fit: Function of job, folder, stage and distiller that trains it.
    """

    def train(number: int, teacher: Any, folder: str) -> Any:
        student = networks.build(job, job.config.student, job.config.seed + number)
        distiller = make(job, stage, student, teacher)
        fit(job, folder, stage, distiller)
        return distiller.student

    count = job.config.distillation.born_again.get("generations", 3)
    with job.strategy.scope():
        teacher = teaching.load_for_training(job)
        students = train_generations(count, teacher, job.workdir, train, within="student/")
    networks.save(job, students[-1], "student")


def accuracies(job: Job) -> dict[str, float]:
    """The accuracy on the test images of each generation of a run, and of their ensembles."""
    count = job.config.distillation.born_again.get("generations", 3)
    folders = [f"student/generation{number}" for number in range(1, count + 1)]
    students = [models.load_model(job.workdir.path(folder, networks.MODEL)) for folder in folders]
    batches = data.evaluation(
        job.dataset.test, batch_size=job.config.data.batch_size, normalization=job.normalization
    )
    teacher = teaching.load(job)
    return compare(teacher, students, lambda model: evaluation.accuracy(model, batches))


def train_generations(
    count: int,
    teacher: Any,
    workdir: Workdir,
    train: Callable[[int, Any, str], Any],
    *,
    within: str = "",
) -> list[Any]:
    """Generations 1 to `count`, each under the one before; those that are on disk are loaded.

    Args:
        count: How many.
        teacher: Generation 0.
        workdir: Where they are kept.
        train: Function of the generation's number, its teacher and its folder, that gives the
            trained student.
        within: The folder of the generations' folders, with a slash at its end.
    """
    students = []
    for number in range(1, count + 1):
        folder = f"{within}generation{number}"
        teacher = kept(workdir, folder, functools.partial(train, number, teacher, folder))
        students.append(teacher)
    return students


def kept(workdir: Workdir, folder: str, train: Callable[[], Any]) -> Any:
    """The model of a folder, which is trained and saved if it is not there yet."""
    path = workdir.path(folder, networks.MODEL)
    if path.exists():
        say(f"{folder}: done before")
        return models.load_model(path)
    model = train()
    with replacing(workdir.scratch(folder, networks.MODEL)) as temporary:
        model.save(temporary)
    fitting.forget(workdir, folder)
    return model


def compare(
    teacher: Any,
    students: Sequence[Any],
    accuracy: Callable[[Teacher], float],
    *,
    from_logits: bool = True,
) -> dict[str, float]:
    """The accuracies of `BornAgain.accuracies`, with the function that measures one."""
    generations = {name_of(number): model for number, model in enumerate((teacher, *students))}
    found = {
        name: accuracy(as_teacher(model, from_logits=from_logits))
        for name, model in generations.items()
    }
    for count in range(2, len(students) + 1):
        members = {name_of(number): students[number - 1] for number in range(1, count + 1)}
        found[f"Ens*{count}"] = accuracy(ensemble(members, from_logits))
    return found


def variant_terms(name: str) -> tuple[list[Method], float]:
    """The methods of a variant and the weight of its label loss.

    Raises:
        InputError: If there is no such variant.
    """
    if name not in VARIANTS:
        raise InputError(f"variant {name!r} does not exist; there are: {', '.join(VARIANTS)}")
    method, hyperparameters, label_weight = VARIANTS[name]
    return [all_methods.get(method)(**hyperparameters)], label_weight


def check_count(generations: Any) -> int:
    """Refuse a number of generations that is not at least 1."""
    if not (isinstance(generations, int) and generations >= 1):
        raise InputError(f"generations is {generations!r}; it must be a whole number from 1")
    return generations


def ensemble(members: Mapping[str, Any], from_logits: bool) -> Ensemble:
    """The ensemble of the generations by name: the mean of their softmax outputs."""
    teachers = {name: as_teacher(m, from_logits=from_logits) for name, m in members.items()}
    return Ensemble(teachers, mean="arithmetic")


def name_of(number: int) -> str:
    """What the paper calls a generation."""
    return f"BAN-{number}" if number else "teacher"
