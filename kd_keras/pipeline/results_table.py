"""The main table of a run, from teacher to int8 file, and the sentence that sums it up.

One description of rows and columns serves the HTML page, the terminal and a README, so that the
three cannot disagree. It reads the contents of `report.json` and computes nothing that is not
there, except standard errors, differences and ratios.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kd_keras.pipeline import numerals
from kd_keras.pipeline.numerals import MISSING, number

FLOAT32_BYTES = 4

_ROWS = (
    ("teacher", "models", "teacher", "Teacher"),
    ("student_alone", "models", "student_alone", "Student alone"),
    ("student", "models", "student", "Distilled student"),
    ("student_compressed", "models", "student_compressed", "Compressed student"),
    ("float32", "tflite", "float32", "float32 TFLite"),
    ("int8", "tflite", "int8", "int8 TFLite"),
)
#: What the folders of the techniques begin with; each goes on with its number and name.
_STEPS = "student_compressed/"
LABELS = {key: label for key, _, _, label in _ROWS}


@dataclass(frozen=True)
class Timing:
    """A measurement of a file, as `tflite_export.measuring.result.Measurement` describes it."""

    entry: Mapping[str, Any]

    @property
    def threads(self) -> int:
        """How many an inference may use."""
        return self.entry["setting"]["threads"]

    @property
    def repeats(self) -> int:
        """How many processes measured."""
        return len(self.entry["readings"])

    def figure(self, name: str, of: str = "median") -> float | None:
        """Returns a figure in microseconds: over the repeats, the median, `low` or `high`."""
        return number((self.entry["latency_us"].get(name) or {}).get(of))


@dataclass(frozen=True)
class Row:
    """One model or file of the report.

    Attributes:
        key: Its name in `report.json`, e.g. `student_alone` or `int8`.
        label: Its name for a reader.
        entry: What the report holds about it.
        test_images: Number of images its accuracy was measured on, None where unknown.
    """

    key: str
    label: str
    entry: Mapping[str, Any]
    test_images: int | None

    def value(self, name: str) -> float | None:
        """Returns the finite number `name` of the entry, else None."""
        return number(self.entry.get(name))

    @property
    def accuracy_error(self) -> float | None:
        """Binomial standard error of the accuracy, None where it is not known."""
        return standard_error(self.value("accuracy"), self.test_images)

    @property
    def size_is_estimate(self) -> bool:
        """Whether the row has no file, so that its size is that of its weights in float32."""
        return self.value("bytes") is None

    @property
    def size(self) -> float | None:
        """Bytes of the file, or of the float32 weights for a model that was not exported."""
        if not self.size_is_estimate:
            return self.value("bytes")
        parameters = self.value("parameters")
        return None if parameters is None else FLOAT32_BYTES * parameters

    @property
    def timings(self) -> list[Timing]:
        """How long an inference takes, for each number of threads; of a file that was measured."""
        return [Timing(found) for found in self.entry.get("measurements") or []]

    def latency(self, name: str) -> float | None:
        """Returns `median`, `p90` or another figure of the first timing in microseconds."""
        return self.timings[0].figure(name) if self.timings else None


@dataclass(frozen=True)
class Cell:
    """One cell: its text, and what stands smaller beside it (`± 0.77`, or `*` for an estimate)."""

    text: str
    note: str = ""

    def __str__(self) -> str:
        """Returns text and note in one line."""
        return f"{self.text} {self.note}" if self.note else self.text


@dataclass(frozen=True)
class ResultsTable:
    """The main table, written but not laid out."""

    headings: list[str]
    labels: list[str]
    cells: list[list[Cell]]
    footnotes: list[str]


def standard_error(accuracy: float | None, images: int | None) -> float | None:
    """Standard error of an accuracy measured on independent images, `sqrt(p (1 - p) / n)`.

    Args:
        accuracy: Fraction of the images that were right.
        images: Number of images.

    Returns:
        The error as a fraction; None where something is unknown, and at exactly 0 or 1, where the
        formula gives 0 and means nothing.
    """
    if accuracy is None or not images or not 0 < accuracy < 1:
        return None
    return math.sqrt(accuracy * (1 - accuracy) / images)


def rows(report: Mapping[str, Any]) -> list[Row]:
    """Returns the rows that the report has, from teacher to int8 file."""
    images = number((report.get("data") or {}).get("test"))
    found = []
    for key, section, name, label in [*_ROWS[:3], *_steps(report), *_ROWS[3:]]:
        entry = (report.get(section) or {}).get(name)
        if entry:
            found.append(Row(key, label, entry, None if images is None else int(images)))
    return found


def _steps(report: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """The rows of a student between two techniques of its compression."""
    folders = [name for name in report.get("models") or {} if name.startswith(_STEPS)]
    labels = [folder.removeprefix(_STEPS).split("_", 1)[1] for folder in folders]
    return [
        (folder, "models", folder, f"… after {label.replace('_', ' ')}")
        for folder, label in zip(folders, labels, strict=True)
    ]


def _accuracy_cells(all_rows: Sequence[Row]) -> list[Cell]:
    cells = []
    for row in all_rows:
        error = row.accuracy_error
        note = "" if error is None else f"± {100 * error:.2f}"
        cells.append(Cell(numerals.percent(row.value("accuracy")), note))
    return cells


def _size_cells(all_rows: Sequence[Row]) -> list[Cell]:
    texts = numerals.sizes([row.size for row in all_rows])
    return [
        Cell(text, "*" if row.size_is_estimate and row.size is not None else "")
        for text, row in zip(texts, all_rows, strict=True)
    ]


def _each(name: str, write: Callable[[float | None], str]) -> Callable[[Sequence[Row]], list[Cell]]:
    return lambda all_rows: [Cell(write(row.value(name))) for row in all_rows]


def _latency_cells(name: str) -> Callable[[Sequence[Row]], list[Cell]]:
    return lambda all_rows: [
        Cell(text) for text in numerals.latencies([row.latency(name) for row in all_rows])
    ]


# What a reader compares first stands first: on a phone only the leading columns are in view.
_COLUMNS: tuple[tuple[str, Callable[[Sequence[Row]], list[Cell]]], ...] = (
    ("Accuracy", _accuracy_cells),
    ("Size", _size_cells),
    (
        "gzip",
        lambda all_rows: [
            Cell(text) for text in numerals.sizes([row.value("gzip_bytes") for row in all_rows])
        ],
    ),
    ("Latency", _latency_cells("median")),
    ("p90", _latency_cells("p90")),
    ("Agreement", _each("agreement", numerals.percent)),
    ("Parameters", _each("parameters", numerals.count)),
    ("Multiply-adds", _each("macs", numerals.count)),
    ("Sparsity", _each("sparsity", lambda value: numerals.percent(value, 1))),
)


def _footnotes(all_rows: Sequence[Row]) -> list[str]:
    parts = []
    if any(row.accuracy_error is not None for row in all_rows):
        images = numerals.count(all_rows[0].test_images)
        parts.append(f"± one standard error on {images} test images, in points.")
    if any(cell.note for cell in _size_cells(all_rows)):
        parts.append("* Not a file: its weights as float32, 4 bytes each.")
    setups = {(row.timings[0].threads, row.timings[0].repeats) for row in all_rows if row.timings}
    if len(setups) == 1:
        threads, repeats = setups.pop()
        parts.append(
            f"Latency is the middle of {repeats} processes' medians on {numerals.count(threads)} "
            f"thread{'s'[: threads > 1]}."
        )
    if any(row.value("agreement") is not None for row in all_rows):
        parts.append("Agreement: same top-1 class as the Keras student.")
    return parts


def results_table(report: Mapping[str, Any]) -> ResultsTable:
    """Writes the cells of the main table; columns without a single value are left out."""
    all_rows = rows(report)
    columns = [(heading, write(all_rows)) for heading, write in _COLUMNS]
    columns = [column for column in columns if any(cell.text != MISSING for cell in column[1])]
    return ResultsTable(
        headings=[heading for heading, _ in columns],
        labels=[row.label for row in all_rows],
        cells=[[cells[index] for _, cells in columns] for index in range(len(all_rows))],
        footnotes=_footnotes(all_rows),
    )


def _text_grid(written: ResultsTable) -> list[list[str]]:
    """Returns headings and rows as texts; a missing note is padded so that the digits align."""
    lines = [["Model", *written.headings]]
    for label, cells in zip(written.labels, written.cells, strict=True):
        lines.append([label, *map(str, cells)])
    for column in range(len(written.headings)):
        width = max((len(cells[column].note) for cells in written.cells), default=0)
        for line, cells in zip(lines[1:], written.cells, strict=True):
            missing = width - len(cells[column].note)
            line[column + 1] += " " * (missing + (missing == width > 0))
    return lines


def table(report: Mapping[str, Any]) -> str:
    """Writes the main table as plain text for a terminal, with its footnotes.

    Args:
        report: The contents of `report.json`; models, files and fields may be missing.

    Returns:
        Lines without a final line break.
    """
    written = results_table(report)
    grid = _text_grid(written)
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    lines = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in grid
    ]
    lines.insert(1, "─" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join([*lines, *written.footnotes])


def markdown_table(report: Mapping[str, Any]) -> str:
    """Writes the main table in GitHub's Markdown, numbers to the right, with its footnotes.

    Args:
        report: The contents of `report.json`; models, files and fields may be missing.

    Returns:
        Lines without a final line break.
    """
    written = results_table(report)
    lines = [["Model", *written.headings], ["---", *["---:"] * len(written.headings)]]
    for label, cells in zip(written.labels, written.cells, strict=True):
        lines.append([label, *(str(cell).replace("*", r"\*") for cell in cells)])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    footnotes = " ".join(written.footnotes).replace("*", r"\*")
    return f"{text}\n\n{footnotes}".rstrip()
