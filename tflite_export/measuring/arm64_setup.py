"""Fetches what runs TFLite files as a phone's processor does: 64-bit ARM Python, and an emulator.

    make arm64        # or python -m tflite_export.measuring.arm64_setup

Packages of Debian and wheels are unpacked into a cache folder. Nothing is installed, so root is not
needed. Where the folder is there already, nothing is done.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tflite_export import child
from tflite_export.errors import ExportError

#: Its folder is made here, where that is set.
VARIABLE = "TFLITE_EXPORT_ARM64"

#: Debian's versions and checksums are those of this release, which its keys sign, since a mirror
#: has only the newest of each; what came is in `Arm64System.facts`. The emulator of the release
#: before, QEMU 7.2, crashes in this runtime and computes other numbers in older ones.
_RELEASE = "trixie"
_SOURCE = "http://deb.debian.org/debian"
_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_EMULATOR = "qemu-user"
_PYTHON = "3.13"
_PACKAGES = (
    *("libc6", "libexpat1", "libffi8", "libgcc-s1", "libstdc++6", "zlib1g"),
    *(f"libpython{_PYTHON}-minimal", f"libpython{_PYTHON}-stdlib", f"python{_PYTHON}-minimal"),
)
#: What the children import: the runtime in the version of this project, NumPy, and tqdm.
_WHEELS = (
    "ai-edge-litert==2.3.0 "
    "--hash=sha256:2ab71e4f5dfa65b3882634b42755f455f3e7415630d720200bd792733e15e257",
    "numpy==2.4.6 --hash=sha256:72fbe16c6fac95aedf5937fa873445cec2110be35d8a4e9433d7501fd98dae6b",
    "tqdm==4.70.1 --hash=sha256:c293e525e6fef9c20e8728fd4612df02a0aa31bb5fe91ecd93e123b1b7bffa73",
)
_PLATFORM = "manylinux_2_27_aarch64"

_APT = """#clear APT::Update;
Dir "{folder}";
Dir::State::status "{folder}/status";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::preferencesparts "/dev/null";
APT::Architectures {{ "{architecture}"; "arm64"; }};
APT::Sandbox::User "";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::http::Timeout "30";
"""
# Loads what the children load, which also compiles it, and tells what it is.
_PROOF = """
import json, platform, numpy, tflite_export.inference_worker, tflite_export.measuring.worker
from importlib.metadata import version
print(json.dumps({
    "machine": platform.machine(),
    "python": platform.python_version(),
    "ai_edge_litert": version("ai-edge-litert"),
    "numpy": numpy.__version__,
}))
"""


@dataclass(frozen=True)
class Arm64System:
    """What was set up.

    Attributes:
        python: that runs under the emulator.
        facts: the versions of emulator, Python and packages; `files` has the SHA-256 of each.
    """

    python: child.Python
    facts: dict[str, Any]


def find() -> Arm64System:
    """Returns what was set up before.

    Raises:
        ExportError: nothing was.
    """
    folder = _folder()
    if not folder.is_dir():
        raise ExportError(
            f"arm64 is not set up ({folder} is not there); run `make arm64`, or "
            f"python -m tflite_export.measuring.arm64_setup"
        )
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    return Arm64System(_python(folder), facts)


def set_up() -> Arm64System:
    """Sets up what is not there yet.

    Raises:
        ExportError: this is no Debian, something cannot be fetched or written, or it does not run.
    """
    folder = _folder()
    if folder.is_dir():
        return find()
    _refuse_other_systems()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=folder.parent) as temporary:
            made = Path(temporary) / "system"
            _make(made, Path(temporary))
            if not folder.is_dir():  # by another process, meanwhile
                made.rename(folder)
    except OSError as error:
        raise ExportError(
            f"arm64 cannot be set up in {folder}: {error.strerror or error}; set {VARIABLE} to a "
            f"folder with 300 MB of room"
        ) from error
    return find()


def _folder() -> Path:
    # Of another name with every change of what is in it, so that what is there is never stale.
    pins = (_RELEASE, _EMULATOR, _PACKAGES, _WHEELS)
    name = f"{_RELEASE}-{hashlib.sha256(repr(pins).encode()).hexdigest()[:12]}"
    usual = Path("~/.cache/tflite_export/arm64").expanduser()
    return Path(os.environ.get(VARIABLE) or usual).absolute() / name


def _python(folder: Path) -> child.Python:
    system = folder / "system"
    line = (folder / "qemu-aarch64", "-L", system, system / f"usr/bin/python{_PYTHON}")
    return child.Python(tuple(map(str, line)), folder / "packages")


def _refuse_other_systems() -> None:
    for tool in ("apt-get", "dpkg", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise ExportError(
                f"arm64 cannot be set up: there is no {tool} here; use Debian, or a system made "
                f"from it"
            )
    if not _KEYS.is_file():
        raise ExportError(
            f"arm64 cannot be set up: {_KEYS} is not there; install debian-archive-keyring"
        )


def _make(folder: Path, scratch: Path) -> None:
    packages = _fetched_packages(scratch)
    (folder / "system/usr/lib").mkdir(parents=True)
    (folder / "system/lib").symlink_to("usr/lib")  # where programs look for their loader
    for package in packages:
        # The emulator's package is 450 MB unpacked, of which one file is kept.
        is_emulator = package.name.startswith(f"{_EMULATOR}_")
        _run("dpkg-deb", "-x", package, scratch / "host" if is_emulator else folder / "system")
    shutil.move(scratch / "host/usr/bin/qemu-aarch64", folder)
    _fetch_wheels(folder / "packages", scratch)
    python = _python(folder)
    told = json.loads(_run(*python.line, "-c", _PROOF, environment=python.environment()))
    facts = {
        "emulator": _run(folder / "qemu-aarch64", "--version").splitlines()[0],
        **told,
        "files": {
            package.name: hashlib.sha256(package.read_bytes()).hexdigest() for package in packages
        },
        "wheels": _WHEELS,
    }
    (folder / "facts.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _fetched_packages(scratch: Path) -> list[Path]:
    # A configuration of its own: the lists and the architectures of this machine stay as they are.
    apt, packages = scratch / "apt", scratch / "debs"
    for part in ("var/lib/apt/lists/partial", "var/cache/apt/archives/partial"):
        (apt / part).mkdir(parents=True)
    packages.mkdir()
    (apt / "status").write_text("")
    (apt / "sources.list").write_text(f"deb [signed-by={_KEYS}] {_SOURCE} {_RELEASE} main\n")
    architecture = _run("dpkg", "--print-architecture").strip()
    configuration = apt / "apt.conf"
    configuration.write_text(_APT.format(folder=apt, architecture=architecture))
    get = ("apt-get", "-q", "-c", configuration)
    _run(*get, "update")
    _run(*get, "download", _EMULATOR, *(f"{name}:arm64" for name in _PACKAGES), folder=packages)
    return sorted(packages.glob("*.deb"))


def _fetch_wheels(folder: Path, scratch: Path) -> None:
    requirements = scratch / "requirements.txt"
    requirements.write_text("\n".join(_WHEELS))
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes")
    other = ("--only-binary=:all:", f"--platform={_PLATFORM}", f"--python-version={_PYTHON}")
    _run(*pip, *other, "--target", folder, "-r", requirements)


def _run(
    *line: object, folder: Path | None = None, environment: dict[str, str] | None = None
) -> str:
    words = [*map(str, line)]
    done = subprocess.run(
        words,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise ExportError(
            f"arm64 cannot be set up: {_name(words)} ended with "
            f"{child.ending(done.returncode)}: {_reason(done.stderr)}"
        )
    return done.stdout


def _name(words: Sequence[str]) -> str:
    return "pip" if words[1:3] == ["-m", "pip"] else Path(words[0]).name


def _reason(errors: str) -> str:
    lines = [" ".join(line.split()) for line in errors.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("E:", "ERROR"))]
    return (telling[:1] or lines[-1:] or ["no message"])[0][:300]


if __name__ == "__main__":
    try:
        system = set_up()
    except ExportError as problem:
        sys.exit(f"arm64: {problem}")
    print(f"arm64 is ready: {system.facts['emulator']}, {Path(system.python.line[0]).parent}")
