"""Deliberately broken exports are caught, and their mistake is named."""

import numpy as np
import pytest
import tensorflow as tf

import tflite_export
from tflite_export.diagnosis import likely_cause

# What a file says and does is one under both Keras; how each is converted, test_conversion tells.
pytestmark = pytest.mark.any_keras

layers = tf.keras.layers
MEAN, DEVIATION = np.float32([0.8, 0.5, 0.1]), np.float32([0.2, 0.25, 0.05])


def colour_net(before=(), mirrored=False):
    """Tells which of three colours stands out, of normalised pixels; `before` is in front."""
    image = tf.keras.Input((6, 6, 3), name="image")
    x = image
    for layer in before:
        x = layer(x)
    x = layers.Conv2D(3, 3, use_bias=False, name="conv")(x)
    x = layers.GlobalAveragePooling2D(name="features")(x)
    model = tf.keras.Model(image, layers.Dense(3, name="logits")(x), name="colours")
    kernel = np.tile(np.eye(3, dtype="float32") / 9, (3, 3, 1, 1))
    model.get_layer("conv").set_weights([kernel[:, :, ::-1] if mirrored else kernel])
    model.get_layer("logits").set_weights([4 * np.eye(3, dtype="float32"), np.zeros(3, "float32")])
    return model


def normalising(order=1):
    """(x - mean) / deviation, of channels in their order or (-1) in the other one."""
    mean, deviation = MEAN[::order], DEVIATION[::order]
    return layers.Rescaling(1 / deviation, -mean / deviation, name="normalise")


