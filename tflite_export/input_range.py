"""Finds images that are certainly not in the range that a model was trained on.

Only what is certain is said: numbers that the preprocessing cannot give, or a spread that is 20
times as large or as small as the one expected. A wrong mean is for `verify` to find.
"""

from typing import Any

import numpy as np

from tflite_export import keras_model
from tflite_export.errors import ExportError
from tflite_export.preprocessing import Preprocessing

_CERTAIN = 20


def check_preprocessed(images: np.ndarray, preprocessing: Preprocessing) -> None:
    """Holds images against what the preprocessing can give.

    Args:
        images: as the model takes them, (n, height, width, channels).
        preprocessing: what the model was trained with.

    Raises:
        ExportError: the preprocessing gives no such numbers.
    """
    fitted = preprocessing.fitted(images.shape)
    ends = fitted.apply(np.array([[0.0], [255.0]]).repeat(images.shape[-1], axis=1))
    low, high = float(ends.min()), float(ends.max())
    room = (high - low) / 100
    beyond = images.min() < low - room or images.max() > high + room
    if beyond or _is_apart(images, low, high):
        raise ExportError(
            f"representative images go from {images.min():.4g} to {images.max():.4g}, and the "
            f"preprocessing that was told gives {low:.4g} to {high:.4g}; give them as "
            f"(pixel - {_listed(fitted.pixel_mean)}) / {_listed(fitted.pixel_std)}, or mend "
            f"--pixel_range, --mean and --std"
        )


def check_learned(images: np.ndarray, model: Any) -> None:
    """Holds images against what the first layer of a Keras model shows of its training.

    Args:
        images: as the model takes them, (n,) + shape.
        model: that is exported.

    Raises:
        ExportError: the first layer was made for, or has seen, quite other numbers.
    """
    for layer in _first_layers(model):
        found = _seen_by(layer)
        if found is not None and _is_apart(images, *found):
            low, high = found
            raise ExportError(
                f"representative images go from {images.min():.4g} to {images.max():.4g}, and the "
                f"first layer {keras_model.user_name(layer)!r} is for about {low:.4g} to "
                f"{high:.4g}; give the images as in training, pixels of 0 to 255 scaled likewise"
            )


def _is_apart(images: np.ndarray, low: float, high: float) -> bool:
    spread = float(images.max()) - float(images.min())
    return spread * _CERTAIN < high - low or spread > (high - low) * _CERTAIN


def _first_layers(model: Any) -> list[Any]:
    """The layers that read the model's input; where Keras does not tell them, none."""
    readers = []
    for layer in model.layers:
        try:
            read = layer.input
        except (AttributeError, ValueError, RuntimeError):  # called several times, or never
            continue
        if read is model.inputs[0] and type(layer).__name__ != "InputLayer":
            readers.append(layer)
    return readers


def _seen_by(layer: Any) -> tuple[float, float] | None:
    """Least and largest number that a layer is for; None where it does not tell."""
    kind = type(layer).__name__
    if kind == "Rescaling" and np.ndim(layer.scale) == 0 and 1 / 300 < layer.scale < 1 / 100:
        return 0.0, 255.0  # what 1 / 255 and 1 / 127.5 are for
    if kind == "Normalization":
        mean, variance = np.asarray(layer.mean), np.asarray(layer.variance)
    elif kind == "BatchNormalization":
        mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
    else:
        return None
    if np.all(mean == 0) and np.all(variance == 1):  # never trained
        return None
    reach = 3 * np.sqrt(variance)
    return float(np.min(mean - reach)), float(np.max(mean + reach))


def _listed(numbers: tuple[float, ...]) -> str:
    return f"{numbers[0]:g}" if len(set(numbers)) == 1 else f"({', '.join(map(str, numbers))})"
