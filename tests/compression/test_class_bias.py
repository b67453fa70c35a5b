"""The bias of classes that a student has not seen: found by sorting, checked by trying them all."""

import numpy as np
import pytest
import tensorflow as tf
from nets import one_line

from kd_keras import models
from kd_keras.compression import class_bias
from kd_keras.errors import InputError

pytestmark = pytest.mark.tf_keras


@pytest.mark.parametrize(("seed", "classes"), [(0, [3]), (1, [0, 4]), (2, [1, 2, 3])])
def test_no_other_offset_has_more_right(seed: int, classes: list[int]) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 5, 300)
    logits = random.normal(size=(300, 5)) + 2 * np.eye(5)[labels]
    logits[:, classes] -= 4.0
    offset = class_bias.best_offset(logits, labels, classes)

    def right(by: float) -> int:
        moved = logits.copy()
        moved[:, classes] += by
        return int((moved.argmax(-1) == labels).sum())

    tried = np.linspace(-12, 12, 4801)
    assert right(offset) >= max(map(right, tried))
    assert right(offset) > right(0)


def test_what_is_best_as_it_is_stays() -> None:
    logits = np.array([[5.0, 0.0], [0.0, 5.0]])
    assert class_bias.best_offset(logits, np.array([0, 1]), [1]) == 0.0
    # As many are right above 5; what is nearer to 0 changes less.
    logits = np.array([[0.0, 3.0], [1.0, 0.0], [5.0, 0.0]])
    assert class_bias.best_offset(logits, np.array([1, 0, 1]), [1]) == -1.0
    # Every offset is as good where there is nothing to choose by.
    assert class_bias.best_offset(np.array([[2.0, 1.0]]), np.array([0]), [1]) == 0.0


def test_only_the_biases_of_the_classes_are_raised() -> None:
    tf.keras.utils.set_random_seed(0)
    student = models.build("mlp-8", classes=3, input_shape=(2, 2, 1))
    images = np.random.default_rng(0).normal(size=(40, 2, 2, 1)).astype("float32")
    labels = student.predict(images, verbose=0).argmax(-1)
    student.layers[-1].bias.assign([0.0, -50.0, 0.0])
    raised = class_bias.apply(student, classes=(1,), images=images, labels=labels)
    before, after = (model.predict(images, verbose=0) for model in (student, raised))
    np.testing.assert_array_equal(after[:, [0, 2]], before[:, [0, 2]])
    gained = after[:, 1] - before[:, 1]
    assert gained[0] > 40
    np.testing.assert_allclose(gained, gained[0], rtol=1e-5)
    assert (before.argmax(-1) == 1).sum() == 0 < (labels == 1).sum()
    assert (after.argmax(-1) == labels).all()
    assert student.layers[-1].bias.numpy()[1] == -50.0


@pytest.mark.parametrize(
    ("classes", "last", "words"),
    [
        ((3,), tf.keras.layers.Dense(3), ("classes are (3,)", "0 to 2")),
        ((), tf.keras.layers.Dense(3), ("classes are ()",)),
        ((0, 1, 2), tf.keras.layers.Dense(3), ("some, not all",)),
        ((1,), tf.keras.layers.Dense(3, use_bias=False), ("with a bias",)),
        ((1,), tf.keras.layers.Dense(3, activation="softmax"), ("softmax", "logits")),
        ((1,), tf.keras.layers.Softmax(name="end"), ("end (Softmax)",)),
    ],
)
def test_bad_input(classes: tuple, last: object, words: tuple) -> None:
    student = tf.keras.Sequential([tf.keras.Input((3,)), last])
    with pytest.raises(InputError) as error:
        class_bias.apply(student, classes=classes, images=np.zeros((2, 3)), labels=[0, 1])
    one_line(error, *words)
