"""The description tells how to feed a file, and its code does that."""

import json
import re

import numpy as np
import pytest
from PIL import Image

import tflite_export
from tflite_export import Preprocessing
from tflite_export.preprocessing import parse
from tflite_export.snippets import snippets
from tflite_export.tflite_model import TensorFacts

# What a file says and does is one under both Keras; how each is converted, test_conversion tells.
pytestmark = pytest.mark.any_keras

UNIT = Preprocessing((0, 1))  # the digits net is trained on numbers from 0 to 1
LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="module")
def pixels(digits):
    return np.rint(digits.images * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def told(float_digits, digits, tmp_path_factory):
    """The folder of an int8 file, and what its description says."""
    folder = tmp_path_factory.mktemp("fed")
    np.save(folder / "images.npy", digits.representative)
    tflite_export.convert_file(
        *(float_digits, folder / "net.tflite", "int8"),
        representative=folder / "images.npy",
        preprocessing=UNIT,
        labels=LABELS,
    )
    return folder, json.loads((folder / "net.json").read_text())


def run_python(code, folder, monkeypatch):
    monkeypatch.chdir(folder)
    names: dict = {}
    exec(compile(code, "snippet", "exec"), names)
    return names


def test_python_code_gives_the_class_that_the_float_model_gives(
    told, pixels, digits, monkeypatch, tmp_path
):
    folder, description = told
    names = run_python(description["snippets"]["python"], folder, monkeypatch)
    expected = digits.model.predict(pixels[:60] / np.float32(255), verbose=0)
    outputs = []
    for image in pixels[:60]:
        Image.fromarray(image[..., 0]).save(tmp_path / "digit.png")
        outputs.append(names["outputs"](tmp_path / "digit.png"))
        assert names["class_of"](tmp_path / "digit.png") == outputs[-1].argmax()
    assert [output.argmax() for output in outputs] == expected.argmax(1).tolist()
    np.testing.assert_allclose(outputs, expected, atol=6 * description["output"]["scale"])


def test_description_holds_the_facts(told, pixels):
    folder, description = told
    assert description["labels"] == list(LABELS)
    facts = description["preprocessing"]
    assert facts == {
        "pixel_range": [0, 1],
        "mean": [0.0],
        "std": [1.0],
        "channel_order": "gray",
        "pixel_mean": [0.0],
        "pixel_std": [255.0],
        "in_the_file": False,
    }
    file = tflite_export.TFLiteModel(folder / "net.tflite")
    assert description["input"]["scale"] == file.input.scale
    assert description["input"]["zero_point"] == file.input.zero_point


def facts(shape, dtype, scale=None, zero_point=None, name="image"):
    return TensorFacts(name, shape, np.dtype(dtype), scale, zero_point, 0)


IMAGENET = Preprocessing((0, 1), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "int16"])
def test_kotlin_code_has_the_same_constants(order, dtype):
    quantized = () if dtype == "float32" else (0.018658448, 3)
    fitted = Preprocessing((0, 1), IMAGENET.mean, IMAGENET.std, order).fitted((1, 4, 5, 3))
    code = snippets(
        "net.tflite",
        facts((1, 4, 5, 3), dtype, *quantized),
        facts((1, 7), dtype, *quantized),
        fitted,
    )
    python, kotlin = code["python"], code["kotlin"]
    assert re.search(r"mean = floatArrayOf\((.*)\)", kotlin)[1] == "123.675f, 116.28f, 103.53f"
    assert re.search(r"std = floatArrayOf\((.*)\)", kotlin)[1] == "58.395f, 57.12f, 57.375f"
    assert "MEAN = np.float32([123.675, 116.28, 103.53])" in python
    assert "STD = np.float32([58.395, 57.12, 57.375])" in python
    colors = re.findall(r"put\(input, (\w+), (\d)\)", kotlin)
    names = ["red", "green", "blue"] if order == "RGB" else ["blue", "green", "red"]
    assert colors == list(zip(names, "012", strict=True))
    assert ("pixels[..., ::-1]" in python) == (order == "BGR")
    assert f"buffer({60 * np.dtype(dtype).itemsize})" in kotlin
    assert f"buffer({7 * np.dtype(dtype).itemsize})" in kotlin
    assert "while (small.width >= 10 && small.height >= 8)" in kotlin
    assert "small, 5, 4, true" in kotlin
    assert "FloatArray(7)" in kotlin
    assert ("value / 0.018658448f) + 3" in kotlin) == (dtype != "float32")
    assert (" - 3) * 0.018658448f" in kotlin) == (dtype != "float32")
    if dtype != "float32":
        limits = np.iinfo(dtype)
        assert f"coerceIn({limits.min}f, {limits.max}f)" in kotlin
        assert f"np.clip(steps, {limits.min}, {limits.max})" in python
    assert kotlin.count("{") == kotlin.count("}")
    compile(python, "snippet", "exec")


