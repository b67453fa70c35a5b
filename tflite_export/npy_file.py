"""Reads an array from an .npy file."""

from pathlib import Path

import numpy as np

from tflite_export.errors import ExportError


def read_npy(path: Path, kind: str, instead: str = "") -> np.ndarray:
    """Reads the only array of a file.

    Args:
        path: of the file.
        kind: what it holds, for the error.
        instead: what else might be given.

    Raises:
        ExportError: there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise ExportError(f"{kind} {str(path)!r} is no file; give an .npy file{instead}")
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ExportError(
            f"{kind} {str(path)!r} cannot be read: {error}; save it with numpy.save"
        ) from error
    if not isinstance(found, np.ndarray):
        raise ExportError(f"{kind} {str(path)!r} holds several arrays; save one with numpy.save")
    if found.dtype.kind not in "biuf":
        raise ExportError(f"{kind} {str(path)!r} holds {found.dtype}; give numbers")
    return found
