"""A Keras model as a teacher is run only as far as it is read."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from nets import batch, net, one_line

import kd_keras as kd
from kd_keras.errors import InputError
from kd_keras.teachers import KerasTeacher, as_teacher

layers = tf.keras.layers


class Counted(layers.Layer):
    """Passes its input on, and counts how often that is really computed."""

    calls = 0

    def call(self, x: Any) -> Any:
        def count(values: np.ndarray) -> np.ndarray:
            Counted.calls += 1
            return values

        # Stateless, as layers are in inference: what nobody reads is dropped from the graph.
        return tf.ensure_shape(tf.numpy_function(count, [x], x.dtype, stateful=False), x.shape)


def counted_teacher() -> Any:
    start = tf.keras.Input((4,))
    low = layers.Dense(4, "tanh", name="features")(start)
    return tf.keras.Model(start, layers.Dense(3, name="logits")(Counted(name="high")(low)))


@pytest.mark.parametrize(
    ("method", "teacher_accuracy", "runs"),
    [
        (kd.Hint(teacher_layer="features", student_layer="features"), False, False),
        (kd.Hint(teacher_layer="features", student_layer="features"), True, True),
        (kd.Hint(teacher_layer="high", student_layer="features"), False, True),
        (kd.LogitsL2(), False, True),
    ],
    ids=["lower layer", "lower layer and accuracy", "upper layer", "logits"],
)
def test_layers_above_the_highest_that_is_read_are_not_computed(
    method: Any, teacher_accuracy: bool, runs: bool
) -> None:
    x, y = batch(32)
    distiller = kd.Distiller(net(4, seed=2), counted_teacher(), [method], label_weight=0.0)
    distiller.compile("sgd", None, teacher_accuracy=teacher_accuracy, jit_compile=False)
    Counted.calls = 0
    distiller.fit(x, y, verbose=0)
    assert bool(Counted.calls) == runs


def test_what_a_user_gives_becomes_a_teacher() -> None:
    model = net(4)
    teacher = as_teacher(model, from_logits=False)
    assert isinstance(teacher, KerasTeacher)
    assert (teacher.model, teacher.from_logits) == (model, False)
    assert as_teacher(teacher) is teacher


def test_missing_layer_and_unknown_shapes() -> None:
    with pytest.raises(InputError) as error:
        KerasTeacher(net(4)).specs(["stage9"])
    one_line(error, "'stage9' is not in the teacher", "features")
    assert KerasTeacher(tf.keras.Sequential([layers.Dense(3)])).specs() is None
