"""Quantizes a float .tflite file after training, with litert-quantizer."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from litert_quantizer import calibrator, quantizer, recipe_manager
from litert_quantizer.utils import qsv_utils

from tflite_export.bias_room import make_room, stored_numbers
from tflite_export.errors import ExportError, one_line
from tflite_export.file_facts import Operator
from tflite_export.input_range import check_preprocessed
from tflite_export.model_schema import unpacked
from tflite_export.quantization_rules import rules_of
from tflite_export.recipes import Recipe
from tflite_export.representative import Representative
from tflite_export.tflite_model import filled

_SIGNATURE = "serving_default"
_STEPS = {"int8": 255, "int16": 65534}  # int16 is symmetric


def quantize(
    content: bytes,
    recipe: Recipe,
    input_name: str,
    representative: np.ndarray | None = None,
    floats: Sequence[Operator] = (),
) -> bytes:
    """Returns a float file quantized after training.

    Weights are symmetric, with a scale for each output channel. An activation's range is from the
    least to the largest value that the representative images reach there: litert-quantizer's own
    default, a moving average over images, depends on their order and cuts off what is rare.

    Args:
        content: a float32 file with the signature `serving_default`.
        recipe: what to make of it; one that quantizes.
        input_name: of the only input, in the signature.
        representative: images as `check_representative` returns them, for a recipe that needs
            ranges.
        floats: operators that stay in float.

    Raises:
        ExportError: numbers are not finite, or too large for the recipe's formats, or the library
            cannot do it.
    """
    _refuse_broken_weights(content)
    rules = rules_of(recipe, floats)
    try:
        # The runtime advises against keeping all tensors, which is the point here.
        with warnings.catch_warnings(), np.errstate(over="raise", invalid="raise"):
            warnings.filterwarnings("ignore", ".*experimental_preserve_all_tensors", UserWarning)
            ranges = None
            if representative is not None:
                ranges = _ranges(content, rules, input_name, representative)
                make_room(content, ranges, _STEPS[recipe.activations])
            worker = quantizer.Quantizer(content, rules.get_quantization_recipe())
            result = worker.quantize(
                ranges, enable_progress_bar=False, enable_progress_report=False
            )
    except ExportError:
        raise
    except FloatingPointError as error:
        raise ExportError(
            f"a weight or bias does not fit the formats of recipe {recipe.name!r} ({error}); "
            f"check the model's weights, or take recipe 'float32'"
        ) from error
    except Exception as error:  # the library raises anything, on graphs it has not met
        raise ExportError(
            f"litert-quantizer cannot apply recipe {recipe.name!r}: {one_line(error)}; take "
            f"another recipe, or keep the layer in float: @float:LAYER"
        ) from error
    return bytes(result.quantized_model)


def _refuse_broken_weights(content: bytes) -> None:
    model = unpacked(content)
    for tensor in (tensor for graph in model.subgraphs for tensor in graph.tensors):
        numbers = stored_numbers(model, tensor)
        if numbers is not None and not np.all(np.isfinite(numbers)):
            raise ExportError(
                f"tensor {tensor.name.decode()!r} holds NaN or infinity; train the model again"
            )


def _ranges(
    content: bytes, rules: recipe_manager.RecipeManager, input_name: str, images: np.ndarray
) -> dict[str, Any]:
    """Runs the float file on every image; the range of each tensor by its name."""
    # One thread: the sums of several may differ from run to run, and with them the file.
    watcher = calibrator.Calibrator(
        content, num_threads=1, qsv_update_func=qsv_utils.min_max_update
    )
    batch = _batch_size(content)
    whole = filled(images, batch)
    batches = [whole[place : place + batch] for place in range(0, len(whole), batch)]
    samples = {_SIGNATURE: [{input_name: some} for some in batches]}
    watcher.calibrate(samples, rules, cache_output=True)
    # The library passes over what is not finite; it would be seen in the outputs.
    for place, outputs in enumerate(watcher.get_cached_output()):
        if not all(np.all(np.isfinite(output)) for output in outputs.values()):
            first, last = place * batch, min((place + 1) * batch, len(images)) - 1
            which = f"image {first}" if first == last else f"images {first} to {last}"
            raise ExportError(
                f"the model gives NaN or infinity for representative {which}; check the "
                f"model's weights and the images' normalisation"
            )
    return watcher.get_model_qsvs()


def _batch_size(content: bytes) -> int:
    (graph, *_) = unpacked(content).subgraphs
    return int(graph.tensors[graph.inputs[0]].shape[0])


def representative_for(
    recipe: Recipe, given: Any, shape: tuple[int, ...], source: str, learned: bool
) -> np.ndarray | None:
    """Returns the images that a recipe needs for a source, None where it needs none.

    Args:
        recipe: what is to be made.
        given: what the user gave: an array, `Representative` data, or None for nothing.
        shape: of one image.
        source: what the user knows the source as, for the error.
        learned: the source is quantization-aware: its ranges were learned in training.

    Raises:
        ExportError: images are missing, needless, or do not fit the model or what is known of its
            preprocessing, or the recipe does not take a
            source that is quantization-aware.
    """
    if learned and (recipe.activations != "int8" or recipe.float_layers):
        raise ExportError(
            f"{source} is quantization-aware, which recipe {recipe.name!r} does not take; take one "
            f"of int8, int8_uint8_io and int8_float_io, or export the model from before "
            f"quantize_model"
        )
    if learned or not recipe.needs_ranges:
        if given is not None:
            reason = (
                f"{source} is quantization-aware and has learned its ranges"
                if learned
                else f"recipe {recipe.name!r} needs no ranges of activations"
            )
            raise ExportError(f"representative images were given, but {reason}; leave them out")
        return None
    if given is None:
        raise ExportError(
            f"{source} is not quantization-aware: recipe {recipe.name!r} needs "
            f"representative images, float32 ({', '.join(map(str, ('n', *shape)))}) "
            f"(representative=images, --representative=FILE.npy or FOLDER), or a model trained "
            f"after tfmot.quantization.keras.quantize_model(model)"
        )
    if not isinstance(given, Representative):
        return check_representative(given, shape)
    images = check_representative(given.images(shape), shape)
    if given.preprocessing is not None:
        check_preprocessed(images, given.preprocessing)
    return images


def check_representative(images: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Holds representative images against the model's input.

    Args:
        images: what the user gave.
        shape: of one image.

    Returns:
        The images, float32, (n,) + shape.

    Raises:
        ExportError: another type or shape, no image, or NaN or infinity among the numbers.
    """
    images = np.asarray(images)
    wanted = f"({', '.join(map(str, ('n', *shape)))})"
    if images.dtype != np.float32:
        raise ExportError(
            f"representative images are {images.dtype}; give float32, {wanted}, normalised as in "
            f"training"
        )
    if images.shape[1:] != shape or not len(images):
        raise ExportError(
            f"representative images have shape {images.shape}; give {wanted} with n >= 1, a few "
            f"hundred training images"
        )
    if not np.all(np.isfinite(images)):
        raise ExportError("representative images hold NaN or infinity; check their normalisation")
    return images
