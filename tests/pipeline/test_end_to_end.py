"""The main job as a user runs it: `kd-train` in a process of its own, on the real digits."""

import hashlib
import json
import pathlib
import re
import runpy
import shutil
import signal
import subprocess
import sys

import filelock
import numpy as np
import pytest
from ml_collections import ConfigDict

import kd_keras as kd
import tflite_export
from kd_keras import pipeline
from kd_keras.pipeline import delivery

pytestmark = pytest.mark.tf_keras

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUICKSTART = f"--config={ROOT}/configs/quickstart.py:smoke"


UNEQUAL_HINT = {
    "methods": {"hint": {"teacher_layer": "stage2", "student_layer": "stage2", "regressor": None}}
}


def command(workdir: pathlib.Path, *flags: str) -> list[str]:
    # A config flag given again overrides, so that a test can name another config.
    return [sys.executable, "-m", "kd_keras.train", QUICKSTART, f"--workdir={workdir}", *flags]


def train(workdir: pathlib.Path, *flags: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(workdir, *flags), capture_output=True, text=True, timeout=300, check=False
    )


def quickstart() -> ConfigDict:
    return runpy.run_path(str(ROOT / "configs" / "quickstart.py"))["get_config"]("smoke")


def complaint(result: subprocess.CompletedProcess) -> str:
    """The one line that a refused run prints."""
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("kd-train: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def weights(path: pathlib.Path) -> list[np.ndarray]:
    return kd.models.load_model(path).get_weights()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("finished")
    result = train(workdir)
    assert result.returncode == 0, result.stderr
    return workdir


def test_report_holds_what_was_promised(finished: pathlib.Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    assert report["config"]["data"]["name"] == "digits"
    assert report["data"]["train"] + report["data"]["validation"] + report["data"]["test"] == 1797
    assert set(report["models"]) == {
        *("teacher", "student_alone", "student", "student_compressed"),
        "student_compressed/1_pruning",
    }
    for model in report["models"].values():
        assert 0 <= model["accuracy"] <= 1
        assert model["parameters"] > 0
        assert model["macs"] > 0
    models = report["models"]
    assert models["teacher"]["parameters"] >= 8 * models["student"]["parameters"]
    assert models["student"]["parameters"] == models["student_alone"]["parameters"]
    assert models["student_compressed"]["sparsity"] > 0.4
    assert models["student"]["sparsity"] < 0.01
    int8 = report["tflite"]["int8"]
    assert (int8["input_dtype"], int8["output_dtype"]) == ("int8", "int8")
    assert int8["bytes"] < report["tflite"]["float32"]["bytes"]
    assert int8["bytes"] == (finished / int8["path"]).stat().st_size
    assert [entry["setting"]["threads"] for entry in int8["measurements"]] == [1, 2]
    for entry in int8["measurements"]:
        assert entry["latency_us"]["median"]["low"] > 0
        assert entry["ratio"]["median"] > 0  # to the float file
    assert set(report["seconds"]) >= {"data", "teacher", "student", "export", "benchmark"}
    assert "kd_keras" in report["command"] or "train" in report["command"]


def test_report_page_and_scalars_are_written(finished: pathlib.Path) -> None:
    assert "</html>" in (finished / "report.html").read_text()
    for stage in ("teacher", "student_alone", "student"):
        assert list((finished / stage).rglob("events.out.tfevents.*"))
    history = json.loads((finished / "student" / "history.json").read_text())
    assert {"loss", "label_loss", "soft_targets", "adversarial", "val_accuracy"} <= set(history[0])


def test_file_says_what_the_student_says(finished: pathlib.Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(finished / "export" / "student_int8.tflite"))
    signature = interpreter.get_signature_list()["serving_default"]
    assert signature == {"inputs": ["image"], "outputs": ["logits"]}
    report = json.loads((finished / "report.json").read_text())
    assert report["tflite"]["float32"]["agreement"] > 0.99


@pytest.mark.parametrize(("recipe", "stage"), delivery.FILES.items())
def test_description_feeds_a_file_as_training_did(
    recipe: str, stage: str, finished: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    monkeypatch.chdir(finished / "export")
    told = json.loads(pathlib.Path(f"student_{recipe}.json").read_text())
    names: dict = {}
    exec(told["snippets"]["python"], names)
    pixels = kd.data.open_saved(finished / "data").test.images[:50, :, :, 0]
    outputs = [names["outputs"](Image.fromarray(picture)) for picture in pixels]
    expected = np.load(finished / stage / "test_logits.npy")[:50]
    np.testing.assert_allclose(outputs, expected, atol=2 * (told["output"]["scale"] or 1e-4))
    assert told["labels"] == [str(digit) for digit in range(10)]
    source = finished / stage / told["source"]["name"]
    assert told["source"]["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()


def test_second_run_does_nothing_again(finished: pathlib.Path) -> None:
    before = (finished / "student" / "model.keras").stat().st_mtime_ns
    result = train(finished)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("done before") == 8
    assert (finished / "student" / "model.keras").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "kills",
    [["student: epoch 1/2"], ["teacher: epoch 1/2", "1_pruning: epoch 1/1"]],
    ids=["once", "twice"],
)
def test_killed_run_continues_to_the_same_weights(
    finished: pathlib.Path, tmp_path: pathlib.Path, kills: list[str]
) -> None:
    for marker in kills:
        process = subprocess.Popen(command(tmp_path), stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        for line in process.stderr:
            if marker in line:
                process.send_signal(signal.SIGKILL)
                break
        process.wait()
        process.stderr.close()
        assert process.returncode == -signal.SIGKILL
    result = train(tmp_path)
    assert result.returncode == 0, result.stderr
    for stage in ("teacher", "student_alone", "student"):
        ours, theirs = (weights(root / stage / "model.keras") for root in (tmp_path, finished))
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)
    name = "export/student_int8.tflite"
    assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()


def test_other_config_is_refused(finished: pathlib.Path) -> None:
    config = quickstart()
    config.student.epochs = 1
    with pytest.raises(kd.InputError, match=r"student\.epochs.*--overwrite"):
        pipeline.run(config, finished)
    assert json.loads((finished / "config.json").read_text())["student"]["epochs"] == 2


def test_overwrite_keeps_the_stages_that_the_change_does_not_concern(
    finished: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    config = quickstart()
    config.benchmark = ConfigDict({"runs": 60})
    pipeline.run(config, tmp_path / "run", overwrite=True)
    said = capsys.readouterr().err
    assert said.count("done before") == 7
    assert "benchmark: done before" not in said


@pytest.mark.slow
def test_a_deleted_folder_is_made_anew(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "data")
    result = train(tmp_path / "run")
    assert result.returncode == 0, result.stderr
    assert "data: done before" not in result.stderr
    assert result.stderr.count("done before") == 7


def test_second_process_is_refused(finished: pathlib.Path) -> None:
    with (
        filelock.FileLock(finished / ".lock"),
        pytest.raises(kd.InputError, match="another process"),
    ):
        pipeline.run(quickstart(), finished)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--config.student.modle=x", ("config.student.modle", "config.student.model")),
        ("--config.student.epochs=many", ("config.student.epochs", "many")),
        ("--config.compression[5].epochs=1", ("compression[5].epochs", "compression[0].epochs")),
        ("--config.teacher.path=missing.npz", ("missing.npz",)),
    ],
)
def test_bad_flag_is_one_line(flag: str, words: tuple[str, ...], tmp_path: pathlib.Path) -> None:
    line = complaint(train(tmp_path / "run", flag))
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("student.model", "convnet-9-q", ("convnet-9-q", "convnet-")),
        ("data.name", "cifar-10", ("cifar-10", "cifar10")),
        ("strategy", "mirorred", ("mirorred", "mirrored")),
        ("data.batch_size", 4096, ("4096", "1294")),
        ("distillation.methods.soft_targets.temperature", 0.0, ("temperature", "above 0")),
        ("distillation.methods.soft_targets.weight", -1.0, ("weight", "at least 0")),
        ("distillation.methods", {"hynt": {}}, ("hynt", "soft_targets")),
        ("distillation.adversarial", {"teacher_layer": "stage9"}, ("stage9", "features")),
        ("distillation.adversarial", {"regulariser": "l1"}, ("regulariser", "regularizer")),
        ("distillation.conditional", {"gan_form": "lsgan"}, ("adversarial and conditional",)),
        ("distillation", {"stages": {"one": {"metods": {}}}}, ("metods", "methods")),
        (
            "distillation",
            {"stages": {"one": {"optimizer": {"rate": 1}}}},
            ("'rate'", "learning_rate"),
        ),
        ("distillation", {"stages": {"one": {"trainable": "stage9"}}}, ("stage9", "stage1")),
        (
            "distillation",
            {"stages": {"one": {"trainable": ("pool1",)}}},
            ("pool1", "nothing to train"),
        ),
        ("distillation", {"stages": {"one": UNEQUAL_HINT}}, ("stage2", "64", "8")),
        ("distillation.stages", {"one": {"epochs": 1}}, ("beside them, methods",)),
        ("distillation.born_again", {"generation": 2}, ("'generation'", "generations")),
        ("teacher.members", {"one": {"model": "convnet-8"}}, ("at least two members",)),
        ("data.augmentation", {"flip": {}}, ("flip", "horizontal_flip")),
        ("student.optimizer.name", "adamm", ("adamm", "adamw")),
        ("student.epochs", 0, ("student.epochs", "from 1")),
        ("compression", [{"technique": "pruning", "sparsity": 1.5}], ("sparsity", "1.5")),
        ("compression", [{"technique": "pruning", "epochs": 0}], ("epochs 0", "pruning")),
        ("compression", [{"technique": "prune"}], ("prune", "filter_pruning")),
        ("compression", [{"technique": "pruning", "rate": 1}], ("rate", "sparsity")),
        (
            "compression",
            [{"technique": "low_rank", "optimizer": {"lr": 1}}],
            ("lr", "learning_rate"),
        ),
        (
            "compression",
            [{"technique": "quantization"}, {"technique": "pruning", "sparsity": 0.5}],
            ("pruning after quantization", "undo"),
        ),
        (
            "compression",
            [{"technique": "quantization", "float_layers": ["stage9"]}],
            ("stage9", "stage1"),
        ),
        (
            "compression",
            [{"technique": "quantization", "methods": {"hint": {"teacher_layer": "stage9"}}}],
            ("stage9", "stage1"),
        ),
        ("studnet", {}, ("studnet", "student")),
    ],
)
def test_bad_config_is_refused_before_training(
    key: str, value: object, words: tuple[str, ...], tmp_path: pathlib.Path
) -> None:
    config = quickstart()
    *sections, name = key.split(".")
    section = config
    for part in sections:
        if part not in section:
            section[part] = ConfigDict()
        section = section[part]
    section[name] = ConfigDict(value) if isinstance(value, dict) else value
    with pytest.raises(kd.InputError) as error:
        pipeline.run(config, tmp_path)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)
    assert not list(tmp_path.rglob("model.keras"))


