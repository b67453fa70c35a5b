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
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from kd_keras.errors import InputError, closest_first
from kd_keras.pipeline import config as configs
from kd_keras.pipeline.progress import say
from kd_keras.pipeline.workdir import read_json

_NEEDED = ("get_table", "get_config")
_ROW = {
    **{"file": "int8", "model": "student_compressed"},
    **{"source": "", "group": "", "baseline": False},
}
SPREADS = ("deviation", "error")
#: Figures by row and seed.
Results = Mapping[str, Mapping[int, Mapping[str, Any]]]


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
    def shows_errors(self) -> bool:
        """Whether it is one of errors, with curves, and not of accuracies and sizes."""
        return "error" in self.columns

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


def run_missing(
    table: Table, rows: Sequence[str], seeds: Sequence[int], kept: Results
) -> list[str]:
    """Run what has neither report nor figures yet, one run at a time, a seed after the other.

    A run takes the stages that another of the same seed has finished.

    Args:
        table: The table.
        rows: Names of the rows that are wanted.
        seeds: Likewise, the seeds.
        kept: Figures that there are without a report; see `tables_record.read`.

    Returns:
        The commands of the runs that failed, which do not stop the others.
    """
    wanted = [
        (table.rows[row]["run"], seed)
        for seed in seeds
        for row in rows
        if seed not in kept.get(row, {})
    ]
    missing = [pair for pair in dict.fromkeys(wanted) if table.report(*pair) is None]
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
