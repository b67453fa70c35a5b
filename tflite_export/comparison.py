"""Compares what a .tflite file gives with what its reference gives, and both with the labels."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClassResult:
    """How well the examples of one class are told.

    Attributes:
        number: of the class.
        examples: how many there are.
        accuracy_reference: fraction of them that the reference gets right; None without examples.
        accuracy: fraction that the file gets right; None without examples.
    """

    number: int
    examples: int
    accuracy_reference: float | None
    accuracy: float | None

    @property
    def lost(self) -> float:
        """Accuracy that the file loses against the reference; negative where it gains."""
        if self.accuracy is None or self.accuracy_reference is None:
            return 0.0
        return self.accuracy_reference - self.accuracy


@dataclass(frozen=True)
class OutputError:
    """How far one output of the file is from the reference's.

    In quantization steps of the output, or in its own unit where the file gives floats.

    Attributes:
        number: of the output.
        mean: of the absolute difference over all examples.
        p99: which 99 % of the examples do not exceed.
        largest: of all examples.
    """

    number: int
    mean: float
    p99: float
    largest: float


@dataclass(frozen=True)
class Verification:
    """How well a file does what its reference, the Keras model say, does.

    Attributes:
        accuracy_reference: fraction of examples that the reference gets right.
        accuracy: fraction that the file gets right.
        agreement: fraction of examples where both have the same largest output.
        largest_error: largest difference of one output, in the unit of the outputs.
        largest_error_steps: the same in quantization steps of the output; None for a float file.
        mean_error: mean difference of the outputs, in their unit.
        mean_error_steps: the same in quantization steps; None for a float file.
        examples: how many images were compared.
        confusion: how often an example of class `i` was taken by the file for class `j`, as
            `confusion[i][j]`.
        p99_error: difference that 99 % of the outputs do not exceed, in their unit.
        p99_error_steps: the same in quantization steps; None for a float file.
        outputs: the error of each output.
        classes: the result of each class.
        likely_cause: why file and reference disagree, where that was found out.
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
    p99_error: float
    p99_error_steps: float | None
    outputs: tuple[OutputError, ...]
    classes: tuple[ClassResult, ...]
    likely_cause: str | None = None

    @property
    def losing_classes(self) -> tuple[ClassResult, ...]:
        """The classes where the file gets fewer right than the reference, the worst first."""
        losing = [result for result in self.classes if result.lost > 0]
        return tuple(sorted(losing, key=lambda result: -result.lost))


def compare(
    expected: np.ndarray, outputs: np.ndarray, labels: np.ndarray, scale: float | None
) -> Verification:
    """Returns how outputs differ from what is expected.

    Args:
        expected: of the reference, (n, classes).
        outputs: of the file, (n, classes).
        labels: (n,), class numbers.
        scale: a quantization step of the outputs, None for floats.
    """
    error = np.abs(expected - outputs)
    largest, mean, p99 = _sizes(error)
    choice, reference_choice = outputs.argmax(axis=1), expected.argmax(axis=1)
    right, reference_right = choice == labels, reference_choice == labels
    classes = range(outputs.shape[1])
    return Verification(
        accuracy_reference=float(np.mean(reference_right)),
        accuracy=float(np.mean(right)),
        agreement=float(np.mean(choice == reference_choice)),
        largest_error=largest,
        largest_error_steps=None if scale is None else largest / scale,
        mean_error=mean,
        mean_error_steps=None if scale is None else mean / scale,
        examples=len(labels),
        confusion=_confusion(labels, choice, len(classes)),
        p99_error=p99,
        p99_error_steps=None if scale is None else p99 / scale,
        outputs=tuple(_output_error(number, error[:, number] / (scale or 1)) for number in classes),
        classes=tuple(
            _class_result(number, reference_right[labels == number], right[labels == number])
            for number in classes
        ),
    )


def _sizes(error: np.ndarray) -> tuple[float, float, float]:
    mean = float(error.mean(dtype=np.float64))
    return float(error.max()), mean, float(np.percentile(error, 99))


def _output_error(number: int, error: np.ndarray) -> OutputError:
    largest, mean, p99 = _sizes(error)
    return OutputError(number, mean, p99, largest)


def _class_result(number: int, reference_right: np.ndarray, right: np.ndarray) -> ClassResult:
    if not len(right):
        return ClassResult(number, 0, None, None)
    return ClassResult(number, len(right), float(reference_right.mean()), float(right.mean()))


def _confusion(labels: np.ndarray, choice: np.ndarray, classes: int) -> tuple[tuple[int, ...], ...]:
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, choice), 1)
    return tuple(map(tuple, counts.tolist()))
