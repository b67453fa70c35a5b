"""A run over several seeds: the table of means with their spread.

    python benchmarks/seeds.py --config=configs/quickstart.py --seeds=0,1,2,3,4

Runs `kd-train` once a seed, one after the other, and prints a Markdown table: mean and standard
deviation over the seeds. Seeds that are done are not run again. The seed fixes the weights, the
order of the batches and, where a set has none of its own, the validation split. The work
directories lie below --workdir; other flags go to `kd-train`.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

ROWS: dict[str, Callable[[dict], dict]] = {
    "teacher": lambda report: report["models"]["teacher"],
    "student alone": lambda report: report["models"]["student_alone"],
    "distilled student": lambda report: report["models"]["student"],
    "compressed student": lambda report: report["models"]["student_compressed"],
    "**int8 TFLite**": lambda report: {
        **report["models"]["student_compressed"],
        **report["tflite"]["int8"],
    },
}


def main() -> None:
    """Run the seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True)
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--workdir", default="runs/seeds")
    arguments, overrides = parser.parse_known_args()
    name = pathlib.Path(arguments.config.split(":")[0]).stem
    reports = []
    for seed in arguments.seeds.split(","):
        workdir = pathlib.Path(arguments.workdir, name, f"seed{seed}")
        flags = [f"--config={arguments.config}", f"--workdir={workdir}", f"--config.seed={seed}"]
        command = [sys.executable, "-m", "kd_keras.train", *flags, *overrides]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        reports.append(json.loads((workdir / "report.json").read_text()))
    print(table(reports))


def table(reports: list[dict[str, Any]]) -> str:
    """The Markdown table of several reports of one config."""
    lines = [
        "| | test accuracy, % | parameters | zeros | file, kB | gzip, kB | latency, µs |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in ROWS.items():
        values = [row(report) for report in reports]
        cells = [
            spread([100 * value["accuracy"] for value in values], 2),
            f"{values[0]['parameters']:,}",
            f"{100 * statistics.fmean(value['sparsity'] for value in values):.0f} %",
            _optional(values, lambda value: value["bytes"] / 1e3),
            _optional(values, lambda value: value["gzip_bytes"] / 1e3),
            _optional(
                values, lambda value: value["measurements"][0]["latency_us"]["median"]["median"]
            ),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: list[float], digits: int) -> str:
    """Mean and standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.{digits}f} ± {deviation:.{digits}f}"


def _optional(values: list[dict], figure: Callable[[dict], float]) -> str:
    return spread([figure(value) for value in values], 1) if "bytes" in values[0] else ""


if __name__ == "__main__":
    main()
