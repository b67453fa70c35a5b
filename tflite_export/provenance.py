"""Names what a result was made from, so that it can be made again."""

import hashlib
import importlib.metadata
import platform
from pathlib import Path

_PACKAGES = ("tensorflow", "tf_keras", "keras", "ai-edge-litert", "litert-quantizer", "numpy")


def digest(path: Path) -> str:
    """Returns the SHA-256 of a file, or of the names and contents of all files of a folder."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    found = hashlib.sha256()
    for file in sorted(entry for entry in path.rglob("*") if entry.is_file()):
        found.update(f"{file.relative_to(path).as_posix()}\0{digest(file)}\n".encode())
    return found.hexdigest()


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that have a part in a file."""
    installed = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **installed}
