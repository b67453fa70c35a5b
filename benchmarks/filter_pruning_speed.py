"""What removing filters to half the multiply-adds gains in time, in float32 and in int8.

    TF_USE_LEGACY_KERAS=1 python benchmarks/filter_pruning_speed.py

ResNet-8 and ResNet-20, untrained, with their filters kept in multiples of 1, 8 and 16; where so
coarse a grid cannot meet the target, the row says so. The files take turns on one thread, each
repeat is a fresh process, and a ratio is that of the medians over the repeats.
"""

import argparse
import os
import pathlib
import tempfile
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import kd_keras as kd
import tflite_export
from kd_keras.compression import filter_pruning

SHAPE = (32, 32, 3)
MULTIPLES = (1, 8, 16)
RECIPES = ("float32", "int8")


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--min_seconds", type=float, default=0.3, help="of each repeat")
    arguments = parser.parse_args()
    effort = tflite_export.Effort(arguments.repeats, min_seconds=arguments.min_seconds)
    print("| network | filters in multiples of | multiply-adds left | float32 faster by | int8 |")
    print("|---|---:|---:|---:|---:|")
    for name in ("resnet8", "resnet20"):
        model = kd.models.build(name, classes=10, input_shape=SHAPE)
        whole = tflite_export.multiply_adds(model)
        for multiple in MULTIPLES:
            try:
                half = filter_pruning.apply(model, multiply_adds=whole // 2, multiple=multiple)
            except kd.InputError as error:
                print(f"| {name} | {multiple} | {error} | | |")
                continue
            share = tflite_export.multiply_adds(half) / whole
            gains = [f"{faster(model, half, recipe, effort):.2f}" for recipe in RECIPES]
            print(f"| {name} | {multiple} | {share:.0%} | {' | '.join(gains)} |", flush=True)


def faster(model: Any, smaller: Any, recipe: str, effort: tflite_export.Effort) -> float:
    """The ratio of two models' latencies, both exported by a recipe."""
    images = np.random.default_rng(0).normal(size=(20, *SHAPE)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        files = [
            tflite_export.convert(
                *(one, pathlib.Path(folder, f"{number}.tflite"), recipe),
                representative=images if recipe == "int8" else None,
            )
            for number, one in enumerate((model, smaller))
        ]
        measured = tflite_export.benchmark(files, effort=effort).measurements
    return measured[0].time.median / measured[1].time.median


if __name__ == "__main__":
    main()
