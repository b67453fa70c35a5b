"""Two replicas on one machine."""

import functools
from typing import Any

import tensorflow as tf


@functools.cache
def two_replicas() -> Any:
    """One strategy for all tests: a second one would use the collective keys of the first."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
