"""Reads the times of single operators that `benchmark_model --enable_op_profiling` prints.

A table follows each line `==== Run Order ====`, its columns parted by tabs and named in its first
line: `[node type]`, `[avg ms]`, `[Name]`. The tables of the initialization come first, then those
of the runs: the graph's, and those of what delegates ran inside, where they tell.
"""

import math
from collections.abc import Iterator

from tflite_export.measuring.result import Operator

_RUNS = "Profiling Info for Regular Benchmark Runs"
_TABLE = " Run Order "
_OTHER_TABLE = " Top by Computation Time "
_INSIDE = "Delegate internal"


def parse(text: str) -> tuple[Operator, ...]:
    """Returns the operators in the order they run, microseconds each; () where none are told."""
    _, found, runs = text.partition(_RUNS)
    if not found:  # before 2020 there was one table
        runs = _TABLE + text.rpartition(_TABLE)[2] if _TABLE in text else ""
    return tuple(_operators(runs))


def _operators(text: str) -> Iterator[Operator]:
    columns: list[str] = []
    in_order = inside = False
    for line in text.splitlines():
        if _TABLE in line or _OTHER_TABLE in line:
            in_order, columns = _TABLE in line, []
        elif _INSIDE in line:
            inside = True
        elif "[node type]" in line:
            columns = [cell.strip(" []") for cell in line.split("\t")]
            columns = columns[columns.index("node type") :] if "node type" in columns else []
        elif in_order and columns:
            cells = [cell.strip() for cell in line.split("\t")][-len(columns) :]
            row = dict(zip(columns, cells, strict=False))
            time = _milliseconds(row.get("avg ms", ""))
            if len(cells) == len(columns) and row.get("node type") and time is not None:
                yield Operator(row["node type"], row.get("Name", ""), 1000 * time, inside)


def _milliseconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
