"""The table of layers: right figures, the user's own names, and a cure that cures."""

import re

import numpy as np
import pytest
import tensorflow as tf

import tflite_export
from tflite_export.conversion import marked_content
from tflite_export.layer_errors import cure, layer_errors, worst

# What a file says and does is one under both Keras; how each is converted, test_conversion tells.
pytestmark = pytest.mark.any_keras

NAMES = ["conv1", "depthwise", "add", "pool", "conv2", "hidden", "logits"]


@pytest.fixture(scope="module")
def marked(digits, tmp_path_factory):
    """The digits net in float, and the names its operators are marked with."""
    content, names = marked_content(digits.model)
    path = tmp_path_factory.mktemp("marked") / "float.tflite"
    path.write_bytes(content)
    return path, names


def test_figures_equal_an_independent_count(marked, int8_digits, digits):
    found = layer_errors(marked[0], int8_digits, digits.images[:60], marked[1])
    assert [one.layer for one in found] == NAMES
    assert {one.format for one in found} == {"int8"}
    file = tflite_export.TFLiteModel(int8_digits)
    real = digits.model.predict(digits.images[:60], verbose=0)
    wrong = np.abs(file.predict(digits.images[:60]) - real)
    logits = found[-1]
    share = np.mean(wrong**2, axis=0) / real.var(axis=0)
    assert logits.error == pytest.approx(np.sqrt(np.mean(np.minimum(share, 1))), rel=1e-3)
    rounded = file.output.dequantize(file.output.quantize(real))
    share = np.mean((rounded - real) ** 2, axis=0) / real.var(axis=0)
    assert logits.rounding == pytest.approx(np.sqrt(np.mean(share)), rel=1e-2)
    assert logits.mean_steps == pytest.approx(wrong.mean() / file.output.scale, rel=1e-3)
    assert logits.largest_steps == pytest.approx(wrong.max() / file.output.scale, rel=1e-3)
    by_name = {one.layer: one for one in found}
    inherited = max(by_name["conv1"].error, by_name["depthwise"].error)
    expected = np.sqrt(max(0, by_name["add"].error ** 2 - inherited**2))
    assert by_name["add"].added == pytest.approx(expected, abs=1e-9)


def test_a_float_file_loses_nothing(marked, float_digits, digits):
    found = layer_errors(marked[0], float_digits, digits.images[:10], marked[1])
    assert max(one.error for one in found) < 1e-4
    assert {one.mean_steps for one in found} == {None}
    assert (worst(found), cure(found)) == ([], "")


@pytest.mark.tf_keras
def test_names_come_from_the_tensors_where_there_is_no_model(float_digits, int8_digits, digits):
    found = layer_errors(float_digits, int8_digits, digits.images[:5])
    assert [one.layer for one in found] == NAMES


@pytest.mark.slow
def test_what_is_cut_off_is_counted(marked, digits, tmp_path):
    path = tflite_export.convert(
        digits.model, tmp_path / "x.tflite", "int8", representative=digits.representative[:1]
    )
    found = {one.layer: one for one in layer_errors(marked[0], path, digits.images, marked[1])}
    assert found["conv2"].saturated > 0.001
    assert found["logits"].saturated > 0.1
    assert found["logits"].largest_steps > 20


def with_a_loud_channel(model):
    """The same function, with one channel of `hidden` 3,000 times as large as the others."""
    loud = tf.keras.models.clone_model(model)
    loud.set_weights(model.get_weights())
    kernel, bias = loud.get_layer("hidden").get_weights()
    kernel[:, 0], bias[0] = 3000 * kernel[:, 0], 3000 * bias[0]
    loud.get_layer("hidden").set_weights([kernel, bias])
    kernel, bias = loud.get_layer("logits").get_weights()
    kernel[0] /= 3000
    loud.get_layer("logits").set_weights([kernel, bias])
    return loud


def test_the_worst_layer_is_named_and_the_cure_cures(digits, tmp_path):
    model = with_a_loud_channel(digits.model)
    content, names = marked_content(model)
    reference = tmp_path / "reference.tflite"
    reference.write_bytes(content)
    outputs = model.predict(digits.images, verbose=0)

    def exported(recipe):
        path = tmp_path / "x.tflite"
        images = digits.representative[:60]
        tflite_export.convert(model, path, recipe, representative=images, overwrite=True)
        result = tflite_export.verify(path, outputs, digits.images, digits.labels)
        return path, result.agreement

    path, agreement = exported("int8")
    assert agreement < 0.9
    found = layer_errors(reference, path, digits.images[:50], names)
    assert worst(found)[0].layer == "hidden"
    said = re.search(r"comes from hidden.*--recipe=(int8@float:[\w,]+)\)", cure(found))
    assert exported(said[1])[1] > 0.98
    assert set(said[1].partition(":")[2].split(",")) < set(NAMES)


@pytest.mark.slow
@pytest.mark.tf_keras
def test_quantization_aware_files_are_compared_by_operators(
    float_net, float_file, int8_file, quantized_net, images
):
    found = layer_errors(float_file, int8_file, images)
    assert [one.layer for one in found][:3] == ["conv1", "conv2", "add"]
    with pytest.raises(tflite_export.ExportError, match="from before quantize_model"):
        marked_content(quantized_net)


def test_files_of_other_models(marked, int8_digits, digits, float_file, tmp_path, one_line):
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(int8_digits.read_bytes()[:2000])
    for reference, file, reason in (
        (int8_digits, int8_digits, "is quantized itself"),
        (float_file, int8_digits, "takes"),
        (marked[0], broken, "cannot be loaded"),
    ):
        with pytest.raises(tflite_export.ExportError, match=reason) as caught:
            layer_errors(reference, file, digits.images[:2])
        one_line(caught)
    shallow = tf.keras.Sequential(
        [tf.keras.Input((8, 8, 1)), tf.keras.layers.Flatten(), tf.keras.layers.Dense(10)]
    )
    other = tflite_export.convert(shallow, tmp_path / "other.tflite", "float32")
    with pytest.raises(tflite_export.ExportError, match="has other operators") as caught:
        layer_errors(marked[0], other, digits.images[:2])
    one_line(caught)
