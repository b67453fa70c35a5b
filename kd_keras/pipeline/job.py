"""One run of the main job: its config, its work directory, and what all stages share."""

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from kd_keras import data
from kd_keras.pipeline import config as configs
from kd_keras.pipeline import dataset, fitting, precision, strategies
from kd_keras.pipeline.progress import say
from kd_keras.pipeline.workdir import Workdir
from kd_keras.teachers import Teacher, evaluation


class Job:
    """What a stage gets.

    Args:
        config: A complete config.
        workdir: The locked work directory.
        strategy: The `tf.distribute` strategy to train under.
        command: The command line that made the run, for the report.

    Attributes:
        watch: Function of the folder of a training under a teacher that gives Keras callbacks; they
            see each epoch when its checkpoint is written. Trainings of inner layers alone, whose
            accuracy means nothing, have none.
    """

    watch: Callable[[str], tuple]

    def __init__(self, config: ConfigDict, workdir: Workdir, strategy: Any, command: str) -> None:
        self.config = config
        self.workdir = workdir
        self.strategy = strategy
        self.command = command
        self.watch = lambda folder: ()
        self.started = time.strftime("%Y-%m-%dT%H:%M:%S%z")

    @functools.cached_property
    def dataset(self) -> Any:
        """The data of the "data" stage, memory-mapped."""
        return data.open_saved(self.workdir.path("data"))

    @functools.cached_property
    def normalization(self) -> Any:
        """The config's normalization, or that of the training images."""
        return dataset.normalization_of(self.config, lambda: self.dataset.train)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.dataset.class_names)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of an image, (height, width, channels)."""
        return self.dataset.image_shape

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch of the student."""
        return self.views.steps(self.config.data.batch_size)

    @functools.cached_property
    def transfer_rows(self) -> Any:
        """The numbers of the training images that the student sees; None for all of them."""
        return dataset.transfer_rows(self.config, self.dataset.train.labels, self.classes)

    @functools.cached_property
    def teacher_views(self) -> Any:
        """The training images as the teacher learns them: a new view in every epoch."""
        return self._views(augmented=True)

    @functools.cached_property
    def views(self) -> Any:
        """The transfer set as labels teach it: a new view in every epoch."""
        augmented = self.config.student.transfer_set.augmented
        return self._views(augmented=augmented, rows=self.transfer_rows)

    @functools.cached_property
    def taught_views(self) -> Any:
        """The transfer set as the teacher teaches it: in as many views as are cached."""
        return self._views(
            augmented=self.config.student.transfer_set.augmented,
            rows=self.transfer_rows,
            count=self.config.teacher.cache.views or None,
        )

    @functools.cached_property
    def plain_views(self) -> Any:
        """The transfer set without augmentation."""
        return self._views(augmented=False, rows=self.transfer_rows)

    def _views(self, *, augmented: bool, **options: Any) -> Any:
        train, spec = self.dataset.train, self.config.data.augmentation
        if augmented and spec:
            options["augmentation"] = data.Augmentation(spec.to_dict(), classes=self.classes)
        return data.Views(
            train.images,
            train.labels,
            seed=self.config.seed,
            normalization=self.normalization,
            **options,
        )

    def validation_batches(self, views: Any) -> Any:
        """The validation batches, with labels of the form that a training on these views has."""
        batches = self.batches_in_order(self.dataset.validation)
        if views.mixes_labels:
            batches = batches.map(lambda x, y: (x, tf.one_hot(y, self.classes)))
        return batches

    def logits(self, model: Any, split: Any) -> np.ndarray:
        """A model's outputs on a split, `(examples, classes)`."""
        if isinstance(model, Teacher):
            return evaluation.predict(model, self.batches_in_order(split))
        return model.predict(self.batches_in_order(split), verbose=0)

    def images(self, split: Any) -> np.ndarray:
        """A split's images as models take them, float32."""
        return self.normalization.apply(split.images)

    def calibration_images(self) -> np.ndarray:
        """Images of the transfer set as models take them, to choose activations' ranges by."""
        count = self.config.export.calibration_examples
        rows = slice(count) if self.transfer_rows is None else self.transfer_rows[:count]
        return self.normalization.apply(self.dataset.train.images[rows])

    def batches_in_order(self, split: Any) -> Any:
        """A split's batches without augmentation, each example once."""
        return data.evaluation(
            split, batch_size=self.config.data.batch_size, normalization=self.normalization
        )

    def label_loss(self, views: Any) -> Any:
        """The label loss that fits the labels of these views."""
        if views.mixes_labels:
            return tf.keras.losses.CategoricalCrossentropy(from_logits=True)
        return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@contextlib.contextmanager
def opened(
    config: ConfigDict,
    workdir: str | os.PathLike,
    *,
    overwrite: bool = False,
    reuse: Sequence[str | os.PathLike] = (),
    command: str = "",
) -> Iterator[Job]:
    """Give a job in its work directory, which is locked while the context lasts.

    Args:
        config: See `kd_keras.pipeline.run`, as the other arguments.
        workdir: The folder of all artefacts.
        overwrite: Whether a folder that was made with another config may be written anew.
        reuse: Work directories whose finished stages are taken.
        command: The command line, for the report.

    Raises:
        InputError: For a config or a work directory that cannot be used.
    """
    config = configs.complete(config)
    configs.check(config)
    precision.check(config.precision)
    if against := precision.warning(config.precision):
        say(f"warning: {against}")
    strategy = strategies.make(config.strategy)
    folder = Workdir(workdir, chief=strategies.is_chief(), reuse=reuse)
    with folder.locked():
        folder.adopt(configs.plain(config), overwrite=overwrite)
        fitting.enable_determinism(config.seed, deterministic=config.deterministic)
        yield Job(config, folder, strategy, command)
