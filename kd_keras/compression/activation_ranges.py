"""Ranges for a fresh quantization-aware model, measured on calibration images.

tfmot starts every activation at [-6, 6] and moves it by a thousandth a step, so that logits are
clipped for thousands of steps, which distorts a distillation loss; and the kernels' ranges are
unset until the first training step, so that the model predicts at chance.

The quantizers are reached through attributes that tfmot does not document: it offers no other way
to see a value just before it is quantized.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

_BATCH = 64


class _Recorder:
    """Stands in for a quantizer: lets values through as they are and notes their range."""

    def __init__(self, quantizer: Any, ranges: dict[int, tuple[Any, Any, float, float]]) -> None:
        self._quantizer = quantizer
        self.ranges = ranges

    def __call__(self, inputs: Any, training: Any, weights: Any, **_: Any) -> Any:
        if "min_var" not in (weights or ()):  # a user's quantizer that has a fixed range, or none
            return self._quantizer(inputs, training, weights=weights)
        low, high = weights["min_var"], weights["max_var"]
        # Zero is always in the range: TFLite represents it exactly.
        _, _, least, most = self.ranges.get(id(low), (low, high, 0.0, 0.0))
        least = min(least, float(tf.reduce_min(inputs)))
        most = max(most, float(tf.reduce_max(inputs)))
        self.ranges[id(low)] = (low, high, least, most)
        return inputs


def seed(quantized: tf.keras.Model, images: np.ndarray) -> None:
    """Sets all ranges: the kernels' from their values, the activations' from ``images``.

    Args:
        quantized: a fresh model of ``quantize_apply``; its ranges are written, nothing else.
        images: float32 ``(n,) + input shape``, normalised as in training.
    """
    for layer in quantized.layers:
        for weight, quantizer, variables in getattr(layer, "_weight_vars", ()):
            quantizer(weight, True, weights=variables)
    ranges: dict[int, tuple[Any, Any, float, float]] = {}
    with _in_place_of_quantizers(quantized, ranges):
        for start in range(0, len(images), _BATCH):
            quantized(images[start : start + _BATCH], training=False)
    for low, high, least, most in ranges.values():
        low.assign(least)
        high.assign(most)


@contextlib.contextmanager
def _in_place_of_quantizers(quantized: tf.keras.Model, ranges: dict) -> Iterator[None]:
    slots = list(_quantizer_slots(quantized))
    before = [getattr(owner, name) for owner, name in slots]
    try:
        for (owner, name), quantizer in zip(slots, before, strict=True):
            if isinstance(quantizer, list):
                setattr(owner, name, [_Recorder(quantizer[0], ranges)])
            else:
                setattr(owner, name, _Recorder(quantizer, ranges))
        yield
    finally:
        for (owner, name), quantizer in zip(slots, before, strict=True):
            setattr(owner, name, quantizer)


def _quantizer_slots(quantized: tf.keras.Model) -> Iterator[tuple[Any, str]]:
    for layer in quantized.layers:
        for activation in getattr(layer, "_quantize_activations", ()):
            yield activation, "quantizer"
        if getattr(layer, "_output_quantizers", None):
            yield layer, "_output_quantizers"
        if getattr(layer, "quantizer", None) is not None:
            yield layer, "quantizer"
