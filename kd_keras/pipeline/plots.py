"""Figures of the report page: training curves, accuracy against cost, accuracy of each class.

Each figure is narrow enough to be read on a phone; the page lays several side by side.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from kd_keras.pipeline import numerals
from kd_keras.pipeline.numerals import number
from kd_keras.pipeline.svg import HEX, INCH, as_svg, drawing, new_figure, percent_axis, quiet

# Every model keeps its colour and its shape through all figures.
MODEL_STYLES = {
    "teacher": ("ink", "s"),
    "student_alone": ("orange", "^"),
    "student": ("green", "D"),
    "student_compressed": ("purple", "v"),
    "float32": ("sky", "P"),
    "int8": ("blue", "o"),
}
_TERM_COLOURS = ("blue", "orange", "green", "purple", "red", "sky", "muted")


@dataclass(frozen=True)
class Point:
    """One measured model or file in a plane of accuracy against a cost.

    Attributes:
        key: Its name in `report.json`; chooses colour and shape.
        label: What stands beside it.
        x: The cost: bytes, or the median latency in microseconds.
        accuracy: Fraction.
        accuracy_error: Standard error of the accuracy, or None.
        x_high: Upper end of a whisker to the right (the 90th percentile), or None.
    """

    key: str
    label: str
    x: float
    accuracy: float
    accuracy_error: float | None = None
    x_high: float | None = None


def short(name: Any, length: int = 22) -> str:
    """Returns a class name fit for an axis: one line, cut with an ellipsis when long."""
    text = " ".join(str(name).split())
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


# --- training curves -----------------------------------------------------------------------------


def is_accuracy(name: str) -> bool:
    """Whether a name in a history is an accuracy; all but these, epoch and rate are losses."""
    return "accuracy" in name


def _base(name: str) -> str:
    return name.removeprefix("val_")


def loss_terms(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, tuple[str, str]]:
    """Returns colour and dash of each loss term over all stages, in the order they appear."""
    names: dict[str, None] = {}
    for epochs in histories.values():
        for epoch in epochs:
            for name in epoch:
                if name not in ("epoch", "learning_rate") and not is_accuracy(name):
                    names[_base(name)] = None
    names.pop("loss", None)
    styles = {"loss": ("ink", "-")}
    for index, name in enumerate(names):
        colour = _TERM_COLOURS[index % len(_TERM_COLOURS)]
        styles[name] = (colour, "-" if index < len(_TERM_COLOURS) else ":")
    return styles


def _series(epochs: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """Returns x (epochs from 1) and y; what is absent or not finite becomes a gap (NaN)."""
    xs = [
        (number(e.get("epoch")) or 0.0) + 1 if "epoch" in e else i + 1.0
        for i, e in enumerate(epochs)
    ]
    ys = [math.nan if (y := number(epoch.get(name))) is None else y for epoch in epochs]
    return xs, ys


def not_finite(epochs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names the values of a history that are NaN or infinite, as `loss (epoch 3)`."""
    return [
        f"{name} (epoch {index + 1})"
        for index, epoch in enumerate(epochs)
        for name, value in epoch.items()
        if isinstance(value, float) and not math.isfinite(value)
    ]


def _line(
    axes: Axes, epochs: Sequence[Mapping[str, Any]], name: str, colour: str, dash: str
) -> None:
    xs, ys = _series(epochs, name)
    if all(math.isnan(y) for y in ys):
        return
    alone = sum(not math.isnan(y) for y in ys) == 1  # a single point draws no line
    style = (0, (3, 1.6)) if name.startswith("val_") and dash == "-" else dash
    axes.plot(
        xs, ys, color=HEX[colour], linestyle=style, marker="o" if alone else "", markersize=4.5
    )


