"""The error that an export, a verification or a benchmark raises for a cause its user can mend."""


class ExportError(ValueError):
    """A model or a file cannot be exported, verified or measured.

    The message is one line that names the value, what is allowed and the cure.
    """
