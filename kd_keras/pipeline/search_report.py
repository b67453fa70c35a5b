"""What a search leaves: `search.json`, `search.html`, and a config to run for each of its front."""

import dataclasses
import importlib.metadata
import json
import pathlib
import shutil
import time
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from kd_keras import data
from kd_keras.errors import InputError
from kd_keras.pipeline import config as configs
from kd_keras.pipeline import numerals, search_front, search_page, search_space
from kd_keras.pipeline.device import Device
from kd_keras.pipeline.search_front import Limits, Trial
from kd_keras.pipeline.search_space import Dimension
from kd_keras.pipeline.workdir import Workdir, replacing, write_json
from tflite_export.machine import machine_facts

_PACKAGES = ("kd-keras", "tensorflow", "optuna", "ai-edge-litert")
_CONFIG = '''"""{title}, found by a search.

On {images} validation images, as an int8 file: {accuracy} accurate, {size} bytes ({gzip} after
gzip), {latency} on {device}. The test set has not been read: a run reads it. Command:

    kd-train --config={file} --workdir=runs/{name}
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict({values})
'''


def asked(
    config: ConfigDict, space: tuple[Dimension, ...], limits: Limits, seed: int, device: str
) -> dict[str, Any]:
    """What is searched, by which a search knows that it is the same."""
    walked = {dimension.key: dict(dimension.choices) for dimension in space}
    found = {
        "config": configs.plain(config),
        # A key of the config has dots, as a path in JSON would.
        "search": {key.replace(".", "/"): walked[key] for key in walked},
        "limits": dataclasses.asdict(limits),
        "seed": seed,
        "device": device,
    }
    return json.loads(json.dumps(found))


def write(
    root: Workdir,
    config: ConfigDict,
    space: tuple[Dimension, ...],
    trials: Sequence[Trial],
    limits: Limits,
    seed: int,
    device: Device,
    command: str,
) -> dict[str, Any]:
    """Write all results and return what `search.json` holds.

    Raises:
        InputError: If no trial is within the limits, naming the smallest that was found.
    """
    dataset = data.open_saved(root.path("base", "data"))
    front = search_front.front(trials, limits)
    best = search_front.recommended(trials, limits)
    found = {
        **asked(config, space, limits, seed, device.name),
        "data": {"name": dataset.name, "validation": len(dataset.validation.labels)},
        "combinations": search_space.size(space),
        "trials": [dataclasses.asdict(trial) for trial in trials],
        "front": [trial.number for trial in front],
        "recommended": best.number if best else None,
        "machine": machine_facts(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "command": command,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    _write_configs(root.path("front"), config, space, front, found)
    write_json(root.path("search.json"), found)
    search_page.write(found, root.path("search.html"))
    if best is None:
        raise InputError(_nothing_fits(trials, limits))
    return found


def _write_configs(
    folder: pathlib.Path,
    config: ConfigDict,
    space: tuple[Dimension, ...],
    front: Sequence[Trial],
    found: dict[str, Any],
) -> None:
    """One config file a trial of the front, in the place of those of an earlier front."""
    shutil.rmtree(folder, ignore_errors=True)
    for trial in front:
        values = configs.plain(search_space.configured(config, space, trial.choices))
        path = folder / f"{trial.name}.py"
        text = _CONFIG.format(
            title=f"Trial {trial.number}, {trial.title}",
            images=numerals.count(found["data"]["validation"]),
            accuracy=numerals.percent(trial.accuracy),
            size=numerals.count(trial.bytes),
            gzip=numerals.count(trial.gzip_bytes),
            latency=numerals.latency(trial.latency_us),
            device=found["device"],
            file=path,
            name=trial.name,
            values=_literal(values, "    "),
        )
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _literal(value: Any, indent: str) -> str:
    """A value of a config as Python, one key a line."""
    inner = indent + "    "
    if isinstance(value, dict) and value:
        lines = [f"{inner}{json.dumps(k)}: {_literal(v, inner)},\n" for k, v in value.items()]
        return "{\n" + "".join(lines) + indent + "}"
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        lines = [f"{inner}{_literal(one, inner)},\n" for one in value]
        return "[\n" + "".join(lines) + indent + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _nothing_fits(trials: Sequence[Trial], limits: Limits) -> str:
    """One line on why there is no result, with the least that was found."""
    smallest = search_front.smallest(trials)
    if smallest is None:
        return f"none of {len(trials)} trials could be built; the first: {trials[0].reason}"
    size = f"{numerals.count(smallest.bytes)} bytes, {numerals.latency(smallest.latency_us)}"
    line = f"none of {len(trials)} trials is within {limits}; the smallest found is "
    line += f"{smallest.title}, {size} ({smallest.state})"
    if failed := [trial for trial in trials if trial.state == search_front.FAILED]:
        return f"{line}; {len(failed)} failed, the first: {failed[0].reason}"
    return f"{line}: allow more, or put smaller students into config.search"
