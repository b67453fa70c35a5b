import numpy as np
import pytest

import tflite_export
from tflite_export import TensorFacts

# What a file says and does is one under both Keras; how each is converted, test_conversion tells.
pytestmark = pytest.mark.any_keras


def facts(scale=0.5, zero_point=10, dtype="int8"):
    return TensorFacts("x", (1, 2), np.dtype(dtype), scale, zero_point, 0)


def test_quantize_rounds_half_to_even_and_clips():
    values = np.array([0.0, 0.25, 0.75, -0.25, -0.3, 1000.0, -1000.0])
    np.testing.assert_array_equal(facts().quantize(values), [10, 10, 12, 10, 9, 127, -128])


def test_dequantize_is_scale_times_distance_from_zero():
    stored = np.array([10, 12, -128], "int8")
    np.testing.assert_array_equal(facts().dequantize(stored), np.float32([0.0, 1.0, -69.0]))


def test_unsigned_range():
    values = np.array([-100.0, 100.0, 500.0])
    np.testing.assert_array_equal(facts(1.0, 128, "uint8").quantize(values), [28, 228, 255])


def test_float_facts_pass_numbers_through(float_file):
    model = tflite_export.TFLiteModel(float_file)
    assert model.input.scale is None
    assert model.input.zero_point is None
    assert model.input.shape == (1, 12, 12, 3)
    assert model.input.dtype == np.float32


@pytest.mark.tf_keras
def test_predict_equals_the_signature_runner(int8_file, images):
    model = tflite_export.TFLiteModel(int8_file)
    assert model.input.dtype == np.int8
    assert model.input.scale > 0
    other = tflite_export.TFLiteModel(int8_file)
    runner = other.interpreter.get_signature_runner("serving_default")
    scale, zero = model.input.scale, model.input.zero_point
    for image, output in zip(images[:16], model.predict(images[:16]), strict=True):
        steps = np.clip(np.round(image / np.float32(scale)) + zero, -128, 127).astype("int8")
        raw = runner(image=steps[np.newaxis])["logits"][0].astype(int)
        expected = (raw - model.output.zero_point) * np.float32(model.output.scale)
        np.testing.assert_allclose(output, expected, rtol=1e-6)


def test_threads_give_the_same_outputs(float_file, images):
    one = tflite_export.TFLiteModel(float_file).predict(images[:8])
    two = tflite_export.TFLiteModel(float_file, threads=2).predict(images[:8])
    np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.mark.parametrize("kept", [0, 3, 100, -1])
def test_truncated_file_is_one_line(kept, float_file, tmp_path, one_line):
    path = tmp_path / "short.tflite"
    path.write_bytes(float_file.read_bytes()[:kept])
    with pytest.raises(
        tflite_export.ExportError, match=r"short\.tflite cannot be loaded"
    ) as caught:
        tflite_export.TFLiteModel(path)
    one_line(caught)


def test_missing_file_folder_and_threads(tmp_path, float_file, one_line):
    for path in (tmp_path / "none.tflite", tmp_path):
        with pytest.raises(tflite_export.ExportError, match="is no file") as caught:
            tflite_export.TFLiteModel(path)
        one_line(caught)
    with pytest.raises(tflite_export.ExportError, match="threads is 0"):
        tflite_export.TFLiteModel(float_file, threads=0)


def test_images_of_another_shape_or_not_finite(float_file, images, one_line):
    model = tflite_export.TFLiteModel(float_file)
    broken = images[:2].copy()
    broken[1, 0, 0, 0] = np.nan
    for wrong, reason in (
        (images[:, :10], r"images have shape \(256, 10, 12, 3\)"),
        (images[0], r"takes \(n, 12, 12, 3\)"),
        (images[:0], "n >= 1"),
        (broken, "NaN"),
    ):
        with pytest.raises(tflite_export.ExportError, match=reason) as caught:
            model.predict(wrong)
        one_line(caught)
