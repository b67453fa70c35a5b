"""The plots of a table of runs, as SVG files."""

import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from kd_keras.pipeline import numerals
from kd_keras.pipeline.plots import short
from kd_keras.pipeline.svg import HEX, drawing, new_figure, percent_axis, quiet
from kd_keras.pipeline.tables import Results, Table

_GROUPS = ("blue", "green", "purple", "red", "sky")
_PANELS = 4  # side by side
_WIDE = 5.0  # from here on errors, largest to smallest, stand on a logarithmic axis
_COVERED = 6  # pixels between two marks that share one number


def spread_of(values: Sequence[float], kind: str) -> float:
    """The standard deviation of several values (n - 1), or that of their mean; 0 of one."""
    if len(values) < 2:
        return 0.0
    deviation = statistics.stdev(values)
    return deviation / len(values) ** 0.5 if kind == "error" else deviation


def source_of(row: Mapping[str, Any]) -> float | None:
    """The source's figure as a fraction, where the row's `source` begins with one in %."""
    try:
        return float(row["source"].split()[0]) / 100
    except (IndexError, ValueError):
        return None


def sizes(table: Table, results: Results) -> bytes:
    """Accuracy of each row's file against its zipped bytes, the mean and spread over seeds."""
    with drawing():
        figure = new_figure(680, 30 + 20 * max(8, len(results)))
        axes = figure.add_axes((0.08, 0.12, 0.53, 0.85))
        places = []
        for name, by_seed in _done(results).items():
            accuracies = [result["file_accuracy"] for result in by_seed.values()]
            size = statistics.fmean(result["gzip_bytes"] for result in by_seed.values())
            error = spread_of(accuracies, table.spread)
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


def errors(table: Table, results: Results) -> bytes:
    """Test error of each row, a line for each label, with the source's as a hollow diamond."""
    done = _done(results)
    labels = list(dict.fromkeys(table.rows[name]["label"] for name in done))
    groups = list(dict.fromkeys(table.rows[name]["group"] for name in done))
    height = 20 * len(labels) + 50 + 28 * (len(groups) > 1)
    with drawing():
        figure = new_figure(680, height)
        axes = figure.add_axes((0.36, 40 / height, 0.61, 1 - (72 if groups[1:] else 44) / height))
        for name, by_seed in done.items():
            row = table.rows[name]
            values = [result["error"] for result in by_seed.values()]
            place = labels.index(row["label"])
            colour = HEX[_GROUPS[groups.index(row["group"]) % len(_GROUPS)]]
            shown = HEX["orange"] if row["baseline"] and len(groups) == 1 else colour
            bar = spread_of(values, table.spread)
            options: dict[str, Any] = {"color": shown, "marker": "o", "elinewidth": 1}
            axes.errorbar(statistics.fmean(values), place, xerr=bar, **options)
            if (source := source_of(row)) is not None:
                hollow: dict[str, Any] = {"markerfacecolor": "none", "linestyle": "none"}
                axes.plot([source], [place], marker="D", color=HEX["muted"], **hollow)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        percent_axis(axes.xaxis)
        low, high = axes.dataLim.intervalx
        if low > 0 and high > _WIDE * low:
            axes.set_xscale("log")
            _log_percent(axes.xaxis)
        axes.set_xlabel("test error")
        quiet(axes)
        if len(groups) > 1:
            for number, group in enumerate(groups):
                colour = HEX[_GROUPS[number % len(_GROUPS)]]
                axes.plot([], [], marker="o", linestyle="none", color=colour, label=group)
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(groups), frameon=False)
        return _svg(figure)


def curves(table: Table, results: Results) -> bytes:
    """Validation error by epoch, the mean over seeds, a panel a row; in grey its baseline."""
    done = _done(results)
    means = {name: _mean_curve(by_seed.values()) for name, by_seed in done.items()}
    means = {name: curve for name, curve in means.items() if curve}
    lines = -(-len(means) // _PANELS)
    grouped = any(table.rows[name]["group"] for name in means)
    every = [error for curve in means.values() for error in curve]
    lowest, highest = min(every, default=0.0), max(every, default=0.0)
    with drawing():
        figure = new_figure(680, (145 if grouped else 130) * lines + 20)
        panels = list(figure.subplots(lines, _PANELS, sharey=True, squeeze=False).flat)
        for axes in panels:
            axes.set_visible(False)
        for axes, (name, curve) in zip(panels, means.items(), strict=False):
            axes.set_visible(True)
            base = _baseline(table, name, list(means))
            if base is not None:
                axes.plot(range(1, len(means[base]) + 1), means[base], color=HEX["muted"], lw=0.8)
            axes.plot(range(1, len(curve) + 1), curve, color=HEX["blue"])
            row = table.rows[name]
            title = [short(words, 30) for words in (row["group"], row["label"]) if words]
            axes.set_title("\n".join(title), fontsize=8, loc="left")
            axes.set_yscale("log")
            _log_percent(axes.yaxis)
            if highest < _WIDE * lowest:  # where a decade has one or two of the usual ticks
                axes.yaxis.set_major_locator(MaxNLocator(4))
            quiet(axes)
        figure.tight_layout()
        return _svg(figure)


def _log_percent(axis: Axis) -> None:
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{100 * v:g} %"))
    axis.set_minor_formatter(NullFormatter())


def _done(results: Results) -> Results:
    return {name: by_seed for name, by_seed in results.items() if by_seed}


def _mean_curve(found: Iterable[Mapping[str, Any]]) -> list[float]:
    every = [result["validation_errors"] for result in found]
    return [statistics.fmean(epoch) for epoch in zip(*every, strict=False)]


def _baseline(table: Table, name: str, names: list[str]) -> str | None:
    group = table.rows[name]["group"]
    same = [n for n in names if table.rows[n]["group"] == group and table.rows[n]["baseline"]]
    return same[0] if same else None


def _labels(axes: Axes, places: list[tuple[float, float, str, str]]) -> None:
    """Numbers the marks, the most accurate first, and lists the numbers' labels to the right."""
    step = 1 / max(8, len(places))
    options: dict[str, Any] = {"fontsize": 9, "va": "center"}
    shared: list[Annotation] = []  # one number a mark, or several where marks cover each other
    for rank, (accuracy, size, label, colour) in enumerate(sorted(places, reverse=True), start=1):
        here = axes.transData.transform((size, accuracy))
        near = [a for a in shared if math.dist(here, axes.transData.transform(a.xy)) < _COVERED]
        if near:
            near[0].set_text(f"{near[0].get_text()}, {rank}")
        else:
            offset: dict[str, Any] = {"xytext": (7, 0), "textcoords": "offset points"}
            place = axes.annotate(str(rank), (size, accuracy), color=colour, **offset, **options)
            shared.append(place)
        height = 1 - (rank - 0.5) * step
        entry: dict[str, Any] = {"color": colour, "transform": axes.transAxes, **options}
        axes.text(1.09, height, str(rank), ha="right", **entry)
        axes.text(1.11, height, label, **entry)


def _svg(figure: Figure) -> bytes:
    FigureCanvasSVG(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None})
    return buffer.getvalue()
