"""What a person sees while a run lasts: a bar in a terminal, plain lines in a log."""

import sys
import time
from typing import Any

import tensorflow as tf
import tqdm

_SHOWN = ("loss", "accuracy", "val_loss", "val_accuracy")


def say(text: str) -> None:
    """Print one line of progress."""
    tqdm.tqdm.write(text, file=sys.stderr)


class Progress(tf.keras.callbacks.Callback):
    """Shows how far a training is and, in a terminal, how long it still takes.

    Args:
        stage: Name of the training.
        first: Number of epochs done before.
        epochs: Number of the last epoch.
        steps_per_epoch: Batches in an epoch.
    """

    def __init__(self, stage: str, *, first: int, epochs: int, steps_per_epoch: int) -> None:
        super().__init__()
        self._stage, self._epochs = stage, epochs
        self._bar = tqdm.tqdm(
            desc=stage,
            total=epochs * steps_per_epoch,
            initial=first * steps_per_epoch,
            unit="step",
            disable=not sys.stderr.isatty(),
        )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Take the time."""
        self._begun = time.monotonic()
        self._done = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Move the bar; with `steps_per_execution` several steps at once."""
        self._bar.update(batch + 1 - self._done)
        self._done = batch + 1

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Show the epoch's figures."""
        figures = {name: f"{logs[name]:.4f}" for name in _SHOWN if name in (logs or {})}
        if self._bar.disable:
            text = " ".join(f"{name} {value}" for name, value in figures.items())
            seconds = time.monotonic() - self._begun
            say(f"{self._stage}: epoch {epoch + 1}/{self._epochs} {text} ({seconds:.1f} s)")
        self._bar.set_postfix(figures)

    def on_train_end(self, logs: Any = None) -> None:
        """Leave the bar as it is."""
        self._bar.close()
