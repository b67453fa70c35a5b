"""Representative data from folders and files, and ranges that are certainly wrong."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tflite_export
from tflite_export import Preprocessing
from tflite_export.image_folder import read_pixels
from tflite_export.input_range import check_learned, check_preprocessed
from tflite_export.representative import load_representative

# What a file says and does is one under both Keras; how each is converted, test_conversion tells.
pytestmark = pytest.mark.any_keras

UNIT = Preprocessing((0, 1))
WHITENED = Preprocessing((0, 1), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(scope="module")
def folder(digits, tmp_path_factory):
    """30 pictures of each digit, but 3 of the nine."""
    home = tmp_path_factory.mktemp("pictures")
    for digit in range(10):
        (home / str(digit)).mkdir()
        places = np.flatnonzero(digits.labels == digit)[: 3 if digit == 9 else 30]
        for place in places:
            pixels = np.rint(digits.images[place, ..., 0] * 255).astype(np.uint8)
            Image.fromarray(pixels).save(home / str(digit) / f"{place:04}.png")
    (home / "README.txt").write_text("not a class")
    return home


def test_a_folder_gives_a_good_file_and_is_recorded(folder, float_digits, digits, tmp_path):
    made = [
        tflite_export.convert_file(
            *(float_digits, tmp_path / f"{place}.tflite", "int8"),
            representative=folder,
            representative_count=83,
            seed=seed,
            preprocessing=UNIT,
        )
        for place, seed in enumerate((7, 7, 8))
    ]
    told = [json.loads(p.with_suffix(".json").read_text())["representative"] for p in made]
    assert made[0].read_bytes() == made[1].read_bytes()
    assert told[0] == told[1]
    assert told[0]["sha256"] != told[2]["sha256"]
    assert (told[0]["name"], told[0]["count"], told[0]["seed"]) == (folder.name, 83, 7)
    assert told[0]["images"] == 83
    assert sorted(told[0]["classes"].values()) == [3, 8, 9, 9, 9, 9, 9, 9, 9, 9]
    outputs = tflite_export.TFLiteModel(made[0]).predict(digits.images)
    expected = digits.model.predict(digits.images, verbose=0)
    assert np.mean(outputs.argmax(1) == expected.argmax(1)) >= 0.97


def test_pictures_are_resized_and_preprocessed(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 4, 3)).astype(np.uint8)
    (tmp_path / "cat").mkdir()
    Image.fromarray(pixels).save(tmp_path / "cat" / "a.png")
    same = load_representative(tmp_path, WHITENED).images((6, 4, 3))
    np.testing.assert_allclose(same[0], (pixels / 255 - WHITENED.mean) / WHITENED.std, atol=1e-5)
    reversed_order = read_pixels(tmp_path / "cat" / "a.png", (6, 4, 3), "BGR")
    np.testing.assert_array_equal(reversed_order, pixels[..., ::-1])
    resized = np.asarray(Image.fromarray(pixels).resize((8, 2), Image.Resampling.BILINEAR))
    found = read_pixels(tmp_path / "cat" / "a.png", (2, 8, 3), "RGB")
    np.testing.assert_array_equal(found, resized)
    gray = read_pixels(tmp_path / "cat" / "a.png", (6, 4, 1), "gray")[..., 0]
    np.testing.assert_allclose(gray, pixels @ [0.299, 0.587, 0.114], atol=1)


def test_a_count_of_a_file_is_drawn_by_the_seed(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(50, dtype="float32").reshape(50, 1))
    first, again, other = (
        load_representative(tmp_path / "x.npy", None, 10, seed) for seed in (1, 1, 2)
    )
    assert first.images((1,)).tolist() == again.images((1,)).tolist()
    assert first.images((1,)).tolist() != other.images((1,)).tolist()
    assert len(set(first.images((1,)).ravel())) == 10
    assert first.facts["images"] == 10
    assert first.chosen == {"count": 10, "seed": 1}
    assert load_representative(tmp_path / "x.npy", None).images((1,)).shape == (50, 1)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("no preprocessing", "holds pictures, and .* give --pixel_range"),
        ("no classes", "has no sub-folders"),
        ("empty class", "cat' has no picture"),
        ("no picture", "a.png' cannot be read: .*; remove it"),
        ("count", "representative_count is 0"),
        ("seed", "seed is -1"),
        ("too many", r"representative_count is 9, but .* has shape \(4, 2\)"),
    ],
)
def test_data_that_cannot_be_taken(kind, reason, tmp_path, one_line):
    if kind != "no classes":
        (tmp_path / "cat").mkdir()
    if kind not in ("no classes", "empty class"):
        (tmp_path / "cat" / "a.png").write_bytes(b"no picture")
    given = {"count": {"count": 0}, "seed": {"seed": -1}, "too many": {"count": 9}}.get(kind, {})
    np.save(tmp_path / "x.npy", np.zeros((4, 2)))
    path = tmp_path / "x.npy" if kind == "too many" else tmp_path
    with pytest.raises(tflite_export.ExportError, match=reason) as caught:
        load_representative(path, None if kind == "no preprocessing" else UNIT, **given).images(
            (8, 8, 1)
        )
    one_line(caught)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3)).astype("float32")


def test_numbers_that_the_preprocessing_cannot_give(pixels, one_line):
    unit, whitened, bytes_ = pixels / 255, WHITENED.apply(pixels), Preprocessing((0, 255))
    for images, preprocessing in (
        (pixels, UNIT),
        (pixels, WHITENED),
        (whitened, UNIT),
        (unit, bytes_),
        (whitened, bytes_),
        (unit * 2 - 1, UNIT),
    ):
        with pytest.raises(
            tflite_export.ExportError, match=r"images go from .* as \(pixel - "
        ) as e:
            check_preprocessed(images, preprocessing)
        one_line(e)
    check_preprocessed(unit, UNIT)
    check_preprocessed(whitened, WHITENED)
    check_preprocessed(pixels, bytes_)
    check_preprocessed(unit, WHITENED)  # possible numbers: not certain


def small(first):
    layers = tf.keras.layers
    image = tf.keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(2, 3, name="conv")(first(image))
    return tf.keras.Model(image, layers.Flatten()(x))


def test_numbers_that_the_first_layer_was_not_made_for(pixels, tmp_path, one_line):
    layers = tf.keras.layers
    unit, whitened = pixels / 255, WHITENED.apply(pixels)
    rescaling = small(layers.Rescaling(1 / 255, name="scaled"))
    of_pixels = small(layers.Normalization(mean=[120.0] * 3, variance=[3600.0] * 3, name="norm"))
    batch = layers.BatchNormalization(name="bn")
    of_unit = small(batch)
    check_learned(pixels, of_unit)  # never trained: nothing is known
    batch.set_weights([np.ones(3), np.zeros(3), np.full(3, 0.5), np.full(3, 0.09)])
    for model, wrong, right in (
        (rescaling, unit, pixels),
        (rescaling, whitened, pixels),
        (of_pixels, unit, pixels),
        (of_unit, pixels, unit),
    ):
        with pytest.raises(tflite_export.ExportError, match=r"first layer '.*' is for about") as e:
            tflite_export.convert(model, tmp_path / "x.tflite", "int8", representative=wrong)
        one_line(e)
        check_learned(right, model)
    check_learned(pixels, small(layers.Activation("relu")))  # tells nothing
    assert not list(tmp_path.iterdir())


def test_wrong_range_of_a_file_is_told(float_digits, digits, tmp_path, one_line):
    np.save(tmp_path / "images.npy", digits.representative * 255)
    with pytest.raises(
        tflite_export.ExportError, match=r"go from 0 to 255, .* gives 0 to 1; .* - 0\) / 255"
    ) as caught:
        tflite_export.convert_file(
            *(float_digits, tmp_path / "x.tflite", "int8"),
            representative=tmp_path / "images.npy",
            preprocessing=UNIT,
        )
    one_line(caught)
    with pytest.raises(tflite_export.ExportError, match="without data; give --representative"):
        tflite_export.convert_file(
            float_digits, tmp_path / "x.tflite", "float16", representative_count=5
        )
    assert [entry.name for entry in tmp_path.iterdir()] == ["images.npy"]
