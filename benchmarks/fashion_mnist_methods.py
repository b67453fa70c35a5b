"""Every method on 4,000 images of Fashion-MNIST: mean test accuracy over seeds, in one table.

    TF_USE_LEGACY_KERAS=1 python benchmarks/fashion_mnist_methods.py --seeds=0,1,2

The teacher, a ResNet-20, has seen all training images; the students see 4,000 of them (400 a class,
the same for every seed). The student is convnet-16-32-64 rather than LeNet-4: its stages have the
sizes and the channels of the teacher's, which FSP needs, so that all methods train one student.
Every row gets the same epochs, optimizer and learning rate (but FSP's first stage, whose rate was
chosen on the validation split); a row with stages divides the epochs.

Rows that are done are not run again: results lie below --workdir, and a killed row goes on.
`--split=validation` is for choosing hyperparameters; the test set is for the table.
"""

import argparse
import functools
import json
import math
import pathlib
import re
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

import kd_keras as kd
from kd_keras.pipeline import batches, fitting
from kd_keras.pipeline.workdir import Workdir, write_json
from kd_keras.teachers import as_teacher, evaluation

TEACHER, SECOND_TEACHER, STUDENT = "resnet20", "convnet-32-64-128", "convnet-16-32-64"
TEACHER_EPOCHS, BATCH, RATE = 4, 32, 5e-3
IMAGES_A_CLASS = 400
# At the rate of the other stages, FSP alone spoils the start that it is to give (see the table).
FSP_RATE = 2e-4
# The gradient of L1 does not grow with the error, so it wants a higher rate than the other rows.
L1_RATE = 1.5e-2
REMARKS = "<!-- the rest is written by hand -->"


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rows", default="", help="names, separated by ;, all by default")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--data_dir", default=None)
    parser.add_argument("--workdir", default="runs/fashion_mnist_methods")
    parser.add_argument("--split", default="test", choices=("test", "validation"))
    parser.add_argument("--write", default="", help="a Markdown file for the table")
    arguments = parser.parse_args()
    setting = Setting(arguments)
    names = arguments.rows.split(";") if arguments.rows else list(ROWS)
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    results = {name: [setting.result(name, seed, ROWS[name]) for seed in seeds] for name in names}
    text = table(results, setting.teacher_accuracies(), arguments)
    print(text)
    if arguments.write:
        write(pathlib.Path(arguments.write), text, results)


class Setting:
    """The data, the teachers and the folder of results."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.epochs = arguments.epochs
        self.root = pathlib.Path(arguments.workdir)
        self.data = kd.data.load("fashion_mnist", data_dir=arguments.data_dir)
        labels = np.asarray(self.data.train.labels)
        generator = np.random.default_rng(0)
        chosen = [
            generator.choice(np.flatnonzero(labels == c), IMAGES_A_CLASS, replace=False)
            for c in range(10)
        ]
        self.few = np.sort(np.concatenate(chosen))

    def arrays(self, split: str, rows: Any = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Normalized images, and labels."""
        part = getattr(self.data, split)
        images = (np.asarray(part.images[rows], np.float32) / 255 - 0.2860406) / 0.35302427
        return images, np.asarray(part.labels[rows])

    def result(self, name: str, seed: int, train: Callable) -> float:
        """The accuracy of a row for a seed, trained now or before."""
        folder = self.root / f"{self.epochs}_epochs" / _slug(name) / f"seed{seed}"
        path = folder / f"{self.arguments.split}.json"
        if path.exists():
            return json.loads(path.read_text())["accuracy"]
        print(f"--- {name}, seed {seed}", flush=True)
        model = train(Run(self, seed, folder))
        value = self.accuracy(model)
        write_json(path, {"accuracy": value})
        return value

    def accuracy(self, model: Any) -> float:
        """The share of right answers on the split that the table reads."""
        images, labels = self.arrays(self.arguments.split)
        return evaluation.accuracy(as_teacher(model), images, labels)

    @functools.cache  # noqa: B019 - one setting a process
    def teacher(self, name: str) -> Any:
        """A teacher trained on all training images."""
        folder = Workdir(self.root / "teachers" / name)
        path = folder.scratch("model.keras")
        if path.exists():
            return kd.models.load_model(path)
        model = network(name, seed=0)
        images, labels = self.arrays("train")
        epoch_batches, steps = batches.of(images, labels, batch_size=128, seed=0)
        model.compile(adam(TEACHER_EPOCHS * steps), label_loss(), ["accuracy"])
        fitting.fit(
            model,
            folder,
            "training",
            batches=epoch_batches,
            steps_per_epoch=steps,
            validation=None,
            epochs=TEACHER_EPOCHS,
            seed=0,
        )
        model.save(path)
        return model

    def teacher_accuracies(self) -> dict[str, float]:
        """The accuracy of each teacher."""
        return {name: self.accuracy(self.teacher(name)) for name in (TEACHER, SECOND_TEACHER)}


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


