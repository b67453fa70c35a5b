"""Makes a .tflite file from a SavedModel."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tflite_export import quantization
from tflite_export.converter import check_batch_size, check_input_name, to_tflite
from tflite_export.errors import ExportError, one_line
from tflite_export.file_facts import read_facts
from tflite_export.float_layers import scoped_operators
from tflite_export.quiet import silenced_stderr
from tflite_export.recipes import Recipe
from tflite_export.writing import Content

_SIGNATURE = "serving_default"


def saved_model_content(
    folder: Path, recipe: Recipe, representative: Any = None, batch_size: int = 1
) -> Content:
    """Makes the bytes of a file with a fixed batch from the signature `serving_default`.

    A model made quantization-aware by tfmot is known by the fake quantization in its graph.

    Args:
        folder: of the SavedModel.
        recipe: what to make.
        representative: images or `Representative` data, where the recipe needs them.
        batch_size: of the file.

    Raises:
        ExportError: the folder is no SavedModel, its signature is missing, has another batch, or
            other than one float32 input of a fixed shape and one output, or see
            `tflite_export.convert`.
    """
    check_batch_size(batch_size)
    with silenced_stderr():
        loaded, function = _load(folder)
        name, spec = _only_input(folder, function)
        (output_name,) = function.structured_outputs
        learned = _is_quantization_aware(function)
    if spec.shape[0] not in (None, batch_size):
        raise ExportError(
            f"model folder {str(folder)!r} takes batches of {spec.shape[0]} only; export with that "
            f"batch size, or save it with an open batch"
        )
    shape = tuple(spec.shape)[1:]
    images = quantization.representative_for(
        recipe, representative, shape, f"model {str(folder)!r}", learned
    )
    with silenced_stderr():
        serve = _with_batch(function, name, (batch_size, *shape))
        content = to_tflite(serve, str(folder), learned_io=recipe.io if learned else None)
        del loaded  # held until here, for the function does not hold its variables
        floats = scoped_operators(read_facts(content), recipe.float_layers, output_name)
        if recipe.quantizes and not learned:
            content = quantization.quantize(content, recipe, name, images, floats)
    return Content(content, recipe, name, output_name, floats)


class SavedModelFunction:
    """The signature `serving_default` of a SavedModel as a function of images.

    Attributes:
        shape: of one image.

    Args:
        folder: of the SavedModel.

    Raises:
        ExportError: see `saved_model_content`.
    """

    def __init__(self, folder: Path):
        self._loaded, self._function = _load(folder)  # the function does not hold its variables
        self._input, spec = _only_input(folder, self._function)
        self.shape = tuple(spec.shape)[1:]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns the only output for a batch."""
        found = self._function(**{self._input: tf.constant(images, tf.float32)})
        (output,) = found.values()
        return output.numpy()


def _load(folder: Path) -> tuple[Any, Any]:
    try:
        loaded = tf.saved_model.load(str(folder))
    except Exception as error:  # damaged files end in anything
        raise ExportError(
            f"model folder {str(folder)!r} cannot be loaded as a SavedModel: {one_line(error)}; "
            f"save it again"
        ) from error
    if _SIGNATURE not in loaded.signatures:
        raise ExportError(
            f"model folder {str(folder)!r} has no signature {_SIGNATURE!r} but "
            f"{', '.join(loaded.signatures) or 'none'}; save it with one"
        )
    return loaded, loaded.signatures[_SIGNATURE]


def _only_input(folder: Path, function: Any) -> tuple[str, tf.TensorSpec]:
    inputs = function.structured_input_signature[1]
    if len(inputs) != 1 or len(function.structured_outputs) != 1:
        raise ExportError(
            f"model folder {str(folder)!r} has {len(inputs)} inputs and "
            f"{len(function.structured_outputs)} outputs; export a model with one of each"
        )
    ((name, spec),) = inputs.items()
    check_input_name(name)
    if spec.dtype != tf.float32 or spec.shape.rank is None or None in tuple(spec.shape)[1:]:
        raise ExportError(
            f"input {name!r} of {str(folder)!r} is {spec.dtype.name} of shape {spec.shape}; save "
            f"the model with a float32 input whose sizes are fixed, but for the batch"
        )
    return name, spec


def _is_quantization_aware(function: Any) -> bool:
    graph = function.graph.as_graph_def()
    nodes = [graph.node, *(called.node_def for called in graph.library.function)]
    return any(node.op.startswith("FakeQuant") for group in nodes for node in group)


def _with_batch(function: Any, name: str, shape: tuple[int, ...]) -> Any:
    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name=name)], autograph=False)
    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return function(**{name: images})

    return serve.get_concrete_function()
