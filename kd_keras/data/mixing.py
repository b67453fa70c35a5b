"""Augmentations that combine pairs of examples of one batch: MixUp and CutMix.

keras-cv's layers of these names are not used: they draw from ``tf.random.gamma`` and
``tf.random.shuffle``, module-level ops with hidden state that no seed of ours reaches, and CutMix
weighs the labels by the area before it is clipped at the border.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from scipy.special import betaincinv

from kd_keras.data.ranges import require

_LARGEST_ALPHA = 100.0


@dataclass(frozen=True)
class MixUp:
    """Blends each example with another: ``lambda x + (1 - lambda) x'``, labels alike.

    ``lambda ~ Beta(alpha, alpha)``, one an example; the other examples are a random permutation of
    the batch. Source: Zhang et al., mixup: Beyond Empirical Risk Minimization, 2018, equation 1.

    Attributes:
        alpha: of the Beta distribution, positive; 0.2 is the paper's for ImageNet, 1 for CIFAR.
    """

    alpha: float = 0.2

    def __post_init__(self):
        require("mix_up", "alpha", self.alpha, 1e-3, _LARGEST_ALPHA)

    @property
    def draws(self) -> int:
        """Two: the place in the permutation, and lambda."""
        return 2

    def __call__(
        self, images: tf.Tensor, labels: tf.Tensor, uniform: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """See `kd_keras.data.augmentation.Step`; labels are float32 (batch, classes)."""
        partner = _partners(uniform[:, 0])
        share = _beta(uniform[:, 1], self.alpha)
        images = tf.cast(images, tf.float32)
        weight = share[:, tf.newaxis, tf.newaxis, tf.newaxis]
        images = weight * images + (1 - weight) * tf.gather(images, partner)
        return images, _mix_labels(labels, partner, share)


@dataclass(frozen=True)
class CutMix:
    """Pastes a random rectangle of another example; labels are mixed by area.

    The rectangle's centre is uniform over the image, its sides ``sqrt(1 - lambda)`` of the image's,
    ``lambda ~ Beta(alpha, alpha)``; it is clipped at the border, and the labels are weighed by the
    area that is left. Source: Yun et al., CutMix, 2019, equations 1 and 2 and the authors' code
    for the clipping.

    Attributes:
        alpha: of the Beta distribution, positive; 1 is the paper's.
    """

    alpha: float = 1.0

    def __post_init__(self):
        require("cut_mix", "alpha", self.alpha, 1e-3, _LARGEST_ALPHA)

    @property
    def draws(self) -> int:
        """Four: the place in the permutation, lambda, the centre's row and column."""
        return 4

    def __call__(
        self, images: tf.Tensor, labels: tf.Tensor, uniform: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """See `kd_keras.data.augmentation.Step`; labels are float32 (batch, classes)."""
        partner = _partners(uniform[:, 0])
        side = tf.sqrt(1 - _beta(uniform[:, 1], self.alpha))
        shape = tf.shape(images)
        rows = _interval(uniform[:, 2], side, shape[1])
        columns = _interval(uniform[:, 3], side, shape[2])
        inside = rows[:, :, tf.newaxis] & columns[:, tf.newaxis, :]
        images = tf.where(inside[..., tf.newaxis], tf.gather(images, partner), images)
        share = 1 - tf.reduce_mean(tf.cast(inside, tf.float32), axis=[1, 2])
        return images, _mix_labels(labels, partner, share)


def _partners(uniform: tf.Tensor) -> tf.Tensor:
    """A permutation of the batch: each example's partner."""
    return tf.argsort(uniform, stable=True)


def _mix_labels(labels: tf.Tensor, partner: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    weight = share[:, tf.newaxis]
    return weight * labels + (1 - weight) * tf.gather(labels, partner)


def _beta(uniform: tf.Tensor, alpha: float) -> tf.Tensor:
    """Beta(alpha, alpha) by inversion: one uniform number makes one sample, without a state."""
    if alpha == 1:
        return uniform

    def invert(values: np.ndarray) -> np.ndarray:
        return betaincinv(alpha, alpha, values.astype(np.float64)).astype(np.float32)

    return tf.ensure_shape(tf.numpy_function(invert, [uniform], tf.float32), uniform.shape)


def _interval(uniform: tf.Tensor, side: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Which of `length` pixels lie in an interval around a random centre; bool (batch, length)."""
    extent = tf.cast(length, tf.float32)
    centre = tf.floor(uniform * extent)[:, tf.newaxis]
    half = tf.floor(side * extent / 2)[:, tf.newaxis]
    pixel = tf.range(extent)
    return (pixel >= centre - half) & (pixel < centre + half)
