"""What a benchmark gives: the schema that all devices share.

Times are microseconds, sizes are bytes. A figure that a device does not tell is None.
"""

import dataclasses
import gzip
import hashlib
import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tflite_export.errors import ExportError

#: Rises when a reader of the JSON has to change.
SCHEMA = 1


@dataclass(frozen=True)
class Setting:
    """How a model is run.

    Attributes:
        backend: "xnnpack", "builtin" (the runtime's own kernels, without XNNPACK), "gpu" or
            "xnnpack (emulated)".
        threads: that one inference may use.
        cores: "all", or the mask of cores it is bound to, as taskset takes it, hexadecimal.
    """

    backend: str
    threads: int
    cores: str = "all"

    def __str__(self) -> str:
        bound = "" if self.cores == "all" else f", cores {self.cores}"
        return f"{self.backend}, {self.threads} thread{'s'[: self.threads > 1]}{bound}"


@dataclass(frozen=True)
class Reading:
    """One repeat of a measurement: a fresh process, warm-up excluded.

    Attributes:
        runs: inferences measured; None where it is not told.
        block: inferences that one reading of the clock covers; above 1 the percentiles are of means
            over that many.
        mean: arithmetic mean.
        median: middle one.
        std: standard deviation.
        min: shortest.
        max: longest.
        p5: one of twenty is at most this.
        p90: nine of ten are at most this.
        p95: 19 of twenty are.
        p99: 99 of a hundred are.
        init: cold start: from the file on disk to allocated tensors.
        first: first inference, cold.
    """

    runs: int | None
    mean: float
    block: int = 1
    median: float | None = None
    std: float | None = None
    min: float | None = None
    max: float | None = None
    p5: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    init: float | None = None
    first: float | None = None


@dataclass(frozen=True)
class Delegation:
    """How many operators of the main graph a delegate took over.

    Attributes:
        nodes: taken over.
        total: in the graph; None where it is not told.
        partitions: pieces they are in; None where it is not told.
    """

    nodes: int
    total: int | None
    partitions: int | None = None


@dataclass(frozen=True)
class Operator:
    """One operator of a profile.

    Attributes:
        type: such as CONV_2D, or the class of the delegate that ran it.
        name: of its output.
        mean: microseconds of an inference.
        inside: whether a delegate ran it, and told of it: part of that delegate's time.
    """

    type: str
    name: str
    mean: float
    inside: bool = False


@dataclass(frozen=True)
class Agreement:
    """How far a device's outputs are from those of the machine that asked, on the same inputs.

    Attributes:
        inputs: name of the file or folder that they are from, or "random".
        examples: how many.
        equal: share of the output's numbers that are equal to the bit.
        largest: difference of two numbers, in the unit of the output.
        largest_steps: the same in quantization steps; None for a float output.
        same_choice: share of the examples whose largest output is in the same place: the class.
    """

    inputs: str
    examples: int
    equal: float
    largest: float
    largest_steps: int | None
    same_choice: float


