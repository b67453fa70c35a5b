"""The example app takes its numbers from model.json, and its files agree with each other."""

import hashlib
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tensorflow as tf

import tflite_export

pytestmark = pytest.mark.any_keras

APP = Path(__file__).parents[2] / "examples" / "android"
SOURCES = APP / "app" / "src" / "main"
ANDROID = "{http://schemas.android.com/apk/res/android}"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def gradle():
    return (APP / "app" / "build.gradle.kts").read_text()


@pytest.fixture(scope="module")
def activity():
    (path,) = SOURCES.rglob("MainActivity.kt")
    return path.read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a small int8 file that takes BGR pictures, 6 x 5, and its description."""
    folder = tmp_path_factory.mktemp("app")
    image = tf.keras.Input((6, 5, 3), name="image")
    x = tf.keras.layers.Flatten(name="flat")(image)
    model = tf.keras.Model(image, tf.keras.layers.Dense(4, name="logits")(x))
    source = tflite_export.convert(model, folder / "float.tflite", "float32")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 6, 5, 3))
    np.save(folder / "x.npy", ((pixels / 255 - MEAN) / STD).astype(np.float32))
    tflite_export.convert_file(
        *(source, folder / "student.tflite", "int8"),
        representative=folder / "x.npy",
        preprocessing=tflite_export.Preprocessing((0, 1), MEAN, STD, "BGR"),
        labels=("a", "b", "c", "d"),
    )
    return folder


@pytest.fixture(scope="module")
def told(folder):
    return json.loads((folder / "student.json").read_text())


def test_the_app_reads_what_the_exporter_writes(folder, told, gradle, activity):
    content = (folder / "student.tflite").read_bytes()
    assert '(told["file"] as Map<*, *>)["sha256"]' in gradle
    assert told["file"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert 'told["snippets"] as Map<*, *>?' in gradle
    assert '${snippets["kotlin"]}' in gradle
    assert re.findall(r'optJSONArray\("(\w+)"\)', activity) == ["labels"]
    assert told["labels"] == ["a", "b", "c", "d"]
    code = told["snippets"]["kotlin"]
    assert "class Model(file: ByteBuffer)" in code
    assert "Model(modelFile())" in activity
    assert re.findall(r"\bmodel\.(\w+)\(picture\)", activity) == ["classOf"]
    assert "fun classOf(picture: Bitmap): Int" in code


def test_constants_are_those_of_the_description(told):
    code = told["snippets"]["kotlin"]
    facts, fed, given = told["preprocessing"], told["input"], told["output"]
    _, height, width, channels = fed["shape"]
    assert f"small, {width}, {height}, true" in code
    assert f"buffer({height * width * channels})" in code

    def numbers(pattern: str) -> list[float]:
        return [float(number) for number in re.search(pattern, code)[1].split("f, ")]

    mean, std = numbers(r"mean = floatArrayOf\((.+)f\)"), numbers(r"std = floatArrayOf\((.+)f\)")
    assert (mean, std) == (facts["pixel_mean"], facts["pixel_std"])
    scale, zero_point = re.search(r"value / (\S+)f\) \+ (\S+)", code).groups()
    assert np.float32(scale) == np.float32(fed["scale"])
    assert int(zero_point) == fed["zero_point"]
    step = np.float32(given["scale"])
    assert f"(stored.get().toFloat() - {given['zero_point']}) * {step!s}f" in code
    order = re.findall(r"put\(input, (\w+), \d\)", code)
    assert order == ["blue", "green", "red"]
    assert facts["channel_order"] == "BGR"

    # What the code makes of each pixel is what training made of it, in steps.
    pixels = np.arange(256, dtype=np.float32)[:, np.newaxis]
    steps = np.rint((pixels - np.float32(mean)) / np.float32(std) / np.float32(scale))
    stored = np.clip(steps + int(zero_point), -128, 127)
    expected = (np.arange(256)[:, np.newaxis] / 255 - MEAN) / STD / fed["scale"] + fed["zero_point"]
    assert np.abs(stored - np.clip(expected, -128, 127)).max() < 0.51


def test_files_agree_about_the_package(gradle, activity):
    (path,) = SOURCES.rglob("MainActivity.kt")
    package = ".".join(path.relative_to(SOURCES / "java").parent.parts)
    assert activity.startswith(f"package {package}\n")
    assert f'namespace = "{package}"' in gradle
    assert f'applicationId = "{package}"' in gradle
    assert f'writeText("package {package}\\n' in gradle
    manifest = ElementTree.parse(SOURCES / "AndroidManifest.xml").getroot()
    assert "package" not in manifest.attrib  # the plugin refuses it
    (entry,) = manifest.iter("activity")
    assert entry.attrib[f"{ANDROID}name"] == ".MainActivity"
    assert entry.attrib[f"{ANDROID}exported"] == "true"


def test_resources_are_there(activity):
    layout = ElementTree.parse(SOURCES / "res" / "layout" / "main.xml").getroot()
    strings = ElementTree.parse(SOURCES / "res" / "values" / "strings.xml").getroot()
    names = {string.attrib["name"] for string in strings}
    ids = {value for view in layout.iter() if (value := view.get(f"{ANDROID}id"))}
    assert {f"@+id/{name}" for name in re.findall(r"R\.id\.(\w+)", activity)} == ids
    files = (SOURCES / "AndroidManifest.xml", SOURCES / "res" / "layout" / "main.xml")
    used = {name for file in files for name in re.findall(r"@string/(\w+)", file.read_text())}
    assert used == names


def test_versions_are_pinned_and_told(told, gradle):
    root = (APP / "build.gradle.kts").read_text()
    wrapper = (APP / "gradle" / "wrapper" / "gradle-wrapper.properties").read_text()
    readme = (APP / "README.md").read_text()
    plugins = dict(re.findall(r'id\("([\w.]+)"\) version "(\d+\.\d+\.\d+)"', root))
    assert set(plugins) == set(re.findall(r'id\("([\w.]+)"\)', gradle))
    (litert,) = re.findall(r'implementation\("([^"]+)"\)', gradle)
    assert re.fullmatch(r"com\.google\.ai\.edge\.litert:litert:\d+\.\d+\.\d+", litert)
    assert f'implementation("{litert}")' in told["snippets"]["kotlin"]
    (gradle_version,) = re.findall(r"gradle-(\d+\.\d+)-bin", wrapper)
    for version in (*plugins.values(), litert.rpartition(":")[2], gradle_version):
        assert re.search(rf"\b{re.escape(version)}\b", readme)
    for name in ("minSdk", "targetSdk", "compileSdk"):
        assert re.search(rf"\b{name} = \d+\n", gradle)
