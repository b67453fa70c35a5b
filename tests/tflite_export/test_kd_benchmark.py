"""`kd-benchmark --device=host`, on real files."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

import tflite_export
from tflite_export.measuring import worker
from tflite_export.measuring.engine import Effort
from tflite_export.measuring.host import Host
from tflite_export.measuring.result import Delegation, Setting, model_files
from tflite_export.tflite_model import load_interpreter

pytestmark = pytest.mark.any_keras
QUICK = Effort(repeats=2, runs=5, warmup=1, min_seconds=0)


def kd_benchmark(*arguments):
    home = str(Path(tflite_export.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-m", "tflite_export.kd_benchmark", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([home, *sys.path])},
    )


def test_two_files_with_and_without_xnnpack(float_digits, int8_digits, tmp_path):
    output = tmp_path / "out" / "host.json"
    done = kd_benchmark(
        f"--model={float_digits},{int8_digits}",
        *("--xnnpack=both", "--repeats=1", "--runs=5", "--min_seconds=0"),
        *("--accuracy=0.97,0.96", f"--output={output}"),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(output.read_text())
    assert result["device"] == "host"
    assert result["facts"]["cpu"]
    on, off = result["measurements"][1], result["measurements"][3]
    assert on["delegation"]["nodes"] > 0 == off["delegation"]["nodes"]
    for entry in result["measurements"]:
        assert len(entry["readings"]) == 1
        assert entry["latency_us"]["first"]["low"] > 0
        for reading in entry["readings"]:
            assert 0 < reading["min"] <= reading["median"] <= reading["p99"] <= reading["max"]
            assert reading["runs"] == 5 * reading["block"]
    assert on["ratio"]["low"] <= on["ratio"]["median"] <= on["ratio"]["high"]
    if sys.platform == "linux":
        assert on["peak_memory_bytes"] > 0
    assert "gives no profile of single operators" in done.stdout
    assert output.with_suffix(".html").read_text().count("<svg") == 3

    again = kd_benchmark(f"--model={int8_digits}", f"--output={output}")
    assert again.returncode == 1
    assert "exists" in again.stderr


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ((), "--model"),
        (("--model=none.tflite",), "cannot be read"),
        (("--model={file}", "--threads=0"), "whole numbers from 1"),
        (("--model={file}", "--threads=two"), "whole numbers from 1"),
        (("--model={file}", "--accuracy=much"), "no number"),
        (("--model={file}", "--output=host.txt"), "does not end in .json"),
        (("--model={file}", "--device=toaster"), "--device"),
        (("--model={file}", "--profile"), "--profile is for android"),
        pytest.param(
            ("--model={file}", "--images=x.npy"), "--images is for arm64", marks=pytest.mark.slow
        ),
        pytest.param(
            ("--model={file}", "--device=arm64", "--xnnpack=off"),
            "leave --xnnpack out",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("--model={file}", "--device=arm64", "--images=none.npy"),
            "'none.npy' is no file",
            marks=pytest.mark.slow,
        ),
        (("--model={file}", "more"), "unexpected argument"),
        (("--model={broken}",), "cannot be loaded"),
    ],
)
def test_bad_flags_are_one_line(flags, reason, float_digits, tmp_path):
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(float_digits.read_bytes()[:500])
    done = kd_benchmark(*(flag.format(file=float_digits, broken=broken) for flag in flags))
    assert done.returncode == 1
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("kd-benchmark: ")


def test_delegation_is_counted_from_the_graph(float_digits):
    whole = worker.delegated(load_interpreter(float_digits))
    assert whole.nodes == whole.total
    assert whole.partitions == 1
    assert worker.delegated(load_interpreter(float_digits, xnnpack=False)).nodes == 0


def test_delegation_of_a_part():
    """Operators 0, 1, 2 in a chain; a delegate has taken 0 and 1."""

    class Half:
        def _get_ops_details(self):
            chain = [{"op_name": "CONV_2D", "inputs": [n, 9], "outputs": [n + 1]} for n in range(3)]
            return [*chain, {"op_name": "DELEGATE", "inputs": [0, 9], "outputs": [2]}]

    assert worker.delegated(Half()) == Delegation(2, 3, 1)
    assert worker.delegated(object()) is None


def test_short_inferences_are_counted_in_blocks(monkeypatch):
    now = [0]
    monkeypatch.setattr(worker.time, "perf_counter_ns", lambda: now[0])

    def invoke():
        now[0] += 3_000

    assert worker._times(invoke, block=40, runs=7, min_seconds=0) == [3_000] * 7
    reading = worker._reading([3_000] * 7, 40, init=5_000, first=9_000)
    assert (reading.runs, reading.median, reading.init, reading.first) == (280, 3, 5, 9)


def test_damaged_files_end_in_one_line_or_run(float_digits, tmp_path, one_line):
    """The child may crash; its parent does not."""
    generator, content = random.Random(0), float_digits.read_bytes()
    path = tmp_path / "flipped.tflite"
    for _ in range(3):
        damaged = bytearray(content)
        for _ in range(20):
            damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        try:
            Host(timeout=60).read(model_files([path])[0], Setting("xnnpack", 1), QUICK)
        except tflite_export.ExportError as error:
            assert "\n" not in str(error)  # noqa: PT017
