"""What a run achieved, in one sentence, and how far chance could explain it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kd_keras.pipeline import numerals
from kd_keras.pipeline.results_table import Row, rows

# A difference this many standard errors wide is taken for more than chance (about 95 %).
CLEAR_DIFFERENCE = 2.0

_NAMES = {
    "teacher": "teacher",
    "student_alone": "student trained alone",
    "student": "distilled student",
    "student_compressed": "compressed student",
    "float32": "float32 student",
    "int8": "int8 student",
}


@dataclass(frozen=True)
class Difference:
    """Accuracy of one row minus that of another, both measured on the same test images.

    The standard error is that of two independent measurements. Two models seeing the same images
    usually err together, which makes the true error smaller: the estimate is a careful one.
    """

    value: float
    error: float | None

    @property
    def is_clear(self) -> bool | None:
        """Whether the difference is more than chance; None where that cannot be told."""
        return None if self.error is None else abs(self.value) > CLEAR_DIFFERENCE * self.error


def difference(report: Mapping[str, Any], key: str, other: str) -> Difference | None:
    """Returns accuracy of `key` minus accuracy of `other`, None where one is missing."""
    by_key = {row.key: row for row in rows(report)}
    if key not in by_key or other not in by_key:
        return None
    first, second = by_key[key].value("accuracy"), by_key[other].value("accuracy")
    if first is None or second is None:
        return None
    errors = [e for e in (by_key[key].accuracy_error, by_key[other].accuracy_error) if e]
    return Difference(first - second, math.hypot(*errors) if errors else None)


def smaller_than_teacher(report: Mapping[str, Any]) -> float | None:
    """Returns how many times smaller the final row is than the teacher's float32 weights."""
    by_key = {row.key: row for row in rows(report)}
    final, teacher = final_row(report), by_key.get("teacher")
    if final is None or teacher is None or final is teacher or final.key == "teacher":
        return None
    if not final.size or not teacher.size:
        return None
    return teacher.size / final.size


def final_row(report: Mapping[str, Any]) -> Row | None:
    """Returns the last product that has an accuracy: the int8 file where there is one."""
    with_accuracy = [row for row in rows(report) if row.value("accuracy") is not None]
    return with_accuracy[-1] if with_accuracy else None


def _distillation(report: Mapping[str, Any]) -> str:
    gain = difference(report, "student", "student_alone")
    if gain is None:
        return ""
    amount = numerals.points(gain.value)
    if amount.startswith("±"):
        return "distillation changed nothing against the student alone"
    if gain.value > 0:
        text = f"distillation gave {amount} over the student alone"
    else:
        text = f"distillation lost {amount.removeprefix('−')} against the student alone"
    if gain.is_clear is False:
        text += ", which may be chance"
    return text


def verdict(report: Mapping[str, Any]) -> str:
    """Sums the run up in one sentence, computed from the numbers; also where distillation lost.

    Args:
        report: The contents of `report.json`; models, files and fields may be missing.
    """
    final = final_row(report)
    if final is None:
        return "This run has not measured a model yet."
    facts = [f"{numerals.percent(final.value('accuracy'), 1)} accurate"]
    shrink = smaller_than_teacher(report)
    if shrink is not None:
        word = "smaller" if shrink >= 1 else "larger"
        facts.append(f"{numerals.ratio(max(shrink, 1 / shrink))} {word} than the teacher")
    if final.latency("median") is not None:
        facts.append(f"{numerals.latency(final.latency('median'))} on this machine")
    sentence = f"The {_NAMES[final.key]}: {', '.join(facts)}"
    distillation = _distillation(report)
    return f"{sentence}; {distillation}." if distillation else f"{sentence}."


def how_sure(report: Mapping[str, Any]) -> str:
    """Says how far apart two accuracies must be, on this test set, to mean anything."""
    final = final_row(report)
    if final is None or final.test_images is None or final.accuracy_error is None:
        return ""
    text = (
        f"An accuracy on {numerals.count(final.test_images)} test images has a standard error: "
        f"here ±{100 * final.accuracy_error:.1f} points."
    )
    gain = difference(report, "student", "student_alone")
    if gain is None or gain.error is None:
        return text
    needed = 100 * CLEAR_DIFFERENCE * gain.error
    answer = "more" if gain.is_clear else "not more"
    return (
        f"{text} Between distilled student and student alone, less than {needed:.1f} points "
        f"(two standard errors) may be chance; {numerals.points(gain.value)} is {answer} than that."
    )
