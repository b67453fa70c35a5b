"""A table of runs: each row a config, each seed a run in a folder of its own, what is done is kept.

A table is a Python file, as a config is, with two functions. `get_table(name)` gives `title`,
`seeds` and `rows`; a file with one table gets no name. It may say which `columns` it has
(`tables_page.COLUMNS`), the names of `classes` whose errors are further columns, and its `spread`:
"deviation", the standard deviation over the seeds, or "error", that of their mean.

A row has a `label`; a `run`, by default its own name; a `file`, "int8" by default or "float32";
where there is one, the `source`'s figure, in % if it is one; and may be a `baseline`, or one of a
`group` of rows. With `"model": "teacher"` it is the run's teacher, and has no file.

`get_config(run)`, or `get_config("name/run")`, gives a run's config.
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

from kd_keras.errors import InputError, closest_first
from kd_keras.pipeline import config as configs
from kd_keras.pipeline.progress import say
from kd_keras.pipeline.workdir import read_json
from tflite_export.measuring import engine
from tflite_export.measuring.host import Host
from tflite_export.measuring.result import Setting, model_files

_NEEDED = ("get_table", "get_config")
_ROW = {
    **{"file": "int8", "model": "student_compressed"},
    **{"source": "", "group": "", "baseline": False},
}
SPREADS = ("deviation", "error")


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
        columns: Names of the columns; none for the usual ones.
        classes: Names of the classes whose errors are columns.
        spread: One of `SPREADS`.
    """

    path: str
    name: str
    workdir: pathlib.Path
    title: str
    seeds: tuple[int, ...]
    rows: dict[str, dict[str, Any]]
    get_config: Callable[[str], ConfigDict]
    columns: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    spread: str = "deviation"

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
    rows = {key: {**_ROW, "run": key, **row} for key, row in found["rows"].items()}
    return Table(
        path,
        name,
        workdir=pathlib.Path(workdir or f"runs/tables/{name or pathlib.Path(path).stem}"),
        title=found["title"],
        seeds=tuple(found["seeds"]),
        rows=rows,
        get_config=module["get_config"],
        columns=tuple(found.get("columns", ())),
        classes=tuple(found.get("classes", ())),
        spread=found.get("spread", SPREADS[0]),
    )


def chosen(table: Table, rows: Sequence[str], seeds: Sequence[str]) -> tuple[list[str], list[int]]:
    """The rows and seeds that a command asks for, or all of the table's.

    Raises:
        InputError: For a row that the table does not have, and a seed that is no number.
    """
    unknown = [row for row in rows if row not in table.rows]
    if unknown:
        there = closest_first(unknown[0], table.rows)
        raise InputError(f"table has no row {unknown[0]!r}; it has: {there}")
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
        found[name] = {seed: _result(report, row) for seed, report in reports.items() if report}
    return found


def _result(report: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    model = report["models"][row["model"]]
    by_class = model.get("class_accuracy", {})  # older reports have none
    result = {
        "accuracy": model["accuracy"],
        "error": 1 - model["accuracy"],
        "class_errors": {name: 1 - value for name, value in by_class.items() if value is not None},
        **{key: model[key] for key in ("parameters", "macs", "sparsity")},
        "epochs": _epochs(report["config"], row["model"]),
        "cpu_seconds": sum(report["cpu_seconds"][stage] or 0 for stage in _trained(report, row)),
        "created": report["created"],
    }
    if row["model"] == "teacher":
        return result
    file = report["tflite"][row["file"]]
    return {
        **result,
        **{key: file[key] for key in ("agreement", "bytes", "gzip_bytes")},
        "file_accuracy": file["accuracy"],
        "file_error": 1 - file["accuracy"],
    }


def training_stage(config: dict[str, Any], model: str) -> str:
    """The stage that trains a row's model, before compression; its folder has the history."""
    if model == "teacher":
        return model
    keys = ("methods", "adversarial", "conditional", "stages", "born_again")
    return "student" if any(config["distillation"][key] for key in keys) else "student_alone"


def _trained(report: dict[str, Any], row: dict[str, Any]) -> list[str]:
    config = report["config"]
    trained = [training_stage(config, row["model"])]
    if config["compression"] and row["model"] != "teacher":
        from_scratch = config["compression"][0].get("from_scratch")
        trained = [*([] if from_scratch else trained), "student_compressed"]
    return trained


def _epochs(config: dict[str, Any], model: str) -> int | None:
    """How many epochs the model was trained; None for a teacher that was given."""
    if model == "teacher":
        return None if config["teacher"]["path"] else config["teacher"]["epochs"]
    own = config["student"]["epochs"]
    settings = config["distillation"]
    stages = sum(stage["epochs"] or own for stage in settings["stages"].values())
    generations = settings["born_again"].get("generations", 3) if settings["born_again"] else 1
    scratch = bool(config["compression"]) and config["compression"][0].get("from_scratch")
    before = 0 if scratch else stages or own * generations
    return before + sum(step["epochs"] for step in config["compression"])


def validation_errors(table: Table, name: str, seed: int) -> list[float]:
    """The error on the validation images after each epoch of a row's run that is done."""
    row = table.rows[name]
    folder = table.folder(row["run"], seed)
    stage = training_stage(read_json(folder / "report.json")["config"], row["model"])
    histories = map(read_json, sorted((folder / stage).rglob("history.json")))
    epochs = [epoch for history in histories for epoch in history]
    return [1 - epoch["val_accuracy"] for epoch in epochs if "val_accuracy" in epoch]


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
