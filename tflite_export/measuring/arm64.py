"""A phone's instruction set on this machine: 64-bit ARM, emulated.

What the file gives there is compared with what it gives here. The times are the emulator's.
"""

import os
from typing import Any

import numpy as np

from tflite_export.errors import ExportError
from tflite_export.interpreters import Interpreters
from tflite_export.machine import machine_facts
from tflite_export.measuring import arm64_setup
from tflite_export.measuring.host import Host
from tflite_export.measuring.result import Agreement, ModelFile, Setting
from tflite_export.representative import Representative
from tflite_export.tflite_model import TensorFacts

_RANDOM = 500  # inputs, where none are given


class Arm64(Host):
    """The runtime for 64-bit ARM under an emulator, on which `Host` runs its children.

    Which processor is emulated is QEMU's choice, `max`, or what the environment variable QEMU_CPU
    names: cortex-a53 and cortex-a76, say, have other instructions, so other kernels run.

    Args:
        examples: inputs to compare on; random ones where None are given.
        seed: of the random inputs.
        timeout: seconds for one repeat, beyond the least time asked for.

    Raises:
        ExportError: it is not set up.
    """

    kind = "arm64"

    def __init__(
        self, examples: Representative | None = None, seed: int = 0, timeout: float = 3600
    ):
        system = arm64_setup.find()
        super().__init__(("xnnpack (emulated)",), timeout, system.python)
        self._system, self._examples, self._seed = system.facts, examples, seed
        self.notes = [
            "Times are an emulated processor's: no phone's, and their ratios are none of a phone. "
            "What counts here is whether the outputs are right."
        ]
        if examples is None:
            self.notes.append(
                "No images were given, so the outputs were compared on random inputs, which say "
                "little of how often the class would change: give --images=FILE."
            )

    def facts(self) -> dict[str, Any]:
        """This machine, what is emulated on it, and the examples."""
        emulated = {f"arm64_{name}": value for name, value in self._system.items()}
        examples = self._examples and {"name": self._examples.name, **self._examples.facts}
        cpu = os.environ.get("QEMU_CPU", "max")
        return {**machine_facts(), **emulated, "arm64_cpu": cpu, "examples": examples}

    def peak_memory(self, model: ModelFile, setting: Setting) -> None:
        """None: it would be the emulator's."""
        return None

    def agreement(self, model: ModelFile, setting: Setting) -> Agreement:
        """Runs the file here and there, in processes of their own.

        Raises:
            ExportError: the file does not load, crashes one of the runtimes, gives NaN or infinity,
                has several inputs or outputs, or does not take the examples.
        """
        with (
            Interpreters(model.path, setting.threads) as here,
            Interpreters(model.path, setting.threads, python=self.python) as there,
        ):
            inputs = self._inputs(here.input)
            expected, found = here.predict(inputs), there.predict(inputs)
            step = here.output.scale
        if not (np.all(np.isfinite(expected)) and np.all(np.isfinite(found))):
            raise ExportError(f"{model.path} gives NaN or infinity; check the model's weights")
        name = "random" if self._examples is None else self._examples.name
        return agreement(expected, found, step, name)

    def _inputs(self, facts: TensorFacts) -> np.ndarray:
        if self._examples is not None:
            return self._examples.images(facts.shape[1:])
        shape, generator = (_RANDOM, *facts.shape[1:]), np.random.default_rng(self._seed)
        if not np.issubdtype(facts.dtype, np.integer):
            return generator.standard_normal(shape).astype(facts.dtype)
        limits = np.iinfo(facts.dtype)  # of any size, where they are quantized
        return facts.dequantize(
            generator.integers(limits.min, limits.max, shape, facts.dtype, endpoint=True)
        )


def agreement(
    expected: np.ndarray, found: np.ndarray, step: float | None, inputs: str
) -> Agreement:
    """Returns how far outputs are from what is expected.

    Args:
        expected: of this machine, (n, ...), finite.
        found: of the device, likewise.
        step: a quantization step of the outputs; None for floats.
        inputs: what the outputs are of.
    """
    error = np.abs(expected.astype(np.float64) - found).reshape(len(expected), -1)
    choice, other = (outputs.reshape(error.shape).argmax(axis=1) for outputs in (expected, found))
    return Agreement(
        inputs=inputs,
        examples=len(expected),
        equal=float(np.mean(error == 0)),
        largest=float(error.max()),
        largest_steps=None if step is None else round(error.max() / step),
        same_choice=float(np.mean(choice == other)),
    )
