"""Model files of every kind, and the command `kd-export`."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf

import tflite_export
from tflite_export.file_facts import read_facts

IS_TF_KERAS = tf.keras.Model.__module__.startswith("tf_keras")


@pytest.fixture(scope="module")
def files(digits, float_digits, tmp_path_factory):
    """The digits net as a file of each kind, and representative images."""
    folder = tmp_path_factory.mktemp("sources")
    digits.model.save(folder / "net.keras")
    digits.model.save(folder / "net.h5")
    if IS_TF_KERAS:
        digits.model.save(folder / "saved")
    else:
        digits.model.export(folder / "saved", verbose=False)
    shutil.copy(float_digits, folder / "net.tflite")
    np.save(folder / "images.npy", digits.representative)
    return folder


def kd_export(*arguments):
    home = str(Path(tflite_export.__file__).parents[1])
    search_path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", "tflite_export.export", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": search_path},
    )


@pytest.mark.parametrize(
    "source", [pytest.param("net.h5", marks=pytest.mark.slow), "saved", "net.tflite"]
)
def test_every_kind_of_file_gives_the_same_decisions(source, files, digits, int8_digits, tmp_path):
    path = tflite_export.convert_file(
        files / source, tmp_path / "x.tflite", "int8", representative=files / "images.npy"
    )
    facts = read_facts(path.read_bytes())
    assert set(facts.inputs.values()) == set(facts.outputs.values()) == {"int8"}
    outputs = tflite_export.TFLiteModel(path).predict(digits.images)
    expected = tflite_export.TFLiteModel(int8_digits).predict(digits.images)
    np.testing.assert_array_equal(outputs, expected)
    if source != "saved":
        assert (facts.inputs, facts.outputs) == ({"image": "int8"}, {"logits": "int8"})


def test_description_tells_how_to_feed_the_file(files, digits, int8_digits, tmp_path):
    path = tflite_export.convert_file(
        files / "net.keras", tmp_path / "x.tflite", "int8", representative=files / "images.npy"
    )
    text = (tmp_path / "x.json").read_text()
    told = json.loads(text)
    assert told["file"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    source = (files / "net.keras").read_bytes()
    assert told["source"] == {"name": "net.keras", "sha256": hashlib.sha256(source).hexdigest()}
    images = (files / "images.npy").read_bytes()
    assert told["representative"]["sha256"] == hashlib.sha256(images).hexdigest()
    assert told["representative"]["images"] == len(digits.representative)
    assert told["recipe"]["name"] == "int8"
    assert told["versions"]["litert-quantizer"].startswith("0.11")
    assert (told["input"]["name"], told["input"]["shape"]) == ("image", [1, 8, 8, 1])
    interpreter = tflite_export.TFLiteModel(path).interpreter
    feed, read = told["input"], told["output"]
    image = np.clip(np.rint(digits.images[:1] / feed["scale"]) + feed["zero_point"], -128, 127)
    runner = interpreter.get_signature_runner("serving_default")
    stored = runner(**{feed["name"]: image.astype(feed["dtype"])})[read["name"]]
    logits = (stored.astype("float32") - read["zero_point"]) * read["scale"]
    np.testing.assert_allclose(
        logits, digits.model.predict(digits.images[:1], verbose=0), atol=4 * read["scale"]
    )
    assert str(tmp_path) not in text
    assert str(files) not in text
    assert path.read_bytes() == int8_digits.read_bytes()


@pytest.mark.parametrize("source", ["saved", "net.tflite"])
def test_layers_of_files_are_kept_in_float(source, files, tmp_path, one_line):
    with pytest.raises(tflite_export.ExportError, match=r"'stem' .* there are: .*hidden") as caught:
        tflite_export.convert_file(files / source, tmp_path / "x.tflite", "weight_int8@float:stem")
    listed = one_line(caught).split("there are: ")[1].split(", ")
    conv = next(name for name in listed if name.startswith("conv2"))  # Keras 3 numbers its scopes
    path = tflite_export.convert_file(
        files / source, tmp_path / "x.tflite", f"weight_int8@float:{conv},{listed[-1]}"
    )
    kept = [o.name for o in read_facts(path.read_bytes()).operators if o.weights == "float32"]
    assert kept == ["CONV_2D", "FULLY_CONNECTED"]


@pytest.mark.tf_keras
@pytest.mark.parametrize("source", ["net.h5", pytest.param("saved", marks=pytest.mark.slow)])
def test_quantization_aware_files(source, quantized_net, images, tmp_path):
    quantized_net.save(tmp_path / source)
    path = tflite_export.convert_file(tmp_path / source, tmp_path / "x.tflite", "int8")
    outputs = tflite_export.TFLiteModel(path).predict(images)
    expected = quantized_net.predict(images, verbose=0)
    assert np.mean(outputs.argmax(1) == expected.argmax(1)) >= 0.98
    assert {o.formats for o in read_facts(path.read_bytes()).operators} == {("int8",)}


def test_file_without_signature_gets_one(files, digits, tmp_path):
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    content = (files / "net.tflite").read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    model.signatureDefs = None
    bare = tmp_path / "bare.tflite"
    bare.write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    path = tflite_export.convert_file(
        bare, tmp_path / "x.tflite", "int8", representative=files / "images.npy"
    )
    file = tflite_export.TFLiteModel(path)
    assert list(file.interpreter.get_signature_list()) == ["serving_default"]
    outputs = file.predict(digits.images)
    expected = digits.model.predict(digits.images, verbose=0)
    assert np.mean(outputs.argmax(1) == expected.argmax(1)) >= 0.97


def bad_source(kind, files, folder):
    """A source that cannot be exported, and what the error says of it."""
    path = folder / f"bad.{kind.rpartition('.')[2]}"
    if kind == "missing.keras":
        return path, "does not exist"
    if kind == "text.txt":
        path.write_text("hello")
        return path, "is of no known kind"
    if kind == "folder":
        path.mkdir()
        return path, "is of no known kind"
    if kind == "saved":
        path.mkdir()
        (path / "saved_model.pb").write_bytes(b"\x08\x01garbage")
        return path, "cannot be loaded as a SavedModel"
    if kind == "quantized.tflite":
        tflite_export.convert_file(files / "net.tflite", path, "dynamic_int8")
        path.with_suffix(".json").unlink()
        return path, "has numbers in int8; give the float32 file"
    if kind == "names.tflite":
        path.write_bytes((files / "net.tflite").read_bytes().replace(b"/conv1", b"/conv2"))
        return path, "has several tensors called"
    if kind.startswith("cut."):
        path.write_bytes((files / f"net.{kind[4:]}").read_bytes()[:3000])
        return path, "cannot be loaded"
    image = tf.keras.Input((8, 8, 1), name="image")
    x = tf.keras.layers.Flatten()(image)
    if kind == "weights.h5":
        tf.keras.Model(image, x).save_weights(folder / "bad.weights.h5")
        (folder / "bad.weights.h5").rename(path)
        return path, "holds weights only|cannot be loaded"
    assert kind == "lambda.keras"
    tf.keras.Model(image, tf.keras.layers.Lambda(lambda y: y + 1)(x)).save(path)
    return path, "holds Python code in a Lambda layer"


@pytest.mark.parametrize(
    "kind",
    [
        *("missing.keras", "text.txt", "folder", "saved", "quantized.tflite", "lambda.keras"),
        *("cut.keras", "cut.h5", "cut.tflite", "weights.h5", "names.tflite"),
    ],
)
def test_sources_that_cannot_be_exported(kind, files, tmp_path, one_line):
    source, reason = bad_source(kind, files, tmp_path)
    out = tmp_path / "out"
    with pytest.raises(tflite_export.ExportError, match=reason) as caught:
        tflite_export.convert_file(source, out / "x.tflite", "float16")
    one_line(caught)
    assert not out.exists()


@pytest.mark.tf_keras
def test_classes_that_tf_keras_would_import_are_refused(
    quantized_net, tmp_path, monkeypatch, one_line
):
    (tmp_path / "stranger.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(tmp_path)
    quantized_net.save(tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        wrapped = next(la for la in config["config"]["layers"] if la["name"] == "quant_conv1")
        stranger = {"module": "stranger", "class_name": "Run", "config": {}}
        wrapped["config"]["layer"]["config"]["activation"] = stranger | {"registered_name": None}
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(tflite_export.ExportError, match=r"'Run' of the module 'stranger'") as e:
        tflite_export.convert_file(tmp_path / "x.h5", tmp_path / "x.tflite", "int8")
    one_line(e)


def test_representative_files_that_do_not_fit(files, tmp_path, one_line):
    np.savez(tmp_path / "two.npy.npz", a=np.zeros(2), b=np.zeros(2))
    (tmp_path / "two.npy.npz").rename(tmp_path / "two.npy")
    (tmp_path / "text.npy").write_text("hello")
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "bytes.npy", np.zeros((3, 8, 8, 1), np.uint8))
    for name, reason in (
        ("none.npy", "is no file"),
        ("two.npy", "holds several arrays"),
        ("text.npy", "cannot be read"),
        ("objects.npy", "cannot be read"),
        ("bytes.npy", "are uint8; give float32"),
    ):
        with pytest.raises(tflite_export.ExportError, match=reason) as caught:
            tflite_export.convert_file(
                files / "net.tflite",
                tmp_path / "x.tflite",
                "int8",
                representative=tmp_path / name,
            )
        one_line(caught)
    assert not (tmp_path / "x.tflite").exists()
    assert not (tmp_path / "x.json").exists()


def test_files_that_are_there_are_kept(files, tmp_path, one_line):
    for name in ("x.tflite", "x.json"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(tflite_export.ExportError, match=f"{name} exists") as caught:
            tflite_export.convert_file(files / "net.tflite", tmp_path / "x.tflite", "float16")
        one_line(caught)
        (tmp_path / name).unlink()
    with pytest.raises(tflite_export.ExportError, match=r"give it that ending"):
        tflite_export.convert_file(files / "net.tflite", tmp_path / "x.bin", "float16")


def test_command_writes_file_and_description(
    files, digits, int8_digits, tmp_path, tmp_path_factory
):
    labels = tmp_path_factory.mktemp("labels") / "labels.txt"
    labels.write_text("".join(f"digit {digit}\n" for digit in range(10)))
    done = kd_export(
        f"--model={files / 'net.tflite'}",
        f"--output={tmp_path / 'x.tflite'}",
        f"--representative={files / 'images.npy'}",
        *("--pixel_range=0..1", "--mean=0", "--std=1", "--channel_order=gray"),
        *(f"--labels={labels}", "--model_name=Digits", "--author=A", "--license=MIT"),
        "--model_version=1.2",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{tmp_path / 'x.tflite'}: ")
    told = json.loads((tmp_path / "x.json").read_text())
    assert told["card"] == {
        "name": "Digits",
        "author": "A",
        "license": "MIT",
        "version": "1.2",
    }
    assert told["labels"][9] == "digit 9"
    assert (told["preprocessing"]["pixel_range"], told["preprocessing"]["std"]) == ([0, 1], [1])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["x.json", "x.tflite"]
    outputs, expected = (
        tflite_export.TFLiteModel(path).predict(digits.images)
        for path in (tmp_path / "x.tflite", int8_digits)
    )
    np.testing.assert_array_equal(outputs, expected)


@pytest.mark.slow
def test_command_prints_what_auto_tried(files, digits, tmp_path):
    np.save(tmp_path / "test.npy", digits.images)
    np.save(tmp_path / "classes.npy", digits.labels)
    done = kd_export(
        *(f"--model={files / 'net.tflite'}", f"--output={tmp_path / 'x.tflite'}"),
        *("--recipe=auto", "--floor=0.5", f"--representative={files / 'images.npy'}"),
        *(f"--images_npy={tmp_path / 'test.npy'}", f"--labels_npy={tmp_path / 'classes.npy'}"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["recipe", "bytes", "accuracy"]
    assert rows[1][0] == "weight_int4"
    assert rows[1][3] == "taken"
    assert len(rows) == 8
    assert "bytes, weight_int4" in done.stdout


@pytest.mark.slow
def test_command_keeps_files_unless_told(files, tmp_path):
    arguments = [f"--model={files / 'net.keras'}", f"--output={tmp_path / 'x.tflite'}"]
    arguments.append("--recipe=float16")
    done = kd_export(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    before = [(tmp_path / name).read_bytes() for name in ("x.tflite", "x.json")]
    again = kd_export(*arguments)
    assert again.returncode == 1
    assert again.stderr.startswith("kd-export: ")
    assert "--overwrite" in again.stderr
    assert again.stderr.count("\n") == 1
    assert kd_export(*arguments, "--overwrite").returncode == 0
    assert [(tmp_path / name).read_bytes() for name in ("x.tflite", "x.json")] == before


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--output=x.tflite"], "--model"),
        (["--model=a", "--output=x.tflite", "--recipe=int9"], "recipe 'int9' is unknown"),
        (["--model=a", "--output=x.tflite", "--speed=9"], "speed"),
        (["--model=a", "--output=x.tflite", "b"], "unexpected argument 'b'"),
        (["--model=a", "--output=x.tflite", "--mean=0.5"], "need --pixel_range"),
        (["--model=a", "--output=x.tflite", "--floor=0.9"], "needs both --images_npy and --floor"),
    ],
)
def test_command_refuses_in_one_line(arguments, reason, tmp_path):
    done = kd_export(*arguments)
    assert done.returncode == 1
    assert reason in done.stderr
    assert (done.stderr.count("\n"), done.stdout) == (1, "")
