"""Smaller students, one technique a file, each with the same three verbs.

``apply(student, ...)`` returns a changed copy to train, ``callbacks(model)`` what its ``fit``
needs, ``finish(model)`` the model to keep. tensorflow-model-optimization does the work, so all of
it needs tf_keras: ``TF_USE_LEGACY_KERAS=1`` set before TensorFlow is imported.
"""

from kd_keras.compression import pruning, quantization

__all__ = ["pruning", "quantization"]
