"""The folder that a run writes: one process at a time, one config, whole artefacts only."""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import filelock

from kd_keras.errors import InputError
from kd_keras.pipeline import config as configs

_POLL_SECONDS = 0.2
_NO_COST = {"seconds": 0.0, "cpu_seconds": 0.0}


class Workdir:
    """A work directory.

    Stages read their artefacts from `path(...)` and write them below `scratch(...)`. These are the
    same folder for the chief, the only process that writes artefacts. Another worker of a
    distributed run writes to a folder of its own that goes when it ends, and waits for the chief's
    record of the stage.

    Args:
        root: The folder; made if it is missing.
        chief: Whether this process writes the artefacts.
        reuse: Work directories whose finished stages are taken where their inputs are the same. The
            folders of these stages are linked, not copied.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        *,
        chief: bool = True,
        reuse: Sequence[str | os.PathLike] = (),
    ) -> None:
        self.root = pathlib.Path(root)
        self._lenders = [pathlib.Path(folder) for folder in reuse]
        self.chief = chief
        self._private = None if chief else tempfile.TemporaryDirectory(prefix="kd-worker-")
        self._at_work: _AtWork | None = None

    def path(self, *parts: str) -> pathlib.Path:
        """Where an artefact is read from."""
        return self.root.joinpath(*parts)

    def scratch(self, *parts: str) -> pathlib.Path:
        """Where this process writes an artefact; the folder above it exists."""
        root = self.root if self._private is None else pathlib.Path(self._private.name)
        path = root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out while the context lasts.

        Raises:
            InputError: If another process is at work in the folder.
        """
        if not self.chief:
            yield
            return
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            with filelock.FileLock(self.root / ".lock", timeout=0):
                yield
        except filelock.Timeout:
            raise InputError(
                f"another process is at work in {self.root}: wait for it, or name another folder"
            ) from None

    def adopt(self, config: dict, *, overwrite: bool) -> None:
        """Take the config for this folder, or refuse one that differs from what made it.

        Raises:
            InputError: Naming the keys that differ, unless `overwrite`.
        """
        if not self.chief:
            return
        path = self.path("config.json")
        if path.exists():
            keys = configs.differences(read_json(path), config)
            if keys and not overwrite:
                raise InputError(
                    f"{self.root} was made with another config; these keys differ: "
                    f"{', '.join(keys)}: name another --workdir, or pass --overwrite"
                )
        write_json(path, config)

    def done(self, stage: str, inputs: dict) -> dict | None:
        """The record of a finished stage, if it was made from just these inputs.

        A stage whose folder was deleted, as the errors about damaged files advise, is not done.
        """
        record = _record(self.root, stage, inputs)
        return self._borrowed(stage, inputs) if record is None and self.chief else record

    def _borrowed(self, stage: str, inputs: dict) -> dict | None:
        """Link a stage that another work directory has finished, and return its record."""
        for lender in self._lenders:
            record = _record(lender, stage, inputs)
            if record is not None and lender.resolve() != self.root.resolve():
                self._clear(stage)
                self.scratch(stage).symlink_to((lender / stage).resolve(), target_is_directory=True)
                write_json(self.path("stages", f"{stage}.json"), record)
                return record
        return None

    def _clear(self, stage: str) -> None:
        """Remove what there is of a stage; of another directory's, the link."""
        self.path("stages", f"{stage}.json").unlink(missing_ok=True)
        self.path("stages", f"{stage}.begun.json").unlink(missing_ok=True)
        if self.path(stage).is_symlink():
            self.path(stage).unlink()
        shutil.rmtree(self.path(stage), ignore_errors=True)

    def begin(self, stage: str, inputs: dict) -> None:
        """Clear what other inputs have left of a stage; the same inputs go on with the rest."""
        if not self.chief:
            return
        path = self.path("stages", f"{stage}.begun.json")
        # A folder that was deleted leaves nothing to go on with.
        before = read_json(path) if path.exists() and self.path(stage).is_dir() else None
        if before is None or configs.differences(before["inputs"], inputs):
            self._clear(stage)
            before = {}
        self._at_work = _AtWork(path, {**_NO_COST, **before, "inputs": inputs})
        self.keep_cost()

    def keep_cost(self) -> None:
        """Keep the time that the stage has taken, for a process that goes on after a kill."""
        if self._at_work is not None:
            write_json(self._at_work.path, self._at_work.record())

    def finish(self, stage: str, inputs: dict) -> dict:
        """Record that a stage is whole, and its cost; other workers wait here for the chief."""
        if self._at_work is not None:
            write_json(self.path("stages", f"{stage}.json"), self._at_work.record())
            self._at_work = None
        while (found := self.done(stage, inputs)) is None:
            time.sleep(_POLL_SECONDS)
        return found


class _AtWork:
    """A stage that is being made, and what it has cost, earlier processes included."""

    def __init__(self, path: pathlib.Path, before: dict) -> None:
        self.path = path
        self._before = before
        self._started, self._cpu_started = time.monotonic(), time.process_time()

    def record(self) -> dict:
        return {
            "inputs": self._before["inputs"],
            "seconds": self._before["seconds"] + time.monotonic() - self._started,
            "cpu_seconds": self._before["cpu_seconds"] + time.process_time() - self._cpu_started,
        }


def _record(root: pathlib.Path, stage: str, inputs: dict) -> dict | None:
    """The record of a stage that a work directory has finished, if it is of these inputs."""
    path = root / "stages" / f"{stage}.json"
    if not (path.exists() and (root / stage).is_dir()):
        return None
    record = read_json(path)
    return record if not configs.differences(record["inputs"], inputs) else None


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield a temporary name beside `path` that takes its place when the context ends well.

    The temporary name keeps the suffix, by which Keras chooses a format.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=True) + "\n")


def read_json(path: pathlib.Path) -> Any:
    """Read a JSON file of the work directory.

    Raises:
        InputError: If the file is damaged.
    """
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is damaged ({error}): delete it and run again") from error
