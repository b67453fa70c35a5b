import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tflite_export


def test_import_is_light():
    code = (
        "import sys, tflite_export\n"
        "assert not {'tensorflow', 'numpy', 'kd_keras'} & set(sys.modules)\n"
    )
    home = str(Path(tflite_export.__file__).parents[1])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": home})


def test_importing_modules_does_not_hide_the_functions():
    for module in Path(tflite_export.__file__).parent.glob("[a-z]*.py"):
        importlib.import_module(f"tflite_export.{module.stem}")
    assert not any(inspect.ismodule(getattr(tflite_export, n)) for n in tflite_export.__all__)


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'exporter'"):
        tflite_export.exporter  # noqa: B018


def test_dir_lists_the_public_names():
    assert set(tflite_export.__all__) <= set(dir(tflite_export))
