"""From a model file of any kind to a .tflite file and its description."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from tflite_export import recipes
from tflite_export.auto import Examples, smallest
from tflite_export.conversion import keras_content
from tflite_export.description import Known, choice, describe
from tflite_export.ends import Ends
from tflite_export.errors import ExportError
from tflite_export.keras_file import load_keras_model
from tflite_export.metadata import Card, with_metadata
from tflite_export.preprocessing import Preprocessing
from tflite_export.quiet import silenced_stderr
from tflite_export.recipes import AUTO, Recipe
from tflite_export.representative import Representative, load_representative
from tflite_export.saved_model import saved_model_content
from tflite_export.tflite_file import tflite_content
from tflite_export.tflite_model import TFLiteModel
from tflite_export.writing import Content, refuse_existing, replacing, write_checked


def convert_file(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    recipe: str = "int8",
    *,
    representative: str | os.PathLike[str] | None = None,
    representative_count: int | None = None,
    seed: int = 0,
    preprocessing: Preprocessing | None = None,
    labels: Sequence[str] | None = None,
    with_preprocessing: bool = False,
    output_form: str | None = None,
    card: Card | None = None,
    examples: Examples | None = None,
    batch_size: int = 1,
    overwrite: bool = False,
) -> Path:
    """Writes a model file as .tflite file, and beside it a `.json` that says what it is.

    The description holds the recipe, the versions of what made the file, the SHA-256 of the file,
    of its source and of the representative data, and of input and output the name in the
    signature, shape, format, scale and zero point. Where the preprocessing is known, it tells that
    too, with code for Python and Kotlin that feeds the file accordingly. Preprocessing, labels and
    card stand in the file as well, as TFLite metadata. Neither holds a time or a folder: the same
    source gives the same bytes.

    Args:
        source: a `.keras` or `.h5` file of a whole model, the folder of a SavedModel, or a
            `.tflite` file in float32.
        path: of the new file; the description has the same name with `.json`.
        recipe: see `tflite_export.convert`; or `auto`: those of `auto.TRIED` are tried, and the
            one with the smallest file that `examples` find good enough is taken.
        representative: an `.npy` file with what `tflite_export.convert` takes; a folder with a
            sub-folder of pictures for each class, which are resized and preprocessed; or a config
            (`FILE.py`, `FILE.py:ARGUMENT`) that an installed package trains from, such as kd_keras:
            its training images, as in training. That also tells `preprocessing` and `labels`.
        representative_count: how many images of it to take, at random, of a folder or a config the
            same number of each class; when not given, all of a file and 500 of these.
        seed: of that choice.
        preprocessing: what the model was trained with, for the description.
        labels: names of the classes, in the order of the outputs; see `read_labels`.
        with_preprocessing: the file takes pixels, uint8 from 0 to 255, and preprocesses them
            itself.
        output_form: see `tflite_export.convert`.
        card: name, author, licence and version of the model.
        examples: that decide in recipe `auto`.
        batch_size: see `tflite_export.convert`; a `.tflite` source has it already. The code in the
            description feeds single pictures: there is none with another batch than 1.
        overwrite: replace files that are there.

    Returns:
        The path of the file.

    Raises:
        ExportError: a file is missing, damaged, of another kind or there already, no recipe is good
            enough, or see `tflite_export.convert`. Nothing is left behind then.
    """
    source, target = Path(source), Path(path)
    chosen = None if recipe == AUTO else recipes.get(recipe)
    _check_options(target, chosen, examples)
    refuse_existing([target, target.with_suffix(".json")], overwrite)
    if not source.exists():
        raise ExportError(f"model {str(source)!r} does not exist")
    data = None
    if representative is None and representative_count is not None:
        raise ExportError("representative_count is given without data; give --representative too")
    if representative is not None:
        data = load_representative(Path(representative), preprocessing, representative_count, seed)
        preprocessing, labels = data.preprocessing, labels or data.labels
    if with_preprocessing and preprocessing is None:
        raise ExportError(
            "with_preprocessing needs to know what the model was trained with; give --pixel_range, "
            "and --mean and --std where there were some"
        )
    ends = Ends(preprocessing if with_preprocessing else None, output_form)
    known = Known(preprocessing, labels, ends, card or Card())
    tried = None
    if chosen is not None:
        made = _content(source, chosen, data, batch_size)
    elif examples is not None:
        made, tried = smallest(
            lambda each: _content(source, each, data if each.needs_ranges else None, batch_size),
            examples,
        )
    with replacing(target.with_suffix(".json")) as described, replacing(target) as temporary:
        write_checked(made, temporary, ends)
        _tell_inside(temporary, known)
        description = describe(
            *(temporary, made.recipe, source, data if made.recipe.needs_ranges else None, known),
            auto=choice(tried, examples, source),
            name=target.name,
        )
        described.write_text(
            json.dumps(description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return target


def _check_options(target: Path, recipe: Recipe | None, examples: Examples | None) -> None:
    if target.suffix != ".tflite":
        raise ExportError(f"output {str(target)!r} is no .tflite file; give it that ending")
    if (recipe is None) != (examples is not None):
        raise ExportError(
            f"recipe {AUTO!r}, and no other, is chosen by test images and a floor; give "
            f"--images_npy and --floor with it, and --labels_npy for accuracy rather than agreement"
        )


def _tell_inside(path: Path, known: Known) -> None:
    if known.anything:
        inside = known.ends.preprocessing is not None
        told = (known.card, known.preprocessing, known.labels, inside)
        path.write_bytes(with_metadata(path.read_bytes(), TFLiteModel(path), *told))
        TFLiteModel(path)  # still loads


def _content(source: Path, recipe: Recipe, data: Representative | None, batch_size: int) -> Content:
    if (source / "saved_model.pb").is_file():
        return saved_model_content(source, recipe, data, batch_size)
    if source.is_file() and source.suffix in (".keras", ".h5", ".hdf5"):
        with silenced_stderr():
            model = load_keras_model(source)
        return keras_content(model, recipe, data, batch_size)
    if source.is_file() and source.suffix == ".tflite":
        return tflite_content(source, recipe, data, batch_size)
    raise ExportError(
        f"model {str(source)!r} is of no known kind; give a .keras, .h5 or .tflite file or the "
        f"folder of a SavedModel"
    )
