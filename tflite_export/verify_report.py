"""Tells people and programs what `kd-verify` found."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tflite_export.comparison import ClassResult, OutputError, Verification
from tflite_export.layer_errors import LayerError, cure, worst

_SHOWN = 20  # rows of a table


def text(result: Verification, layers: Sequence[LayerError] | None = None) -> str:
    """Returns the tables for a terminal."""
    stepwise = result.mean_error_steps is not None
    unit = "quantization steps" if stepwise else "unit of the outputs"
    sizes = (
        (result.mean_error_steps, result.p99_error_steps, result.largest_error_steps)
        if stepwise
        else (result.mean_error, result.p99_error, result.largest_error)
    )
    lines = [
        f"{result.examples} images   reference      file",
        f"{'accuracy':16}{result.accuracy_reference:9.2%}{result.accuracy:10.2%}",
        f"{'agreement':25}{result.agreement:10.2%}",
        "",
        f"{'error in ' + unit:32}{'mean':>9}{'p99':>9}{'largest':>9}",
        f"{'  all outputs':32}" + "".join(f"{size:9.3g}" for size in sizes),
        *_rows(result.outputs, _output_line),
        "",
        f"{'class':8}{'examples':>9}{'reference':>11}{'file':>9}{'lost':>8}",
        *_rows(sorted(result.classes, key=lambda one: -one.lost), _class_line),
    ]
    if layers is not None:
        lines += ["", *_layer_lines(layers)]
    if result.likely_cause:
        lines += ["", f"likely cause: {result.likely_cause}"]
    return "\n".join(lines)


def as_dictionary(
    result: Verification, layers: Sequence[LayerError] | None = None
) -> dict[str, Any]:
    """Returns everything that was found, for JSON."""
    return {
        **asdict(result),
        "losing_classes": [found.number for found in result.losing_classes],
        "layers": None if layers is None else [asdict(found) for found in layers],
        "worst_layers": None if layers is None else [found.layer for found in worst(layers)],
        "cure": None if layers is None else cure(layers),
    }


def _rows(found: Sequence[Any], line: Any) -> list[str]:
    rest = len(found) - _SHOWN
    return [*map(line, found[:_SHOWN]), *([f"  and {rest} more, in the JSON"] if rest > 0 else [])]


def _output_line(found: OutputError) -> str:
    return f"{f'  output {found.number}':32}{found.mean:9.3g}{found.p99:9.3g}{found.largest:9.3g}"


def _class_line(found: ClassResult) -> str:
    if found.accuracy is None or found.accuracy_reference is None:
        return f"{found.number:<8}{0:9}"
    return (
        f"{found.number:<8}{found.examples:9}{found.accuracy_reference:11.2%}"
        f"{found.accuracy:9.2%}{100 * found.lost:8.2f}"
    )


def _layer_lines(layers: Sequence[LayerError]) -> list[str]:
    width = max(len(found.layer) for found in layers) + 2
    head = f"{'layer':{width}}{'operator':20}{'format':9}{'error':>7}{'added':>7}{'steps':>8}"
    lines = [f"{head}{'cut off':>9}"]
    for found in layers:
        steps = "" if found.mean_steps is None else f"{found.mean_steps:.2f}"
        lines.append(
            f"{found.layer:{width}}{found.operator:20}{found.format:9}{found.error:7.3f}"
            f"{found.added:7.3f}{steps:>8}{found.saturated:9.2%}"
        )
    return [*lines, *filter(None, [cure(layers)])]
