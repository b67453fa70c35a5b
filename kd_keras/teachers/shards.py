"""Files of records of one size: TFRecord, read through memory maps.

TFRecord is TensorFlow's own format on every platform, other programs read it, and each record has a
CRC32C. Its records lie one behind the other with 16 bytes around each, so where all are of one size
a file is an array, and any record is found without an index. (ArrayRecord finds records too, but
it is another package, compiled for some platforms, and packs records into chunks that have to be
read and unpacked as a whole.)

The first record is the header, JSON that says what the file is of.
"""

import contextlib
import json
import os
import pathlib
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

_FRAME = 16  # bytes around a record: length, its CRC32C, and the CRC32C of the data
_READ_AT_ONCE = 1024
_STALE_SECONDS = 24 * 3600


@contextlib.contextmanager
def writing(path: pathlib.Path, header: dict[str, Any]) -> Iterator[Callable[[np.ndarray], None]]:
    """Write a file of records, whole or not at all.

    Several processes may write the same file at once: each writes one of its own, and the last to
    end puts its own, which is equal, in the place of the others'.

    Args:
        path: The file.
        header: Plain values, the same in every process.

    Yields:
        A function that appends records, `(n,)` of a structured type.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    writer = tf.io.TFRecordWriter(str(temporary))
    try:
        with _naming(path):
            writer.write(_encoded(header))

        def append(records: np.ndarray) -> None:
            with _naming(path):
                for record in records:
                    writer.write(record.tobytes())

        yield append
        with _naming(path):
            writer.close()
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Iterator[None]:
    """Have what fails in writing, as on a full disk, say which file it was."""
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(f"cannot write {path}: {error.message}") from error


def what_is_wrong(
    path: pathlib.Path, header: dict[str, Any], record: np.dtype, examples: int
) -> str:
    """Why a file is not the whole one with that header and those records; empty if it is.

    Reads every byte, and compares every checksum.
    """
    if not path.is_file():
        return "it is missing"
    size = _offset(header) + examples * (_FRAME + record.itemsize)
    if path.stat().st_size < size:
        return f"it is cut off: it has {path.stat().st_size} bytes of {size}"
    try:
        first = next(iter(tf.data.TFRecordDataset(str(path)).take(1)), None)
        if first is None or first.numpy() != _encoded(header):
            return "it belongs to another cache, or to another place in this one"
        records = tf.data.TFRecordDataset(str(path)).batch(_READ_AT_ONCE)
        count = sum(len(batch) for batch in records)
        whole = count == examples + 1 and path.stat().st_size == size
        return "" if whole else "it holds other records than its header says"
    except tf.errors.OpError:
        return "it is corrupt: a checksum does not fit its record"


def open_records(path: pathlib.Path, header: dict[str, Any], record: np.dtype) -> np.ndarray:
    """The records of a whole file, `(examples,)`, which stay on disk until they are read."""
    framed = np.dtype([("before", "V12"), ("record", record), ("after", "V4")])
    return np.memmap(path, framed, mode="r", offset=_offset(header))["record"]


def remove_stale(folder: pathlib.Path) -> None:
    """Delete what writers have left that were killed more than a day ago."""
    for path in folder.glob(".*.tfrecord.*"):
        with contextlib.suppress(FileNotFoundError):  # another process may do the same
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()


def _encoded(header: dict[str, Any]) -> bytes:
    return json.dumps(header, sort_keys=True).encode()


def _offset(header: dict[str, Any]) -> int:
    return _FRAME + len(_encoded(header))
