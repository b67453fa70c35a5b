"""docs/networks.md is what docs/networks.py makes of the networks there are."""

import importlib
import pathlib
import pkgutil
import re
import runpy

import pytest

from kd_keras import models

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
ROW = re.compile(r"\| `(?P<name>\S+)` \| (?P<shape>\d+x\d+x\d+) \| (?P<parameters>[\d,]+) \| .*")
ROWS = [
    (
        found["name"],
        tuple(map(int, found["shape"].split("x"))),
        int(found["parameters"].replace(",", "")),
    )
    for found in ROW.finditer((DOCS / "networks.md").read_text(encoding="utf-8"))
]
SMALL = [row for row in ROWS if row[2] < 500_000 and row[1][0] <= 32]


def families():
    for module in pkgutil.iter_modules(models.__path__):
        family = getattr(
            importlib.import_module(f"{models.__name__}.{module.name}"), "FAMILY", None
        )
        if family is not None:
            yield pytest.param(family, id=module.name)


@pytest.mark.any_keras
@pytest.mark.parametrize("family", list(families()))
def test_the_table_lists_every_network_at_every_size(family):
    wanted = {(name, shape) for name in family.examples for shape in family.input_shapes}
    missing = wanted - {row[:2] for row in ROWS}
    assert not missing, "run docs/networks.py"


@pytest.mark.any_keras
def test_the_table_lists_no_network_that_is_gone():
    assert {name for name, *_ in ROWS} == set(models.names()), "run docs/networks.py"


@pytest.mark.any_keras
@pytest.mark.parametrize(("name", "input_shape", "parameters"), SMALL)
def test_the_table_counts_the_small_networks(name, input_shape, parameters):
    model = models.build(name, classes=10, input_shape=input_shape)
    assert model.count_params() == parameters, "run docs/networks.py"


@pytest.mark.tf_keras
def test_a_row_is_what_the_code_makes_of_its_network():
    describe = runpy.run_path(str(DOCS / "networks.py"))["describe"]
    row = " | ".join(describe("lenet4", (28, 28, 1)).cells())
    assert f"| {row} |\n" in (DOCS / "networks.md").read_text(encoding="utf-8")
