"""Reads what TensorFlow's `benchmark_model` prints, of any year.

The forms that it has had::

    count=50 first=10 curr=11 min=9 max=12 avg=10.5 std=1 p5=9 median=10 p95=12
    count=50 first=10 curr=11 min=9 max=12 avg=2.95034e+06 std=1
    count=7 curr=10(all same)
    count=1 curr=10
    count=0

each after nothing, after `INFO: ` or after logcat's `I/tflite  ( 5395): `. The first is of the
warm-up, the second is the measurement. LiteRT's newer tool prints milliseconds: `Inference (avg):
12.34 ms (50 runs)`. Times become microseconds, sizes bytes.
"""

import math
import re
from dataclasses import dataclass, field

from tflite_export.measuring.result import Delegation, Reading

_NUMBER = r"([-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)"
_COUNT = re.compile(r"\bcount=(\d{1,18})\b(.*)")
_PAIR = re.compile(rf"\b(\w+)={_NUMBER}")
_TIMINGS = re.compile(r"nference timings in us: *(.*)")
_TIMING = re.compile(rf"([A-Z][a-z]+(?: [a-z]+)?)(?: \(avg\))?: *{_NUMBER}")
_SESSION = re.compile(rf"Initialized session in {_NUMBER}ms")
_NEWER = re.compile(
    r"\b(Model initialization|Warmup \(first\)|Inference \(\w+\)): +"
    rf"{_NUMBER} ms(?: \((\d{{1,18}}) runs\))?"
)
_PEAK = re.compile(rf"Overall peak memory footprint \(MB\) via periodic monitoring: *{_NUMBER}")
_FOOTPRINT = re.compile(
    rf"(?:Memory footprint delta from the start of the tool|Peak memory footprint) \(MB\):"
    rf".*\boverall={_NUMBER}"
)
_REPLACING = re.compile(
    r"Replacing (\d{1,9})(?: out of (\d{1,9}))? node\(s\) with delegate \((\w+)\) node, "
    r"yielding (\d{1,9}) partitions(?: for subgraph (\d+))?"
)
_REFUSED = re.compile(
    r"Though (.+?) delegate is explicitly applied, the model graph will not be executed"
)
_UNKNOWN = re.compile(r"Unconsumed cmdline flags: *(.*)")
_FIGURES = {
    **{name: name for name in ("min", "max", "std", "p5", "median", "p95")},
    "avg": "mean",
}
_MIB = 2**20


@dataclass(frozen=True)
class ToolOutput:
    """What one run of the tool told.

    Attributes:
        reading: None where it measured nothing.
        peak_memory_bytes: of the whole process where it was sampled, else what the model added;
            None where neither is told.
        delegations: by the name of the delegate, of the main graph.
        refused: names of delegates that were asked for and took nothing.
        unknown_flags: that this build of the tool ignored.
    """

    reading: Reading | None = None
    peak_memory_bytes: int | None = None
    delegations: dict[str, Delegation] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    unknown_flags: tuple[str, ...] = ()


def parse(text: str) -> ToolOutput:
    """Reads everything that is known from the text; text of another kind gives nothing."""
    peaks = _numbers(_PEAK, text) or _numbers(_FOOTPRINT, text)
    return ToolOutput(
        reading=_reading(text),
        peak_memory_bytes=round(peaks[-1] * _MIB) if peaks and peaks[-1] > 0 else None,
        delegations=_delegations(text),
        refused=tuple(_REFUSED.findall(text)),
        unknown_flags=tuple(flag for line in _UNKNOWN.findall(text) for flag in line.split()),
    )


def _reading(text: str) -> Reading | None:
    lines = [_count_line(int(count), rest) for count, rest in _COUNT.findall(text)]
    counts = [line for line in lines if "mean" in line or line["runs"] == 0]
    figures = _newer(text) | _timings(text)
    sessions = _numbers(_SESSION, text)
    if sessions:
        figures.setdefault("init", sessions[-1] * 1000)
    if len(counts) > 1 or (counts and "mean" in figures):
        figures |= counts[-1]
        figures |= next(({"first": count["first"]} for count in counts if "first" in count), {})
    runs = figures.pop("runs", None)
    if runs == 0 or not figures.get("mean"):
        return None
    return Reading(None if runs is None else int(runs), **figures)  # type: ignore[arg-type]


def _count_line(count: int, rest: str) -> dict[str, float]:
    pairs = {name: _finite(number) for name, number in _PAIR.findall(rest)}
    told = {name: value for name, value in pairs.items() if value is not None}
    if "avg" not in told and "curr" in told:  # there was one, or all are the same
        told |= dict.fromkeys(("first", *_FIGURES), told["curr"]) | {"std": 0.0}
    first = {"first": told["first"]} if "first" in told else {}
    return {
        "runs": count,
        **first,
        **{_FIGURES[name]: value for name, value in told.items() if name in _FIGURES},
    }


def _timings(text: str) -> dict[str, float]:
    lines = _TIMINGS.findall(text)
    names = {"Init": "init", "First inference": "first", "Inference": "mean"}
    pairs = {name: _finite(number) for name, number in _TIMING.findall(lines[-1] if lines else "")}
    return {names[k]: v for k, v in pairs.items() if k in names and v is not None}


def _newer(text: str) -> dict[str, float]:
    names = {"Model initialization": "init", "Warmup (first)": "first"}
    names |= {f"Inference ({name})": figure for name, figure in _FIGURES.items()}
    figures: dict[str, float] = {}
    for name, number, runs in _NEWER.findall(text):
        value = _finite(number)
        if name in names and value is not None:
            figures[names[name]] = value * 1000
        if name == "Inference (avg)" and runs:
            figures["runs"] = int(runs)
    return figures


def _delegations(text: str) -> dict[str, Delegation]:
    return {
        name: Delegation(int(nodes), int(total) if total else None, int(partitions))
        for nodes, total, name, partitions, graph in _REPLACING.findall(text)
        if graph in ("", "0")
    }


def _numbers(pattern: re.Pattern[str], text: str) -> list[float]:
    return [value for found in pattern.findall(text) if (value := _finite(found)) is not None]


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) and value >= 0 else None
