"""`FSP`: a flow by hand, and the pairs that it refuses. Its values are the contract test's."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from nets import one_line

import kd_keras as kd
from kd_keras.errors import InputError
from kd_keras.methods.fsp import flow
from kd_keras.taps import Outputs

SHAPES = {"a": (8, 8, 2), "b": (4, 4, 3), "c": (3, 3, 3), "v": (5,)}


def outputs(**shapes: tuple) -> Outputs:
    layers = {name: tf.zeros((2, *shape)) for name, shape in {**SHAPES, **shapes}.items()}
    return Outputs(tf.zeros((2, 5)), layers)


@pytest.mark.any_keras
def test_a_flow_by_hand() -> None:
    """Two pixels; the second map is twice as wide, and the larger of each two counts."""
    first = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    last = np.array([[[[5.0], [-1.0], [0.0], [7.0]]]])
    expected = [[[(1 * 5 + 3 * 7) / 2], [(2 * 5 + 4 * 7) / 2]]]
    np.testing.assert_allclose(flow(tf.constant(first), tf.constant(last)), expected)


@pytest.mark.any_keras
@pytest.mark.parametrize(
    ("settings", "student", "words"),
    [
        ({"teacher_pairs": [("b", "c")]}, {}, ["'b' and 'c'", "4x4", "3x3", "divide"]),
        ({}, {"b": (3, 3, 3)}, ["student's layers 'a' and 'b'", "8x8", "3x3", "divide"]),
        (
            {},
            {"b": (4, 4, 6)},
            ["'b' of the teacher has 3 channels", "student 6", "equal channels"],
        ),
        ({"teacher_pairs": [("b", "v")]}, {}, ["'b' and 'v'", "(2, 5)", "layers that give maps"]),
    ],
)
def test_layers_that_cannot_be_compared(settings: dict, student: dict, words: list) -> None:
    method = kd.FSP(**{"teacher_pairs": [("a", "b")], **settings})
    with pytest.raises(InputError) as error:
        method.check(outputs(), outputs(**student))
    one_line(error, "fsp", *words)


@pytest.mark.any_keras
def test_maps_without_a_known_size() -> None:
    unknown = Outputs(tf.zeros((2, 5)), {"a": tf.TensorSpec((None, None, None, 2))})
    with pytest.raises(InputError) as error:
        kd.FSP(teacher_pairs=[("a", "a")]).check(unknown, unknown)
    one_line(error, "fsp", "fixed height and width")


@pytest.mark.any_keras
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"teacher_pairs": ["stage1", "stage2"]}, ["teacher_pairs", "pairs of layer names"]),
        ({"teacher_pairs": []}, ["teacher_pairs", "pairs of layer names"]),
        ({"student_pairs": [("a", "b", "c")]}, ["student_pairs", "pairs of layer names"]),
        ({"student_pairs": [("a", "b")]}, ["2 pairs of the teacher, 1 of the student"]),
        ({"section_weights": [1.0]}, ["1 section_weights", "as many of each"]),
        ({"section_weights": [1.0, -1.0]}, ["section_weights", "at least 0"]),
    ],
)
def test_settings(settings: dict, words: list) -> None:
    with pytest.raises(InputError) as error:
        kd.FSP(**settings)
    one_line(error, *words)


@pytest.mark.any_keras
def test_each_layer_is_read_once_and_the_students_default_to_the_teachers() -> None:
    method = kd.FSP()
    assert method.teacher_layers == method.student_layers == ("stage1", "stage2", "stage3")
    pairs: Any = [["a", "b"]]  # as a file gives them
    other = kd.FSP(teacher_pairs=pairs, student_pairs=[("c", "d")])
    assert (other.teacher_layers, other.student_layers) == (("a", "b"), ("c", "d"))
