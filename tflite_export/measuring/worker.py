"""One repeat of a measurement on this machine, as a process of its own.

`python -m tflite_export.measuring.worker REQUEST`, where REQUEST is JSON with the keys of
`repeat`, prints what that returns.
"""

import gc
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.random import default_rng  # NumPy loads it when it is used, as if the file needed it

from tflite_export.child import fail
from tflite_export.errors import ExportError
from tflite_export.measuring.process_memory import PeakMemory
from tflite_export.measuring.result import Delegation, Reading
from tflite_export.tflite_model import load_interpreter

#: One reading of the clock covers at least this: its own cost and its steps are then below 0.2 %.
_LEAST_NANOSECONDS = 100_000


def repeat(
    path: str, threads: int, xnnpack: bool, runs: int, warmup: int, min_seconds: float, seed: int
) -> dict[str, Any]:
    """Loads a file and times it on random inputs.

    Args:
        path: of the .tflite file.
        threads: that one inference may use.
        xnnpack: with XNNPACK, or with the runtime's own kernels.
        runs: least number of readings of the clock.
        warmup: inferences before them, the first one aside.
        min_seconds: least time of the measurement.
        seed: of the inputs.

    Returns:
        The `Reading` as "reading", and the `Delegation` or None as "delegation". As
        "peak_memory_bytes" what loading, the first inference and the warm-up add to the resident
        memory at its peak, the runtime's library being loaded already: weights, tensors, XNNPACK's
        packed copies, and the library's pages that are first touched on the way; None where the
        system does not tell.

    Raises:
        ExportError: the file does not load, or takes something else than numbers.
    """
    memory = PeakMemory()
    started = time.perf_counter_ns()
    interpreter = load_interpreter(path, threads, xnnpack=xnnpack)
    init = time.perf_counter_ns() - started
    for place, detail in enumerate(interpreter.get_input_details()):
        interpreter.set_tensor(detail["index"], _random_input(path, detail, seed + place))
    gc.disable()
    (first,) = _times(interpreter.invoke, 1, 1, 0)
    warm = _times(interpreter.invoke, 1, max(warmup, 3), 0)
    peak = memory.added()  # before the times, of which there may be many, are kept
    block = max(1, math.ceil(_LEAST_NANOSECONDS / max(min(warm), 1)))
    times = _times(interpreter.invoke, block, runs, min_seconds)
    delegation = delegated(interpreter)
    return {
        "reading": asdict(_reading(times, block, init, first)),
        "delegation": delegation and asdict(delegation),
        "peak_memory_bytes": peak,
    }


def _times(invoke: Callable[[], None], block: int, runs: int, min_seconds: float) -> list[float]:
    clock = time.perf_counter_ns
    times: list[float] = []
    end = clock() + int(min_seconds * 1e9)
    while len(times) < runs or clock() < end:
        started = clock()
        for _ in range(block):
            invoke()
        times.append((clock() - started) / block)
    return times


def _reading(times: list[float], block: int, init: float, first: float) -> Reading:
    micros = np.asarray(times, np.float64) / 1000
    p5, median, p90, p95, p99 = map(float, np.percentile(micros, [5, 50, 90, 95, 99]))
    return Reading(
        runs=len(times) * block,
        block=block,
        mean=float(micros.mean()),
        median=median,
        std=float(micros.std(ddof=1)) if len(times) > 1 else 0.0,
        min=float(micros.min()),
        max=float(micros.max()),
        p5=p5,
        p90=p90,
        p95=p95,
        p99=p99,
        init=init / 1000,
        first=first / 1000,
    )


def delegated(interpreter: Interpreter) -> Delegation | None:
    """Counts the operators that delegates took over.

    The runtime keeps the operators that a delegate replaced in its list and appends one node for
    each partition, with the partition's inputs and outputs. So the operators between the two are
    its own.

    Returns:
        None where this version of the runtime does not list its nodes.
    """
    if not hasattr(interpreter, "_get_ops_details"):
        return None
    nodes = interpreter._get_ops_details()
    operators = [node for node in nodes if node["op_name"] != "DELEGATE"]
    partitions = [node for node in nodes if node["op_name"] == "DELEGATE"]
    maker = {int(t): place for place, node in enumerate(operators) for t in node["outputs"]}
    taken: set[int] = set()
    for partition in partitions:
        borders, open_tensors = {*map(int, partition["inputs"])}, [*map(int, partition["outputs"])]
        while open_tensors:
            place = maker.get(open_tensors.pop())
            if place is not None and place not in taken:
                taken.add(place)
                open_tensors += [int(t) for t in operators[place]["inputs"] if t not in borders]
    return Delegation(len(taken), len(operators), len(partitions))


def _random_input(path: str, detail: dict[str, Any], seed: int) -> np.ndarray:
    generator = default_rng(seed)
    dtype, shape = np.dtype(detail["dtype"]), tuple(detail["shape"])
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    if dtype.kind == "b" or (dtype.kind in "iu" and not detail["quantization"][0]):
        return generator.integers(0, 2, size=shape).astype(dtype)  # an index, perhaps of a table
    if dtype.kind not in "iu":
        raise ExportError(f"{path} takes {dtype} ({detail['name']}); numbers are supported")
    limits = np.iinfo(dtype)
    return generator.integers(limits.min, limits.max, size=shape, dtype=dtype, endpoint=True)


if __name__ == "__main__":
    try:
        print(json.dumps(repeat(**json.loads(sys.argv[1]))))
    except ExportError as problem:
        fail(problem)
