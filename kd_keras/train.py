"""`kd-train`: the main job from the command line.

    kd-train --config=configs/quickstart.py --workdir=runs/quickstart --config.student.epochs=20

TensorFlow is imported only when a run begins, so that `--help` answers at once.
"""

import functools
import os
import shlex
import sys

from absl import app, flags, logging

from kd_keras import config_flag
from kd_keras.command_line import complaining

FLAGS = flags.FLAGS


def main(argv: list[str]) -> None:
    """Run the job and print its table."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; use --config=FILE --workdir=DIR")
    # tensorflow-model-optimization works with tf_keras only.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.set_verbosity(logging.ERROR)  # Keras' notes on its own callbacks and checkpoints
    from kd_keras import pipeline
    from kd_keras.pipeline import page

    if FLAGS.num_shards or FLAGS.shard_index:
        part = {"shard_index": FLAGS.shard_index, "num_shards": FLAGS.num_shards}
        pipeline.fill_cache(FLAGS.config, FLAGS.workdir, overwrite=FLAGS.overwrite, **part)
        return
    command = shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]])
    report = pipeline.run(
        FLAGS.config,
        FLAGS.workdir,
        overwrite=FLAGS.overwrite,
        reuse=FLAGS.reuse,
        command=command,
    )
    if report is not None:
        print(page.table(report))
        print(f"report: {os.path.join(FLAGS.workdir, 'report.html')}")


def _define_flags() -> None:
    """Defined when the command runs: two commands may be imported side by side."""
    flags.DEFINE_string(
        "workdir", None, "Folder of all that the run makes; a killed run goes on in it."
    )
    flags.DEFINE_bool("overwrite", False, "Write anew a work directory made with another config.")
    flags.DEFINE_list(
        "reuse",
        [],
        "Work directories whose finished stages are taken where they would be the same.",
    )
    flags.DEFINE_integer(
        "num_shards", 0, "Only fill the teacher's cache, in so many parts; see --shard_index."
    )
    flags.DEFINE_integer("shard_index", 0, "Which part of the teacher's cache to fill, from 0.")
    flags.mark_flag_as_required("workdir")


def run() -> None:
    """Entry point of the console script."""
    _define_flags()
    own = ("workdir", "overwrite", "reuse", "num_shards", "shard_index")
    with complaining("kd-train"):
        app.run(main, flags_parser=functools.partial(config_flag.parse, own=own))


if __name__ == "__main__":
    run()
