"""Tiny nets, one for each way in which channels are joined, with BatchNorms that do something."""

from typing import Any

import numpy as np
import tensorflow as tf

layers = tf.keras.layers


def with_statistics(model: Any, seed: int = 0) -> Any:
    """Gives every BatchNorm a gamma, beta, mean and variance of its own, and every bias a value."""
    generator = np.random.default_rng(seed)
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, layers.BatchNormalization):
            for weight, low, high in (
                *((layer.gamma, 0.5, 1.5), (layer.beta, -0.5, 0.5)),
                *((layer.moving_mean, -0.5, 0.5), (layer.moving_variance, 0.5, 1.5)),
            ):
                if weight is not None:
                    weight.assign(generator.uniform(low, high, weight.shape))
        elif getattr(layer, "bias", None) is not None:
            layer.bias.assign(generator.uniform(-0.5, 0.5, layer.bias.shape))
    return model


def images(model: Any, examples: int = 3) -> np.ndarray:
    """Inputs that fit the model."""
    shape = (examples, *model.inputs[0].shape[1:])
    return np.random.default_rng(5).normal(size=shape).astype("float32")


def outputs(model: Any, inputs: np.ndarray | None = None) -> np.ndarray:
    return np.asarray(model(images(model) if inputs is None else inputs, training=False))


def conv_bn(x: Any, width: int, name: str, kernel: int = 3, active: bool = True, **options: Any):
    x = layers.Conv2D(
        width, kernel, name=name, **{"padding": "same", "use_bias": False, **options}
    )(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if active else x


def model_of(image: Any, maps: Any) -> Any:
    """Pools ``maps``, makes three logits of them, and fills all weights."""
    features = layers.GlobalAveragePooling2D(name="features")(maps)
    return finished(image, layers.Dense(3, name="logits")(features))


def finished(image: Any, logits: Any) -> Any:
    return with_statistics(tf.keras.Model(image, logits, name="student"))


def plain() -> Any:
    image = layers.Input((8, 8, 2), name="image")
    x = layers.MaxPooling2D(2, name="pool")(conv_bn(image, 6, "conv1"))
    x = layers.ZeroPadding2D(1, name="pad")(x)
    x = conv_bn(x, 8, "conv2", padding="valid", strides=2, use_bias=True)
    x = layers.Dropout(0.5, name="dropout")(x)
    return model_of(image, layers.LeakyReLU(name="stage1")(x))


def projected() -> Any:
    """Two residual blocks; the first one's shortcut is a projection."""
    image = layers.Input((8, 8, 2), name="image")
    x = conv_bn(image, 4, "stem")
    y = conv_bn(conv_bn(x, 6, "a1", strides=2), 8, "a2", active=False)
    x = layers.Add(name="a_add")([y, conv_bn(x, 8, "a_short", 1, active=False, strides=2)])
    x = layers.ReLU(name="stage1")(x)
    y = conv_bn(conv_bn(x, 6, "b1"), 8, "b2", active=False)
    return model_of(image, layers.ReLU(name="stage2")(layers.Add(name="b_add")([x, y])))


def concatenated() -> Any:
    image = layers.Input((8, 8, 2), name="image")
    x = conv_bn(image, 4, "stem")
    left = conv_bn(x, 6, "left")
    right = layers.AveragePooling2D(3, 1, "same", name="mean")(conv_bn(x, 4, "right", 1))
    x = layers.Concatenate(name="joined")([left, x, right])
    x = layers.BatchNormalization(name="joined_bn")(x)
    return model_of(image, conv_bn(x, 6, "top"))


def separable() -> Any:
    """Depthwise with a multiplier and bias, pointwise, SeparableConv2D and a transposed one."""
    image = layers.Input((8, 8, 2), name="image")
    x = conv_bn(image, 4, "stem", strides=2)
    x = layers.DepthwiseConv2D(
        3, padding="same", depth_multiplier=2, activation="relu", name="depthwise"
    )(x)
    x = layers.BatchNormalization(name="depthwise_bn")(x)
    x = conv_bn(x, 6, "pointwise", 1)
    x = layers.SeparableConv2D(5, 3, depth_multiplier=2, name="separable")(x)
    x = layers.Conv2DTranspose(4, 3, strides=2, activation="relu", name="transposed")(x)
    return model_of(image, conv_bn(x, 4, "top"))


def flattened() -> Any:
    """Flatten: a channel owns height * width rows of the dense layer."""
    image = layers.Input((6, 6, 2), name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="conv1")(image)
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.Dense(6, activation="relu", name="hidden")(layers.Flatten(name="flatten")(x))
    x = layers.BatchNormalization(name="hidden_bn")(x)
    return finished(image, layers.Dense(3, name="logits")(x))


def nested() -> Any:
    """A block that is a model (and holds a pooling block), and a layer that is used twice."""
    inner = tf.keras.Sequential(
        [
            layers.Conv2D(6, 3, input_shape=(8, 8, 4), name="conv"),
            layers.MaxPooling2D(2, name="pool"),
        ],
        name="pooling",
    )
    start = layers.Input((8, 8, 4), name="start")
    block = tf.keras.Model(start, layers.ReLU(name="relu")(inner(start)), name="block")
    image = layers.Input((8, 8, 2), name="image")
    x = block(conv_bn(image, 4, "stem"))
    x = conv_bn(x, 4, "conv2")
    twice = layers.Conv2D(4, 3, padding="same", activation="relu", name="twice")
    return model_of(image, twice(twice(x)))


STRUCTURES = {
    build.__name__: build
    for build in (plain, projected, concatenated, separable, flattened, nested)
}
