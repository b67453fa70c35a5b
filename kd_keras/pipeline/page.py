"""`report.html`: one self-contained page that shows a run.

Nothing in the page points outside of it: styles are inline, plots are inline SVG, there is no
script. It is rendered from `report.json` and the details of the training, without TensorFlow, so a
page can be made again from stored numbers anywhere; the same numbers give the same bytes.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from kd_keras.errors import InputError
from kd_keras.pipeline import class_errors, numerals, plots, svg, verdict
from kd_keras.pipeline.numerals import number
from kd_keras.pipeline.results_table import LABELS, Row, markdown_table, results_table, rows, table

__all__ = ["markdown_table", "render", "table", "write"]

# Above this many classes a matrix is a blur, and a list of the worst pairs says more.
MATRIX_CLASSES = 30
WORST_CLASSES = 20
WORST_PAIRS = 20

_STAGES = {
    "data": "Data",
    "teacher": "Teacher",
    "student_alone": "Student alone",
    "student": "Distilled student",
    "quantization": "Quantization-aware",
    "student_compressed": "Compressed student",
    "compressed": "Compressed student",
    "export": "Export",
    "verify": "Verify",
    "benchmark": "Benchmark",
    "report": "Report",
}


def _together(text: str) -> Markup:
    """Keeps a number and its unit on one line."""
    units = "%|B|kB|MB|µs|ms|s|points?|min|h"
    return Markup(re.sub(rf"(?<=\d) (?=(?:{units})\b|%)", "&nbsp;", str(escape(text))))


def _stage(name: str) -> str:
    whole, _, part = re.sub(r"^\d+_", "", name).partition("/")
    title = _STAGES.get(whole, whole.replace("_", " ").capitalize())
    return f"{title}: {part.replace('_', ' ')}" if part else title


def _tiles(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns the key figures as (figure, what it is, what to compare it with)."""
    final = verdict.final_row(report)
    if final is None:
        return []
    error = final.accuracy_error
    tiles = [
        (
            numerals.percent(final.value("accuracy")),
            f"accuracy, {final.label}",
            "" if error is None else f"± {100 * error:.2f} (standard error)",
        )
    ]
    shrink = verdict.smaller_than_teacher(report)
    if shrink is not None:
        word = "smaller" if shrink >= 1 else "larger"
        figure = numerals.ratio(max(shrink, 1 / shrink))
        tiles.append((figure, f"{word} than the teacher", numerals.size(final.size)))
    if final.latency("median") is not None:
        p90 = final.latency("p90")
        compare = "" if p90 is None else f"p90 {numerals.latency(p90)}"
        tiles.append((numerals.latency(final.latency("median")), "median latency here", compare))
    gain = verdict.difference(report, "student", "student_alone")
    if gain is not None:
        compare = "" if gain.error is None else f"± {100 * gain.error:.1f} (standard error)"
        tiles.append((numerals.points(gain.value), "by distillation", compare))
    return tiles


def _trade_offs(all_rows: Sequence[Row]) -> dict[str, Markup]:
    """Draws accuracy against size and against latency, as far as the report has the numbers."""
    sizes, latencies = [], []
    for row in all_rows:
        accuracy = row.value("accuracy")
        if accuracy is None or row.key not in plots.MODEL_STYLES:
            continue  # no measurement, or a student on its way through compression
        if row.size:
            sizes.append(plots.Point(row.key, row.label, row.size, accuracy, row.accuracy_error))
        if median := row.latency("median"):
            error, p90 = row.accuracy_error, row.latency("p90")
            latencies.append(plots.Point(row.key, row.label, median, accuracy, error, p90))
    drawn = {}
    if sizes:
        drawn["size"] = plots.accuracy_against(sizes, "size", "size", "size")
    if latencies:
        xlabel = "median latency, whisker to p90"
        drawn["latency"] = plots.accuracy_against(latencies, "latency", xlabel, "latency")
    return drawn


