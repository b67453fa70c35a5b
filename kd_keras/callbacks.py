"""Keras callbacks of a distillation."""

import warnings
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.errors import InputError


class StopOnNonFinite(tf.keras.callbacks.Callback):
    """Stop at the first step after which a term of the loss is NaN or infinite.

    Raises:
        InputError: Naming the term, the epoch and the step. The student's weights are spoilt by
            then; the last checkpoint is good.

    Example:
        >>> StopOnNonFinite().on_train_batch_end(3, {"loss": 0.5, "soft_targets": 0.1})
    """

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Remember the epoch, for the message."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Look at every value in the logs, which are means since the epoch began."""
        bad = [key for key, value in (logs or {}).items() if not np.isfinite(value).all()]
        if bad:
            term = next((key for key in bad if key != "loss"), "loss")
            raise InputError(
                f"{term} is {logs[term]} at step {batch + 1} of epoch {self._epoch + 1}: lower the "
                "learning rate or the term's weight; the last checkpoint is kept"
            )


class DiscriminatorWarning(UserWarning):
    """The discriminator has won or lost an epoch."""


class DiscriminatorWatch(tf.keras.callbacks.Callback):
    """Warn after an epoch in which a discriminator D has won or lost.

    D has won if it was right of at least 95 % of the samples: it gives the student's almost no
    chance of being the teacher's, and there `log(1 - D(f_s))` is flat, so the student learns little
    from it. D has lost if it tells nothing: it is right of less than 55 %, and what it gives the
    teacher's samples is no more than 0.02 above what it gives the student's. Both are asked, since
    each alone is found in a good game: where D takes all samples for the teacher's, as adversarial
    samples teach it to, it is right of half of them and may still rank them well, and a D of small
    margins may be right. At the end of a game, where the student matches, D has lost for a good
    reason: the other terms of the loss show which it is.

    The first of the epochs in a row that D has won, or lost, is told, not each of them.

    The adversarial distillers add one to the callbacks of `fit`, unless there is one already; but
    not where D is a critic (Wasserstein), which is meant to win.

    Args:
        won_from: The accuracy from which D has won.
        lost_below: The accuracy below which D may have lost.
        lost_gap: The mean difference of D's probabilities up to which it has.

    Example:
        >>> watch = DiscriminatorWatch()
        >>> logs = {"discriminator_accuracy": 0.7}
        >>> logs |= {"discriminator_real": 0.6, "discriminator_fake": 0.4}
        >>> watch.on_epoch_end(0, logs)
    """

    def __init__(
        self, won_from: float = 0.95, lost_below: float = 0.55, lost_gap: float = 0.02
    ) -> None:
        super().__init__()
        self.won_from, self.lost_below, self.lost_gap = won_from, lost_below, lost_gap
        self._told = ""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Judge the epoch's means; logs without a discriminator's are passed over."""
        if "discriminator_accuracy" not in (logs or {}):
            return
        accuracy = logs["discriminator_accuracy"]
        gap = logs["discriminator_real"] - logs["discriminator_fake"]
        result, cure = "", ""
        if accuracy >= self.won_from:
            result, cure = "won", "lower its learning rate or its share of the update_ratio"
        elif accuracy < self.lost_below and gap <= self.lost_gap:
            result = "lost"
            cure = "unless the student has come to match the teacher, raise its learning rate"
        told, self._told = self._told, result
        if result in ("", told):
            return
        warnings.warn(
            f"epoch {epoch + 1}: the discriminator has {result} (accuracy {accuracy:.3f}, "
            f"probabilities {gap:.3f} apart) and teaches the student little: {cure}",
            DiscriminatorWarning,
            stacklevel=2,
        )
