"""The trials of a search as rows: one description for the terminal and the page."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from kd_keras.pipeline import numerals
from kd_keras.pipeline.results_table import standard_error
from kd_keras.pipeline.search_front import FINISHED, Trial

HEADINGS = ("Trial", "Student and compression", "Accuracy", "Size", "gzip", "Latency", "Parameters")


def trials(found: Mapping[str, Any]) -> list[Trial]:
    """The trials of `search.json`."""
    return [Trial(**record) for record in found["trials"]]


def of_front(found: Mapping[str, Any]) -> list[Trial]:
    """The trials of the front, the most accurate first."""
    by_number = {trial.number: trial for trial in trials(found)}
    return [by_number[number] for number in found["front"]]


def others(found: Mapping[str, Any]) -> list[Trial]:
    """The trials that are not on the front, in their order."""
    return [trial for trial in trials(found) if trial.number not in found["front"]]


def cells(shown: Sequence[Trial]) -> list[list[str]]:
    """The cells of some trials, with one unit in each column."""
    columns = [
        [str(trial.number) for trial in shown],
        [trial.title for trial in shown],
        [numerals.percent(t.accuracy if t.state == FINISHED else None) for t in shown],
        numerals.sizes([trial.bytes for trial in shown]),
        numerals.sizes([trial.gzip_bytes for trial in shown]),
        numerals.latencies([trial.latency_us for trial in shown]),
        [numerals.count(trial.parameters) for trial in shown],
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def verdict(found: Mapping[str, Any]) -> str:
    """What the search recommends, in one sentence."""
    best = next((t for t in trials(found) if t.number == found["recommended"]), None)
    if best is None:
        return f"Nothing is within the limits ({limits(found)})."
    facts = f"{numerals.percent(best.accuracy)} accurate, {numerals.size(best.bytes)}"
    time = f"{numerals.latency(best.latency_us)} on {found['device']}"
    return f"{best.title}: {facts}, {time}."


def limits(found: Mapping[str, Any]) -> str:
    """The limits, as flags."""
    given = {name: value for name, value in found["limits"].items() if value is not None}
    return ", ".join(f"--{name} {value:g}" for name, value in given.items()) or "none"


def counts(found: Mapping[str, Any]) -> str:
    """How many trials there were, by how they ended."""
    states: dict[str, int] = {}
    for trial in trials(found):
        over = " but over the limits" if trial.state == FINISHED and trial.reason else ""
        states[trial.state + over] = states.get(trial.state + over, 0) + 1
    told = ", ".join(f"{count} {state}" for state, count in states.items())
    return f"{len(found['trials'])} of {numerals.count(found['combinations'])} combinations: {told}"


def footnote(found: Mapping[str, Any]) -> str:
    """What the figures are of, and how sure they are."""
    images = found["data"]["validation"]
    best = next((t for t in trials(found) if t.number == found["recommended"]), None)
    error = standard_error(best.accuracy, images) if best else None
    sure = "" if error is None else f" (± {100 * error:.2f}, one standard error)"
    return (
        f"Accuracy of the int8 file on {numerals.count(images)} validation images{sure}, on which "
        "it was chosen; a run of the config measures the test set. Latency is a median on "
        f"{found['device']}. Latencies, and sizes after gzip, within 5 % are taken for one."
    )


def table(found: Mapping[str, Any]) -> str:
    """The front for a terminal, with what is recommended."""
    front = of_front(found)
    rows = [list(HEADINGS), *cells(front)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        left = f"{row[0].rjust(widths[0])}  {row[1].ljust(widths[1])}"
        lines.append("  ".join([left, *map(str.rjust, row[2:], widths[2:])]))
    for index, trial in enumerate(front, start=1):
        lines[index] += "  <- recommended" if trial.number == found["recommended"] else ""
    lines.insert(1, "─" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join([*lines, counts(found), footnote(found), f"recommended: {verdict(found)}"])


def how_to_run(found: Mapping[str, Any], workdir: str) -> str:
    """The command that runs the recommended config, and takes what the search has trained."""
    best = next(t for t in trials(found) if t.number == found["recommended"])
    path = os.path.join(workdir, "front", f"{best.name}.py")
    trained = os.path.join(workdir, "trials", str(best.number))
    return f"run it: kd-train --config={path} --workdir=runs/{best.name} --reuse={trained}"
