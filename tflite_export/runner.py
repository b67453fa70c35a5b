"""Runs a .tflite file on batches."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from tflite_export.errors import ExportError
from tflite_export.tflite_model import filled, load_interpreter, signature_details, tensor_facts


class Runner:
    """One interpreter that takes batches of any size; used by one thread at a time.

    Where `is_resized` is set, the file's input is resized to the batch. Else the batch is run in
    pieces of the file's own batch size, the last one filled up. Whether resizing is allowed, and
    gives each example what it has alone, is told by `gives_the_same_resized`.

    Attributes:
        path: of the file.
        input: facts of the only input.
        input_shape: its shape with None for the batch and every other size that is not fixed.
        outputs: facts of the outputs with the input's batch size, by name.
        output_shapes: likewise.
        is_resized: whether the input is resized to each batch.

    Args:
        path: of the file.
        threads: that one inference may use.

    Raises:
        ExportError: the file cannot be loaded, has more than one input, or no batch dimension.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 1):
        self.path = os.fspath(path)
        self._threads = threads
        self.is_resized = False
        self._allocated: tuple[int, ...] | None = None
        self._load()
        inputs, outputs = signature_details(self._interpreter)
        if len(inputs) != 1:
            raise ExportError(
                f"{self.path!r} has {len(inputs)} inputs ({', '.join(inputs)}); give a file with "
                f"one input"
            )
        [(name, detail)] = inputs.items()
        self.input, self.input_shape = tensor_facts(name, detail), _shape(detail)
        batch = self.input.shape[:1]
        facts = {key: tensor_facts(key, found) for key, found in outputs.items()}
        self.outputs = {key: found for key, found in facts.items() if found.shape[:1] == batch}
        if not batch or not self.outputs:
            shapes = ", ".join(str(found.shape) for found in facts.values())
            raise ExportError(
                f"{self.path!r} takes {self.input.shape} and gives {shapes}: it needs a batch as "
                f"the first dimension of both"
            )
        self.output_shapes = {name: _shape(outputs[name]) for name in self.outputs}

    def run(self, x: np.ndarray, names: Sequence[str]) -> list[np.ndarray]:
        """Returns the named outputs of at least one example as real numbers, float32."""
        found = self.run_stored(self.input.quantize(x), names)
        return [self.outputs[name].dequantize(y) for name, y in zip(names, found, strict=True)]

    def run_stored(self, x: np.ndarray, names: Sequence[str]) -> list[np.ndarray]:
        """Returns the named outputs as the file stores them, of inputs as it stores them."""
        size = len(x) if self.is_resized else self.input.shape[0]
        whole = filled(x, size)
        found = [self._invoke(whole[i : i + size], names) for i in range(0, len(x), size)]
        return [np.concatenate(values)[: len(x)] for values in zip(*found, strict=True)]

    def gives_the_same_resized(self, x: np.ndarray, *, exact: bool) -> bool:
        """Tells whether resizing to the batch `x` gives each example what it has alone.

        Args:
            x: a batch as the file stores it, larger than the file's own.
            exact: the outputs are to be equal bit by bit; else nearly so.

        Raises:
            ExportError: the file cannot be run at all.
        """
        names = list(self.outputs)
        try:
            expected = self.run_stored(x, names)
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ExportError(f"{self.path!r} cannot be run: {reason}") from error
        before, self.is_resized = self.is_resized, True
        try:
            found = self.run_stored(x, names)
        except (ValueError, RuntimeError):
            self._load()  # the interpreter is of no use any more
            return False
        finally:
            self.is_resized = before
        if exact:
            return all(map(np.array_equal, expected, found))
        return all(map(self._are_close, names, expected, found))

    def random_batch(self) -> np.ndarray:
        """Returns twice as many random examples as the file's own batch, as the file stores it."""
        fixed = zip(self.input_shape[1:], self.input.shape[1:], strict=True)
        shape = (2 * self.input.shape[0], *(size or own for size, own in fixed))
        x = (np.random.default_rng(0).normal(size=shape) * 10).astype(np.float32)
        return self.input.quantize(x) if self.input.scale else np.abs(x).astype(self.input.dtype)

    def _are_close(self, name: str, one: np.ndarray, other: np.ndarray) -> bool:
        facts = self.outputs[name]
        one, other = facts.dequantize(one), facts.dequantize(other)
        tolerance = 1e-3 + 2 * (facts.scale or 0.0)
        return one.shape == other.shape and np.allclose(one, other, rtol=1e-3, atol=tolerance)

    def _invoke(self, x: np.ndarray, names: Sequence[str]) -> list[np.ndarray]:
        if x.shape != self._allocated:
            self._interpreter.resize_tensor_input(self.input.index, x.shape)
            self._interpreter.allocate_tensors()
            self._allocated = x.shape
        self._interpreter.set_tensor(self.input.index, x)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(self.outputs[name].index) for name in names]

    def _load(self) -> None:
        self._interpreter = load_interpreter(self.path, self._threads)
        self._allocated = None


def _shape(detail: dict[str, Any]) -> tuple[int | None, ...]:
    sizes = detail.get("shape_signature", ())
    sizes = sizes if len(sizes) == len(detail["shape"]) else detail["shape"]
    return (None, *(int(size) if size > 0 else None for size in sizes[1:]))
