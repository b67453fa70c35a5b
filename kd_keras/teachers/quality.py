"""How good a teacher is on the data at hand, and what is likely wrong with one that is not."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from kd_keras.errors import InputError
from kd_keras.teachers import class_order, pixel_ranges
from kd_keras.teachers.answers import Answers, Examples, Interview, Prepare
from kd_keras.teachers.base import Teacher

_ABOVE_CHANCE = 0.05
_SUSPICIOUS = 0.25  # of what is to be had above chance, missed: only then are other ranges tried
_NAMED = 3  # of the classes that are out of order


@dataclasses.dataclass(frozen=True)
class Quality:
    """What `examine` found; shares lie in [0, 1], and what cannot be told is None or empty.

    The teacher is judged, in `warnings`, by the validation examples, and by the training examples
    where there are no others.

    Attributes:
        classes: How many classes the teacher tells apart.
        train_examples: How many training examples were looked at.
        train_accuracy: The share of them that the teacher gets right.
        validation_examples: As `train_examples`.
        validation_accuracy: As `train_accuracy`.
        chance: The share of the most frequent class. A teacher that answers it to everything is
            right so often and teaches nothing; where classes are equally frequent, it is
            1 / classes.
        calibration_error: The expected one, of 15 bins, on the validation examples; see
            `evaluation.calibration_error`.
        member_accuracy: Of each member of an ensemble, on the validation examples.
        agreement: The share of the validation examples of which two members have the same first
            choice, as the mean over all pairs of members.
        reordered_accuracy: The accuracy after the permutation of the teacher's classes that is best
            for it; see `class_order.reordered_accuracy`.
        misplaced: The classes that the best permutation moves, as (class of the data, what the
            teacher says instead), the most frequent first.
        other_inputs: The accuracy on the same images in other ranges, by their description; empty
            unless the teacher is bad and was given pixels.
    """

    classes: int
    train_examples: int
    train_accuracy: float
    validation_examples: int | None
    validation_accuracy: float | None
    chance: float
    calibration_error: float | None
    member_accuracy: Mapping[str, float]
    agreement: float | None
    reordered_accuracy: float
    misplaced: tuple[tuple[str, str], ...]
    other_inputs: Mapping[str, float]

    @property
    def accuracy(self) -> float:
        """The accuracy that the teacher is judged by."""
        known = self.validation_accuracy
        return self.train_accuracy if known is None else known

    def describe(self) -> str:
        """The figures in one line."""
        parts = [f"{_percent(self.train_accuracy)} on train ({self.train_examples} examples)"]
        if self.validation_accuracy is not None:
            found = f"{_percent(self.validation_accuracy)} on validation"
            parts.append(f"{found} ({self.validation_examples})")
        if self.calibration_error is not None:
            parts.append(f"calibration error {_percent(self.calibration_error)}")
        if self.agreement is not None:
            members = (f"{name} {_percent(share)}" for name, share in self.member_accuracy.items())
            parts.append(f"members agree on {_percent(self.agreement)} ({', '.join(members)})")
        return f"teacher: accuracy {', '.join(parts)}"

    def warnings(self) -> list[str]:
        """What is likely wrong with the teacher, a line with its cause and cure; else nothing.

        Another range of the pixels, and another order of the classes, are likely causes if with
        them the teacher makes at most two thirds of its errors, is at least 5 points more accurate,
        and the gain is more than three standard errors. Untrained networks gain a fifth of their
        errors by a permutation, for what they say is not independent of the class.
        """
        if cause := self._cause():
            return [cause]
        if self.accuracy >= self.chance + _ABOVE_CHANCE:
            return []
        untried = "" if self.other_inputs else ", or its inputs are in another range"
        return [
            f"the teacher's accuracy on {self._split} is {_percent(self.accuracy)}, and "
            f"{_percent(self.chance)} is had by always naming the most frequent class; likely "
            f"cause: it is not trained, or was trained for another task{untried}; cure: give one "
            "that is trained on these classes, with its weights (config.teacher.path)"
        ]

    def to_json(self) -> dict[str, Any]:
        """The figures and the warnings as plain values."""
        return {**dataclasses.asdict(self), "warnings": self.warnings()}

    @property
    def _split(self) -> str:
        return "train" if self.validation_accuracy is None else "validation"

    def _cause(self) -> str | None:
        """The likeliest of what could be wrong but the teacher itself."""
        ranges = sorted(self.other_inputs.items(), key=lambda tried: -tried[1])
        if ranges and ranges[0][1] >= self.reordered_accuracy:
            name, other = ranges[0]
            found = (
                f"on images as it gets them, and {_percent(other)} with {name}; likely cause: it "
                f"was trained on such images; cure: {pixel_ranges.cure(name)}"
            )
        else:
            other = self.reordered_accuracy
            more = len(self.misplaced) - _NAMED
            said = [f"{said} for {true}" for true, said in self.misplaced[:_NAMED]]
            listed = ", ".join([*said, f"and {more} more"] if more > 0 else said)
            found = (
                f"as it is, and {_percent(other)} with its classes in another order; likely cause: "
                f"they are not in the data's order (it says {listed}); cure: name them in the "
                "data's order with class_map, or reorder the units of its last layer"
            )
        if not self._is_much_better(other):
            return None
        return f"the teacher's accuracy on {self._split} is {_percent(self.accuracy)} {found}"

    def _is_much_better(self, other: float) -> bool:
        gain, examples = other - self.accuracy, self.validation_examples or self.train_examples
        # That of two independent measurements: a careful estimate, for the examples are the same.
        spread = sum(share * (1 - share) for share in (other, self.accuracy))
        return (
            gain >= _ABOVE_CHANCE
            and gain >= (1 - self.accuracy) / 3
            and gain > 3 * math.sqrt(spread / examples)
        )


def examine(
    teacher: Teacher,
    train: Any,
    validation: Any = None,
    *,
    preprocess: Prepare | None = None,
    examples: int = 2000,
    seed: int = 0,
    class_names: Sequence[str] = (),
) -> Quality:
    """Look at a teacher's answers before anything is learned from them.

    The teacher runs once on each split. On images it runs some times more on those it is judged by,
    in other ranges, if it misses more than a quarter of what is to be had above chance. Memory
    holds one batch of examples and a few numbers of each.

    Args:
        teacher: The teacher.
        train: The training examples: arrays `(x, y)`, which may be memory-mapped, or a
            `tf.data.Dataset` of batches `(x, y)` as the teacher takes them. `y` are class indices
            or one-hot rows; `x` may be a nest of arrays.
        validation: Examples that the teacher was not trained on, or None if there are none.
        preprocess: What makes the teacher's input of rows of the array `x`; by default `x` is it.
            If `x` are images, uint8 `(examples, height, width, channels)`, other ranges are tried.
        examples: At most so many of each split: of arrays a random sample, of a data set the first.
        seed: Of the sample.
        class_names: Of the data, in the order of the labels, for the warnings.

    Raises:
        InputError: If there is no example, a label is no class of the teacher, the teacher gives
            NaN, or its output cannot be taken for logits.

    Example:
        >>> from kd_keras.teachers import KerasTeacher
        >>> teacher = KerasTeacher(tf.keras.Sequential([tf.keras.layers.Activation("linear")]))
        >>> y = tf.range(100) % 4
        >>> quality = examine(teacher, (tf.one_hot(y, 4), y))
        >>> quality.describe()
        'teacher: accuracy 100.0 % on train (100 examples)'
        >>> quality.warnings()
        []
    """
    if examples < 1:
        raise InputError(f"examples is {examples!r}; give 1 at least, to look at some")
    splits = {
        name: Examples(name, given, examples, seed)
        for name, given in (("train", train), ("validation", validation))
        if given is not None
    }
    interview = Interview(teacher)
    found = {name: interview.answers(part, preprocess) for name, part in splits.items()}
    unseen = found.get("validation")
    judged = unseen or found["train"]
    missed = (1 - judged.accuracy) / max(1 - judged.chance, 1e-9)
    other_inputs = {}
    if missed > _SUSPICIOUS:
        last = splits.get("validation", splits["train"])
        other_inputs = pixel_ranges.accuracies(interview, splits["train"], last, preprocess)
    return Quality(
        classes=judged.classes,
        train_examples=len(found["train"]),
        train_accuracy=found["train"].accuracy,
        validation_examples=len(unseen) if unseen else None,
        validation_accuracy=unseen.accuracy if unseen else None,
        chance=judged.chance,
        calibration_error=unseen.calibration_error if unseen else None,
        member_accuracy=unseen.member_accuracy(getattr(teacher, "members", ())) if unseen else {},
        agreement=unseen.agreement if unseen else None,
        reordered_accuracy=class_order.reordered_accuracy(judged.labels, judged.choices),
        misplaced=_misplaced(judged, class_names),
        other_inputs=other_inputs,
    )


def _misplaced(judged: Answers, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    def named(number: int) -> str:
        return repr(names[number]) if number < len(names) else f"class {number}"

    moved = class_order.misplaced(judged.labels, judged.choices)
    return tuple((named(true), named(said)) for true, said in moved)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
