"""Reads what a .tflite file says of itself, by the published schema of the format."""

from dataclasses import dataclass

from ai_edge_litert import schema_py_generated as schema

from tflite_export.errors import ExportError
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
_COMPUTED = {"float16", "float32", "float64", "int8", "int16"}


@dataclass(frozen=True)
class Operator:
    """One operator of the graph.

    Attributes:
        name: built-in name such as `CONV_2D`, or the code of a custom operator.
        custom: it is not a built-in one (Flex operators are custom ones).
        tensor: name of its first output, which holds the Keras layer's name.
        formats: number formats of its outputs.
        weights: number format of its kernel in the file, None without one.
        weight_scales: how many scales the kernel has: one, or one for each output channel.
    """

    name: str
    custom: bool
    tensor: str
    formats: tuple[str, ...]
    weights: str | None
    weight_scales: int


@dataclass(frozen=True)
class FileFacts:
    """What is in a file.

    Attributes:
        operators: of all its graphs, in the order of execution.
        inputs: number format by name in the signature `serving_default`, empty without one.
        outputs: likewise.
    """

    operators: tuple[Operator, ...]
    inputs: dict[str, str]
    outputs: dict[str, str]


def read_facts(content: bytes) -> FileFacts:
    """Reads the facts of a sound file; the runtime, which verifies the bytes, goes first."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
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
    return FileFacts(operators, inputs, outputs)


def check_facts(facts: FileFacts, recipe: Recipe, input_name: str, output_name: str) -> None:
    """Holds a new file against what was asked for.

    Raises:
        ExportError: it has a custom operator, another signature, another input or output format
            than the recipe's, or an operator with weights or results in another format.
    """
    for operator in facts.operators:
        if operator.custom:
            raise ExportError(
                f"operator {operator.name!r} ({operator.tensor}) is not built into TFLite; "
                f"replace it in the Keras model"
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
                f"{recipe.io}; {_CURE[recipe.name]}"
            )
    # Changes of format stand around the operator that is the cause: that one is named.
    for operator in sorted(facts.operators, key=lambda found: found.name in _CHANGES_OF_FORMAT):
        _check_operator(operator, recipe)


def _check_operator(operator: Operator, recipe: Recipe) -> None:
    foreign = _COMPUTED.intersection(operator.formats) - {recipe.activations}
    if foreign:
        raise ExportError(
            f"operator {operator.name} ({operator.tensor}) computes in {min(foreign)} where "
            f"recipe {recipe.name!r} allows only {recipe.activations}; {_CURE[recipe.name]}"
        )
    if operator.weights not in (None, recipe.weights):
        raise ExportError(
            f"operator {operator.name} ({operator.tensor}) has weights in {operator.weights} where "
            f"recipe {recipe.name!r} allows only {recipe.weights}; {_CURE[recipe.name]}"
        )


_CURE = {
    "float32": "rebuild the model under the float32 policy and copy the weights",
    "int8": (
        "quantize every layer, with tfmot.quantization.keras.quantize_model, or, after training, "
        "replace those that have no int8 operator"
    ),
}


def _operator(
    model: schema.ModelT, graph: schema.SubGraphT, operator: schema.OperatorT
) -> Operator:
    name = _operator_name(model, operator)
    outputs = [] if operator.outputs is None else [int(index) for index in operator.outputs]
    kernel = _kernel(model, graph, operator) if name in _KERNEL_INPUT else None
    scales = None if kernel is None or not kernel.quantization else kernel.quantization.scale
    return Operator(
        name=name,
        custom=_code(model, operator) == schema.BuiltinOperator.CUSTOM,
        tensor=_text(graph.tensors[outputs[0]].name) if outputs else "",
        formats=tuple(_format(graph.tensors, index) for index in outputs),
        weights=None if kernel is None else _TYPES[kernel.type],
        weight_scales=0 if scales is None else len(scales),
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
) -> schema.TensorT | None:
    """The tensor that the file stores as kernel; None where the kernel is computed."""
    index = int(operator.inputs[_KERNEL_INPUT[_operator_name(model, operator)]])
    for other in graph.operators:  # a kernel may be stored in another format and made float first
        if _operator_name(model, other) == "DEQUANTIZE" and index in other.outputs:
            index = int(other.inputs[0])
            break
    tensor = graph.tensors[index]
    return None if model.buffers[tensor.buffer].data is None else tensor


def _format(tensors: list[schema.TensorT], index: int) -> str:
    return _TYPES[tensors[index].type]


def _text(value: bytes | None) -> str:
    return (value or b"").decode()
