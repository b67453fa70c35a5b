"""Tiny models and batches that tests share; a net of the same arguments has the same weights."""

from typing import Any

import numpy as np
import tensorflow as tf

layers = tf.keras.layers


def net(
    width: int,
    *,
    inputs: int = 4,
    classes: int = 3,
    activation: str = "tanh",
    ending: str | None = None,
    batch_norm: bool = False,
    dropout: float = 0.0,
    l2: float = 0.0,
    seed: int = 1,
) -> Any:
    """A Functional model with the layers `features` and `logits`."""
    regularizer = tf.keras.regularizers.L2(l2) if l2 else None
    x = start = tf.keras.Input((inputs,), name="pixels")
    x = layers.Dense(width, activation, kernel_regularizer=regularizer, name="features")(x)
    x = layers.BatchNormalization(name="norm")(x) if batch_norm else x
    x = layers.Dropout(dropout, name="dropout")(x) if dropout else x
    x = layers.Dense(classes, ending, name="logits")(x)
    return with_weights(tf.keras.Model(start, x), seed)


def convolutional(width: int, *, seed: int = 1) -> Any:
    """A Functional model on 6x6x1 images: the map `maps`, its mean, and `logits`."""
    start = tf.keras.Input((6, 6, 1))
    x = layers.Conv2D(width, 3, activation="tanh", name="maps")(start)
    x = layers.GlobalAveragePooling2D(name="features")(x)
    return with_weights(tf.keras.Model(start, layers.Dense(3, name="logits")(x)), seed)


def with_weights(model: Any, seed: int) -> Any:
    """Give the trainable weights values that depend on nothing but the seed."""
    generator = np.random.default_rng(seed)
    for weight in model.trainable_variables:
        weight.assign(generator.normal(0, 0.7, weight.shape).astype("float32"))
    return model


def batch(examples: int = 16, *, inputs: int = 4, classes: int = 3, seed: int = 5) -> Any:
    """`(x, y)`: normal inputs and class indices."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(examples, inputs)).astype("float32")
    return x, generator.integers(0, classes, examples)


def images(examples: int = 8, seed: int = 5) -> np.ndarray:
    """Inputs of `convolutional`."""
    return np.random.default_rng(seed).normal(size=(examples, 6, 6, 1)).astype("float32")


def values(model: Any) -> list[np.ndarray]:
    """Copies of all weights."""
    return [np.array(w) for w in model.get_weights()]


def assert_same(left: list[np.ndarray], right: list[np.ndarray], atol: float = 0.0) -> None:
    """Two lists of weights are equal, bit by bit unless `atol` is given."""
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=atol)


def assert_differ(left: list[np.ndarray], right: list[np.ndarray]) -> None:
    """At least one weight differs."""
    assert any((one != other).any() for one, other in zip(left, right, strict=True))


def one_line(error: Any, *words: str) -> str:
    """The text of a caught error, which is one line and holds the words."""
    text = str(error.value)
    assert "\n" not in text, f"more than one line:\n{text}"
    for word in words:
        assert word in text, f"{word!r} is not in: {text}"
    return text
