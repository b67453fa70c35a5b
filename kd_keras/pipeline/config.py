"""What a run's config may hold: every key with its default, and the checks that need no data."""

import json
import os
from typing import Any

from ml_collections import ConfigDict

from kd_keras.errors import InputError, closest_first

#: Sections whose keys their owners define: methods, models, augmentations, the adversarial part.
FREE_FORM = (
    "data.augmentation",
    "teacher.options",
    "student.options",
    "teacher.members",
    "distillation.methods",
    "distillation.adversarial",
    "distillation.conditional",
    "distillation.stages",
    "distillation.born_again",
    "search",
)

_ABSENT = "no such key"  # a value that no key has: one may well be None
_ADAM = {"name": "adam", "learning_rate": 1e-3, "schedule": "cosine", "warmup_epochs": 0.0}
_OPTIMIZER = {**_ADAM, "momentum": 0.9, "weight_decay": 0.0}
#: The techniques that `compression` may list, with their keys' defaults. Pruning recovers last,
#: when a falling learning rate would be at its end.
TECHNIQUES: dict[str, dict[str, Any]] = {
    "batch_norm_folding": {"epochs": 0},
    "dead_channels": {"epochs": 0},
    "class_bias": {"epochs": 0},
    "filter_pruning": {"epochs": 3},
    "low_rank": {"epochs": 3},
    "pruning": {"epochs": 3, "optimizer": {"schedule": "constant"}},
    "clustering": {"epochs": 3},
    "quantization": {"epochs": 3},
}
#: Keys of each entry of `compression` that say what it learns from, as in `distillation`.
STEP_TERMS = ("methods", "label_weight", "adversarial", "conditional")
#: All keys of an entry that are no argument of its technique.
STEP_KEYS = ("technique", "epochs", "optimizer", "from_scratch", *STEP_TERMS)


def defaults() -> ConfigDict:
    """Every key of a config with its default; the README of `configs/` explains them."""
    return ConfigDict(
        {
            "seed": 0,
            "strategy": "default",
            "deterministic": True,
            "precision": "float32",
            "data": {
                "name": "digits",
                "data_dir": "",
                "image_size": (),
                "validation": 0.1,
                "limit": 0,
                "batch_size": 64,
                "mean": (),
                "std": (),
                "augmentation": {},
            },
            "teacher": {
                "model": "",
                "options": {},
                "path": "",
                "epochs": 10,
                "optimizer": dict(_OPTIMIZER),
                "members": {},
                "mean": "arithmetic",
                "weights": (),
                "class_map": (),
                "cache": {"views": 0, "dtype": "float16", "top_k": 0, "path": ""},
            },
            "student": {
                "model": "",
                "options": {},
                "epochs": 10,
                "optimizer": dict(_OPTIMIZER),
                # The part of the training set that the student sees; the teacher sees all of it.
                "transfer_set": {"share": 1.0, "without_classes": (), "augmented": True},
            },
            "distillation": {
                "methods": {},
                "label_weight": 0.1,
                "adversarial": {},
                "conditional": {},
                "stages": {},
                "born_again": {},
            },
            "compression": (
                {"technique": "pruning", "sparsity": 0.5},
                {"technique": "quantization"},
            ),
            "export": {"calibration_examples": 512},
            "verify": {"agreement": 0.95},
            "benchmark": {"threads": (1, 2), "runs": 200},
            "search": {},
        }
    )


def complete(config: ConfigDict) -> ConfigDict:
    """The config with the defaults where it is silent.

    Raises:
        InputError: For a key that does not exist, listing those that do, and for values that no
            run can use.
    """
    base = defaults()
    base.compression = _complete_steps(base.compression)
    merged = _merge(base, config, prefix="")
    merged.distillation.stages = _complete_stages(merged.distillation.stages)
    merged.lock()
    return merged


def _complete_stages(stages: ConfigDict) -> ConfigDict:
    """The stages with keys that a flag can then set; 0 epochs are the student's."""
    for name, stage in stages.items():
        if not isinstance(stage, ConfigDict):
            raise InputError(
                f"config.distillation.stages.{name} is {stage!r}; it must be a section"
            )
    common = {"epochs": 0, "methods": {}}
    return ConfigDict({name: {**common, **stage.to_dict()} for name, stage in stages.items()})


def _complete_steps(entries: Any) -> tuple[dict[str, Any], ...]:
    """The entries of `compression` with their techniques' defaults, which a flag can then set.

    A tuple, which a flag can replace as a whole, too.
    """
    if not isinstance(entries, (list, tuple)):
        raise InputError(
            f"config.compression is {entries!r}; it must be a list of techniques, in order, such "
            'as [{"technique": "pruning", "sparsity": 0.5}, {"technique": "quantization"}]'
        )
    return tuple(_complete_step(number, entry) for number, entry in enumerate(entries))


