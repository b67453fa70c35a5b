"""A file of predictions teaches the examples that it is of, by their number."""

import pathlib
from typing import Any

import numpy as np
import pytest
from nets import assert_same, batch, net, one_line, values

import kd_keras as kd
from kd_keras.errors import InputError
from kd_keras.teachers.predictions import Predictions

pytestmark = pytest.mark.any_keras

EXAMPLES = 24


def saved(folder: pathlib.Path, values: Any, **kwargs: Any) -> pathlib.Path:
    path = folder / "predictions.npy"
    np.save(path, values, **kwargs)
    return path


def student_of(teacher: Any) -> list[np.ndarray]:
    model = kd.Distiller(net(4, seed=2), teacher, [kd.SoftTargets()], label_weight=0.0)
    model.compile("sgd")
    model.fit(kd.data.Views(batch(EXAMPLES)[0], seed=1), batch_size=8, epochs=2, verbose=0)
    return values(model.student)


@pytest.mark.parametrize("as_probabilities", [False, True])
def test_it_teaches_as_the_model_that_predicted(
    as_probabilities: bool, tmp_path: pathlib.Path
) -> None:
    logits = net(8).predict(batch(EXAMPLES)[0], verbose=0)
    powers = np.exp(logits)
    predicted = powers / powers.sum(axis=1, keepdims=True) if as_probabilities else logits
    teacher = Predictions(saved(tmp_path, predicted))
    assert teacher.from_logits is not as_probabilities
    assert_same(student_of(teacher), student_of(net(8)), atol=1e-5)


def views(examples: int = EXAMPLES, **kwargs: Any) -> kd.data.Views:
    return kd.data.Views(np.zeros((examples, 6, 6, 1), np.uint8), **kwargs)


RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(EXAMPLES, 3))
ONE_NAN = np.where(np.arange(EXAMPLES)[:, np.newaxis] == 7, np.nan, LOGITS)
MIRROR = kd.data.Augmentation({"horizontal_flip": {}}, 3)


@pytest.mark.parametrize(
    ("values", "act", "words"),
    [
        (LOGITS, lambda p: Predictions(p, from_logits=False), ("logits", "from_logits=True")),
        (ONE_NAN, Predictions, ("not finite in row 7",)),
        (LOGITS[0], Predictions, ("shape (3,)", "(examples, classes)")),
        (np.zeros((4, 3), int), Predictions, ("dtype int64",)),
        (np.array([{"a": 1}], object), Predictions, ("cannot be read", "no array of numbers")),
        (LOGITS, lambda p: Predictions(p).require_same(views(9)), ("24 examples", "are 9")),
        (
            LOGITS,
            lambda p: Predictions(p).require_same(views(count=1, augmentation=MIRROR)),
            ("as they are", "leave the augmentation out"),
        ),
        (LOGITS, lambda p: Predictions(p).specs(["high"]), ("'high'", "kd.SoftTargets")),
        (LOGITS, lambda p: Predictions(p.with_name("none.npy")), ("No such file",)),
    ],
)
def test_bad_input(values: Any, act: Any, words: tuple, tmp_path: pathlib.Path) -> None:
    path = saved(tmp_path, values, allow_pickle=True)
    with pytest.raises(InputError) as error:
        act(path)
    one_line(error, *words)


def test_a_truncated_file(tmp_path: pathlib.Path) -> None:
    path = saved(tmp_path, LOGITS)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError) as error:
        Predictions(path)
    one_line(error, "cannot be read", str(path))
