"""Files that teach, made of a function without any Keras."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

WEIGHTS = np.random.default_rng(3).normal(size=(4, 3)).astype("float32")


def logits(x: Any) -> Any:
    """Three classes of four features."""
    return tf.matmul(x, WEIGHTS)


def probabilities(x: Any) -> Any:
    return tf.nn.softmax(logits(x))


def tflite_file(
    path: pathlib.Path,
    function: Callable = logits,
    *,
    shapes: Sequence[tuple] = ((None, 4),),
    int8: bool = False,
) -> pathlib.Path:
    """A .tflite file with the function's outputs by name, if it gives a dictionary."""
    module = tf.Module()
    specs = [tf.TensorSpec(shape, tf.float32, name=f"x{i}") for i, shape in enumerate(shapes)]
    module.serve = tf.function(function, input_signature=specs, autograph=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.serve.get_concrete_function()], module
    )
    if int8:
        examples = np.random.default_rng(1).normal(size=(200, 4)).astype("float32")
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([row[None]] for row in examples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    path.write_bytes(converter.convert())
    return path


def saved_model(path: pathlib.Path, function: Callable = logits, shape: tuple = (None, 4)) -> Any:
    """The folder of a SavedModel with a variable that is the function's second argument."""
    module = tf.Module()
    module.scale = tf.Variable(1.0)

    def serve(x: Any) -> Any:
        return tf.nest.map_structure(lambda value: module.scale * value, function(x))

    spec = tf.TensorSpec(shape, tf.float32, name="x")
    module.serve = tf.function(serve, input_signature=[spec], autograph=False)
    tf.saved_model.save(module, str(path), signatures=module.serve)
    return path
