"""`make arm64`, by stand-ins for apt-get, dpkg, pip and the emulator."""

import hashlib
import os

import pytest

from tflite_export.errors import ExportError
from tflite_export.measuring import arm64_setup

pytestmark = pytest.mark.any_keras


def test_sets_up_once_and_leaves_nothing_else(debian, cache):
    system = arm64_setup.set_up()
    calls = (debian / "calls").read_text()
    assert system == arm64_setup.find() == arm64_setup.set_up()
    assert (debian / "calls").read_text() == calls  # nothing is fetched a second time
    [folder] = cache.iterdir()
    assert {path.name for path in folder.iterdir()} == {
        *("facts.json", "packages", "qemu-aarch64", "system")
    }
    assert not list(folder.rglob("qemu-others"))
    assert (folder / "system/lib").resolve() == folder / "system/usr/lib"
    assert system.python.line[0] == str(folder / "qemu-aarch64")
    assert system.facts["emulator"] == "qemu-aarch64 version 0"
    assert system.facts["files"]["libc6_1_arm64.deb"] == hashlib.sha256(b"").hexdigest()
    assert len(system.facts["files"]) == 10
    for words in (
        *("libc6:arm64", " qemu-user ", "python3.13-minimal:arm64"),
        *("--require-hashes", "--no-deps", "_aarch64", "ai-edge-litert==2.3.0 --hash=sha256:"),
    ):
        assert words in calls
    configurations = {line.split()[3] for line in calls.splitlines() if line.startswith("apt-get")}
    assert len(configurations) == 1  # a configuration of its own, in the folder that is gone
    assert configurations.pop().startswith(str(cache))


@pytest.mark.parametrize(
    ("command", "says", "reason"),
    [
        (
            "apt-get",
            "W: some\nE: Failed to fetch http://x  Temporary failure resolving\nE: Some failed",
            "apt-get ended with status 100: E: Failed to fetch http://x Temporary failure",
        ),
        ("dpkg-deb", "tar: no space", "dpkg-deb ended with status 100: tar: no space"),
        ("pip", "WARNING: so\nERROR: No matching distribution", "pip .*: ERROR: No matching"),
        ("qemu-aarch64", "", "qemu-aarch64 ended with status 100: no message"),
    ],
)
def test_a_command_that_fails_is_one_line_and_leaves_nothing(
    command, says, reason, debian, cache, one_line
):
    (debian / f"{command}.fails").write_text(says)
    with pytest.raises(ExportError, match=f"^arm64 cannot be set up: {reason}") as caught:
        arm64_setup.set_up()
    one_line(caught)
    assert list(cache.iterdir()) == []
    with pytest.raises(ExportError, match="run `make arm64`") as caught:
        arm64_setup.find()
    one_line(caught)


def test_other_systems_are_refused(debian, cache, monkeypatch, tmp_path, one_line):
    (debian / "keys.gpg").unlink()
    with pytest.raises(ExportError, match="install debian-archive-keyring") as caught:
        arm64_setup.set_up()
    one_line(caught)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExportError, match="there is no apt-get here; use Debian") as caught:
        arm64_setup.set_up()
    one_line(caught)


def test_a_folder_that_cannot_be_made(debian, monkeypatch, tmp_path, one_line):
    monkeypatch.setenv(arm64_setup.VARIABLE, str(debian / "calls" / "folder"))
    (debian / "calls").write_text("")
    with pytest.raises(ExportError, match="Not a directory; set TFLITE_EXPORT_ARM64") as caught:
        arm64_setup.set_up()
    one_line(caught)


def test_other_versions_are_another_folder(cache, monkeypatch):
    (cache / os.path.basename(arm64_setup._folder())).mkdir(parents=True)
    monkeypatch.setattr(arm64_setup, "_WHEELS", ("ai-edge-litert==9",))
    with pytest.raises(ExportError, match="not set up"):
        arm64_setup.find()