def _complete_step(number: int, entry: Any) -> dict[str, Any]:
    where = f"config.compression[{number}]"
    given = entry.to_dict() if isinstance(entry, ConfigDict) else entry
    if not isinstance(given, dict) or given.get("technique") not in TECHNIQUES:
        raise InputError(
            f"{where} is {given!r}; it must be a section with a technique, one of: "
            f"{', '.join(TECHNIQUES)}"
        )
    own = TECHNIQUES[given["technique"]]
    optimizer = {**_OPTIMIZER, **own.get("optimizer", {}), **given.get("optimizer", {})}
    unknown = sorted(set(optimizer) - set(_OPTIMIZER))
    if unknown:
        raise InputError(
            f"{where}.optimizer has no key {unknown[0]!r}; it has: {', '.join(_OPTIMIZER)}"
        )
    complete = {**own, **given, "optimizer": optimizer}
    epochs = complete["epochs"]
    if not (isinstance(epochs, int) and epochs >= 0):
        raise InputError(f"{where}.epochs is {epochs!r}; it must be a whole number from 0")
    return complete


def check(config: ConfigDict) -> None:
    """Refuse values that no run can use.

    Raises:
        InputError: Naming the key, its value and what is allowed.
    """
    positive = [f"{s}.epochs" for s in ("teacher", "student")] + ["data.batch_size"]
    positive += ["export.calibration_examples", "benchmark.runs"]
    for key in positive:
        _require(config, key, lambda v: isinstance(v, int) and v >= 1, "a whole number from 1")
    for key in ("teacher.cache.views", "teacher.cache.top_k"):
        _require(config, key, lambda v: isinstance(v, int) and v >= 0, "a whole number from 0")
    _require(config, "verify.agreement", lambda v: 0 <= v <= 1, "a fraction from 0 to 1")
    _require(config, "data.validation", lambda v: 0 < v < 1, "above 0 and below 1")
    share = "student.transfer_set.share"
    _require(config, share, lambda v: 0 < v <= 1, "above 0 and at most 1")
    for role in ("teacher", "student"):
        given = config[role].model or config[role].get("path") or config[role].get("members")
        if not given:
            raise InputError(f"config.{role}.model is empty: name a network, or a teacher.path")
    if len(config.data.mean) != len(config.data.std):
        raise InputError(
            f"config.data.mean has {len(config.data.mean)} values, config.data.std "
            f"{len(config.data.std)}: give one of each a channel, or neither"
        )


def differences(old: dict, new: dict) -> list[str]:
    """The dotted keys in which two configs differ, sorted.

    A key that one of them does not have stands at its default there, so that what was made before
    a key existed still counts. That is not so for the entries of a list, which may be fewer, nor
    for a key of a free-form section, whose absence is not the same as None.
    """
    default = _default_values()
    old, new = flat(old), flat(new)
    return sorted(
        k
        for k in old.keys() | new.keys()
        if old.get(k, default.get(k, _ABSENT)) != new.get(k, default.get(k, _ABSENT))
    )


def changed(config: dict) -> dict[str, Any]:
    """The dotted keys that do not stand at their defaults; `differences` compares such, too."""
    default = _default_values()
    return {k: v for k, v in flat(config).items() if v != default.get(k, _ABSENT)}


def _default_values() -> dict[str, Any]:
    """The default of each dotted key; the entries of lists have none."""
    return {k: v for k, v in flat(defaults().to_dict()).items() if "[" not in k}


def plain(config: ConfigDict) -> dict:
    """What a run reads of the config, as JSON would give it back: all but `search`."""
    return {k: v for k, v in json.loads(config.to_json()).items() if k != "search"}


def flat(config: dict, prefix: str = "") -> dict[str, Any]:
    """A nested config as `{"data.batch_size": 64, ...}`, with lists for tuples as in JSON.

    The entries of a list of sections are `{"compression[0].epochs": 3, ...}`.
    """
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
            for number, entry in enumerate(value):
                found |= flat(entry, f"{prefix}{key}[{number}].")
        else:
            found[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return found


def expanded(path: str) -> str:
    """A path of the config with `~` and environment variables filled in."""
    return os.path.expandvars(os.path.expanduser(path))


def _merge(base: ConfigDict, given: ConfigDict, prefix: str) -> ConfigDict:
    for key, value in given.items():
        name = f"{prefix}{key}"
        if key not in base:
            raise InputError(
                f"config key {name!r} does not exist; there are: "
                f"{closest_first(name, (prefix + k for k in sorted(base)))}"
            )
        if name == "compression":  # which is checked as a whole
            base[key] = _complete_steps(value)
            continue
        if isinstance(base[key], ConfigDict) != isinstance(value, ConfigDict):
            kind = "a section" if isinstance(base[key], ConfigDict) else "a value"
            raise InputError(f"config key {name!r} is {value!r}; it must be {kind}")
        if isinstance(value, ConfigDict) and name not in FREE_FORM:
            _merge(base[key], value, f"{name}.")
        else:
            _set(base, key, value, name)
    return base


def _set(base: ConfigDict, key: str, value: Any, name: str) -> None:
    if isinstance(value, ConfigDict):
        base[key] = value
        return
    try:
        base[key] = tuple(value) if isinstance(value, list) else value
    except TypeError as error:
        raise InputError(
            f"config key {name!r} is {value!r}; it must be of type {type(base[key]).__name__}"
        ) from error


def _require(config: ConfigDict, key: str, holds: Any, allowed: str) -> None:
    value = flat(config.to_dict())[key]
    if not holds(value):
        raise InputError(f"config.{key} is {value!r}; it must be {allowed}")
