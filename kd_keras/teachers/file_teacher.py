"""What teachers that are programs in files share: one input, and outputs by name."""

import abc
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras import taps
from kd_keras.errors import InputError
from kd_keras.taps import Outputs
from kd_keras.teachers.base import Teacher

_LOGITS = "logits"
_PROBED = 8  # rows: logits do not look like probabilities in so many by chance
_SLACK = 1e-2  # of a sum of probabilities: float16 does no better
_SOFTMAX_STEPS = (2**-8, 2**-15)  # TFLite fixes them for 8 and 16 bits; logits have others


class FileTeacher(Teacher):
    """A program in a file, of which nothing can be read but what the file names as outputs.

    Args:
        path: Of the file.
        input_spec: Of the input; the first dimension is the batch.
        output_specs: Of the outputs, by name.
        steps: The sizes of the outputs' quantization steps, of those that are quantized.
        output: Name of the output that is the logits. By default the only one, or that which is
            called "logits".
        from_logits: Whether that output is logits. None finds out, from its values on a few random
            inputs: it is probabilities if all lie in 0..1 and each row's sum is 1, to 0.01 or as
            far as quantization allows, and logits if one lies outside of 0..1. Else it is in
            doubt, and so it is if an input size beside the batch is not fixed.

    Attributes:
        name: The file's name without its suffix.
        output: Name of the output that is the logits.
        from_logits: Whether it is; probabilities become `log(max(p, 1e-7))`.

    Raises:
        InputError: If no output can be taken for logits, it is in doubt whether they are, or their
            values contradict `from_logits`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        input_spec: tf.TensorSpec,
        output_specs: Mapping[str, tf.TensorSpec],
        steps: Mapping[str, float],
        output: str | None,
        from_logits: bool | None,
    ) -> None:
        self.path = pathlib.Path(path)
        self.name = self.path.stem
        self._input_spec = input_spec
        self._output_specs = dict(sorted(output_specs.items()))
        self.output = self._logits_output(output)
        self.from_logits = self._gives_logits(from_logits, steps.get(self.output, 0.0))

    @abc.abstractmethod
    def _run(self, x: tf.Tensor, names: Sequence[str]) -> dict[str, tf.Tensor]:
        """The named outputs for a batch that fits `input_spec`, eagerly or in a graph."""

    def outputs(self, x: Any, layers: Sequence[str] = ()) -> Outputs:
        """See `Teacher.outputs`; a layer is an output of the file by its name.

        Raises:
            InputError: If the file has no such output, or the batch does not fit its input.
        """
        self._check_layers(layers)
        found = self._run(self._fitting(x), sorted({self.output, *layers}))
        logits = tf.cast(found[self.output], self.specs().logits.dtype)
        logits = logits if self.from_logits else taps.log_clipped(logits)
        return Outputs(logits, {name: found[name] for name in layers})

    def specs(self, layers: Sequence[str] = ()) -> Outputs:
        """See `Teacher.specs`."""
        self._check_layers(layers)
        logits = self._output_specs[self.output]
        dtype = tf.float32 if logits.dtype in (tf.float16, tf.bfloat16) else logits.dtype
        layer_specs = {name: self._output_specs[name] for name in layers}
        return Outputs(tf.TensorSpec(logits.shape, dtype), layer_specs)

    def input_specs(self) -> tf.TensorSpec:
        """See `Teacher.input_specs`."""
        return self._input_spec

    def _logits_output(self, output: str | None) -> str:
        names = list(self._output_specs)
        if output is None:
            output = names[0] if len(names) == 1 else _LOGITS
            problem = f"has {len(names)} outputs, and none is called {_LOGITS!r}"
        else:
            problem = f"has no output {output!r}"
        if output not in names:
            raise InputError(
                f"the teacher {str(self.path)!r} {problem}; give output=, one of: "
                f"{', '.join(names) or 'none'}"
            )
        shape = self._output_specs[output].shape
        if shape.rank != 2 or shape[1] is None:
            raise InputError(
                f"the output {output!r} of the teacher {str(self.path)!r} has the shape {shape}; "
                "(batch, classes) is needed: export it with one flat output, or give output="
            )
        return output

    def _check_layers(self, layers: Sequence[str]) -> None:
        missing = [name for name in layers if name not in self._output_specs]
        if missing:
            raise InputError(
                f"layer {missing[0]!r} cannot be read: of the teacher {str(self.path)!r} only its "
                f"outputs can, {', '.join(self._output_specs)}; export it with that layer as one"
            )

    def _fitting(self, x: Any) -> tf.Tensor:
        """The batch as the file takes it."""
        flat = [tf.convert_to_tensor(value) for value in tf.nest.flatten(x)]
        spec = self._input_spec
        if len(flat) != 1 or not spec.shape.is_compatible_with(flat[0].shape):
            raise InputError(
                f"the teacher {str(self.path)!r} takes one input {spec.shape}, but the batch is "
                f"{', '.join(str(value.shape) for value in flat)}: give it what it was made for"
            )
        [batch] = flat
        if spec.dtype.is_integer and not batch.dtype.is_integer:
            raise InputError(
                f"the teacher {str(self.path)!r} takes {spec.dtype.name}, and the batch's "
                f"{batch.dtype.name} would lose what is behind the point: give the data as "
                f"{spec.dtype.name}"
            )
        return tf.cast(batch, spec.dtype)

    def _gives_logits(self, said: bool | None, step: float) -> bool:
        values = self._probe()
        found = None if values is None else are_logits(values, step)
        if found is None and said is None:
            raise InputError(
                f"whether the teacher {str(self.path)!r} gives logits or probabilities cannot be "
                f"told {_doubt(values)}: pass from_logits=True or from_logits=False"
            )
        if None not in (found, said) and found != said:
            what = ("logits", "probabilities") if found else ("probabilities", "logits")
            raise InputError(
                f"the teacher {str(self.path)!r} gives {what[0]}, which would be taken for "
                f"{what[1]}: pass from_logits={found}"
            )
        return bool(said if found is None else found)

    def _probe(self) -> np.ndarray | None:
        """The output for random inputs of two ranges; None if their shape is not known."""
        shape, dtype = self._input_spec.shape[1:], self._input_spec.dtype
        if not shape.is_fully_defined():
            return None
        random = np.random.default_rng(0)
        x = random.normal(size=(_PROBED, *shape))
        x[::2] *= 100.0
        # What integers mean is not known; 0 and 1 are nearly always among them.
        probe = tf.cast(x, dtype) if dtype.is_floating else tf.cast(x > 0, dtype)
        found = self._run(probe, [self.output])[self.output]
        return np.asarray(tf.cast(found, tf.float32))


def are_logits(values: np.ndarray, step: float = 0.0) -> bool | None:
    """Whether outputs are logits rather than probabilities; None if that is in doubt.

    Args:
        values: `(rows, classes)`, float.
        step: The size of a quantization step, 0 if there is none: each value may be off by a half.
    """
    if not np.isfinite(values).all():
        return None
    slack = max(_SLACK, step)
    if values.min() < -slack or values.max() > 1 + slack:
        return True
    allowed = max(_SLACK, values.shape[1] * step / 2)
    # With many classes the rounding errors add up to more than there is to be seen.
    says_something = allowed < 0.5 or step in _SOFTMAX_STEPS
    sums_to_one = np.abs(values.sum(axis=1) - 1).max() <= allowed
    return False if sums_to_one and says_something else None


def _doubt(values: np.ndarray | None) -> str:
    if values is None:
        return "without a fixed input size"
    sums = values.sum(axis=1)
    return (
        f"from its values, which lie in {values.min():.3g}..{values.max():.3g} with sums of "
        f"{sums.min():.3g}..{sums.max():.3g}"
    )
