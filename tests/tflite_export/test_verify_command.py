"""References of every kind, and the command `kd-verify`."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import tflite_export
from tflite_export.reference import Reference
from tflite_export.runner import Runner

SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared" / "teachers"
IS_TF_KERAS = tf.keras.Model.__module__.startswith("tf_keras")


@pytest.fixture(scope="module")
def files(digits, float_digits, int8_digits, tmp_path_factory):
    """The digits net as a file of each kind, test images and labels, and what is no model."""
    folder = tmp_path_factory.mktemp("verify")
    digits.model.save(folder / "net.keras")
    digits.model.save(folder / "net.h5")
    if IS_TF_KERAS:
        digits.model.save(folder / "saved")
    else:
        digits.model.export(folder / "saved", verbose=False)
    (folder / "float.tflite").write_bytes(float_digits.read_bytes())
    (folder / "int8.tflite").write_bytes(int8_digits.read_bytes())
    (folder / "cut.tflite").write_bytes(int8_digits.read_bytes()[:3000])
    (folder / "text.tflite").write_text("hello")
    for name, array in (
        ("x", digits.images),
        ("y", digits.labels),
        ("flat", digits.images[..., 0]),
        ("few", digits.labels[:7]),
        ("eleven", digits.labels + 1),
        ("dark", 0.1 * digits.images),
    ):
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "objects.npy", np.array([{}], object), allow_pickle=True)
    return folder


def kd_verify(folder, **changed):
    given = {
        **{"model": folder / "int8.tflite", "reference": folder / "float.tflite"},
        **{"images": folder / "x.npy", "labels": folder / "y.npy", "floor": 0.97},
        **changed,
    }
    home = str(pathlib.Path(tflite_export.__file__).parents[1])
    search_path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    given = {name: value for name, value in given.items() if value is not None}
    flags = [f"--{name}" if value is True else f"--{name}={value}" for name, value in given.items()]
    return subprocess.run(
        [sys.executable, "-m", "tflite_export.verify_command", *flags],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": search_path},
    )


@pytest.mark.parametrize(
    "kind", ["net.keras", pytest.param("net.h5", marks=pytest.mark.slow), "saved", "float.tflite"]
)
def test_every_kind_of_reference_gives_the_models_outputs(kind, files, digits):
    reference = Reference(files / kind)
    found = reference(digits.images[:150])
    expected = digits.model.predict(digits.images[:150], verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    content, names = reference.float_content()
    assert (names is None) == (kind in ("saved", "float.tflite"))
    path = files / "again.tflite"
    path.write_bytes(content)
    runner = Runner(path)
    found = runner.run(digits.images[:3], list(runner.outputs))[0]
    np.testing.assert_allclose(found, expected[:3], atol=1e-4)


def test_references_that_cannot_be_used(files, digits, tmp_path, one_line):
    (tmp_path / "cut.keras").write_bytes((files / "net.keras").read_bytes()[:2000])
    (tmp_path / "text.txt").write_text("hello")
    for path, images, reason in (
        (tmp_path / "none.keras", digits.images, "does not exist"),
        (tmp_path / "text.txt", digits.images, "is of no known kind"),
        (tmp_path, digits.images, "is of no known kind"),
        (tmp_path / "cut.keras", digits.images, "cannot be loaded"),
        (files / "net.keras", digits.images[..., 0], r"takes \(n, 8, 8, 1\)"),
        (files / "saved", digits.images[..., 0], r"takes \(n, 8, 8, 1\)"),
    ):
        with pytest.raises(tflite_export.ExportError, match=reason) as caught:
            Reference(path)(images)
        one_line(caught)


def test_command_prints_tables_and_writes_json(files, digits, tmp_path):
    output = tmp_path / "proof.json"
    done = kd_verify(files, layers=True, output=output)
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("accuracy", "agreement", "quantization steps", "class", "DEPTHWISE_CONV_2D"):
        assert words in done.stdout
    told = json.loads(output.read_text())
    expected = tflite_export.verify(
        files / "int8.tflite",
        tflite_export.TFLiteModel(files / "float.tflite").predict(digits.images),
        digits.images,
        digits.labels,
    )
    for name in ("accuracy", "accuracy_reference", "agreement", "largest_error_steps", "examples"):
        assert told[name] == getattr(expected, name)
    assert told["losing_classes"] == [found.number for found in expected.losing_classes]
    assert len(told["layers"]) == 7
    assert told["sources"]["model"]["name"] == "int8.tflite"
    assert str(files) not in output.read_text()


def test_below_the_floor_is_a_status_and_a_line(files, tmp_path):
    output = tmp_path / "proof.json"
    done = kd_verify(files, images=files / "dark.npy", floor=1.0, output=output)
    assert done.returncode == 1
    assert "accuracy" in done.stdout
    assert done.stderr.startswith("kd-verify: agreement ")
    assert "below the floor 1.0" in done.stderr
    assert done.stderr.count("\n") == 1
    assert json.loads(output.read_text())["floor"] == 1.0


@pytest.mark.slow
def test_command_loads_keras_models(files):
    done = kd_verify(files, reference=files / "net.keras", layers=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "depthwise  DEPTHWISE_CONV_2D" in done.stdout


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"model": "text.tflite"}, "cannot be loaded"),
        ({"model": "cut.tflite"}, "cannot be loaded"),
        ({"images": "flat.npy"}, "takes (n, 8, 8, 1)"),
        ({"labels": "few.npy"}, "labels have shape (7,)"),
        pytest.param({"labels": "eleven.npy"}, "labels go from", marks=pytest.mark.slow),
        pytest.param({"model": "none.tflite"}, "is no file", marks=pytest.mark.slow),
        pytest.param({"images": "objects.npy"}, "cannot be read", marks=pytest.mark.slow),
        pytest.param({"images": "text.tflite"}, "cannot be read", marks=pytest.mark.slow),
        pytest.param({"reference": "x.npy"}, "is of no known kind", marks=pytest.mark.slow),
        pytest.param({"labels": None}, "--labels is missing", marks=pytest.mark.slow),
        pytest.param({"images": "c.py"}, "has the labels, too", marks=pytest.mark.slow),
        pytest.param({"output": "x.npy"}, "exists", marks=pytest.mark.slow),
        pytest.param({"speed": "9"}, "speed", marks=pytest.mark.slow),
        ({"nolayers": "9"}, "9 does not take an argument"),
    ],
)
def test_bad_input_is_one_line(changed, reason, files):
    before = (files / "x.npy").read_bytes()
    done = kd_verify(files, **{name: value and files / value for name, value in changed.items()})
    assert done.returncode == 1
    assert reason in done.stderr
    assert (done.stderr.count("\n"), done.stdout) == (1, "")
    assert (files / "x.npy").read_bytes() == before


def mlperf(kind, tfds_dir, count):
    import kd_keras as kd

    path = SHARED / f"mlperf_tiny_resnet8_{kind}.tflite"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    test = kd.data.load("cifar10", data_dir=tfds_dir, limit=count).test
    images, labels = np.asarray(test.images), np.asarray(test.labels)
    reference = Reference(SHARED / "mlperf_tiny_resnet8_float32.tflite")
    return tflite_export.verify(path, reference, images, labels, floor=0.9), len(images)


@pytest.mark.any_keras
def test_some_of_the_mlperf_tiny_classifier(tfds_dir):
    found, count = mlperf("int8", tfds_dir, 500)
    assert count == 500
    assert found.accuracy == pytest.approx(0.87, abs=0.045)
    assert found.mean_error_steps < 10


@pytest.mark.slow
@pytest.mark.any_keras
@pytest.mark.parametrize(("kind", "accuracy"), [("float32", 0.8719), ("int8", 0.8697)])
def test_the_mlperf_tiny_classifier_gets_its_published_accuracy(kind, accuracy, tfds_dir):
    found, count = mlperf(kind, tfds_dir, None)
    assert count == 10_000
    assert round(found.accuracy, 4) == accuracy
    assert round(found.accuracy_reference, 4) == 0.8719
