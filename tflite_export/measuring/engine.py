"""Measures models on a device, in turn: A B A B."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Protocol

from tqdm import tqdm

from tflite_export.errors import ExportError
from tflite_export.measuring.result import (
    Agreement,
    Delegation,
    Measurement,
    ModelFile,
    Operator,
    Reading,
    Result,
    Setting,
    Spread,
)


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        repeats: fresh processes for each model and setting.
        runs: least number of readings of the clock in each.
        warmup: least number of inferences before them.
        min_seconds: least time of each repeat.
        seed: of the random input, where the device takes one.
    """

    repeats: int = 5
    runs: int = 50
    warmup: int = 10
    min_seconds: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("repeats", 1), ("runs", 1), ("warmup", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ExportError(
                    f"{name} is {getattr(self, name)!r}; give a whole number from {least}"
                )
        if not 0 <= self.min_seconds <= 60:
            raise ExportError(f"min_seconds is {self.min_seconds!r}; give seconds from 0 to 60")


class Device(Protocol):
    """Something that runs models."""

    @property
    def kind(self) -> str:
        """Of device: "host", "android" or "arm64"."""

    @property
    def notes(self) -> list[str]:
        """What a reader of the result must know."""

    @property
    def backends(self) -> tuple[str, ...]:
        """That were asked for."""

    @property
    def cores(self) -> tuple[str, ...]:
        """That were asked for, as in `Setting`."""

    def facts(self) -> dict[str, Any]:
        """What is known of the device."""

    def read(
        self, model: ModelFile, setting: Setting, effort: Effort
    ) -> tuple[Reading, Delegation | None]:
        """Measures one repeat, in a fresh process."""

    def peak_memory(self, model: ModelFile, setting: Setting) -> int | None:
        """Bytes, measured in a process of its own."""

    def profile(self, model: ModelFile, setting: Setting) -> tuple[Operator, ...]:
        """The times of single operators, measured in a process of its own."""

    def agreement(self, model: ModelFile, setting: Setting) -> Agreement | None:
        """How far its outputs are from this machine's; None where it does not give them."""


def measure(
    device: Device,
    models: Sequence[ModelFile],
    settings: Sequence[Setting],
    effort: Effort,
    *,
    profile: bool = False,
) -> Result:
    """Measures every model in every setting.

    In each setting the models take turns, so that what changes on the device meanwhile (its
    temperature, other programs) meets all of them. Ratios are taken within a turn.

    Args:
        device: that runs them.
        models: the first is what the others are compared with.
        settings: one after the other.
        effort: how long.
        profile: measure single operators, too.

    Raises:
        ExportError: a model cannot be run, or the device fails.
    """
    facts = device.facts()
    hidden = not sys.stderr.isatty()
    total = len(models) * len(settings) * (effort.repeats + 1)
    with tqdm(total=total, disable=hidden, leave=False, unit="run") as bar:
        measurements = tuple(
            measurement
            for setting in settings
            for measurement in _in_turn(device, models, setting, effort, profile, bar.update)
        )
    return Result(
        device=device.kind,
        facts=facts,
        models=tuple(models),
        measurements=measurements,
        arguments=dict(vars(effort)),
        notes=tuple(dict.fromkeys(device.notes)),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _in_turn(
    device: Device,
    models: Sequence[ModelFile],
    setting: Setting,
    effort: Effort,
    profile: bool,
    advance: Callable[[], Any],
) -> list[Measurement]:
    readings: list[list[Reading]] = [[] for _ in models]
    delegations: list[Delegation | None] = [None for _ in models]
    for _ in range(effort.repeats):
        for place, model in enumerate(models):
            reading, delegations[place] = device.read(model, setting, effort)
            readings[place].append(reading)
            advance()
    measured = []
    for place, model in enumerate(models):
        measured.append(
            Measurement(
                model=model.name,
                setting=setting,
                readings=tuple(readings[place]),
                ratio=_ratio(readings[place], readings[0]) if place else None,
                peak_memory_bytes=device.peak_memory(model, setting),
                delegation=delegations[place],
                profile=device.profile(model, setting) if profile else (),
                agreement=device.agreement(model, setting),
            )
        )
        advance()
    return measured


def _ratio(readings: Sequence[Reading], first: Sequence[Reading]) -> Spread | None:
    medians = all(reading.median is not None for reading in (*readings, *first))
    figure = "median" if medians else "mean"
    times = [(getattr(a, figure), getattr(b, figure)) for a, b in zip(readings, first, strict=True)]
    return Spread.of([a / b for a, b in times]) if all(b > 0 for _, b in times) else None
