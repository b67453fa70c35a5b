import dataclasses
import gzip
import io
import json
import sys

import pytest

import tflite_export
from tflite_export import benchmarking
from tflite_export.peak_memory import peak_memory

# What a file says and does is one under both Keras; how each is converted, test_conversion tells.
pytestmark = pytest.mark.any_keras


def test_figures_of_a_real_file(float_file):
    result = tflite_export.benchmark(float_file, threads=(1, 2), runs=20, warmup=2, min_seconds=0)
    assert [latency.threads for latency in result.latency_us] == [1, 2]
    for latency in result.latency_us:
        assert latency.runs == 20
        assert 0 < latency.median <= latency.p90
        assert latency.init > 0
        assert latency.first > 0
    content = float_file.read_bytes()
    assert result.bytes == len(content)
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9, mtime=0) as stream:
        stream.write(content)
    assert abs(result.gzip_bytes - len(packed.getvalue())) <= 16
    assert {"cpu", "cores", "os", "python", "ai_edge_litert"} == set(result.machine)
    assert json.loads(json.dumps(dataclasses.asdict(result)))["latency_us"][0]["runs"] == 20


def test_min_seconds_makes_more_runs(float_file):
    result = tflite_export.benchmark(float_file, threads=[1], runs=1, warmup=0, min_seconds=0.1)
    latency = result.latency_us[0]
    assert latency.runs * latency.mean >= 0.05e6
    assert latency.runs > 10


def test_summary_of_known_times():
    times = [1000 * n for n in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)]
    summary = benchmarking._summary(2, times, init=5000, first=7500)
    assert (summary.median, summary.p90, summary.mean, summary.iqr) == (6, 10, 6, 5)
    assert summary.std == pytest.approx(11**0.5)
    assert (summary.init, summary.first, summary.runs, summary.threads) == (5, 7.5, 11, 2)
    assert benchmarking._summary(1, [3000], 0, 0).std == 0


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_peak_memory_grows_with_the_weights(float_file, tmp_path):
    import tensorflow as tf

    image = tf.keras.Input((1000,), name="x")
    big = tf.keras.Model(image, tf.keras.layers.Dense(2000, name="y")(image))
    path = tflite_export.convert(big, tmp_path / "big.tflite", "float32")
    small_bytes, big_bytes = peak_memory(float_file), peak_memory(path)
    assert small_bytes > 0
    assert 8e6 <= big_bytes - small_bytes <= 40e6  # the weights alone are 8 MB


def test_bad_arguments_and_a_damaged_file(float_file, tmp_path, one_line):
    for arguments, reason in (
        ({"threads": ()}, "threads is"),
        ({"threads": (0,)}, "threads is"),
        ({"runs": 0}, "runs is 0"),
        ({"warmup": -1}, "warmup is -1"),
        ({"min_seconds": -1}, "min_seconds is -1"),
    ):
        with pytest.raises(tflite_export.ExportError, match=reason) as caught:
            tflite_export.benchmark(float_file, **arguments)
        one_line(caught)
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(float_file.read_bytes()[:500])
    for measure in (tflite_export.benchmark, peak_memory):
        with pytest.raises(tflite_export.ExportError, match="cannot be loaded") as caught:
            measure(broken)
        one_line(caught)
