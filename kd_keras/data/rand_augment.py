"""RandAugment with keras-cv's operations and our own, stateless draws.

keras-cv draws operations and strengths from ``tf.random.Generator`` and from ``tf.random.normal``:
state that a resumed run does not have. Its layers separate drawing (``get_random_transformation_
batch``) from the pixels' work (``augment_images``); only the second is used here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from kd_keras.data.ranges import require

_DRAWS = 5  # a layer: apply it or not, which operation, its strength twice, its sign
_VALUES = (0, 255)
_LARGEST_ADDITION = 110.0  # of solarize; keras-cv's bound, above it an image is nearly lost
Operation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class RandAugment:
    """Applies a few randomly chosen operations to each image.

    Operations and their strengths are keras-cv's standard policy: auto-contrast, equalize,
    solarize, colour (left out for grey images), contrast, brightness, shear and translation in x
    and y. Strengths are normal around the magnitude, clipped to [0, 1]; contrast, brightness and
    translations are uniform up to it.

    Source: Cubuk et al., RandAugment, 2020; keras-cv 0.9.

    Attributes:
        layers: operations an image (N in the paper).
        magnitude: strength, in [0, 1] (M / 10 in the paper).
        magnitude_stddev: spread of the strength, in [0, 1].
        rate: the probability of each operation being applied at all, in [0, 1].
        geometric: whether shears and translations are among the operations.
    """

    layers: int = 2
    magnitude: float = 0.5
    magnitude_stddev: float = 0.15
    rate: float = 10 / 11
    geometric: bool = True

    def __post_init__(self):
        require("rand_augment", "layers", self.layers, 1, 16)
        for name in ("magnitude", "magnitude_stddev", "rate"):
            require("rand_augment", name, getattr(self, name), 0, 1)

    @property
    def draws(self) -> int:
        """Five for each layer."""
        return _DRAWS * self.layers

    def __call__(
        self, images: tf.Tensor, labels: tf.Tensor, uniform: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """See `kd_keras.data.augmentation.Step`; images become float32."""
        operations = self._operations(channels=images.shape[-1])
        shape = images.shape
        images = tf.cast(images, tf.float32)
        for layer in range(self.layers):
            draws = uniform[:, layer * _DRAWS : (layer + 1) * _DRAWS]
            images = _apply_one_each(operations, images, draws, self.rate)
        return tf.ensure_shape(images, shape), labels

    def _operations(self, channels: int) -> list[Operation]:
        """Each takes images and the strength's draws (n, 3)."""
        import keras_cv  # takes seconds: only who wants RandAugment waits for it

        layers = keras_cv.layers.RandAugment.get_standard_policy(
            _VALUES, self.magnitude, self.magnitude_stddev, geometric=self.geometric
        )
        strengths = _strengths(self.magnitude, self.magnitude_stddev)
        if channels == 1:
            del layers[3], strengths[3]  # colour
        return [
            _operation(layer, strength) for layer, strength in zip(layers, strengths, strict=False)
        ]


def _strengths(magnitude: float, stddev: float) -> list[Callable[[tf.Tensor], Any]]:
    """Our draws for keras-cv's layers, in the order of its policy, as each layer takes them."""

    def normal(uniform: tf.Tensor) -> tf.Tensor:
        strength = magnitude + stddev * tf.math.ndtri(uniform)
        return tf.clip_by_value(strength, 0.0, 1.0)[:, tf.newaxis]

    def around_zero(uniform: tf.Tensor) -> tf.Tensor:
        return (magnitude * (2 * uniform - 1))[:, tf.newaxis]

    def pixels(values: tf.Tensor) -> tf.Tensor:
        return values[:, tf.newaxis, tf.newaxis]

    def solarize(draw: tf.Tensor) -> dict[str, tf.Tensor]:
        threshold = 255 * (1 - magnitude + stddev * tf.math.ndtri(draw[:, 1]))
        return {
            "additions": pixels(_LARGEST_ADDITION * normal(draw[:, 0])),
            "thresholds": pixels(tf.clip_by_value(threshold, 0.0, 255.0)[:, tf.newaxis]),
        }

    def shear(draw: tf.Tensor) -> tf.Tensor:
        return normal(draw[:, 0]) * tf.where(draw[:, 2:] < 0.5, -1.0, 1.0)

    def translate(draw: tf.Tensor, *axes: str) -> dict[str, tf.Tensor]:
        amount = around_zero(draw[:, 0])
        names = ("height_translations", "width_translations")
        return {name: amount if name in axes else tf.zeros_like(amount) for name in names}

    return [
        lambda draw: None,  # auto-contrast
        lambda draw: None,  # equalize
        solarize,
        lambda draw: pixels(normal(draw[:, 0])),  # colour
        lambda draw: pixels(1 + around_zero(draw[:, 0])),  # contrast
        lambda draw: pixels(255 * around_zero(draw[:, 0])),  # brightness
        lambda draw: {"shear_x": shear(draw), "shear_y": None},
        lambda draw: {"shear_x": None, "shear_y": shear(draw)},
        lambda draw: translate(draw, "width_translations"),
        lambda draw: translate(draw, "height_translations"),
    ]


def _operation(layer: Any, strength: Callable[[tf.Tensor], Any]) -> Operation:
    # keras-cv branches on tensors in Python, which needs the conversion that tf.function brings.
    @tf.function
    def operation(images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        return layer.augment_images(images, transformations=strength(draws))

    return operation


def _apply_one_each(
    operations: list[Operation], images: tf.Tensor, draws: tf.Tensor, rate: float
) -> tf.Tensor:
    """Groups the images by operation, so that each operation runs once, on its own images."""
    count = len(operations)
    which = tf.minimum(tf.cast(draws[:, 1] * count, tf.int32), count - 1)
    which = tf.where(draws[:, 0] < rate, which, -1)
    for number, operation in enumerate(operations):
        rows = tf.where(which == number)
        images = tf.cond(
            tf.size(rows) > 0,
            lambda images=images, rows=rows, operation=operation: tf.tensor_scatter_nd_update(
                images,
                rows,
                operation(tf.gather_nd(images, rows), tf.gather_nd(draws[:, 2:], rows)),
            ),
            lambda images=images: images,
        )
    return images
