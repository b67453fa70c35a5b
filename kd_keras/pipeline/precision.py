"""The numbers that a training computes with: float32, or bfloat16 where a CPU has it.

With "bfloat16" TensorFlow's graph optimizer lets oneDNN compute the convolutions and matrix
products of a training in bfloat16, forwards and backwards. Weights, optimizers and losses stay
float32, and so does all that a run writes and measures: the models know nothing of it. A Keras
policy (`mixed_bfloat16`) would be as quick, but stays in the layers of the model that is exported.
"""

import contextlib
import pathlib
from collections.abc import Iterator

import tensorflow as tf

from kd_keras.errors import InputError

NAMES = ("float32", "bfloat16")
_REWRITE = "auto_mixed_precision_onednn_bfloat16"
_CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # of x86 and of 64-bit ARM


def check(name: str) -> None:
    """Refuse an unknown precision.

    Raises:
        InputError: Naming those that there are.
    """
    if name not in NAMES:
        raise InputError(f"config.precision is {name!r}; it must be one of: {', '.join(NAMES)}")


def warning(name: str, listing: str = "/proc/cpuinfo") -> str:
    """What stands against a precision here, as a sentence; "" if nothing does.

    Args:
        name: The precision.
        listing: The file in which Linux lists what a CPU can do.
    """
    if name == "float32":
        return ""
    if tf.config.list_physical_devices("GPU"):
        return "precision 'bfloat16' is for CPUs: on a GPU the training computes in float32"
    path = pathlib.Path(listing)
    if path.exists() and not _CPU_FLAGS & set(path.read_text().split()):
        return "this CPU has no bfloat16: the training computes in float32, which takes longer"
    return ""


@contextlib.contextmanager
def computing_in(name: str) -> Iterator[None]:
    """Let what TensorFlow runs while the context lasts compute in a precision of `NAMES`."""
    before = tf.config.optimizer.get_experimental_options().get(_REWRITE, False)
    tf.config.optimizer.set_experimental_options({_REWRITE: name == "bfloat16"})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({_REWRITE: before})
