"""From a model file of any kind to a .tflite file and its description."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tflite_export import recipes
from tflite_export.array_file import load_array
from tflite_export.conversion import keras_content
from tflite_export.errors import ExportError
from tflite_export.keras_file import load_keras_model
from tflite_export.provenance import digest, versions
from tflite_export.quiet import silenced_stderr
from tflite_export.recipes import Recipe
from tflite_export.saved_model import saved_model_content
from tflite_export.tflite_file import tflite_content
from tflite_export.tflite_model import TensorFacts, TFLiteModel
from tflite_export.writing import Content, refuse_existing, replacing, write_checked


def convert_file(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    recipe: str = "int8",
    *,
    representative: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a model file as .tflite file, and beside it a `.json` that says what it is.

    The description holds the recipe, the versions of what made the file, the SHA-256 of the file,
    of its source and of the representative data, and of input and output the name in the
    signature, shape, format, scale and zero point. It holds no time and no folder: the same source
    gives the same bytes.

    Args:
        source: a `.keras` or `.h5` file of a whole model, the folder of a SavedModel, or a
            `.tflite` file in float32.
        path: of the new file; the description has the same name with `.json`.
        recipe: see `tflite_export.convert`.
        representative: an `.npy` file with what `tflite_export.convert` takes.
        overwrite: replace files that are there.

    Returns:
        The path of the file.

    Raises:
        ExportError: a file is missing, damaged, of another kind or there already, or see
            `tflite_export.convert`. Nothing is left behind then.
    """
    source, target, chosen = Path(source), Path(path), recipes.get(recipe)
    if target.suffix != ".tflite":
        raise ExportError(f"output {str(target)!r} is no .tflite file; give it that ending")
    refuse_existing([target, target.with_suffix(".json")], overwrite)
    if not source.exists():
        raise ExportError(f"model {str(source)!r} does not exist")
    images = (
        None if representative is None else load_array(Path(representative), "representative data")
    )
    made = _content(source, chosen, images)
    with replacing(target.with_suffix(".json")) as described, replacing(target) as temporary:
        write_checked(made, temporary)
        description = {
            "file": {"name": target.name, "bytes": len(made.data), "sha256": digest(temporary)},
            "recipe": asdict(chosen),
            "source": {"name": source.name, "sha256": digest(source)},
            "representative": _representative_facts(representative, images),
            "versions": versions(),
            **_tensors(temporary),
        }
        described.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    return target


def _content(source: Path, recipe: Recipe, images: np.ndarray | None) -> Content:
    if (source / "saved_model.pb").is_file():
        return saved_model_content(source, recipe, images)
    if source.is_file() and source.suffix in (".keras", ".h5", ".hdf5"):
        with silenced_stderr():
            model = load_keras_model(source)
        return keras_content(model, recipe, images)
    if source.is_file() and source.suffix == ".tflite":
        return tflite_content(source, recipe, images)
    raise ExportError(
        f"model {str(source)!r} is of no known kind; give a .keras, .h5 or .tflite file or the "
        f"folder of a SavedModel"
    )


def _representative_facts(
    path: str | os.PathLike[str] | None, images: np.ndarray | None
) -> dict[str, Any] | None:
    if path is None or images is None:
        return None
    return {"name": Path(path).name, "images": len(images), "sha256": digest(Path(path))}


def _tensors(path: Path) -> dict[str, Any]:
    model = TFLiteModel(path)
    return {"input": _tensor(model.input), "output": _tensor(model.output)}


def _tensor(facts: TensorFacts) -> dict[str, Any]:
    return {
        "name": facts.name,
        "shape": list(facts.shape),
        "dtype": np.dtype(facts.dtype).name,
        "scale": facts.scale,
        "zero_point": facts.zero_point,
    }
