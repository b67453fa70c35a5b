"""A table of runs as Markdown, with its raw figures as JSON and plots."""

import pathlib
import statistics
from collections.abc import Callable, Sequence

from kd_keras.errors import InputError
from kd_keras.pipeline import tables_plots, tables_record
from kd_keras.pipeline.tables import SPREADS, Results, Table
from kd_keras.pipeline.workdir import replacing

#: What stands below it in a table's Markdown is kept when the table is written anew.
REMARKS = "<!-- the rest is written by hand -->"
_OF_FILES = " Agreement is that of the file with its Keras model."


def spread(values: Sequence[float], write: Callable[[float], str], kind: str = SPREADS[0]) -> str:
    """The mean and, of several values, their spread; see `tables_plots.spread_of`."""
    mean = write(statistics.fmean(values))
    return f"{mean} ± {write(tables_plots.spread_of(values, kind))}" if len(values) > 1 else mean


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _kilobytes(value: float) -> str:
    return f"{value / 1000:.1f}"


def _microseconds(value: float) -> str:
    return f"{value:.1f}"


#: Columns by the key in a result: heading, and how values are written.
COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "error": ("Error, %", _percent),
    "file_error": ("File's error, %", _percent),
    "accuracy": ("Keras model, %", _percent),
    "file_accuracy": ("File, %", _percent),
    "agreement": ("Agreement, %", _percent),
    "sparsity": ("Zeros, %", lambda value: f"{100 * value:.0f}"),
    "macs": ("Multiply-adds", lambda value: f"{value:,.0f}"),
    "bytes": ("File, kB", _kilobytes),
    "gzip_bytes": ("gzip, kB", _kilobytes),
    "latency_us": ("Latency, µs", _microseconds),
    "latency_ratio": ("of the first", lambda value: f"{value:.2f}"),
    "epochs": ("Epochs", lambda value: f"{value:.0f}"),
    "cpu_seconds": ("Training, CPU s", lambda value: f"{value:,.0f}"),
}
#: Of a table that does not say which it has.
_USUAL = (
    *("accuracy", "file_accuracy", "agreement", "sparsity", "macs", "bytes", "gzip_bytes"),
    *("latency_us", "latency_ratio", "cpu_seconds"),
)
#: Columns whose spread over seeds means nothing.
_ONE_VALUE = ("sparsity", "macs", "bytes", "gzip_bytes", "epochs")


def markdown(table: Table, results: Results) -> str:
    """The table in GitHub's Markdown; a row without a run says so.

    Raises:
        InputError: If the table asks for a column that there is not.
    """
    _check(table)
    asked = [*(table.columns or _USUAL), "latency_us", "latency_ratio"]
    shown = [key for key in dict.fromkeys(asked) if _is_known(results, key)]
    sources = any(table.rows[name]["source"] for name in results)
    headings = ["", *(["Source"] if sources else []), *(COLUMNS[key][0] for key in shown)]
    headings += [f"Error on {name}, %" for name in table.classes]
    headings += ["Seeds", "`--rows=`"]
    lines = [headings, ["---", *["---:"] * (len(headings) - 2), "---"]]
    for name, by_seed in results.items():
        row = table.rows[name]
        label = f"{row['group']}: {row['label']}" if row["group"] else row["label"]
        cells = [label, *([row["source"]] if sources else [])]
        for key in shown:
            values = [result.get(key) for result in by_seed.values()]
            cells.append(_cell(table, values, COLUMNS[key][1], is_one=key in _ONE_VALUE))
        for number in table.classes:
            values = [result["class_errors"].get(number) for result in by_seed.values()]
            cells.append(_cell(table, values, _percent))
        lines.append([*cells, str(len(by_seed)), name])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _check(table: Table) -> None:
    unknown = [key for key in table.columns if key not in COLUMNS]
    if unknown:
        raise InputError(f"table has no column {unknown[0]!r}; there are: {', '.join(COLUMNS)}")
    if table.spread not in SPREADS:
        raise InputError(f"spread is {table.spread!r}; it must be one of: {', '.join(SPREADS)}")


def _is_known(results: Results, key: str) -> bool:
    return any(key in result for by_seed in results.values() for result in by_seed.values())


def _cell(
    table: Table,
    values: Sequence[float | None],
    write: Callable[[float], str],
    *,
    is_one: bool = False,
) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    return write(statistics.fmean(known)) if is_one else spread(known, write, table.spread)


def write(table: Table, results: Results, folder: pathlib.Path) -> None:
    """Write NAME.json, NAME.md and its plots; what was written by hand below the table stays."""
    tables_record.write(table, results, folder)
    path = folder / f"{table.stem}.md"
    remarks = ""
    if path.exists() and REMARKS in (old := path.read_text()):
        remarks = old.split(REMARKS, 1)[1]
    latency = "--latency " if _is_known(results, "latency_us") else ""
    text = "\n\n".join(
        [
            f"# {table.title}",
            f"{'Error' if table.shows_errors else 'Accuracy'} on the whole test set after the "
            f"last epoch; mean ± standard {table.spread} over the seeds."
            + ("" if table.shows_errors else _OF_FILES),
            markdown(table, results),
            *(_plots(table, results, folder) if any(results.values()) else ()),
            f"Made by `kd-table --table={table.spec} {latency}--output={folder}`, a row of it with "
            "`--rows=`; the docstring of the table's file says what it needs. Raw figures: "
            f"[{table.stem}.json]({table.stem}.json). One run, say `{next(iter(results))}` with "
            "seed 0: "
            f"`kd-train {' '.join(table.command(table.rows[next(iter(results))]['run'], 0))}`.",
            REMARKS + remarks,
        ]
    )
    with replacing(path) as temporary:
        temporary.write_text(text if remarks else f"{text}\n")


def _plots(table: Table, results: Results, folder: pathlib.Path) -> list[str]:
    """Write the plots, and return the Markdown that shows them."""
    if not table.shows_errors:
        _write_plot(folder / f"{table.stem}.svg", tables_plots.sizes(table, results))
        return [f"![accuracy against bytes]({table.stem}.svg)", "Orange are the baselines."]
    _write_plot(folder / f"{table.stem}.svg", tables_plots.errors(table, results))
    _write_plot(folder / f"{table.stem}_curves.svg", tables_plots.curves(table, results))
    return [
        f"![test error of each row]({table.stem}.svg)",
        "Hollow diamonds are the source's figures.",
        f"![validation error by epoch]({table.stem}_curves.svg)",
        "Error on the validation images after each epoch, mean over the seeds; grey is the "
        "baseline.",
    ]


def _write_plot(path: pathlib.Path, svg: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(svg)