class Run:
    """One row for one seed."""

    def __init__(self, setting: Setting, seed: int, folder: pathlib.Path) -> None:
        self.setting, self.seed, self.folder = setting, seed, folder
        self.images, self.labels = setting.arrays("train", setting.few)
        self.steps = len(self.labels) // BATCH
        self.epochs = setting.epochs

    def student(self) -> Any:
        """The student before training; the same for every row of a seed."""
        return network(STUDENT, self.seed)

    def stages(self, *stages: kd.Stage, teacher: Any = None) -> Any:
        """The student, trained through stages."""
        student = self.student()
        kd.fit_stages(
            student,
            teacher or self.setting.teacher(TEACHER),
            stages,
            self.images,
            self.labels,
            loss=label_loss(),
            batch_size=BATCH,
            directory=self.folder,
            seed=self.seed,
        )
        return student

    def stage(
        self, *methods: Any, share: float = 1.0, rate: float = RATE, **kwargs: Any
    ) -> kd.Stage:
        """A stage that lasts a share of the epochs."""
        epochs = round(share * self.epochs)
        return kd.Stage(
            methods=methods,
            epochs=epochs,
            optimizer=functools.partial(adam, epochs * self.steps, rate),
            **kwargs,
        )


def network(name: str, seed: int) -> Any:
    """A network for Fashion-MNIST."""
    tf.keras.utils.set_random_seed(seed)
    return kd.models.build(name, classes=10, input_shape=(28, 28, 1))


def adam(steps: int, rate: float = RATE) -> Any:
    """The optimizer of all rows."""
    return tf.keras.optimizers.Adam(tf.keras.optimizers.schedules.CosineDecay(rate, steps))


def label_loss() -> Any:
    """Crossentropy from logits."""
    return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def alone(run: Run) -> Any:
    """The student with labels only."""
    return run.stages(run.stage(label_weight=1.0))


def soft(run: Run, teacher: Any = None) -> Any:
    """Soft targets with a tenth of the label loss."""
    method = kd.SoftTargets(temperature=4.0, weight=0.9)
    return run.stages(run.stage(method, label_weight=0.1), teacher=teacher)


def one(*methods: Any, **stage: Any) -> Callable[[Run], Any]:
    """A row of one stage."""
    return lambda run: run.stages(run.stage(*methods, **stage))


def fitnets(run: Run) -> Any:
    """A hint for a quarter of the epochs, then soft targets with a falling weight."""
    hint = kd.Hint(teacher_layer="stage2", student_layer="stage2")
    # The paper's lambda, 4 to 1, over the T^2 that SoftTargets has and the paper's term has not.
    falling = kd.SoftTargets(temperature=3.0, weight=kd.schedules.Linear(4 / 9, 1 / 9))
    return run.stages(
        run.stage(hint, share=0.25, trainable="stage2"),
        run.stage(falling, share=0.75, label_weight=1.0),
    )


def fsp(run: Run) -> Any:
    """The flow for a quarter of the epochs, then labels."""
    return run.stages(
        run.stage(kd.FSP(), share=0.25, rate=FSP_RATE, trainable="stage3"),
        run.stage(share=0.75, label_weight=1.0),
    )


def game(distiller: Any, *methods: Any, label_weight: float = 0.0, **arguments: Any) -> Callable:
    """A row of one stage with a discriminator."""
    compile_ = {
        "discriminator_optimizer": {"class_name": "Adam", "config": {"learning_rate": 1e-3}}
    }

    def train(run: Run) -> Any:
        make = functools.partial(distiller, seed=run.seed, **arguments)
        stage = run.stage(*methods, label_weight=label_weight, distiller=make, compile=compile_)
        return run.stages(stage)

    return train


def ensemble(mean: str) -> Callable[[Run], Any]:
    """Soft targets of both teachers."""

    def train(run: Run) -> Any:
        members = {name: run.setting.teacher(name) for name in (TEACHER, SECOND_TEACHER)}
        return soft(run, kd.Ensemble(members, mean=mean))

    return train


