"""Converts a Keras model to a .tflite file that is what its recipe says."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tflite_export import float_layers, keras_model, quantization, recipes
from tflite_export.converter import check_batch_size, check_input_name, to_tflite
from tflite_export.ends import Ends
from tflite_export.errors import ExportError, one_line
from tflite_export.file_facts import read_facts
from tflite_export.input_range import check_learned
from tflite_export.preprocessing import Preprocessing
from tflite_export.quiet import silenced_stderr
from tflite_export.recipes import Recipe
from tflite_export.writing import Content, refuse_existing, replacing, write_checked


def convert(
    model: Any,
    path: str | os.PathLike[str],
    recipe: str = "int8",
    *,
    representative: np.ndarray | None = None,
    input_name: str | None = None,
    output_name: str | None = None,
    with_preprocessing: Preprocessing | None = None,
    output_form: str | None = None,
    batch_size: int = 1,
    overwrite: bool = False,
) -> Path:
    """Writes `model` as a .tflite file with a fixed batch and the signature `serving_default`.

    The file is checked before it gets its name: it loads in the runtime, has built-in operators
    only, input and output in the recipe's format under the user's own names, and computes in no
    other format. The same model gives the same bytes. The model itself is not changed.

    Args:
        model: Functional or Sequential, `tf_keras` or Keras 3, one float32 input of a fixed shape
            and one output.
        path: of the new file; its folder is made when it is not there.
        recipe: a name in `tflite_export.recipes.RECIPES`, with `@float:LAYER,LAYER` to keep layers
            in float. A model made quantization-aware by tfmot takes those that begin with `int8`.
        representative: for recipes with int8 or int16 activations, unless the model is
            quantization-aware: images that show which values occur, float32 `(n,) + input shape`,
            normalised as in training; a few hundred of the training set. All are run.
        input_name: in the signature; the input layer's own name when not given.
        output_name: likewise the output layer's; for tfmot's `quant_logits` that is `logits`.
        with_preprocessing: the file takes pixels, uint8 from 0 to 255, and does this to them
            itself, to the bit as it would be done outside.
        output_form: `logits`, `softmax` or `argmax` (the number of the class, int32), whichever
            the model ends in; the model's own when not given.
        batch_size: how many images one inference takes; a phone has one.
        overwrite: replace a file that is there.

    Returns:
        The path of the file.

    Raises:
        ExportError: the recipe is unknown or does not fit the model, nor do preprocessing or form,
            the representative images do not fit or are missing or needless, the model cannot be
            expressed in built-in operators (the message names operator and layer), or the file
            exists or cannot be written. Nothing is left behind then.
    """
    chosen = recipes.get(recipe)
    target, ends = Path(path), Ends(with_preprocessing, output_form)
    refuse_existing([target], overwrite)
    made = keras_content(
        *(model, chosen, representative, batch_size),
        input_name=input_name,
        output_name=output_name,
    )
    with replacing(target) as temporary:
        write_checked(made, temporary, ends)
    return target


def keras_content(
    model: Any,
    recipe: Recipe,
    representative: Any = None,
    batch_size: int = 1,
    *,
    input_name: str | None = None,
    output_name: str | None = None,
) -> Content:
    """Makes the bytes of a file from a Keras model; see `convert`, which writes them."""
    check_batch_size(batch_size)
    _check_model(model, recipe)
    images = _representative(model, recipe, representative)
    input_name = input_name or keras_model.input_name(model.inputs[0])
    output_name = output_name or keras_model.output_name(model)
    check_input_name(input_name)
    with silenced_stderr():
        with float_layers.marked(model, recipe.float_layers):
            serve = _serving_function(model, input_name, output_name, batch_size)
        layers = {keras_model.user_name(layer) for layer in keras_model.layers_of(model)}
        learned = keras_model.is_quantization_aware(model)
        content = to_tflite(serve, model.name, layers, recipe.io if learned else None)
        floats = float_layers.marked_operators(
            read_facts(content), recipe.float_layers, keras_model.output_name(model)
        )
        if recipe.quantizes and not learned:
            content = quantization.quantize(content, recipe, input_name, images, floats)
    return Content(content, recipe, input_name, output_name, floats)


def marked_content(model: Any, batch_size: int = 1) -> tuple[bytes, list[str]]:
    """Makes the bytes of a float32 file whose operators tell the layers that they compute.

    Args:
        model: see `convert`.
        batch_size: likewise.

    Returns:
        The bytes, and the layers' names as `float_layers.marked_layer` takes them.

    Raises:
        ExportError: the model is quantization-aware, or see `convert`.
    """
    _check_model(model, recipes.get("float32"))
    if keras_model.is_quantization_aware(model):
        raise ExportError(
            f"model {model.name!r} is quantization-aware; layers are compared with those of a "
            f"float model: give the model from before quantize_model"
        )
    names = list(dict.fromkeys(layer.name for layer in keras_model.layers_of(model)))
    input_name = keras_model.input_name(model.inputs[0])
    with silenced_stderr(), float_layers.marked(model, names):
        serve = _serving_function(model, input_name, keras_model.output_name(model), batch_size)
        return to_tflite(serve, model.name), names


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


def _representative(model: Any, recipe: Recipe, given: Any) -> np.ndarray | None:
    """The images to quantize with; None where the model or the recipe needs none."""
    images = quantization.representative_for(
        recipe,
        given,
        tuple(model.inputs[0].shape)[1:],
        f"model {model.name!r}",
        learned=keras_model.is_quantization_aware(model),
    )
    if images is not None:
        check_learned(images, model)
    return images


def _serving_function(model: Any, input_name: str, output_name: str, batch_size: int) -> Any:
    """Traces inference; the names given here become those of the signature."""
    shape = [batch_size, *tuple(model.inputs[0].shape)[1:]]

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
            f"{one_line(error)}"
        ) from error
