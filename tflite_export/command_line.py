"""How the commands of this package run: a failure is one line and an exit status."""

import sys
from collections.abc import Callable
from typing import Any, NoReturn

from absl import app, flags

from tflite_export.errors import ExportError


def run(command: str, main: Callable[[list[str]], Any], parse: Callable[[list[str]], Any]) -> None:
    """Run a command, and end the process where it fails.

    Args:
        command: its name, which a complaint begins with.
        main: takes what is no flag.
        parse: defines and parses the flags. They are defined when the command runs, for a library
            that is imported beside another main must not claim their names.
    """

    def parsed(argv: list[str]) -> Any:
        try:
            return parse(argv)
        except ValueError as error:  # absl's of `--noflag=value`, which is no flags.Error
            raise ExportError(str(error)) from error

    try:
        app.run(main, flags_parser=parsed)
    except (ExportError, flags.Error) as error:
        _fail(command, " ".join(str(error).split()))
    except KeyboardInterrupt:
        _fail(command, "stopped; nothing was written", status=130)


def _fail(command: str, message: str, status: int = 1) -> NoReturn:
    print(f"{command}: {message}", file=sys.stderr, flush=True)
    raise SystemExit(status)
