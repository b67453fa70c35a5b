"""The ranges that teachers want their pixels in, tried on one that is bad in the range it gets."""

from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.teachers.answers import Examples, Interview, Prepare

#: Description -> (config.data.mean, config.data.std): `(pixel / 255 - mean) / std`.
_RANGES = {
    "pixels in 0..255": (0.0, 1 / 255),
    "pixels in 0..1": (0.0, 1.0),
    "pixels in -1..1": (0.5, 0.5),
}
_STANDARDISED = "pixels standardised by the training images"
_SWAPPED = "the colour channels the other way round"


def accuracies(
    interview: Interview, train: Examples, judged: Examples, prepare: Prepare | None
) -> dict[str, float]:
    """A teacher's accuracy on the same images in other ranges, by their description.

    The ranges are 0..255, 0..1, -1..1 and standardised; and the range as given with the colour
    channels swapped. The one that it is given is left out.

    Args:
        interview: Of the teacher.
        train: Training examples, whose mean and standard deviation are those of "standardised".
        judged: The examples to try it on.
        prepare: What makes the teacher's inputs now; None if it takes the pixels as they are.

    Returns:
        Nothing unless the examples are images.
    """
    if not judged.are_images:
        return {}
    found = {}
    for name, other in _preparations(train, judged, prepare or _as_they_are).items():
        try:
            found[name] = interview.answers(judged, other).accuracy
        except (InputError, tf.errors.OpError):  # refused, or NaN: this range is not the teacher's
            continue
    return found


def cure(name: str) -> str:
    """How the teacher gets what `accuracies` describes so."""
    if name == _SWAPPED:
        return "give the teacher a first layer that swaps the channels"
    mean, std = (f"({value:.6g},)" for value in _RANGES[name]) if name in _RANGES else ("()", "()")
    return (
        f"set config.data.mean={mean} and config.data.std={std}, for the student too, or give the "
        "teacher a first layer that rescales"
    )


def _preparations(train: Examples, judged: Examples, given: Prepare) -> dict[str, Prepare]:
    """What makes each range of pixels, without the one that makes the same as `given`."""
    found = {name: _scaling(mean, std) for name, (mean, std) in _RANGES.items()}
    if train.are_images:
        found[_STANDARDISED] = _scaling(*_moments(train))
    pixels, _ = next(judged.batches())
    if pixels.shape[-1] == 3:
        found[_SWAPPED] = lambda x: given(np.ascontiguousarray(x[..., ::-1]))
    now = np.asarray(given(pixels))
    return {
        name: other
        for name, other in found.items()
        if not np.allclose(np.asarray(other(pixels)), now, atol=1e-3)
    }


def _as_they_are(x: Any) -> Any:
    return x


def _scaling(mean: Any, std: Any) -> Prepare:
    return lambda x: ((x / 255 - mean) / std).astype(np.float32)


def _moments(images: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Each channel's mean and standard deviation (1 if it is constant), in units of pixel / 255."""
    sums = []
    for x, _ in images.batches():
        pixels = x.reshape(-1, x.shape[-1]) / 255
        sums.append((len(pixels), pixels.sum(axis=0), (pixels**2).sum(axis=0)))
    count, total, squares = (sum(part) for part in zip(*sums, strict=True))
    mean = total / count
    variance = squares / count - mean**2
    return mean, np.sqrt(np.where(variance > 1e-8, variance, 1))