def test_preprocessing_is_what_a_framework_does():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 4, 4, 3), np.uint8)
    expected = (pixels / 255 - IMAGENET.mean) / IMAGENET.std
    np.testing.assert_allclose(IMAGENET.apply(pixels), expected, rtol=1e-5, atol=1e-6)
    assert Preprocessing((-1, 1)).apply(np.array([0, 255])).tolist() == [-1, 1]
    assert parse("0..1", ["0.485", "0.456", "0.406"], ["0.229", "0.224", "0.225"], None) == IMAGENET
    assert parse(None, None, None, None) is None


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ((None, ["0.5"], None, None), "need --pixel_range"),
        (("255", None, None, None), "pixel_range is '255'; write it 0..255"),
        (("0..x", None, None, None), "pixel_range holds 'x', which is no number"),
        (("1..0", None, None, None), "give two rising numbers"),
        (("0..nan", None, None, None), "give two rising numbers"),
        (("0..1", ["a"], None, None), "mean holds 'a'"),
        (("0..1", ["inf"], None, None), r"mean is \(inf,\)"),
        (("0..1", None, ["0"], None), "give one number above 0"),
        (("0..1", None, None, "RBG"), "'RBG' is unknown; choose one of: RGB, BGR, gray"),
    ],
)
def test_preprocessing_that_is_none(given, reason, one_line):
    with pytest.raises(tflite_export.ExportError, match=reason) as caught:
        parse(*given)
    one_line(caught)


@pytest.mark.parametrize(
    ("given", "shape", "reason"),
    [
        (IMAGENET, (1, 8, 8, 1), "mean has 3 numbers; the model has 1 channels"),
        (IMAGENET, (1, 10), "preprocessing is for pictures"),
        (UNIT, (1, 8, 8, 2), "preprocessing is for pictures"),
        (Preprocessing((0, 1), channel_order="BGR"), (1, 8, 8, 1), "does not fit 1 channels"),
    ],
)
def test_preprocessing_that_does_not_fit(given, shape, reason, one_line):
    with pytest.raises(tflite_export.ExportError, match=reason) as caught:
        given.fitted(shape)
    one_line(caught)


def test_labels_are_read_line_by_line(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeffcat\r\nbig dog \nKüken\n".encode())
    assert tflite_export.read_labels(path) == ("cat", "big dog", "Küken")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "line 1 is empty"),
        (b"\n", "line 1 is empty"),
        (b"cat\n\ndog\n", "line 2 is empty"),
        (b"\xff\xfe", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_labels_that_are_none(content, reason, tmp_path, one_line):
    if content is not None:
        (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(tflite_export.ExportError, match=reason) as caught:
        tflite_export.read_labels(tmp_path / "labels.txt")
    one_line(caught)


def test_labels_that_do_not_match_leave_nothing_behind(float_digits, tmp_path, one_line):
    with pytest.raises(
        tflite_export.ExportError, match=r"9 labels, from 'zero' to 'eight', for 10 outputs"
    ) as caught:
        tflite_export.convert_file(
            float_digits, tmp_path / "x.tflite", "float16", labels=LABELS[:-1]
        )
    one_line(caught)
    assert not list(tmp_path.iterdir())
