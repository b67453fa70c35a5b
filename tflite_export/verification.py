"""Proves a .tflite file against the Keras model that it was made from."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tflite_export.errors import ExportError
from tflite_export.interpreters import Interpreters


@dataclass(frozen=True)
class Verification:
    """How well a file does what its Keras model does.

    Attributes:
        accuracy_reference: fraction of examples that the Keras model gets right.
        accuracy: fraction that the file gets right.
        agreement: fraction of examples where both have the same largest output.
        largest_error: largest difference of one output, in the unit of the outputs.
        largest_error_steps: the same in quantization steps of the output; None for a float file.
        mean_error: mean difference of the outputs, in their unit.
        mean_error_steps: the same in quantization steps; None for a float file.
        examples: how many images were compared.
        confusion: how often an example of class `i` was taken by the file for class `j`, as
            `confusion[i][j]`.
    """

    accuracy_reference: float
    accuracy: float
    agreement: float
    largest_error: float
    largest_error_steps: float | None
    mean_error: float
    mean_error_steps: float | None
    examples: int
    confusion: tuple[tuple[int, ...], ...]


def verify(
    path: str | os.PathLike[str],
    reference: np.ndarray | Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    labels: np.ndarray,
    *,
    floor: float | None = None,
    threads: int = 1,
    progress: bool = True,
) -> Verification:
    """Runs the file on all images and compares it with the Keras model and with the labels.

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
        ExportError: the agreement is below `floor`, the arrays do not fit together, or the file
            cannot be run.
    """
    if floor is not None and not 0 <= floor <= 1:
        raise ExportError(f"floor is {floor!r}; give a fraction from 0 to 1")
    with Interpreters(path, threads) as model:
        outputs = model.predict(images, progress=progress)
    expected = np.asarray(reference(images) if callable(reference) else reference, np.float32)
    labels = np.asarray(labels)
    _check_arrays(model, outputs, expected, labels)
    result = _compare(expected, outputs, labels, model.output.scale)
    if floor is not None and result.agreement < floor:
        raise ExportError(_complaint(model, result, floor))
    return result


def _check_arrays(
    model: Interpreters, outputs: np.ndarray, expected: np.ndarray, labels: np.ndarray
) -> None:
    if outputs.ndim != 2 or expected.shape != outputs.shape:
        raise ExportError(
            f"reference has shape {expected.shape} where {model.path} gave {outputs.shape}; "
            f"give the Keras model's outputs on the same images, (n, classes)"
        )
    if not np.all(np.isfinite(expected)):
        raise ExportError("reference holds NaN or infinity; check the Keras model's weights")
    count, classes = outputs.shape
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise ExportError(
            f"labels have shape {labels.shape} and type {labels.dtype}; give ({count},) integers"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ExportError(
            f"labels go from {labels.min()} to {labels.max()}; {model.path} has classes "
            f"0 to {classes - 1}"
        )


def _compare(
    expected: np.ndarray, outputs: np.ndarray, labels: np.ndarray, scale: float | None
) -> Verification:
    error = np.abs(expected - outputs)
    largest, mean = float(error.max()), float(error.mean(dtype=np.float64))
    choice, reference_choice = outputs.argmax(axis=1), expected.argmax(axis=1)
    return Verification(
        accuracy_reference=float(np.mean(reference_choice == labels)),
        accuracy=float(np.mean(choice == labels)),
        agreement=float(np.mean(choice == reference_choice)),
        largest_error=largest,
        largest_error_steps=None if scale is None else largest / scale,
        mean_error=mean,
        mean_error_steps=None if scale is None else mean / scale,
        examples=len(labels),
        confusion=_confusion(labels, choice, classes=outputs.shape[1]),
    )


def _confusion(labels: np.ndarray, choice: np.ndarray, classes: int) -> tuple[tuple[int, ...], ...]:
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, choice), 1)
    return tuple(map(tuple, counts.tolist()))


def _complaint(model: Interpreters, result: Verification, floor: float) -> str:
    if result.largest_error_steps is None:
        size = f"{result.largest_error:.3g}"
    else:
        size = f"{result.largest_error_steps:.1f} quantization steps"
    return (
        f"agreement {result.agreement:.4f} of {model.path} with its Keras model is below the "
        f"floor {floor} (largest error {size}, accuracy {result.accuracy:.4f} against "
        f"{result.accuracy_reference:.4f}); check that the images are normalised as in training, "
        f"train quantization-aware for longer, or lower the floor"
    )
