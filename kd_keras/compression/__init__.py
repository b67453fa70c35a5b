"""Smaller students, one technique a file, each with the same three verbs.

``apply(student, ...)`` returns a changed copy to train, ``callbacks(model)`` what its ``fit``
needs, ``finish(model)`` the model to keep. Pruning, clustering and quantization are done by
tensorflow-model-optimization; the rest makes ordinary, smaller models. All of it needs tf_keras:
``TF_USE_LEGACY_KERAS=1`` set before TensorFlow is imported.
"""

from kd_keras.compression import (
    batch_norm_folding,
    class_bias,
    clustering,
    dead_channels,
    filter_pruning,
    low_rank,
    pruning,
    quantization,
)

__all__ = [
    "batch_norm_folding",
    "class_bias",
    "clustering",
    "dead_channels",
    "filter_pruning",
    "low_rank",
    "pruning",
    "quantization",
]
