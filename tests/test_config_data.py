"""What `kd-export` and `kd-verify` read from a config."""

import configparser
import importlib.metadata
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import kd_keras as kd
from kd_keras import config_data, config_flag
from kd_keras.pipeline import config as configs
from kd_keras.pipeline import stages
from kd_keras.pipeline.job import Job
from kd_keras.pipeline.workdir import Workdir
from tflite_export.balance import balanced
from tflite_export.config_source import GROUP
from tflite_export.errors import ExportError

pytestmark = pytest.mark.any_keras

ROOT = pathlib.Path(__file__).parents[1]
QUICKSTART = f"{ROOT}/configs/quickstart.py:smoke"


def test_the_numbers_are_those_that_training_feeds(tmp_path: pathlib.Path) -> None:
    job = Job(configs.complete(config_flag.load(QUICKSTART)), Workdir(tmp_path), None, "")
    stages.prepare_data(job)
    batches = job.views.batches(batch_size=32, epochs=1, drop_remainder=False)
    fed = {(x.tobytes(), int(y)) for x, y in batches.unbatch().as_numpy_iterator()}
    found = config_data.read(QUICKSTART, "train", lambda labels: balanced(labels, 100, 5))
    assert {(x.tobytes(), int(y)) for x, y in zip(found.images, found.labels, strict=True)} <= fed
    assert len(fed) > len(found.images) == 100
    assert set(np.bincount(found.labels)) == {10}
    # What is recorded is what was done: the normalization of the training images.
    assert found.preprocessing.mean == job.normalization.mean
    pixels = job.dataset.test.images
    told = found.preprocessing.fitted(pixels.shape).apply(pixels)
    np.testing.assert_allclose(told, job.images(job.dataset.test), atol=1e-5)

    test = config_data.read(QUICKSTART, "test")
    np.testing.assert_array_equal(test.images, job.images(job.dataset.test))
    np.testing.assert_array_equal(test.labels, job.dataset.test.labels)
    assert test.class_names == tuple("0123456789")


def test_what_the_student_does_not_see_is_left_out(tmp_path: pathlib.Path) -> None:
    config = tmp_path / "part.py"
    config.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n"
        "    part = {'without_classes': (3,), 'share': 0.5}\n"
        "    return ConfigDict({'student': {'transfer_set': part}})\n"
    )
    found = config_data.read(str(config), "train", lambda labels: balanced(labels, 90, 0))
    assert np.bincount(found.labels).tolist() == [10, 10, 10, 0, *[10] * 6]
    seen = config_data.read(str(config), "train")
    assert len(seen.images) == pytest.approx(0.5 * 0.9 * 0.9 * 0.8 * 1797, rel=0.02)
    assert {x.tobytes() for x in found.images} <= {x.tobytes() for x in seen.images}
    assert set(config_data.read(str(config), "test").labels) == {*range(10)}


def test_what_cannot_be_read_is_an_export_error(tmp_path: pathlib.Path) -> None:
    unknown = tmp_path / "unknown.py"
    unknown.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n    return ConfigDict({'data': {'name': 'digits', 'image_size': 9}})\n"
    )
    for spec, reason in ((f"{tmp_path}/none.py", "does not exist"), (str(unknown), "image_size")):
        with pytest.raises(ExportError, match=reason):
            config_data.read(spec, "train")


def test_the_package_registers_its_reader() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    name, _, value = setup["options.entry_points"][GROUP].strip().partition(" = ")
    assert importlib.metadata.EntryPoint(name, value, GROUP).load() is config_data.read


@pytest.mark.slow
def test_commands_take_a_config(tmp_path: pathlib.Path) -> None:
    """The package is installed: else its entry points are not found."""
    kd.models.build("mlp-16", classes=10, input_shape=(8, 8, 1)).save(tmp_path / "s.keras")

    def run(module: str, *flags: str) -> None:
        command = [sys.executable, "-m", f"tflite_export.{module}", *flags]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    source, file = tmp_path / "s.keras", tmp_path / "s.tflite"
    run("export", f"--model={source}", f"--representative={QUICKSTART}", f"--output={file}")
    told = json.loads(file.with_suffix(".json").read_text())
    assert set(told["representative"]["classes"].values()) == {50}
    report = tmp_path / "v.json"
    models = f"--model={file}", f"--reference={source}"
    run("verify_command", *models, f"--images={QUICKSTART}", "--floor=0.5", f"--output={report}")
    found = json.loads(report.read_text())
    assert found["examples"] == found["sources"]["images"]["images"] == 359
