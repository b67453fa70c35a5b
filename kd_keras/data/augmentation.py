"""Random views of a batch of images, as a pure function of one seed an example.

What is drawn for an example depends on its seed alone: not on its place in the batch, nor on the
batches before, nor on a generator's state. So a resumed run and a second process see the same
views. MixUp and CutMix combine the examples of a batch: theirs depend on the seeds of the batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import tensorflow as tf

from kd_keras.data.geometry import HorizontalFlip, PadAndCrop, Shift
from kd_keras.data.mixing import CutMix, MixUp
from kd_keras.data.rand_augment import RandAugment
from kd_keras.errors import InputError


class Step(Protocol):
    """One kind of augmentation; a frozen dataclass whose fields are its hyperparameters."""

    @property
    def draws(self) -> int:
        """How many random numbers an example needs."""

    def __call__(
        self, images: tf.Tensor, labels: tf.Tensor, uniform: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Changes images (batch, h, w, c), pixels 0..255, by uniform (batch, draws) in [0, 1)."""


# In the order of application: what moves pixels, what changes them, what mixes examples.
STEPS: dict[str, Any] = {
    "horizontal_flip": HorizontalFlip,
    "pad_and_crop": PadAndCrop,
    "shift": Shift,
    "rand_augment": RandAugment,
    "mix_up": MixUp,
    "cut_mix": CutMix,
}
_MIXING = (MixUp, CutMix)


class Augmentation:
    """A chain of augmentations, in the order of `STEPS` whatever the order of the config.

    Example:
        >>> augment = Augmentation({"horizontal_flip": {}, "pad_and_crop": {"padding": 4}}, 10)
        >>> augment.mixes_labels
        False

    Args:
        spec: for each augmentation's name, its hyperparameters; names and defaults are the
            dataclasses in `STEPS`.
        classes: the number of classes; labels are mixed as vectors of that length.

    Raises:
        InputError: if a name or hyperparameter does not exist, or a value is out of range.
    """

    def __init__(self, spec: Mapping[str, Mapping[str, Any]], classes: int):
        given = dict(spec.items())
        for name in given:
            if name not in STEPS:
                raise InputError(f"augmentation {name!r} does not exist; there are: {_list(STEPS)}")
        self.steps: tuple[Step, ...] = tuple(
            _make(name, kind, given[name]) for name, kind in STEPS.items() if name in given
        )
        self.classes = classes

    @property
    def config(self) -> dict[str, dict[str, Any]]:
        """Each augmentation's hyperparameters, defaults included, in the order of application."""
        names = {kind: name for name, kind in STEPS.items()}
        return {names[type(step)]: dataclasses.asdict(step) for step in self.steps}  # type: ignore[call-overload]

    @property
    def mixes_labels(self) -> bool:
        """Whether labels become float32 (batch, classes), so that the loss must take these."""
        return any(isinstance(step, _MIXING) for step in self.steps)

    def __call__(
        self, images: tf.Tensor, labels: tf.Tensor, seeds: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Makes the views that the seeds stand for.

        Args:
            images: uint8 or float32, (batch, height, width, channels), pixels 0..255.
            labels: integer, (batch,).
            seeds: int64, (batch, 2), one an example, as `tf.random.stateless_uniform` takes them.

        Returns:
            Images of the same shape, pixels still 0..255; float32 if a step blends pixels. Labels:
            int64 (batch,), or float32 (batch, classes), rows summing to 1, if `mixes_labels`.
        """
        if self.mixes_labels:
            labels = tf.one_hot(labels, self.classes)
        draws = [step.draws for step in self.steps]
        columns = tf.split(_uniform(seeds, sum(draws)), draws, axis=1) if draws else []
        for step, uniform in zip(self.steps, columns, strict=True):
            images, labels = step(images, labels, uniform)
        return images, labels


def _make(name: str, kind: Any, hyperparameters: Mapping[str, Any]) -> Step:
    fields = [field.name for field in dataclasses.fields(kind)]
    given = dict(hyperparameters.items())
    for key in given:
        if key not in fields:
            raise InputError(f"{name} has no hyperparameter {key!r}; it has: {_list(fields)}")
    return kind(**given)


def _uniform(seeds: tf.Tensor, count: int) -> tf.Tensor:
    """Float32 (batch, count) in [0, 1), each row from its own seed."""
    return tf.map_fn(
        # Philox by name: "auto_select" is another algorithm on another device.
        lambda seed: tf.random.stateless_uniform([count], seed, alg="philox"),
        seeds,
        fn_output_signature=tf.TensorSpec([count], tf.float32),
    )


def _list(names: Mapping[str, Any] | Sequence[str]) -> str:
    return ", ".join(names)
