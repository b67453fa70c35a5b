"""The check of a hyperparameter's value."""

from __future__ import annotations

from typing import Any

from kd_keras.errors import InputError


def require(owner: str, name: str, value: Any, *allowed: Any) -> None:
    """Raises unless a value is allowed.

    Args:
        owner: what has the hyperparameter, for the message.
        name: the hyperparameter.
        value: what was given.
        *allowed: names for a string; for a number its bounds, lowest and highest, both allowed. A
            number with whole bounds above 1 must be whole.

    Raises:
        InputError: naming the value and what is allowed.
    """
    if isinstance(allowed[0], str):
        if value not in allowed:
            raise InputError(
                f"{owner}.{name} {value!r} is unknown; there are: {', '.join(allowed)}"
            )
        return
    low, high = allowed
    whole = isinstance(high, int) and high > 1
    kinds: tuple[type, ...] = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
        kind = "whole number" if whole else "number"
        raise InputError(
            f"{owner}.{name} {value!r} is out of range; give a {kind} from {low} to {high}"
        )
