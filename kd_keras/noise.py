"""The noise of an adversarial game: dropout switched on and off, and numbers drawn by update."""

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from kd_keras.hooks import around_call
from kd_keras.updates import example_numbers

_layers = tf.keras.layers
_DROPOUT = (_layers.Dropout, _layers.GaussianDropout, _layers.AlphaDropout)


def dropout_layers(model: Any) -> list:
    """The model's dropout layers with a rate above 0, at any depth, spatial ones included."""
    # The one accessor of sub-layers that both Keras share; `.layers` exists on models only.
    found = model._flatten_layers(recursive=True, include_self=True)
    return [layer for layer in found if isinstance(layer, _DROPOUT) and layer.rate > 0]


@contextlib.contextmanager
def without_dropout(model: Any) -> Iterator[None]:
    """Run forward passes of the model with its dropout layers in inference mode, and only those."""
    with contextlib.ExitStack() as off:
        for layer in dropout_layers(model):
            off.enter_context(around_call(layer, _in_inference))
        yield


@contextlib.contextmanager
def statistics_kept(model: Any) -> Iterator[None]:
    """Give the model, when the context ends, the statistics (BatchNorm's) that it began with.

    The state of random generators is none of them: it goes on.
    """
    weights = model.non_trainable_weights
    before = [tf.identity(tf.convert_to_tensor(weight)) for weight in weights]
    yield
    for weight, value in zip(weights, before, strict=True):
        weight.assign(value)


@contextlib.contextmanager
def dropout_behind(layer: Any, rate: float, seed: tf.Tensor) -> Iterator[None]:
    """Run forward passes in which a dropout layer seems to follow this layer; see `dropped`."""

    def noisy(call: Any, *args: Any, **kwargs: Any) -> Any:
        return dropped(call(*args, **kwargs), rate, seed)

    with around_call(layer, noisy):
        yield


def dropped(values: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
    """The values under dropout, `(batch, ...)`, drawn as `uniform` draws."""
    kept = uniform(values, tf.shape(values)[1:], seed) >= rate
    return tf.where(kept, values / (1 - rate), 0.0)


def uniform(examples: tf.Tensor, shape: Any, seed: tf.Tensor) -> tf.Tensor:
    """Numbers in [0, 1) for each of this replica's examples, `(batch, *shape)`.

    They are drawn for the global batch, so that they do not depend on the number of replicas.

    Args:
        examples: Any tensor with this replica's examples, `(batch, ...)`.
        shape: Of an example's numbers.
        seed: `(2,)`, integers; the same seed draws the same numbers.
    """
    first, total = example_numbers(examples)
    drawn = tf.random.stateless_uniform(tf.concat([[total], shape], axis=0), seed=seed)
    return drawn[first : first + tf.shape(examples)[0]]


def _in_inference(call: Any, inputs: Any, *_: Any, **__: Any) -> Any:
    return call(inputs, training=False)
