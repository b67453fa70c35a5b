"""The figures of a search: accuracy against size and against latency, with the front as a line."""

from collections.abc import Callable, Sequence

from markupsafe import Markup
from matplotlib.axes import Axes

from kd_keras.pipeline.plots import cost_axis
from kd_keras.pipeline.search_front import FINISHED, REJECTED, STOPPED, Trial
from kd_keras.pipeline.svg import HEX, as_svg, drawing, new_figure, percent_axis, quiet

#: A limit so many times above the costliest trial is left out of the figure.
_FAR = 2.0


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
        numbers = {trial.number for trial in front}
        _marks(axes, known, cost, numbers)
        _line(axes, front, cost)
        cost_axis(axes, [*costs, *([shown_limit] if shown_limit else [])], kind)
        _accuracy_axis(axes, known)
        if refused:
            floor = [axes.get_ylim()[0]] * len(refused)
            axes.plot(refused, floor, "^", color=HEX["orange"], markersize=6, clip_on=False)
        if shown_limit:
            axes.axvline(shown_limit, color=HEX["orange"], linestyle=(0, (4, 2)), linewidth=1.2)
        axes.set_xlabel(xlabel)
        quiet(axes)
        _numbers(axes, front, cost)
        return as_svg(figure, f"search-{kind}", f"Accuracy against {xlabel}")


def _marks(
    axes: Axes, known: Sequence[Trial], cost: Callable[[Trial], float | None], front: set[int]
) -> None:
    for trial in known:
        marker, colour, size = "o", "muted", 4.5
        if trial.state == STOPPED:
            marker, colour = "x", "red"
        elif trial.number in front:
            colour, size = "blue", 8.0
        axes.plot(
            cost(trial) or 0.0, trial.accuracy or 0.0, marker, color=HEX[colour], markersize=size
        )


def _line(axes: Axes, front: Sequence[Trial], cost: Callable[[Trial], float | None]) -> None:
    """Steps along the highest accuracy for each cost."""
    xs: list[float] = []
    ys: list[float] = []
    for trial in sorted(front, key=lambda t: (cost(t) or 0.0, -(t.accuracy or 0.0))):
        if not ys or (trial.accuracy or 0.0) > ys[-1]:
            xs.append(cost(trial) or 0.0)
            ys.append(trial.accuracy or 0.0)
    if len(xs) > 1:
        axes.step(xs, ys, where="post", color=HEX["blue"], linewidth=1.2, alpha=0.7, zorder=1)


def _accuracy_axis(axes: Axes, known: Sequence[Trial]) -> None:
    """Shows the finished trials; one that was stopped far below them would flatten them."""
    finished = [t.accuracy or 0.0 for t in known if t.state == FINISHED]
    shown = finished or [t.accuracy or 0.0 for t in known]
    span = max(max(shown) - min(shown), 0.01)
    axes.set_ylim(min(shown) - 0.35 * span, max(shown) + 0.15 * span)
    percent_axis(axes.yaxis)


def _numbers(axes: Axes, front: Sequence[Trial], cost: Callable[[Trial], float | None]) -> None:
    """Writes the numbers of the front's trials above their marks; of those in one place, joined."""
    places: dict[tuple[int, int], list[Trial]] = {}
    for trial in front:
        x, y = axes.transData.transform((cost(trial) or 0.0, trial.accuracy or 0.0))
        places.setdefault((round(x / 16), round(y / 8)), []).append(trial)
    for together in places.values():
        text = ", ".join(str(trial.number) for trial in sorted(together, key=lambda t: t.number))
        first = together[0]
        axes.annotate(
            text, (cost(first) or 0.0, first.accuracy or 0.0), (0, 7), textcoords="offset points",
            ha="center", va="bottom", color=HEX["blue"], fontweight="bold",
        )  # fmt: skip
