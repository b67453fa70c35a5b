"""What all tests share: the Keras of this pass, two logical CPUs, and where real data may lie."""

import gc
import os
import pathlib
import signal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest
import tensorflow as tf

IS_TF_KERAS = os.environ.get("TF_USE_LEGACY_KERAS") == "1"
ROOT = pathlib.Path(__file__).resolve().parent.parent

# A shell that runs tests in the background has them and the commands under test ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Two logical CPUs make a real two-replica MirroredStrategy on one machine.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


def pytest_report_header() -> str:
    return f"keras: {'tf_keras' if IS_TF_KERAS else 'Keras 3'}; TFDS: {_tfds_dir() or 'not found'}"


def pytest_collection_finish() -> None:
    # Tracing makes millions of objects: the collector goes through TensorFlow's own each time.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def pytest_collection_modifyitems(items: list) -> None:
    reasons = {
        "tf_keras": "tensorflow-model-optimization needs tf_keras",
        "any_keras": "depends on no Keras, and runs in the tf_keras pass",
    }
    for item in items:
        for mark, reason in reasons.items():
            if not IS_TF_KERAS and item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


def _tfds_dir() -> str | None:
    beside = ROOT.parent / "shared" / "data" / "tfds"
    found = os.environ.get("TFDS_DATA_DIR") or (str(beside) if beside.is_dir() else None)
    return found


@pytest.fixture
def tfds_dir() -> str:
    """Where prepared TensorFlow Datasets lie; the test is skipped where there are none."""
    found = _tfds_dir()
    if found is None:
        pytest.skip("no prepared data: set TFDS_DATA_DIR to run this test on real data")
    return found


@pytest.fixture(autouse=True)
def _seeded() -> None:
    tf.keras.utils.set_random_seed(0)
