import numpy as np
import pytest

import tflite_export

# What a file says and does is one under both Keras; how each is converted, test_conversion tells.
pytestmark = pytest.mark.any_keras


def test_float_file_is_proven(float_net, float_file, images, labels):
    reference = float_net.predict(images, verbose=0)
    result = tflite_export.verify(float_file, reference, images, labels, floor=1.0)
    assert result.examples == 256
    assert result.agreement == 1.0
    assert result.accuracy == result.accuracy_reference == np.mean(reference.argmax(1) == labels)
    assert result.accuracy > 0.9
    assert result.largest_error < 1e-4
    assert result.largest_error_steps is None
    assert result.mean_error_steps is None


@pytest.mark.tf_keras
def test_int8_figures_equal_an_independent_count(quantized_net, int8_file, images, labels):
    model = tflite_export.TFLiteModel(int8_file)
    outputs = model.predict(images)
    reference = outputs.copy()
    reference[3] += 2 * model.output.scale  # same choice, wrong by two steps in four outputs
    reference[5] = np.roll(reference[5], 1)  # another choice
    result = tflite_export.verify(int8_file, reference, images, labels)
    assert result.agreement == 255 / 256
    wrong = np.abs(reference - outputs) / model.output.scale
    counts = np.array(result.confusion)
    assert counts.sum() == 256
    assert counts.trace() == np.sum(outputs.argmax(1) == labels)
    np.testing.assert_array_equal(counts.sum(axis=1), np.bincount(labels, minlength=len(counts)))
    assert result.largest_error_steps == pytest.approx(wrong.max(), rel=1e-4)
    assert result.mean_error_steps == pytest.approx(wrong.mean(), rel=1e-4)
    real = tflite_export.verify(
        int8_file, lambda x: quantized_net.predict(x, verbose=0), images, labels, floor=0.98
    )
    assert real.largest_error_steps <= 3.5
    assert abs(real.accuracy - real.accuracy_reference) <= 0.01


def test_below_the_floor_is_one_line_with_the_figures(
    float_net, float_file, images, labels, one_line
):
    reference = np.roll(float_net.predict(images, verbose=0), 1, axis=1)
    with pytest.raises(tflite_export.ExportError) as caught:
        tflite_export.verify(float_file, reference, images, labels, floor=0.9)
    message = one_line(caught)
    assert "agreement 0.0000" in message
    assert "floor 0.9" in message
    assert str(float_file) in message
    assert "largest error" in message


def test_wrong_normalisation_falls_below_the_floor(float_net, float_file, images, labels):
    reference = float_net.predict(images, verbose=0)
    with pytest.raises(tflite_export.ExportError, match="floor"):
        tflite_export.verify(float_file, reference, images[..., ::-1] - 3, labels, floor=0.9)


def test_arrays_that_do_not_fit(float_file, images, labels, one_line):
    good = np.zeros((256, 4), "float32")
    for reference, given, reason in (
        (good[:5], labels, "reference has shape"),
        (np.full_like(good, np.nan), labels, "NaN"),
        (good, labels[:5], "labels have shape"),
        (good, labels.astype(float), "type float64"),
        (good, labels + 1, "labels go from 1 to 4"),
    ):
        with pytest.raises(tflite_export.ExportError, match=reason) as caught:
            tflite_export.verify(float_file, reference, images, given)
        one_line(caught)
    with pytest.raises(tflite_export.ExportError, match="floor is 98"):
        tflite_export.verify(float_file, good, images, labels, floor=98)


def test_classes_and_outputs_equal_an_independent_count(float_file, float_net, images, labels):
    outputs = tflite_export.TFLiteModel(float_file).predict(images)
    reference = outputs.copy()
    reference[:, 2] += 0.25 * (np.arange(256) % 8 == 0)
    given = labels.copy()
    given[given == 3] = 0  # class 3 has no examples
    reference[given == 1] = 10 * np.eye(4, dtype="float32")[1]  # here the file loses
    result = tflite_export.verify(float_file, reference, images, given)
    for number, found in enumerate(result.classes):
        mine = given == number
        assert (found.number, found.examples) == (number, mine.sum())
        if mine.any():
            assert found.accuracy == np.mean(outputs[mine].argmax(1) == number)
            assert found.accuracy_reference == np.mean(reference[mine].argmax(1) == number)
    assert (result.classes[3].accuracy, result.classes[3].lost) == (None, 0.0)
    wrong = np.abs(reference - outputs)
    for number, found in enumerate(result.outputs):
        assert found.mean == pytest.approx(wrong[:, number].mean(), rel=1e-5)
        assert found.p99 == pytest.approx(np.percentile(wrong[:, number], 99), rel=1e-5)
        assert found.largest == pytest.approx(wrong[:, number].max())
    assert result.p99_error == pytest.approx(np.percentile(wrong, 99), rel=1e-5)
    lost = [found.number for found in result.losing_classes]
    assert lost == ([1] if result.classes[1].accuracy < 1 else [])


@pytest.mark.tf_keras
def test_errors_of_outputs_are_in_steps(int8_file, images, labels):
    model = tflite_export.TFLiteModel(int8_file)
    reference = model.predict(images)
    reference[:, 1] += 3 * model.output.scale
    result = tflite_export.verify(int8_file, reference, images, labels)
    assert result.outputs[1].mean == pytest.approx(3, rel=1e-3)
    assert result.outputs[0].largest == 0
    assert result.p99_error_steps == pytest.approx(3, rel=1e-3)
