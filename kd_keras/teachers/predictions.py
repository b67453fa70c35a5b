"""A file of predictions as a teacher."""

import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras import taps
from kd_keras.data import stream
from kd_keras.data.splits import array_checksum
from kd_keras.errors import InputError
from kd_keras.taps import Outputs
from kd_keras.teachers.recorded import Recorded

_BLOCK = 4096  # rows looked at together, so that a memory map is never held as a whole


class Predictions(Recorded):
    """What some program has predicted for each example, whatever that program was.

    Row i is of example i of the array, or the `kd_keras.data.Views`, that the student is trained
    on; in a `kd-train` run that is the order of its `data/train_images.npy`. They are of the
    examples as they are, so a training with augmentation is refused: cache a teacher instead.

    Probabilities become logits as `log(max(p, 1e-7))`. There are no layers.

    Args:
        path: An .npy file of `(examples, classes)`, which stays on disk. Pickled arrays are
            refused: they can run any code.
        from_logits: Whether they are logits. None finds out: they are probabilities if every row
            is at least 0 and sums to 1.

    Raises:
        InputError: If the file is missing, no such array, not finite, or holds probabilities that
            are said to be logits, or the reverse.
    """

    def __init__(self, path: str | os.PathLike, *, from_logits: bool | None = None) -> None:
        self.path = pathlib.Path(path)
        self._values = _opened(self.path)
        sums_to_one = _look_at(self.path, self._values)
        if from_logits is not None and from_logits == sums_to_one:
            found, said = (
                ("probabilities", "logits") if sums_to_one else ("logits", "probabilities")
            )
            raise InputError(
                f"{str(path)!r} holds {found} that are said to be {said}: give "
                f"Predictions(path, from_logits={not from_logits})"
            )
        self.from_logits = not sums_to_one

    def require_same(self, views: Any) -> None:
        """See `Recorded.require_same`."""
        if len(views) != len(self._values):
            raise InputError(
                f"{str(self.path)!r} has predictions for {len(self._values)} examples, but there "
                f"are {len(views)}: give one row for each, in their order"
            )
        if views.augmentation is not None:
            raise InputError(
                f"{str(self.path)!r} has predictions of the examples as they are, but the student "
                "would see augmented ones: leave the augmentation out, or cache a teacher"
            )

    def read(self, rows: tf.Tensor, view: tf.Tensor) -> dict[str, tf.Tensor]:
        """See `Recorded.read`."""
        return {"logits": stream.gather(self._values, rows)}

    def decoded(self, recorded: dict[str, tf.Tensor], layers: Sequence[str]) -> Outputs:
        """See `Recorded.decoded`."""
        self._refuse(layers)
        values = tf.cast(recorded["logits"], tf.float32)
        return Outputs(values if self.from_logits else taps.log_clipped(values), {})

    def specs(self, layers: Sequence[str] = ()) -> Outputs:
        """See `Teacher.specs`."""
        self._refuse(layers)
        return Outputs(tf.TensorSpec([None, self._values.shape[1]], tf.float32), {})

    def input_specs(self) -> Any:
        """See `Teacher.input_specs`; the file does not say."""
        return None

    def fingerprint(self) -> str:
        """See `Teacher.fingerprint`; of the predictions."""
        return self._checksum

    @functools.cached_property
    def _checksum(self) -> str:
        return array_checksum(self._values)

    def _refuse(self, layers: Sequence[str]) -> None:
        if layers:
            raise InputError(
                f"layer {layers[0]!r} of the teacher cannot be had: {str(self.path)!r} holds "
                "predictions only; use methods that read logits, such as kd.SoftTargets"
            )


def _opened(path: pathlib.Path) -> np.ndarray:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or "it holds no array of numbers, or part of one"
        raise InputError(
            f"predictions {str(path)!r} cannot be read ({reason}): give an .npy file of numbers "
            "(examples, classes)"
        ) from error
    is_table = isinstance(values, np.ndarray) and values.ndim == 2 and values.shape[1] >= 2
    if not is_table or not np.issubdtype(values.dtype, np.floating):
        shape, dtype = getattr(values, "shape", "?"), getattr(values, "dtype", "?")
        raise InputError(
            f"predictions {str(path)!r} have shape {shape} and dtype {dtype}; give floating-point "
            "numbers (examples, classes) with at least two classes"
        )
    return values


def _look_at(path: pathlib.Path, values: np.ndarray) -> bool:
    """Whether every row is a distribution; refuses numbers that are not finite."""
    sums_to_one = True
    for start in range(0, len(values), _BLOCK):
        block = np.asarray(values[start : start + _BLOCK], np.float32)
        rows = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if rows.size:
            raise InputError(
                f"predictions {str(path)!r} are not finite in row {start + rows[0]}: predict that "
                "example again"
            )
        sums_to_one = sums_to_one and taps.are_probabilities(block)
    return sums_to_one
