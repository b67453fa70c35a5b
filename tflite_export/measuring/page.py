"""A result as one self-contained page: no script, nothing outside of it."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from tflite_export.measuring import table
from tflite_export.measuring.published import PUBLISHED
from tflite_export.measuring.result import Measurement, Result


class _Point(NamedTuple):
    label: str
    x: float
    low: float
    high: float
    y: float


def page(result: Result) -> str:
    """Returns the HTML; the same result gives the same text."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    source = Path(__file__).with_name("page.html.j2").read_text(encoding="utf-8")
    template = environment.from_string(source)
    # Names may hold what matplotlib would read as mathematics.
    style = {"svg.fonttype": "none", "svg.hashsalt": "kd-benchmark", "text.parse_math": False}
    with matplotlib.rc_context(style):  # type: ignore[arg-type]
        plots = _plots(result)
    return template.render(
        result=result,
        header=table.HEADER,
        rows=table.rows(result),
        size=table.size,
        agreements=table.agreements(result),
        profiles=table.profiles(result),
        plots=plots,
        published=PUBLISHED,
        facts={n: v for n, v in result.facts.items() if not isinstance(v, dict | list | None)},
    )


def _plots(result: Result) -> list[Markup]:
    accuracies = {m.name: m.accuracy or 0.0 for m in result.models if m.accuracy is not None}
    plots = [_bars(result.measurements)]
    if accuracies:
        by_time = [
            _Point(m.model, *_time_ms(m), 100 * accuracies[m.model])
            for m in result.measurements
            if m.setting == result.measurements[0].setting
        ]
        kilobytes = {m.name: m.bytes / 1000 for m in result.models}
        by_size = [_Point(n, kb, kb, kb, 100 * accuracies[n]) for n, kb in kilobytes.items()]
        plots += [
            _scatter(by_time, f"time, ms ({result.measurements[0].setting})"),
            _scatter(by_size, "size, kB"),
        ]
    return plots


def _label(measured: Measurement) -> str:
    return f"{measured.model}, {measured.setting}"


def _time_ms(measured: Measurement) -> tuple[float, float, float]:
    spread = measured.time
    return spread.median / 1000, spread.low / 1000, spread.high / 1000


def _bars(measurements: Sequence[Measurement]) -> Markup:
    figure = Figure(figsize=(8, 0.8 + 0.3 * len(measurements)), layout="constrained")
    axes = figure.add_subplot()
    for place, measured in enumerate(measurements):
        middle, low, high = _time_ms(measured)
        axes.barh(place, middle, color="#3b76af", height=0.7)
        axes.plot([low, high], [place, place], color="#222222", linewidth=1.5)
    axes.set_yticks(range(len(measurements)), [_label(m) for m in measurements])
    axes.invert_yaxis()
    axes.set_xlabel("time of an inference, ms (line: lowest to highest of the repeats)")
    return _svg(figure)


def _scatter(points: Sequence[_Point], label: str) -> Markup:
    figure = Figure(figsize=(5, 2.8 + 0.25 * len(points)), layout="constrained")
    axes = figure.add_subplot()
    for place, point in enumerate(points):
        colour = f"C{place % 10}"
        axes.plot([point.low, point.high], [point.y, point.y], color=colour)
        axes.plot([point.x], [point.y], "o", color=colour, label=point.label)
    figure.legend(loc="outside lower center", frameon=False)
    axes.margins(0.1)
    axes.set_xlim(left=0)
    axes.set_xlabel(label)
    axes.set_ylabel("accuracy, %")
    return _svg(figure)


def _svg(figure: Figure) -> Markup:
    figure.gca().spines[["top", "right"]].set_visible(False)
    stream, nothing = io.StringIO(), dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(stream, format="svg", metadata=nothing)
    drawn = stream.getvalue()
    return Markup(drawn[drawn.index("<svg") :])  # matplotlib escapes the texts
