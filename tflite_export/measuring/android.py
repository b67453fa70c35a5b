"""An Android device, with TensorFlow's `benchmark_model`."""

import dataclasses
import hashlib
import shlex
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tflite_export.errors import ExportError
from tflite_export.measuring import (
    benchmark_binary,
    benchmark_proto,
    benchmark_tool,
    operator_profile,
    phone,
)
from tflite_export.measuring.adb import Adb, Answer
from tflite_export.measuring.engine import Effort
from tflite_export.measuring.result import (
    Agreement,
    Delegation,
    ModelFile,
    Operator,
    Reading,
    Setting,
)

_HOME = "/data/local/tmp"
_MAX_SECONDS = 150  # the tool's own default for --max_secs
_MARGIN = 120  # seconds for loading, warm-up and a run that is under way
_OPTIONAL = ("--result_file_path", "--report_peak_memory_footprint")
_BACKENDS = {
    "xnnpack": {"use_xnnpack": "true"},
    "builtin": {"use_xnnpack": "false"},
    "gpu": {"use_gpu": "true"},
}
_DELEGATES = {"xnnpack": "XNN", "gpu": "Gpu"}  # in the names of their classes


class Android:
    """Runs `benchmark_model` in a folder of its own, which goes when the `with` block ends.

    Attributes:
        kind: "android".
        backends: "xnnpack", "builtin" and "gpu", as asked for.
        cores: "all" and masks for taskset.
        notes: what a reader of the result must know.

    Args:
        adb: the device.
        tool: path or URL of `benchmark_model`, built for its ABI; None fetches the documented one.
        backends: see above.
        cores: "all", "big" (all but the slowest kind) or hexadecimal masks.

    Raises:
        ExportError: the device does not answer, or there is no tool.
    """

    kind = "android"

    def __init__(
        self, adb: Adb, tool: str | None, backends: Sequence[str], cores: Sequence[str] = ("all",)
    ):
        self.adb = adb
        self.backends = tuple(backends)
        self.folder = f"{_HOME}/kd-benchmark-{uuid.uuid4().hex[:12]}"
        self._notes = ["benchmark_model tells no p90 and p99; memory is of its whole process."]
        self._heats: list[phone.Heat] = []
        self._phone = phone.ask(adb)
        self._abi = self._phone.facts.get("abi", "an unknown ABI")
        self._source = tool or benchmark_binary.URLS.get(self._abi)
        self._sha256 = ""
        self._pushed: dict[str, str] = {}
        self.cores = self._masks(cores)

    def __enter__(self) -> "Android":
        try:
            answer = self.adb.shell(f"mkdir {self.folder}", "making a folder")
            if answer.status:
                raise self.adb.failure(answer.output, "making a folder")
            self._install()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        left = self._clean_up()
        if left and (error is None or isinstance(error, ExportError)):
            raise ExportError(f"{error}; {left}" if error else left) from error

    @property
    def notes(self) -> list[str]:
        """See above; with how hot it got."""
        return [*self._notes, phone.describe(self._heats)] if self._heats else self._notes

    def facts(self) -> dict[str, Any]:
        """See `tflite_export.measuring.phone.Phone`; the temperature is that before."""
        before = phone.heat(self.adb)
        return {
            "serial": self.adb.serial,
            **self._phone.facts,
            "battery_celsius": before.battery,
            "thermal_status": before.status,
            "benchmark_model": self._source,
            "benchmark_model_sha256": self._sha256,
        }

    def read(
        self, model: ModelFile, setting: Setting, effort: Effort
    ) -> tuple[Reading, Delegation | None]:
        """One run of the tool, on a device that is not hot.

        Raises:
            ExportError: the device is hot, disconnects or runs out of memory; the tool fails,
                prints what is not understood, or measured something else than was asked for.
        """
        self._heats.append(phone.heat(self.adb))
        phone.refuse_hot(self._heats[-1], self.adb.serial)
        flags = {
            "num_runs": effort.runs,
            "warmup_runs": effort.warmup,
            "min_secs": effort.min_seconds,
            "max_secs": _MAX_SECONDS,
            "result_file_path": f"{self.folder}/result.pb",
        }
        told = self._run(model, setting, flags)
        figures, _ = self._result_file(told, model)
        if told.reading is None and "mean" not in figures:
            raise ExportError(
                f"benchmark_model printed no time of {model.path} ({setting}); take another build, "
                f"such as {benchmark_binary.URLS['arm64-v8a']}"
            )
        reading = dataclasses.replace(told.reading or Reading(None, 0.0), **figures)
        return reading, self._delegation(told, model, setting)

    def peak_memory(self, model: ModelFile, setting: Setting) -> int | None:
        """Of a second run of the tool, since sampling disturbs the latency.

        Raises:
            ExportError: see `read`.
        """
        flags = {"num_runs": 5, "min_secs": 0.2, "report_peak_memory_footprint": "true"}
        return self._run(model, setting, flags).peak_memory_bytes

    def profile(self, model: ModelFile, setting: Setting) -> tuple[Operator, ...]:
        """Of a third run of the tool.

        Raises:
            ExportError: it tells no operators, or see `read`.
        """
        flags = {"num_runs": 20, "min_secs": 0.2, "enable_op_profiling": "true"}
        operators = operator_profile.parse(self._output(model, setting, flags))
        if not operators:
            raise ExportError(
                f"benchmark_model printed no profile of {model.path} ({setting}); leave --profile "
                f"out, or take a newer build"
            )
        return operators

    def agreement(self, model: ModelFile, setting: Setting) -> Agreement | None:
        """None: the tool does not give outputs."""
        return None

    def _run(
        self, model: ModelFile, setting: Setting, flags: dict[str, Any]
    ) -> benchmark_tool.ToolOutput:
        return benchmark_tool.parse(self._output(model, setting, flags))

    def _output(self, model: ModelFile, setting: Setting, flags: dict[str, Any]) -> str:
        task = f"measuring {model.path} ({setting})"
        flags = {
            "graph": self._remote(model),
            "num_threads": setting.threads,
            **_BACKENDS[setting.backend],
            **flags,
        }
        words = [f"--{name}={value}" for name, value in flags.items()]
        output = self._execute(words, setting, task)
        told = benchmark_tool.parse(output)
        if unknown := [f for f in told.unknown_flags if not f.startswith(_OPTIONAL)]:
            raise ExportError(
                f"this benchmark_model does not know {' '.join(unknown)}; take a newer one, "
                f"such as {benchmark_binary.URLS['arm64-v8a']}"
            )
        return output

    def _install(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            tool = benchmark_binary.obtain(self._source, self._abi, Path(folder))
            self._sha256 = hashlib.sha256(tool.read_bytes()).hexdigest()
            self._push(tool, "benchmark_model")
        self.adb.shell(f"chmod 755 {self.folder}/benchmark_model", "making it executable")

    def _execute(self, flags: Sequence[str], setting: Setting, task: str) -> str:
        words = [f"{self.folder}/benchmark_model", *flags]
        if setting.cores != "all":
            words = ["taskset", setting.cores, *words]
        command = f"cd {self.folder} && rm -f result.pb && {shlex.join(words)}"
        answer = self.adb.shell(command, task, _MAX_SECONDS + _MARGIN)
        if answer.status:
            raise self._ended(answer, task)
        return answer.output

    def _ended(self, answer: Answer, task: str) -> ExportError:
        if "No space left" in answer.output:
            return self.adb.failure(answer.output, task)
        return ExportError(
            f"{benchmark_binary.meaning(answer.status, answer.output, self._abi)} ({task})"
        )

    def _result_file(
        self, told: benchmark_tool.ToolOutput, model: ModelFile
    ) -> tuple[dict[str, Any], int | None]:
        remote, task = f"{self.folder}/result.pb", f"reading the result of {model.path}"
        if self.adb.shell(f"[ -s {remote} ]", task).status:
            return {}, None  # older builds write none
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / "result.pb"
            self.adb.pull(remote, local, task)
            return benchmark_proto.parse(local.read_bytes())

    def _delegation(
        self, told: benchmark_tool.ToolOutput, model: ModelFile, setting: Setting
    ) -> Delegation | None:
        name = _DELEGATES.get(setting.backend)
        if name is None:
            return None
        found = [taken for key, taken in told.delegations.items() if name in key]
        refused = any(name.lower() in text.lower() for text in told.refused)
        if setting.backend == "gpu" and (refused or (found and not found[-1].nodes)):
            raise ExportError(
                f"the GPU took no operator of {model.path}; what was measured is the CPU: leave "
                f"--gpu out, or export float16 for it"
            )
        if refused:
            return Delegation(0, None)
        return found[-1] if found else None

    def _remote(self, model: ModelFile) -> str:
        if model.path not in self._pushed:
            name = f"model{len(self._pushed)}.tflite"
            self._push(model.path, name)
            self._pushed[model.path] = f"{self.folder}/{name}"
        return self._pushed[model.path]

    def _push(self, local: str | Path, name: str) -> None:
        self.adb.push(local, f"{self.folder}/{name}", f"copying {local} to it")

    def _masks(self, cores: Sequence[str]) -> tuple[str, ...]:
        masks = []
        for wanted in cores:
            if wanted == "big" and self._phone.big_cores is None:
                self._notes.append("The device tells of no big cores: none were bound to.")
            else:
                masks.append(self._phone.big_cores or "" if wanted == "big" else wanted)
        return tuple(dict.fromkeys(masks)) or ("all",)

    def _clean_up(self) -> str | None:
        """Ends what runs in the folder and removes it; returns what is left to do, if anything."""
        # The brackets keep the pattern from finding the shell that runs this very line.
        command = f"pkill -f '{self.folder}[/]'; rm -rf {self.folder}"
        for last in (False, True):
            try:
                if self.adb.shell(command, "cleaning up", timeout=20).status == 0:
                    return None
            except ExportError:
                if last or not self.adb.wait(10):
                    break
        return (
            f"{self.folder} may be left on it: adb -s {self.adb.serial} shell rm -rf {self.folder}"
        )
