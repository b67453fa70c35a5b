"""A table's raw figures as JSON: they count for as long as the table's file asks for the same.

So a table grows over weeks and machines, though the folders of its runs do not last.
"""

import json
import pathlib
import re
from typing import Any

from kd_keras.pipeline import config as configs
from kd_keras.pipeline.tables import Results, Table
from kd_keras.pipeline.workdir import read_json, replacing

#: A list of numbers that `json.dumps` has broken into lines.
_BROKEN_LIST = re.compile(r"\[\s+([^\[\]{}\"]+?)\s+\]")


def path(table: Table, folder: str | pathlib.Path) -> pathlib.Path:
    """Where the figures of a table lie."""
    return pathlib.Path(folder) / f"{table.stem}.json"


def read(table: Table, folder: str | pathlib.Path) -> Results:
    """The figures of the rows that the table's file still makes in the same way, by row and seed.

    Raises:
        InputError: If the file is damaged.
    """
    if not path(table, folder).exists():
        return {}
    record = read_json(path(table, folder))
    made = record.get("made_of", {})
    return {
        name: {int(seed): result for seed, result in by_seed.items()}
        for name, by_seed in record["rows"].items()
        if name in table.rows and name in made and _is_same(made[name], _made_of(table, name))
    }


def write(table: Table, results: Results, folder: str | pathlib.Path) -> None:
    """Write the figures, with what they were made of."""
    before = read_json(path(table, folder)) if path(table, folder).exists() else {}
    latest = _any_report(table, results) or before
    record = {
        "title": table.title,
        **{key: latest.get(key) for key in ("machine", "versions", "data")},
        "made_of": {name: _made_of(table, name) for name in results},
        "rows": {name: dict(by_seed) for name, by_seed in results.items()},
    }
    lines = json.dumps(record, indent=2)
    text = _BROKEN_LIST.sub(lambda found: f"[{' '.join(found[1].split())}]", lines)
    with replacing(path(table, folder)) as temporary:
        temporary.write_text(f"{text}\n")


def _made_of(table: Table, name: str) -> dict[str, Any]:
    """What decides on a row's figures: its model or file, and where its config is no default."""
    row = table.rows[name]
    config = configs.plain(configs.complete(table.get_config(table.run_name(row["run"]))))
    del config["seed"]
    return {"file": row["file"], "model": row["model"], "config": configs.changed(config)}


def _is_same(kept: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(kept[key] == wanted[key] for key in ("file", "model")) and not configs.differences(
        kept["config"], wanted["config"]
    )


def _any_report(table: Table, results: Results) -> dict[str, Any]:
    """The report of one of the runs that are in their folders, for the machine and the data."""
    for name, by_seed in results.items():
        for seed in by_seed:
            if (report := table.report(table.rows[name]["run"], seed)) is not None:
                return report
    return {}
