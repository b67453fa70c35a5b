"""What a file takes and gives: pixels instead of normalised numbers, and the form of its outputs.

Both are put around the finished graph, so that they are the same for every recipe and every kind of
source, and what was quantized in between is not touched.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tflite_export.errors import ExportError
from tflite_export.graph_editing import Graph
from tflite_export.preprocessing import Preprocessing
from tflite_export.recipes import OUTPUT_FORMS
from tflite_export.tflite_model import TensorFacts, TFLiteModel

#: Scale and zero point that TFLite's softmax gives, by format.
_SOFTMAX = {"int8": (1 / 256, -128), "uint8": (1 / 256, 0), "int16": (1 / 32768, 0)}


@dataclass(frozen=True)
class Ends:
    """What is put around the graph of a file.

    Attributes:
        preprocessing: the file takes pixels, uint8 from 0 to 255, and does this itself.
        output_form: one of `recipes.OUTPUT_FORMS`; None leaves the model's own.

    Raises:
        ExportError: the form is unknown.
    """

    preprocessing: Preprocessing | None = None
    output_form: str | None = None

    def __post_init__(self) -> None:
        if self.output_form not in (None, *OUTPUT_FORMS):
            raise ExportError(
                f"output_form {self.output_form!r} is unknown; choose one of: "
                f"{', '.join(OUTPUT_FORMS)}"
            )

    def around(self, content: bytes, model: TFLiteModel) -> bytes:
        """Returns a file with these ends.

        Args:
            content: of the file.
            model: the same, loaded.

        Raises:
            ExportError: the preprocessing does not fit the input, or the form the outputs.
        """
        if self == Ends():
            return content
        graph = Graph(content)
        if self.preprocessing is not None:
            _take_pixels(graph, model.input, self.preprocessing.fitted(model.input.shape))
        if self.output_form is not None:
            _give(graph, self.output_form, model)
        return graph.content()


def read_output(content: bytes) -> tuple[str | None, int]:
    """Returns the form of a file's output, as far as its graph tells, and how many classes it has.

    Where the graph ends otherwise, whether the outputs are logits is not to be seen: None.
    """
    graph = Graph(content)
    last = _last(graph)
    form = {"SOFTMAX": "softmax", "ARG_MAX": "argmax"}.get(last.kind)
    outputs = int(last.operator.inputs[0]) if form == "argmax" else graph.output
    return form, int(graph.tensor(outputs).shape[-1])


def _take_pixels(graph: Graph, fed: TensorFacts, preprocessing: Preprocessing) -> None:
    # By a table of what each of the 256 pixels becomes in each channel. Arithmetic would round
    # otherwise in each runtime; the table holds the very numbers of preprocessing outside.
    pixels = np.arange(256)[:, np.newaxis]
    table = fed.quantize(preprocessing.apply(np.repeat(pixels, fed.shape[3], axis=1))).T
    shape, old = fed.shape, graph.tensor(graph.input)
    name = old.name.decode()
    old.name = f"{name}_normalised".encode()
    taken = graph.add_tensor(name, shape, np.uint8)
    index = graph.add_tensor(f"{name}_index", shape, np.int32)
    cast = schema.CastOptionsT()
    cast.inDataType, cast.outDataType = schema.TensorType.UINT8, schema.TensorType.INT32
    graph.add_operator("CAST", [taken], index, cast, place=0)
    if np.all(table == table[0]):
        table = table[:1]
    else:
        starts = graph.add_tensor(
            *(f"{name}_starts", (len(table),), np.int32), values=256 * np.arange(len(table))
        )
        place = graph.add_tensor(f"{name}_place", shape, np.int32)
        graph.add_operator("ADD", [index, starts], place, schema.AddOptionsT(), place=1)
        index = place
    values = graph.add_tensor(
        f"{name}_table", (table.size,), fed.dtype, old.quantization, values=table.ravel()
    )
    gather = schema.GatherOptionsT()
    gather.axis = 0
    graph.add_operator("GATHER", [values, index], graph.input, gather, place=1 + (len(table) > 1))
    graph.input = taken


class _Last(NamedTuple):
    """The last operator that computes, and the change of format behind it."""

    kind: str
    operator: Any
    border: Any


def _last(graph: Graph) -> _Last:
    operator, border = graph.maker(graph.output), None
    if operator is not None and graph.kind(operator) in ("QUANTIZE", "DEQUANTIZE"):
        operator, border = graph.maker(int(operator.inputs[0])), operator
    return _Last("" if operator is None else graph.kind(operator), operator, border)


def _give(graph: Graph, form: str, model: TFLiteModel) -> None:
    last = _last(graph)
    if last.kind in ("LOGISTIC", "TANH"):
        raise ExportError(
            f"output_form {form!r} is for logits or a softmax; {model.output.name!r} ends in "
            f"{last.kind}: leave output_form out"
        )
    if form != "softmax" and last.kind == "SOFTMAX":
        _remove_softmax(graph, last)
    if form == "softmax" and last.kind != "SOFTMAX":
        _add_softmax(graph, model.output)
    if form == "argmax":
        _add_argmax(graph, model.output)


def _remove_softmax(graph: Graph, last: _Last) -> None:
    logits = int(last.operator.inputs[0])
    if last.border is None:
        graph.output = logits
    else:
        last.border.inputs = last.operator.inputs
        if graph.kind(last.border) == "QUANTIZE":
            _requantize(graph, logits)
    graph.remove(last.operator)


def _requantize(graph: Graph, logits: int) -> None:
    """Gives the output, uint8, the range of the logits, int8."""
    quantization = graph.tensor(logits).quantization
    if graph.tensor(logits).type != schema.TensorType.INT8:
        raise ExportError(
            "the softmax was kept in float, so that nothing is known of the range of the logits "
            "before it; keep output_form 'softmax', or a float output: 'int8_float_io@float:...'"
        )
    graph.tensor(graph.output).quantization = _steps(
        float(quantization.scale[0]), int(quantization.zeroPoint[0]) + 128
    )


def _add_softmax(graph: Graph, given: TensorFacts) -> None:
    quantization = None if given.scale is None else _steps(*_SOFTMAX[given.dtype.name])
    name = f"{graph.tensor(graph.output).name.decode()}_softmax"
    made = graph.add_tensor(name, given.shape, given.dtype, quantization)
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    graph.add_operator("SOFTMAX", [graph.output], made, options)
    graph.output = made


def _add_argmax(graph: Graph, given: TensorFacts) -> None:
    if given.dtype == np.int16:
        raise ExportError(
            "TFLite has no argmax of int16; take recipe 'int16x8_float_io' for output_form 'argmax'"
        )
    name = graph.tensor(graph.output).name.decode()
    axis = graph.add_tensor(f"{name}_axis", (), np.int32, values=np.array(len(given.shape) - 1))
    made = graph.add_tensor(f"{name}_argmax", given.shape[:-1], np.int32)
    options = schema.ArgMaxOptionsT()
    options.outputType = schema.TensorType.INT32
    graph.add_operator("ARG_MAX", [graph.output, axis], made, options)
    graph.output = made


def _steps(scale: float, zero_point: int) -> schema.QuantizationParametersT:
    quantization = schema.QuantizationParametersT()
    quantization.scale = np.array([scale], np.float32)
    quantization.zeroPoint = np.array([zero_point], np.int64)
    return quantization
