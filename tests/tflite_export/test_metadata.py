"""TFLite metadata, read by offsets as the schema gives them."""

import io
import zipfile
from typing import Any

import flatbuffers
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import number_types

import tflite_export
from tflite_export import Card, Preprocessing
from tflite_export.file_facts import read_facts

# What a file says and does is one under both Keras; how each is converted, test_conversion tells.
pytestmark = pytest.mark.any_keras

CARD = Card("Digits", "Ada", "Apache-2.0", "1.2")
UNIT = Preprocessing((0, 1), (0.5,), (0.25,))
LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "acht", "neun — 九")


class Table:
    """A table of a flatbuffer: fields by their number in the schema."""

    def __init__(self, table):
        self.table = table

    def _at(self, field):
        return self.table.Offset(4 + 2 * field)

    def text(self, field):
        return self.table.String(self._at(field) + self.table.Pos).decode()

    def byte(self, field):
        return self.table.Get(number_types.Uint8Flags, self._at(field) + self.table.Pos)

    def floats(self, field):
        vector = self.table.Vector(self._at(field))
        length = self.table.VectorLen(self._at(field))
        return np.frombuffer(self.table.Bytes, "<f4", length, vector).tolist()

    def child(self, field, place=None) -> Any:
        if place is None:
            start = self.table.Indirect(self._at(field) + self.table.Pos)
        else:
            start = self.table.Indirect(self.table.Vector(self._at(field)) + 4 * place)
        return Table(flatbuffers.table.Table(self.table.Bytes, start))


def read(content):
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    (entry,) = [found for found in model.metadata if found.name == b"TFLITE_METADATA"]
    packed = bytes(model.buffers[entry.buffer].data)
    assert packed[4:8] == b"M001"
    start = int.from_bytes(packed[:4], "little")
    return Table(flatbuffers.table.Table(bytearray(packed), start))


@pytest.fixture(scope="module")
def made(float_digits, digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("metadata")
    np.save(folder / "images.npy", digits.representative * 4 - 2)

    def make(name, **options):
        return tflite_export.convert_file(
            float_digits, folder / name, "int8", representative=folder / "images.npy", **options
        )

    return make


def test_metadata_holds_what_is_known(made, digits):
    told = {"preprocessing": UNIT, "labels": LABELS, "card": CARD}
    path, plain = made("x.tflite", **told), made("plain.tflite")
    content = path.read_bytes()
    model = read(content)
    assert [model.text(field) for field in (0, 2, 4, 5, 7)] == [
        *("Digits", "1.2", "Ada", "Apache-2.0", "1.0.0")
    ]
    graph = model.child(3, 0)
    fed, given = graph.child(2, 0), graph.child(3, 0)
    assert (fed.text(0), given.text(0)) == ("image", "logits")
    content_of = fed.child(3)
    assert (content_of.byte(0), content_of.child(1).byte(0)) == (2, 2)  # an image, gray
    unit = fed.child(4, 0)
    assert unit.byte(0) == 1  # normalization
    assert (unit.child(1).floats(0), unit.child(1).floats(1)) == ([127.5], [63.75])
    labels = given.child(6, 0)
    assert (labels.text(0), labels.byte(2)) == ("labels.txt", 2)  # labels of an axis
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.namelist() == ["labels.txt"]
        assert archive.read("labels.txt").decode() == "\n".join(LABELS) + "\n"
        assert archive.testzip() is None
    assert read_facts(content) == read_facts(plain.read_bytes())
    file, other = tflite_export.TFLiteModel(path), tflite_export.TFLiteModel(plain)
    assert list(file.interpreter.get_signature_list()) == ["serving_default"]
    images = digits.images[:20] * 4 - 2
    np.testing.assert_array_equal(file.predict(images), other.predict(images))
    assert content == made("y.tflite", **told).read_bytes()


def test_metadata_of_other_ends(made):
    options = {"preprocessing": UNIT, "with_preprocessing": True, "output_form": "argmax"}
    model = read(made("z.tflite", **options, labels=LABELS).read_bytes())
    graph = model.child(3, 0)
    unit = graph.child(2, 0).child(4, 0).child(1)
    assert (unit.floats(0), unit.floats(1)) == ([0], [1])
    assert graph.child(3, 0).child(6, 0).byte(2) == 3  # labels of values


def test_without_anything_known_there_is_none(made):
    content = made("none.tflite").read_bytes()
    assert b"TFLITE_METADATA" not in content
    assert not zipfile.is_zipfile(io.BytesIO(content))


def test_a_card_alone(made):
    model = read(made("card.tflite", card=Card(license="MIT")).read_bytes())
    assert model.text(5) == "MIT"
    assert model.table.Offset(4) == 0


@pytest.mark.slow
def test_large_constants_are_kept(tmp_path):
    """litert-quantizer puts them behind the rest of the file, where places would go wrong."""
    image = tf.keras.Input((8, 8, 1), name="image")
    x = tf.keras.layers.Flatten()(image)
    x = tf.keras.layers.Dense(4096, activation="relu")(x)  # 256 KiB in int8
    model = tf.keras.Model(image, tf.keras.layers.Dense(10, name="logits")(x))
    model.save(tmp_path / "model.keras")
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1))
    fed = UNIT.apply(images)
    np.save(tmp_path / "images.npy", fed)
    plain, told, whole = (
        tflite_export.convert_file(
            tmp_path / "model.keras",
            tmp_path / f"{name}.tflite",
            representative=tmp_path / "images.npy",
            **given,
        )
        for name, given in (
            ("plain", {}),
            ("told", {"preprocessing": UNIT, "labels": LABELS}),
            ("whole", {"preprocessing": UNIT, "with_preprocessing": True}),
        )
    )
    parsed = schema.Model.GetRootAs(plain.read_bytes(), 0)
    assert any(parsed.Buffers(n).Offset() for n in range(parsed.BuffersLength()))  # or no test
    expected = tflite_export.TFLiteModel(plain).predict(fed)
    np.testing.assert_array_equal(tflite_export.TFLiteModel(told).predict(fed), expected)
    np.testing.assert_array_equal(tflite_export.TFLiteModel(whole).predict(images), expected)
