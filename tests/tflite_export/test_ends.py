"""Pixels in, and logits, softmax or the class out, of files of every recipe."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tflite_export
from tflite_export import Preprocessing
from tflite_export.ends import Ends
from tflite_export.file_facts import read_facts
from tflite_export.tflite_model import TFLiteModel

UNEVEN = Preprocessing((0, 1), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
RECIPES = ("float32", "int8", "int8_uint8_io", "int8_float_io", "int16x8")


def colour_net(last=None):
    layers = tf.keras.layers
    image = tf.keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="conv")(image)
    x = layers.Dense(5, name="scores")(layers.Flatten(name="flat")(x))
    x = layers.Activation(last, name="out")(x) if last else x
    return tf.keras.Model(image, x, name="colours")


@pytest.fixture(scope="module")
def pixels():
    """Noise, and a picture with every value from 0 to 255 in every channel."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
    every = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    return np.concatenate([pictures, np.repeat(every, 3, axis=3)])


@pytest.fixture(scope="module")
def cores(tmp_path_factory):
    """Float files that end in logits, in a softmax and in a sigmoid."""
    folder = tmp_path_factory.mktemp("cores")
    for last in (None, "softmax", "sigmoid"):
        tf.keras.utils.set_random_seed(0)
        tflite_export.convert(colour_net(last), folder / f"{last}.tflite", "float32")
    return folder


def make(cores, pixels, folder, recipe, last=None, **options):
    representative = None
    if recipe.startswith("int"):
        representative = folder / "images.npy"
        np.save(representative, UNEVEN.apply(pixels))
    path = folder / f"{len(list(folder.iterdir()))}.tflite"
    return tflite_export.convert_file(
        cores / f"{last}.tflite", path, recipe, representative=representative, **options
    )


def stored(path, given):
    """What a file gives, as it is stored, for what is fed as it is stored."""
    runner = TFLiteModel(path).interpreter.get_signature_runner("serving_default")
    (name,) = runner.get_input_details()
    return np.concatenate([next(iter(runner(**{name: each[None]}).values())) for each in given])


@pytest.mark.parametrize("recipe", RECIPES)
def test_pixels_in_are_exactly_preprocessing_outside(recipe, cores, pixels, tmp_path):
    outside = make(cores, pixels, tmp_path, recipe)
    inside = make(cores, pixels, tmp_path, recipe, preprocessing=UNEVEN, with_preprocessing=True)
    file = TFLiteModel(inside)
    assert (file.input.dtype, file.input.scale) == (np.uint8, None)
    core = TFLiteModel(outside)
    assert (file.input.name, file.output.name) == (core.input.name, core.output.name)
    expected = stored(outside, core.input.quantize(UNEVEN.apply(pixels)))
    np.testing.assert_array_equal(stored(inside, pixels), expected)
    assert len(np.unique(expected)) > 10
    facts = read_facts(inside.read_bytes())
    assert [operator.name for operator in facts.operators[:3]] == ["CAST", "ADD", "GATHER"]
    assert not any(operator.custom for operator in facts.operators)
    assert facts.inputs == {"image": "uint8"}


def softmax(logits):
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("last", [None, "softmax"])
def test_output_has_the_form_that_was_asked_for(recipe, last, cores, pixels, tmp_path):
    values = UNEVEN.apply(pixels)
    logits = TFLiteModel(cores / "None.tflite").predict(values)
    step = 0.02 * np.ptp(logits)
    wanted = {"logits": (logits, 0.02 * np.ptp(logits)), "softmax": (softmax(logits), 0.03)}
    for form, (expected, room) in wanted.items():
        path = make(cores, pixels, tmp_path, recipe, last, output_form=form)
        outputs = TFLiteModel(path).predict(values)
        np.testing.assert_allclose(outputs, expected, atol=1e-5 if recipe == "float32" else room)
        told = json.loads(path.with_suffix(".json").read_text())["output"]
        assert (told["form"], told["shape"]) == (form, [1, 5])
    if recipe == "int16x8":
        with pytest.raises(tflite_export.ExportError, match="no argmax of int16"):
            make(cores, pixels, tmp_path, recipe, last, output_form="argmax")
        return
    path = make(cores, pixels, tmp_path, recipe, last, output_form="argmax")
    file = TFLiteModel(path)
    assert (file.output.dtype, file.output.shape) == (np.int32, (1,))
    first, second = np.sort(logits, axis=1)[:, :-3:-1].T
    clear = first - second > step
    assert clear.sum() >= 8
    np.testing.assert_array_equal(file.predict(values)[clear], logits.argmax(1)[clear])


def test_ends_of_a_keras_model_and_the_code_that_feeds_them(pixels, tmp_path, monkeypatch):
    model = colour_net("softmax")
    path = tflite_export.convert(
        model, tmp_path / "x.tflite", "float32", with_preprocessing=UNEVEN, output_form="argmax"
    )
    again = tflite_export.convert(
        model, tmp_path / "y.tflite", "float32", with_preprocessing=UNEVEN, output_form="argmax"
    )
    assert path.read_bytes() == again.read_bytes()
    expected = model.predict(UNEVEN.apply(pixels), verbose=0).argmax(1)
    np.testing.assert_array_equal(stored(path, pixels), expected)
    model.save(tmp_path / "net.keras")
    tflite_export.convert_file(
        *(tmp_path / "net.keras", tmp_path / "z.tflite", "float32"),
        preprocessing=UNEVEN,
        labels="abcde",
        with_preprocessing=True,
        output_form="argmax",
    )
    told = json.loads((tmp_path / "z.json").read_text())
    assert told["preprocessing"]["in_the_file"] is True
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(told["snippets"]["python"], names)
    found = [names["class_of"](Image.fromarray(picture)) for picture in pixels]
    assert found == expected.tolist()
    kotlin = told["snippets"]["kotlin"]
    assert "input.put(pixel.toByte())" in kotlin
    assert "outputs(picture)[0].toInt()" in kotlin
    assert "mean" not in kotlin


def test_equal_channels_need_no_places(float_digits, tmp_path):
    path = tflite_export.convert_file(
        *(float_digits, tmp_path / "x.tflite", "float32"),
        preprocessing=Preprocessing((0, 1)),
        with_preprocessing=True,
    )
    names = [operator.name for operator in read_facts(path.read_bytes()).operators]
    assert names[:2] == ["CAST", "GATHER"]
    assert "ADD" not in names[:3]


def test_ends_that_do_not_fit(cores, pixels, tmp_path, one_line):
    out = tmp_path / "out"
    out.mkdir()
    for last, options, reason in (
        (None, {"with_preprocessing": True}, "with_preprocessing needs to know .*--pixel_range"),
        (None, {"output_form": "probabilities"}, "choose one of: logits, softmax, argmax"),
        ("sigmoid", {"output_form": "softmax"}, "ends in LOGISTIC: leave output_form out"),
    ):
        with pytest.raises(tflite_export.ExportError, match=reason) as caught:
            make(cores, pixels, out, "float16", last, **options)
        one_line(caught)
    with pytest.raises(tflite_export.ExportError, match="softmax was kept in float") as caught:
        make(*(cores, pixels, tmp_path, "int8_uint8_io@float:out", "softmax"), output_form="logits")
    one_line(caught)
    assert not list(out.iterdir())
    assert Ends() == Ends(None, None)
