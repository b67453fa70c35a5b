"""What a step of each method costs, as a ratio to a step with soft targets; and a short teacher.

    TF_USE_LEGACY_KERAS=1 python benchmarks/methods.py

ResNet-56 teaches ResNet-20 on CIFAR shapes, batch 64. Each ratio is the median over rounds in which
the two steps take turns in one process. `--write` keeps the ratios in docs/methods_cost.json, from
which `python docs/methods.py` makes the table in docs/methods.md.

The last line shows that a teacher's layers above the highest one that is read cost nothing: a hint
from the teacher's first stage, with the student trained up to its first stage, against the same
with the teacher's logits read as well.
"""

import argparse
import functools
import json
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

import kd_keras as kd
from kd_keras.methods.base import Method
from kd_keras.parts import training_only

BATCH, CLASSES = 64, 10
COSTS = pathlib.Path(__file__).parents[1] / "docs" / "methods_cost.json"


def main() -> None:
    """Measure, print and, if asked, keep the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    base = step(plain(kd.methods.get("soft_targets")()))
    measured = {}
    for name, make in {**method_steps(), **game_steps()}.items():
        measured[name] = ratio(make(), base, arguments.rounds)
        show(name, measured[name])
    short = ratio(short_teacher_step(False), short_teacher_step(True), arguments.rounds)
    show("hint of the first stage / with the teacher's logits", short)
    if arguments.write:
        measured["truncated_teacher"] = short
        COSTS.write_text(json.dumps(measured, indent=2) + "\n")


def show(name: str, figure: dict[str, Any]) -> None:
    """Print one ratio."""
    first, third = figure["quartiles"]
    print(f"{name:56}{figure['median']:7.3f}   quartiles {first:.3f} to {third:.3f}", flush=True)


def method_steps() -> dict[str, Callable[[], Callable]]:
    """A step with each method alone."""
    return {name: functools.partial(method_step, name) for name in kd.methods.names()}


def method_step(name: str) -> Callable[[], Any]:
    """A step with a method alone, at its default settings."""
    return step(plain(kd.methods.get(name)()))


def game_steps() -> dict[str, Callable[[], Callable]]:
    """A step of each distiller with a discriminator."""
    return {
        "adversarial": lambda: step(kd.AdversarialDistiller(student(), teacher())),
        "conditional": lambda: step(kd.ConditionalAdversarialDistiller(student(), teacher())),
    }


def plain(method: Method) -> Any:
    """A distiller with one method and nothing else."""
    return kd.Distiller(student(), teacher(), [method], label_weight=0.0)


def teacher() -> Any:
    """The same teacher for all, with random weights."""
    return network("resnet56")


def student() -> Any:
    """A student for each."""
    return network("resnet20")


def network(name: str) -> Any:
    """A CIFAR network."""
    return kd.models.build(name, classes=CLASSES, input_shape=(32, 32, 3))


def short_teacher_step(with_logits: bool) -> Callable[[], Any]:
    """A step of a hint from the teacher's first stage to the student's."""

    class HintAndLogits(kd.Hint):
        """The hint, and the teacher's logits times nothing."""

        def __call__(self, teacher: Any, *rest: Any) -> tf.Tensor:
            unused = tf.reduce_sum(teacher.logits, axis=-1)
            return super().__call__(teacher, *rest) + 1e-9 * unused

    kind = HintAndLogits if with_logits else kd.Hint
    model = student()
    with training_only(model, "stage1"):
        distiller = kd.Distiller(
            model, teacher(), [kind(teacher_layer="stage1", student_layer="stage1")], 0.0
        )
        return step(distiller)


def step(distiller: Any) -> Callable[[], Any]:
    """One training step of a distiller, as its `fit` takes it."""
    arguments = {"jit_compile": False, "loss": None}
    if hasattr(distiller, "discriminator"):
        arguments["discriminator_optimizer"] = sgd()
    if isinstance(distiller, kd.ConditionalAdversarialDistiller):
        arguments["loss"] = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(sgd(), **arguments)
    function = distiller.make_train_function() or distiller.train_function  # Keras 3 keeps it
    iterator = iter(tf.data.Dataset.from_tensors(batch()).repeat())

    def run() -> list:
        return [value.numpy() for value in function(iterator).values()]

    run()  # traced while the caller's part of the student is the one to train
    return run


def batch() -> tuple[tf.Tensor, tf.Tensor]:
    """Random images and labels."""
    images = tf.random.stateless_normal((BATCH, 32, 32, 3), seed=(0, 0))
    labels = tf.random.stateless_uniform((BATCH,), seed=(0, 1), maxval=CLASSES, dtype=tf.int32)
    return images, labels


def sgd() -> Any:
    """The same optimizer for all."""
    return tf.keras.optimizers.SGD(0.001, momentum=0.9)


def ratio(ours: Callable, other: Callable, rounds: int) -> dict[str, Any]:
    """The time of one step over another's, turn by turn."""
    ours(), other()
    ratios = []
    for number in range(rounds):
        turns = [ours, other] if number % 2 else [other, ours]
        seconds = {turn: timed(turn) for turn in turns}
        ratios.append(seconds[ours] / seconds[other])
    first, median, third = statistics.quantiles(ratios, n=4)
    return {"median": median, "quartiles": [first, third]}


def timed(run: Callable) -> float:
    """Seconds of two steps."""
    begun = time.perf_counter()
    run()
    run()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
