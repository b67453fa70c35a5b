"""A model of the other Keras teaches: tf_keras a Keras 3 student, and the reverse."""

import importlib
import json
import pathlib
import zipfile
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from conftest import IS_TF_KERAS
from nets import assert_same, batch, net, one_line, values
from replicas import two_replicas

import kd_keras as kd
from kd_keras.errors import InputError
from kd_keras.models import load_model
from kd_keras.teachers import KerasTeacher, as_teacher

other: Any = importlib.import_module("keras" if IS_TF_KERAS else "tf_keras")
layers = other.layers


def teacher_model(ending: str | None = None) -> Any:
    """A model of the other Keras, with layers that act otherwise in training."""
    x = start = other.Input((4,), name="pixels")
    x = layers.Dense(5, "tanh", name="features")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Dropout(0.5, name="dropout")(x)
    inner = other.Sequential([other.Input((5,)), layers.Dense(5, "relu", name="low")], name="block")
    model = other.Model(start, layers.Dense(3, ending, name="logits")(inner(x)))
    generator = np.random.default_rng(1)
    model.set_weights([generator.uniform(0.1, 1, w.shape) for w in model.get_weights()])
    return model


class Subclassed(other.Model):
    def __init__(self) -> None:
        super().__init__()
        self.low = layers.Dense(4, name="low")
        self.high = layers.Dense(3, name="high")

    def call(self, x: Any, training: Any = None) -> Any:
        return self.high(self.low(x))


def expected(model: Any, x: Any) -> Any:
    return np.asarray(model(tf.constant(x), training=False))


def distiller(teacher: Any) -> Any:
    hint = kd.Hint(teacher_layer="block/low", student_layer="features")
    model = kd.Distiller(net(5, seed=2), teacher, [kd.SoftTargets(temperature=2.0), hint])
    for projection in model.projections.values():
        for weight in projection.weights:
            weight.assign(tf.ones(weight.shape) / 4)
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.SGD(0.1), loss)
    return model


def test_it_is_read_in_inference_mode_by_the_names_of_its_layers() -> None:
    x, _ = batch()
    model = teacher_model()
    teacher = as_teacher(model)
    assert isinstance(teacher, KerasTeacher)
    assert teacher.input_specs().shape.as_list() == [None, 4]
    specs = teacher.specs(["block/low", "norm"])
    assert specs is not None
    assert specs.layers["block/low"].shape.as_list() == [None, 5]

    def read(x: Any) -> Any:
        found = teacher.outputs(x, ("block/low", "features"))
        return found.logits, found.layers["features"]

    kernel, bias = model.get_layer("features").get_weights()
    for outputs in (read, tf.function(read, autograph=False)):
        logits, features = outputs(tf.constant(x))
        np.testing.assert_allclose(logits, expected(model, x), rtol=1e-4)
        np.testing.assert_allclose(features, np.tanh(x @ kernel + bias), rtol=1e-4)
    with pytest.raises(InputError) as error:
        teacher.specs(["stage9"])
    one_line(error, "'stage9'", "features", "norm")


@pytest.mark.parametrize("built_within", [False, True])
def test_it_teaches_and_is_not_changed(built_within: bool) -> None:
    x, y = batch()
    model = teacher_model()
    before = values(model)
    alone = distiller(model)
    alone.fit(x, y, batch_size=16, shuffle=False, epochs=2, verbose=0)
    with two_replicas().scope():
        both = distiller(teacher_model() if built_within else model)
    both.fit(x, y, batch_size=16, shuffle=False, epochs=2, verbose=0)
    assert_same(values(both.student), values(alone.student), atol=1e-5)
    assert_same(values(model), before)
    theirs = {id(weight) for weight in model.weights}
    assert not theirs & {id(weight) for weight in alone.weights}


def test_softmax_and_unbuilt_models() -> None:
    x, y = batch()
    with pytest.raises(InputError) as error:
        kd.Distiller(net(4), teacher_model("softmax"))
    one_line(error, "softmax", "from_logits=False")
    assert as_teacher(teacher_model("softmax"), from_logits=None).fingerprint()
    model = Subclassed()
    student = kd.Distiller(net(4), model, [kd.SoftTargets()])
    student.compile(tf.keras.optimizers.SGD(0.1), None)
    assert student.fit(x, y, verbose=0).history["soft_targets"][0] > 0
    assert as_teacher(model).outputs(x, ["low"]).layers["low"].shape == (16, 4)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_its_files(tmp_path: pathlib.Path, suffix: str) -> None:
    """Written by the Keras that is not in use, and loaded by it."""
    x, _ = batch()
    model = teacher_model("softmax")
    path = tmp_path / f"model{suffix}"
    model.save(path)
    teacher = as_teacher(path)
    assert isinstance(teacher, KerasTeacher)
    assert isinstance(teacher.model, other.Model)
    logits = teacher.outputs(x, ["block/low"]).logits
    np.testing.assert_allclose(logits, np.log(expected(model, x)), atol=1e-5)
    own = net(4)
    own.save(tmp_path / f"own{suffix}")
    loaded = as_teacher(tmp_path / f"own{suffix}")
    assert isinstance(loaded, KerasTeacher)
    assert isinstance(loaded.model, tf.keras.Model)


def test_keras_3_on_another_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    keras: Any = other if IS_TF_KERAS else importlib.import_module("keras")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(InputError) as error:
        KerasTeacher(model)
    one_line(error, "'jax'", "KERAS_BACKEND=tensorflow")


def with_function(module: str, function: str) -> dict[str, Any]:
    """A layer that calls a function, of which a model file holds the name only."""
    named = {"module": module, "class_name": "function", "config": function}
    return {
        "module": "keras.layers",
        "class_name": "Lambda",
        "registered_name": None,
        "name": "evil",
        "config": {
            "name": "evil",
            "function": {**named, "registered_name": function},
            "function_type": "function",
            "module": module,
            "arguments": {},
        },
        "inbound_nodes": [[["_CONSTANT_VALUE", -1, "touch MARK", {}]]],
    }


@pytest.mark.parametrize(
    ("module", "function"), [("os", "system"), ("builtins", "exec"), ("keras.utils", "get_file")]
)
def test_a_tf_keras_file_calls_no_function(
    tmp_path: pathlib.Path, module: str, function: str
) -> None:
    """tf_keras' own safe mode lets a file run a command, which is why it is looked at before."""
    tf_keras = importlib.import_module("tf_keras")
    start = tf_keras.Input((4,))
    tf_keras.Model(start, tf_keras.layers.Dense(3)(start)).save(tmp_path / "model.keras")
    layer = json.dumps(with_function(module, function)).replace("MARK", str(tmp_path / "ran"))
    with (
        zipfile.ZipFile(tmp_path / "model.keras") as good,
        zipfile.ZipFile(tmp_path / "evil.keras", "w") as evil,
    ):
        for name in good.namelist():
            content = good.read(name)
            if name == "config.json":
                config = json.loads(content)
                config["config"]["layers"].append(json.loads(layer))
                content = json.dumps(config).encode()
            evil.writestr(name, content)
    with pytest.raises(InputError) as error:
        load_model(tmp_path / "evil.keras", any_keras=True)
    one_line(error, repr(function), repr(module))
    assert not (tmp_path / "ran").exists()
    assert load_model(tmp_path / "model.keras", any_keras=True).count_params() == 15
