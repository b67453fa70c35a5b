"""How a teacher's outputs for one example become a record of fixed size, and how it is read."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.errors import InputError
from kd_keras.taps import Outputs

DTYPES = ("float32", "float16")
_LAYER = "layer/"


@dataclasses.dataclass(frozen=True)
class RecordLayout:
    """The fields of a record.

    Logits are kept as they are, or as top-k log-probabilities: of the k most probable classes
    `log p_c`, their indices, and of all others one value, `log((1 - sum of the k) / (C - k))`, for
    what is left is spread evenly. It is taken from the other logits, not from a difference that
    would cancel. The logits that are read back are then log-probabilities: those of a model that
    ends in softmax. Methods that compare distributions lose what the spreading blurs; one that
    compares logits (`LogitsL2`) also loses their common offset.

    Of an arithmetic ensemble the logits of each member are kept, because the mean of softened
    distributions depends on the temperature.

    Attributes:
        classes: How many classes the teacher has.
        dtype: "float32" or "float16", of all values.
        top_k: How many classes to keep of each example, or None for all.
        members: The weights of an arithmetic ensemble's members, else empty.
        layers: The shapes of the recorded layers, without the batch, by their names.

    Raises:
        InputError: For an unknown dtype or a `top_k` that is not in 1..classes-1.
    """

    classes: int
    dtype: str = "float16"
    top_k: int | None = None
    members: tuple[float, ...] = ()
    layers: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InputError(
                f"dtype {self.dtype!r} cannot be recorded; there are: {', '.join(DTYPES)}"
            )
        whole = self.top_k is None or (type(self.top_k) is int and 1 <= self.top_k < self.classes)
        if not whole:
            raise InputError(
                f"top_k is {self.top_k!r} for {self.classes} classes; it must be a whole number "
                f"from 1 to {self.classes - 1}, or None for all"
            )

    @classmethod
    def of(cls, outputs: Outputs, dtype: str, top_k: int | None) -> "RecordLayout":
        """The layout for outputs such as these, of one batch."""
        layers = {name: tuple(outputs.layers[name].shape[1:]) for name in sorted(outputs.layers)}
        weights = tuple(float(weight) for _, weight in outputs.members)
        dtype = dtype if isinstance(dtype, str) else np.dtype(dtype).name
        top_k = int(top_k) if isinstance(top_k, np.integer) else top_k
        return cls(int(outputs.logits.shape[-1]), dtype, top_k, weights, layers)

    @property
    def record(self) -> np.dtype:
        """The NumPy type of a record, little-endian and without gaps."""
        real = np.dtype(self.dtype).newbyteorder("<")
        fields: list[tuple] = []
        for name in self._distributions:
            if self.top_k is None:
                fields.append((name, real, (self.classes,)))
            else:
                fields.append((name, real, (self.top_k + 1,)))
                index = "<u2" if self.classes <= 2**16 else "<i4"
                fields.append((_classes_of(name), np.dtype(index), (self.top_k,)))
        fields += [(_LAYER + name, real, shape) for name, shape in self.layers.items()]
        return np.dtype(fields)

    @property
    def _distributions(self) -> list[str]:
        return [f"member{number}" for number in range(len(self.members))] or ["logits"]

    def to_json(self) -> dict[str, Any]:
        """The layout as plain values."""
        return {
            **dataclasses.asdict(self),
            "members": list(self.members),
            "layers": {name: list(shape) for name, shape in self.layers.items()},
        }

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "RecordLayout":
        """What `to_json` gave."""
        layers = {name: tuple(shape) for name, shape in found["layers"].items()}
        return cls(**{**found, "members": tuple(found["members"]), "layers": layers})

    def encode(self, outputs: Outputs) -> np.ndarray:
        """A batch of outputs, as arrays, as records `(batch,)`.

        Raises:
            InputError: If a value is not finite, or too large for the dtype.
        """
        records = np.empty(len(outputs.logits), self.record)
        logits = [value for value, _ in outputs.members] or [outputs.logits]
        for name, values in zip(self._distributions, logits, strict=True):
            values = np.asarray(values)
            if self.top_k is not None:
                _require_finite("the logits", values)
                values, records[_classes_of(name)] = _top(values, self.top_k)
            self._fill(records, name, "the logits", values)
        for name, value in outputs.layers.items():
            self._fill(records, _LAYER + name, f"layer {name!r}", np.asarray(value))
        return records

    def _fill(self, records: np.ndarray, field: str, what: str, values: np.ndarray) -> None:
        if values.shape[1:] != records[field].shape[1:]:
            raise InputError(
                f"{what} of the teacher change their shape, from {records[field].shape[1:]} to "
                f"{values.shape[1:]}: only outputs of a fixed shape can be recorded"
            )
        _require_finite(what, values)
        with np.errstate(over="ignore"):
            records[field] = values
        if not np.isfinite(records[field]).all():
            raise InputError(
                f"{what} of the teacher reach {float(np.abs(values).max()):.3g}, too much for "
                f"{self.dtype}: record them with dtype='float32'"
            )

    def decode(self, fields: dict[str, tf.Tensor], layers: Sequence[str]) -> Outputs:
        """The outputs from the fields of a batch of records, in float32.

        Raises:
            InputError: If a layer is not recorded.
        """
        self.require(layers)
        logits = [self._logits(name, fields) for name in self._distributions]
        heard = {name: tf.cast(fields[_LAYER + name], tf.float32) for name in layers}
        if not self.members:
            return Outputs(logits[0], heard)
        members = tuple(zip(logits, self.members, strict=True))
        return Outputs(tf.add_n([weight * values for values, weight in members]), heard, members)

    def _logits(self, name: str, fields: dict[str, tf.Tensor]) -> tf.Tensor:
        values = tf.cast(fields[name], tf.float32)
        if self.top_k is None:
            return values
        kept = tf.one_hot(tf.cast(fields[_classes_of(name)], tf.int32), self.classes)
        top, rest = values[:, :-1], values[:, -1:]
        return rest + tf.einsum("bk,bkc->bc", top - rest, kept)

    def specs(self, layers: Sequence[str]) -> Outputs:
        """The `tf.TensorSpec`s of what `decode` gives."""
        self.require(layers)
        logits = tf.TensorSpec([None, self.classes], tf.float32)
        heard = {n: tf.TensorSpec([None, *self.layers[n]], tf.float32) for n in layers}
        return Outputs(logits, heard, tuple((logits, weight) for weight in self.members))

    def require(self, layers: Sequence[str]) -> None:
        """Refuse layers that are not recorded."""
        missing = [name for name in layers if name not in self.layers]
        if missing:
            raise InputError(
                f"layer {missing[0]!r} of the teacher is not recorded; recorded are: "
                f"{', '.join(['the logits', *self.layers])}: make the cache with "
                f"layers=({missing[0]!r}, ...)"
            )


def _classes_of(distribution: str) -> str:
    return f"{distribution}/classes"


def _top(logits: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities `(batch, k + 1)`, the last of any other class, and classes `(batch, k)`."""
    largest = np.argpartition(-logits, k - 1, axis=-1)[:, :k]
    kept = np.take_along_axis(logits, largest, axis=-1)
    order = np.argsort(-kept, axis=-1, kind="stable")
    classes = np.take_along_axis(largest, order, axis=-1)
    log_p = logits.astype(np.float64) - _log_sum_exp(logits.astype(np.float64))
    top = np.take_along_axis(log_p, classes, axis=-1)
    np.put_along_axis(log_p, classes, -np.inf, axis=-1)
    rest = _log_sum_exp(log_p) - np.log(logits.shape[-1] - k)
    return np.concatenate([top, rest], axis=-1), classes


def _log_sum_exp(values: np.ndarray) -> np.ndarray:
    largest = values.max(axis=-1, keepdims=True)
    return largest + np.log(np.exp(values - largest).sum(axis=-1, keepdims=True))


def _require_finite(what: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise InputError(
            f"{what} of the teacher are not finite (NaN or infinite) for an example: look at the "
            "teacher and at the range of its inputs"
        )
