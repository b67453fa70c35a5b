"""`LabelLoss`: Keras' losses without their reduction, and what labels may be."""

from typing import Any

import numpy as np
import oracles
import pytest
import tensorflow as tf
from nets import batch, one_line

from kd_keras.errors import InputError
from kd_keras.labels import LabelLoss, check_values

losses = tf.keras.losses
LOGITS = np.random.default_rng(0).normal(0, 2, (16, 3)).astype("float32")
_, LABELS = batch()
ONE_HOT = np.eye(3)[LABELS]
EXPECTED = oracles.cross_entropy(LABELS, LOGITS)


@pytest.mark.parametrize(
    ("loss", "labels"),
    [
        (losses.SparseCategoricalCrossentropy(from_logits=True), LABELS),
        (losses.SparseCategoricalCrossentropy(from_logits=True), LABELS[:, None]),
        (losses.SparseCategoricalCrossentropy(from_logits=True), LABELS.astype("float32")),
        (losses.CategoricalCrossentropy(from_logits=True), ONE_HOT.astype("float32")),
        (losses.CategoricalCrossentropy(from_logits=True), ONE_HOT.astype("int64")),
        (losses.CategoricalCrossentropy(from_logits=True), ONE_HOT),
        (losses.CategoricalCrossentropy(from_logits=True, reduction="sum"), ONE_HOT),
        (lambda y, z: losses.sparse_categorical_crossentropy(y, z, from_logits=True), LABELS),
    ],
)
def test_one_value_an_example_equal_to_the_oracle(loss: Any, labels: Any) -> None:
    value = LabelLoss(loss, from_logits=True)(labels, tf.constant(LOGITS))
    assert value.shape == (16,)
    assert value.dtype == tf.float32
    np.testing.assert_allclose(value, EXPECTED, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("loss", ["sparse_categorical_crossentropy", "categorical_crossentropy"])
def test_by_name_from_probabilities(loss: str, dtype: str) -> None:
    labels = LABELS if loss.startswith("sparse") else ONE_HOT
    prediction = tf.cast(oracles.softmax(LOGITS), dtype)
    value = LabelLoss(loss, from_logits=False)(labels, prediction)
    assert value.dtype == tf.float32
    np.testing.assert_allclose(value, EXPECTED, rtol=1e-5 if dtype == "float32" else 2e-2)


@pytest.mark.parametrize("shape", [(16,), (16, 1)])
@pytest.mark.parametrize("loss", ["mse", losses.MeanSquaredError()], ids=["name", "object"])
def test_labels_without_the_last_axis_are_not_broadcast(loss: Any, shape: tuple) -> None:
    """`(batch,)` against `(batch, 1)` must not become `(batch, batch)`."""
    target = np.linspace(-1, 1, 16).astype("float32")
    value = LabelLoss(loss, from_logits=True)(target.reshape(shape), tf.constant(LOGITS[:, :1]))
    np.testing.assert_allclose(value, (target - LOGITS[:, 0]) ** 2, rtol=1e-5)


def test_a_loss_over_positions_is_averaged_over_them() -> None:
    prediction = tf.random.normal((4, 5, 2))
    value = LabelLoss("mse", from_logits=True)(tf.zeros((4, 5, 2)), prediction)
    np.testing.assert_allclose(value, tf.reduce_mean(prediction**2, axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "from_logits", "words"),
    [
        ("sparse_categorical_crossentropy", True, ["SparseCategoricalCrossentropy(from_logits="]),
        ("categorical_crossentropy", True, ["CategoricalCrossentropy(from_logits=True)"]),
        (losses.BinaryCrossentropy(), True, ["BinaryCrossentropy(from_logits=True)"]),
        (losses.CategoricalCrossentropy(from_logits=True), False, ["from_logits=False"]),
        ("binary_crossentropy", True, ["BinaryCrossentropy(from_logits=True)"]),
    ],
)
def test_a_loss_that_disagrees_on_logits(loss: Any, from_logits: bool, words: list) -> None:
    with pytest.raises(InputError) as error:
        LabelLoss(loss, from_logits=from_logits)
    one_line(error, *words)


def test_an_unknown_loss_is_one_line_too() -> None:
    with pytest.raises(InputError) as error:
        LabelLoss("cross_entropi", from_logits=True)
    one_line(error, "cross_entropi")


@pytest.mark.parametrize(
    ("loss", "labels", "word"),
    [
        ("Sparse", np.zeros((16, 3)), "CategoricalCrossentropy"),
        ("Sparse", np.zeros((16, 2, 1)), "class indices"),
        ("", LABELS, "SparseCategoricalCrossentropy"),
        ("", np.zeros((16, 4)), "(16, 4)"),
    ],
)
def test_labels_of_the_wrong_shape(loss: str, labels: Any, word: str) -> None:
    made = getattr(losses, f"{loss}CategoricalCrossentropy")(from_logits=True)
    with pytest.raises(InputError) as error:
        LabelLoss(made, from_logits=True)(labels, tf.constant(LOGITS))
    one_line(error, "labels have shape", word)


SPARSE = losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.parametrize("bad", [-1, 3, 200, np.nan])
@pytest.mark.parametrize("kind", [np.array, list, tf.constant])
def test_class_indices_out_of_range(bad: int, kind: Any) -> None:
    with pytest.raises(InputError) as error:
        check_values(kind([0, 2, bad]), classes=3)
    one_line(error, f"label {bad} ", "3 classes", "0 to 2")


def test_what_is_not_checked() -> None:
    check_values(np.array([0, 1, 2]), classes=3)
    check_values(np.eye(3), classes=3)
    check_values(None, classes=3)
    check_values(np.array([7]), classes=None)