def _loss_panel(
    axes: Axes, epochs: Sequence[Mapping[str, Any]], terms: Mapping[str, tuple[str, str]]
) -> None:
    for term, (colour, dash) in reversed(list(terms.items())):  # the total loss lies on top
        for name in (term, f"val_{term}"):
            _line(axes, epochs, name, colour, dash)
    drawn = [
        float(y) for line in axes.lines for y in np.asarray(line.get_ydata()) if np.isfinite(y)
    ]
    if drawn and min(drawn) > 0 and max(drawn) > 30 * min(drawn):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=5))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.minorticks_off()
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4))
        if drawn and min(drawn) >= 0:
            axes.set_ylim(0, 1.08 * max(drawn) or 1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    axes.set_ylabel("loss")


def _accuracy_panel(axes: Axes, epochs: Sequence[Mapping[str, Any]], lowest: float) -> None:
    _line(axes, epochs, "accuracy", "muted", "-")
    _line(axes, epochs, "val_accuracy", "blue", "-")
    span = max(1 - lowest, 0.02)
    axes.set_ylim(1 - 1.06 * span, 1 + 0.06 * span)
    percent_axis(axes.yaxis, 4)
    axes.set_ylabel("accuracy")
    xs, ys = _series(epochs, "val_accuracy")
    last = [(x, y) for x, y in zip(xs, ys, strict=True) if not math.isnan(y)][-1:]
    for x, y in last:
        below = y > 1 - 0.5 * span
        axes.annotate(
            numerals.percent(y, 1), (x, y), (0, -5 if below else 5), textcoords="offset points",
            ha="right", va="top" if below else "bottom", color=HEX["blue"], fontweight="bold",
        )  # fmt: skip


def _lowest_accuracy(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> float:
    values = [
        value
        for epochs in histories.values()
        for epoch in epochs
        for name in ("accuracy", "val_accuracy")
        if (value := number(epoch.get(name))) is not None
    ]
    return min(values, default=0.0)


def training_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Markup]:
    """Draws one figure a stage: loss terms above, accuracies below, validation dashed.

    Args:
        histories: Stage to its epochs, each a mapping of names to numbers. The accuracy axis is
            the same in all figures; the loss axis is not, since the stages add different terms.
    """
    terms, lowest = loss_terms(histories), _lowest_accuracy(histories)
    drawn = {}
    for index, (stage, epochs) in enumerate(histories.items()):
        if not epochs:
            continue
        with drawing():
            figure = new_figure(300, 270)
            top = figure.add_axes((0.16, 0.54, 0.81, 0.43))
            bottom = figure.add_axes((0.16, 0.14, 0.81, 0.33), sharex=top)
            _loss_panel(top, epochs, terms)
            _accuracy_panel(bottom, epochs, lowest)
            for axes in (top, bottom):
                quiet(axes, "y")
                axes.yaxis.set_label_coords(-0.145, 0.5)
            top.tick_params(labelbottom=False)
            bottom.set_xlim(0.5 if len(epochs) == 1 else 1, max(_series(epochs, "")[0]) + 0.5)
            whole = MaxNLocator(6, integer=True, min_n_ticks=1)
            bottom.xaxis.set_major_locator(whole)
            bottom.set_xlabel("epoch")
            drawn[stage] = as_svg(figure, f"curves{index}", f"Training curves of stage {stage}")
    return drawn


# --- accuracy against a cost ---------------------------------------------------------------------


def _spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Moves label heights apart to at least `gap`, as little as possible, order kept."""
    order = np.argsort(wanted, kind="stable")
    placed = [0.0] * len(wanted)
    floor = low
    for index in order:
        placed[index] = max(wanted[index], floor)
        floor = placed[index] + gap
    ceiling = high
    for index in order[::-1]:
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - gap
    return placed


def _sides(places: Sequence[tuple[float, float]], labels: Sequence[str], right: float) -> list[int]:
    """Chooses for each label the side, 1 right or -1 left, with the least in the way.

    Args:
        places: The marks, in points from the lower left corner of the axes.
        labels: Their texts.
        right: Width of the axes in points.
    """
    chosen = []
    for index, (x, y) in enumerate(places):
        width = 14 + 5.6 * len(labels[index])
        others = [place for other, place in enumerate(places) if other != index]

        def trouble(side: int, x=x, y=y, width=width, others=others) -> tuple[bool, int]:
            low, high = sorted((x, x + side * width))
            covered = sum(low < ox + 5 and ox - 5 < high and abs(oy - y) < 26 for ox, oy in others)
            return (low < 0 or high > right, covered)

        chosen.append(min((1, -1), key=trouble))
    return chosen


def _label_points(axes: Axes, points: Sequence[Point]) -> None:
    """Writes each label beside its mark, labels of one side moved apart."""
    box = axes.get_window_extent()
    pixel = INCH / axes.figure.dpi
    pixels = [axes.transData.transform((p.x, p.accuracy)) for p in points]
    places = [(pixel * (x - box.x0), pixel * (y - box.y0)) for x, y in pixels]
    sides = _sides(places, [p.label for p in points], pixel * box.width)
    for side in (1, -1):
        chosen = [i for i, s in enumerate(sides) if s == side]
        heights = _spread([places[i][1] for i in chosen], 13, 6, pixel * box.height - 6)
        for i, height in zip(chosen, heights, strict=True):
            axes.annotate(
                points[i].label, (points[i].x, points[i].accuracy),
                (9 * side, height - places[i][1]), textcoords="offset points",
                ha="left" if side == 1 else "right", va="center",
                color=HEX[MODEL_STYLES[points[i].key][0]],
            )  # fmt: skip


def cost_axis(axes: Axes, xs: Sequence[float], kind: str) -> None:
    """Lays a logarithmic axis of `size` or `latency` over costs, with room for labels."""
    write = numerals.size if kind == "size" else numerals.latency
    axes.set_xscale("log")
    # A quarter of the width on both sides is room for the labels of the outermost marks.
    room = max(2.0, (max(xs) / min(xs)) ** 0.46)
    axes.set_xlim(min(xs) / room, max(xs) * room)
    decades = math.log10(room**2 * max(xs) / min(xs))
    steps = (1.0, 2.0, 5.0) if decades < 1.5 else (1.0, 3.0) if decades < 3 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps, numticks=8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: re.sub(r"\.0+ ", " ", write(v))))
    axes.minorticks_off()


def accuracy_against(points: Sequence[Point], name: str, xlabel: str, kind: str) -> Markup:
    """Draws accuracy against a cost on a logarithmic axis, one labelled mark a point.

    Args:
        points: At least one.
        name: Prefix of the ids in the SVG, unique in the page.
        xlabel: What the cost is.
        kind: `size` (bytes) or `latency` (microseconds).
    """
    with drawing():
        figure = new_figure(380, 240)
        axes = figure.add_axes((0.125, 0.16, 0.845, 0.81))
        for p in points:
            colour, marker = MODEL_STYLES[p.key]
            whisker = None if p.x_high is None else [[0.0], [max(p.x_high - p.x, 0.0)]]
            axes.errorbar(
                p.x, p.accuracy, yerr=p.accuracy_error, xerr=whisker, color=HEX[colour],
                marker=marker, markersize=7, elinewidth=1, capsize=0,
            )  # fmt: skip
        cost_axis(axes, [x for p in points for x in (p.x, p.x_high) if x], kind)
        ends = [p.accuracy + s * (p.accuracy_error or 0) for p in points for s in (-1, 1)]
        margin = max(0.12 * (max(ends) - min(ends)), 0.002)
        axes.set_ylim(min(ends) - margin, max(ends) + margin)
        percent_axis(axes.yaxis)
        axes.set_xlabel(xlabel)
        quiet(axes)
        _label_points(axes, points)
        return as_svg(figure, name, f"Accuracy against {xlabel}")


# --- accuracy of each class ----------------------------------------------------------------------


def _ranges(axes: Axes, accuracies: Sequence[Sequence[float | None]]) -> None:
    """Joins the lowest and the highest mark of each class."""
    for y, of_class in enumerate(zip(*accuracies, strict=True)):
        known = [value for value in of_class if value is not None]
        if known:
            ends = [min(known), max(known)]
            axes.plot(ends, [y, y], color=HEX["grid"], lw=4, zorder=1, solid_capstyle="round")


def class_accuracies(
    accuracies: Mapping[str, Sequence[float | None]], names: Sequence[str]
) -> Markup:
    """Draws a dot plot: one line a class, one mark a model.

    Args:
        accuracies: Model key to its accuracy in each class, None for a class without images.
        names: The classes, in the order to draw from top to bottom.
    """
    with drawing():
        figure = new_figure(380, 52 + 19 * len(names), layout="constrained")
        axes = figure.add_subplot()
        heights = range(len(names))
        _ranges(axes, list(accuracies.values()))
        for key, values in accuracies.items():
            colour, marker = MODEL_STYLES[key]
            xs = [math.nan if value is None else value for value in values]
            hollow = key == "teacher"  # so that the teacher shows under a student at the same place
            axes.plot(
                xs, heights, marker, color=HEX[colour], markersize=8 if hollow else 5.5,
                markerfacecolor="none" if hollow else HEX[colour], zorder=2, clip_on=False,
            )  # fmt: skip
        axes.set_yticks(list(heights), [short(name) for name in names])
        axes.tick_params(axis="y", labelcolor=HEX["ink"])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(right=min(axes.get_xlim()[1], 1.005))
        percent_axis(axes.xaxis)
        axes.set_xlabel("accuracy in the class")
        quiet(axes, "x")
        return as_svg(figure, "classes", "Accuracy of each class")
