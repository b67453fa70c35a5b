"""Writes a .tflite file once it has been proven to be what its recipe says."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tflite_export.ends import Ends
from tflite_export.errors import ExportError
from tflite_export.file_facts import Operator, check_facts, read_facts
from tflite_export.recipes import Recipe
from tflite_export.tflite_model import TFLiteModel, load_interpreter


@dataclass(frozen=True)
class Content:
    """A .tflite file before it is written.

    Attributes:
        data: its bytes.
        recipe: that it was made by.
        input_name: in the signature.
        output_name: likewise.
        floats: operators of the float file that were to stay as they were.
    """

    data: bytes
    recipe: Recipe
    input_name: str
    output_name: str
    floats: tuple[Operator, ...] = ()


def refuse_existing(targets: Iterable[Path], overwrite: bool) -> None:
    """Refuses to replace files without being asked to.

    Raises:
        ExportError: one of them is there.
    """
    for target in targets:
        if target.exists() and not overwrite:
            raise ExportError(
                f"{target} exists; give another path, or overwrite it (overwrite=True, --overwrite)"
            )


def write_checked(made: Content, path: Path, ends: Ends | None = None) -> None:
    """Writes a file, checks that it is what was asked for, and puts ends around it.

    Raises:
        ExportError: it does not load, is not what its recipe says, or the ends do not fit.
    """
    path.write_bytes(made.data)
    load_interpreter(path)
    check_facts(read_facts(made.data), made.recipe, made.input_name, made.output_name, made.floats)
    if ends is not None:
        path.write_bytes(ends.around(made.data, TFLiteModel(path)))
        load_interpreter(path)


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Gives a temporary name beside `target` and moves it there when the block succeeds.

    Raises:
        ExportError: the file cannot be written; nothing is left behind then.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        raise ExportError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        if temporary.exists():
            temporary.unlink()
