"""Flow between layers (Yim, Joo, Bae, Kim 2017, "A Gift from Knowledge Distillation")."""

from collections.abc import Sequence

import tensorflow as tf

from kd_keras import maps
from kd_keras.errors import InputError
from kd_keras.methods.base import NO_CONTEXT, Context, Method, at_least_zero
from kd_keras.schedules import Scheduled
from kd_keras.serialization import serializable
from kd_keras.taps import Outputs

#: Names of the first and the last layer of a section.
Pair = Sequence[str]


def flow(first: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
    """`G_ij = sum_{s,t} F1_{s,t,i} * F2_{s,t,j} / (h * w)` (equation 1).

    Args:
        first: `F1`, `(batch, height, width, m)`.
        last: `F2`, `(batch, height', width', n)`; the larger of the two is max-pooled to the size
            of the smaller, which is the `h` and `w` of the formula.

    Returns:
        `(batch, m, n)`, float32.
    """
    size = maps.common_size(first.shape, last.shape, "the two maps of a pair")
    first, last = (maps.max_pooled(tf.cast(values, tf.float32), size) for values in (first, last))
    return tf.einsum("bhwi,bhwj->bij", first, last) / (size[0] * size[1])


def fsp(
    teacher_pairs: Sequence[tuple[tf.Tensor, tf.Tensor]],
    student_pairs: Sequence[tuple[tf.Tensor, tf.Tensor]],
    *,
    section_weights: Sequence[float],
) -> tf.Tensor:
    """`sum_k lambda_k * ||G_k^T - G_k^S||_F^2` of each example (equation 2).

    Args:
        teacher_pairs: First and last map of each section, as `flow` takes them.
        student_pairs: The same of the student, with the same channels; sizes may differ.
        section_weights: `lambda_k`.

    Returns:
        `(batch,)`, float32; 0 where the student matches the teacher.
    """
    pairs = zip(section_weights, teacher_pairs, student_pairs, strict=True)
    sections = [
        weight * tf.reduce_sum(tf.math.squared_difference(flow(*s), flow(*t)), axis=[1, 2])
        for weight, t, s in pairs
    ]
    return tf.add_n(sections)


@serializable(package="kd_keras")
class FSP(Method):
    """How the teacher's features flow from layer to layer, rather than the features themselves.

    The inner products of the channels of two layers say how one is made from the other. Made to
    start a student: train a first stage on this term alone (`label_weight=0`), a second on the
    labels alone, from the weights of the first. It wants a student that is the teacher's shallower
    sister, such as ResNet-20 under ResNet-56: the named layers must have the teacher's channels.
    Maps may be smaller or larger than the teacher's.

    Args:
        teacher_pairs: For each section of the teacher, the names of its first and last layer. The
            paper takes three sections, each of one size of maps; by default here the outputs of
            the stages that our networks name.
        student_pairs: The student's layers; by default of the same names.
        section_weights: `lambda_k`, at least 0; the paper's and the default are all equal, 1.
        weight: Factor of the term in the student's loss; a number or a schedule.
        name: The term's name in the logs.

    Raises:
        InputError: If the pairs are no pairs or not equally many, or a weight is below 0.

    Example:
        >>> FSP(teacher_pairs=[("stem", "stage1")]).student_layers
        ('stem', 'stage1')
    """

    hyperparameters = ("teacher_pairs", "student_pairs", "section_weights")
    reads_logits = False

    def __init__(
        self,
        *,
        teacher_pairs: Sequence[Pair] = (("stage1", "stage2"), ("stage2", "stage3")),
        student_pairs: Sequence[Pair] | None = None,
        section_weights: Sequence[float] | None = None,
        weight: Scheduled = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__(weight=weight, name=name)
        if student_pairs is None:
            student_pairs = teacher_pairs
        self.teacher_pairs = _pairs("teacher_pairs", teacher_pairs)
        self.student_pairs = _pairs("student_pairs", student_pairs)
        weights = [1.0] * len(self.teacher_pairs) if section_weights is None else section_weights
        self.section_weights = tuple(at_least_zero("section_weights", float(w)) for w in weights)
        if not len(self.teacher_pairs) == len(self.student_pairs) == len(self.section_weights):
            raise InputError(
                f"{self.name} has {len(self.teacher_pairs)} pairs of the teacher, "
                f"{len(self.student_pairs)} of the student and {len(self.section_weights)} "
                "section_weights: give as many of each"
            )

    @property
    def teacher_layers(self) -> tuple[str, ...]:
        """See `Method.teacher_layers`."""
        return _names(self.teacher_pairs)

    @property
    def student_layers(self) -> tuple[str, ...]:
        """See `Method.student_layers`."""
        return _names(self.student_pairs)

    def __call__(
        self, teacher: Outputs, student: Outputs, context: Context = NO_CONTEXT
    ) -> tf.Tensor:
        """See `fsp`."""
        return fsp(
            [(teacher.layers[a], teacher.layers[b]) for a, b in self.teacher_pairs],
            [(student.layers[a], student.layers[b]) for a, b in self.student_pairs],
            section_weights=self.section_weights,
        )

    def check(self, teacher: Outputs, student: Outputs) -> None:
        """See `Method.check`."""
        for role, outputs, pairs in (
            ("teacher", teacher, self.teacher_pairs),
            ("student", student, self.student_pairs),
        ):
            for a, b in pairs:
                what = f"{self.name}: the {role}'s layers {a!r} and {b!r}"
                maps.common_size(outputs.layers[a].shape, outputs.layers[b].shape, what)
        for ours, theirs in zip(self.teacher_pairs, self.student_pairs, strict=True):
            for a, b in zip(ours, theirs, strict=True):
                channels = teacher.layers[a].shape[-1], student.layers[b].shape[-1]
                if channels[0] != channels[1]:
                    raise InputError(
                        f"{self.name}: layer {a!r} of the teacher has {channels[0]} channels, "
                        f"{b!r} of the student {channels[1]}: name layers of equal channels"
                    )


def _pairs(name: str, pairs: Sequence[Pair]) -> tuple[tuple[str, ...], ...]:
    found = tuple(() if isinstance(pair, str) else tuple(pair) for pair in pairs)
    if not found or not all(len(p) == 2 and all(isinstance(n, str) for n in p) for p in found):
        raise InputError(
            f"{name} is {pairs!r}; it must be pairs of layer names: "
            "[('stage1', 'stage2'), ('stage2', 'stage3')]"
        )
    return found


def _names(pairs: Sequence[Pair]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for pair in pairs for name in pair))
