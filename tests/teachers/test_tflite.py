"""`TFLiteTeacher`: against NumPy, in pieces and threads, quantized, teaching, and refusing."""

import pathlib
from typing import Any

import numpy as np
import oracles
import pytest
import tensorflow as tf
from files import WEIGHTS, logits, probabilities, tflite_file
from nets import assert_same, batch, net, one_line, values
from replicas import two_replicas

import kd_keras as kd
from kd_keras.errors import InputError
from kd_keras.teachers import TFLiteTeacher, as_teacher, evaluation
from kd_keras.teachers.file_teacher import are_logits

SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared" / "teachers"
layers = tf.keras.layers


def two_outputs(x: Any) -> dict[str, Any]:
    return {"logits": logits(x), "features": tf.tanh(x)}


def fixed(x: Any) -> Any:
    """Written for one example: a batch cannot take this shape."""
    return logits(tf.reshape(tf.transpose(tf.reshape(x, (1, 2, 2)), (0, 2, 1)), (1, 4)))


def of_the_batch(x: Any) -> Any:
    """Takes any batch, but gives an example what the others leave it."""
    return logits(x - 0.5 * tf.reduce_mean(x, axis=0))


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    return tflite_file(tmp_path / "linear.tflite")


@pytest.mark.any_keras
@pytest.mark.parametrize("size", [1, 2, 7])
def test_logits_are_those_of_the_function(file: pathlib.Path, size: int) -> None:
    x, _ = batch(size)
    teacher = TFLiteTeacher(file, interpreters=3)
    assert (teacher.from_logits, teacher.is_resized, teacher.name) == (True, True, "linear")
    specs = teacher.specs()
    assert (specs.logits.shape.as_list(), specs.logits.dtype) == ([None, 3], tf.float32)
    assert teacher.input_specs().shape.as_list() == [None, 4]
    np.testing.assert_allclose(teacher.outputs(x).logits, x @ WEIGHTS, atol=1e-5)
    found = tf.function(lambda x: teacher.outputs(x).logits)(x)
    np.testing.assert_allclose(found, x @ WEIGHTS, atol=1e-5)
    assert teacher.outputs(x[:0]).logits.shape == (0, 3)


@pytest.mark.any_keras
@pytest.mark.parametrize(
    ("function", "alone"),
    [(fixed, lambda x: x[:, [0, 2, 1, 3]] @ WEIGHTS), (of_the_batch, lambda x: x @ WEIGHTS / 2)],
)
def test_files_that_take_no_other_batch_run_in_pieces(
    tmp_path: pathlib.Path, function: Any, alone: Any
) -> None:
    x, _ = batch(7)
    teacher = TFLiteTeacher(tflite_file(tmp_path / "one.tflite", function, shapes=[(1, 4)]))
    assert not teacher.is_resized
    np.testing.assert_allclose(teacher.outputs(x).logits, alone(x), atol=1e-5)


@pytest.mark.any_keras
def test_pieces_of_a_fixed_batch_are_filled_up(tmp_path: pathlib.Path) -> None:
    def three_at_a_time(x: Any) -> Any:
        return logits(tf.reshape(tf.transpose(tf.reshape(x, (3, 2, 2)), (0, 2, 1)), (3, 4)))

    x, _ = batch(7)
    path = tflite_file(tmp_path / "three.tflite", three_at_a_time, shapes=[(3, 4)])
    found = TFLiteTeacher(path).outputs(x).logits
    np.testing.assert_allclose(found, x[:, [0, 2, 1, 3]] @ WEIGHTS, atol=1e-5)


@pytest.mark.any_keras
def test_probabilities_are_found_out(tmp_path: pathlib.Path) -> None:
    x, _ = batch()
    teacher = TFLiteTeacher(tflite_file(tmp_path / "soft.tflite", probabilities))
    assert not teacher.from_logits
    expected = np.log(oracles.softmax(x @ WEIGHTS, 1.0))
    np.testing.assert_allclose(teacher.outputs(x).logits, expected, atol=1e-4)


@pytest.mark.any_keras
@pytest.mark.parametrize(("function", "from_logits"), [(logits, True), (probabilities, False)])
def test_quantized_files(tmp_path: pathlib.Path, function: Any, from_logits: bool) -> None:
    x, _ = batch(40)
    teacher = TFLiteTeacher(tflite_file(tmp_path / "int8.tflite", function, int8=True))
    assert teacher.from_logits is from_logits
    assert teacher.input_specs().dtype == tf.float32
    expected = oracles.softmax(x @ WEIGHTS, 1.0)
    found = oracles.softmax(teacher.outputs(x).logits.numpy(), 1.0)
    assert np.abs(found - expected).max() < 0.05


@pytest.mark.any_keras
@pytest.mark.parametrize(
    ("values", "step", "found"),
    [
        ([[0.2, 0.8], [1.0, 0.0]], 0.0, False),
        ([[0.2, 0.8], [1.0, 0.2]], 0.0, None),
        ([[0.2, 0.8], [-1.0, 2.0]], 0.0, True),
        ([[0.0, np.nan]], 0.0, None),
        ([[0.2] * 5 + [0.02] * 5], 0.02, None),
        ([[0.2] * 5 + [0.008] * 5], 0.02, False),
        ([[0.0] * 999 + [0.5]], 2**-8, False),
        ([[0.0] * 999 + [0.5]], 2**-7, None),
    ],
)
def test_what_values_say(values: list, step: float, found: bool | None) -> None:
    assert are_logits(np.array(values), step) is found


