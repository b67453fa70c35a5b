"""What a cache of the teacher's outputs costs and saves: ratios in one run, and peak memory.

    TF_USE_LEGACY_KERAS=1 python benchmarks/teacher_cache.py [--write]
    TF_USE_LEGACY_KERAS=1 python benchmarks/teacher_cache.py --memory [--write]

ResNet-56 teaches ResNet-20 with soft targets on CIFAR shapes, batch 128, random flips and crops,
one view an example. All sides take their turn in every round of one process; a ratio is the median
over the rounds, with its quartiles. The clock runs while batches are computed: what comes before,
tracing above all, costs the same for any number of examples and is shown by itself, as "start".

`--memory` fills a cache of four views in a fresh process each, from a memory-mapped file of as many
random images as CIFAR-10 has and of four times as many, with a small teacher so that it ends in
minutes; and with ResNet-56, whose activations are larger, on fewer. It needs Linux.

`--write` keeps the figures in docs/results/teacher_cache.json.
"""

import argparse
import contextlib
import functools
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import tensorflow as tf

import kd_keras as kd
from kd_keras.teachers import caching

BATCH, CLASSES, SHAPE = 128, 10, (32, 32, 3)
CIFAR_EXAMPLES, MEMORY_VIEWS = 50_000, 4
#: Teacher and number of examples of each measurement of memory; the first two are compared.
MEMORY_RUNS = (
    ("resnet8", CIFAR_EXAMPLES),
    ("resnet8", 4 * CIFAR_EXAMPLES),
    ("resnet56", 4096),
)
RESULTS = pathlib.Path(__file__).parents[1] / "docs" / "results" / "teacher_cache.json"
CACHED, CACHING = "cached epoch / label-only epoch", "caching pass / teacher's forward pass"
FIRST_EPOCH, RESIDENT = "caching + first cached epoch / live epoch", "resident, MB"
GOALS = {
    CACHED: 1.05,
    CACHING: 1.10,
    FIRST_EPOCH: 1.05,
    RESIDENT: 1500.0,
    "resident, 4 x the examples / 1 x": 1.05,
    "anonymous, 4 x the examples / 1 x": 1.05,
}


def main() -> None:
    """Measure, print and, if asked, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--data_dir", help="take CIFAR-10 of TensorFlow Datasets from here")
    parser.add_argument("--memory", action="store_true", help="measure memory instead of time")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--filled_from", help=argparse.SUPPRESS)
    parser.add_argument("--teacher", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.filled_from:
        print(json.dumps(memory_of_filling(arguments.filled_from, arguments.teacher)))
        return
    if arguments.memory:
        name, figures = "memory", memory()
    else:
        name, figures = "speed", speed(arguments)
    if arguments.write:
        kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps({**kept, name: figures}, indent=1) + "\n")


# Time.


def speed(arguments: argparse.Namespace) -> dict[str, Any]:
    """All sides turn by turn, and the table of their ratios."""
    if arguments.examples % BATCH or arguments.rounds < 3:
        raise SystemExit(f"give --examples as a multiple of {BATCH}, and at least 3 --rounds")
    with tempfile.TemporaryDirectory() as folder:
        sides = Sides(*examples(arguments), pathlib.Path(folder))
        turns = [getattr(sides, name) for name in Sides.NAMES]
        for turn in turns:
            turn(0)
        rounds = [one_round(turns, number) for number in range(1, arguments.rounds + 1)]
    figures = {
        "settings": {
            **settings(),
            "examples": arguments.examples,
            "batch": BATCH,
            "images": "CIFAR-10" if arguments.data_dir else "random",
            "rounds": arguments.rounds,
        },
        "ratios": summaries([ratios(one, arguments.examples) for one in rounds]),
        "seconds": summaries(rounds),
    }
    show_speed(figures)
    return figures


def examples(arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8, and labels: random, or those of CIFAR-10."""
    if arguments.data_dir:
        data = kd.data.load("cifar10", data_dir=arguments.data_dir, limit=arguments.examples)
        return np.asarray(data.train.images), np.asarray(data.train.labels)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (arguments.examples, *SHAPE), dtype=np.uint8)
    return images, generator.integers(0, CLASSES, arguments.examples)


