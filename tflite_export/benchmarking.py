"""Measures the latency, the size and the memory of a .tflite file on this machine."""

import gzip
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tflite_export.errors import ExportError
from tflite_export.machine import machine_facts
from tflite_export.peak_memory import peak_memory
from tflite_export.tflite_model import TensorFacts, TFLiteModel

_MICROSECOND = 1_000  # in the nanoseconds that the clock counts


@dataclass(frozen=True)
class Latency:
    """Times of one file with one number of threads, in microseconds.

    Attributes:
        threads: that one inference may use.
        runs: inferences measured; the figures below are over these, warm-up excluded.
        median: middle one.
        p90: nine of ten are at most this.
        mean: arithmetic mean.
        std: standard deviation over the runs (n - 1).
        iqr: interquartile range, the spread that single hiccups do not touch.
        init: from the file on disk to allocated tensors.
        first: first inference, cold.
    """

    threads: int
    runs: int
    median: float
    p90: float
    mean: float
    std: float
    iqr: float
    init: float
    first: float


@dataclass(frozen=True)
class Benchmark:
    """What one file costs on one machine.

    Attributes:
        path: of the file.
        latency_us: one entry for each number of threads, in the order asked for.
        bytes: size of the file.
        gzip_bytes: size after gzip, level 9: what a download costs, and where pruning shows.
        peak_memory_bytes: see `tflite_export.peak_memory.peak_memory`.
        machine: see `tflite_export.machine.machine_facts`.
    """

    path: str
    latency_us: tuple[Latency, ...]
    bytes: int
    gzip_bytes: int
    peak_memory_bytes: int | None
    machine: dict[str, str | int]


def benchmark(
    path: str | os.PathLike[str],
    *,
    threads: Sequence[int] = (1, 2),
    runs: int = 100,
    warmup: int = 10,
    min_seconds: float = 0.5,
    seed: int = 0,
) -> Benchmark:
    """Measures a file with ai-edge-litert (XNNPACK, its default) on random inputs.

    Only `interpreter.invoke()` is timed, by the nanosecond clock. Memory is measured afterwards, in
    a process of its own.

    Args:
        path: of the .tflite file.
        threads: numbers of threads to measure, one after the other.
        runs: least number of inferences.
        warmup: inferences before them, the first one aside.
        min_seconds: least time of the measurement; more runs are made until it is over.
        seed: of the random input.

    Raises:
        ExportError: an argument is out of range, or the file cannot be run.
    """
    _check_arguments(threads, runs, warmup, min_seconds)
    latencies = tuple(_latency(path, count, runs, warmup, min_seconds, seed) for count in threads)
    content = Path(path).read_bytes()
    return Benchmark(
        path=os.fspath(path),
        latency_us=latencies,
        bytes=len(content),
        gzip_bytes=len(gzip.compress(content, compresslevel=9, mtime=0)),
        peak_memory_bytes=peak_memory(path),
        machine=machine_facts(),
    )


def _check_arguments(threads: Sequence[int], runs: int, warmup: int, min_seconds: float) -> None:
    if not threads or any(count < 1 for count in threads):
        raise ExportError(f"threads is {threads!r}; give numbers from 1, such as (1, 2)")
    for name, value, least in (("runs", runs, 1), ("warmup", warmup, 0)):
        if value < least:
            raise ExportError(f"{name} is {value!r}; give a whole number from {least}")
    if not 0 <= min_seconds < float("inf"):
        raise ExportError(f"min_seconds is {min_seconds!r}; give seconds from 0")


def _latency(
    path: str | os.PathLike[str],
    threads: int,
    runs: int,
    warmup: int,
    min_seconds: float,
    seed: int,
) -> Latency:
    started = time.perf_counter_ns()
    model = TFLiteModel(path, threads)
    init = time.perf_counter_ns() - started
    model.interpreter.set_tensor(model.input.index, random_input(model.input, seed))
    first = _timed_invoke(model.interpreter)
    for _ in range(warmup):
        model.interpreter.invoke()
    return _summary(threads, _timed_runs(model.interpreter, runs, min_seconds), init, first)


def _timed_runs(interpreter: Interpreter, runs: int, min_seconds: float) -> list[int]:
    times: list[int] = []
    end = time.perf_counter_ns() + int(min_seconds * 1e9)
    while len(times) < runs or time.perf_counter_ns() < end:
        times.append(_timed_invoke(interpreter))
    return times


def _timed_invoke(interpreter: Interpreter) -> int:
    started = time.perf_counter_ns()
    interpreter.invoke()
    return time.perf_counter_ns() - started


def random_input(facts: TensorFacts, seed: int) -> np.ndarray:
    """Returns random numbers as a file stores them: of any size where they are quantized."""
    generator = np.random.default_rng(seed)
    if np.issubdtype(facts.dtype, np.integer):
        limits = np.iinfo(facts.dtype)
        return generator.integers(
            limits.min, limits.max, size=facts.shape, dtype=facts.dtype, endpoint=True
        )
    return generator.standard_normal(facts.shape).astype(facts.dtype)


def _summary(threads: int, times: list[int], init: int, first: int) -> Latency:
    micros = np.asarray(times, np.float64) / _MICROSECOND
    quarter, median, three_quarters, p90 = np.percentile(micros, [25, 50, 75, 90])
    return Latency(
        threads=threads,
        runs=len(times),
        median=float(median),
        p90=float(p90),
        mean=float(micros.mean()),
        std=float(micros.std(ddof=1)) if len(times) > 1 else 0.0,
        iqr=float(three_quarters - quarter),
        init=init / _MICROSECOND,
        first=first / _MICROSECOND,
    )
