"""Reads an `.npy` file, without running code that it brings along."""

from pathlib import Path

import numpy as np

from tflite_export.errors import ExportError


def load_array(path: Path, what: str) -> np.ndarray:
    """Returns the array of an `.npy` file.

    Args:
        path: of the file.
        what: it is to the user, for the error.

    Raises:
        ExportError: there is no such file, or it is none with one array of numbers.
    """
    if not path.is_file():
        raise ExportError(f"{what} {str(path)!r} is no file; give an .npy file")
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ExportError(
            f"{what} {str(path)!r} cannot be read: {error}; save it with numpy.save"
        ) from error
    if not isinstance(found, np.ndarray):
        raise ExportError(f"{what} {str(path)!r} holds several arrays; save one with numpy.save")
    if found.dtype.kind not in "biuf":
        raise ExportError(f"{what} {str(path)!r} holds {found.dtype}; give numbers")
    return found