def views_of(x: np.ndarray, y: Any = None, *, count: int = 1) -> Any:
    """The views of the recipe of the CIFAR papers."""
    return kd.data.Views(
        *(x, y),
        count=count,
        normalization=kd.data.Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        augmentation=kd.data.Augmentation({"horizontal_flip": {}, "pad_and_crop": {}}, CLASSES),
    )


class Sides:
    """What is measured. Each turn gives seconds by name; `epoch` numbers the turns from 0."""

    NAMES = ("label_only", "cached", "live", "caching", "forward", "predict")

    def __init__(self, x: np.ndarray, y: np.ndarray, folder: pathlib.Path) -> None:
        self.x, self.views, self.folder = x, views_of(x, y), folder
        self.teacher = teaching_network("resnet56")
        caching.fill(self.teacher, self.views, folder / "taught")
        self.students = {
            "label_only": network("resnet20"),
            "cached": distiller(caching.Cached(folder / "taught")),
            "live": distiller(self.teacher),
        }
        for model in self.students.values():
            loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            optimizer = tf.keras.optimizers.SGD(0.01, momentum=0.9)
            model.compile(optimizer, loss, jit_compile=False)
        self._forward = forward_pass(self.teacher)

    def label_only(self, epoch: int) -> dict[str, float]:
        """The student alone, by Keras' own `fit`."""
        span = {"first_epoch": epoch, "epochs": epoch + 1}
        batches = functools.partial(self.views.batches, batch_size=BATCH, **span)
        return self._epoch("label_only", batches, shuffle=False)

    def cached(self, epoch: int) -> dict[str, float]:
        """The student under the cached teacher."""
        span = {"initial_epoch": epoch, "epochs": epoch + 1}
        return self._epoch("cached", lambda: self.views, batch_size=BATCH, **span)

    def live(self, epoch: int) -> dict[str, float]:
        """The student under the teacher that runs."""
        span = {"initial_epoch": epoch, "epochs": epoch + 1}
        return self._epoch("live", lambda: self.views, batch_size=BATCH, **span)

    def caching(self, epoch: int) -> dict[str, float]:
        """A new cache, from new views, whose checksum is not known yet."""
        begun = time.perf_counter()
        with time_of_writing() as clock:
            caching.fill(self.teacher, views_of(self.x), self.folder / f"cache{epoch}")
        filled = time.perf_counter()
        caching.Cached(self.folder / f"cache{epoch}")
        verified = time.perf_counter() - filled
        seconds = clock[-1] - clock[0]
        return {"caching": seconds, "caching start": filled - begun - seconds, "verify": verified}

    def forward(self, epoch: int) -> dict[str, float]:
        """The floor: the teacher's forward pass over the same batches, its results in memory."""
        batches = iter(self._in_order())
        begun = time.perf_counter()
        for x in batches:
            self._forward(x).numpy()
        return {"forward": time.perf_counter() - begun}

    def predict(self, epoch: int) -> dict[str, float]:
        """The same by Keras' own `predict`."""
        clock = Clock()
        self.teacher.predict(self._in_order(), verbose=0, callbacks=[clock])
        return {"predict": clock.seconds}

    def _in_order(self) -> tf.data.Dataset:
        starts = np.arange(0, len(self.x), BATCH)
        return self.views.in_order(np.stack([np.zeros_like(starts), starts, starts + BATCH], 1))

    def _epoch(self, name: str, data: Callable[[], Any], **kwargs: Any) -> dict[str, float]:
        clock = Clock()
        begun = time.perf_counter()
        self.students[name].fit(data(), verbose=0, callbacks=[clock], **kwargs)
        whole = time.perf_counter() - begun
        return {name: clock.seconds, f"{name} start": whole - clock.seconds}


