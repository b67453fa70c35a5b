"""Runs a module of this package as a process of its own.

A file from a stranger may crash the runtime, which is native code: then a child dies, and its
parent can say so in one line.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from tflite_export.errors import ExportError

_FORESEEN = 3  # exit status


def run_module(module: str, *arguments: str, task: str, timeout: float | None = None) -> str:
    """Runs `python -m module arguments` and returns what it printed.

    Args:
        module: with its package; for a cause that it foresees it ends by `fail`.
        arguments: of the command line.
        task: what it does, for the error: "measuring student.tflite".
        timeout: seconds until it is killed; None waits for ever.

    Raises:
        ExportError: it failed, crashed or took too long.
    """
    package_home = str(Path(__file__).resolve().parents[1])
    search_path = os.pathsep.join(filter(None, [package_home, os.environ.get("PYTHONPATH")]))
    try:
        finished = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env={**os.environ, "PYTHONPATH": search_path},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise ExportError(
            f"{task} was not over after {error.timeout:.0f} s, and was stopped; "
            f"ask for fewer runs or fewer seconds"
        ) from None
    if finished.returncode < 0:
        raise ExportError(
            f"{task} crashed the runtime ({_signal_name(-finished.returncode)}); the file is "
            f"damaged or asks for more memory than there is: export it again"
        )
    last = (finished.stderr.strip().splitlines() or ["no message"])[-1]
    if finished.returncode == _FORESEEN:
        raise ExportError(last)
    if finished.returncode:
        raise ExportError(f"{task} ended with status {finished.returncode}: {last}")
    return finished.stdout


def fail(problem: Exception) -> NoReturn:
    """Ends a child for a cause that it foresaw; its parent raises the same text."""
    print(" ".join(str(problem).split()), file=sys.stderr)
    raise SystemExit(_FORESEEN)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
