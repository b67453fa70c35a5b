"""Keras callbacks of a distillation."""

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