@pytest.fixture(scope="module")
def colours():
    """Pixels 0..1 of three colours; the class is the one that stands out."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    images = MEAN + DEVIATION * rng.normal(0, 0.3, (300, 6, 6, 3)).astype("float32")
    images[np.arange(300), :, :, labels] += 0.6 * DEVIATION[labels][:, None, None]
    images[0], images[1] = 0, 1  # black and white, as in any set of pictures
    images = np.clip(images, 0, 1).astype("float32")
    return images, colour_net([normalising()]).predict(images, verbose=0).argmax(1)


def refused(path, model, images, labels, one_line):
    with pytest.raises(tflite_export.ExportError, match=r"below the floor 0\.95") as caught:
        tflite_export.verify(
            path, lambda x: model.predict(x, verbose=0), images, labels, floor=0.95
        )
    return one_line(caught)


@pytest.mark.parametrize("recipe", ["int8", pytest.param("float32", marks=pytest.mark.slow)])
def test_a_sound_export_is_not_suspected(recipe, colours, tmp_path):
    images, labels = colours
    model = colour_net([normalising()])
    ranges = images if recipe == "int8" else None
    path = tflite_export.convert(model, tmp_path / "x.tflite", recipe, representative=ranges)
    found = tflite_export.verify(path, model.predict(images, verbose=0), images, labels, floor=0.95)
    assert found.likely_cause is None
    assert found.accuracy > 0.95


@pytest.mark.parametrize("recipe", ["int8", pytest.param("float32", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("exported", "words"),
    [
        (lambda: colour_net([normalising(-1)], mirrored=True), ["swapped channels", "RGB and BGR"]),
        pytest.param(colour_net, ["missing mean and standard deviation"], marks=pytest.mark.slow),
        (
            lambda: colour_net([layers.Rescaling(1 / 255, name="unit"), normalising()]),
            ["wrong normalisation", "takes pixels 0..255"],
        ),
    ],
)
def test_mistakes_in_front_of_the_model(recipe, exported, words, colours, tmp_path, one_line):
    images, labels = colours
    ranges = None
    if recipe == "int8":  # calibrated on what it was made for
        ranges = {"0..255": images * 255, "deviation": (images - MEAN) / DEVIATION}.get(
            words[-1].split()[-1], images
        )
    path = tflite_export.convert(exported(), tmp_path / "x.tflite", recipe, representative=ranges)
    message = refused(path, colour_net([normalising()]), images, labels, one_line)
    assert all(word in message for word in words), message


@pytest.mark.slow
def test_normalisation_applied_twice(colours, tmp_path, one_line):
    images, labels = colours
    path = tflite_export.convert(colour_net([normalising()]), tmp_path / "x.tflite", "float32")
    message = refused(path, colour_net(), (images - MEAN) / DEVIATION, labels, one_line)
    assert "applied twice: the file takes pixels 0..1" in message


def test_a_filter_that_magnifies_rounding(tmp_path, one_line):
    rng = np.random.default_rng(0)
    images = rng.normal(0, 1, (300, 6, 6, 4)).astype("float32")
    images[..., 3] = 0.3  # a constant, which the last filter cancels to the last bit
    image = tf.keras.Input((6, 6, 4), name="image")
    x = layers.Conv2D(4, 1, name="conv")(image)
    x = layers.GlobalAveragePooling2D(name="features")(x)
    model = tf.keras.Model(image, layers.Dense(3, name="logits")(x))
    kernel, bias = np.eye(4, dtype="float32"), np.zeros(4, "float32")
    kernel[3, 3], bias[3] = 3000.0, -np.float32(3000) * np.float32(0.3)
    model.get_layer("conv").set_weights([kernel[None, None], bias])
    head = np.vstack([4 * np.eye(3), [9.0, 0, 0]]).astype("float32")
    model.get_layer("logits").set_weights([head, np.zeros(3, "float32")])
    labels = model.predict(images, verbose=0).argmax(1)
    path = tflite_export.convert(model, tmp_path / "x.tflite", "int8", representative=images)
    message = refused(path, model, images, labels, one_line)
    assert "filter 3 of layer 'conv' has weights 3,000 times as large" in message


def test_images_that_even_the_reference_does_not_take(colours, tmp_path):
    images, labels = colours
    model = colour_net([normalising()])
    path = tflite_export.convert(model, tmp_path / "x.tflite", "float32")
    found = tflite_export.verify(
        path, lambda x: model.predict(x, verbose=0), images * 255, labels, floor=0.9
    )
    assert found.agreement == 1.0
    assert found.accuracy_reference < 0.5
    assert "images are not as the reference takes them" in found.likely_cause
    assert "divided by 255" in found.likely_cause


@pytest.mark.parametrize(
    ("calibration", "recipe", "words"),
    [
        pytest.param(
            lambda x: 0.1 * x,
            "int8",
            ["saturated range", "of the pixels", "input can express"],
            marks=pytest.mark.slow,
        ),
        (lambda x: 255 * x, "int8", ["too wide a range", "the images use 1 steps"]),
        pytest.param(
            lambda x: x[:1] * 0,
            "int8_float_io",
            ["saturated range", "where the file's end"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_ranges_of_other_images(calibration, recipe, words, digits, tmp_path, one_line):
    path = tflite_export.convert(
        digits.model,
        tmp_path / "x.tflite",
        recipe,
        representative=calibration(digits.representative),
    )
    message = refused(path, digits.model, digits.images, digits.labels, one_line)
    wanted = [*words, "calibrated on too few or other images"]
    assert all(word in message for word in wanted), message


def test_ranges_of_outputs_alone(digits):
    """Images that reach the input's range but none of the outputs', told by the output's range."""
    entry = tflite_export.TensorFacts("x", (1, 8, 8, 1), np.dtype("int8"), 1 / 255, -128, 0)
    end = tflite_export.TensorFacts("y", (1, 10), np.dtype("int8"), 0.01, 0, 1)
    expected = digits.model.predict(digits.images, verbose=0)
    cause = likely_cause(
        lambda x: np.clip(digits.model.predict(x, verbose=0), -1.28, 1.27),
        None,
        digits.images,
        expected,
        digits.labels,
        (entry, end),
    )
    assert cause.startswith(
        "saturated range: 100% of the images should have an output outside of -1.28"
    )


def test_nothing_is_made_up(digits, float_digits):
    """A model with other weights has none of these mistakes."""
    other = np.random.default_rng(0).normal(size=(500, 10)).astype("float32")
    found = tflite_export.verify(float_digits, 20 * other, digits.images, digits.labels)
    assert found.agreement < 0.2
    assert found.likely_cause is None