@pytest.mark.any_keras
def test_layers_are_outputs(tmp_path: pathlib.Path) -> None:
    x, _ = batch()
    teacher = TFLiteTeacher(tflite_file(tmp_path / "two.tflite", two_outputs))
    found = teacher.outputs(x, ["features"])
    np.testing.assert_allclose(found.logits, x @ WEIGHTS, atol=1e-5)
    np.testing.assert_allclose(found.layers["features"], np.tanh(x), atol=1e-5)
    assert teacher.specs(["features"]).layers["features"].shape.as_list() == [None, 4]
    for read in (teacher.specs, lambda layers: teacher.outputs(x, layers)):
        with pytest.raises(InputError) as error:
            read(["stage1"])
        one_line(error, "'stage1'", "features", "logits")
    with pytest.raises(InputError) as error:
        TFLiteTeacher(teacher.path, output="stage1")
    one_line(error, "'stage1'", "features, logits")
    other = TFLiteTeacher(teacher.path, output="features", from_logits=True)
    assert other.specs().logits.shape.as_list() == [None, 4]
    assert other.fingerprint() != teacher.fingerprint()


@pytest.mark.any_keras
def test_a_fingerprint_is_of_the_content(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    own = TFLiteTeacher(file).fingerprint()
    copy = tmp_path / "copy.tflite"
    copy.write_bytes(file.read_bytes())
    assert TFLiteTeacher(copy, interpreters=1).fingerprint() == own
    soft = tflite_file(tmp_path / "soft.tflite", probabilities)
    assert TFLiteTeacher(soft).fingerprint() != own


@pytest.mark.any_keras
@pytest.mark.parametrize(
    ("function", "shapes", "settings", "words"),
    [
        (logits, [(None, 4)], {"from_logits": False}, ["gives logits", "from_logits=True"]),
        (probabilities, [(None, 4)], {"from_logits": True}, ["gives prob", "from_logits=False"]),
        (lambda x: tf.sigmoid(logits(x)), [(None, 4)], {}, ["cannot be told", "0..1", "sums"]),
        (lambda x: {"a": logits(x), "b": x}, [(None, 4)], {}, ["2 outputs", "output=", "a, b"]),
        (lambda x: logits(x)[:, None], [(None, 4)], {}, ["(None, 1, 3)", "(batch, classes)"]),
        (lambda x, y: logits(x + y), [(None, 4)] * 2, {}, ["2 inputs"]),
        (logits, [(None, 4)], {"interpreters": 0}, ["interpreters is 0"]),
        (logits, [(None, 4)], {"threads": 0}, ["threads is 0"]),
    ],
)
def test_refused(
    tmp_path: pathlib.Path, function: Any, shapes: Any, settings: dict, words: list[str]
) -> None:
    path = tflite_file(tmp_path / "file.tflite", function, shapes=shapes)
    with pytest.raises(InputError) as error:
        TFLiteTeacher(path, **settings)
    one_line(error, *words)


@pytest.mark.any_keras
@pytest.mark.parametrize(("kept", "words"), [(None, "is no file"), (0, "cannot"), (200, "cannot")])
def test_missing_and_damaged(file: pathlib.Path, kept: int | None, words: str) -> None:
    content = file.read_bytes()
    file.unlink()
    if kept is not None:
        file.write_bytes(content[:kept])
    with pytest.raises(InputError) as error:
        TFLiteTeacher(file)
    one_line(error, str(file), words)


@pytest.mark.any_keras
def test_a_batch_of_another_shape_is_refused(file: pathlib.Path) -> None:
    teacher = TFLiteTeacher(file)
    for x in (np.zeros((2, 5), "float32"), {"a": np.zeros((2, 4)), "b": np.zeros((2, 4))}):
        with pytest.raises(InputError) as error:
            teacher.outputs(x)
        one_line(error, "(None, 4)", "the batch is")


def test_two_replicas_take_the_step_of_one(tmp_path: pathlib.Path) -> None:
    x, y = batch()
    path = tflite_file(tmp_path / "two.tflite", two_outputs)

    def fitted(scope: Any = None) -> list:
        def make() -> Any:
            student = net(4, seed=2)
            hint = kd.Hint(teacher_layer="features", student_layer="features")
            model = kd.Distiller(student, str(path), [kd.SoftTargets(temperature=2.0), hint])
            for projection in model.projections.values():
                for weight in projection.weights:
                    weight.assign(tf.ones(weight.shape) / 4)
            model.compile(tf.keras.optimizers.SGD(0.5), None)
            return model

        if scope is None:
            model = make()
        else:
            with scope:
                model = make()
        model.fit(x, y, batch_size=16, shuffle=False, verbose=0)
        return values(model.student)

    assert_same(fitted(two_replicas().scope()), fitted(), atol=1e-6)


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_the_mlperf_tiny_classifier_teaches(tfds_dir: str, kind: str) -> None:
    path = SHARED / f"mlperf_tiny_resnet8_{kind}.tflite"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    data = kd.data.load("cifar10", data_dir=tfds_dir, limit=600)
    teacher = as_teacher(str(path))
    assert isinstance(teacher, TFLiteTeacher)
    assert not teacher.from_logits
    # 87.19 and 86.97 % of 10,000 images; one standard deviation of 600 is 1.4 %.
    test = data.test
    assert evaluation.accuracy(teacher, test.images, test.labels) == pytest.approx(0.87, abs=0.045)
    student = tf.keras.Sequential(
        [
            tf.keras.Input((32, 32, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10),
        ]
    )
    model = kd.Distiller(student, str(path), [kd.SoftTargets(temperature=4.0)], label_weight=0.0)
    model.compile(tf.keras.optimizers.Adam(0.01), None, teacher_accuracy=True)
    history = model.fit(data.train.images, data.train.labels, epochs=2, verbose=0).history
    assert history["soft_targets"][1] < history["soft_targets"][0]
    assert history["teacher_accuracy"][0] > 0.85
