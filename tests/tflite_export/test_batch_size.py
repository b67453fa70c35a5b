"""Files with a batch of several images are the same model, also where the last batch is short."""

import json

import numpy as np
import pytest
import tensorflow as tf

import tflite_export
from tflite_export.tflite_model import filled

pytestmark = pytest.mark.any_keras

BATCH = 4


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((10, 6, 5, 3), np.float32)


@pytest.fixture(scope="module")
def model():
    tf.keras.utils.set_random_seed(0)
    layers = tf.keras.layers
    image = tf.keras.Input((6, 5, 3), name="image")
    x = layers.Flatten(name="flat")(layers.Conv2D(4, 3, activation="relu", name="conv")(image))
    return tf.keras.Model(image, layers.Dense(5, name="logits")(x), name="small")


@pytest.fixture(scope="module")
def file(model, images, tmp_path_factory):
    path = tmp_path_factory.mktemp("batch") / "x.tflite"
    return tflite_export.convert(model, path, representative=images, batch_size=BATCH)


@pytest.fixture(scope="module")
def float_file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("float") / "x.tflite"
    return tflite_export.convert(model, path, "float32", batch_size=BATCH)


def test_each_image_has_what_it_has_alone(model, images, file, tmp_path):
    alone = tflite_export.convert(model, tmp_path / "x.tflite", representative=images)
    expected = tflite_export.TFLiteModel(alone).predict(images)
    found = tflite_export.TFLiteModel(file)
    assert (found.input.name, found.input.shape) == ("image", (BATCH, 6, 5, 3))
    assert (found.output.name, found.output.shape) == ("logits", (BATCH, 5))
    np.testing.assert_array_equal(found.predict(images), expected)
    np.testing.assert_array_equal(found.predict(images[:1]), expected[:1])


def test_proof_and_benchmark(model, images, file):
    outputs = model.predict(images, verbose=0)
    proof = tflite_export.verify(file, outputs, images, outputs.argmax(1))
    one_by_one = tflite_export.TFLiteModel(file).predict(images)
    assert proof.largest_error == np.abs(one_by_one - outputs).max()
    effort = tflite_export.Effort(repeats=1, runs=2, min_seconds=0)
    assert tflite_export.benchmark(file, effort=effort).measurements[0].time.median > 0


def test_ends_and_description(model, images, float_file, tmp_path):
    pixels = np.rint(images * 255)
    path = tflite_export.convert_file(
        *(float_file, tmp_path / "x.tflite", "float32"),
        preprocessing=tflite_export.Preprocessing((0, 1), (0.4, 0.5, 0.6)),
        with_preprocessing=True,
        output_form="argmax",
        batch_size=BATCH,
    )
    expected = model.predict(pixels / 255 - np.float32([0.4, 0.5, 0.6]), verbose=0).argmax(1)
    np.testing.assert_array_equal(tflite_export.TFLiteModel(path).predict(pixels), expected)
    told = json.loads((tmp_path / "x.json").read_text())
    assert told["input"]["shape"] == [BATCH, 6, 5, 3]
    assert told["preprocessing"]["in_the_file"]
    assert told["snippets"] is None


@pytest.mark.slow
def test_layers_of_a_saved_model(model, images, file, tmp_path):
    from tflite_export.layer_errors import layer_errors
    from tflite_export.reference import Reference

    save = model.save if model.__module__.startswith("tf_keras") else model.export
    save(tmp_path / "saved")
    content, _ = Reference(tmp_path / "saved").float_content(BATCH)
    (tmp_path / "float.tflite").write_bytes(content)
    found = layer_errors(tmp_path / "float.tflite", file, images)
    assert [one.operator for one in found] == ["CONV_2D", "FULLY_CONNECTED"]
    assert all(0 < one.error < 0.1 for one in found)
    path = tflite_export.convert_file(
        tmp_path / "saved", tmp_path / "x.tflite", "float32", batch_size=BATCH
    )
    np.testing.assert_allclose(
        tflite_export.TFLiteModel(path).predict(images),
        model.predict(images, verbose=0),
        atol=1e-5,
    )


@pytest.mark.slow
def test_values_that_are_not_finite_are_told_with_their_batch(model, images, tmp_path, one_line):
    loud = images.copy()
    loud[9] = 3e38
    with pytest.raises(tflite_export.ExportError, match="representative images 8 to 9;") as caught:
        tflite_export.convert(model, tmp_path / "x.tflite", representative=loud, batch_size=BATCH)
    one_line(caught)


def test_batches_that_cannot_be(model, float_file, tmp_path, one_line):
    for batch_size, source, reason in (
        (0, model, "batch_size is 0; give a whole number from 1"),
        (2.0, model, "batch_size is 2.0"),
        (2, float_file, r"takes \(4, 6, 5, 3\), and its batch cannot be made 2"),
    ):
        make = tflite_export.convert if source is model else tflite_export.convert_file
        with pytest.raises(tflite_export.ExportError, match=reason) as caught:
            make(source, tmp_path / "y.tflite", "float32", batch_size=batch_size)
        one_line(caught)


def test_last_image_fills_the_batch():
    images = np.arange(5)
    assert filled(images, 3).tolist() == [0, 1, 2, 3, 4, 4]
    assert filled(images, 5).tolist() == [0, 1, 2, 3, 4]
