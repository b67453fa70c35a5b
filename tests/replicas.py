"""Two replicas on one machine."""

from typing import Any

from kd_keras.pipeline import strategies


def two_replicas() -> Any:
    """The strategy over the two logical CPUs that conftest.py makes."""
    return strategies.make("mirrored")
