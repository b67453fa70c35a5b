"""`ConfidenceWeightedLabels`: its weights, and the labels that it takes."""

from typing import Any

import numpy as np
import oracles
import pytest
import tensorflow as tf
from nets import one_line
from oracles import Arrays

import kd_keras as kd
from kd_keras.errors import InputError
from kd_keras.methods.base import Context
from kd_keras.taps import Outputs

pytestmark = pytest.mark.any_keras

TEACHER, STUDENT = np.random.default_rng(2).normal(0, 2, (2, 6, 5))
CLASSES = np.array([1, 0, 4, 4, 2, 3])


def term(labels: Any, teacher: Any = TEACHER, student: Any = STUDENT) -> np.ndarray:
    outputs = (Outputs(tf.constant(z, tf.float32), {}) for z in (teacher, student))
    return kd.ConfidenceWeightedLabels()(*outputs, Context(0, labels)).numpy()


def test_the_mean_is_the_mean_weighted_by_confidence() -> None:
    confidence = oracles.softmax(TEACHER).max(axis=-1)
    losses = oracles.cross_entropy(CLASSES, STUDENT)
    expected = np.average(losses, weights=confidence)
    np.testing.assert_allclose(term(CLASSES).mean(), expected, rtol=1e-5)


def test_a_teacher_equally_sure_of_all_leaves_the_label_loss() -> None:
    expected = oracles.cross_entropy(CLASSES, STUDENT)
    np.testing.assert_allclose(term(CLASSES, np.zeros_like(TEACHER)), expected, rtol=1e-5)
    sure = 1000 * np.eye(5)[CLASSES]
    np.testing.assert_allclose(term(CLASSES, sure), expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float32"])
def test_class_indices_of_any_type_and_either_shape(dtype: str) -> None:
    np.testing.assert_array_equal(term(CLASSES.astype(dtype)), term(CLASSES))
    np.testing.assert_array_equal(term(CLASSES.astype(dtype)[:, None]), term(CLASSES))


def test_one_hot_and_mixed_labels() -> None:
    one_hot = np.eye(5)[CLASSES]
    for kind in ("float32", "int32"):
        np.testing.assert_allclose(term(one_hot.astype(kind)), term(CLASSES), rtol=1e-5)
    mixed = 0.7 * one_hot + 0.3 * one_hot[::-1]
    expected = oracles.confidence_weighted_labels(Arrays(TEACHER), Arrays(STUDENT), mixed)
    np.testing.assert_allclose(term(mixed), expected, rtol=1e-5)


def test_the_order_of_the_batch_does_not_matter() -> None:
    order = np.array([3, 5, 0, 1, 4, 2])
    found = term(CLASSES[order], TEACHER[order], STUDENT[order])
    np.testing.assert_allclose(found, term(CLASSES)[order], rtol=1e-5)


def test_labels_of_another_shape() -> None:
    with pytest.raises(InputError) as error:
        term(np.eye(4)[CLASSES % 4])
    one_line(error, "(6, 4)", "(6, 5)", "class indices (batch,)")
