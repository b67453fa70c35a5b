"""A `fit` that goes on where it was killed and ends with the same weights all the same."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.callbacks import StopOnNonFinite
from kd_keras.errors import InputError
from kd_keras.pipeline.progress import Progress
from kd_keras.pipeline.workdir import Workdir, read_json, write_json


def fit(
    model: Any,
    workdir: Workdir,
    stage: str,
    *,
    batches: Any,
    steps_per_epoch: int,
    validation: Any,
    epochs: int,
    seed: int,
    callbacks: tuple = (),
    watchers: tuple = (),
) -> list[dict[str, float]]:
    """Train a compiled model, with a checkpoint after every epoch.

    What an epoch sees (its batches, its dropout) depends on the seed and the epoch's number only,
    and the checkpoint holds the weights and the optimizers: so a training that was killed ends
    with the weights of one that was not.

    Args:
        model: A compiled Keras model, as it is before the first epoch.
        workdir: Where checkpoints and TensorBoard scalars go, below `stage`.
        stage: Name of the training, such as "student" or "compressed/pruned".
        batches: Function of the first epoch that gives the batches of it and all later ones.
        steps_per_epoch: Batches in an epoch.
        validation: Batches for the validation after each epoch.
        epochs: Number of the last epoch.
        seed: Of the random numbers that the model draws.
        callbacks: More Keras callbacks.
        watchers: Keras callbacks that come last: they see an epoch when its checkpoint is written.

    Returns:
        The logs of each epoch.

    Raises:
        InputError: If a checkpoint is damaged or a term of the loss is not finite.
    """
    keeper = _Checkpoints(model, workdir, stage)
    first = keeper.restore()
    if first < epochs:
        show = Progress(stage, first=first, epochs=epochs, steps_per_epoch=steps_per_epoch)
        model.fit(
            batches(first),
            epochs=epochs,
            initial_epoch=first,
            steps_per_epoch=steps_per_epoch,
            validation_data=validation,
            shuffle=False,  # the batches come in their order
            verbose=0,
            callbacks=[
                _Reseed(seed),
                *callbacks,
                StopOnNonFinite(),
                tf.keras.callbacks.TensorBoard(
                    str(workdir.scratch(stage, "tensorboard")), write_graph=False
                ),
                keeper,
                *([show] if workdir.chief else []),
                *watchers,
            ],
        )
    return keeper.history


class _Checkpoints(tf.keras.callbacks.Callback):
    """Keeps the last epoch's weights, optimizers and logs on disk."""

    def __init__(self, model: Any, workdir: Workdir, stage: str) -> None:
        super().__init__()
        self.history: list[dict[str, float]] = []
        self._workdir = workdir
        self._epoch = tf.Variable(0, trainable=False, dtype=tf.int64)
        # Keras 3 does not show a model's dictionaries to a checkpoint.
        projections = dict(getattr(model, "projections", {}))
        self._checkpoint = tf.train.Checkpoint(
            model=model, projections=projections, epoch=self._epoch
        )
        self._read_from = workdir.path(stage, "checkpoint")
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(workdir.scratch(stage, "checkpoint", "x").parent), max_to_keep=1
        )
        self._history_path = workdir.scratch(stage, "history.json")

    def restore(self) -> int:
        """Load the last checkpoint, if there is one, and return the epoch to go on with."""
        latest = tf.train.latest_checkpoint(str(self._read_from))
        if latest is None:
            return 0
        try:
            self._checkpoint.restore(latest).expect_partial()
            history = read_json(self._read_from.parent / "history.json")
        except (tf.errors.OpError, IndexError, ValueError, OSError) as error:
            raise InputError(
                f"checkpoint {latest} is damaged ({str(error).splitlines()[0]}): delete the folder "
                f"{self._read_from.parent} and run again"
            ) from error
        first = int(self._epoch.numpy())
        self.history = history[:first]
        return first

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write the logs, then the checkpoint that says that they count."""
        self.history.append({"epoch": epoch, **{k: float(v) for k, v in (logs or {}).items()}})
        write_json(self._history_path, self.history)
        self._epoch.assign(epoch + 1)
        try:
            self._manager.save(checkpoint_number=epoch + 1)
        except tf.errors.OpError as error:
            folder = self._manager.directory
            raise OSError(f"cannot write a checkpoint to {folder}: {error.message}") from error
        self._workdir.keep_cost()


class _Reseed(tf.keras.callbacks.Callback):
    """Starts every epoch's random numbers (dropout) from the seed and the epoch's number."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Reset the generator of every random layer."""
        layers = self.model._flatten_layers(recursive=True, include_self=False)
        for index, reset in enumerate(filter(None, map(_generator_of, layers))):
            entropy = np.random.SeedSequence([self._seed, epoch, index])
            reset(int(entropy.generate_state(1)[0]))


def _generator_of(layer: Any) -> Callable[[int], None] | None:
    """What resets the random generator of a layer that has one, in either Keras."""
    if hasattr(layer, "seed_generator"):  # Keras 3
        return lambda seed: layer.seed_generator.state.assign([seed, 0])
    generator = getattr(getattr(layer, "_random_generator", None), "_generator", None)
    return None if generator is None else generator.reset_from_seed


def forget(workdir: Workdir, stage: str) -> None:
    """Delete the checkpoints of a stage whose result is kept elsewhere."""
    for folder in workdir.scratch(stage).rglob("checkpoint"):
        if folder.is_dir():
            shutil.rmtree(folder)


@contextlib.contextmanager
def resettable_noise() -> Iterator[None]:
    """Let layers that are built now draw from generators that `fit` can reset."""
    generators = getattr(tf.keras.backend, "experimental", None)
    if generators is None or generators.is_tf_random_generator_enabled():  # as always in Keras 3
        yield
        return
    generators.enable_tf_random_generator()
    try:
        yield
    finally:
        generators.disable_tf_random_generator()


def enable_determinism(seed: int, *, deterministic: bool) -> None:
    """Let one seed fix everything that is drawn from here on.

    Layers draw from generators with a state of their own, which `fit` resets at every epoch.
    """
    generators = getattr(tf.keras.backend, "experimental", None)
    if generators is not None:  # tf_keras; Keras 3 always does
        generators.enable_tf_random_generator()
    tf.keras.utils.set_random_seed(seed)
    # keras-cv's layers ask for the global generator, which determinism does not make by itself.
    tf.random.set_global_generator(tf.random.Generator.from_seed(seed))
    if deterministic:
        tf.config.experimental.enable_op_determinism()
