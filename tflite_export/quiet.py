"""Keeps native code from writing to the terminal."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silenced_stderr() -> Iterator[None]:
    """Discards what is written to file descriptor 2 meanwhile, by C++ as well as by Python.

    The converter and the runtime log from C++, past every Python setting. Failures lose nothing:
    both raise exceptions that carry the text. The descriptor belongs to the process, so what other
    threads write to it at the same time is discarded as well.
    """
    sys.stderr.flush()
    original = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(original, 2)
        os.close(original)
        os.close(sink)
