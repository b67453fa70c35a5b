"""Whole test sets in several processes: the same numbers as one image after the other."""

import os
import signal

import numpy as np
import pytest
import tensorflow as tf

import tflite_export
from tflite_export.interpreters import Interpreters
from tflite_export.runner import Runner


def file_of(function, shape, path):
    spec = tf.TensorSpec(shape, tf.float32, name="x")
    module = tf.Module()
    module.serve = tf.function(function, input_signature=[spec], autograph=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.serve.get_concrete_function()], module
    )
    path.write_bytes(converter.convert())
    return path


@pytest.mark.parametrize("fixture", ["float_digits", "int8_digits"])
def test_bit_equal_to_one_image_after_the_other_and_in_order(fixture, digits, request):
    path = request.getfixturevalue(fixture)
    images = np.concatenate([digits.images, digits.images[::-1]])[:700]  # three pieces, one short
    expected = tflite_export.TFLiteModel(path).predict(images)
    with Interpreters(path, workers=2) as interpreters:
        found = interpreters.predict(images)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(interpreters.predict(images[:5]), expected[:5])
    assert found.dtype == np.float32


def of_the_batch(x):
    """Takes any batch, but gives an example what the others leave it."""
    return x - 0.5 * tf.reduce_mean(x, axis=0)


def of_one(x):
    """Written for one example: a batch cannot take this shape."""
    return tf.reshape(tf.transpose(tf.reshape(x, (1, 2, 2)), (0, 2, 1)), (1, 4))


@pytest.mark.any_keras
@pytest.mark.parametrize(
    ("function", "expected", "resized"),
    [
        (lambda x: 2 * x, lambda x: 2 * x, True),
        (of_the_batch, lambda x: x / 2, False),
        (of_one, lambda x: x[:, [0, 2, 1, 3]], False),
    ],
)
def test_only_files_that_take_a_batch_get_one(function, expected, resized, tmp_path):
    path = file_of(function, (1, 4), tmp_path / "one.tflite")
    x = np.random.default_rng(0).normal(size=(300, 4)).astype("float32")
    with Interpreters(path, workers=2) as interpreters:
        np.testing.assert_allclose(interpreters.predict(x), expected(x), rtol=1e-6)
        assert interpreters.is_resized is resized


@pytest.mark.any_keras
def test_a_file_of_a_fixed_batch_runs_in_pieces(tmp_path):
    def three(x):
        return tf.reshape(tf.reshape(x, (3, 2, 2)) + 1.0, (3, 4))

    path = file_of(three, (3, 4), tmp_path / "three.tflite")
    x = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
    with Interpreters(path) as interpreters:
        np.testing.assert_allclose(interpreters.predict(x), x + 1, rtol=1e-6)


def test_threads_of_one_interpreter_give_the_same(float_digits, digits):
    with Interpreters(float_digits, threads=2, workers=1) as interpreters:
        found = interpreters.predict(digits.images)
    expected = tflite_export.TFLiteModel(float_digits).predict(digits.images)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_process_that_dies_is_one_line(float_digits, digits, one_line):
    with Interpreters(float_digits, workers=1) as interpreters:
        os.kill(interpreters.processes[0], signal.SIGSEGV)
        with pytest.raises(tflite_export.ExportError, match=r"crashed the runtime \(SIGSEGV") as e:
            interpreters.predict(digits.images)
        assert str(float_digits) in one_line(e)


@pytest.mark.any_keras
@pytest.mark.parametrize("kept", [0, 3, 100, -1])
def test_truncated_files(kept, int8_digits, tmp_path, one_line):
    path = tmp_path / "short.tflite"
    path.write_bytes(int8_digits.read_bytes()[:kept])
    with pytest.raises(tflite_export.ExportError, match=r"short\.tflite") as caught:
        Interpreters(path)
    one_line(caught)


def test_what_does_not_fit(float_digits, digits, tmp_path, one_line):
    with Interpreters(float_digits) as interpreters:
        broken = digits.images[:2].copy()
        broken[1, 0, 0, 0] = np.nan
        for wrong, reason in (
            (digits.images[..., 0], r"takes \(n, 8, 8, 1\)"),
            (digits.images[:0], "n >= 1"),
            (broken, "NaN"),
        ):
            with pytest.raises(tflite_export.ExportError, match=reason) as caught:
                interpreters.predict(wrong)
            one_line(caught)
    for arguments, reason in (
        ({"workers": 0}, "workers is 0"),
        ({"threads": 0}, "threads is 0"),
    ):
        with pytest.raises(tflite_export.ExportError, match=reason):
            Interpreters(float_digits, **arguments)
    with pytest.raises(tflite_export.ExportError, match="is no file"):
        Interpreters(tmp_path)


def test_a_runner_is_as_it_was_after_it_was_tried(float_digits):
    runner = Runner(float_digits)
    runner.gives_the_same_resized(runner.random_batch(), exact=True)
    assert not runner.is_resized


@pytest.mark.slow
def test_flipped_bytes_never_end_this_process(int8_digits, digits, tmp_path):
    rng = np.random.default_rng(0)
    content = int8_digits.read_bytes()
    path = tmp_path / "flipped.tflite"
    refused: list[str] = []
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 20):
            damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            with Interpreters(path, workers=1) as interpreters:
                interpreters.predict(digits.images[:20])
        except tflite_export.ExportError as error:
            refused.append(str(error))
    assert refused
    assert not [message for message in refused if "\n" in message]
