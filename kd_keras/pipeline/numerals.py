"""How the report writes numbers: `97.83 %`, `12.3 kB`, `38.1 µs`, `12,345`.

Sizes and times are written a column at a time, with one unit for the whole column, so that the
digits of right-aligned cells stand under each other and can be compared by eye.
"""

import math
from collections.abc import Sequence
from typing import Any

MISSING = "–"


def number(value: Any) -> float | None:
    """Returns `value` as a float, or None where it is absent, not a number, NaN or infinite."""
    if value is None or isinstance(value, (bool, str)):
        return None
    try:
        as_float = float(value)
    except (TypeError, ValueError):
        return None
    return as_float if math.isfinite(as_float) else None


def percent(fraction: float | None, digits: int = 2) -> str:
    """Writes a fraction: 0.9783 becomes `97.83 %`."""
    return MISSING if fraction is None else f"{100 * fraction:.{digits}f} %"


def points(difference: float, digits: int = 1) -> str:
    """Writes a difference of two fractions with its sign: 0.012 becomes `+1.2 points`."""
    written = f"{abs(100 * difference):.{digits}f}"
    sign = "±" if float(written) == 0 else "+" if difference > 0 else "−"
    return f"{sign}{written} points"


def count(value: float | None) -> str:
    """Writes a whole number with thousand separators: 12345 becomes `12,345`."""
    return MISSING if value is None else f"{round(value):,}"


def ratio(value: float) -> str:
    """Writes how many times: `17×`, and `1.4×` where a whole number would be too coarse."""
    return f"{value:,.0f}×" if value >= 9.95 else f"{value:.1f}×"


def _in_one_unit(
    values: Sequence[float | None], units: Sequence[tuple[float, float, str]]
) -> list[str]:
    """Writes values in the largest unit whose threshold the smallest value reaches."""
    known = [value for value in values if value is not None and value > 0]
    smallest = min(known, default=0.0)
    divisor, unit = next((d, u) for threshold, d, u in units if smallest >= threshold)
    digits = {"B": 0, "MB": 2}.get(unit, 1)
    return [MISSING if v is None else f"{v / divisor:,.{digits}f} {unit}" for v in values]


def sizes(values: Sequence[float | None]) -> list[str]:
    """Writes sizes given in bytes, all in one of B, kB (1,000 bytes) or MB."""
    return _in_one_unit(values, ((1e6, 1e6, "MB"), (100, 1e3, "kB"), (0, 1, "B")))


def latencies(values: Sequence[float | None]) -> list[str]:
    """Writes times given in microseconds, all in one of µs, ms or s."""
    return _in_one_unit(values, ((1e7, 1e6, "s"), (1e4, 1e3, "ms"), (0, 1, "µs")))


def size(value: float | None) -> str:
    """Writes one size given in bytes."""
    return sizes([value])[0]


def latency(value: float | None) -> str:
    """Writes one time given in microseconds."""
    return latencies([value])[0]


def duration(seconds: float | None) -> str:
    """Writes a span of time given in seconds: `4.2 s`, `2 min 05 s`, `1 h 02 min`."""
    if seconds is None:
        return MISSING
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"