class Clock(tf.keras.callbacks.Callback):
    """Seconds of the last epoch of `fit`, or of `predict`, without the making of the stream."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start."""
        self.seconds = -time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Stop."""
        self.seconds += time.perf_counter()

    def on_predict_begin(self, logs: Any = None) -> None:
        """Start."""
        self.on_epoch_begin(0)

    def on_predict_end(self, logs: Any = None) -> None:
        """Stop."""
        self.on_epoch_end(0)


@contextlib.contextmanager
def time_of_writing() -> Iterator[list[float]]:
    """The times at which `caching.fill` begins the first and ends the last of its files."""
    real = caching.shards.writing
    clock: list[float] = []

    @contextlib.contextmanager
    def timed(*args: Any) -> Iterator[Any]:
        clock.append(time.perf_counter())
        with real(*args) as append:
            yield append
        clock.append(time.perf_counter())

    with mock.patch.object(caching.shards, "writing", timed):
        yield clock


def network(name: str) -> Any:
    """A CIFAR network with random weights."""
    return kd.models.build(name, classes=CLASSES, input_shape=SHAPE)


def teaching_network(name: str) -> Any:
    """The same with logits of the size that trained ones have.

    Without trained statistics in its BatchNorms a deep network's reach 100,000, which float16 does
    not hold.
    """
    model = network(name)
    logits = model.get_layer("logits")
    logits.set_weights([1e-4 * weight for weight in logits.get_weights()])
    return model


def distiller(teacher: Any) -> Any:
    """ResNet-20 under a teacher, from soft targets and labels."""
    methods = [kd.SoftTargets(temperature=4.0, weight=0.9)]
    return kd.Distiller(network("resnet20"), teacher, methods, label_weight=0.1)


def forward_pass(model: Any) -> Callable[[tf.Tensor], tf.Tensor]:
    """The forward pass of a model and nothing else, traced."""
    signature = [tf.TensorSpec([None, *SHAPE], tf.float32)]

    @tf.function(input_signature=signature)
    def forward(x: tf.Tensor) -> tf.Tensor:
        return model(x, training=False)

    return forward


def one_round(turns: list[Callable], number: int) -> dict[str, float]:
    """The seconds of all sides, which begin with another one in every round."""
    first = number % len(turns)
    seconds: dict[str, float] = {}
    for turn in turns[first:] + turns[:first]:
        seconds |= turn(number)
    return seconds


def ratios(seconds: dict[str, float], examples: int) -> dict[str, float]:
    """What is compared, of one round."""
    fill, cached, live = (seconds[name] for name in ("caching", "cached", "live"))
    start = seconds["caching start"] * examples / CIFAR_EXAMPLES
    return {
        CACHED: cached / seconds["label_only"],
        "live epoch / label-only epoch": live / seconds["label_only"],
        CACHING: fill / seconds["forward"],
        "caching pass / model.predict": fill / seconds["predict"],
        FIRST_EPOCH: (fill + cached) / live,
        "the same of 50,000 examples, with start": (start + fill + cached) / live,
        "epochs after which a view has paid": fill / (live - cached),
    }


def summaries(rounds: list[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Median and quartiles over the rounds."""
    found = {}
    for name in rounds[0]:
        first, median, third = statistics.quantiles([one[name] for one in rounds], n=4)
        found[name] = {"median": median, "quartiles": [first, third]}
    return found


def show_speed(figures: dict[str, Any]) -> None:
    """Print the ratios with their goals, and the seconds of a turn."""
    print(f"{'':44}{'median':>8}{'goal':>10}   quartiles")
    for name, figure in figures["ratios"].items():
        show(name, figure["median"], "{:8.3f}", figure["quartiles"])
    print("\nseconds a turn")
    for name, figure in figures["seconds"].items():
        show(name, figure["median"], "{:8.3f}", figure["quartiles"])