def _file_rows(all_rows: Sequence[Row]) -> list[dict[str, str]]:
    """Returns one line for each file and number of threads that was timed."""
    lines = []
    for row in all_rows:
        for timing in row.timings:
            figures = [timing.figure("median", of) for of in ("median", "low", "high")]
            figures += [timing.figure(name) for name in ("p90", "init", "first")]
            median, low, high, p90, init, first = map(numerals.latency, figures)
            lines.append(
                {
                    "file": row.label,
                    "threads": str(timing.threads),
                    "median": median,
                    "spread": f"{low} to {high}",
                    "p90": p90,
                    "init": init,
                    "first": first,
                }
            )
    return lines


def _file_facts(all_rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Returns (file, what else is known about it) for the exported files."""
    facts = []
    for row in all_rows:
        parts = []
        if row.entry.get("path"):
            parts.append(str(row.entry["path"]))
        if row.entry.get("input_dtype") and row.entry.get("output_dtype"):
            parts.append(f"{row.entry['input_dtype']} in, {row.entry['output_dtype']} out")
        steps = row.value("largest_error_steps")
        if steps is not None:
            parts.append(f"largest output error {steps:.3g} quantization steps")
        memory = number(row.timings[0].entry["peak_memory_bytes"]) if row.timings else None
        if memory is not None:
            parts.append(f"peak memory {numerals.size(memory)}")
        if parts:
            facts.append((row.label, " · ".join(parts)))
    return facts


def _training(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    histories = {stage: epochs for stage, epochs in histories.items() if epochs}
    figures = plots.training_curves(histories)
    return {
        "terms": plots.loss_terms(histories),
        "panels": [
            {
                "title": _stage(stage),
                "epochs": len(histories[stage]),
                "figure": figure,
                "gaps": plots.not_finite(histories[stage]),
            }
            for stage, figure in figures.items()
        ],
    }


def _classes(details: Mapping[str, Any]) -> dict[str, Any] | None:
    """Prepares per-class accuracy and the confusion of the last product that has a matrix."""
    matrices = {
        key: class_errors.as_matrix(matrix, key)
        for key, matrix in (details.get("confusion") or {}).items()
        if matrix is not None and key in LABELS
    }
    if not matrices:
        return None
    final = [key for key in LABELS if key in matrices][-1]
    matrix = matrices[final]
    names = _class_names(details, {key: len(found) for key, found in matrices.items()})
    accuracies = {key: class_errors.accuracy_of_classes(matrices[key]) for key in matrices}
    shown = [key for key in ("teacher", "student_alone", final) if key in matrices]
    shown = list(dict.fromkeys(shown))
    order: Sequence[int] = range(len(names))
    if len(names) > MATRIX_CLASSES:
        order = class_errors.hardest_classes(accuracies[final], WORST_CLASSES)
    drawn = {key: [accuracies[key][index] for index in order] for key in shown}
    return {
        "figure": plots.class_accuracies(drawn, [names[index] for index in order]),
        "shown": [(key, LABELS[key], *plots.MODEL_STYLES[key]) for key in shown],
        "names": names,
        "short": [plots.short(name, 14 if len(names) <= MATRIX_CLASSES else 26) for name in names],
        "only_worst": len(order) if len(order) < len(names) else None,
        "final": LABELS[final],
        "matrix": matrix.tolist() if len(names) <= MATRIX_CLASSES else None,
        "accuracies": accuracies[final],
        "totals": [int(total) for total in matrix.sum(axis=1)],
        "pairs": class_errors.most_confused(matrix, WORST_PAIRS),
    }


def _class_names(details: Mapping[str, Any], sizes: Mapping[str, int]) -> list[str]:
    """Returns a name for each class; numbers where the details have none.

    Raises:
        InputError: The number of names differs from that of a matrix.
    """
    names = [str(name) for name in details.get("class_names") or range(next(iter(sizes.values())))]
    for key, size in sizes.items():
        if size != len(names):
            raise InputError(
                f"confusion matrix of {key!r} has {size} classes, but class_names has "
                f"{len(names)}; give one name a class"
            )
    return names


def _seconds(report: Mapping[str, Any]) -> list[tuple[str, str, float]]:
    """Returns (stage, time, share of the longest stage)."""
    spent = {stage: number(value) for stage, value in (report.get("seconds") or {}).items()}
    longest = max((value for value in spent.values() if value), default=1.0)
    return [
        (_stage(stage), numerals.duration(value), value / longest)
        for stage, value in spent.items()
        if value is not None
    ]


def machine(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The facts of the machine by their names for a person."""
    measured = report.get("machine") or {}
    names = {"cpu": "Processor", "cores": "Cores", "memory_gb": "Memory", "os": "System"}
    facts = []
    for key, value in measured.items():
        if value is None:
            continue
        size = number(value)
        text = f"{size:.3g} GB" if key == "memory_gb" and size is not None else str(value)
        facts.append((names.get(key, key.capitalize()), text))
    return facts


def _data(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = []
    for key, value in (report.get("data") or {}).items():
        if value is None:
            continue
        images = number(value)
        text = str(value) if images is None else f"{numerals.count(images)} images"
        facts.append((key.capitalize(), text))
    return facts


def created(report: Mapping[str, Any]) -> str:
    """When a report was made, for a person."""
    written = str(report.get("created") or "")
    try:
        return f"{datetime.fromisoformat(written):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:  # an ISO form that this Python does not read is shown as it is
        return written


def _context(report: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, Any]:
    all_rows = rows(report)
    seconds = report.get("seconds") or {}
    config = report.get("config")
    return {
        "title": f"{(report.get('data') or {}).get('name') or 'Run'}: from teacher to student",
        "created": created(report),
        "verdict": verdict.verdict(report),
        "how_sure": verdict.how_sure(report),
        "tiles": _tiles(report),
        "table": results_table(report),
        "teacher": report.get("teacher") or {},
        "keys": [row.key for row in all_rows],
        "trade_offs": _trade_offs(all_rows),
        "training": _training(details.get("history") or {}),
        "generations": report.get("generations") or {},
        "classes": _classes(details),
        "machine": machine(report),
        "data": _data(report),
        "versions": report.get("versions") or {},
        "files": _file_rows(all_rows),
        "file_facts": _file_facts(all_rows),
        "seconds": _seconds(report),
        "total": numerals.duration(sum(number(value) or 0.0 for value in seconds.values())),
        "config": json.dumps(config, indent=2, ensure_ascii=False, default=str) if config else "",
        "command": str(report.get("command") or ""),
        "palette": svg.PALETTE,
        "percent": numerals.percent,
        "count": numerals.count,
    }


def environment() -> jinja2.Environment:
    """The templates of this folder, with the filter `together` for numbers and units."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["together"] = _together
    return environment


def render(report: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    """Renders the page.

    Args:
        report: The contents of `report.json`. Models, files and optional fields may be missing;
            their rows and sections are then left out.
        details: `class_names` (list of C texts), `history` (stage to a list of one mapping an
            epoch, with `epoch` from 0) and `confusion` (model to C lists of C counts, rows the
            true classes). Each may be missing.

    Returns:
        The HTML text, the same for the same input.

    Raises:
        InputError: A confusion matrix is not square, or does not fit `class_names`.
    """
    return environment().get_template("page.html.j2").render(_context(report, details))


def write(report: Mapping[str, Any], details: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Writes the page to `path`: the whole of it or, when something fails, nothing.

    Args:
        report: As for `render`.
        details: As for `render`.
        path: A file in a folder that exists; it is replaced.
    """
    replace(render(report, details), path)


def replace(text: str, path: str | os.PathLike) -> None:
    """Writes a text to `path`: the whole of it or, when something fails, nothing."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
