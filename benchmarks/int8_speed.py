"""How much faster int8 files are than float32 files on this machine, on one thread and on two.

    TF_USE_LEGACY_KERAS=1 python benchmarks/int8_speed.py [--write]

LeNet-4, ResNet-8, ResNet-20 and MobileNet are exported in both formats and measured as
`kd-benchmark` measures: the two files of a network take turns, each repeat is a fresh process, and
a ratio is taken within a turn, so that it holds where times do not. The weights are untrained and
the ranges those of random images: neither changes how much there is to compute.

`--write` keeps the table in docs/results/int8_speed.md, below which remarks by hand stay, and the
figures in docs/results/int8_speed.json.
"""

import argparse
import json
import os
import pathlib
import shlex
import sys
import tempfile
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import kd_keras as kd
import tflite_export
from tflite_export.measuring import table
from tflite_export.measuring.result import Measurement

#: Input and classes of each network.
NETWORKS = {
    "lenet4": ((28, 28, 1), 10),
    "resnet8": ((32, 32, 3), 10),
    "resnet20": ((32, 32, 3), 10),
    "mobilenet": ((224, 224, 3), 1000),
}
RECIPES = ("float32", "int8")
THREADS = (1, 2)
#: Of a measurement and of a reading, what is kept.
FIGURES = ("median", "p90", "init", "first")
RESULTS = pathlib.Path(__file__).parents[1] / "docs" / "results" / "int8_speed"
REMARKS = "<!-- the rest is written by hand -->"


def main() -> None:
    """Measure, print and, if asked, keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--min_seconds", type=float, default=0.5, help="of each repeat")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    effort = tflite_export.Effort(arguments.repeats, min_seconds=arguments.min_seconds)
    names = arguments.networks.split(",")
    if unknown := sorted({*names} - {*NETWORKS}):
        parser.error(f"network {unknown[0]!r} is unknown; there are: {', '.join(NETWORKS)}")
    results = [(name, *measured(name, effort)) for name in names]
    told = figures(results)
    text = markdown(told)
    print(text)
    if arguments.write:
        RESULTS.with_suffix(".json").write_text(json.dumps(told, indent=1) + "\n")
        page = RESULTS.with_suffix(".md")
        kept = page.read_text().partition(REMARKS)[2] if page.exists() else "\n"
        page.write_text(f"{text}\n\n{REMARKS}{kept}")


def measured(name: str, effort: tflite_export.Effort) -> tuple[Any, tflite_export.Result]:
    """A network's Keras model, and the measurement of its files."""
    shape, classes = NETWORKS[name]
    model = kd.models.build(name, classes=classes, input_shape=shape)
    images = np.random.default_rng(0).normal(size=(20, *shape)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for recipe in RECIPES:
            path = pathlib.Path(folder, f"{recipe}.tflite")
            given = images if recipe == "int8" else None
            files.append(tflite_export.convert(model, path, recipe, representative=given))
        return model, tflite_export.benchmark(files, threads=THREADS, effort=effort)


def figures(results: list[tuple[str, Any, tflite_export.Result]]) -> dict[str, Any]:
    """What is kept of all measurements."""
    last = results[-1][2]
    return {
        "command": shlex.join(["python", *sys.argv]),
        "facts": last.facts,
        "load_before_each": [result.facts["load"] for _, _, result in results],
        "arguments": last.arguments,
        "created": last.created,
        "networks": {
            name: {
                "input": list(NETWORKS[name][0]),
                "parameters": tflite_export.parameters(model),
                "multiply_adds": tflite_export.multiply_adds(model),
                "bytes": {file.name: file.bytes for file in result.models},
                "gzip_bytes": {file.name: file.gzip_bytes for file in result.models},
                "measurements": [kept(measurement) for measurement in result.measurements],
            }
            for name, model, result in results
        },
    }


def kept(measurement: Measurement) -> dict[str, Any]:
    """A measurement without its single readings."""
    spreads = {name: measurement.over_repeats(name) for name in FIGURES}
    return {
        "file": measurement.model,
        "threads": measurement.setting.threads,
        "latency_us": {name: spread and vars(spread) for name, spread in spreads.items()},
        "ratio": measurement.ratio and vars(measurement.ratio),
        "peak_memory_bytes": measurement.peak_memory_bytes,
        "delegation": measurement.delegation and vars(measurement.delegation),
    }


def markdown(told: dict[str, Any]) -> str:
    """The page, without the remarks."""
    facts, effort = told["facts"], told["arguments"]
    lines = [
        "# int8 against float32 on the host",
        "",
        f"{facts['cpu']}, {facts['cores']} cores; ai-edge-litert {facts['ai_edge_litert']} with "
        f"XNNPACK. Untrained weights, which take the same time. The middle of {effort['repeats']} "
        f"processes of at least {effort['min_seconds']} s each, in turn; in brackets the lowest "
        "and highest.",
        "",
        f"    TF_USE_LEGACY_KERAS=1 {told['command']}",
        "",
        "| network | input | multiply-adds | threads | float32 | int8 | int8 is faster by "
        "| bytes, float32 / int8 | memory, float32 / int8 |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, network in told["networks"].items():
        pairs = zip(network["measurements"][::2], network["measurements"][1::2], strict=True)
        for slow, fast in pairs:
            ratio = fast["ratio"]
            cells = [
                name,
                "x".join(map(str, network["input"])),
                f"{network['multiply_adds']:,}",
                str(slow["threads"]),
                *(_time(each["latency_us"]["median"]) for each in (slow, fast)),
                f"**{1 / ratio['median']:.2f}** "
                f"({1 / ratio['high']:.2f} to {1 / ratio['low']:.2f})",
                " / ".join(table.size(network["bytes"][recipe]) for recipe in RECIPES),
                " / ".join(table.size(each["peak_memory_bytes"]) for each in (slow, fast)),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _time(spread: dict[str, float]) -> str:
    middle, low, high = (table.time(spread[name]) for name in ("median", "low", "high"))
    return f"{middle} ({low} to {high})"


if __name__ == "__main__":
    main()
