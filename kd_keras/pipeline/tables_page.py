"""A table of runs as Markdown, with its raw figures as JSON and a plot."""

import importlib.metadata
import io
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.ticker import FuncFormatter, LogLocator

from kd_keras.pipeline import numerals
from kd_keras.pipeline.svg import HEX, drawing, new_figure, percent_axis, quiet
from kd_keras.pipeline.tables import Table
from kd_keras.pipeline.workdir import read_json, replacing, write_json

#: What stands below it in a table's Markdown is kept when the table is written anew.
REMARKS = "<!-- the rest is written by hand -->"
_PACKAGES = ("kd-keras", "tensorflow", "tensorflow-model-optimization", "litert-quantizer")

Results = Mapping[str, Mapping[int, Mapping[str, Any]]]


def spread(values: Sequence[float], write: Callable[[float], str]) -> str:
    """The mean and, of several values, their standard deviation (n - 1)."""
    mean = write(statistics.fmean(values))
    return f"{mean} ± {write(statistics.stdev(values))}" if len(values) > 1 else mean


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _kilobytes(value: float) -> str:
    return f"{value / 1000:.1f}"


def _microseconds(value: float) -> str:
    return f"{value:.1f}"


#: Heading, the key in a result, and how its values are written.
_COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("Keras model, %", "accuracy", _percent),
    ("File, %", "file_accuracy", _percent),
    ("Agreement, %", "agreement", _percent),
    ("Zeros, %", "sparsity", lambda value: f"{100 * value:.0f}"),
    ("Multiply-adds", "macs", lambda value: f"{value:,.0f}"),
    ("File, kB", "bytes", _kilobytes),
    ("gzip, kB", "gzip_bytes", _kilobytes),
    ("Latency, µs", "latency_us", _microseconds),
    ("of the first", "latency_ratio", lambda value: f"{value:.2f}"),
    ("Training, CPU s", "cpu_seconds", lambda value: f"{value:,.0f}"),
)
#: Columns whose spread over seeds means nothing.
_ONE_VALUE = ("sparsity", "macs", "bytes", "gzip_bytes")


def markdown(table: Table, results: Results) -> str:
    """The table in GitHub's Markdown; a row without a run says so."""
    shown = [column for column in _COLUMNS if _is_known(results, column[1])]
    sources = any(table.rows[name]["source"] for name in results)
    headings = ["", *(["Source"] if sources else []), *(c[0] for c in shown), "Seeds"]
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)]]
    for name, by_seed in results.items():
        row = table.rows[name]
        cells = [row["label"], *([row["source"]] if sources else [])]
        cells += [_cell(by_seed, key, write) for _, key, write in shown]
        lines.append([*cells, str(len(by_seed))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _is_known(results: Results, key: str) -> bool:
    return any(key in result for by_seed in results.values() for result in by_seed.values())


def _cell(by_seed: Mapping[int, Mapping[str, Any]], key: str, write: Callable) -> str:
    values = [result[key] for result in by_seed.values() if result.get(key) is not None]
    if not values:
        return "–"
    return write(statistics.fmean(values)) if key in _ONE_VALUE else spread(values, write)


def write(table: Table, results: Results, folder: pathlib.Path) -> None:
    """Write NAME.json, NAME.svg and NAME.md; what was written by hand below the table stays."""
    write_json(folder / f"{table.stem}.json", _raw(table, results))
    with replacing(folder / f"{table.stem}.svg") as temporary:
        temporary.write_bytes(plot(table, results))
    path = folder / f"{table.stem}.md"
    remarks = ""
    if path.exists() and REMARKS in (old := path.read_text()):
        remarks = old.split(REMARKS, 1)[1]
    text = "\n\n".join(
        [
            f"# {table.title}",
            "Accuracy on the whole test set after the last epoch; mean ± standard deviation over "
            "the seeds. Agreement is that of the file with its Keras model.",
            markdown(table, results),
            f"![accuracy against bytes]({table.stem}.svg)",
            "Orange are the baselines.",
            f"Made by `kd-table --table={table.spec} --latency --output={folder}`; the docstring "
            f"of the table's file says what it needs. Raw figures: [{table.stem}.json]"
            f"({table.stem}.json). One run, say `{next(iter(results))}` with seed 0: "
            f"`kd-train {' '.join(table.command(table.rows[next(iter(results))]['run'], 0))}`.",
            REMARKS + remarks,
        ]
    )
    with replacing(path) as temporary:
        temporary.write_text(text if remarks else f"{text}\n")


def _raw(table: Table, results: Results) -> dict[str, Any]:
    machine = {}
    for name, by_seed in results.items():
        for seed in by_seed:
            machine = read_json(table.folder(table.rows[name]["run"], seed) / "report.json")
            break
    return {
        "title": table.title,
        "machine": machine.get("machine"),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "data": machine.get("data"),
        "rows": {name: dict(by_seed) for name, by_seed in results.items()},
    }


def plot(table: Table, results: Results) -> bytes:
    """Accuracy of each row's file against its zipped bytes, the mean and spread over seeds."""
    with drawing():
        figure = new_figure(680, 30 + 20 * max(8, len(results)))
        FigureCanvasSVG(figure)
        axes = figure.add_axes((0.08, 0.12, 0.53, 0.85))
        points = [(n, by_seed) for n, by_seed in results.items() if by_seed]
        places = []
        for name, by_seed in points:
            accuracies = [result["file_accuracy"] for result in by_seed.values()]
            size = statistics.fmean(result["gzip_bytes"] for result in by_seed.values())
            error = statistics.stdev(accuracies) if len(accuracies) > 1 else 0
            mean = statistics.fmean(accuracies)
            colour = HEX["orange" if table.rows[name]["baseline"] else "blue"]
            axes.errorbar(size, mean, yerr=error, color=colour, marker="o", elinewidth=1)
            places.append((mean, size, table.rows[name]["label"], colour))
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: numerals.size(v)))
        percent_axis(axes.yaxis)
        axes.set_xlabel("zipped bytes of the file")
        quiet(axes)
        _labels(axes, places)
        return _svg(figure)


def _labels(axes: Any, places: list[tuple[float, float, str, str]]) -> None:
    """Numbers the marks, the most accurate first, and lists the numbers' labels to the right."""
    step = 1 / max(8, len(places))
    for rank, (accuracy, size, label, colour) in enumerate(sorted(places, reverse=True), start=1):
        options: dict[str, Any] = {"color": colour, "fontsize": 9, "va": "center"}
        axes.annotate(str(rank), (size, accuracy), (7, 0), textcoords="offset points", **options)
        height = 1 - (rank - 0.5) * step
        axes.text(1.09, height, str(rank), transform=axes.transAxes, ha="right", **options)
        axes.text(1.11, height, label, transform=axes.transAxes, **options)


def _svg(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None})
    return buffer.getvalue()
