"""A table of runs: each row a config, each seed a run in a folder of its own, what is done is kept.

A table is a Python file, as a config is, with two functions. `get_table(name)` gives `title`,
`seeds` and `rows`; a file with one table gets no name. A row has a `label`; a `run`, by default its
own name; a `file`, "int8" by default or "float32"; where there is one, the `source`'s figure; and
may be a `baseline`. `get_config(run)`, or `get_config("name/run")`, gives a run's config.
"""

import dataclasses
import pathlib
import runpy
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

from kd_keras.errors import InputError
from kd_keras.pipeline import config as configs
from kd_keras.pipeline.progress import say
from kd_keras.pipeline.workdir import read_json
from tflite_export.measuring import engine
from tflite_export.measuring.host import Host
from tflite_export.measuring.result import Setting, model_files

_NEEDED = ("get_table", "get_config")


@dataclasses.dataclass(frozen=True)
class Table:
    """A table's file and the folder of its runs.

    Attributes:
        path: The file.
        name: Of the table in the file; "" for the only one.
        workdir: The folder; `RUN/seedN` below it is the work directory of a run.
        title: What a reader sees above it.
        seeds: The seeds of a whole table.
        rows: The rows by name, each with all its keys.
        get_config: The file's own function.
    """

    path: str
    name: str
    workdir: pathlib.Path
    title: str
    seeds: tuple[int, ...]
    rows: dict[str, dict[str, Any]]
    get_config: Callable[[str], ConfigDict]

    @property
    def stem(self) -> str:
        """What the table's own files are called."""
        return self.name or pathlib.Path(self.path).stem

    @property
    def spec(self) -> str:
        """What names the table on a command line."""
        return f"{self.path}:{self.name}" if self.name else self.path

    def run_name(self, run: str) -> str:
        """What the file's `get_config` takes."""
        return f"{self.name}/{run}" if self.name else run

    def folder(self, run: str, seed: int) -> pathlib.Path:
        """The work directory of a run."""
        return self.workdir / run / f"seed{seed}"

    def command(self, run: str, seed: int) -> list[str]:
        """The arguments of `kd-train` that make a run."""
        return [
            f"--config={self.path}:{self.run_name(run)}",
            f"--config.seed={seed}",
            f"--workdir={self.folder(run, seed)}",
        ]

    def report(self, run: str, seed: int) -> dict[str, Any] | None:
        """The report of a run, if it was made from the config that the file now gives."""
        path = self.folder(run, seed) / "report.json"
        if not path.exists():
            return None
        report = read_json(path)
        config = self.get_config(self.run_name(run))
        config.seed = seed
        wanted = configs.plain(configs.complete(config))
        return None if configs.differences(report["config"], wanted) else report


def load(spec: str, workdir: str = "") -> Table:
    """Read a table's file.

    Args:
        spec: `FILE`, or `FILE:NAME` where the file has several tables.
        workdir: The folder of the runs; by default `runs/tables/` and the table's name.

    Raises:
        InputError: If there is none, or it does not define what a table has.
    """
    path, _, name = spec.partition(":")
    if not pathlib.Path(path).is_file():
        raise InputError(f"table {path!r} does not exist; name a file, as configs/tables/*.py")
    module = runpy.run_path(path)
    missing = [function for function in _NEEDED if function not in module]
    if missing:
        raise InputError(f"table {path!r} does not define {', '.join(missing)}")
    try:
        found = module["get_table"](*([name] if name else []))
    except (KeyError, TypeError) as error:
        raise InputError(
            f"table {path!r} has no table {name!r}; its docstring lists them"
        ) from error
    default = {"file": "int8", "source": "", "baseline": False}
    rows = {key: {**default, "run": key, **row} for key, row in found["rows"].items()}
    folder = pathlib.Path(workdir or f"runs/tables/{name or pathlib.Path(path).stem}")
    return Table(
        path, name, folder, found["title"], tuple(found["seeds"]), rows, module["get_config"]
    )


