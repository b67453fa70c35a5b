"""Measures the memory that a .tflite file needs, as a program of its own.

`python -m tflite_export.peak_memory FILE THREADS XNNPACK` prints `{"peak_memory_bytes": n}`, where
THREADS is a number and XNNPACK is 0 or 1. It is a separate process because memory of the process
that measures the latency, TensorFlow in it perhaps, would hide the model's, and because sampling
memory disturbs the latency.
"""

import json
import os
import sys
from pathlib import Path

from tflite_export.child import fail, run_module
from tflite_export.errors import ExportError
from tflite_export.tflite_model import load_interpreter

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def peak_memory(
    path: str | os.PathLike[str], threads: int = 1, *, xnnpack: bool = True
) -> int | None:
    """Returns the bytes of resident memory that running `path` adds at its peak.

    Measured in a fresh process: the highest resident size (`VmHWM`) while the file is loaded, its
    tensors are allocated and three inferences run, less the resident size just before, when the
    runtime's library is loaded already. So it holds weights, tensors and XNNPACK's packed copies,
    and the library's pages that are first touched on the way.

    Args:
        path: of the .tflite file.
        threads: that one inference may use.
        xnnpack: with XNNPACK, or with the runtime's own kernels.

    Returns:
        Bytes, or None where the system does not tell (it is read from Linux' /proc).

    Raises:
        ExportError: the file cannot be loaded, or the process died.
    """
    if not _RESET.exists():
        return None
    answer = run_module(
        "tflite_export.peak_memory",
        *(os.fspath(path), str(threads), str(int(xnnpack))),
        task=f"measuring the memory of {path}",
    )
    return json.loads(answer)["peak_memory_bytes"]


def _measure(path: str, threads: str, xnnpack: str) -> int:
    _RESET.write_text("5")  # sets the peak back to the present size: see proc(5)
    before = _status_bytes("VmRSS")
    interpreter = load_interpreter(path, int(threads), xnnpack=xnnpack == "1")
    for _ in range(3):
        interpreter.invoke()
    return _status_bytes("VmHWM") - before


def _status_bytes(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024  # the file's "kB" are KiB
    raise ExportError(f"{_STATUS} has no line {field}; the memory cannot be measured here")


if __name__ == "__main__":
    try:
        print(json.dumps({"peak_memory_bytes": _measure(*sys.argv[1:])}))
    except ExportError as problem:
        fail(problem)
