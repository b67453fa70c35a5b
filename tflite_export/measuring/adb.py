"""The real `adb` client, and what its failures mean."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tflite_export.errors import ExportError

_QUICK = 60.0  # seconds for what should take moments
_MARK = "kd-benchmark-status"
_STATES = {
    "unauthorized": "has not allowed this computer; unlock it and accept 'Allow USB debugging'",
    "authorizing": "has not allowed this computer yet; unlock it and accept 'Allow USB debugging'",
    "offline": "is offline; plug it in again, or run `adb reconnect`",
    "no permissions": "may not be opened by this user; install the udev rules for Android",
}
#: What adb itself says -> what is the matter with the device.
_CAUSES = (
    (r"unauthorized|authorizing|failed to authenticate", _STATES["unauthorized"]),
    (r"offline", _STATES["offline"]),
    (
        r"no space left|ENOSPC|INSUFFICIENT_STORAGE",
        "has no room left in /data/local/tmp; free some and try again",
    ),
    (r"read-only file system|permission denied", "does not allow writing to /data/local/tmp"),
)
_GONE = (
    r"device .*not found|no devices|closed|reset|broken pipe|protocol fault|EOF|connect failed",
    "disconnected; check its cable or network and try again",
)


@dataclass(frozen=True)
class Answer:
    """Of a command on the device: its exit status, and what it printed, errors included."""

    status: int
    output: str


@dataclass(frozen=True)
class Attached:
    """A device that adb lists: its serial number and its state, "device" where it is ready."""

    serial: str
    state: str


def find(executable: str | None = None) -> str:
    """Returns the path of adb.

    Args:
        executable: a name or path; None looks for `adb`.

    Raises:
        ExportError: there is none.
    """
    found = shutil.which(executable or "adb")
    if found is None:
        raise ExportError(
            f"{executable or 'adb'} is not found; install Android's platform tools (Debian: "
            f"apt-get install adb), or say where it is: --adb=PATH"
        )
    return found


def attached(executable: str) -> list[Attached]:
    """Lists the devices, starting adb's server where it does not run.

    Raises:
        ExportError: adb fails.
    """
    finished = _run([executable, "devices"], _QUICK, "listing the devices")
    if finished.returncode:
        raise ExportError(f"adb devices failed: {_last_line(finished.stdout)}")
    return parse(finished.stdout)


def parse(listing: str) -> list[Attached]:
    """Reads what `adb devices` prints."""
    lines = listing.partition("List of devices attached")[2].splitlines()
    pairs = [line.split(None, 1) for line in lines if line.strip() and not line.startswith("*")]
    return [Attached(pair[0], pair[1].strip()) for pair in pairs if len(pair) == 2]


def choose(devices: Sequence[Attached], serial: str | None) -> str:
    """Returns the serial number of the device to use.

    Args:
        devices: that are attached.
        serial: that is asked for; None takes the only one.

    Raises:
        ExportError: there is none, there are several, or it is not ready.
    """
    names = ", ".join(device.serial for device in devices) or "none"
    found = [device for device in devices if serial in (None, device.serial)]
    if not found and serial is not None:
        raise ExportError(f"serial {serial!r} is not attached; attached: {names}")
    if not found:
        raise ExportError(
            "no Android device is attached; plug one in with USB debugging on, or `adb connect` it"
        )
    if len(found) > 1:
        raise ExportError(f"{len(found)} devices are attached; choose by --serial: {names}")
    if found[0].state != "device":
        known = [text for state, text in _STATES.items() if found[0].state.startswith(state)]
        cause = known[0] if known else f"is in state {found[0].state!r}; start Android on it"
        raise ExportError(f"device {found[0].serial} {cause}")
    return found[0].serial


class Adb:
    """One device, through adb.

    Args:
        executable: path of adb.
        serial: of the device.
    """

    def __init__(self, executable: str, serial: str):
        self.executable = executable
        self.serial = serial

    def shell(self, command: str, task: str, timeout: float = _QUICK) -> Answer:
        """Runs a command of the device's shell.

        Its status is printed and read back, because older devices do not tell it, and because its
        absence shows that the connection broke.

        Args:
            command: for `sh`.
            task: what it does, for the error.
            timeout: seconds until it is given up.

        Raises:
            ExportError: the device disconnected, is in no state to answer, or does not answer.
        """
        script = f"{{ {command}\n}} 2>&1; echo {_MARK}=$?"
        finished = _run([self.executable, "-s", self.serial, "shell", script], timeout, task)
        output, mark, status = finished.stdout.replace("\r\n", "\n").rpartition(f"{_MARK}=")
        if not mark or not status.strip().isdecimal():
            lines = finished.stdout.splitlines()
            own = [line for line in lines if line.startswith(("error:", "adb:"))]
            raise self.failure("\n".join(own), task)
        return Answer(int(status), output)

    def push(self, local: str | Path, remote: str, task: str, timeout: float = 600) -> None:
        """Copies a file to the device.

        Raises:
            ExportError: it is full, or see `shell`.
        """
        self._copy(["push", str(local), remote], task, timeout)

    def pull(self, remote: str, local: str | Path, task: str, timeout: float = _QUICK) -> None:
        """Copies a file from the device.

        Raises:
            ExportError: it is not there, or see `shell`.
        """
        self._copy(["pull", remote, str(local)], task, timeout)

    def install(self, apk: str, task: str, timeout: float = 600) -> None:
        """Installs an app, with its permissions, over what is there.

        Raises:
            ExportError: the device refuses it or is full, or see `shell`.
        """
        command = [self.executable, "-s", self.serial, "install", "-r", "-d", "-g", apk]
        finished = _run(command, timeout, task)
        refused = re.search(r"Failure \[(.*?)\]|INSTALL_\w+", finished.stdout)
        if refused and "INSUFFICIENT_STORAGE" not in finished.stdout:
            raise ExportError(f"device {self.serial} refuses {apk}: {refused[1] or refused[0]}")
        if finished.returncode or refused:
            raise self.failure(finished.stdout, task)

    def wait(self, seconds: float) -> bool:
        """Waits for a device that went away; returns whether it came back."""
        command = [self.executable, "-s", self.serial, "wait-for-device"]
        try:
            return subprocess.run(command, capture_output=True, timeout=seconds).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def failure(self, output: str, task: str) -> ExportError:
        """The error that says why adb failed, from what it printed."""
        for pattern, cause in (*_CAUSES, _GONE):
            if re.search(pattern, output, re.IGNORECASE):
                return ExportError(f"device {self.serial} {cause} ({task})")
        cause = f"failed: {_last_line(output)[:200]}" if output.strip() else _GONE[1]
        return ExportError(f"device {self.serial} {cause} ({task})")

    def _copy(self, arguments: list[str], task: str, timeout: float) -> None:
        finished = _run([self.executable, "-s", self.serial, *arguments], timeout, task)
        if finished.returncode:
            raise self.failure(finished.stdout, task)


def _run(command: Sequence[str], timeout: float, task: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise ExportError(
            f"the device did not answer for {timeout:.0f} s ({task}); unlock it and try again"
        ) from None
    except OSError as error:
        raise ExportError(f"{command[0]} cannot be run: {error.strerror or error}") from error


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]
