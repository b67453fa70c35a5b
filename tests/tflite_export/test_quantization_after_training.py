"""Quantization after training, on a net trained on scikit-learn's digits."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tflite_export
from tflite_export.file_facts import read_facts

# What a file says and does is one under both Keras; how each is converted, test_conversion tells.
pytestmark = pytest.mark.any_keras


def test_int8_after_training_decides_as_the_float_net(digits, int8_digits):
    proof = tflite_export.verify(
        int8_digits, digits.model.predict(digits.images, verbose=0), digits.images, digits.labels
    )
    assert proof.accuracy_reference > 0.9
    assert proof.agreement >= 0.97
    assert proof.accuracy >= proof.accuracy_reference - 0.01
    assert proof.mean_error_steps < 2


def test_int8_after_training_is_int8_throughout(int8_digits):
    facts = read_facts(int8_digits.read_bytes())
    assert (facts.inputs, facts.outputs) == ({"image": "int8"}, {"logits": "int8"})
    assert {kind for operator in facts.operators for kind in operator.formats} == {"int8"}
    names = [operator.name for operator in facts.operators]
    assert sorted(names) == [  # BatchNorm folded, ReLU fused
        *("ADD", "CONV_2D", "CONV_2D", "DEPTHWISE_CONV_2D"),
        *("FULLY_CONNECTED", "FULLY_CONNECTED", "MAX_POOL_2D", "RESHAPE"),
    ]
    weights = {(o.weights, len(o.weight_scales)) for o in facts.operators if o.weights}
    assert weights == {("int8", 16), ("int8", 32), ("int8", 10)}  # one for each output channel


def test_batch_is_one_and_the_file_small(float_digits, int8_digits):
    model = tflite_export.TFLiteModel(int8_digits)
    assert (model.input.shape, model.output.shape) == ((1, 8, 8, 1), (1, 10))
    assert int8_digits.stat().st_size < float_digits.stat().st_size / 2


def test_ranges_hold_every_representative_image(digits, tmp_path):
    images = digits.representative.copy()
    images[3] *= 4
    path = tflite_export.convert(digits.model, tmp_path / "x.tflite", "int8", representative=images)
    found = tflite_export.TFLiteModel(path).input
    assert found.dequantize(np.int8([127])) == pytest.approx(images.max(), abs=0.02)
    backwards = tflite_export.convert(
        digits.model, tmp_path / "y.tflite", "int8", representative=images[::-1]
    )
    assert backwards.read_bytes() == path.read_bytes()


def test_the_same_images_give_the_same_bytes(digits, float_digits, int8_digits, tmp_path):
    """Also in another process, with hashes seeded anew."""
    again = tmp_path / "again.tflite"
    np.save(tmp_path / "images.npy", digits.representative)
    code = (
        "import pathlib, sys, numpy\n"
        "from tflite_export import quantization, recipes\n"
        "content, images, path = sys.argv[1:]\n"
        "made = quantization.quantize(pathlib.Path(content).read_bytes(), recipes.get('int8'),\n"
        "                             'image', numpy.load(images))\n"
        "pathlib.Path(path).write_bytes(made)\n"
    )
    home = str(Path(tflite_export.__file__).parents[1])
    search_path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    subprocess.run(
        [sys.executable, "-c", code, float_digits, tmp_path / "images.npy", again],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": search_path, "PYTHONHASHSEED": "7"},
    )
    assert again.read_bytes() == int8_digits.read_bytes()


@pytest.mark.parametrize("dead", ["filter", "input", "nothing"])
def test_what_is_always_zero_leaves_the_bias_as_it_is(dead, tmp_path):
    """Its scale could be of any size, and with it that of the bias, which is int32."""
    image = tf.keras.Input((6, 6, 2), name="image")
    x = tf.keras.layers.Conv2D(4, 3, name="conv")(image)
    x = tf.keras.layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = tf.keras.layers.Flatten(name="flat")(x)
    model = tf.keras.Model(image, tf.keras.layers.Dense(3, name="logits")(x))
    rng = np.random.default_rng(3)
    weights = [rng.normal(0, 0.5, w.shape).astype("float32") for w in model.get_weights()]
    images = rng.normal(size=(16, 6, 6, 2)).astype("float32")
    if dead == "filter":
        weights[0][..., 1] = weights[2][..., 2, :] = weights[4][..., 0] = 0
    if dead == "input":
        images[:] = 0
    model.set_weights(weights)
    path = tflite_export.convert(model, tmp_path / "x.tflite", "int8", representative=images)
    file = tflite_export.TFLiteModel(path)
    error = np.abs(file.predict(images) - model.predict(images, verbose=0))
    assert error.max() < 5 * file.output.scale


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (np.zeros((5, 8, 8), np.float32), r"shape \(5, 8, 8\); give \(n, 8, 8, 1\)"),
        (np.zeros((5, 4, 4, 1), np.float32), r"shape \(5, 4, 4, 1\); give \(n, 8, 8, 1\)"),
        (np.zeros((0, 8, 8, 1), np.float32), r"shape \(0, 8, 8, 1\); give .* n >= 1"),
        (np.zeros((5, 8, 8, 1), np.uint8), r"are uint8; give float32, \(n, 8, 8, 1\)"),
        (np.zeros((5, 8, 8, 1), np.float64), "are float64; give float32"),
        (["a", "b"], "give float32"),
        (np.full((5, 8, 8, 1), np.nan, np.float32), "NaN or infinity"),
        (np.full((5, 8, 8, 1), np.inf, np.float32), "NaN or infinity"),
    ],
)
def test_representative_images_that_do_not_fit(images, reason, digits, tmp_path, one_line):
    with pytest.raises(tflite_export.ExportError, match=reason) as caught:
        tflite_export.convert(digits.model, tmp_path / "x.tflite", "int8", representative=images)
    one_line(caught)
    assert list(tmp_path.iterdir()) == []


def test_missing_representative_images_say_their_shape(digits, tmp_path, one_line):
    with pytest.raises(tflite_export.ExportError) as caught:
        tflite_export.convert(digits.model, tmp_path / "x.tflite", "int8")
    assert "needs representative images, float32 (n, 8, 8, 1)" in one_line(caught)


def test_needless_representative_images_are_refused(digits, tmp_path, one_line):
    with pytest.raises(tflite_export.ExportError, match="needs no ranges") as caught:
        tflite_export.convert(
            digits.model, tmp_path / "x.tflite", "float32", representative=digits.representative
        )
    assert "leave them out" in one_line(caught)


@pytest.mark.tf_keras
def test_quantization_aware_model_takes_no_images(quantized_net, images, tmp_path, one_line):
    with pytest.raises(tflite_export.ExportError, match="learned its ranges") as caught:
        tflite_export.convert(quantized_net, tmp_path / "x.tflite", "int8", representative=images)
    assert "leave them out" in one_line(caught)


def test_operator_without_an_int8_form_is_named(tmp_path, one_line):
    image = tf.keras.Input((6, 6, 2), name="image")
    x = tf.keras.layers.Conv2D(2, 3, name="conv")(image)
    x = tf.keras.layers.Flatten(name="flat")(tf.keras.layers.ELU(name="odd_one")(x))
    model = tf.keras.Model(image, tf.keras.layers.Dense(3, name="logits")(x))
    images = np.random.default_rng(0).normal(size=(8, 6, 6, 2)).astype("float32")
    with pytest.raises(tflite_export.ExportError, match=r"ELU.*odd_one.*float32") as caught:
        tflite_export.convert(model, tmp_path / "x.tflite", "int8", representative=images)
    assert "int8@float:LAYER" in one_line(caught)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("recipe", ["int8", "dynamic_int8", "float16"])
def test_broken_weights_are_found(recipe, tmp_path, one_line):
    image = tf.keras.Input((4,), name="image")
    model = tf.keras.Model(image, tf.keras.layers.Dense(2, name="logits")(image))
    model.set_weights([np.full((4, 2), np.nan), np.zeros(2)])
    images = np.ones((3, 4), np.float32) if recipe == "int8" else None
    with pytest.raises(
        tflite_export.ExportError, match=r"logits.* holds NaN or infinity"
    ) as caught:
        tflite_export.convert(model, tmp_path / "x.tflite", recipe, representative=images)
    one_line(caught)
    assert list(tmp_path.iterdir()) == []


def test_images_that_overflow_the_net_are_found(tmp_path, one_line):
    image = tf.keras.Input((4,), name="image")
    x = tf.keras.layers.Dense(4, name="hidden")(image)
    model = tf.keras.Model(image, tf.keras.layers.Dense(2, name="logits")(x))
    model.set_weights([np.full(w.shape, 10.0) for w in model.get_weights()])
    images = np.ones((3, 4), np.float32)
    images[1] = 3e38
    with pytest.raises(tflite_export.ExportError, match="for representative image 1;") as caught:
        tflite_export.convert(model, tmp_path / "x.tflite", "int8", representative=images)
    one_line(caught)
    assert list(tmp_path.iterdir()) == []
