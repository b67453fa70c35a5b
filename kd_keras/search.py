r"""`kd-search`: which student and which compression fit a phone, from the command line.

    kd-search --config=configs/quickstart.py --workdir=runs/search --max_bytes=100000 \
        --max_latency_us=500 --trials=30

A search that was killed goes on when the same command is given again.
"""

import functools
import os
import shlex
import sys

from absl import app, flags, logging

from kd_keras import config_flag
from kd_keras.command_line import complaining

FLAGS = flags.FLAGS

_OWN = (
    *("workdir", "max_bytes", "max_gzip_bytes", "max_latency_us", "device", "trials", "seed"),
    "reuse",
)


def main(argv: list[str]) -> None:
    """Search and print what was found."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; use --config=FILE --workdir=DIR")
    # tensorflow-model-optimization works with tf_keras only.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.set_verbosity(logging.ERROR)  # Keras' notes on its own callbacks and checkpoints
    from kd_keras.pipeline.search_front import Limits

    limits = Limits(FLAGS.max_bytes, FLAGS.max_gzip_bytes, FLAGS.max_latency_us)
    from kd_keras.pipeline import search, search_table

    found = search.run(
        FLAGS.config,
        FLAGS.workdir,
        limits,
        trials=FLAGS.trials,
        seed=FLAGS.seed,
        profile=FLAGS.device,
        reuse=FLAGS.reuse,
        command=shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
    )
    print(search_table.table(found))
    print(f"report: {os.path.join(FLAGS.workdir, 'search.html')}")
    print(search_table.how_to_run(found, FLAGS.workdir))


def _define_flags() -> None:
    """Defined when the command runs: two commands may be imported side by side."""
    flags.DEFINE_string(
        "workdir", None, "Folder of all that the search makes; a killed search goes on in it."
    )
    flags.DEFINE_integer("max_bytes", None, "Largest int8 file, in bytes; no limit by default.")
    flags.DEFINE_integer(
        "max_gzip_bytes", None, "The same of the file after gzip, as it is downloaded."
    )
    flags.DEFINE_float("max_latency_us", None, "Longest median inference, in microseconds.")
    flags.DEFINE_string(
        "device",
        "",
        "A device's profile (JSON) whose command measures latency; this host by default.",
    )
    flags.DEFINE_integer("trials", 30, "How many students to train.")
    flags.DEFINE_integer("seed", 0, "Of the choice of trials; the trainings have --config.seed.")
    flags.DEFINE_list(
        "reuse", [], "Work directories of runs or searches whose finished stages are taken."
    )
    flags.mark_flag_as_required("workdir")


def run() -> None:
    """Entry point of the console script."""
    _define_flags()
    with complaining("kd-search"):
        app.run(main, flags_parser=functools.partial(config_flag.parse, own=_OWN))


if __name__ == "__main__":
    run()
