"""Runs a float file and a quantized one beside each other, for `layer_errors`, as a program.

`python -m tflite_export.layer_comparison FLOAT_FILE FILE` reads images and answers with what it
found: a file that crashes the runtime ends this process only.
"""

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tflite_export.errors import ExportError
from tflite_export.file_facts import FileFacts, Operator, read_facts
from tflite_export.layer_errors import LayerError
from tflite_export.layer_names import marked_layer, scoped_layer
from tflite_export.messages import receive, send
from tflite_export.tflite_model import (
    TensorFacts,
    TFLiteModel,
    check_images,
    filled,
    tensor_facts,
)

_CHANGES_OF_FORMAT = {"QUANTIZE", "DEQUANTIZE"}
#: Operators that compute nothing; their error is their input's.
_MOVES = {"RESHAPE", "PAD", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "SLICE", "STRIDED_SLICE"}


class _Side:
    """One of the two files, which keeps what all its operators give."""

    def __init__(self, path: str) -> None:
        model = TFLiteModel(path)
        self.path, self.input = model.path, model.input
        content = Path(path).read_bytes()
        self.facts = read_facts(content)
        with warnings.catch_warnings():
            # The runtime advises against keeping all tensors, which is the point here.
            warnings.simplefilter("ignore", UserWarning)
            self._interpreter = Interpreter(
                model_content=content, experimental_preserve_all_tensors=True
            )
        self._interpreter.allocate_tensors()
        self._tensors = {
            detail["index"]: tensor_facts(detail["name"], detail)
            for detail in self._interpreter.get_tensor_details()
        }

    def run(self, image: np.ndarray) -> None:
        stored = self.input.quantize(filled(image[None], self.input.shape[0]))
        self._interpreter.set_tensor(self.input.index, stored)
        self._interpreter.invoke()

    def output(self, operator: Operator) -> TensorFacts:
        return self._tensors[operator.makes[0]]

    def value(self, operator: Operator) -> np.ndarray:
        facts = self.output(operator)
        return facts.dequantize(self._interpreter.get_tensor(facts.index))


class _Sums:
    """What is added up over the images for one pair of operators, a channel at a time."""

    def __init__(self, facts: TensorFacts) -> None:
        self.facts = facts
        channels = facts.shape[-1] if facts.shape else 1
        self.count = 0
        self.absolute = self.largest = self.cut_off = 0.0
        self.squares, self.rounded, self.first, self.second = np.zeros((4, channels))
        limits = np.array(_limits(facts.dtype), facts.dtype) if facts.scale else np.zeros(2)
        self._low, self._high = map(float, facts.dequantize(limits))

    def add(self, real: np.ndarray, found: np.ndarray) -> None:
        rounded = self.facts.dequantize(self.facts.quantize(real))
        channels = (-1, len(self.first))
        real, found, rounded = (x.reshape(channels).astype(float) for x in (real, found, rounded))
        difference = np.abs(found - real)
        self.count += len(real)
        self.absolute += float(difference.mean(axis=1).sum())
        self.largest = max(self.largest, float(difference.max()))
        self.squares += np.sum(difference**2, axis=0)
        self.rounded += np.sum((rounded - real) ** 2, axis=0)
        self.first += real.sum(axis=0)
        self.second += np.sum(real**2, axis=0)
        if self.facts.scale:
            step = self.facts.scale
            outside = (real < self._low - step) | (real > self._high + step)
            self.cut_off += float(outside.mean(axis=1).sum())

    def error(self, squares: np.ndarray) -> float:
        """Of each channel beside its own deviation, for a loud one must not drown the others."""
        variance = self.second / self.count - (self.first / self.count) ** 2
        share = squares / self.count / np.maximum(variance, 1e-12)
        return float(np.sqrt(np.minimum(share, 1.0).mean()))


def _limits(dtype: np.dtype) -> tuple[int, int]:
    found = np.iinfo(dtype)
    return found.min, found.max


def _compare(
    real: _Side, file: _Side, images: np.ndarray, layers: Sequence[str] | None
) -> Iterator[LayerError]:
    pairs = _pairs(real, file)
    sums = [_Sums(file.output(other)) for _, other in pairs]
    for image in images:
        real.run(image)
        file.run(image)
        for (one, other), sum_ in zip(pairs, sums, strict=True):
            sum_.add(real.value(one), file.value(other))
    errors: dict[int, float] = {}  # by tensor of the float file
    for (one, _), sum_ in zip(pairs, sums, strict=True):
        error = sum_.error(sum_.squares)
        inherited = max((errors.get(index, 0.0) for index in one.reads), default=0.0)
        errors.update(dict.fromkeys(one.makes, error))
        if one.name in _MOVES:
            continue
        scale = sum_.facts.scale
        yield LayerError(
            layer=_name(one, layers),
            operator=one.name,
            format=sum_.facts.dtype.name,
            error=error,
            added=float(np.sqrt(max(0.0, error**2 - inherited**2))),
            rounding=sum_.error(sum_.rounded),
            mean_steps=sum_.absolute / sum_.count / scale if scale else None,
            largest_steps=sum_.largest / scale if scale else None,
            saturated=sum_.cut_off / sum_.count,
            readers=tuple(_name(reader, layers) for reader in _readers(one, pairs)),
        )


def _name(operator: Operator, layers: Sequence[str] | None) -> str:
    return (marked_layer(operator, layers) if layers else None) or scoped_layer(operator)


def _readers(operator: Operator, pairs: list[tuple[Operator, Operator]]) -> Iterator[Operator]:
    """The operators that compute with an output, also where it was moved before."""
    for reader, _ in pairs:
        if set(reader.reads) & set(operator.makes):
            yield from _readers(reader, pairs) if reader.name in _MOVES else [reader]


def _pairs(real: _Side, file: _Side) -> list[tuple[Operator, Operator]]:
    """The operators of both files that compute the same, in the order of execution."""
    one, other = _computing(real.facts), _computing(file.facts)
    if any({*operator.formats} & {"int8", "uint8", "int16"} for operator in one):
        raise ExportError(f"{real.path} is quantized itself; give the float file to compare with")
    shapes = [[side.output(found).shape for found in o] for side, o in ((real, one), (file, other))]
    if [o.name for o in one] != [o.name for o in other] or shapes[0] != shapes[1]:
        raise ExportError(
            f"{file.path} has other operators ({len(other)}) than the reference in float "
            f"({len(one)}); give the model that it was exported from as reference"
        )
    if real.facts.graphs > 1:
        raise ExportError(f"{real.path} has loops or branches, whose layers cannot be compared")
    return list(zip(one, other, strict=True))


def _computing(facts: FileFacts) -> list[Operator]:
    return [found for found in facts.operators if found.name not in _CHANGES_OF_FORMAT]


def _main(float_file: str, file: str) -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    answer: dict[str, Any]
    try:
        request = receive(sys.stdin.buffer)
        if request is None:
            return
        real, other = _Side(float_file), _Side(file)
        for side in (real, other):
            check_images(side.path, side.input, request[1])
        found = _compare(real, other, request[1], request[0]["layers"])
        answer = {"found": [asdict(one) for one in found]}
    except (ExportError, ValueError, RuntimeError, MemoryError) as error:
        answer = {"error": " ".join(str(error).split())[:400] or type(error).__name__}
    send(answers, answer)


if __name__ == "__main__":
    _main(*sys.argv[1:])
