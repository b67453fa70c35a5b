"""Reads what a .tflite file says of itself, by the published schema of the format."""

from collections.abc import Collection
from dataclasses import dataclass

from ai_edge_litert import schema_py_generated as schema

from tflite_export.errors import ExportError
from tflite_export.model_schema import unpacked
from tflite_export.recipes import Recipe

_OPERATORS = {code: name for name, code in vars(schema.BuiltinOperator).items() if name.isupper()}
_TYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if name.isupper()}
#: Operators with a kernel, and which of their inputs it is.
_KERNEL_INPUT = {
    "BATCH_MATMUL": 1,
    "CONV_2D": 1,
    "CONV_3D": 1,
    "DEPTHWISE_CONV_2D": 1,
    "EMBEDDING_LOOKUP": 1,
    "FULLY_CONNECTED": 1,
    "TRANSPOSE_CONV": 1,
}
_CHANGES_OF_FORMAT = {"QUANTIZE", "DEQUANTIZE"}
_COMPUTED = {"float16", "float32", "float64", "int8", "uint8", "int16"}


@dataclass(frozen=True)
class Operator:
    """One operator of the graph.

    Attributes:
        name: built-in name such as `CONV_2D`, or the code of a custom operator.
        custom: it is not a built-in one (Flex operators are custom ones).
        tensors: names of its outputs, which hold the Keras layer's name.
        formats: number formats of its outputs.
        constants: names of its inputs that are float numbers stored in the file.
        last: it makes an output of the graph.
        weights: number format of its kernel in the file, None without one.
        weight_scales: of its kernel: one, or one for each output channel; none in float.
        dequantized: its kernel is made float before it is used.
        reads: the indices of its inputs among the tensors of its graph.
        makes: likewise of its outputs.
    """

    name: str
    custom: bool
    tensors: tuple[str, ...]
    formats: tuple[str, ...]
    constants: tuple[str, ...]
    last: bool
    weights: str | None
    weight_scales: tuple[float, ...]
    dequantized: bool
    reads: tuple[int, ...]
    makes: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.tensors)})"


@dataclass(frozen=True)
class FileFacts:
    """What is in a file.

    Attributes:
        operators: of all its graphs, in the order of execution.
        inputs: number format by name in the signature `serving_default`, empty without one.
        outputs: likewise.
        graphs: how many there are; loops and branches have graphs of their own.
    """

    operators: tuple[Operator, ...]
    inputs: dict[str, str]
    outputs: dict[str, str]
    graphs: int = 1


def read_facts(content: bytes) -> FileFacts:
    """Reads the facts of a sound file; the runtime, which verifies the bytes, goes first."""
    model = unpacked(content)
    operators = tuple(
        _operator(model, graph, operator)
        for graph in model.subgraphs
        for operator in graph.operators or ()
    )
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    for signature in model.signatureDefs or ():
        if _text(signature.signatureKey) == "serving_default":
            tensors = model.subgraphs[signature.subgraphIndex].tensors
            inputs = {_text(t.name): _format(tensors, t.tensorIndex) for t in signature.inputs}
            outputs = {_text(t.name): _format(tensors, t.tensorIndex) for t in signature.outputs}
    return FileFacts(operators, inputs, outputs, len(model.subgraphs))


def check_facts(
    facts: FileFacts,
    recipe: Recipe,
    input_name: str,
    output_name: str,
    floats: Collection[Operator] = (),
) -> None:
    """Holds a new file against what was asked for.

    Args:
        facts: of the file.
        recipe: that it was made by.
        input_name: of the only input, in the signature.
        output_name: of the only output.
        floats: operators of the float file that were to stay as they were.

    Raises:
        ExportError: it has a custom operator, another signature, another input or output format
            than the recipe's, or an operator with weights or results in another format.
    """
    for operator in facts.operators:
        if operator.custom:
            raise ExportError(
                f"operator {operator} is not built into TFLite; replace it in the Keras model"
            )
    for side, expected, found in (
        ("input", input_name, facts.inputs),
        ("output", output_name, facts.outputs),
    ):
        if list(found) != [expected]:
            raise ExportError(
                f"the converter called the {side} {', '.join(found) or 'nothing'} instead of "
                f"{expected!r}; give another {side}_name: letters, digits and _"
            )
        if found[expected] != recipe.io:
            raise ExportError(
                f"{side} {expected!r} is {found[expected]} where recipe {recipe.name!r} asks for "
                f"{recipe.io}; {_cure(recipe)}"
            )
    kept = {operator.tensors for operator in floats}
    # Changes of format stand around the operator that is the cause: that one is named.
    for operator in sorted(facts.operators, key=lambda found: found.name in _CHANGES_OF_FORMAT):
        _check_operator(operator, recipe, operator.tensors in kept)


