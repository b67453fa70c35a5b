"""`kd-train`: the main job from the command line.

    kd-train --config=configs/quickstart.py --workdir=runs/quickstart --config.student.epochs=20

TensorFlow is imported only when a run begins, so that `--help` answers at once.
"""

import os
import shlex
import sys
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from kd_keras.command_line import complaining
from kd_keras.errors import InputError

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "workdir", None, "Folder of all that the run makes; a killed run goes on in it."
)
flags.DEFINE_bool("overwrite", False, "Write anew a work directory made with another config.")
flags.DEFINE_list(
    "reuse", [], "Work directories whose finished stages are taken where they would be the same."
)
flags.DEFINE_integer(
    "num_shards", 0, "Only fill the teacher's cache, in so many parts; see --shard_index."
)
flags.DEFINE_integer("shard_index", 0, "Which part of the teacher's cache to fill, from 0.")
flags.mark_flag_as_required("workdir")

_CONFIG_HELP = "A config file, such as configs/quickstart.py; FILE:smoke for its smallest size."


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


def run() -> None:
    """Entry point of the console script."""
    with complaining("kd-train"):
        app.run(main, flags_parser=_parse_flags)


def _parse_flags(argv: list[str]) -> list[str]:
    """Parse the flags; `--config.key=value` works for every key, also one the file is silent on."""
    # --help shows the flags of the running script.
    for name in ("workdir", "overwrite", "reuse", "num_shards", "shard_index"):
        FLAGS.register_key_flag_for_module(argv[0], FLAGS[name])
    given = [arg for arg in argv if arg.startswith(("--config=", "-config="))]
    if not given:
        flags.DEFINE_string("config", None, _CONFIG_HELP, required=True)
        FLAGS.register_key_flag_for_module(argv[0], FLAGS["config"])
        return FLAGS(argv)
    from kd_keras.pipeline import config as configs

    config = configs.complete(_load(given[-1].split("=", 1)[1]))
    rest = [arg for arg in argv if arg not in given]
    try:
        config_flags.DEFINE_config_dict("config", config, _CONFIG_HELP, sys_argv=rest)
        return FLAGS(rest)
    except (AttributeError, KeyError) as error:
        given_keys = [arg[2:].split("=")[0] for arg in rest if arg.startswith("--config.")]
        existing = [f"config.{key}" for key in configs.flat(config.to_dict())]
        unknown = [key for key in given_keys if key not in existing]
        raise InputError(
            f"{', '.join(unknown)} is no key of the config; there are: {', '.join(existing)}"
        ) from error


def _load(spec: str) -> Any:
    """The config of `FILE` or `FILE:ARGUMENT`."""
    path = spec.split(":", 1)[0]
    if not os.path.isfile(path):
        raise InputError(f"config file {path!r} does not exist; name one, as configs/quickstart.py")
    argv = ["kd-train", f"--config={spec}"]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    values(argv)
    return values.config


if __name__ == "__main__":
    run()
