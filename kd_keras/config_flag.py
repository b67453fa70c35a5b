"""The flag `--config=FILE` of the commands, and `--config.key=value` for each of its keys."""

import ast
import difflib
import os
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from kd_keras.command_line import parsed
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
        return parsed(FLAGS, argv)
    from kd_keras.pipeline import config as configs

    config = configs.complete(load(given[-1].split("=", 1)[1]))
    rest = _add_new_keys(config, [arg for arg in argv if arg not in given])
    config = configs.complete(config)
    try:
        config_flags.DEFINE_config_dict("config", config, _HELP, sys_argv=rest)
        return parsed(FLAGS, rest)
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        given_keys = [arg[2:].split("=")[0] for arg in rest if arg.startswith("--config.")]
        existing = [f"config.{key}" for key in configs.flat(config.to_dict())]
        unknown = [key for key in given_keys if key not in existing]
        if not unknown:
            raise
        close = difflib.get_close_matches(unknown[0], existing, n=5, cutoff=0.0)
        raise InputError(
            f"{', '.join(unknown)} is no key of the config; the closest are: {', '.join(close)}; "
            f"all {len(existing)} stand in {configs.__file__}"
        ) from error


def _add_new_keys(config: Any, argv: Sequence[str]) -> list[str]:
    """Set the keys of free-form sections on which the config is silent; return what is left.

    Absl knows flags only for keys that are there. Whether a method or a model has such a key, its
    owner says.
    """
    from kd_keras.pipeline import config as configs

    existing, left = configs.flat(config.to_dict()), []
    for argument in argv:
        flag, equals, text = argument.partition("=")
        key = flag.lstrip("-").removeprefix("config.")
        free = any(key.startswith(f"{section}.") for section in configs.FREE_FORM)
        if not (flag.startswith("--config.") and equals and free) or key in existing:
            left.append(argument)
            continue
        *sections, name = key.split(".")
        section = config
        with config.unlocked():
            for part in sections:
                section = section.get(part) if part in section else _new_section(section, part)
                if not hasattr(section, "unlocked"):
                    raise InputError(f"config key {key!r}: {part!r} is a value, not a section")
            section[name] = _value(text)
    return left


def _new_section(parent: Any, name: str) -> Any:
    parent[name] = type(parent)()
    return parent[name]


def _value(text: str) -> Any:
    """A number, tuple or the like as in Python, else the text itself."""
    named = {"true": True, "false": False, "none": None}
    if text.lower() in named:
        return named[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


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
