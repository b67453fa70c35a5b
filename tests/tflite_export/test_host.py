"""`tflite_export.benchmark`, on real files; test_kd_benchmark has the child process."""

import sys

import pytest

import tflite_export
from tflite_export.measuring.result import Setting

# What a file says and does is one under both Keras; how each is converted, test_conversion tells.
pytestmark = pytest.mark.any_keras

QUICK = tflite_export.Effort(repeats=1, runs=5, warmup=1, min_seconds=0)


def test_figures_of_two_files(float_digits, int8_digits):
    paths = [float_digits, int8_digits]  # of one name, so they are called by their paths
    result = tflite_export.benchmark(paths, threads=(1, 2), effort=QUICK)
    measured = [(m.model, m.setting) for m in result.measurements]
    assert measured == [(str(path), Setting("xnnpack", n)) for n in (1, 2) for path in paths]
    assert [model.bytes for model in result.models] == [path.stat().st_size for path in paths]
    assert {"cpu", "cores", "os", "python", "ai_edge_litert", "load"} <= set(result.facts)
    for measured in result.measurements:
        [reading] = measured.readings
        assert measured.time.low == measured.time.high == reading.median > 0
        assert reading.init > 0
        assert reading.first > 0
        assert (measured.ratio is None) == (measured.model == str(float_digits))
        assert sys.platform != "linux" or measured.peak_memory_bytes > 0


def test_min_seconds_makes_more_runs(int8_digits):
    effort = tflite_export.Effort(repeats=1, runs=1, min_seconds=0.1)
    [reading] = tflite_export.benchmark(int8_digits, effort=effort).measurements[0].readings
    assert reading.runs * reading.mean >= 0.05e6
    assert reading.runs > 10


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_peak_memory_grows_with_the_weights(float_digits, tmp_path):
    import tensorflow as tf

    image = tf.keras.Input((1000,), name="x")
    big = tf.keras.Model(image, tf.keras.layers.Dense(2000, name="y")(image))
    path = tflite_export.convert(big, tmp_path / "big.tflite", "float32")
    result = tflite_export.benchmark([float_digits, path], effort=QUICK)
    small, large = (measured.peak_memory_bytes for measured in result.measurements)
    assert small > 0
    assert 8e6 <= large - small <= 40e6  # the weights alone are 8 MB


def test_bad_arguments_and_a_damaged_file(float_digits, tmp_path, one_line):
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(float_digits.read_bytes()[:500])
    for models, threads, reason in (
        (float_digits, (), "threads is"),
        (float_digits, (1, 0), "threads is"),
        ([], (1,), "give at least one"),
        ([float_digits, float_digits], (1,), "each once"),
        (str(broken), (1,), "cannot be loaded"),
    ):
        with pytest.raises(tflite_export.ExportError, match=reason) as caught:
            tflite_export.benchmark(models, threads=threads, effort=QUICK)
        one_line(caught)
