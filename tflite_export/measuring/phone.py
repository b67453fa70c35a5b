"""What an Android device tells of itself."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tflite_export.errors import ExportError
from tflite_export.measuring.adb import Adb

_PROPERTIES = {
    "ro.product.manufacturer": "manufacturer",
    "ro.product.model": "model",
    "ro.soc.manufacturer": "soc_manufacturer",
    "ro.soc.model": "soc",
    "ro.board.platform": "platform",
    "ro.build.version.release": "android",
    "ro.build.version.sdk": "api",
    "ro.product.cpu.abi": "abi",
    "ro.build.fingerprint": "build",
}
_CPUS = "/sys/devices/system/cpu"
_SCRIPT = f"""\
for p in {" ".join(_PROPERTIES)}; do echo "$p=$(getprop $p)"; done
for c in {_CPUS}/cpu[0-9]*; do
echo "governor=$(cat $c/cpufreq/scaling_governor)"
echo "frequency=${{c##*/cpu}} $(cat $c/cpufreq/cpuinfo_max_freq)"
done 2>/dev/null"""
_HEAT = "dumpsys battery; dumpsys thermalservice"
#: Android's thermal status: 0 none, 1 light, 2 moderate, 3 severe throttling, and worse.
_TOO_HOT = 2
#: Before Android 10 the battery alone tells, in degrees Celsius.
_BATTERY_TOO_HOT = 45.0


@dataclass(frozen=True)
class Heat:
    """How hot a device is.

    Attributes:
        battery: degrees Celsius, None where it is not told.
        status: Android's thermal status, from 0; None before Android 10.
    """

    battery: float | None
    status: int | None

    def __str__(self) -> str:
        battery = "unknown" if self.battery is None else f"{self.battery:.1f} °C"
        return (
            f"thermal status {'unknown' if self.status is None else self.status}, battery {battery}"
        )

    @property
    def too_hot(self) -> bool:
        """Whether Android slows the device down by more than a little."""
        if self.status is not None:
            return self.status >= _TOO_HOT
        return self.battery is not None and self.battery >= _BATTERY_TOO_HOT


@dataclass(frozen=True)
class Phone:
    """A device.

    Attributes:
        facts: manufacturer, model, SoC, Android's version, API level, ABI and governors; what is
            not told is left out.
        frequencies: of each core, the highest, in kHz; empty where it is not told.
    """

    facts: dict[str, Any]
    frequencies: dict[int, int]

    @property
    def big_cores(self) -> str | None:
        """Mask for taskset of all cores but the slowest kind; None where all are of one kind."""
        slowest = min(self.frequencies.values(), default=0)
        big = [core for core, kilohertz in self.frequencies.items() if kilohertz > slowest]
        return f"{sum(1 << core for core in big):x}" if big else None


def ask(adb: Adb) -> Phone:
    """Asks a device what it is.

    Raises:
        ExportError: it does not answer.
    """
    return parse(adb.shell(_SCRIPT, "asking what it is").output)


def parse(text: str) -> Phone:
    """Reads the answer to `ask`."""
    pairs = [line.partition("=")[::2] for line in text.splitlines() if "=" in line]
    facts: dict[str, Any] = {
        _PROPERTIES[name]: value.strip()
        for name, value in pairs
        if name in _PROPERTIES and value.strip()
    }
    governors = {value.strip() for name, value in pairs if name == "governor"} - {""}
    if governors:
        facts["governor"] = ", ".join(sorted(governors))
    cores = [value.split() for name, value in pairs if name == "frequency"]
    return Phone(
        facts,
        {
            int(core[0]): int(core[1])
            for core in cores
            if len(core) == 2 and all(re.fullmatch("[0-9]{1,9}", word) for word in core)
        },
    )


def heat(adb: Adb) -> Heat:
    """Asks a device how hot it is.

    Raises:
        ExportError: it does not answer.
    """
    return parse_heat(adb.shell(_HEAT, "asking how hot it is").output)


def parse_heat(text: str) -> Heat:
    """Reads `dumpsys battery` (tenths of a degree) and `dumpsys thermalservice`."""
    battery = re.search(r"^\s*temperature: *(-?\d{1,6})\b", text, re.MULTILINE)
    status = re.search(r"Thermal Status: *(\d{1,2})\b", text)
    return Heat(
        battery=int(battery[1]) / 10 if battery else None,
        status=int(status[1]) if status else None,
    )


def describe(heats: Sequence[Heat]) -> str:
    """A sentence on how hot a device was while it was measured."""
    batteries = [heat.battery for heat in heats if heat.battery is not None]
    statuses = [heat.status for heat in heats if heat.status is not None]
    span = f"{min(batteries):.1f} to {max(batteries):.1f} °C" if batteries else "unknown"
    status = f"at most {max(statuses)}" if statuses else "unknown"
    return f"Battery {span}, thermal status {status}."


def refuse_hot(measured: Heat, serial: str) -> None:
    """Refuses to measure a device that Android slows down.

    Raises:
        ExportError: it is too hot.
    """
    if measured.too_hot:
        raise ExportError(
            f"device {serial} is hot ({measured}) and slows down; let it cool, out of its case and "
            f"off the charger, and try again"
        )
