"""What a user gives becomes a teacher, or is refused in one line."""

import pathlib
from typing import Any

import numpy as np
import oracles
import pytest
import tensorflow as tf
from files import WEIGHTS, probabilities, saved_model, tflite_file
from nets import batch, net, one_line

import kd_keras as kd
from kd_keras import teachers
from kd_keras.errors import InputError
from kd_keras.teachers import Ensemble, KerasTeacher, as_teacher


class Classifier:
    """As a scikit-learn classifier: three classes of four features."""

    classes_ = np.arange(3)

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return by_function(x)


def by_function(x: np.ndarray) -> np.ndarray:
    return oracles.softmax(x @ WEIGHTS, 1.0)


def every_kind(folder: pathlib.Path) -> dict[str, Any]:
    net(4).save(folder / "model.keras")
    net(4, ending="softmax").save(folder / "soft.keras")
    net(4).save(folder / "model.h5")
    saved_model(folder / "saved", probabilities)
    return {
        "KerasTeacher": net(4),
        "KerasTeacher of a file": folder / "model.keras",
        "KerasTeacher of softmax": str(folder / "soft.keras"),
        "KerasTeacher of h5": folder / "model.h5",
        "TFLiteTeacher": tflite_file(folder / "model.tflite"),
        "TFLiteTeacher of softmax": str(tflite_file(folder / "soft.tflite", probabilities)),
        "SavedModelTeacher": str(folder / "saved"),
        "SklearnTeacher": Classifier(),
        "FunctionTeacher": by_function,
    }


def test_every_kind_by_itself_and_as_a_member(tmp_path: pathlib.Path) -> None:
    x, y = batch()
    given = every_kind(tmp_path)
    for kind, one in given.items():
        teacher = as_teacher(one)
        assert type(teacher).__name__ == kind.split()[0]
        assert teacher.outputs(x).logits.shape == (16, 3), kind
        model = kd.Distiller(net(4, seed=2), one, [kd.SoftTargets()], 0.0)
        assert model.supports_jit is teacher.supports_jit
    together = as_teacher(given)
    assert isinstance(together, Ensemble)
    assert not together.supports_jit
    assert as_teacher([net(4), net(5)]).supports_jit
    model = kd.Distiller(net(4, seed=2), given, [kd.SoftTargets(), kd.LogitsL2()])
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.SGD(0.1), loss)
    assert np.isfinite(model.fit(x, y, verbose=0).history["soft_targets"][0])


def test_predictions(tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "train.npy", np.eye(3, dtype="float32")[[0, 1, 2, 0]])
    teacher = as_teacher(tmp_path / "train.npy")
    assert teacher.is_recorded
    with pytest.raises(InputError) as error:
        Ensemble({"live": net(4), "kept": teacher})
    one_line(error, "'kept'", "ensemble as a whole")


def test_files_go_by_their_names_in_an_ensemble(tmp_path: pathlib.Path) -> None:
    paths = [tflite_file(tmp_path / "small.tflite"), str(saved_model(tmp_path / "big"))]
    assert list(as_teacher([*paths, net(4)]).members)[:2] == ["small", "big"]


def test_what_is_said_of_files(tmp_path: pathlib.Path) -> None:
    """Probabilities are found out in a file; saying so of logits is refused."""
    soft, hard = (
        tflite_file(tmp_path / "soft.tflite", probabilities),
        tflite_file(tmp_path / "h.tflite"),
    )
    for said in (True, None, False):
        assert not as_teacher(soft, from_logits=said).from_logits
    with pytest.raises(InputError) as error:
        as_teacher(hard, from_logits=False)
    one_line(error, "gives logits")


def test_a_keras_model_that_is_found_out() -> None:
    x, _ = batch()
    for ending in (None, "softmax", "sigmoid"):
        model = net(4, ending=ending)
        teacher = KerasTeacher(model, from_logits=None)
        assert teacher.specs() is not None
        assert teacher.from_logits is (ending is None)
        expected = np.asarray(model(x))
        expected = expected if ending is None else np.log(expected)
        np.testing.assert_allclose(teacher.outputs(x).logits, expected, atol=1e-5)
    unbuilt = tf.keras.Sequential([tf.keras.layers.Dense(3, "softmax")])
    teacher = KerasTeacher(unbuilt, from_logits=None)
    assert teacher.specs() is None
    teacher.outputs(x)
    assert teacher.from_logits is False


@pytest.mark.any_keras
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("forest.pkl", ["is a pickle", "any code", ".tflite, .keras"]),
        ("forest.joblib", ["is a pickle"]),
        ("net.pt", ["is a pickle"]),
        ("weights.npz", ["no kind that can teach", "FunctionTeacher"]),
        ("model.onnx", ["no kind that can teach"]),
        ("folder", ["no saved_model.pb"]),
        ("broken.tflite", ["cannot be loaded"]),
        ("broken.keras", ["cannot be loaded"]),
        ("broken.h5", ["cannot be loaded"]),
        ("absent.keras", ["does not exist"]),
        ("absent.tflite", ["does not exist"]),
    ],
)
def test_files_that_cannot_teach(tmp_path: pathlib.Path, name: str, words: list[str]) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif not name.startswith("absent"):
        path.write_bytes(b"cos\nsystem\n(S'echo'\ntR.")
    with pytest.raises(InputError) as error:
        as_teacher(str(path))
    one_line(error, name, *words)


@pytest.mark.any_keras
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (3, ["the teacher is a int", "Keras model"]),
        (Classifier, ["the class Classifier", "an object"]),
        ({"a": by_function, "b": 3}, ["member 'b' is a int"]),
        ({"a": by_function, "b": "no.keras"}, ["member 'b' 'no.keras' does not exist"]),
    ],
)
def test_things_that_cannot_teach(given: Any, words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        as_teacher(given)
    one_line(error, *words)


@pytest.mark.any_keras
def test_the_names_of_the_package() -> None:
    for name in teachers.__all__:
        assert getattr(teachers, name).__name__ == name
    with pytest.raises(AttributeError):
        teachers.Nobody  # noqa: B018
