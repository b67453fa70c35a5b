"""`kd-export`: a model file to a .tflite file, from the command line.

    kd-export --model=student.keras --representative=images.npy --output=student.tflite

TensorFlow is imported only when the flags are right, so that `--help` answers at once.
"""

import json
import os
from pathlib import Path

from absl import flags

from tflite_export import command_line, recipes
from tflite_export.errors import ExportError
from tflite_export.labels import read_labels
from tflite_export.preprocessing import parse
from tflite_export.quiet import silenced_stderr

FLAGS = flags.FLAGS


def run() -> None:
    """Entry point of the console script."""
    command_line.run("kd-export", _main, _parse_flags)


def _parse_flags(argv: list[str]) -> list[str]:
    text, numbers = flags.DEFINE_string, flags.DEFINE_list
    whole, number, switch = flags.DEFINE_integer, flags.DEFINE_float, flags.DEFINE_bool
    kinds, forms = ", ".join(recipes.RECIPES), ", ".join(recipes.OUTPUT_FORMS)
    defined = (
        (text, "model", None, "A .keras, .h5 or float .tflite file, or a SavedModel's folder."),
        (text, "recipe", "int8", f"auto or one of {kinds}; int8@float:LAYER,LAYER keeps."),
        (text, "output", None, "The .tflite file to write; a .json is written beside it."),
        (text, "representative", None, "An .npy file, a folder with one a class, or a config."),
        (whole, "representative_count", None, "How many images; all of a file, else 500."),
        (whole, "seed", 0, "Of the choice of representative images."),
        (text, "pixel_range", None, "What pixels were scaled to in training: 0..255 or 0..1."),
        (numbers, "mean", None, "Subtracted from the scaled pixels: a number, or one a channel."),
        (numbers, "std", None, "Divided by after that: a number, or one a channel."),
        (text, "channel_order", None, "RGB, BGR or gray; RGB or gray when not given."),
        (text, "labels", None, "A text file with the names of the classes, one a line."),
        (switch, "with_preprocessing", False, "The file takes uint8 pixels and normalises."),
        (
            text,
            "output_form",
            None,
            f"One of {forms}; the model's own by default.",
        ),
        (text, "model_name", None, "The model's name, for the metadata of the file."),
        (text, "author", None, "The model's author, for the metadata."),
        (text, "license", None, "The model's licence, for the metadata: Apache-2.0, say."),
        (text, "model_version", None, "The model's version, for the metadata."),
        (number, "floor", None, "Of recipe auto: least accuracy or agreement of the file."),
        (text, "images_npy", None, "Of recipe auto: test images, as the model takes them."),
        (text, "labels_npy", None, "Of recipe auto: their classes; else agreement counts."),
        (whole, "batch", 1, "How many images one inference takes."),
        (switch, "overwrite", False, "Replace files that are there."),
    )
    for define, name, default, meaning in defined:
        define(name, default, meaning)
    flags.mark_flags_as_required(["model", "output"])
    for _, name, *_ in defined:
        FLAGS.register_key_flag_for_module(argv[0], FLAGS[name])  # --help shows these
    return FLAGS(argv)


def _main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise ExportError(f"unexpected argument {argv[1]!r}; use --model=FILE --output=FILE")
    if FLAGS.recipe != recipes.AUTO:
        recipes.get(FLAGS.recipe)
    if None in (FLAGS.images_npy, FLAGS.floor) and (
        FLAGS.images_npy or FLAGS.labels_npy or FLAGS.floor is not None
    ):
        raise ExportError("recipe 'auto' needs both --images_npy and --floor")
    preprocessing = parse(FLAGS.pixel_range, FLAGS.mean, FLAGS.std, FLAGS.channel_order)
    labels = None if FLAGS.labels is None else read_labels(FLAGS.labels)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with silenced_stderr():  # TensorFlow greets from C++
        from tflite_export.auto import Trial, read_examples
        from tflite_export.file_conversion import convert_file
        from tflite_export.metadata import Card

    examples = None
    if FLAGS.images_npy is not None:
        labels_npy = None if FLAGS.labels_npy is None else Path(FLAGS.labels_npy)
        examples = read_examples(Path(FLAGS.images_npy), labels_npy, FLAGS.floor)
    path = convert_file(
        FLAGS.model,
        FLAGS.output,
        FLAGS.recipe,
        representative=FLAGS.representative,
        representative_count=FLAGS.representative_count,
        seed=FLAGS.seed,
        preprocessing=preprocessing,
        labels=labels,
        with_preprocessing=FLAGS.with_preprocessing,
        output_form=FLAGS.output_form,
        card=Card(FLAGS.model_name, FLAGS.author, FLAGS.license, FLAGS.model_version),
        examples=examples,
        batch_size=FLAGS.batch,
        overwrite=FLAGS.overwrite,
    )
    told = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    if told["auto"] is not None:
        print(f"{'recipe':14} {'bytes':>10} {told['auto']['score']:>9}")
        print(*(Trial(**row) for row in told["auto"]["tried"]), sep="\n")
    kind = told["recipe"]["name"]
    print(f"{path}: {path.stat().st_size} bytes, {kind}; {path.with_suffix('.json').name}")


if __name__ == "__main__":
    run()
