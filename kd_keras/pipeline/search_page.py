"""`search.html`: one self-contained page that shows a search, from what `search.json` holds."""

import json
import os
from collections.abc import Mapping
from typing import Any

from kd_keras.pipeline import numerals, page, search_plots, search_table, svg
from kd_keras.pipeline.search_front import REJECTED, STOPPED


def render(found: Mapping[str, Any]) -> str:
    """The page of a search.

    Args:
        found: The contents of `search.json`.

    Returns:
        The HTML text, the same for the same input.
    """
    return page.environment().get_template("search.html.j2").render(_context(found))


def write(found: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Write the page, whole or not at all.

    Args:
        found: The contents of `search.json`.
        path: A file in a folder that exists; it is replaced.
    """
    page.replace(render(found), path)


def _context(found: Mapping[str, Any]) -> dict[str, Any]:
    front, others = search_table.of_front(found), search_table.others(found)
    every = search_table.trials(found)
    return {
        "title": f"{found['data']['name']}: the right student",
        "created": page.created(found),
        "verdict": search_table.verdict(found),
        "counts": search_table.counts(found),
        "limits": search_table.limits(found),
        "headings": search_table.HEADINGS,
        "front": list(zip(front, search_table.cells(front), strict=True)) if front else [],
        "others": list(zip(others, search_table.cells(others), strict=True)) if others else [],
        "recommended": found["recommended"],
        "footnote": search_table.footnote(found),
        "figures": _figures(found),
        "states": {trial.state for trial in every} & {STOPPED, REJECTED},
        "walked": [(key.replace("/", "."), list(v)) for key, v in found["search"].items()],
        "machine": page.machine(found),
        "versions": found["versions"],
        "seconds": numerals.duration(sum(trial.seconds for trial in every)),
        "command": found["command"],
        "config": json.dumps(found["config"], indent=2, ensure_ascii=False),
        "palette": svg.PALETTE,
    }


def _figures(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    every, front = search_table.trials(found), search_table.of_front(found)
    drawn = {
        "Accuracy against size": search_plots.accuracy_against(
            *(every, front, lambda trial: trial.bytes),
            limit=found["limits"]["max_bytes"],
            kind="size",
            xlabel="int8 file",
        ),
        "Accuracy against latency": search_plots.accuracy_against(
            *(every, front, lambda trial: trial.latency_us),
            limit=found["limits"]["max_latency_us"],
            kind="latency",
            xlabel=f"median latency, {found['device']}",
        ),
    }
    return [(title, figure) for title, figure in drawn.items() if figure is not None]
