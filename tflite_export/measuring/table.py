"""A result as a table, for the terminal and for the page."""

import collections
from collections.abc import Sequence

from tflite_export.measuring.result import Agreement, Measurement, Operator, Result, Spread

HEADER = (
    *("model", "backend", "threads", "cores", "median", "lowest..highest", "p90", "p99"),
    *("init", "first", "memory", "delegated", "ratio to the first"),
)
_LEFT = 2  # columns of words


def rows(result: Result) -> list[tuple[str, ...]]:
    """One row a measurement, with the columns of `HEADER`."""
    return [_row(measurement) for measurement in result.measurements]


def text(result: Result) -> str:
    """The table, what was measured and the notes, for a terminal."""
    models = {model.name: model for model in result.models}
    lines = [
        *(f"{name}: {size(m.bytes)}, gzip {size(m.gzip_bytes)}" for name, m in models.items()),
        *agreements(result),
        "",
        *_aligned([HEADER, *rows(result)]),
        "",
        f"The middle of {result.arguments['repeats']} repeats, each in a fresh process; "
        f"lowest..highest are their medians; models took turns.",
        *result.notes,
        *profiles(result),
    ]
    return "\n".join(lines)


def agreements(result: Result) -> list[str]:
    """How far the outputs are from this machine's, one sentence for each that is known."""
    return [
        f"{measured.model} ({measured.setting}) and this machine, {_compared(measured.agreement)}"
        for measured in result.measurements
        if measured.agreement
    ]


def profiles(result: Result) -> list[str]:
    """Which types of operators take the time, one sentence for each profile."""
    return [
        f"{measured.model} ({measured.setting}): {_shares(measured.profile)}."
        for measured in result.measurements
        if measured.profile
    ]


def time(micros: float | None) -> str:
    """Microseconds to three digits, in the unit that suits; "-" for None."""
    if micros is None:
        return "-"
    for unit, factor in (("s", 1e6), ("ms", 1e3)):
        if micros >= factor:
            return f"{micros / factor:.3g} {unit}" if micros < 1000 * factor else f"{micros:.0f} µs"
    return f"{micros:.3g} µs"


def size(count: int | None) -> str:
    """Bytes in kB or MB of 1000; "-" for None."""
    if count is None:
        return "-"
    return f"{count / 1e6:.3g} MB" if abs(count) >= 1e6 else f"{count / 1e3:.3g} kB"


def _row(measured: Measurement) -> tuple[str, ...]:
    typical = measured.time
    mark = " (mean)" if measured.typical == "mean" else ""
    middle = {name: _middle(measured, name) for name in ("p90", "p99", "init", "first")}
    taken = measured.delegation
    return (
        measured.model,
        measured.setting.backend,
        str(measured.setting.threads),
        measured.setting.cores,
        time(typical.median) + mark,
        f"{time(typical.low)}..{time(typical.high)}",
        *middle.values(),
        size(measured.peak_memory_bytes),
        f"{taken.nodes} of {taken.total or '?'}" if taken else "-",
        _ratio(measured.ratio),
    )


def _compared(found: Agreement) -> str:
    steps = found.largest_steps
    largest = f"{found.largest:.3g}" if steps is None else f"in quantization steps {steps}"
    return (
        f"{found.examples} examples ({found.inputs}): {found.equal:.2%} of the outputs are equal, "
        f"the largest difference is {largest}; the same class for {found.same_choice:.2%}."
    )


def _shares(profile: Sequence[Operator]) -> str:
    # What a delegate tells of its inside is part of the delegate's own row.
    rows = [row for row in profile if row.inside] or profile
    times = collections.Counter[str]()
    for row in rows:
        times[row.type] += row.mean  # type: ignore[assignment]
    total = sum(times.values()) or 1
    return ", ".join(f"{kind} {100 * part / total:.0f} %" for kind, part in times.most_common(5))


def _middle(measured: Measurement, figure: str) -> str:
    spread = measured.over_repeats(figure)
    return time(spread.median) if spread else "-"


def _ratio(ratio: Spread | None) -> str:
    return f"{ratio.median:.3g} ({ratio.low:.3g}..{ratio.high:.3g})" if ratio else ""


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < _LEFT else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
