"""Messages between two processes: a line of JSON, and an array where there is one."""

import json
from typing import Any, BinaryIO

import numpy as np

from tflite_export.errors import ExportError


def send(stream: BinaryIO, message: dict[str, Any], array: np.ndarray | None = None) -> None:
    """Writes a message at once."""
    if array is not None:
        array = np.ascontiguousarray(array)
        message = {**message, "shape": array.shape, "dtype": array.dtype.name}
    stream.write(json.dumps(message).encode() + b"\n")
    if array is not None:
        stream.write(array.reshape(-1).view(np.uint8).data)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], np.ndarray] | None:
    """Reads the next message.

    Returns:
        What was sent, with an empty array for none; None where the stream ends, also in the midst
        of a message.

    Raises:
        ExportError: the sender had something to tell the user, its message's `error`.
    """
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    message = json.loads(line)
    if "error" in message:
        raise ExportError(message["error"])
    if "dtype" not in message:
        return message, np.zeros(0)
    array = np.empty(message["shape"], message["dtype"])
    if stream.readinto(array.reshape(-1).view(np.uint8).data) < array.nbytes:  # type: ignore[attr-defined]
        return None
    return message, array