def show(name: str, value: float, form: str, quartiles: list[float] | None = None) -> None:
    """Print a figure, its goal if it has one, and its spread."""
    goal = GOALS.get(name)
    verdict = "" if goal is None else f"{'<=' if value <= goal else 'MISSED'} {goal:g}"
    spread = " to ".join(form.format(one).strip() for one in quartiles or [])
    print(f"{name:44}{form.format(value)}{verdict:>13}   {spread}".rstrip(), flush=True)


def settings() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "tf_keras": os.environ.get("TF_USE_LEGACY_KERAS") == "1",
    }


# Memory.


def memory() -> dict[str, Any]:
    """Fill caches in processes of their own, and print the table of their peaks."""
    runs = [filled_elsewhere(teacher, examples) for teacher, examples in MEMORY_RUNS]
    small, large = runs[0], runs[1]
    growth = {
        f"{kind}, 4 x the examples / 1 x": large["peak"][kind] / small["peak"][kind]
        for kind in ("resident", "anonymous")
    }
    figures = {"settings": settings(), "runs": runs, "growth": growth}
    show_memory(figures)
    return figures


def filled_elsewhere(teacher: str, examples: int) -> dict[str, Any]:
    """What a fresh process needs to cache four views of a mapped file of images."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "images.npy"
        write_images(path, examples)
        command = [sys.executable, __file__, f"--filled_from={path}", f"--teacher={teacher}"]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        data = path.stat().st_size / 1e6
    own = json.loads(result.stdout.splitlines()[-1])
    return {"teacher": teacher, "examples": examples, "data": data, **own}


def write_images(path: pathlib.Path, examples: int) -> None:
    """Random images in a `.npy` file, a block at a time."""
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (examples, *SHAPE))
    generator = np.random.default_rng(0)
    for first in range(0, examples, 8192):
        block = images[first : first + 8192]
        block[:] = generator.integers(0, 256, block.shape, dtype=np.uint8)
    images.flush()


def memory_of_filling(path: str, teacher: str) -> dict[str, Any]:
    """Fill a cache in this process; its memory before and at the highest, in MB, and the time."""
    views = views_of(np.load(path, mmap_mode="r"), count=MEMORY_VIEWS)
    model = teaching_network(teacher)
    before, peak, stopped = memory_now(), memory_now(), threading.Event()

    def watch() -> None:
        while not stopped.wait(0.02):
            for kind, value in memory_now().items():
                peak[kind] = max(peak[kind], value)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begun = time.perf_counter()
    try:
        caching.fill(model, views, pathlib.Path(path).parent / "cache")
    finally:
        stopped.set()
        watcher.join()
    seconds = time.perf_counter() - begun
    return {"before": before, "peak": peak, "seconds": seconds}


def memory_now() -> dict[str, float]:
    """What of this process lies in memory, in MB: what it owns, and pages of files it has mapped.

    The second kind belongs to the page cache: it is there as long as nobody needs the room.
    """
    names = {"VmRSS": "resident", "RssAnon": "anonymous", "RssFile": "mapped files"}
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return {name: int(values[key].split()[0]) * 1024 / 1e6 for key, name in names.items()}


def show_memory(figures: dict[str, Any]) -> None:
    """Print the peaks, the goals and what they mean."""
    kinds = ("resident", "anonymous", "mapped files")
    print(f"{'teacher, examples (file)':36}" + "".join(f"{kind:>14}" for kind in kinds) + "   s")
    for run in figures["runs"]:
        name = f"{run['teacher']}, {run['examples']:,} ({run['data']:.0f} MB)"
        for title, values in ((name, run["peak"]), ("    before the filling", run["before"])):
            cells = "".join(f"{values[kind]:14.0f}" for kind in kinds)
            end = f"{run['seconds']:6.0f}" if title == name else ""
            print(f"{title:36}{cells}{end}")
    print("\npeaks in MB; resident = anonymous + mapped files, of which the data's own pages")
    print("are given back as they are read\n")
    for run in figures["runs"]:
        show(RESIDENT, run["peak"]["resident"], "{:8.0f}")
    for name, value in figures["growth"].items():
        show(name, value, "{:8.3f}")


if __name__ == "__main__":
    main()
