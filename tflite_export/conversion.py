"""Converts a Keras model to a .tflite file that is what its recipe says."""

import keyword
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tflite_export import keras_model, quantization, recipes
from tflite_export.errors import ExportError
from tflite_export.file_facts import check_facts, read_facts
from tflite_export.quiet import silenced_stderr
from tflite_export.recipes import Recipe
from tflite_export.tflite_model import load_interpreter


def convert(
    model: Any,
    path: str | os.PathLike[str],
    recipe: str = "int8",
    *,
    representative: np.ndarray | None = None,
    input_name: str | None = None,
    output_name: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes `model` as a .tflite file with batch 1 and the signature `serving_default`.

    The file is checked before it gets its name: it loads in the runtime, has built-in operators
    only, input and output in the recipe's format under the user's own names, and computes in no
    other format. The same model gives the same bytes. The model itself is not changed.

    Args:
        model: Functional or Sequential, `tf_keras` or Keras 3, one float32 input of a fixed shape
            and one output.
        path: of the new file; its folder is made when it is not there.
        recipe: a name in `tflite_export.recipes.RECIPES`.
        representative: for the recipe `int8` of a model that tfmot has not made
            quantization-aware: images that show which values occur, float32 `(n,) + input shape`,
            normalised as in training; a few hundred of the training set. All are run.
        input_name: in the signature; the input layer's own name when not given.
        output_name: likewise the output layer's; for tfmot's `quant_logits` that is `logits`.
        overwrite: replace a file that is there.

    Returns:
        The path of the file.

    Raises:
        ExportError: the recipe is unknown or does not fit the model, the representative images do
            not fit or are missing or needless, the model cannot be expressed in built-in operators
            (the message names operator and layer), or the file exists or cannot be written.
            Nothing is left behind then.
    """
    chosen = recipes.get(recipe)
    target = Path(path)
    if target.exists() and not overwrite:
        raise ExportError(f"{target} exists; give another path or overwrite=True")
    _check_model(model, chosen)
    images = _representative(model, chosen, representative)
    input_name = input_name or keras_model.input_name(model.inputs[0])
    output_name = output_name or keras_model.output_name(model)
    _check_input_name(input_name)
    with silenced_stderr():
        content = _convert(model, input_name, output_name)
        if images is not None:
            content = quantization.quantize(content, chosen, input_name, images)
    with _replacing(target) as temporary:
        temporary.write_bytes(content)
        load_interpreter(temporary)
        check_facts(read_facts(content), chosen, input_name, output_name)
    return target


def _check_model(model: Any, recipe: Recipe) -> None:
    inputs, outputs = keras_model.input_tensors(model), model.outputs
    if len(inputs) != 1 or len(outputs) != 1:
        raise ExportError(
            f"model {model.name!r} has {len(inputs)} inputs and {len(outputs)} outputs; "
            f"export a tf.keras.Model with one of each"
        )
    if tf.as_dtype(inputs[0].dtype) != tf.float32:
        raise ExportError(
            f"input {keras_model.input_name(inputs[0])!r} is {tf.as_dtype(inputs[0].dtype).name}; "
            f"rebuild the model with a float32 tf.keras.Input"
        )
    keras_model.refuse_training_wrappers(model)
    keras_model.refuse_half_precision(model)
    if recipe.activations == "float32" and keras_model.is_quantization_aware(model):
        raise ExportError(
            f"model {model.name!r} is quantization-aware, which recipe {recipe.name!r} would run "
            f"in emulation; take recipe 'int8', or export the model from before quantize_model"
        )


def _representative(model: Any, recipe: Recipe, given: Any) -> np.ndarray | None:
    """The images to quantize with; None where the model or the recipe needs none."""
    if recipe.activations == "float32" or keras_model.is_quantization_aware(model):
        if given is not None:
            reason = (
                f"recipe {recipe.name!r} quantizes nothing"
                if recipe.activations == "float32"
                else f"model {model.name!r} is quantization-aware and has learned its ranges"
            )
            raise ExportError(f"representative images were given, but {reason}; leave them out")
        return None
    shape = tuple(model.inputs[0].shape)[1:]
    if given is None:
        raise ExportError(
            f"model {model.name!r} is not quantization-aware: recipe {recipe.name!r} needs "
            f"representative=images, float32 ({', '.join(map(str, ('n', *shape)))}), or a model "
            f"trained after tfmot.quantization.keras.quantize_model(model)"
        )
    return quantization.check_representative(given, shape)


def _check_input_name(name: str) -> None:
    # What tf.function accepts as a parameter and TensorFlow as an operation; outputs are free.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_./-]*", name) or keyword.iskeyword(name):
        raise ExportError(
            f"input name {name!r} cannot stand in a signature; give another input_name: letters, "
            f"digits and _, no Python keyword"
        )


def _convert(model: Any, input_name: str, output_name: str) -> bytes:
    serve = _serving_function(model, input_name, output_name)
    module = tf.Module()
    # Only what the function reads goes along: neither optimizer nor Keras' own description, so
    # that both Keras, and models made under a distribution strategy, take the same way.
    module.variables_read = list(serve.variables)
    with tempfile.TemporaryDirectory() as folder:
        try:
            tf.saved_model.save(module, folder, signatures={"serving_default": serve})
        except (OSError, tf.errors.OpError) as error:
            raise ExportError(
                f"the intermediate SavedModel cannot be written to {folder}: {_one_line(error)}; "
                f"set TMPDIR to a folder with room"
            ) from error
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=["serving_default"]
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if keras_model.is_quantization_aware(model):
            _take_learned_ranges(converter)
        try:
            return converter.convert()
        except Exception as error:  # the converter raises plain Exception subclasses
            raise ExportError(_explain(error, model)) from error


def _take_learned_ranges(converter: Any) -> None:
    """Takes the ranges that quantization-aware training learned; no representative data needed."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8


def _serving_function(model: Any, input_name: str, output_name: str) -> Any:
    """Traces inference with batch 1; the names given here become those of the signature."""
    shape = [1, *tuple(model.inputs[0].shape)[1:]]

    @tf.function(
        input_signature=[tf.TensorSpec(shape, tf.float32, name=input_name)], autograph=False
    )
    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = model(images, training=False)
        while isinstance(outputs, (dict, list, tuple)):  # a single output in a structure
            (outputs,) = outputs.values() if isinstance(outputs, dict) else outputs
        return {output_name: outputs}

    try:
        return serve.get_concrete_function()
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise ExportError(
            f"model {model.name!r} does not run with inputs of shape {tuple(shape)}: "
            f"{_one_line(error)}"
        ) from error


def _explain(error: Exception, model: Any) -> str:
    """Finds operators and layers in the converter's report and says them in one line."""
    report = str(error)
    listed = re.findall(r"^(?:TF Select|Flex|Custom) ops: (.+)$", report, re.MULTILINE)
    names = sorted({name.strip() for line in listed for name in line.split(",")})
    if not names:
        return f"model {model.name!r} cannot be converted: {_one_line(error)}"
    layers = {keras_model.user_name(layer) for layer in keras_model.layers_of(model)}
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


def _layers_in(path: str, layers: set[str]) -> Iterator[str]:
    for part in path.split("/"):
        # Keras 3 numbers a scope that it enters again: my_layer_1.
        for candidate in (part, re.sub(r"^quant_", "", part), re.sub(r"_\d+$", "", part)):
            if candidate in layers:
                yield candidate
                break


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:300]}"


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Gives a temporary name beside `target` and moves it there when the block succeeds."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        raise ExportError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        if temporary.exists():
            temporary.unlink()