def standardized(run: Run) -> Any:
    """L2 on logits that are divided by the teacher's standard deviation of each class."""
    logits = run.setting.teacher(TEACHER).predict(run.images, verbose=0)
    return run.stages(run.stage(kd.LogitsL2(standardize=True).fitted_to(logits)))


def born_again(result: str) -> Callable[[Run], Any]:
    """Three generations of the student, the first under a student that was trained alone."""

    def train(run: Run) -> Any:
        found = kd.born_again(
            lambda: kd.models.build(STUDENT, classes=10, input_shape=(28, 28, 1)),
            3,
            run.images,
            run.labels,
            epochs=run.epochs,
            batch_size=BATCH,
            optimizer=functools.partial(adam, run.epochs * run.steps),
            loss=label_loss(),
            directory=run.folder.parents[1] / "born_again" / run.folder.name,
            seed=10 * run.seed,
        )
        return found.student if result == "last" else found.ensemble()

    return train


ROWS: dict[str, Callable[[Run], Any]] = {
    "student alone": alone,
    "SoftTargets": soft,
    "LogitsL2": one(kd.LogitsL2()),
    "LogitsL2, standardised": standardized,
    "LogitsL1": one(kd.LogitsL1()),
    "LogitsL1, three times the rate": one(kd.LogitsL1(), rate=L1_RATE),
    "LogitsL1 and labels": one(kd.LogitsL1(), label_weight=1.0),
    "FitNets (Hint, then SoftTargets)": fitnets,
    "FSP, then labels": fsp,
    "labels for as long as after FSP": one(share=0.75, label_weight=1.0),
    "AdversarialDistiller, features": game(kd.AdversarialDistiller, kd.LogitsL2(weight=2.0)),
    "AdversarialDistiller, logits": game(
        kd.AdversarialDistiller, kd.LogitsL2(weight=2.0), teacher_layer=None, student_layer=None
    ),
    "ConditionalAdversarialDistiller": game(
        kd.ConditionalAdversarialDistiller, kd.LogitsL1(), label_weight=1.0
    ),
    "ConfidenceWeightedLabels": one(kd.ConfidenceWeightedLabels()),
    "PermutedSoftTargets": one(kd.PermutedSoftTargets()),
    "SoftTargets, ensemble (arithmetic)": ensemble("arithmetic"),
    "SoftTargets, ensemble (geometric)": ensemble("geometric"),
    "born-again, generation 3": born_again("last"),
    "born-again, ensemble of 3": born_again("ensemble"),
}


def table(
    results: dict[str, list[float]], teachers: dict[str, float], arguments: argparse.Namespace
) -> str:
    """The results as Markdown: mean and standard error, and the distance from the student alone."""
    seeds = arguments.seeds.count(",") + 1
    alone_mean, alone_error = mean_and_error(results.get("student alone", [math.nan]))
    command = f"python benchmarks/fashion_mnist_methods.py --seeds={arguments.seeds}"
    lines = [
        f"# Every method on 4,000 images of Fashion-MNIST\n\n{arguments.epochs} epochs, "
        f"{seeds} seeds, {arguments.split} accuracy in %, mean ± standard error, last epoch. ",
        "Teachers, trained on all 54,000 training images: "
        + ", ".join(f"{name} {100 * value:.2f}" for name, value in teachers.items())
        + f". Student: {STUDENT}.\n\n    {command} --epochs={arguments.epochs}\n",
        "| row | accuracy | against the student alone | of its standard errors |",
        "|---|---|---|---|",
    ]
    for name, values in results.items():
        mean, error = mean_and_error(values)
        gap, spread = mean - alone_mean, math.hypot(error, alone_error)
        against = "" if name == "student alone" else f"{gap:+.2f} | {gap / spread:+.1f}"
        lines.append(f"| {name} | {mean:.2f} ± {error:.2f} | {against or ' | '} |")
    return "\n".join(lines) + "\n"


def write(path: pathlib.Path, text: str, results: dict[str, list[float]]) -> None:
    """Put the table into a file, above what is written there by hand, and the results beside."""
    old = path.read_text() if path.exists() else ""
    remarks = old.partition(REMARKS)[2]
    path.write_text(f"{text}\n{REMARKS}{remarks}")
    path.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """In %."""
    if len(values) < 2:
        return 100 * values[0], math.nan
    return 100 * statistics.mean(values), 100 * statistics.stdev(values) / math.sqrt(len(values))


if __name__ == "__main__":
    main()
