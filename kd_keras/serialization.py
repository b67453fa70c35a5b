"""Keras' object serialization, which the two Keras keep in different places."""

import tensorflow as tf

# `tf.keras.saving` is missing from Keras 3's tf.keras; tf_keras' `utils` has an older format.
_home = getattr(tf.keras, "saving", tf.keras.utils)

serializable = _home.register_keras_serializable
serialize = _home.serialize_keras_object
deserialize = _home.deserialize_keras_object
