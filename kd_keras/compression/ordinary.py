"""The verbs of the techniques whose `apply` gives an ordinary model: there is nothing to add."""

import tensorflow as tf

from kd_keras.compression import toolkit


def callbacks(model: tf.keras.Model) -> list[tf.keras.callbacks.Callback]:
    """The callbacks for a ``fit`` that trains ``model``: none are needed."""
    toolkit.require_graph(model)
    return []


def finish(model: tf.keras.Model) -> tf.keras.Model:
    """Returns ``model`` itself: it is an ordinary model since ``apply``."""
    toolkit.require_graph(model)
    return model
