"""`kd-verify`: a .tflite file against the model it was made from, from the command line.

    kd-verify --model=student.tflite --reference=student.keras --images=x.npy --labels=y.npy

Its exit status is 1 where the agreement is below the floor. TensorFlow is imported only where the
reference needs it.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from tflite_export import command_line
from tflite_export.errors import ExportError

if TYPE_CHECKING:
    import numpy as np

    from tflite_export.layer_errors import LayerError
    from tflite_export.reference import Reference

FLAGS = flags.FLAGS


def run() -> None:
    """Entry point of the console script."""
    command_line.run("kd-verify", _main, _parse_flags)


def _parse_flags(argv: list[str]) -> list[str]:
    flags.DEFINE_string("model", None, "The .tflite file to prove.")
    flags.DEFINE_string(
        "reference",
        None,
        "What it was made from: a .keras or .h5 file, the folder of a SavedModel, or a float "
        ".tflite file.",
    )
    flags.DEFINE_string(
        "images",
        None,
        "An .npy file of test images, as the reference takes them; or a config, whose test set is "
        "taken.",
    )
    flags.DEFINE_string("labels", None, "An .npy file of their class numbers; a config has them.")
    flags.DEFINE_float("floor", 0.99, "Least share of images where both decide alike.")
    flags.DEFINE_bool("layers", False, "Also tell which layers lose most.")
    flags.DEFINE_string("output", None, "A .json file to write.")
    flags.DEFINE_bool("overwrite", False, "Replace a file that is there.")
    flags.mark_flags_as_required(["model", "reference", "images"])
    names = ("model", "reference", "images", "labels", "floor", "layers", "output", "overwrite")
    for name in names:
        FLAGS.register_key_flag_for_module(argv[0], FLAGS[name])  # --help shows these
    return FLAGS(argv)


def _main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise ExportError(f"unexpected argument {argv[1]!r}; use --model=FILE --reference=FILE")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from tflite_export import verify_report
    from tflite_export.reference import Reference
    from tflite_export.verification import complaint, examine
    from tflite_export.writing import refuse_existing

    if FLAGS.output is not None:
        refuse_existing([Path(FLAGS.output)], FLAGS.overwrite)
    reference = Reference(FLAGS.reference)
    images, labels, sources = _examples()
    result = examine(FLAGS.model, reference, images, labels, floor=FLAGS.floor)
    layers = _layers(reference, images) if FLAGS.layers else None
    print(verify_report.text(result, layers), flush=True)
    if FLAGS.output is not None:
        _write(Path(FLAGS.output), sources, verify_report.as_dictionary(result, layers))
    if result.agreement < FLAGS.floor:
        raise ExportError(complaint(FLAGS.model, result, FLAGS.floor))


def _examples() -> "tuple[np.ndarray, np.ndarray, dict[str, Any]]":
    """Images, labels and where they come from."""
    from tflite_export.config_source import is_config, read_config
    from tflite_export.npy_file import read_npy

    if is_config(FLAGS.images):
        if FLAGS.labels is not None:
            raise ExportError(f"config {FLAGS.images!r} has the labels, too; leave out --labels")
        found = read_config(FLAGS.images, "test")
        told = {"name": Path(FLAGS.images).name, **found.facts()}
        return found.images, found.labels, {"images": told}
    if FLAGS.labels is None:
        raise ExportError("--labels is missing; give an .npy file of the images' class numbers")
    paths = {"images": Path(FLAGS.images), "labels": Path(FLAGS.labels)}
    images, labels = (read_npy(path, name) for name, path in paths.items())
    return images, labels, {name: _source(path) for name, path in paths.items()}


def _layers(reference: "Reference", images: "np.ndarray") -> "Sequence[LayerError]":
    from tflite_export.layer_errors import layer_errors
    from tflite_export.tflite_model import TFLiteModel

    batch_size = TFLiteModel(FLAGS.model).input.shape[0]
    content, names = reference.float_content(batch_size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reference.tflite"
        path.write_bytes(content)
        return layer_errors(path, FLAGS.model, images, names)


def _source(path: Path) -> dict[str, str]:
    from tflite_export.provenance import digest

    return {"name": path.name, "sha256": digest(path)}


def _write(target: Path, sources: dict[str, Any], found: dict[str, Any]) -> None:
    from tflite_export.provenance import versions
    from tflite_export.writing import replacing

    models = {name: _source(Path(FLAGS[name].value)) for name in ("model", "reference")}
    report = {
        "floor": FLAGS.floor,
        "sources": {**models, **sources},
        "versions": versions(),
        **found,
    }
    with replacing(target) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run()