def test_interrupted_run_says_that_it_can_go_on(tmp_path: pathlib.Path) -> None:
    process = subprocess.Popen(command(tmp_path), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "teacher: epoch 1/2" in line:
            process.send_signal(signal.SIGINT)
    process.wait()
    process.stderr.close()
    assert process.returncode == 130
    assert "Traceback" not in "".join(lines)
    assert "goes on from the last checkpoint" in lines[-1]
    assert list((tmp_path / "teacher" / "checkpoint").glob("ckpt-1.index"))


@pytest.mark.slow
def test_diverging_loss_names_term_and_step(tmp_path: pathlib.Path) -> None:
    rate = "--config.student.optimizer.learning_rate=1e30"
    line = complaint(train(tmp_path, rate))
    assert "loss is" in line
    assert "step" in line
    assert not (tmp_path / "student_alone" / "model.keras").exists()
    assert (tmp_path / "teacher" / "model.keras").exists()


def test_file_below_the_floor_fails_the_run(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    # A file that takes every image for a 0, in the place of the student's.
    shutil.copytree(finished, tmp_path / "run")
    model = kd.models.build("mlp-4", classes=10, input_shape=(8, 8, 1))
    model.get_layer("logits").set_weights([np.zeros((4, 10)), np.eye(10)[0]])
    target = tmp_path / "run" / "export" / "student_int8.tflite"
    tflite_export.convert(model, target, "float32", overwrite=True)
    (tmp_path / "run" / "stages" / "verify.json").unlink()
    with pytest.raises(tflite_export.ExportError, match=r"agreement.*floor 0\.5"):
        pipeline.run(quickstart(), tmp_path / "run")
    assert not (tmp_path / "run" / "stages" / "verify.json").exists()


def test_damaged_artefacts_are_named(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    model = tmp_path / "run" / "student" / "model.keras"
    model.write_bytes(model.read_bytes()[:1000])
    (tmp_path / "run" / "stages" / "student_compressed.json").unlink()
    with pytest.raises(kd.InputError, match=re.escape(str(model))):
        pipeline.run(quickstart(), tmp_path / "run")


@pytest.mark.slow
def test_unwritable_and_full_work_directories(tmp_path: pathlib.Path) -> None:
    assert "/proc" in complaint(train(pathlib.Path("/proc/kd-keras")))
    limited = subprocess.run(
        ["bash", "-c", 'ulimit -f 64; exec "$@"', "bash", *command(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    complaint(limited)
    assert not list(tmp_path.rglob("model.keras"))
