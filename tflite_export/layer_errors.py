"""Finds the layers in which a quantized file loses most against its float file."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

import numpy as np

from tflite_export import child
from tflite_export.errors import ExportError
from tflite_export.messages import receive, send

_ENOUGH = 100  # images
_LITTLE = 0.01  # of the deviation of an output, which no decision depends on


@dataclass(frozen=True)
class LayerError:
    """What quantization does to the output of one operator.

    Attributes:
        layer: the user's name of the layer; of fused ones, such as a convolution, BatchNorm and
            ReLU, the first.
        operator: that computes it.
        format: number format of the output in the file.
        error: root mean square over the channels of how far each is off, beside its own standard
            deviation in float, 1 at most: 0 where both are the same, 1 where nothing is left.
        added: the part of `error` that the operator's inputs do not have, as if errors of layers
            were independent: `sqrt(error^2 - largest error of an input^2)`, at least 0.
        rounding: the error that the steps and the range of this output make alone.
        mean_steps: mean difference in quantization steps; None in float.
        largest_steps: largest difference likewise.
        saturated: share of the numbers that the range of the output cuts off.
        readers: the layers that compute with this output.
    """

    layer: str
    operator: str
    format: str
    error: float
    added: float
    rounding: float
    mean_steps: float | None
    largest_steps: float | None
    saturated: float
    readers: tuple[str, ...]


def layer_errors(
    float_file: str | os.PathLike[str],
    file: str | os.PathLike[str],
    images: np.ndarray,
    layers: Sequence[str] | None = None,
) -> tuple[LayerError, ...]:
    """Compares what the operators of two files give for the same images.

    Args:
        float_file: of the model in float32.
        file: of the same model, quantized.
        images: (n, ...), as the model takes them; at most 100 of them are run.
        layers: the names that the operators of `float_file` are marked with (`marked_content`);
            without them the names of its tensors tell.

    Returns:
        One result for each operator that computes something, in the order of execution.

    Raises:
        ExportError: the files are not of the same model, or cannot be run.
    """
    chosen = np.linspace(0, len(images) - 1, min(_ENOUGH, len(images))).astype(int)
    process = subprocess.Popen(
        child.HERE.command("tflite_export.layer_comparison", float_file, file),
        env=child.HERE.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with process:
        requests, answers = cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout)
        message = {"layers": None if layers is None else list(layers)}
        try:
            send(requests, message, np.asarray(images)[np.unique(chosen)].astype(np.float32))
            requests.close()
        except BrokenPipeError:
            pass  # it ended, which is told below
        found = receive(answers)
    if found is None:
        raise ExportError(
            f"{os.fspath(file)} crashed the runtime ({child.ending(process.returncode)}) "
            f"while its layers were compared; export it again"
        )
    return tuple(
        LayerError(**{**told, "readers": tuple(told["readers"])}) for told in found[0]["found"]
    )


def worst(found: Sequence[LayerError], count: int = 3) -> list[LayerError]:
    """Returns the operators that add most of the error, the worst first."""
    adding = [one for one in found if one.added > _LITTLE]
    return sorted(adding, key=lambda one: -one.added)[:count]


def cure(found: Sequence[LayerError]) -> str:
    """Says in one line what helps where too much is lost; empty where nothing is.

    Where the steps of an output are what loses, its readers have to stay in float with it: they
    would make the same steps of it again.
    """
    losing = worst(found)
    names: dict[str, None] = {}
    for one in losing:
        names.update(dict.fromkeys([one.layer, *(one.readers if _rounds(one) else ())]))
    if not names:
        return ""
    formats = {one.format for one in found}
    recipe = "int8" if "int8" in formats else "int16x8" if "int16" in formats else "RECIPE"
    return (
        f"most of the error comes from {', '.join(dict.fromkeys(one.layer for one in losing))}: "
        f"keep in float what loses (--recipe={recipe}@float:{','.join(names)}), or train "
        f"quantization-aware"
    )


def _rounds(one: LayerError) -> bool:
    return one.rounding > 0.5 * one.added
