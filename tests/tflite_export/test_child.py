import os

import pytest

from tflite_export.child import HERE, Python, run_module
from tflite_export.errors import ExportError

pytestmark = pytest.mark.any_keras


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *os.sys.path]))

    def write(code):
        (tmp_path / "the_child.py").write_text(code)
        return "the_child"

    return write


def test_gives_what_is_printed(module):
    name = module("import sys; print(sys.argv[1] * 2)")
    assert run_module(name, "ab", task="doubling") == "abab\n"


def test_a_cause_that_the_child_foresaw_is_raised_as_it_is(module):
    code = "from tflite_export.child import fail\nfail(ValueError('so\\nit is'))"
    with pytest.raises(ExportError, match=r"^so it is$"):
        run_module(module(code), task="measuring x")


def test_packages_of_another_python_go_before_all_others(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", "mine")
    home, mine = HERE.environment()["PYTHONPATH"].split(os.pathsep)
    assert mine == "mine"
    other = Python(("qemu", "python"), tmp_path)
    assert other.environment()["PYTHONPATH"].split(os.pathsep) == [str(tmp_path), home]
    assert other.command("a.module", 1) == ["qemu", "python", "-m", "a.module", "1"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed the runtime .SIGSEGV"),
        ("import sys; sys.exit('first\\nlast')", "status 1: last"),
        ("import os; os._exit(4)", "status 4: no message"),
        ("import time; time.sleep(60)", "not over after 1 s"),
    ],
)
def test_a_failure_is_one_line(module, code, reason, one_line):
    with pytest.raises(ExportError, match=f"^measuring x .*{reason}") as caught:
        run_module(module(code), task="measuring x", timeout=1 if "sleep" in code else 60)
    one_line(caught)
