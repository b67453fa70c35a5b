"""Stand-ins for the commands that set arm64 up, and for the emulator: it runs this very Python.

A file `NAME.fails` beside them makes the command NAME fail with that text.
"""

import pathlib
import sys

_FAILS = """#!/bin/sh
here={folder}
echo "{name} $*" >> $here/calls
[ -e $here/{name}.fails ] && {{ cat $here/{name}.fails >&2; exit 100; }}
"""
_COMMANDS = {
    "dpkg": "echo amd64",
    "apt-get": """case "$*" in *download*)
for word in "$@"; do case $word in *:arm64|qemu*) touch ${word%:*}_1_arm64.deb; esac; done
esac""",
    "dpkg-deb": """mkdir -p $3/usr/bin
case $2 in */qemu*) touch $3/usr/bin/qemu-others; cp $here/qemu-aarch64 $3/usr/bin; esac""",
    "qemu-aarch64": """[ $1 = --version ] && { echo qemu-aarch64 version 0; exit; }
shift 3
exec {python} "$@" """,
}
_PIP = """
import pathlib, sys
words = sys.argv[1:]
here = pathlib.Path(__file__).parent
requirements = pathlib.Path(words[words.index("-r") + 1]).read_text()
with (here / "calls").open("a") as calls:
    calls.write(f"pip {' '.join(words)} {requirements!r}\\n")
if (here / "pip.fails").exists():
    sys.exit((here / "pip.fails").read_text())
pathlib.Path(words[words.index("--target") + 1]).mkdir()
"""


def make(folder: pathlib.Path) -> pathlib.Path:
    """Writes them into a folder that is to come first on PATH and PYTHONPATH."""
    folder.mkdir()
    for name, body in _COMMANDS.items():
        path = folder / name
        head = _FAILS.format(folder=folder, name=name)
        path.write_text(head + body.replace("{python}", sys.executable) + "\n")
        path.chmod(0o755)
    (folder / "pip.py").write_text(_PIP)
    (folder / "keys.gpg").write_text("")
    return folder
