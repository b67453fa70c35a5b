"""This machine, with ai-edge-litert."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tflite_export import child
from tflite_export.errors import ExportError
from tflite_export.measuring.engine import Effort, measure
from tflite_export.measuring.result import (
    Agreement,
    Delegation,
    ModelFile,
    Operator,
    Reading,
    Result,
    Setting,
    model_files,
)

_GOVERNORS = Path("/sys/devices/system/cpu")


def benchmark(
    models: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    threads: Sequence[int] = (1,),
    effort: Effort | None = None,
) -> Result:
    """Measures .tflite files on this machine, with XNNPACK and on random inputs.

    This is what `kd-benchmark --device=host` does: the files take turns, every repeat is a fresh
    process, and each file's ratio to the first is taken within a turn.

    Example::

        small, large = tflite_export.benchmark(["int8.tflite", "float32.tflite"]).measurements
        print(small.time.median, large.time.median, large.ratio)

    Args:
        models: path of a file, or of several; the others are compared with the first.
        threads: numbers of threads to measure, one after the other.
        effort: how long to measure; by default 5 repeats of at least half a second.

    Returns:
        One measurement for each number of threads and file, in that order, with the size of the
        files and the facts of the machine.

    Raises:
        ExportError: a number of threads is below 1, a file is given twice, or cannot be run.
    """
    if not threads or min(threads) < 1:
        raise ExportError(f"threads is {threads!r}; give numbers from 1, such as (1, 2)")
    paths = [models] if isinstance(models, (str, os.PathLike)) else models
    settings = [Setting("xnnpack", count) for count in threads]
    return measure(Host(), model_files(paths), settings, effort or Effort())


class Host:
    """Runs each repeat in a child process, so that a file from a stranger can crash only that.

    Attributes:
        kind: "host".
        backends: "xnnpack", "builtin" or both.
        cores: not chosen here.
        notes: what a reader of the result must know.
        timeout: seconds for one repeat, beyond the least time asked for.
        python: that runs the children.

    Args:
        backends: see above.
        timeout: see above.
        python: see above.
    """

    kind = "host"
    cores = ("all",)

    def __init__(
        self,
        backends: Sequence[str] = ("xnnpack",),
        timeout: float = 600,
        python: child.Python = child.HERE,
    ):
        self.backends = tuple(backends)
        self.timeout, self.python = timeout, python
        self._memory: dict[tuple[str, Setting], int | None] = {}
        self.notes = [
            "Times include the call from Python, which gives no profile of single operators."
        ]

    def facts(self) -> dict[str, Any]:
        """The machine, and how busy it is: `load` is the number of programs that want a core."""
        # Imported here, for it loads the runtime's package.
        from tflite_export.machine import machine_facts

        facts: dict[str, Any] = {**machine_facts(), "governor": _governor(), "load": None}
        if hasattr(os, "getloadavg"):
            facts["load"] = round(os.getloadavg()[0], 2)
            if facts["load"] > 0.5 * int(facts["cores"]):
                self.notes.append(
                    f"The machine was busy (load {facts['load']} on {facts['cores']} cores): the "
                    f"times may be too long; read the ratios, with their spread."
                )
        return facts

    def read(
        self, model: ModelFile, setting: Setting, effort: Effort
    ) -> tuple[Reading, Delegation | None]:
        """One repeat; see `tflite_export.measuring.worker.repeat`.

        Raises:
            ExportError: the file does not load, crashes the runtime or takes too long.
        """
        request = {
            "path": model.path,
            "threads": setting.threads,
            "xnnpack": setting.backend != "builtin",
            **{name: getattr(effort, name) for name in ("runs", "warmup", "min_seconds", "seed")},
        }
        answer = json.loads(
            child.run_module(
                "tflite_export.measuring.worker",
                json.dumps(request),
                task=f"measuring {model.path} ({setting})",
                timeout=self.timeout + effort.min_seconds,
                python=self.python,
            )
        )
        self._memory[model.path, setting] = answer["peak_memory_bytes"]
        delegation = answer["delegation"]
        return Reading(**answer["reading"]), delegation and Delegation(**delegation)

    def peak_memory(self, model: ModelFile, setting: Setting) -> int | None:
        """Of the last repeat that `read` made; see `tflite_export.measuring.worker.repeat`."""
        return self._memory[model.path, setting]

    def profile(self, model: ModelFile, setting: Setting) -> tuple[Operator, ...]:
        """Not to be had.

        Raises:
            ExportError: always.
        """
        raise ExportError("the runtime of this machine gives no profile; leave --profile out")

    def agreement(self, model: ModelFile, setting: Setting) -> Agreement | None:
        """None: this is the machine that others are compared with."""
        return None


def _governor() -> str | None:
    files = sorted(_GOVERNORS.glob("cpu*/cpufreq/scaling_governor"))
    return ", ".join(sorted({file.read_text().strip() for file in files})) or None
