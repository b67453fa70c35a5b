"""Small trained models that the tests of this folder export."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import stand_in_debian
import tensorflow as tf
from sklearn.datasets import load_digits

import tflite_export
from tflite_export.measuring import arm64_setup


def residual_net() -> Any:
    layers = tf.keras.layers
    image = tf.keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv1")(image)
    x = layers.ReLU(name="relu1")(layers.BatchNormalization(momentum=0.8, name="bn1")(x))
    y = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv2")(x)
    y = layers.BatchNormalization(momentum=0.8, name="bn2")(y)
    x = layers.ReLU(name="relu2")(layers.Add(name="add")([x, y]))
    x = layers.GlobalAveragePooling2D(name="features")(x)
    return tf.keras.Model(image, layers.Dense(4, name="logits")(x), name="student")


def train(model: Any, images: np.ndarray, labels: np.ndarray, epochs: int) -> Any:
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.SGD(0.1, momentum=0.9), loss)
    model.fit(images, labels, batch_size=32, epochs=epochs, verbose=0, shuffle=False)
    return model


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """256 images whose class, 0 to 3, is the quarter that is bright."""
    rng = np.random.default_rng(1)
    pictures = rng.normal(0, 0.5, (256, 12, 12, 3)).astype("float32")
    for place, picture in enumerate(pictures):
        row, column = divmod(place % 4, 2)
        picture[row * 6 : row * 6 + 6, column * 6 : column * 6 + 6, place % 3] += 1 + place % 4
    return pictures


@pytest.fixture(scope="session")
def labels() -> np.ndarray:
    return np.arange(256) % 4


@pytest.fixture(scope="session")
def float_net(images: np.ndarray, labels: np.ndarray) -> Any:
    tf.keras.utils.set_random_seed(0)
    return train(residual_net(), images, labels, epochs=10)


@pytest.fixture(scope="session")
def quantized_net(float_net: Any, images: np.ndarray, labels: np.ndarray) -> Any:
    import tensorflow_model_optimization as tfmot

    model = tfmot.quantization.keras.quantize_model(float_net)
    model(images, training=True)
    return train(model, images, labels, epochs=8)


@pytest.fixture(scope="session")
def float_file(float_net: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tflite_export.convert(
        float_net, tmp_path_factory.mktemp("float") / "student.tflite", "float32"
    )


@pytest.fixture(scope="session")
def int8_file(quantized_net: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tflite_export.convert(
        quantized_net, tmp_path_factory.mktemp("int8") / "student.tflite", "int8"
    )


class Trained(NamedTuple):
    model: Any
    representative: np.ndarray  # of the training set
    images: np.ndarray  # of the test set
    labels: np.ndarray


def digits_net() -> Any:
    """Convolutions of both kinds, folded BatchNorm, a shortcut, poolings and two dense layers."""
    layers = tf.keras.layers
    image = tf.keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="conv1")(image)
    x = layers.ReLU(name="relu1")(layers.BatchNormalization(momentum=0.8, name="bn1")(x))
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    y = layers.BatchNormalization(momentum=0.8, name="bn2")(y)
    x = layers.ReLU(name="relu2")(layers.Add(name="add")([x, y]))
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Conv2D(32, 3, activation="relu", name="conv2")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dense(32, activation="relu", name="hidden")(x)
    return tf.keras.Model(image, layers.Dense(10, name="logits")(x), name="digits")


@pytest.fixture(scope="session")
def digits() -> Trained:
    tf.keras.utils.set_random_seed(0)
    data = load_digits()
    images = (data.images[..., None] / 16).astype("float32")
    model = digits_net()
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.Adam(0.005), loss)
    model.fit(images[:1297], data.target[:1297], batch_size=64, epochs=8, verbose=0, shuffle=False)
    return Trained(model, images[:200], images[1297:], data.target[1297:])


@pytest.fixture(scope="session")
def float_digits(digits: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("float_digits") / "digits.tflite"
    return tflite_export.convert(digits.model, path, "float32")


@pytest.fixture(scope="session")
def int8_digits(digits: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ptq") / "digits.tflite"
    return tflite_export.convert(digits.model, path, "int8", representative=digits.representative)


@pytest.fixture
def one_line() -> Callable[[Any], str]:
    """Returns the text of a raised ExportError, after checking that it is one line."""

    def text(caught: Any) -> str:
        message = str(caught.value)
        assert isinstance(caught.value, tflite_export.ExportError)
        assert message
        assert "\n" not in message
        return message

    return text


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where arm64 is set up, empty."""
    folder = tmp_path / "cache"
    monkeypatch.setenv(arm64_setup.VARIABLE, str(folder))
    return folder


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of stand-ins for what sets arm64 up."""
    folder = stand_in_debian.make(tmp_path / "commands")
    for variable in ("PATH", "PYTHONPATH"):
        rest = os.environ.get(variable)
        monkeypatch.setenv(variable, os.pathsep.join(filter(None, [str(folder), rest])))
    monkeypatch.setattr(arm64_setup, "_KEYS", folder / "keys.gpg")
    return folder
