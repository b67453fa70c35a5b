"""The error that bad input raises."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """What a user gave cannot be used.

    The message is one line that names the value, what is allowed and the cure; a script prints it
    without a traceback and exits with a status other than 0.
    """


def closest_first(wanted: object, existing: Iterable[str]) -> str:
    """What there is instead of a wrong name, for a message: first what looks like it."""
    names = list(existing)
    close = difflib.get_close_matches(str(wanted), names, n=len(names) or 1)
    return ", ".join([*close, *(name for name in names if name not in close)])
