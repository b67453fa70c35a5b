"""The schema, the engine, the table and the page, on a device that is made up."""

import dataclasses
import json
import xml.dom.minidom

import pytest

from tflite_export.errors import ExportError
from tflite_export.measuring import page, table
from tflite_export.measuring.engine import Effort, measure
from tflite_export.measuring.result import (
    Delegation,
    Reading,
    Setting,
    Spread,
    model_files,
)

pytestmark = pytest.mark.any_keras


class MadeUp:
    """Model number n takes n times the time of the first; the device slows down with every read."""

    kind = "made up"
    backends = ("xnnpack",)
    cores = ("all",)

    def __init__(self, median=True):
        self.notes = ["One.", "One."]
        self.calls = []
        self.median = median

    def facts(self):
        return {"cpu": "<made up>", "governor": None}

    def read(self, model, setting, effort):
        self.calls.append((model.name, setting))
        time = 100.0 * (1 + "ab".index(model.name)) * (1 + (len(self.calls) - 1) // 2)
        median = time if self.median else None
        return Reading(runs=effort.runs, mean=time, median=median), Delegation(3, 4, 1)

    def peak_memory(self, model, setting):
        self.calls.append(("memory", model.name))
        return 1_500_000

    def agreement(self, model, setting):
        return None


class Odd(MadeUp):
    def read(self, model, setting, effort):
        return Reading(runs=1, mean=1.0, median=1.0), None


@pytest.fixture
def models(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.tflite").write_bytes(b"12345")
    return model_files([tmp_path / "a.tflite", tmp_path / "b.tflite"], [0.9, 0.89])


SETTINGS = (Setting("xnnpack", 1), Setting("xnnpack", 2, "f0"))


def test_models_take_turns_and_ratios_are_within_a_turn(models):
    device = MadeUp()
    result = measure(device, models, SETTINGS, Effort(repeats=3))
    turns = [("a", SETTINGS[0]), ("b", SETTINGS[0])] * 3
    assert device.calls[:6] == turns
    assert device.calls[6:8] == [("memory", "a"), ("memory", "b")]  # after all that is timed
    first, second = result.measurements[:2]
    assert first.ratio is None
    assert second.ratio == Spread(2, 2, 2)  # although the times rise threefold
    assert second.over_repeats("median") == Spread(400, 200, 600)
    assert first.over_repeats("p99") is None
    assert [m.setting for m in result.measurements] == [*[SETTINGS[0]] * 2, *[SETTINGS[1]] * 2]


def test_json_has_every_field_and_a_version(models):
    result = measure(MadeUp(), models, SETTINGS, Effort(repeats=2))
    content = json.loads(result.to_json())
    assert content["schema"] == 1
    assert content["notes"] == ["One."]
    assert content["models"][0]["bytes"] == 5
    assert len(content["models"][0]["sha256"]) == 64
    entry = content["measurements"][1]
    assert entry["latency_us"]["median"] == {"median": 300, "low": 200, "high": 400}
    assert entry["latency_us"]["p99"] is None
    assert entry["readings"][0]["runs"] == 50
    assert entry["setting"] == {"backend": "xnnpack", "threads": 1, "cores": "all"}
    assert entry["delegation"] == {"nodes": 3, "total": 4, "partitions": 1}
    names = {field.name for field in dataclasses.fields(Reading)} - {"runs", "block"}
    assert set(entry["latency_us"]) == names


def test_a_mean_says_that_it_is_one(models):
    result = measure(MadeUp(median=False), models, SETTINGS[:1], Effort(repeats=1))
    assert result.measurements[1].ratio == Spread(2, 2, 2)
    assert "100 µs (mean)" in table.text(result)


def test_table(models):
    text = table.text(measure(MadeUp(), models, SETTINGS, Effort(repeats=2)))
    assert "3 of 4" in text
    assert "1.5 MB" in text
    assert "2 (2..2)" in text
    assert "f0" in text
    assert text.count("One.") == 1
    assert [table.time(t) for t in (None, 0.1234, 12.34, 1234, 2.5e6)] == [
        *("-", "0.123 µs", "12.3 µs", "1.23 ms", "2.5 s"),
    ]


def test_page_is_self_contained_and_escaped(models):
    result = measure(MadeUp(), models, SETTINGS, Effort(repeats=2))
    html = page.page(result)
    assert "&lt;made up&gt;" in html
    assert "<made up>" not in html
    assert html.count("<svg") == 3  # times, and accuracy against time and size
    assert "LiteRT 2.2" in html
    assert "nothing here was measured by" in html
    assert "http" not in html.replace("http://www.w3.org", "").replace("http-equiv", "")
    assert page.page(result) == html
    for part in html.split("<svg")[1:]:
        xml.dom.minidom.parseString("<svg" + part[: part.index("</svg>") + 6])
    odd = [dataclasses.replace(model, name=f"$\\frac{model.name}<_") for model in models]
    drawn = page.page(measure(Odd(), odd, SETTINGS[:1], Effort(repeats=1)))
    assert "$\\fraca&lt;_" in drawn
    without = [dataclasses.replace(model, accuracy=None) for model in models]
    assert page.page(measure(MadeUp(), without, SETTINGS, Effort(repeats=1))).count("<svg") == 1


def test_bad_arguments(tmp_path, models, one_line):
    file = tmp_path / "a.tflite"
    for build, reason in (
        (lambda: model_files([]), "give at least one"),
        (lambda: model_files([file, file]), "each once"),
        (lambda: model_files([tmp_path / "none.tflite"]), "cannot be read"),
        (lambda: model_files([file], [0.1, 0.2]), "2 accuracies for 1 models"),
        (lambda: model_files([file], [90.0]), "give fractions"),
        (lambda: Effort(repeats=0), "repeats is 0"),
        (lambda: Effort(runs=0), "runs is 0"),
        (lambda: Effort(warmup=-1), "warmup is -1"),
        (lambda: Effort(min_seconds=float("nan")), "min_seconds is nan"),
    ):
        with pytest.raises(ExportError, match=reason) as caught:
            build()
        one_line(caught)


def test_files_of_one_name_keep_their_paths(tmp_path):
    paths = [tmp_path / "a" / "m.tflite", tmp_path / "b" / "m.tflite"]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(b"")
    assert [model.name for model in model_files(paths)] == [*map(str, paths)]
