"""Finds out why a .tflite file and its reference disagree: each suspicion is tried on images."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from tflite_export.tflite_model import TensorFacts

Predict = Callable[[np.ndarray], np.ndarray]

_SAMPLE = 200
_RESTORED = 0.75  # of the missing agreement, by a change that is the cause
_OFTEN = 0.05  # share of examples from which on a range is too narrow
_FEW_STEPS = 24  # of 255 that the images use, where the input's range is too wide

_CALIBRATION = (
    "its ranges were calibrated on too few or other images: export it again with some hundred "
    "representative training images, normalised as in training (quantization-aware: train longer)"
)


class _Change(NamedTuple):
    """A change of the images that undoes a mistake."""

    how: str
    mistake: str
    images: np.ndarray


def likely_cause(
    predict: Predict,
    reference: Predict | None,
    images: np.ndarray,
    expected: np.ndarray,
    labels: np.ndarray,
    facts: tuple[TensorFacts, TensorFacts],
) -> str | None:
    """Returns the likely cause of a disagreement in one line, None where none was found.

    The images are changed in ways that undo common mistakes (another normalisation, channels in
    another order). A change that brings back three quarters of what is missing tells the mistake.
    Else what the file can express, by its quantization parameters, is held against the images and
    the reference's outputs.

    Args:
        predict: runs the file.
        reference: runs the reference; None where only its outputs are known.
        images: as the reference takes them.
        expected: the reference's outputs.
        labels: class numbers.
        facts: of the file's input and output.
    """
    chosen = np.unique(np.linspace(0, len(images) - 1, min(_SAMPLE, len(images))).astype(int))
    images, expected, labels = np.asarray(images)[chosen], expected[chosen], labels[chosen]
    images = images.astype(np.float32)
    outputs = predict(images)
    tried = _best_change(predict, images, outputs, expected, expected.argmax(axis=1))
    saturated = _saturation(images, outputs, expected, *facts)
    # A file calibrated on pixels 0..255 may decide well on them, but its outputs are others then.
    if tried is not None and (tried.near or saturated is None):
        return (
            f"{tried.change.mistake}: agreement is {tried.after:.2f} instead of "
            f"{tried.before:.2f} when the images are {tried.change.how} for the file"
        )
    tried = reference and _best_change(reference, images, expected, expected, labels)
    if tried:
        return (
            f"the images are not as the reference takes them: it gets {tried.after:.2f} of the "
            f"labels instead of {tried.before:.2f} when they are {tried.change.how}"
        )
    return saturated


class _Tried(NamedTuple):
    """How often a change brings what is wanted, and whether the outputs are near, too."""

    change: _Change
    before: float
    after: float
    near: bool


def _best_change(
    predict: Predict,
    images: np.ndarray,
    outputs: np.ndarray,
    expected: np.ndarray,
    wanted: np.ndarray,
) -> _Tried | None:
    """The change with which `wanted` is met best, None where none is the cause."""

    def met(outputs: np.ndarray) -> tuple[float, float]:
        """How often, and how far the outputs are from what is expected."""
        distance = float(np.abs(outputs - expected).mean())
        return float(np.mean(outputs.argmax(axis=1) == wanted)), distance

    before, _ = met(outputs)
    tried = [(*met(predict(change.images)), change) for change in _changes(images)]
    after, distance, change = max(tried, key=lambda one: (round(one[0], 2), -one[1]))
    if after - before <= _RESTORED * (1 - before):
        return None
    return _Tried(change, before, after, near=distance < 0.5 * float(expected.std()))


def _changes(images: np.ndarray) -> Iterator[_Change]:
    """Every change that is tried; of several that are as good the first one counts."""
    axes = tuple(range(images.ndim - 1))
    low, high = images.min(axis=axes), images.max(axis=axes)
    unit = (images - low) / np.maximum(high - low, 1e-6)
    mean, deviation = images.mean(axis=axes), np.maximum(images.std(axis=axes), 1e-6)
    takes = "wrong normalisation: the file takes pixels"
    if images.ndim == 4 and images.shape[-1] > 1:
        mistake = "swapped channels: the file takes them in the other order (RGB and BGR)"
        yield _Change("given with their channels reversed", mistake, images[..., ::-1])
    for how, to, changed in (
        ("multiplied by 255", "0..255", images * 255),
        ("divided by 255", "0..1", images / 255),
        ("mapped from 0..1 to -1..1", "-1..1", images * 2 - 1),
        ("mapped from -1..1 to 0..1", "0..1", (images + 1) / 2),
        ("mapped from 0..255 to -1..1", "-1..1", images / 127.5 - 1),
        ("mapped from -1..1 to 0..255", "0..255", (images + 1) * 127.5),
    ):
        yield _Change(how, f"{takes} {to}", changed)
    yield _Change(
        "normalised by the mean and standard deviation of each channel",
        "missing mean and standard deviation: the file takes images that are normalised by them",
        (images - mean) / deviation,
    )
    normalises = "mean and standard deviation are applied twice: the file takes pixels"
    yield _Change("mapped back to 0..1 in each channel", f"{normalises} 0..1", unit)
    yield _Change("mapped back to 0..255 in each channel", f"{normalises} 0..255", unit * 255)


def _saturation(
    images: np.ndarray,
    outputs: np.ndarray,
    expected: np.ndarray,
    entry: TensorFacts,
    end: TensorFacts,
) -> str | None:
    if entry.scale is not None:
        low, high = _limits(entry)
        share = float(np.mean((images < low - entry.scale) | (images > high + entry.scale)))
        if share > _OFTEN:
            return (
                f"saturated range: {share:.0%} of the pixels lie outside of {low:.3g}..{high:.3g}, "
                f"which the file's input can express; {_CALIBRATION}"
            )
        steps = float(images.max() - images.min()) / entry.scale
        if steps < _FEW_STEPS:
            return (
                f"too wide a range: the images use {steps:.0f} steps of the file's input, which "
                f"goes from {low:.3g} to {high:.3g}; {_CALIBRATION}"
            )
    low, high = (outputs.min(), outputs.max()) if end.scale is None else _limits(end)
    stuck = np.any((outputs == low) | (outputs == high), axis=1)
    margin = 0.05 * (high - low)
    beyond = np.any((expected < low - margin) | (expected > high + margin), axis=1)
    share = float(np.mean(stuck & beyond))
    if share > _OFTEN:
        return (
            f"saturated range: {share:.0%} of the images should have an output outside of "
            f"{low:.3g}..{high:.3g}, where the file's end; {_CALIBRATION}"
        )
    return None


def _limits(facts: TensorFacts) -> tuple[float, float]:
    """The least and the largest number that a quantized tensor can express."""
    limits = np.iinfo(facts.dtype)
    low, high = facts.dequantize(np.array([limits.min, limits.max], facts.dtype))
    return float(low), float(high)
