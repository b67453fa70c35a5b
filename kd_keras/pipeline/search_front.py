"""The trials of a search: what each found, and which of them no other beats."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kd_keras.errors import InputError
from kd_keras.pipeline import numerals

#: Latencies, and sizes after gzip, less than this apart are taken for one: a measured time is never
#: twice the same, and other weights of one network are packed a little better or worse.
SAME = 0.05

RUNNING, FINISHED, STOPPED = "running", "finished", "stopped early"
REJECTED, FAILED = "over the limits", "failed"


@dataclasses.dataclass(frozen=True)
class Trial:
    """One student with one compression.

    Attributes:
        number: From 1.
        name: Of its choices, as a file is called.
        choices: The label that it chose of each key.
        state: "running", "finished", "stopped early", "over the limits" (which was seen before it
            was trained) or "failed".
        bytes: Size of its int8 file; before training, that of the untrained student's.
        untrained_bytes: Size of the untrained student's int8 file. It is a little smaller: tensors
            that are still equal are stored once.
        gzip_bytes: The same after gzip; None before training, which decides on it.
        latency_us: Median latency of the int8 file, in microseconds.
        accuracy: Of the int8 file on the validation images; of a trial that was stopped, the
            student's highest until then.
        parameters: Of the compressed student.
        macs: Multiply-adds of one inference.
        seconds: It took.
        curves: Validation accuracy after each epoch, by training.
        reason: Why it was stopped, refused or failed, or which limits it is over in the end.
    """

    number: int
    name: str
    choices: Mapping[str, str]
    state: str = RUNNING
    bytes: int | None = None
    untrained_bytes: int | None = None
    gzip_bytes: int | None = None
    latency_us: float | None = None
    accuracy: float | None = None
    parameters: int | None = None
    macs: int | None = None
    seconds: float = 0.0
    curves: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    reason: str = ""

    @property
    def title(self) -> str:
        """Its choices for a person: "convnet-8-8-16, learning_rate 0.003, qat"."""
        plain = ("student.model", "compression")
        parts = [
            label if key in plain else f"{key.split('.')[-1]} {label}"
            for key, label in self.choices.items()
        ]
        return ", ".join(parts)

    def but(self, **changes: Any) -> "Trial":
        """The trial with other values."""
        return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the int8 file may cost at most; None for no limit.

    Attributes:
        max_bytes: Of the file.
        max_gzip_bytes: Of the file after gzip, as it is downloaded.
        max_latency_us: Median of an inference, in microseconds.

    Raises:
        InputError: For a limit that is not above 0.
    """

    max_bytes: int | None = None
    max_gzip_bytes: int | None = None
    max_latency_us: float | None = None

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value is not None and not value > 0:
                raise InputError(
                    f"--{name} is {value!r}; give a number above 0, or leave it out for no limit"
                )

    def excess(self, trial: Trial) -> dict[str, float]:
        """How far a trial is over each limit, as a share of it; below 0 where it is within."""
        found = {}
        for name, limit in dataclasses.asdict(self).items():
            value = getattr(trial, name.removeprefix("max_"))
            if limit is not None and value is not None:
                found[name] = value / limit - 1
        return found

    def broken(self, trial: Trial) -> str:
        """Which limits a trial is over, for a person; empty if none."""
        over = [name for name, share in self.excess(trial).items() if share > 0]
        return ", ".join(
            f"{_cost(name, trial)} over --{name} {getattr(self, name)}" for name in over
        )

    def __str__(self) -> str:
        given = {k: v for k, v in dataclasses.asdict(self).items() if v is not None}
        return " ".join(f"--{name} {value}" for name, value in given.items()) or "no limits"


def _cost(name: str, trial: Trial) -> str:
    value = getattr(trial, name.removeprefix("max_"))
    return numerals.latency(value) if name == "max_latency_us" else f"{value:,} bytes"


def dominates(one: Trial, other: Trial) -> bool:
    """Whether a finished trial is at least as good as another in all, and better in something."""
    exact = [
        (-_known(one.accuracy), -_known(other.accuracy)),
        (_known(one.bytes), _known(other.bytes)),
    ]
    if any(a > b for a, b in exact) or not _no_more(one, other):
        return False
    clearly = any(a < b * (1 - SAME) for a, b in _by_chance(one, other))
    return clearly or any(a < b for a, b in exact)


def is_as_fast(one: Trial, other: Trial) -> bool:
    """Whether a trial is no slower than another, as far as latency can be told."""
    return _known(one.latency_us) <= _known(other.latency_us) * (1 + SAME)


def front(trials: Iterable[Trial], limits: Limits) -> list[Trial]:
    """The finished trials within the limits that none of the others dominates, best first.

    One trial dominates another if it is at least as accurate, as small (as a file and after gzip)
    and as fast, and better in one of these; latencies, and sizes after gzip, within 5 % are taken
    for one. Of trials that are alike in all, the first one counts.
    """
    found: list[Trial] = []
    for trial in sorted(within(trials, limits), key=_best_first):
        beaten = any(dominates(other, trial) or _alike(other, trial) for other in found)
        if not beaten:
            found.append(trial)
    return found


def within(trials: Iterable[Trial], limits: Limits) -> list[Trial]:
    """The finished trials within the limits."""
    return [t for t in trials if t.state == FINISHED and not limits.broken(t)]


def recommended(trials: Iterable[Trial], limits: Limits) -> Trial | None:
    """The most accurate trial within the limits; of equal ones the smallest, then the fastest."""
    return min(front(trials, limits), key=_best_first, default=None)


def smallest(trials: Iterable[Trial]) -> Trial | None:
    """The trial with the smallest file, finished or not."""
    return min((t for t in trials if t.bytes is not None), key=_cheapest_first, default=None)


def _cheapest_first(trial: Trial) -> tuple[float, ...]:
    return (*_sizes(trial), _known(trial.latency_us), trial.number)


def _best_first(trial: Trial) -> tuple[float, ...]:
    return (-_known(trial.accuracy), *_cheapest_first(trial))


def _alike(one: Trial, other: Trial) -> bool:
    same = (one.accuracy, one.bytes) == (other.accuracy, other.bytes)
    return same and _no_more(one, other)


def _no_more(one: Trial, other: Trial) -> bool:
    """Whether a trial costs no more, in the costs that are in part chance."""
    return all(a <= b * (1 + SAME) for a, b in _by_chance(one, other))


def _by_chance(one: Trial, other: Trial) -> list[tuple[float, float]]:
    pairs = [(one.gzip_bytes, other.gzip_bytes), (one.latency_us, other.latency_us)]
    return [(_known(a), _known(b)) for a, b in pairs]


def _sizes(trial: Trial) -> tuple[float, float]:
    return _known(trial.bytes), _known(trial.gzip_bytes)


def _known(value: float | None) -> float:
    """A figure, or 0 where nothing is known."""
    return 0.0 if value is None else float(value)
