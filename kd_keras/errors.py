"""The error that bad input raises."""


class InputError(ValueError):
    """What a user gave cannot be used.

    The message is one line that names the value, what is allowed and the cure; a script prints it
    without a traceback and exits with a status other than 0.
    """