@dataclass(frozen=True)
class Spread:
    """A figure over the repeats: the median, the least and the largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Measurement:
    """One model in one setting.

    Attributes:
        model: name of the `ModelFile`.
        setting: how it was run.
        readings: one for each repeat, in the order measured.
        ratio: of its typical time to the first model's, repeat by repeat; None for the first.
        peak_memory_bytes: measured in a run of its own.
        delegation: None where the runtime does not tell.
        profile: operators in the order they run, measured in a run of its own; () where it was not
            asked for or the runtime does not tell.
        agreement: with this machine's outputs; None where the device does not give its own.
    """

    model: str
    setting: Setting
    readings: tuple[Reading, ...]
    ratio: Spread | None = None
    peak_memory_bytes: int | None = None
    delegation: Delegation | None = None
    profile: tuple[Operator, ...] = ()
    agreement: Agreement | None = None

    @property
    def typical(self) -> str:
        """Which figure stands for the time: "median", or "mean" where no median is told."""
        return "mean" if any(reading.median is None for reading in self.readings) else "median"

    @property
    def time(self) -> Spread:
        """Microseconds of an inference over the repeats: their medians, or what is `typical`."""
        return Spread.of([getattr(reading, self.typical) for reading in self.readings])

    def over_repeats(self, figure: str) -> Spread | None:
        """The spread of one figure of `Reading`, None where one repeat does not tell it."""
        values = [getattr(reading, figure) for reading in self.readings]
        return None if None in values else Spread.of(values)


@dataclass(frozen=True)
class ModelFile:
    """A file that was measured.

    Attributes:
        name: short, and of no other file in the same result.
        path: as given.
        bytes: size.
        gzip_bytes: size after gzip, level 9: what a download costs, and where pruning shows.
        sha256: of the content.
        accuracy: a fraction, as told by the user; None where none was told.
    """

    name: str
    path: str
    bytes: int
    gzip_bytes: int
    sha256: str
    accuracy: float | None = None


@dataclass(frozen=True)
class Result:
    """Everything that was measured on one device.

    Attributes:
        device: "host", "android" or "arm64".
        facts: what is known of the device and its software.
        models: in the order asked for.
        measurements: setting by setting, models in order.
        arguments: of the measurement: repeats, runs, warm-up, seconds, seed.
        notes: what a reader must know, each one sentence.
        created: UTC, ISO 8601.
        schema: version of this form.
    """

    device: str
    facts: dict[str, Any]
    models: tuple[ModelFile, ...]
    measurements: tuple[Measurement, ...]
    arguments: dict[str, Any]
    notes: tuple[str, ...]
    created: str
    schema: int = SCHEMA

    def as_dictionary(self) -> dict[str, Any]:
        """All fields, for JSON, and the spread of each figure over the repeats: `latency_us`."""
        content = dataclasses.asdict(self)
        figures = [field.name for field in dataclasses.fields(Reading)][3:]
        for entry, measurement in zip(content["measurements"], self.measurements, strict=True):
            spreads = {name: measurement.over_repeats(name) for name in ("mean", *figures)}
            entry["latency_us"] = {n: s and dataclasses.asdict(s) for n, s in spreads.items()}
        return content

    def to_json(self) -> str:
        """`as_dictionary` as a text."""
        return json.dumps(self.as_dictionary(), indent=2, allow_nan=False) + "\n"


def model_files(
    paths: Sequence[str | os.PathLike[str]], accuracies: Sequence[float] = ()
) -> tuple[ModelFile, ...]:
    """Reads the facts of files.

    Raises:
        ExportError: none is given, one is twice there or is no file, or accuracies do not match.
    """
    names = [Path(path).stem for path in paths]
    if not paths or len({os.fspath(path) for path in paths}) < len(paths):
        raise ExportError(f"models are {[*map(str, paths)]}; give at least one file, each once")
    if accuracies and len(accuracies) != len(paths):
        raise ExportError(
            f"{len(accuracies)} accuracies for {len(paths)} models; give one for each, in order"
        )
    if wrong := [value for value in accuracies if not 0 <= value <= 1]:
        raise ExportError(f"accuracy {wrong[0]!r} is out of range; give fractions from 0 to 1")
    return tuple(
        _model_file(
            Path(path),
            name if names.count(name) == 1 else os.fspath(path),
            accuracies[place] if accuracies else None,
        )
        for place, (path, name) in enumerate(zip(paths, names, strict=True))
    )


def _model_file(path: Path, name: str, accuracy: float | None) -> ModelFile:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ExportError(
            f"{path} cannot be read ({error.strerror}); give a .tflite file that exists"
        ) from error
    return ModelFile(
        name=name,
        path=os.fspath(path),
        bytes=len(content),
        gzip_bytes=len(gzip.compress(content, compresslevel=9, mtime=0)),
        sha256=hashlib.sha256(content).hexdigest(),
        accuracy=accuracy,
    )
