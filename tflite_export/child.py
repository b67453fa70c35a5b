"""Runs a module of this package as a process of its own.

A file from a stranger may crash the runtime, which is native code: then a child dies, and its
parent can say so in one line.
"""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tflite_export.errors import ExportError

_FORESEEN = 3  # exit status


@dataclass(frozen=True)
class Python:
    """A Python that runs children.

    Attributes:
        line: begins their command line.
        packages: folder of what they import beside this package; None for what is imported here.
    """

    line: tuple[str, ...] = (sys.executable,)
    packages: Path | None = None

    def command(self, module: str, *arguments: object) -> list[str]:
        """The command line of a module, given with its package."""
        return [*self.line, "-m", module, *map(str, arguments)]

    def environment(self) -> dict[str, str]:
        """The environment in which a child finds this package."""
        home = str(Path(__file__).resolve().parents[1])
        # Packages of another Python go first: this package may lie among those of the one here.
        folders = [self.packages, home] if self.packages else [home, os.environ.get("PYTHONPATH")]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, folders)))}


#: The one that runs this.
HERE = Python()


def ending(status: int) -> str:
    """How a child ended.

    Example:
        >>> ending(-11), ending(1)
        ('SIGSEGV', 'status 1')
    """
    if status < 0 and -status in set(signal.Signals):
        return signal.Signals(-status).name
    return f"signal {-status}" if status < 0 else f"status {status}"


def run_module(
    module: str,
    *arguments: str,
    task: str,
    timeout: float | None = None,
    python: Python = HERE,
) -> str:
    """Runs `python -m module arguments` and returns what it printed.

    Args:
        module: with its package; for a cause that it foresees it ends by `fail`.
        arguments: of the command line.
        task: what it does, for the error: "measuring student.tflite".
        timeout: seconds until it is killed; None waits for ever.
        python: that runs it.

    Raises:
        ExportError: it failed, crashed or took too long.
    """
    try:
        finished = subprocess.run(
            python.command(module, *arguments),
            env=python.environment(),
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
            f"{task} crashed the runtime ({ending(finished.returncode)}); the file is "
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
