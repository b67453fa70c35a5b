"""Writes a .tflite file once it has been proven to be what its recipe says."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from tflite_export.errors import ExportError
from tflite_export.file_facts import Operator, check_facts, read_facts
from tflite_export.recipes import Recipe
from tflite_export.tflite_model import load_interpreter


def refuse_existing(target: Path, overwrite: bool) -> None:
    """Refuses to replace a file without being asked to.

    Raises:
        ExportError: it is there.
    """
    if target.exists() and not overwrite:
        raise ExportError(f"{target} exists; give another path or overwrite=True")


def write_checked(
    content: bytes,
    target: Path,
    recipe: Recipe,
    names: tuple[str, str],
    floats: Collection[Operator] = (),
) -> None:
    """Writes a file under a temporary name, checks it, and gives it its name.

    Args:
        content: of the file.
        target: its path; the folder is made when it is not there.
        recipe: that it was made by.
        names: of input and output, in the signature.
        floats: operators of the float file that were to stay as they were.

    Raises:
        ExportError: it does not load, is not what the recipe says, or cannot be written.
    """
    with replacing(target) as temporary:
        temporary.write_bytes(content)
        load_interpreter(temporary)
        check_facts(read_facts(content), recipe, *names, floats)


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
