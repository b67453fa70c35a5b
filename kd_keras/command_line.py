"""What the commands share: how a failure is told, in one line and with an exit status."""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any, NoReturn

from absl import flags

from kd_keras.errors import InputError


@contextlib.contextmanager
def complaining(command: str) -> Iterator[None]:
    """Turn what a user can mend into one line on stderr, and leave with an exit status.

    Args:
        command: The command's name, which the line begins with.
    """
    warnings.formatwarning = _one_line
    try:
        yield
    except (InputError, flags.Error) as error:
        _fail(command, " ".join(str(error).split()))
    except KeyboardInterrupt:
        _fail(command, "stopped; the same command goes on from the last checkpoint", status=130)
    except OSError as error:
        _fail(command, f"{error.filename or 'file'}: {error.strerror or error}")
    except ValueError as error:
        # An ExportError, whose package must not be imported before it is needed.
        if type(error).__name__ != "ExportError":
            raise
        _fail(command, str(error))


def parsed(values: flags.FlagValues, argv: list[str]) -> list[str]:
    """Parse the flags of a command; return what is no flag.

    Raises:
        flags.Error: Where a flag is unknown or its value is wrong.
    """
    try:
        return values(argv)
    except ValueError as error:  # absl's of `--noflag=value`, which is no flags.Error
        raise flags.Error(str(error)) from error


def _one_line(message: Any, *_: Any, **__: Any) -> str:
    """A warning without the line of code that gave it."""
    return f"warning: {' '.join(str(message).split())}\n"


def _fail(command: str, message: str, status: int = 1) -> NoReturn:
    print(f"{command}: {message}", file=sys.stderr, flush=True)
    raise SystemExit(status)
