"""How much faster a whole test set runs in `Interpreters` than one image after the other.

    python benchmarks/verify_speed.py [--rounds=9] [--images=2000] [FILE.tflite ...]

Without files, LeNet-4, ResNet-8 and ResNet-20 are made, with random weights, in float32 and int8.
The sides take turns in one run, and each ratio is the median over the rounds. The loop is
`TFLiteModel.predict`: quantize, set, invoke and get, image by image, on one thread. The processes
run already; what their start takes once stands in a column of its own. The last column compares a
whole verification, Keras model and file, with loops over both, on the same images, once.

Beside the ratio of seconds stands that of CPU seconds, of all processes together, which says what
the batches gain without more cores, and depends less on what else the machine does.

What can be gained over the loop is Python's share of an image, and the cores: where the runtime
itself needs nearly all of the time, the ratio cannot be larger than the number of cores.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import tflite_export
from tflite_export.interpreters import Interpreters
from tflite_export.machine import machine_facts

NETWORKS = {"lenet4": (28, 28, 1), "resnet8": (32, 32, 3), "resnet20": (32, 32, 3)}
GOAL = 5.0


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--json", help="also write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        given: list[tuple[Path, Any]] = [(Path(file), None) for file in arguments.files]
        files = given or networks(Path(folder))
        found = [measured(path, model, arguments) for path, model in files]
    print(f"\n{machine_facts()['cores']} cores; load {os.getloadavg()[0]:.1f}; goal {GOAL:.0f}x")
    head = f"{'file':26}{'loop us':>9}{'ratio':>7}  quartiles     {'cpu':>6}"
    print(f"{head}{'start s':>9}{'verify':>8}")
    for row in found:
        low, high = row["quartiles"]
        whole = "" if row["verify"] is None else f"{row['verify']:.1f}"
        print(
            f"{row['file']:26}{row['loop_us']:9.1f}{row['ratio']:7.2f}  {low:.2f} to {high:.2f}"
            f"  {row['cpu_ratio']:6.2f}{row['start']:9.2f}{whole:>8}"
        )
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=2))


def networks(folder: Path) -> list[tuple[Path, Any]]:
    """Files of our networks with random weights, and the Keras models."""
    import kd_keras as kd

    files: list[tuple[Path, Any]] = []
    for name, shape in NETWORKS.items():
        model = kd.models.build(name, classes=10, input_shape=shape)
        for recipe in ("float32", "int8"):
            images = random_images(50, shape) if recipe == "int8" else None
            path = folder / f"{name}_{recipe}.tflite"
            tflite_export.convert(model, path, recipe, representative=images)
            files.append((path, model))
    return files


def measured(path: Path, model: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """Both sides of one file, turn by turn."""
    one = tflite_export.TFLiteModel(path)
    images = random_images(arguments.images, one.input.shape[1:])
    begun = time.perf_counter()
    with Interpreters(path) as many:
        many.predict(images)
        start = time.perf_counter() - begun
        if not np.array_equal(many.predict(images), one.predict(images, progress=False)):
            sys.exit(f"{path}: the two sides differ")
        sides = (
            lambda: one.predict(images, progress=False),
            lambda: many.predict(images, progress=False),
        )
        loop, ratios = ratio(*sides, arguments.rounds)
        cpu = statistics.median(
            cpu_seconds(sides[0], many) / cpu_seconds(sides[1], many)
            for _ in range(arguments.rounds)
        )
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "file": path.stem,
        "loop_us": 1e6 * loop / len(images),
        "ratio": middle,
        "quartiles": [low, high],
        "cpu_ratio": cpu,
        "start": start,
        "verify": None if model is None else whole_verification(path, model, images),
    }


def whole_verification(path: Path, model: Any, images: np.ndarray) -> float:
    """The ratio of two loops over Keras model and file to `verify`, the start of both included."""
    labels = np.zeros(len(images), np.int64)

    def loops() -> None:
        for image in images:
            np.asarray(model(image[None], training=False))
        tflite_export.TFLiteModel(path).predict(images, progress=False)

    def verify() -> None:
        tflite_export.verify(path, lambda x: model.predict(x, verbose=0), images, labels)

    verify()
    return ratio(loops, verify, rounds=1)[1][0]


def ratio(
    slow: Callable[[], Any], fast: Callable[[], Any], rounds: int
) -> tuple[float, list[float]]:
    """Median seconds of the first side, and the ratios of all rounds."""
    seconds: dict[Callable[[], Any], list[float]] = {slow: [], fast: []}
    for round_ in range(rounds):
        for side in (slow, fast) if round_ % 2 else (fast, slow):
            begun = time.perf_counter()
            side()
            seconds[side].append(time.perf_counter() - begun)
    ratios = [one / other for one, other in zip(seconds[slow], seconds[fast], strict=True)]
    return statistics.median(seconds[slow]), ratios


def cpu_seconds(side: Callable[[], Any], many: Interpreters) -> float:
    """CPU seconds of this process and of the interpreters', which Linux tells in ticks."""

    def now() -> float:
        stats = [Path(f"/proc/{process}/stat").read_text() for process in many.processes]
        ticks = sum(int(tick) for stat in stats for tick in stat.rsplit(")", 1)[1].split()[11:13])
        return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")

    begun = now()
    side()
    return now() - begun


def random_images(count: int, shape: tuple[int, ...]) -> np.ndarray:
    """The same pixels on both sides."""
    return np.random.default_rng(0).random((count, *shape), np.float32)


if __name__ == "__main__":
    main()
