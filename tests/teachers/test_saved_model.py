"""`SavedModelTeacher`: against NumPy, from either Keras, on two replicas, and what it refuses."""

import pathlib
from typing import Any

import numpy as np
import oracles
import pytest
import tensorflow as tf
from files import WEIGHTS, logits, probabilities, saved_model
from nets import assert_same, batch, net, one_line, values
from replicas import two_replicas

import kd_keras as kd
from kd_keras.errors import InputError
from kd_keras.teachers import SavedModelTeacher


def two_outputs(x: Any) -> dict[str, Any]:
    return {"logits": logits(x), "features": tf.tanh(x), "scale": tf.constant(2.0)}


@pytest.mark.any_keras
def test_outputs_are_those_of_the_function(tmp_path: pathlib.Path) -> None:
    x, _ = batch()
    teacher = SavedModelTeacher(saved_model(tmp_path / "plain"))
    assert (teacher.from_logits, teacher.name) == (True, "plain")
    assert teacher.input_specs().shape.as_list() == [None, 4]
    assert teacher.specs().logits.shape.as_list() == [None, 3]
    np.testing.assert_allclose(teacher.outputs(x).logits, x @ WEIGHTS, atol=1e-5)
    soft = SavedModelTeacher(saved_model(tmp_path / "soft", probabilities))
    assert not soft.from_logits
    expected = np.log(oracles.softmax(x @ WEIGHTS, 1.0))
    np.testing.assert_allclose(soft.outputs(x).logits, expected, atol=1e-4)


@pytest.mark.any_keras
def test_layers_are_outputs(tmp_path: pathlib.Path) -> None:
    x, _ = batch()
    teacher = SavedModelTeacher(saved_model(tmp_path / "two", two_outputs))
    found = teacher.outputs(x, ["features"])
    np.testing.assert_allclose(found.logits, x @ WEIGHTS, atol=1e-5)
    np.testing.assert_allclose(found.layers["features"], np.tanh(x), atol=1e-5)
    for layer in ("stage1", "scale"):  # a scalar is of no example
        with pytest.raises(InputError) as error:
            teacher.specs([layer])
        one_line(error, repr(layer), "features, logits")


def test_a_saved_keras_model(tmp_path: pathlib.Path) -> None:
    x, _ = batch()
    model = net(5, batch_norm=True, dropout=0.5, ending="softmax")
    getattr(model, "export", model.save)(str(tmp_path / "model"))
    teacher = SavedModelTeacher(tmp_path / "model")
    assert not teacher.from_logits
    expected = np.log(model(x, training=False))
    np.testing.assert_allclose(teacher.outputs(x).logits, expected, atol=1e-4)


@pytest.mark.parametrize("loaded_within", [False, True])
def test_two_replicas_take_the_step_of_one(tmp_path: pathlib.Path, loaded_within: bool) -> None:
    x, y = batch()
    path = saved_model(tmp_path / "model")

    def fitted(scope: Any, teacher: Any) -> list:
        with scope:
            model = kd.Distiller(net(4, seed=2), teacher, [kd.SoftTargets(temperature=2.0)])
            loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(tf.keras.optimizers.SGD(0.5), loss)
        model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
        return values(model.student)

    alone = fitted(tf.name_scope("alone"), path)
    both = fitted(two_replicas().scope(), str(path) if loaded_within else SavedModelTeacher(path))
    assert_same(both, alone, atol=1e-6)


@pytest.mark.any_keras
def test_a_fingerprint_is_of_the_variables_and_the_graph(tmp_path: pathlib.Path) -> None:
    path = saved_model(tmp_path / "model")
    own = SavedModelTeacher(path).fingerprint()
    path.rename(tmp_path / "moved")
    assert SavedModelTeacher(tmp_path / "moved").fingerprint() == own
    soft = saved_model(tmp_path / "soft", probabilities)
    assert SavedModelTeacher(soft).fingerprint() != own
    [variables] = (tmp_path / "moved" / "variables").glob("*.data-*")
    teacher = SavedModelTeacher(tmp_path / "moved")
    content = bytearray(variables.read_bytes())
    content[0] ^= 1
    variables.write_bytes(content)
    assert teacher.fingerprint() != own


@pytest.mark.any_keras
@pytest.mark.parametrize(
    ("function", "settings", "words"),
    [
        (logits, {"signature": "predict"}, ["'predict'", "serving_default"]),
        (logits, {"from_logits": False}, ["gives logits", "from_logits=True"]),
        (probabilities, {"from_logits": True}, ["gives prob", "from_logits=False"]),
        (lambda x: {"a": logits(x), "b": x}, {}, ["2 outputs", "output=", "a, b"]),
        (two_outputs, {"output": "scale"}, ["'scale'", "features, logits"]),
    ],
)
def test_refused(tmp_path: pathlib.Path, function: Any, settings: dict, words: list[str]) -> None:
    path = saved_model(tmp_path / "model", function)
    with pytest.raises(InputError) as error:
        SavedModelTeacher(path, **settings)
    one_line(error, *words)


@pytest.mark.any_keras
@pytest.mark.parametrize(
    ("shape", "said", "words"),
    [
        ((1, 4), None, ["(1, 4)", "(None, ...)"]),
        ((None, None), None, ["fixed input size", "from_logits="]),
        ((None, None), True, []),
    ],
)
def test_inputs_of_other_shapes(
    tmp_path: pathlib.Path, shape: tuple, said: bool | None, words: list[str]
) -> None:
    path = saved_model(
        tmp_path / "model", lambda x: logits(tf.ensure_shape(x, (shape[0], 4))), shape
    )
    if not words:
        assert SavedModelTeacher(path, from_logits=said).from_logits is said
        return
    with pytest.raises(InputError) as error:
        SavedModelTeacher(path, from_logits=said)
    one_line(error, *words)


@pytest.mark.any_keras
def test_missing_and_damaged(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError) as error:
        SavedModelTeacher(tmp_path)
    one_line(error, "no saved_model.pb")
    path = saved_model(tmp_path / "model")
    graph = path / "saved_model.pb"
    for damage in (graph.read_bytes()[:100], b"no graph"):
        graph.write_bytes(damage)
        with pytest.raises(InputError) as error:
            SavedModelTeacher(path)
        one_line(error, "cannot be loaded")


@pytest.mark.any_keras
def test_whole_numbers_are_not_made_of_fractions(tmp_path: pathlib.Path) -> None:
    module = tf.Module()
    spec = tf.TensorSpec((None, 4), tf.uint8, name="pixels")
    module.serve = tf.function(lambda x: logits(tf.cast(x, tf.float32)), input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)
    teacher = SavedModelTeacher(tmp_path / "model", from_logits=True)
    x = np.arange(8).reshape(2, 4)
    np.testing.assert_allclose(teacher.outputs(x).logits, x @ WEIGHTS, rtol=1e-5)
    with pytest.raises(InputError) as error:
        teacher.outputs(x / 255)
    one_line(error, "uint8", "float64")
