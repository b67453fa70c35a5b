"""Representative data and test sets of configs, from a reader that is made up."""

import importlib.metadata
import json

import numpy as np
import pytest

import tflite_export
from tflite_export import Preprocessing
from tflite_export.balance import balanced
from tflite_export.config_source import GROUP, LabelledImages, is_config, read_config
from tflite_export.representative import load_representative

pytestmark = pytest.mark.any_keras

NAMES = tuple("abcdefghij")
HALVED = Preprocessing((0.0, 1.0), (0.25,), (0.5,))


class Reader:
    """Stands for an entry point: the digits' test images, whatever config it is asked for."""

    value = "made.up:read"

    def __init__(self, digits):
        self.digits, self.asked = digits, []

    def load(self):
        return self.read

    def read(self, spec, split, choose):
        self.asked.append((spec, split))
        labels = self.digits.labels
        places = np.arange(len(labels)) if choose is None else choose(labels)
        images = HALVED.apply(np.rint(self.digits.images[places] * 255))
        return LabelledImages("digits", split, images, labels[places], NAMES, HALVED)


@pytest.fixture
def installed(monkeypatch):
    readers = []
    found = {GROUP: readers}
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: found[group])
    return readers


def test_a_config_tells_images_preprocessing_and_labels(installed, digits, float_digits, tmp_path):
    installed.append(Reader(digits))
    given = {"representative": "some/config.py:smoke", "representative_count": 25, "seed": 3}
    made = tflite_export.convert_file(
        float_digits, tmp_path / "x.tflite", "int8", **given, with_preprocessing=True
    )
    told = json.loads(made.with_suffix(".json").read_text())
    assert installed[0].asked == [("some/config.py:smoke", "train")]
    data = told["representative"]
    assert (data["name"], data["data"], data["split"]) == ("config.py:smoke", "digits", "train")
    assert (data["images"], data["count"], data["seed"]) == (25, 25, 3)
    assert data["classes"] == {name: 3 if name < "f" else 2 for name in NAMES}
    assert told["labels"] == list(NAMES)
    preprocessing = told["preprocessing"]
    assert (preprocessing["mean"], preprocessing["std"]) == ([0.25], [0.5])
    assert preprocessing["in_the_file"]
    of_500 = load_representative(tmp_path / "c.py", None)
    assert of_500.facts["images"] == len(digits.labels) == 500
    same, other = (load_representative(tmp_path / "c.py", None, 25, n).facts for n in (3, 4))
    assert same["sha256"] == data["sha256"] != other["sha256"]


def test_a_choice_is_balanced_as_far_as_there_are_enough():
    labels = np.array([1] * 50 + [0] * 2 + [2] * 50)
    taken = balanced(labels, 12, 0)
    assert np.bincount(labels[taken]).tolist() == [2, 5, 5]
    assert len(set(taken.tolist())) == 12
    assert labels[taken].tolist() == sorted(labels[taken])
    assert balanced(labels, 12, 0).tolist() == taken.tolist() != balanced(labels, 12, 1).tolist()
    assert sorted(balanced(labels, 1000, 0)) == [*range(102)]


def test_what_is_a_config():
    assert [is_config(name) for name in ("a.py", "b/a.py:x", "a.npy", "py", "a.pyc")] == [
        *(True, True, False, False, False),
    ]


def test_bad_use_is_one_line(installed, digits, tmp_path, one_line):
    def refuse(reason, **given):
        with pytest.raises(tflite_export.ExportError, match=reason) as caught:
            load_representative(tmp_path / "c.py", **{"preprocessing": None, **given})
        one_line(caught)

    refuse(r"c.py' is a config, .*there are: none\): install kd-keras, or give the images")
    installed.append(Reader(digits))
    refuse("tells itself what the model was trained with", preprocessing=HALVED)
    refuse("representative_count is 0", count=0)
    installed.append(Reader(digits))
    refuse("one must read configs .*there are: made.up:read, made.up:read")
    installed.pop()
    assert len(read_config("c.py", "test").images) == 500
