"""The examples in the docstrings run and give what they show."""

import doctest
import importlib
import pkgutil
from types import ModuleType

import pytest
import tensorflow as tf

import kd_keras
import tflite_export

NEEDS_TF_KERAS = "kd_keras.compression"


def modules() -> list:
    found = []
    for package in (kd_keras, tflite_export):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            marks = [pytest.mark.tf_keras] if module.name.startswith(NEEDS_TF_KERAS) else []
            found.append(pytest.param(module.name, marks=marks))
    return found


def examples(module: ModuleType) -> list[doctest.DocTest]:
    found = doctest.DocTestFinder().find(module, extraglobs={"tf": tf})
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", modules())
def test_examples(name: str, capsys: pytest.CaptureFixture) -> None:
    module = importlib.import_module(name)
    for example in examples(module):
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        result = doctest.DocTestRunner(optionflags=flags).run(example)
        assert result.failed == 0, f"{example.name}:\n{capsys.readouterr().out}"


@pytest.mark.parametrize(
    "name",
    [
        *("Distiller", "AdversarialDistiller", "ConditionalAdversarialDistiller"),
        *("Ensemble", "Stage", "born_again", "StopOnNonFinite", "DiscriminatorWatch"),
        *map(kd_keras.methods.class_name, kd_keras.methods.names()),
    ],
)
def test_what_users_call_shows_an_example(name: str) -> None:
    assert ">>>" in getattr(kd_keras, name).__doc__