def chosen(table: Table, rows: Sequence[str], seeds: Sequence[str]) -> tuple[list[str], list[int]]:
    """The rows and seeds that a command asks for, or all of the table's.

    Raises:
        InputError: For a row that the table does not have, and a seed that is no number.
    """
    unknown = [row for row in rows if row not in table.rows]
    if unknown:
        raise InputError(f"table has no row {unknown[0]!r}; it has: {', '.join(table.rows)}")
    wrong = [seed for seed in seeds if not seed.isdigit()]
    if wrong:
        raise InputError(f"seed {wrong[0]!r} is no whole number from 0")
    return list(rows) or list(table.rows), [int(s) for s in seeds] or list(table.seeds)


def run_missing(table: Table, rows: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """Run what has no report yet, one run at a time, a seed after the other.

    A run takes the stages that another of the same seed has finished.

    Returns:
        The commands of the runs that failed, which do not stop the others.
    """
    runs = list(dict.fromkeys(table.rows[row]["run"] for row in rows))
    wanted = [(run, seed) for seed in seeds for run in runs]
    missing = [pair for pair in wanted if table.report(*pair) is None]
    failed = []
    for number, (run, seed) in enumerate(missing, start=1):
        say(f"[{number}/{len(missing)}] {run}, seed {seed}")
        siblings = sorted(table.workdir.glob(f"*/seed{seed}"))
        command = [*table.command(run, seed), "--overwrite"]
        command += [f"--reuse={','.join(map(str, siblings))}"] if siblings else []
        with open_log(table.folder(run, seed)) as log:
            process = [sys.executable, "-m", "kd_keras.train", *command]
            code = subprocess.run(process, stdout=log, stderr=log, check=False).returncode
        if code:
            failed.append(f"kd-train {shlex.join(command)}")
            say(f"failed with exit status {code}; see {log.name}")
    return failed


def open_log(folder: pathlib.Path) -> Any:
    """The file beside a run's work directory that keeps what the run prints."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder.with_suffix(".log").open("a", encoding="utf-8")


def results(table: Table, rows: Sequence[str], seeds: Sequence[int]) -> dict[str, dict[int, dict]]:
    """What the runs that are done have given, by row and seed; accuracies are on the test set."""
    found: dict[str, dict[int, dict]] = {}
    for name in rows:
        row = table.rows[name]
        reports = {seed: table.report(row["run"], seed) for seed in seeds}
        found[name] = {
            seed: _result(report, row["file"]) for seed, report in reports.items() if report
        }
    return found


def _result(report: dict[str, Any], recipe: str) -> dict[str, Any]:
    model, file = report["models"]["student_compressed"], report["tflite"][recipe]
    config, cost = report["config"], report["cpu_seconds"]
    taught = any(config["distillation"][key] for key in ("methods", "adversarial", "conditional"))
    trained = ["student" if taught else "student_alone"]
    if config["compression"]:
        from_scratch = config["compression"][0].get("from_scratch")
        trained = [*([] if from_scratch else trained), "student_compressed"]
    return {
        "accuracy": model["accuracy"],
        **{key: file[key] for key in ("agreement", "bytes", "gzip_bytes")},
        "file_accuracy": file["accuracy"],
        **{key: model[key] for key in ("parameters", "macs", "sparsity")},
        "cpu_seconds": sum(cost[stage] or 0 for stage in trained),
        "created": report["created"],
    }


def measure(
    table: Table, found: dict[str, dict[int, dict]], device: engine.Device | None = None
) -> None:
    """Add to each row's first result its file's latency, and its ratio to the first row's.

    All files take turns, so that what slows the machine down for a while meets them all.

    Args:
        table: The table.
        found: What `results` gave; it is changed.
        device: That runs the files; this host by default.
    """
    first = {name: min(by_seed) for name, by_seed in found.items() if by_seed}
    files = {
        name: table.folder(table.rows[name]["run"], seed)
        / "export"
        / f"student_{table.rows[name]['file']}.tflite"
        for name, seed in first.items()
    }
    models = [
        dataclasses.replace(model, name=name)
        for name, model in zip(files, model_files(list(files.values())), strict=True)
    ]
    setting = Setting("xnnpack", threads=1)
    result = engine.measure(device or Host(), models, [setting], engine.Effort())
    for measured in result.measurements:
        row = found[measured.model][first[measured.model]]
        row["latency_us"] = statistics.median(r.median for r in measured.readings if r.median)
        ratio = measured.ratio
        row["latency_ratio"] = 1.0 if ratio is None else ratio.median
        row["latency_ratio_range"] = [1.0, 1.0] if ratio is None else [ratio.low, ratio.high]
