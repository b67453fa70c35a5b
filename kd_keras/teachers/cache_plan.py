"""What a cache of a teacher's outputs is of, and which files it has."""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import platform
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.data.views import Views
from kd_keras.errors import InputError
from kd_keras.teachers import shards
from kd_keras.teachers.base import Teacher
from kd_keras.teachers.record_layout import RecordLayout

MANIFEST = "cache.json"
_VERSION = 1
#: A killed run loses at most so many examples; more a shard where a view would have too many files.
_EXAMPLES_A_SHARD, _MOST_SHARDS = 4096, 128
_WORDS = {
    "version": "by another version of kd_keras",
    "teacher": "from another teacher",
    "data.data": "from other data",
    "data.examples": "from another number of examples",
    "data.rows": "from another choice of examples",
    "data.normalization": "with another normalization",
    "data.augmentation": "with another augmentation",
    "data.seed": "with views of another seed",
    "data.views": "with another number of views",
    "outputs.layers": "with other layers",
    "outputs.dtype": "with another dtype",
    "outputs.top_k": "with another top_k",
}


@dataclasses.dataclass(frozen=True)
class Shard:
    """The file of the examples first .. last-1 in one view."""

    view: int
    first: int
    last: int
    name: str

    def spans(self, batch_size: int) -> list[tuple[int, int, int]]:
        """Its batches, as `Views.in_order` takes them."""
        starts = range(self.first, self.last, batch_size)
        return [(self.view, start, min(start + batch_size, self.last)) for start in starts]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a cache is of, and which files it has; `cache.json` holds it."""

    teacher: str
    data: dict[str, Any]
    layout: RecordLayout
    shard_examples: int

    @classmethod
    def of(cls, teacher: Teacher, views: Views, layout: RecordLayout) -> "Plan":
        """The plan for a teacher and the views that it is asked about."""
        size = max(_EXAMPLES_A_SHARD, -(-len(views) // _MOST_SHARDS))
        return cls(teacher.fingerprint(), views.identity, layout, size)

    @classmethod
    def read(cls, folder: pathlib.Path) -> "Plan":
        """The plan of the cache in a folder.

        Raises:
            InputError: If there is none, or one of another version.
        """
        path = folder / MANIFEST
        try:
            found = json.loads(path.read_text())
            if found["version"] != _VERSION:
                refuse_differences(folder, found, {"version": _VERSION})
            data, layout = found["data"], RecordLayout.from_json(found["outputs"])
            sizes = data["examples"], data["views"], found["shard_examples"]
            if not all(isinstance(size, int) and size >= 1 for size in sizes):
                raise ValueError(f"sizes {sizes}")
            return cls(found["teacher"], data, layout, found["shard_examples"])
        except FileNotFoundError as error:
            raise InputError(
                f"there is no cache in {str(folder)!r}: make it with kd.teachers.cache"
            ) from error
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            reason = getattr(error, "strerror", None) or "it does not describe a cache"
            raise InputError(
                f"{str(path)!r} is damaged ({reason}): delete the folder and make the cache anew"
            ) from error

    def to_json(self) -> dict[str, Any]:
        """The plan as plain values."""
        return {
            "version": _VERSION,
            "teacher": self.teacher,
            "data": self.data,
            "outputs": self.layout.to_json(),
            "shard_examples": self.shard_examples,
        }

    @functools.cached_property
    def digest(self) -> str:
        """What tells this cache from all others."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def shards_a_view(self) -> int:
        """How many files a view has."""
        return -(-self.data["examples"] // self.shard_examples)

    def shard(self, view: int, number: int) -> Shard:
        """A file by its view and its number in it."""
        first = number * self.shard_examples
        last = min(first + self.shard_examples, self.data["examples"])
        name = f"view{view:03}-{number:05}-of-{self.shards_a_view:05}.tfrecord"
        return Shard(view, first, last, name)

    def shards(self) -> Iterator[Shard]:
        """All files, view by view."""
        for view in range(self.data["views"]):
            for number in range(self.shards_a_view):
                yield self.shard(view, number)

    def header(self, shard: Shard) -> dict[str, Any]:
        """What the file begins with, which no file of another cache does."""
        return {"cache": self.digest, "view": shard.view, "first": shard.first, "last": shard.last}

    def what_is_wrong(self, folder: pathlib.Path, shard: Shard) -> str:
        """Why a file cannot be used, or an empty text; see `shards.what_is_wrong`."""
        path, examples = folder / shard.name, shard.last - shard.first
        return shards.what_is_wrong(path, self.header(shard), self.layout.record, examples)

    def open(self, folder: pathlib.Path, shard: Shard) -> np.ndarray:
        """The records of a whole file; see `shards.open_records`."""
        return shards.open_records(folder / shard.name, self.header(shard), self.layout.record)

    def adopt(self, folder: pathlib.Path) -> None:
        """Take the folder for this cache, or refuse one that holds another."""
        path = folder / MANIFEST
        if path.is_file():
            refuse_differences(folder, Plan.read(folder).to_json(), self.to_json())
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"a cache cannot be made in {str(folder)!r} ({error.strerror}): name a folder that "
                "can be written"
            ) from error
        temporary = folder / f".{MANIFEST}.{uuid.uuid4().hex}"
        made_with = {"python": platform.python_version(), "tensorflow": tf.__version__}
        text = json.dumps({**self.to_json(), "made_with": made_with}, indent=1, sort_keys=True)
        temporary.write_text(text + "\n")
        os.replace(temporary, path)


def refuse_differences(folder: pathlib.Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Refuse a cache whose description, as `Plan.to_json` gives it, differs from a new one.

    Raises:
        InputError: Naming the first difference.
    """
    before, now = _flat(old), _flat(new)
    for key, value in now.items():
        if before.get(key) != value:
            words = _WORDS.get(key, f"with another {key}")
            raise InputError(
                f"the cache in {str(folder)!r} was made {words} ({_short(before.get(key))}, not "
                f"{_short(value)}): name another folder, or delete this one"
            )


def _flat(value: dict[str, Any]) -> dict[str, Any]:
    """Two levels of keys as one, `{"data.seed": 0, ...}`."""
    flat: dict[str, Any] = {}
    for key, one in value.items():
        nested = isinstance(one, dict)
        flat |= {f"{key}.{inner}": v for inner, v in one.items()} if nested else {key: one}
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:12]}...{text[-4:]}"
