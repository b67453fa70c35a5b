"""The memory that this process comes to need, as the kernel counts it."""

from pathlib import Path

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


class PeakMemory:
    """Counts from where it is made.

    The kernel keeps the highest resident size of a process (`VmHWM`), so nothing is sampled, and
    the times that are measured meanwhile are what they would be. It is read from Linux' /proc.
    """

    def __init__(self) -> None:
        self._before: int | None = None
        if _RESET.exists():
            _RESET.write_text("5")  # sets the peak back to the present size: see proc(5)
            self._before = _resident("VmRSS")

    def added(self) -> int | None:
        """Bytes between the size at the beginning and the peak since; None where no one tells."""
        return None if self._before is None else _resident("VmHWM") - self._before


def _resident(field: str) -> int:
    sizes = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(sizes[field].split()[0]) * 1024  # the file's "kB" are KiB
