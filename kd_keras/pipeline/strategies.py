"""The distribution strategies of a config, by name."""

import functools
import json
import os
from typing import Any

import tensorflow as tf

from kd_keras.errors import InputError

NAMES = ("default", "mirrored", "multi_worker", "tpu")


def make(name: str) -> Any:
    """The `tf.distribute` strategy of that name.

    "default" is one device; "mirrored" all GPUs of this machine, or all its logical CPUs where it
    has no GPU; "multi_worker" the workers of `TF_CONFIG`, which share the work directory; "tpu" the
    TPU of `TPU_NAME`.

    Raises:
        InputError: For an unknown name, or where the machines that the strategy needs are missing.
    """
    if name not in NAMES:
        raise InputError(f"strategy {name!r} does not exist; there are: {', '.join(NAMES)}")
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return _mirrored(tuple(device.name for device in devices))
    if name == "multi_worker":
        return _multi_worker()
    if name == "tpu":
        return _tpu()
    return tf.distribute.get_strategy()


def is_chief() -> bool:
    """Whether this process writes the artefacts: worker 0 of `TF_CONFIG`, or the only one."""
    task = json.loads(os.environ.get("TF_CONFIG") or "{}").get("task", {})
    return task.get("type", "worker") in ("worker", "chief") and task.get("index", 0) == 0


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    """One strategy a process: a second one on the same devices would use the first's keys."""
    return tf.distribute.MirroredStrategy(devices)


def _multi_worker() -> Any:
    if not os.environ.get("TF_CONFIG"):
        raise InputError(
            "strategy 'multi_worker' needs TF_CONFIG, which is not set: give every worker its "
            'cluster and task, as in {"cluster": {"worker": ["host:port", ...]}, "task": '
            '{"type": "worker", "index": 0}}'
        )
    return tf.distribute.MultiWorkerMirroredStrategy()


def _tpu() -> Any:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"strategy 'tpu' finds no TPU ({reason}): set TPU_NAME") from error
    return tf.distribute.TPUStrategy(resolver)
