"""What a Keras model costs: multiply-adds, parameters, and how many of its weights are zero."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tflite_export import keras_model
from tflite_export.errors import ExportError

Shape = tuple[int, ...]

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")

# What tfmot's wrappers keep beside the user's weights. The name alone tells: when a model is loaded
# from a file, the wrapper's name stands before both.
_ADDED_BY_TFMOT = re.compile(
    r"_(min|max)$|^(optimizer_step|pruning_step|threshold|mask)|"
    r"sparsity_mask|cluster|pulling_indices|original_weight"
)


def multiply_adds(model: Any) -> int:
    """Counts the multiply-adds of convolutions and matrix products for one example.

    As the field counts: one multiply-add for each product of a weight and an activation (or of two
    activations, in attention); biases, BatchNorm, activations and poolings count 0. A layer that
    is used twice counts twice; a grouped convolution counts its groups, not the dense kernel.

    The operations of the traced inference graph are counted, not the layers: so nested models,
    the user's own layers and tfmot's wrappers need no special case, and nothing is passed over
    because its class is unknown.

    Args:
        model: a Functional or Sequential Keras model, `tf_keras` or Keras 3.

    Returns:
        Multiply-adds of a forward pass with batch 1.

    Raises:
        ExportError: the model has open input shapes, or products inside a loop or a branch, or
            of a shape that is known only when it runs.
    """
    tensors = keras_model.input_tensors(model)
    specs = [tf.TensorSpec([1, *tensor.shape[1:]], tensor.dtype) for tensor in tensors]

    def forward(*inputs: Any) -> Any:
        return model(list(inputs) if len(inputs) > 1 else inputs[0], training=False)

    graph = tf.function(forward, autograph=False).get_concrete_function(*specs).graph
    graph_def = graph.as_graph_def(add_shapes=True)
    functions = {function.signature.name: function for function in graph_def.library.function}
    return _count(graph_def.node, {}, functions)


def parameters(model: Any) -> int:
    """Counts the parameters of the user's model, BatchNorm's moving averages included.

    The same as Keras' `count_params()`, without the state of random generators and without what
    tfmot adds for training (ranges, masks, thresholds, steps): a student counts the same before,
    during and after pruning and quantization-aware training.
    """
    return sum(math.prod(weight.shape) for weight in _user_weights(model))


def sparsity(model: Any) -> float:
    """Returns the fraction of exact zeros in the kernels of all layers, 0.0 if there is no kernel.

    Kernels are the weights called `kernel` or `*_kernel`: those of convolutions and dense layers.
    Biases and BatchNorm, which pruning leaves alone, do not count.
    """
    kernels = [weight for weight in _user_weights(model) if _short_name(weight).endswith("kernel")]
    values = [np.asarray(tf.convert_to_tensor(kernel)) for kernel in kernels]
    total = sum(value.size for value in values)
    return sum(int(np.sum(value == 0)) for value in values) / total if total else 0.0


def _user_weights(model: Any) -> list[Any]:
    added = {
        id(weight)
        for layer in keras_model.layers_of(model)
        if keras_model.is_tfmot(layer)
        for weight in layer.weights
        if _ADDED_BY_TFMOT.search(_short_name(weight))
    }
    return [
        weight
        for weight in model.weights
        if id(weight) not in added and tf.as_dtype(weight.dtype).is_floating
    ]


def _short_name(weight: Any) -> str:
    return weight.name.split("/")[-1].split(":")[0]


def _count(nodes: Iterable[Any], arguments: Mapping[str, list[Shape]], functions: Mapping) -> int:
    """Counts the products in `nodes`, a graph's or a function's, and in all they call."""
    nodes = list(nodes)
    shapes = dict(arguments)
    for node in nodes:
        # Placeholders of a function keep the shape that its caller gave.
        shapes.setdefault(node.name, [_shape(s) for s in node.attr["_output_shapes"].list.shape])
    total = 0
    for node in nodes:
        inputs = [_input_shape(name, shapes) for name in node.input if not name.startswith("^")]
        if node.op in _PRODUCTS:
            total += _products(node, inputs, shapes[node.name][0])
        for called in _called_functions(node):
            body = functions[called]
            names = [argument.name for argument in body.signature.input_arg]
            given = {name: [shape] for name, shape in zip(names, inputs, strict=False)}
            inner = _count(body.node_def, given, functions)
            if inner and node.op not in _CALLS:
                raise ExportError(
                    f"multiply_adds cannot count {node.op} {node.name!r}: how often it runs is "
                    f"known only when it does; unroll the loop (RNN layers: unroll=True)"
                )
            total += inner
    return total


def _called_functions(node: Any) -> list[str]:
    direct = [value.func.name for value in node.attr.values() if value.HasField("func")]
    listed = [f.name for value in node.attr.values() for f in value.list.func]
    return direct + listed


def _input_shape(reference: str, shapes: Mapping[str, list[Shape]]) -> Shape:
    """Finds the shape of `node`, `node:1` (a graph's form) or `node:name:1` (a function's)."""
    name, *rest = reference.split(":")
    outputs = shapes.get(name, [])
    index = int(rest[-1]) if rest else 0
    return outputs[index] if index < len(outputs) else (-1,)


def _shape(proto: Any) -> Shape:
    sizes = [dimension.size for dimension in proto.dim]
    # Library functions are traced with an open batch; the graph around them has batch 1.
    return tuple(1 if size == -1 and axis == 0 else size for axis, size in enumerate(sizes))


def _products(node: Any, inputs: list[Shape], output: Shape) -> int:
    count = _PRODUCTS[node.op](node, inputs, output)
    if count < 0 or any(size < 0 for shape in (*inputs, output) for size in shape):
        raise ExportError(
            f"multiply_adds cannot count {node.op} {node.name!r}: its shape is open; "
            f"rebuild the model with fixed sizes in tf.keras.Input"
        )
    return count


def _convolution(node: Any, inputs: list[Shape], output: Shape) -> int:
    return math.prod(output) * math.prod(inputs[1][:-1])  # kernel: (..., inputs of a group, out)


def _depthwise(node: Any, inputs: list[Shape], output: Shape) -> int:
    return math.prod(output) * math.prod(inputs[1][:2])  # kernel: (height, width, in, multiplier)


def _transposed(node: Any, inputs: list[Shape], output: Shape) -> int:
    return math.prod(inputs[2]) * math.prod(inputs[1][:-1])  # kernel: (..., out, in)


def _matrix_product(node: Any, inputs: list[Shape], output: Shape) -> int:
    transposed = node.attr["transpose_a"].b or node.attr["adj_x"].b
    return math.prod(output) * inputs[0][-2 if transposed else -1]


def _einsum(node: Any, inputs: list[Shape], output: Shape) -> int:
    equation = node.attr["equation"].s.decode()
    if "..." in equation or len(inputs) != 2:
        raise ExportError(
            f"multiply_adds cannot count Einsum {node.name!r} with the equation {equation!r}; "
            f"name every axis of its two operands"
        )
    terms = equation.split("->")[0].split(",")
    sizes = {
        axis: size
        for term, shape in zip(terms, inputs, strict=True)
        for axis, size in zip(term.strip(), shape, strict=True)
    }
    return math.prod(sizes.values())


_PRODUCTS: dict[str, Callable[[Any, list[Shape], Shape], int]] = {
    "BatchMatMulV2": _matrix_product,
    "BatchMatMulV3": _matrix_product,
    "Conv2D": _convolution,
    "Conv2DBackpropInput": _transposed,
    "Conv3D": _convolution,
    "Conv3DBackpropInputV2": _transposed,
    "DepthwiseConv2dNative": _depthwise,
    "Einsum": _einsum,
    "MatMul": _matrix_product,
}
