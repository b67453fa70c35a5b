"""What a search walks: the choices of a config's `search`, or those that its student suggests."""

import copy
import dataclasses
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from kd_keras import models
from kd_keras.errors import InputError
from kd_keras.pipeline import config as configs

_WALKED = ("student", "distillation", "compression")
_SPARSITIES = (0.0, 0.5, 0.75)
#: The techniques that the suggested pruning goes before.
_AFTER_PRUNING = ("clustering", "quantization")


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One key of the config with the values that a search may give it.

    Attributes:
        key: As in a config, "student.model".
        choices: The values by their labels, in order.
    """

    key: str
    choices: Mapping[str, Any]


#: What one trial is: the label that it chose of each key.
Choices = Mapping[str, str]


def read(config: ConfigDict) -> tuple[Dimension, ...]:
    """The dimensions of a complete config.

    Args:
        config: Its `search` is shaped as the config: `{"student": {"model": [...]}}`, with a list
            of values at each key; `compression` has a name for each of its lists. Where it is
            empty, the sizes of the student's family are walked, times a sparsity of none, 50 and
            75 %, times quantization-aware training and quantization after training.

    Raises:
        InputError: For a key that the config has not, and what is no list of choices.
    """
    given = config.search.to_dict()
    if not given:
        return suggested(config)
    unknown = [name for name in given if name not in _WALKED]
    if unknown:
        raise InputError(
            f"config.search has no key {unknown[0]!r}; a search walks: {', '.join(_WALKED)}"
        )
    named = given.pop("compression", None)
    leaves = sorted(_leaves(given), key=lambda leaf: leaf[0] != "student.model")
    dimensions = [_dimension(key, values) for key, values in leaves]
    if named is not None:
        dimensions.append(_compressions(named))
    for dimension in dimensions:
        for label in dimension.choices:
            _check(config, dimension, label)
    return tuple(dimensions)


def suggested(config: ConfigDict) -> tuple[Dimension, ...]:
    """The dimensions of a config that names none."""
    own = config.student.model
    values = {"student.model": list(models.sizes(own))}
    for option, tried in models.size_options(own).items():
        values[f"student.options.{option}"] = list(tried)
    sizes = [_dimension(key, found) for key, found in values.items() if len(found) > 1]
    entries = configs.plain(config)["compression"]
    lists = {
        f"{f'sparse{round(100 * sparsity)}-' if sparsity else ''}{kind}": _steps(
            entries, sparsity, aware=kind == "qat"
        )
        for kind, sparsity in itertools.product(("ptq", "qat"), _SPARSITIES)
    }
    return (*sizes, Dimension("compression", lists))


def configured(config: ConfigDict, space: tuple[Dimension, ...], choices: Choices) -> ConfigDict:
    """The complete config of a trial, without `search`.

    Raises:
        InputError: If the chosen values make no config.
    """
    values = copy.deepcopy(config.to_dict())
    values["search"] = {}
    for dimension in space:
        *sections, name = dimension.key.split(".")
        section = values
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = copy.deepcopy(dimension.choices[choices[dimension.key]])
    made = configs.complete(ConfigDict(values))
    configs.check(made)
    return made


def size(space: tuple[Dimension, ...]) -> int:
    """How many combinations there are."""
    count = 1
    for dimension in space:
        count *= len(dimension.choices)
    return count


def combinations(space: tuple[Dimension, ...]) -> Iterator[dict[str, str]]:
    """All combinations, in order."""
    keys = [dimension.key for dimension in space]
    for labels in itertools.product(*(dimension.choices for dimension in space)):
        yield dict(zip(keys, labels, strict=True))


def name(choices: Choices) -> str:
    """What a trial is called, fit for a file: "convnet-4-4-8_sparse50-qat".

    Example:
        >>> name({"student.model": "mobilenet", "student.options.width": "0.5"})
        'mobilenet_width0.5'
    """
    plain = ("student.model", "compression")
    parts = [
        label if key in plain else f"{key.split('.')[-1]}{label}" for key, label in choices.items()
    ]
    return re.sub(r"[^\w.-]+", "-", "_".join(parts)).strip("-.")


def _leaves(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _dimension(key: str, values: Any) -> Dimension:
    if not isinstance(values, (list, tuple)) or not values:
        raise InputError(
            f"config.search.{key} is {values!r}; it must be a list of values, at least one"
        )
    labels = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return Dimension(key, _unique(key, labels, list(values)))


def _unique(key: str, labels: list[str], values: list[Any]) -> dict[str, Any]:
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise InputError(f"config.search.{key} has {twice[0]} twice; leave one of them out")
    return dict(zip(labels, values, strict=True))


def _compressions(named: Any) -> Dimension:
    if not isinstance(named, dict) or not named:
        raise InputError(
            f"config.search.compression is {named!r}; it must be lists of techniques by name, such "
            'as {"qat": [{"technique": "quantization"}], "ptq": []}'
        )
    return Dimension("compression", named)


def _check(config: ConfigDict, dimension: Dimension, label: str) -> None:
    """Refuse a value that makes no config, naming the search as its origin."""
    try:
        configured(config, (dimension,), {dimension.key: label})
    except InputError as error:
        raise InputError(f"config.search.{dimension.key}, choice {label!r}: {error}") from error


def _steps(entries: list[dict], sparsity: float, *, aware: bool) -> list[dict]:
    """A config's list with another sparsity, and with or without quantization in training."""
    kept = [e for e in entries if e["technique"] not in ("pruning", "quantization")]
    if sparsity:
        own = next((e for e in entries if e["technique"] == "pruning"), {"technique": "pruning"})
        terms = {k: v for k, v in own.items() if k in configs.STEP_KEYS}
        first_after = [i for i, e in enumerate(kept) if e["technique"] in _AFTER_PRUNING]
        place = first_after[0] if first_after else len(kept)
        kept.insert(place, {**terms, "sparsity": sparsity})
    if aware:
        quantization = {"technique": "quantization"}
        own = next((e for e in entries if e["technique"] == "quantization"), quantization)
        kept.append(own)
    return kept
