"""The error that an export, a verification or a benchmark raises for a cause its user can mend."""


class ExportError(ValueError):
    """A model or a file cannot be exported, verified or measured.

    The message is one line that names the value, what is allowed and the cure.
    """


def one_line(error: Exception) -> str:
    """Returns the kind and the beginning of what an exception says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:300]}"