def _check_operator(operator: Operator, recipe: Recipe, kept: bool) -> None:
    allowed = {"float32" if kept else recipe.activations}
    if operator.name in _CHANGES_OF_FORMAT:
        allowed |= {recipe.io, *(("float32",) if recipe.float_layers else ())}
    foreign = _COMPUTED.intersection(operator.formats) - allowed
    if foreign:
        raise ExportError(
            f"operator {operator} computes in {min(foreign)} where recipe {recipe.name!r} allows "
            f"only {', '.join(sorted(allowed))}; {_cure(recipe)}"
        )
    if operator.weights is None:
        return
    weights = "float32" if kept else recipe.weights_of(operator.name)
    if operator.weights != weights or operator.dequantized != (recipe.dequantized and not kept):
        raise ExportError(
            f"operator {operator} has weights in {operator.weights}"
            f"{', made float before use,' if operator.dequantized else ''} where recipe "
            f"{recipe.name!r} asks for {weights}; {_cure(recipe)}"
        )


def _cure(recipe: Recipe) -> str:
    if recipe.name == "float32":
        return "rebuild the model under the float32 policy and copy the weights"
    kind = recipe.name.partition("@")[0]
    keep = f"keep its layer in float: '{kind}@float:LAYER'"
    if recipe.activations == "int8":
        return f"quantize every layer, with tfmot.quantization.keras.quantize_model, or {keep}"
    return keep


def _operator(
    model: schema.ModelT, graph: schema.SubGraphT, operator: schema.OperatorT
) -> Operator:
    name = _operator_name(model, operator)
    outputs = [] if operator.outputs is None else [int(index) for index in operator.outputs]
    kernel, dequantized = _kernel(model, graph, operator)
    scales = None if kernel is None or not kernel.quantization else kernel.quantization.scale
    return Operator(
        name=name,
        custom=_code(model, operator) == schema.BuiltinOperator.CUSTOM,
        tensors=tuple(_text(graph.tensors[index].name) for index in outputs),
        formats=tuple(_format(graph.tensors, index) for index in outputs),
        constants=_constants(model, graph, operator),
        last=bool(set(outputs) & {int(index) for index in graph.outputs}),
        weights=None if kernel is None else _TYPES[kernel.type],
        weight_scales=() if scales is None else tuple(map(float, scales)),
        dequantized=dequantized,
        reads=() if operator.inputs is None else tuple(int(index) for index in operator.inputs),
        makes=tuple(outputs),
    )


def _operator_name(model: schema.ModelT, operator: schema.OperatorT) -> str:
    code = _code(model, operator)
    if code == schema.BuiltinOperator.CUSTOM:
        return _text(model.operatorCodes[operator.opcodeIndex].customCode)
    return _OPERATORS.get(code, str(code))


def _code(model: schema.ModelT, operator: schema.OperatorT) -> int:
    kind = model.operatorCodes[operator.opcodeIndex]
    return max(kind.builtinCode, kind.deprecatedBuiltinCode)  # old files have only the second


def _kernel(
    model: schema.ModelT, graph: schema.SubGraphT, operator: schema.OperatorT
) -> tuple[schema.TensorT | None, bool]:
    """The tensor that the file stores as kernel, None for none, and whether it is made float."""
    place = _KERNEL_INPUT.get(_operator_name(model, operator))
    if place is None:
        return None, False
    index, dequantized = int(operator.inputs[place]), False
    for other in graph.operators:
        if _operator_name(model, other) == "DEQUANTIZE" and index in other.outputs:
            index, dequantized = int(other.inputs[0]), True
            break
    if not _is_stored(model, graph.tensors[index]):
        return None, False
    return graph.tensors[index], dequantized


def _constants(
    model: schema.ModelT, graph: schema.SubGraphT, operator: schema.OperatorT
) -> tuple[str, ...]:
    given = [] if operator.inputs is None else operator.inputs
    tensors = [graph.tensors[index] for index in given if index >= 0]
    return tuple(
        _text(tensor.name)
        for tensor in tensors
        if tensor.type == schema.TensorType.FLOAT32 and _is_stored(model, tensor)
    )


def _is_stored(model: schema.ModelT, tensor: schema.TensorT) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0


def _format(tensors: list[schema.TensorT], index: int) -> str:
    return _TYPES[tensors[index].type]


def _text(value: bytes | None) -> str:
    return (value or b"").decode()
