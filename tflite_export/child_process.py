"""Starts programs of this package, so that a file that crashes the runtime crashes those only."""

import os
import signal
import sys
from pathlib import Path


def command(module: str, *arguments: object) -> list[str]:
    """Returns the command line of a module of this package."""
    return [sys.executable, "-m", f"tflite_export.{module}", *map(str, arguments)]


def environment() -> dict[str, str]:
    """Returns the environment in which a child finds this package."""
    home = str(Path(__file__).resolve().parents[1])
    search_path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": search_path}


def ending(status: int) -> str:
    """Says how a child ended.

    Example:
        >>> ending(-11), ending(1)
        ('SIGSEGV', 'status 1')
    """
    if status < 0 and -status in set(signal.Signals):
        return signal.Signals(-status).name
    return f"status {status}"
