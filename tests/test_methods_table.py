"""docs/methods.md lists every method as the code has it."""

import json
import pathlib
import runpy

import pytest

import kd_keras as kd

pytestmark = pytest.mark.any_keras

DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs"
TABLE = (DOCS / "methods.md").read_text()
ROWS = {
    cells[0].strip("`"): cells
    for line in TABLE.splitlines()
    if line.startswith("| `")
    for cells in [[cell.strip() for cell in line.strip("|").split("|")]]
}


def test_every_method_has_a_row() -> None:
    assert set(ROWS) == {*kd.methods.names(), "adversarial", "conditional"}


@pytest.mark.parametrize("name", kd.methods.names())
def test_row(name: str) -> None:
    cls = kd.methods.get(name)
    row = ROWS[name]
    made = runpy.run_path(str(DOCS / "methods.py"))
    assert row[1] == f"`kd.{cls.__name__}`"
    assert row[2] == made["source"](cls)
    assert row[3] == ("logits" if cls.reads_logits else "layers")
    assert row[4] == ("yes" if cls.needs_labels else "no")


def test_costs_are_those_that_were_measured() -> None:
    costs = json.loads((DOCS / "methods_cost.json").read_text())
    for name, row in ROWS.items():
        measured = f"{costs[name]['median']:.2f}" if name in costs else "not measured"
        assert row[-1] == measured
