"""Proves a .tflite file against the Keras model that it was made from."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from tflite_export.comparison import Verification, compare
from tflite_export.diagnosis import likely_cause
from tflite_export.errors import ExportError
from tflite_export.interpreters import Interpreters
from tflite_export.loud_filter import loud_filter

Reference = np.ndarray | Callable[[np.ndarray], np.ndarray]

_USUAL_AGREEMENT = 0.9  # below it a cause is looked for, where no floor was given


def verify(
    path: str | os.PathLike[str],
    reference: Reference,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    floor: float | None = None,
    threads: int = 1,
    progress: bool = True,
) -> Verification:
    """Runs the file on all images and compares it with the Keras model and with the labels.

    The file runs in processes of its own (see `Interpreters`), so that one which crashes the
    runtime is told like any other failure.

    Args:
        path: of the .tflite file.
        reference: the Keras model's outputs on the same images, (n, classes); or a function that
            makes them from `images`, such as `model.predict`.
        images: (n, ...), as the Keras model takes them.
        labels: (n,), class numbers.
        floor: least agreement, a fraction.
        threads: that one inference may use.
        progress: show a bar where there are many images and a terminal.

    Raises:
        ExportError: the agreement is below `floor` (the message names the likely cause, where one
            was found), the arrays do not fit together, or the file cannot be run.
    """
    result = examine(
        path, reference, images, labels, floor=floor, threads=threads, progress=progress
    )
    if floor is not None and result.agreement < floor:
        raise ExportError(complaint(path, result, floor))
    return result


def examine(
    path: str | os.PathLike[str],
    reference: Reference,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    floor: float | None = None,
    threads: int = 1,
    progress: bool = True,
) -> Verification:
    """Returns what `verify` does, also where the agreement is below the floor.

    A likely cause is looked for where the agreement is below the floor (0.9 without one), or where
    the reference itself gets fewer than half of the labels.
    """
    if floor is not None and not 0 <= floor <= 1:
        raise ExportError(f"floor is {floor!r}; give a fraction from 0 to 1")
    images, labels = np.asarray(images), np.asarray(labels)
    with Interpreters(path, threads) as model:
        _check_labels(path, model.output.shape, images, labels)
        outputs = model.predict(images, progress=progress)
        expected = np.asarray(reference(images) if callable(reference) else reference, np.float32)
        _check_outputs(path, outputs, expected)
        result = compare(expected, outputs, labels, model.output.scale)
        wanted = _USUAL_AGREEMENT if floor is None else floor
        if result.agreement >= wanted and result.accuracy_reference >= 0.5:
            return result
        cause = likely_cause(
            lambda changed: model.predict(changed, progress=False),
            reference if callable(reference) else None,
            images,
            expected,
            labels,
            (model.input, model.output),
        )
    if cause is None and result.agreement < wanted:
        cause = loud_filter(Path(path).read_bytes())
    return replace(result, likely_cause=cause)


def complaint(path: str | os.PathLike[str], result: Verification, floor: float) -> str:
    """Says in one line that a file's agreement is below the floor, and the cure."""
    if result.largest_error_steps is None:
        size = f"{result.largest_error:.3g}"
    else:
        size = f"{result.largest_error_steps:.1f} quantization steps"
    cure = result.likely_cause or (
        "check that the images are normalised as in training, see which layers lose "
        "(kd-verify --layers), train quantization-aware for longer, or lower the floor"
    )
    return (
        f"agreement {result.agreement:.4f} of {os.fspath(path)} with its reference is below the "
        f"floor {floor} (largest error {size}, accuracy {result.accuracy:.4f} against "
        f"{result.accuracy_reference:.4f}); {cure}"
    )


def _check_labels(
    path: str | os.PathLike[str], shape: tuple[int, ...], images: np.ndarray, labels: np.ndarray
) -> None:
    if len(shape) != 2:
        raise ExportError(
            f"{os.fspath(path)} gives {shape} for an image; give a classifier, whose output has "
            f"one number for each class"
        )
    count, classes = len(images), shape[1]
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise ExportError(
            f"labels have shape {labels.shape} and type {labels.dtype}; give ({count},) integers"
        )
    if count and (labels.min() < 0 or labels.max() >= classes):
        raise ExportError(
            f"labels go from {labels.min()} to {labels.max()}; {os.fspath(path)} has classes "
            f"0 to {classes - 1}"
        )


def _check_outputs(path: str | os.PathLike[str], outputs: np.ndarray, expected: np.ndarray) -> None:
    if expected.shape != outputs.shape:
        raise ExportError(
            f"reference has shape {expected.shape} where {os.fspath(path)} gave {outputs.shape}; "
            f"give the Keras model's outputs on the same images, (n, classes)"
        )
    for name, values in (("reference", expected), (os.fspath(path), outputs)):
        if not np.all(np.isfinite(values)):
            raise ExportError(f"{name} gives NaN or infinity; check the model's weights")
