"""Recipe auto: the smallest file that is good enough."""

import json

import numpy as np
import pytest

import tflite_export
from tflite_export import Examples, auto
from tflite_export.tflite_model import TFLiteModel

# What a file says and does is one under both Keras; how each is converted, test_conversion tells.
pytestmark = pytest.mark.any_keras


@pytest.fixture(scope="module")
def representative(digits, tmp_path_factory):
    path = tmp_path_factory.mktemp("auto") / "images.npy"
    np.save(path, digits.representative)
    return path


def tried(path):
    rows = json.loads(path.with_suffix(".json").read_text())["auto"]["tried"]
    return {row["recipe"]: auto.Trial(**row) for row in rows}


def test_the_smallest_file_that_reaches_the_floor_is_taken(
    float_digits, digits, representative, tmp_path
):
    """Every recipe is judged anew here: by hand, one file after the other."""
    scores, sizes = {}, {}
    for name in auto.TRIED:
        needs = tflite_export.RECIPES[name].needs_ranges
        path = tflite_export.convert_file(
            *(float_digits, tmp_path / f"{name}.tflite", name),
            representative=representative if needs else None,
        )
        outputs = TFLiteModel(path).predict(digits.images).argmax(1)
        scores[name], sizes[name] = np.mean(outputs == digits.labels), path.stat().st_size
    by_size = sorted(auto.TRIED, key=sizes.__getitem__)
    assert len(set(scores.values())) > 1
    for floor in sorted({*scores.values()}):
        best = next(name for name in by_size if scores[name] >= floor)
        path = tflite_export.convert_file(
            *(float_digits, tmp_path / "x.tflite", "auto"),
            representative=representative,
            examples=Examples(digits.images, digits.labels, float(floor)),
            overwrite=True,
        )
        assert path.read_bytes() == (tmp_path / f"{best}.tflite").read_bytes()
        rows = tried(path)
        assert list(rows) == by_size
        assert [name for name, row in rows.items() if row.holds] == [best]
        assert {name: row.bytes for name, row in rows.items()} == sizes
        for place, (name, row) in enumerate(rows.items()):
            judged = place <= by_size.index(best)
            assert row.score == (scores[name] if judged else None)


def test_agreement_without_labels_and_without_representative_data(float_digits, digits, tmp_path):
    path = tflite_export.convert_file(
        *(float_digits, tmp_path / "x.tflite", "auto"),
        examples=Examples(digits.images, None, 1.0),
    )
    told = json.loads((tmp_path / "x.json").read_text())
    assert (told["auto"]["score"], told["auto"]["images"]) == ("agreement", len(digits.images))
    rows = tried(path)
    assert "needs representative images" in rows["int8"].reason
    assert str(float_digits.parent) not in (tmp_path / "x.json").read_text()
    expected = TFLiteModel(float_digits).predict(digits.images).argmax(1)
    found = TFLiteModel(path).predict(digits.images).argmax(1)
    np.testing.assert_array_equal(found, expected)
    assert path.stat().st_size < float_digits.stat().st_size


def test_choices_that_cannot_be_made(float_digits, digits, tmp_path, one_line):
    images, labels = digits.images[:50], digits.labels[:50]
    wrong = (labels + 1) % 10
    for recipe, examples, reason in (
        (
            "auto",
            lambda: Examples(images, wrong, 0.5),
            r"reaches the floor 0.5 .*float32",
        ),
        ("auto", lambda: None, "is chosen by test images and a floor"),
        ("float16", lambda: Examples(images, labels, 0.5), "is chosen by test images and a floor"),
        ("auto", lambda: Examples(images, labels, 98.0), "floor is 98.0; give a fraction"),
        ("auto", lambda: Examples(images, labels[:9], 0.5), "whole number for each of 50"),
        ("auto", lambda: Examples(images * np.nan, labels, 0.5), "NaN"),
    ):
        with pytest.raises(tflite_export.ExportError, match=reason) as caught:
            tflite_export.convert_file(
                float_digits, tmp_path / "x.tflite", recipe, examples=examples()
            )
        one_line(caught)
    assert not list(tmp_path.iterdir())
