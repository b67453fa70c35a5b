"""`kd-benchmark --device=arm64`: by a stand-in emulator, and for real where it is set up."""

import pathlib

import numpy as np
import pytest

from tflite_export import kd_benchmark
from tflite_export.errors import ExportError
from tflite_export.interpreters import Interpreters
from tflite_export.measuring import arm64_setup, page, table
from tflite_export.measuring.arm64 import Arm64, agreement
from tflite_export.measuring.engine import Effort, measure
from tflite_export.measuring.result import Setting, model_files
from tflite_export.representative import load_representative
from tflite_export.tflite_model import TensorFacts

pytestmark = pytest.mark.any_keras
SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared" / "teachers"
SETTING = Setting("xnnpack (emulated)", 1)


@pytest.fixture
def emulator(debian, cache, monkeypatch):
    """What is set up by stand-ins; the emulator is a script that tests may change."""
    monkeypatch.setattr(arm64_setup, "_PROOF", "print('{}')")
    return pathlib.Path(arm64_setup.set_up().python.line[0])


def oracle(expected, found, step):
    """One number after the other."""
    pairs = [
        (a, b)
        for x, y in zip(expected.tolist(), found.tolist(), strict=True)
        for a, b in zip(x, y, strict=True)
    ]
    largest = max(abs(a - b) for a, b in pairs)
    rows = zip(expected.tolist(), found.tolist(), strict=True)
    same = [x.index(max(x)) == y.index(max(y)) for x, y in rows]
    return {
        "equal": sum(a == b for a, b in pairs) / len(pairs),
        "largest": largest,
        "largest_steps": None if step is None else int(largest / step + 0.5),
        "same_choice": sum(same) / len(same),
    }


@pytest.mark.parametrize("step", [0.25, 1.7e-3, None])
def test_agreement_against_the_oracle(step):
    rng = np.random.default_rng(0)
    stored = rng.integers(-128, 128, (60, 10))
    moved = np.clip(stored + rng.choice([0, 0, 0, 1, -3], stored.shape), -128, 127)
    expected, found = ((x * np.float32(step or 0.1)).astype(np.float32) for x in (stored, moved))
    told = agreement(expected, found, step, "x.npy")
    wanted = oracle(expected, found, step)
    assert 0.5 < wanted["equal"] < 0.7
    assert 0 < wanted["same_choice"] < 1
    for name, value in wanted.items():
        assert getattr(told, name) == pytest.approx(value), name
    assert (told.inputs, told.examples) == ("x.npy", 60)
    nearly = np.full((1, 2), 2.999)  # float32 cannot tell every multiple of a step
    assert agreement(0 * nearly, nearly, 1.0, "x.npy").largest_steps == 3
    same = agreement(expected.reshape(60, 5, 2), expected.reshape(60, 5, 2), step, "x.npy")
    assert (same.equal, same.largest, same.same_choice) == (1, 0, 1)


def test_a_file_is_run_there_and_the_times_are_marked(emulator, int8_digits, digits, tmp_path):
    np.save(tmp_path / "x.npy", digits.images[:40])
    device = Arm64(load_representative(tmp_path / "x.npy", None))
    result = measure(device, model_files([int8_digits]), [SETTING], Effort(1, 2, 1, min_seconds=0))
    assert result.device == "arm64"
    assert result.facts["arm64_emulator"] == "qemu-aarch64 version 0"
    assert result.facts["examples"]["images"] == 40
    [measured] = result.measurements
    assert (measured.agreement.examples, measured.agreement.equal) == (40, 1)
    assert measured.agreement.largest_steps == 0
    assert measured.peak_memory_bytes is None
    assert measured.delegation.nodes > 0
    calls = (emulator.parents[2] / "commands" / "calls").read_text()
    assert calls.count("-m tflite_export.measuring.worker") == 1
    assert calls.count("-m tflite_export.inference_worker") == 1
    for text in (table.text(result), page.page(result)):
        assert "40 examples (x.npy): 100.00% of the outputs are equal" in text
        assert "xnnpack (emulated)" in text
        assert "no phone" in text
    assert '"largest_steps": 0' in result.to_json()
    assert '"libc6_1_arm64.deb"' in result.to_json()
    assert "libc6_1_arm64.deb" not in page.page(result)  # long lists are for programs


def test_random_inputs_are_of_the_range_and_said_to_be_random(emulator):
    device = Arm64(seed=3)
    facts = TensorFacts("x", (1, 4, 2), np.dtype("int8"), 0.5, -28, 0)
    inputs = device._inputs(facts)
    assert inputs.shape == (500, 4, 2)
    assert (inputs.min(), inputs.max()) == (-50, 77.5)
    np.testing.assert_array_equal(inputs, Arm64(seed=3)._inputs(facts))
    assert any("random" in note for note in device.notes)


def test_a_file_that_crashes_there_is_one_line(emulator, int8_digits, one_line):
    device = Arm64()
    emulator.write_text("#!/bin/sh\necho qemu: uncaught target signal 11 >&2\nkill -SEGV $$\n")
    with pytest.raises(ExportError, match=r"crashed the runtime \(SIGSEGV: qemu") as caught:
        device.agreement(model_files([int8_digits])[0], SETTING)
    assert str(int8_digits) in one_line(caught)
    with pytest.raises(ExportError, match=r"crashed the runtime \(SIGSEGV") as caught:
        device.read(model_files([int8_digits])[0], SETTING, Effort(1))
    one_line(caught)


def test_more_than_rounding_is_an_error(one_line):
    class Measured:
        model = "m"

        def __init__(self, steps):
            zeros = np.zeros((1, 2), np.float32)
            step = None if steps is None else 1.0
            self.agreement = agreement(zeros, zeros + (steps or 5), step, "x")

    class Result:
        device = "arm64"
        measurements = (Measured(1), Measured(None))

    kd_benchmark._refuse_other_outputs(Result)
    Result.measurements += (Measured(2),)
    with pytest.raises(ExportError, match="m on arm64 are up to 2 quantization steps") as caught:
        kd_benchmark._refuse_other_outputs(Result)
    one_line(caught)


@pytest.mark.slow
@pytest.mark.parametrize("processor", ["max", "cortex-a53"])
def test_the_mlperf_tiny_classifier_under_the_real_emulator(processor, tfds_dir, monkeypatch):
    import kd_keras as kd

    path = SHARED / "mlperf_tiny_resnet8_int8.tflite"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    try:
        python = arm64_setup.find().python
    except ExportError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("QEMU_CPU", processor)
    test = kd.data.load("cifar10", data_dir=tfds_dir, limit=500).test
    images = np.asarray(test.images)
    with Interpreters(path) as here, Interpreters(path, python=python) as there:
        expected, outputs = here.predict(images), there.predict(images)
    found = agreement(expected, outputs, here.output.scale, "cifar10")
    assert found.examples == 500
    assert found.equal > 0.995
    assert found.largest_steps <= 1
    assert found.same_choice >= 0.998
    assert np.mean(outputs.argmax(axis=1) == np.asarray(test.labels)) == pytest.approx(0.846)
