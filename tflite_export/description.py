"""What the `.json` beside a .tflite file says: where the file comes from and how to feed it."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export.auto import Examples, Trial
from tflite_export.ends import Ends, read_output
from tflite_export.labels import check_labels
from tflite_export.metadata import Card
from tflite_export.preprocessing import Preprocessing
from tflite_export.provenance import digest, versions
from tflite_export.recipes import Recipe
from tflite_export.representative import Representative
from tflite_export.snippets import snippets
from tflite_export.tflite_model import TensorFacts, TFLiteModel


@dataclass(frozen=True)
class Known:
    """What is known of a model beside its file.

    Attributes:
        preprocessing: what it was trained with; None where that is not known.
        labels: names of its classes, likewise.
        ends: what was put around its graph.
        card: who made it.
    """

    preprocessing: Preprocessing | None
    labels: Sequence[str] | None
    ends: Ends
    card: Card

    @property
    def anything(self) -> bool:
        """Whether there is anything to tell others in metadata."""
        known = (self.preprocessing, self.labels)
        return self.card != Card() or known != (None, None)


def describe(
    path: Path,
    recipe: Recipe,
    source: Path,
    representative: Representative | None,
    known: Known,
    *,
    auto: dict[str, Any] | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Tells what a file is, what it was made from, and how it is fed and read.

    Args:
        path: where it lies.
        recipe: that it was made by.
        source: the model's file or folder.
        representative: data that ranges were taken from.
        known: what the file itself does not tell.
        auto: how the recipe was chosen, from `choice`.
        name: of the file, where it lies under another one yet.

    Raises:
        ExportError: preprocessing or labels do not fit the model.
    """
    name = name or path.name
    return {
        "file": {"name": name, "bytes": path.stat().st_size, "sha256": digest(path)},
        **_origin(recipe, source, representative),
        "auto": auto,
        **_feeding(name, path, known),
    }


def _origin(recipe: Recipe, source: Path, representative: Representative | None) -> dict[str, Any]:
    data = None
    if representative is not None:
        data = {"name": representative.name, **representative.facts, **representative.chosen}
    return {
        "recipe": asdict(recipe),
        "source": {"name": source.name, "sha256": digest(source)},
        "representative": data,
        "versions": versions(),
    }


def choice(
    tried: Sequence[Trial] | None, examples: Examples | None, source: Path
) -> dict[str, Any] | None:
    """Tells how the recipe was chosen; None where the user named it."""
    if tried is None or examples is None:
        return None
    rows = [asdict(trial) for trial in tried]
    for row in rows:  # no folders
        row["reason"] = row["reason"] and row["reason"].replace(str(source), source.name)
    return {
        "score": examples.score,
        "floor": examples.floor,
        "images": len(examples.images),
        "sha256": hashlib.sha256(np.ascontiguousarray(examples.images).tobytes()).hexdigest(),
        "tried": rows,
    }


def _feeding(name: str, path: Path, known: Known) -> dict[str, Any]:
    model = TFLiteModel(path)
    form, classes = read_output(path.read_bytes())
    if known.labels is not None:
        check_labels(known.labels, classes)
    told: dict[str, Any] = {
        "input": _tensor(model.input),
        "card": asdict(known.card),
        "output": {**_tensor(model.output), "form": form or known.ends.output_form},
        "labels": None if known.labels is None else list(known.labels),
        "preprocessing": None,
        "snippets": None,
    }
    if known.preprocessing is not None:
        fitted, inside = known.preprocessing.fitted(model.input.shape), known.ends.preprocessing
        told["preprocessing"] = {
            **asdict(fitted),
            "pixel_mean": fitted.pixel_mean,
            "pixel_std": fitted.pixel_std,
            "in_the_file": inside is not None,
        }
        if model.input.shape[0] == 1:  # the code feeds one picture
            told["snippets"] = snippets(name, model.input, model.output, fitted, inside is not None)
    return told


def _tensor(facts: TensorFacts) -> dict[str, Any]:
    return {
        "name": facts.name,
        "shape": list(facts.shape),
        "dtype": np.dtype(facts.dtype).name,
        "scale": facts.scale,
        "zero_point": facts.zero_point,
    }
