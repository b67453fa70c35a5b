"""Ready networks, found by name, and the files their weights live in.

One architecture family a file; a new file with a ``FAMILY`` in it is all that a new family takes.
"""

from kd_keras.models.model_file import load_model, may_hold_weights_only
from kd_keras.models.registry import build, names, size_options, sizes, taps
from kd_keras.models.weights import load_weights, save_weights_npz

__all__ = [
    "build",
    "load_model",
    "load_weights",
    "may_hold_weights_only",
    "names",
    "save_weights_npz",
    "size_options",
    "sizes",
    "taps",
]
