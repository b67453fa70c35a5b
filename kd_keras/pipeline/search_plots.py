"""The figures of a search: accuracy against size and against latency, with the front as a line."""

from collections.abc import Callable, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from kd_keras.pipeline import numerals
from kd_keras.pipeline.plots import cost_axis
from kd_keras.pipeline.search_front import FINISHED, REJECTED, STOPPED, Trial
from kd_keras.pipeline.svg import HEX, as_svg, drawing, new_figure, percent_axis, quiet

#: A limit so many times above the costliest trial is left out of the figure.
_FAR = 2.0
#: Costs that differ by less than so many times lie on a linear axis.
_NARROW = 4.0
#: How far the figure reaches down from the best, in distances of the median from it.
_SPANS = 2.0


def accuracy_against(
    trials: Sequence[Trial],
    front: Sequence[Trial],
    cost: Callable[[Trial], float | None],
    *,
    limit: float | None,
    kind: str,
    xlabel: str,
) -> Markup | None:
    """Draws the trials in the plane of accuracy and one cost.

    A trial that was refused before it was trained has no accuracy, and stands at the bottom.

    Args:
        trials: All of them.
        front: Those on the front, which are numbered.
        cost: Gives what the x-axis shows of a trial.
        limit: Of this cost; drawn where it is near.
        kind: `size` (bytes) or `latency` (microseconds).
        xlabel: What the cost is.

    Returns:
        The figure, or None if no trial has both figures.
    """
    known = [t for t in trials if cost(t) is not None and t.accuracy is not None]
    refused = [cost(t) or 0.0 for t in trials if t.state == REJECTED and cost(t)]
    if not known:
        return None
    costs = [cost(t) or 0.0 for t in known] + refused
    shown_limit = limit if limit and limit <= _FAR * max(costs) else None
    with drawing():
        figure = new_figure(380, 270)
        axes = figure.add_axes((0.125, 0.15, 0.845, 0.82))
        _lay_out(axes, known, [*costs, *([shown_limit] if shown_limit else [])], kind)
        floor = axes.get_ylim()[0]
        _marks(axes, known, cost, {trial.number for trial in front}, floor)
        _line(axes, _best(front, cost), cost)
        axes.plot(
            refused,
            [floor] * len(refused),
            "^",
            color=HEX["orange"],
            markersize=6,
            clip_on=False,
            zorder=5,
        )
        if shown_limit:
            axes.axvline(shown_limit, color=HEX["orange"], linestyle=(0, (4, 2)), linewidth=1.2)
        axes.set_xlabel(xlabel)
        quiet(axes)
        return as_svg(figure, f"search-{kind}", f"Accuracy against {xlabel}")


def _lay_out(axes: Axes, known: Sequence[Trial], costs: Sequence[float], kind: str) -> None:
    """Sets both axes; the accuracies that are far below the others are left to the floor."""
    low, high = min(costs), max(costs)
    if high < _NARROW * low:
        write = numerals.size if kind == "size" else numerals.latency
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
        margin = 0.08 * (high - low) or 0.1 * high
        axes.set_xlim(low - margin, high + margin)
    else:
        cost_axis(axes, costs, kind)
        room = (high / low) ** 0.08
        axes.set_xlim(low / room, high * room)
    finished = [t.accuracy or 0.0 for t in known if t.state == FINISHED]
    shown = finished or [t.accuracy or 0.0 for t in known]
    best = max(shown)
    span = max(min(best - min(shown), _SPANS * (best - float(np.median(shown)))), 0.01)
    axes.set_ylim(best - 1.15 * span, best + 0.15 * span)
    percent_axis(axes.yaxis)


def _marks(
    axes: Axes,
    known: Sequence[Trial],
    cost: Callable[[Trial], float | None],
    front: set[int],
    floor: float,
) -> None:
    for trial in known:
        marker, colour, size = "o", "muted", 4.5
        if trial.state == STOPPED:
            marker, colour = "x", "red"
        elif trial.number in front:
            colour, size = "blue", 7.0
        accuracy = trial.accuracy or 0.0
        if accuracy < floor:
            accuracy, marker = floor, "v"
        axes.plot(
            cost(trial) or 0.0, accuracy, marker, color=HEX[colour], markersize=size,
            clip_on=False, zorder=5,
        )  # fmt: skip


def _best(front: Sequence[Trial], cost: Callable[[Trial], float | None]) -> list[Trial]:
    """The trials of the front that are the most accurate for their cost, the cheapest first."""
    found: list[Trial] = []
    for trial in sorted(front, key=lambda t: (cost(t) or 0.0, -(t.accuracy or 0.0))):
        if not found or (trial.accuracy or 0.0) > (found[-1].accuracy or 0.0):
            found.append(trial)
    return found


def _line(axes: Axes, best: Sequence[Trial], cost: Callable[[Trial], float | None]) -> None:
    """Steps along the best trials, with their numbers."""
    xs, ys = [cost(trial) or 0.0 for trial in best], [trial.accuracy or 0.0 for trial in best]
    axes.step(xs, ys, where="post", color=HEX["blue"], linewidth=1.2, alpha=0.7, zorder=1)
    for trial, x, y in zip(best, xs, ys, strict=True):
        # Above and to the left of a front there is nothing.
        axes.annotate(
            str(trial.number), (x, y), (-5, 3), textcoords="offset points",
            ha="right", va="bottom", color=HEX["blue"], fontweight="bold",
        )  # fmt: skip
