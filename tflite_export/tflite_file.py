"""Quantizes a .tflite file that is in float32."""

from collections import Counter
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from tflite_export import quantization
from tflite_export.errors import ExportError
from tflite_export.file_facts import FileFacts, read_facts
from tflite_export.float_layers import scoped_operators
from tflite_export.model_schema import packed, unpacked
from tflite_export.quiet import silenced_stderr
from tflite_export.recipes import Recipe
from tflite_export.tflite_model import TFLiteModel
from tflite_export.writing import Content


def tflite_content(
    path: Path, recipe: Recipe, representative: Any = None, batch_size: int = 1
) -> Content:
    """Makes the bytes of a file from another, which is in float32 and has the same batch.

    A file without the signature `serving_default` gets one, with the names of its tensors.

    Args:
        path: of the float file.
        recipe: what to make.
        representative: images or `Representative` data, where the recipe needs them.
        batch_size: of both files.

    Raises:
        ExportError: the file does not load, is quantized already, has another batch, or other
            than one float32 input and one output, or see `tflite_export.convert`.
    """
    model = TFLiteModel(path)
    if model.input.shape[:1] != (batch_size,):
        raise ExportError(
            f"{path} takes {model.input.shape}, and its batch cannot be made {batch_size}; export "
            f"the model that it was made from"
        )
    content = path.read_bytes()
    facts = read_facts(content)
    if not facts.inputs:
        content = _signed(content, model)
        facts = read_facts(content)
    _refuse_other_formats(path, facts)
    _refuse_equal_names(path, content)
    images = quantization.representative_for(
        recipe, representative, model.input.shape[1:], str(path), learned=False
    )
    floats = scoped_operators(facts, recipe.float_layers, model.output.name)
    if recipe.quantizes:
        with silenced_stderr():
            content = quantization.quantize(content, recipe, model.input.name, images, floats)
    return Content(content, recipe, model.input.name, model.output.name, floats)


def _refuse_other_formats(path: Path, facts: FileFacts) -> None:
    formats = {*facts.inputs.values(), *facts.outputs.values()}
    for operator in facts.operators:
        formats |= {*operator.formats, *([operator.weights] if operator.weights else [])}
    other = formats & {"float16", "float64", "int4", "int8", "uint8", "int16"}
    if other or set(facts.inputs.values()) != {"float32"}:
        raise ExportError(
            f"{path} has numbers in {', '.join(sorted(other or formats))}; give the float32 file "
            f"from before it was quantized"
        )


def _refuse_equal_names(path: Path, content: bytes) -> None:
    # litert-quantizer keeps what it knows of a tensor by its name.
    graphs = unpacked(content).subgraphs
    names = Counter(tensor.name for graph in graphs for tensor in graph.tensors)
    equal = [name for name, count in names.items() if count > 1 or not name]
    if equal:
        raise ExportError(
            f"{path} has several tensors called {(equal[0] or b'').decode()!r}; convert it again, "
            f"with a converter that gives each a name of its own"
        )


def _signed(content: bytes, model: TFLiteModel) -> bytes:
    parsed = unpacked(content)
    graph = parsed.subgraphs[0]
    signature = schema.SignatureDefT()
    signature.signatureKey = "serving_default"
    signature.inputs = [_named(model.input.name, graph.inputs[0])]
    signature.outputs = [_named(model.output.name, graph.outputs[0])]
    parsed.signatureDefs = [signature]
    return packed(parsed)


def _named(name: str, index: int) -> schema.TensorMapT:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, int(index)
    return entry
