"""The flag `--config=FILE` of the commands, and `--config.key=value` for each of its keys."""

import difflib
import os
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from kd_keras.errors import InputError

FLAGS = flags.FLAGS
_HELP = "A config file, such as configs/quickstart.py; FILE:smoke for its smallest size."


def parse(argv: list[str], own: Sequence[str]) -> list[str]:
    """Parse a command's flags; `--config.key=value` works also for a key the file is silent on.

    Args:
        argv: The command line.
        own: Names of the command's own flags, which its `--help` shows.

    Returns:
        What is no flag.

    Raises:
        InputError: If there is no such file, or the config has no such key.
    """
    for name in own:
        FLAGS.register_key_flag_for_module(argv[0], FLAGS[name])
    given = [arg for arg in argv if arg.startswith(("--config=", "-config="))]
    if not given:
        flags.DEFINE_string("config", None, _HELP, required=True)
        FLAGS.register_key_flag_for_module(argv[0], FLAGS["config"])
        return FLAGS(argv)
    from kd_keras.pipeline import config as configs

    config = configs.complete(load(given[-1].split("=", 1)[1]))
    rest = [arg for arg in argv if arg not in given]
    try:
        config_flags.DEFINE_config_dict("config", config, _HELP, sys_argv=rest)
        return FLAGS(rest)
    except (AttributeError, KeyError, IndexError) as error:
        given_keys = [arg[2:].split("=")[0] for arg in rest if arg.startswith("--config.")]
        existing = [f"config.{key}" for key in configs.flat(config.to_dict())]
        unknown = [key for key in given_keys if key not in existing]
        close = difflib.get_close_matches(unknown[0], existing, n=5, cutoff=0.0)
        raise InputError(
            f"{', '.join(unknown)} is no key of the config; the closest are: {', '.join(close)}; "
            f"all {len(existing)} stand in {configs.__file__}"
        ) from error


def load(spec: str) -> Any:
    """The config of `FILE` or `FILE:ARGUMENT`.

    Raises:
        InputError: If there is no such file.
    """
    path = spec.split(":", 1)[0]
    if not os.path.isfile(path):
        raise InputError(f"config file {path!r} does not exist; name one, as configs/quickstart.py")
    values = flags.FlagValues()
    argv = ["kd", f"--config={spec}"]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    values(argv)
    return values.config
