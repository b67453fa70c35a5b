"""Where latency is measured: on this host, or by a command of a device's profile."""

import dataclasses
import json
import math
import os
import pathlib
import shlex
import subprocess
from collections.abc import Sequence

import tflite_export
from kd_keras.errors import InputError

_FILE = "{file}"
_SECONDS = 600
_REPEATS = 2
_LEAST_SECONDS = 0.05  # of each repeat
_KEYS = {"name", "command"}


@dataclasses.dataclass(frozen=True)
class Device:
    """What runs a file and tells how long an inference takes.

    Attributes:
        name: For a person.
        command: Of a profile; "{file}" in it stands for the .tflite file, and its last line of
            output is the median latency in microseconds. None for this host.

    Example::

        {"name": "Pixel 7", "command": ["./time_on_phone.sh", "{file}"]}
    """

    name: str = "this host"
    command: Sequence[str] | None = None

    def latency(self, path: pathlib.Path, *, threads: int, runs: int) -> float:
        """Median latency of a file, in microseconds.

        Args:
            path: Of the .tflite file.
            threads: That one inference may use; for a profile, its command decides.
            runs: Least number of inferences, likewise.

        Raises:
            InputError: If the profile's command fails, or its output does not end in a number.
        """
        if self.command is None:
            found = tflite_export.benchmark(path, threads=(threads,), effort=effort(runs))
            return found.measurements[0].time.median
        command = [part.replace(_FILE, str(path.resolve())) for part in self.command]
        return _asked(command, self.name)


def effort(runs: int) -> tflite_export.Effort:
    """How long a run or a search measures, who do it often: a second for each setting of a file.

    Args:
        runs: Least number of readings of the clock, which the repeats share.
    """
    share = math.ceil(runs / _REPEATS)
    return tflite_export.Effort(_REPEATS, runs=share, min_seconds=_LEAST_SECONDS)


def load(profile: str) -> Device:
    """The device of a profile, a JSON file; this host, without one.

    Raises:
        InputError: If the file cannot be read, or is no profile.
    """
    if not profile:
        return Device()
    try:
        found = json.loads(pathlib.Path(os.path.expanduser(profile)).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"device profile {profile!r} cannot be read: {error}") from error
    command = found.get("command") if isinstance(found, dict) else None
    parts = [part for part in command if isinstance(part, str)] if isinstance(command, list) else []
    if parts != command or set(found) != _KEYS or not any(_FILE in part for part in parts):
        raise InputError(
            f"device profile {profile!r} is {json.dumps(found)[:200]}; it must be as "
            '{"name": "Pixel 7", "command": ["./time_on_phone.sh", "{file}"]}'
        )
    return Device(str(found["name"]), tuple(parts))


def _asked(command: Sequence[str], name: str) -> float:
    """The number that a command's output ends in."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
        latency = float(done.stdout.strip().splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        raise InputError(
            f"{name} cannot be measured by {shlex.join(command)!r}: {error}; it must exit with 0, "
            "and the last line it prints must be the median latency in microseconds"
        ) from error
    if not 0 < latency < float("inf"):
        raise InputError(f"{shlex.join(command)!r} tells a latency of {latency} µs for {name}")
    return latency
