"""Adds to the graph of a .tflite file, by the published schema of the format."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.model_schema import packed, unpacked

_TYPES = {"float32": "FLOAT32", "int32": "INT32", "int16": "INT16", "int8": "INT8"}
_TYPES["uint8"] = "UINT8"
#: Versions of operators that first took a format; all others are in the first.
_VERSIONS = {
    ("GATHER", "int8"): 2,
    ("GATHER", "int16"): 4,
    ("SOFTMAX", "int8"): 2,
    ("SOFTMAX", "int16"): 3,
    ("ARG_MAX", "int8"): 2,
}


class Graph:
    """The main graph of a file, with one input and one output, to be changed.

    Args:
        content: of a sound file with the signature `serving_default`.
    """

    def __init__(self, content: bytes):
        self._model = unpacked(content)
        (self._signature,) = self._model.signatureDefs
        self._graph = self._model.subgraphs[self._signature.subgraphIndex]

    @property
    def input(self) -> int:
        """The number of the tensor that is fed."""
        return int(self._graph.inputs[0])

    @input.setter
    def input(self, tensor: int) -> None:
        self._graph.inputs = np.array([tensor], np.int32)
        self._signature.inputs[0].tensorIndex = tensor

    @property
    def output(self) -> int:
        """The number of the tensor that is read."""
        return int(self._graph.outputs[0])

    @output.setter
    def output(self, tensor: int) -> None:
        self._graph.outputs = np.array([tensor], np.int32)
        self._signature.outputs[0].tensorIndex = tensor

    def tensor(self, number: int) -> schema.TensorT:
        """Returns a tensor by its number."""
        return self._graph.tensors[number]

    def kind(self, operator: schema.OperatorT) -> str:
        """Returns the built-in name of an operator."""
        code = self._model.operatorCodes[operator.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        return next(n for n, v in vars(schema.BuiltinOperator).items() if v == number)

    def maker(self, tensor: int) -> schema.OperatorT | None:
        """Returns the operator that makes a tensor; None for an input or a constant."""
        return next((o for o in self._graph.operators if tensor in o.outputs), None)

    def remove(self, operator: schema.OperatorT) -> None:
        """Takes an operator out; whoever read its output must read another tensor by now."""
        self._graph.operators.remove(operator)

    def add_tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: Any,
        quantization: schema.QuantizationParametersT | None = None,
        values: np.ndarray | None = None,
    ) -> int:
        """Adds a tensor, a constant if it has values, and returns its number."""
        tensor = schema.TensorT()
        tensor.name = name.encode()
        tensor.shape = np.array(shape, np.int32)
        tensor.type = getattr(schema.TensorType, _TYPES[np.dtype(dtype).name])
        tensor.quantization = quantization
        tensor.buffer = 0  # the empty one
        if values is not None:
            stored = schema.BufferT()
            stored.data = np.frombuffer(np.asarray(values, dtype).tobytes(), np.uint8)
            self._model.buffers.append(stored)
            tensor.buffer = len(self._model.buffers) - 1
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def add_operator(
        self, kind: str, read: Sequence[int], made: int, options: Any, place: int | None = None
    ) -> None:
        """Adds an operator at the end, or at a place in the order of execution.

        Args:
            kind: its built-in name.
            read: numbers of its input tensors.
            made: number of its output tensor.
            options: the schema's options for the kind.
            place: in the order of execution; the end when not given.
        """
        operator = schema.OperatorT()
        operator.opcodeIndex = self._code(kind, self.tensor(read[0]).type)
        operator.inputs, operator.outputs = np.array(read, np.int32), np.array([made], np.int32)
        name = type(options).__name__.removesuffix("T")
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        operator.builtinOptions = options
        operators = self._graph.operators
        operators.insert(len(operators) if place is None else place, operator)

    def _code(self, kind: str, number_format: int) -> int:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, kind)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        formats = {getattr(schema.TensorType, name): dtype for dtype, name in _TYPES.items()}
        code.version = _VERSIONS.get((kind, formats[number_format]), 1)
        codes = self._model.operatorCodes
        codes.append(code)
        return len(codes) - 1

    def content(self) -> bytes:
        """Returns the bytes of the changed file."""
        return packed(self._model)
