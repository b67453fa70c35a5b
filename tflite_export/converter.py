"""Runs TensorFlow's converter, and says what it objects to in one line."""

import keyword
import re
import tempfile
from collections.abc import Collection, Iterator
from typing import Any

import tensorflow as tf

from tflite_export.errors import ExportError, one_line


def to_tflite(
    serve: Any, name: str, layers: Collection[str] = (), learned_io: str | None = None
) -> bytes:
    """Converts a traced function into a .tflite file with the signature `serving_default`.

    Args:
        serve: a `tf.function`'s concrete function, one input, one output in a dictionary.
        name: of the model, for the error.
        layers: names of its layers, for the error.
        learned_io: for a quantization-aware model the format of input and output: the converter
            then takes the ranges that training learned. None for a file in float.

    Raises:
        ExportError: the function cannot be expressed in built-in operators, or there is no room
            for the intermediate SavedModel.
    """
    module = tf.Module()
    # Only what the function reads goes along: neither optimizer nor Keras' own description, so
    # that both Keras, and models made under a distribution strategy, take the same way.
    module.variables_read = list(serve.variables)
    with tempfile.TemporaryDirectory() as folder:
        try:
            tf.saved_model.save(module, folder, signatures={"serving_default": serve})
        except (OSError, tf.errors.OpError) as error:
            raise ExportError(
                f"the intermediate SavedModel cannot be written to {folder}: {one_line(error)}; "
                f"set TMPDIR to a folder with room"
            ) from error
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=["serving_default"]
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if learned_io is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.inference_input_type = tf.as_dtype(learned_io)
            converter.inference_output_type = tf.as_dtype(learned_io)
        try:
            return converter.convert()
        except Exception as error:  # the converter raises plain Exception subclasses
            raise ExportError(_explain(error, name, layers)) from error


def check_input_name(name: str) -> None:
    """Holds an input's name against what a signature can carry; outputs are free.

    Raises:
        ExportError: `tf.function` takes no such parameter, or TensorFlow no such operation.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_./-]*", name) or keyword.iskeyword(name):
        raise ExportError(
            f"input name {name!r} cannot stand in a signature; give another input_name: letters, "
            f"digits and _, no Python keyword"
        )


def check_batch_size(batch_size: int) -> None:
    """Refuses a batch size that is none.

    Raises:
        ExportError: it is no whole number from 1.
    """
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ExportError(f"batch_size is {batch_size!r}; give a whole number from 1")


def _explain(error: Exception, model: str, layers: Collection[str]) -> str:
    """Finds operators and layers in the converter's report and says them in one line."""
    report = str(error)
    listed = re.findall(r"^(?:TF Select|Flex|Custom) ops: (.+)$", report, re.MULTILINE)
    names = sorted({name.strip() for line in listed for name in line.split(",")})
    if not names:
        return f"model {model!r} cannot be converted: {one_line(error)}"
    found = []
    for name in names:
        # Locations read: fused["Erfinv:", "model/my_layer/erfinv/Erfinv@__inference_serve_677"]
        paths = re.findall(rf'"{re.escape(name)}:", "([^"@]+)@', report)
        places = sorted({layer for path in paths for layer in _layers_in(path, layers)})
        found.append(f"{name} (layer {', '.join(places)})" if places else name)
    return (
        f"TFLite has no built-in operator for {', '.join(found)}; "
        f"replace it in the Keras model by one that TFLite has"
    )


def _layers_in(path: str, layers: Collection[str]) -> Iterator[str]:
    for part in path.split("/"):
        # Keras 3 numbers a scope that it enters again: my_layer_1.
        for candidate in (part, re.sub(r"^quant_", "", part), re.sub(r"_\d+$", "", part)):
            if candidate in layers:
                yield candidate
                break
