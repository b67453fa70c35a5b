"""`kd-table`: what is missing is run, and the figures are those of the reports."""

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

import pytest

import kd_keras as kd
from kd_keras.pipeline import config as configs
from kd_keras.pipeline import tables, tables_figures, tables_page, tables_record
from tflite_export.measuring.result import ModelFile, Reading

pytestmark = pytest.mark.tf_keras

ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLE = """
from ml_collections import ConfigDict

def get_table():
    rows = {
        "alone": {"label": "float, alone", "file": "float32"},
        "ptq": {"label": "int8, alone", "run": "alone"},
        "taught": {"label": "pruned, distilled", "source": "91.0"},
    }
    return {"title": "Digits", "seeds": (0, 1), "rows": rows}

def get_config(run="taught"):
    methods = {"soft_targets": {}} if run == "taught" else {}
    compression = [{"technique": "pruning", "sparsity": 0.5}] if run == "taught" else []
    config = ConfigDict({"teacher": {"model": "convnet-8"}, "student": {"model": "convnet-4"}})
    config.distillation = ConfigDict({"methods": methods})
    config.compression = compression
    return config
"""


def of_file(accuracy: float, size: int) -> dict:
    return {"accuracy": accuracy, "agreement": 0.99, "bytes": size, "gzip_bytes": size // 2}


def report(table: tables.Table, run: str, seed: int, accuracy: float) -> None:
    """Leave what a run would leave."""
    config = table.get_config(run)
    config.seed = seed
    model = {"accuracy": accuracy, "parameters": 5, "macs": 100, "sparsity": 0.5}
    model["class_accuracy"] = {"3": 0.75}
    cost = {"student_alone": 10.0, "student": 20.0, "student_compressed": 5.0, "teacher": 9.0}
    folder = table.folder(run, seed)
    folder.mkdir(parents=True)
    written = {
        "config": configs.plain(configs.complete(config)),
        "models": {"student_compressed": model, "teacher": {**model, "accuracy": 0.98}},
        "tflite": {"float32": of_file(accuracy, 4000), "int8": of_file(accuracy - 0.01, 1000)},
        "cpu_seconds": cost,
        "created": "2026-01-01",
        "machine": {"cpu": "a"},
        "data": {"name": "digits"},
    }
    (folder / "report.json").write_text(json.dumps(written))


@pytest.fixture
def table(tmp_path: pathlib.Path) -> tables.Table:
    (tmp_path / "small.py").write_text(TABLE)
    return tables.load(str(tmp_path / "small.py"), str(tmp_path / "runs"))


def test_only_what_is_missing_is_run(table: tables.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = []

    def called(command: list[str], **_: object) -> subprocess.CompletedProcess:
        commands.append(command)
        return subprocess.CompletedProcess(command, returncode=1 if "seed1" in command[-2] else 0)

    monkeypatch.setattr(tables.subprocess, "run", called)
    report(table, "alone", 0, 0.9)
    failed = tables.run_missing(table, list(table.rows), [0], {})
    [command] = commands
    assert command[:3] == [sys.executable, "-m", "kd_keras.train"]
    assert f"--config={table.path}:taught" in command
    assert "--config.seed=0" in command
    assert f"--reuse={table.folder('alone', 0)}" in command
    assert not failed

    # A report that another config made does not count.
    path = table.folder("alone", 0) / "report.json"
    changed = json.loads(path.read_text())
    changed["config"]["student"]["epochs"] = 99
    path.write_text(json.dumps(changed))
    assert table.report("alone", 0) is None


def test_the_figures_are_those_of_the_reports(table: tables.Table, tmp_path: pathlib.Path) -> None:
    for seed, accuracy in enumerate((0.90, 0.92)):
        report(table, "alone", seed, accuracy)
    report(table, "taught", 0, 0.95)
    found = tables_figures.results(table, list(table.rows), [0, 1], {})
    assert [found["alone"][seed]["file_accuracy"] for seed in (0, 1)] == [0.90, 0.92]
    assert found["ptq"][0]["file_accuracy"] == pytest.approx(0.89)
    assert found["ptq"][0]["bytes"] == 1000
    # The student alone costs its own training, a compressed one both of its trainings.
    assert found["alone"][0]["cpu_seconds"] == 10.0
    assert found["taught"][0]["cpu_seconds"] == 25.0

    text = tables_page.markdown(table, found)
    deviation = 100 * statistics.stdev([0.90, 0.92])
    assert f"91.00 ± {deviation:.2f}" in text
    assert "| pruned, distilled | 91.0 | 95.00 | 94.00 |" in text
    assert text.splitlines()[-1].endswith("| 1 | taught |")

    tables_page.write(table, found, tmp_path / "out")
    path = tmp_path / "out" / "small.md"
    path.write_text(path.read_text() + "\nBy hand.\n")
    tables_page.write(table, found, tmp_path / "out")
    assert path.read_text().endswith("\nBy hand.\n")
    assert path.read_text().count("By hand.") == 1
    raw = json.loads((tmp_path / "out" / "small.json").read_text())
    assert raw["rows"]["taught"]["0"]["accuracy"] == 0.95
    assert (tmp_path / "out" / "small.svg").read_text().count("pruned, distilled") >= 1


def test_figures_outlive_the_folders_of_their_runs(
    table: tables.Table, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report(table, "alone", 0, 0.9)
    found = tables_figures.results(table, list(table.rows), [0, 1], {})
    found["alone"][0] |= {"latency_us": 7.0}
    tables_record.write(table, found, tmp_path)

    # The report is there: its figures, and the latency that was measured of its file.
    kept = tables_record.read(table, tmp_path)
    assert tables_figures.results(table, list(table.rows), [0, 1], kept) == found

    # It is gone: what was kept is shown and not run again.
    shutil.rmtree(table.workdir)
    assert tables_figures.results(table, [], [], kept)["alone"][0] == found["alone"][0]
    commands = []

    def called(command: list[str], **_: object) -> subprocess.CompletedProcess:
        commands.append(command)
        return subprocess.CompletedProcess(command, returncode=0)

    monkeypatch.setattr(tables.subprocess, "run", called)
    tables.run_missing(table, ["alone", "ptq", "taught"], [0], kept)
    [command] = commands
    assert f"--config={table.path}:taught" in command
    with pytest.raises(kd.InputError, match="is not there: give no --output"):
        tables_figures.measure(table, {"alone": {0: dict(found["alone"][0])}})

    # The table's file asks for something else.
    path = pathlib.Path(table.path)
    path.write_text(TABLE.replace('"convnet-4"', '"convnet-6"'))
    assert not tables_record.read(tables.load(str(path), str(table.workdir)), tmp_path)


def test_a_record_keeps_its_curves_on_a_line(table: tables.Table, tmp_path: pathlib.Path) -> None:
    result = {"error": 0.25, "validation_errors": [0.5, 0.25], "class_errors": {}}
    tables_record.write(table, {"alone": {0: result}}, tmp_path)
    assert '"validation_errors": [0.5, 0.25],' in (tmp_path / "small.json").read_text()
    assert tables_record.read(table, tmp_path) == {"alone": {0: result}}


ERRORS = TABLE.replace(
    '"seeds": (0, 1)',
    '"seeds": (0, 1, 2), "columns": ("error", "file_error", "epochs"), "spread": "error", '
    '"classes": ("3",)',
).replace(
    '    return {"title"',
    '    rows["alone"] |= {"baseline": True, "group": "1 %"}\n'
    '    rows["teacher"] = {"label": "teacher", "run": "taught", "model": "teacher"}\n'
    '    return {"title"',
)


def test_a_table_of_errors(tmp_path: pathlib.Path) -> None:
    (tmp_path / "errors.py").write_text(ERRORS)
    table = tables.load(str(tmp_path / "errors.py"), str(tmp_path / "runs"))
    accuracies = (0.90, 0.92, 0.97)
    for seed, accuracy in enumerate(accuracies):
        report(table, "alone", seed, accuracy)
        report(table, "taught", seed, accuracy)
        for run, stage in (("alone", "student_alone"), ("taught", "student")):
            folder = table.folder(run, seed) / stage
            folder.mkdir()
            epochs = [{"epoch": n, "val_accuracy": 0.5 + 0.1 * n} for n in range(3)]
            (folder / "history.json").write_text(json.dumps(epochs))
    found = tables_figures.results(table, list(table.rows), table.seeds, {})
    assert found["taught"][1]["validation_errors"] == [0.5, 0.4, 0.3]
    errors = [100 * (1 - accuracy) for accuracy in accuracies]
    cell = f"{statistics.mean(errors):.2f} ± {statistics.stdev(errors) / 3**0.5:.2f}"
    lines = tables_page.markdown(table, found).splitlines()
    heads = (
        "|  | Source | Error, % | File's error, % | Epochs | Error on 3, % | Seeds | `--rows=` |"
    )
    assert lines[0] == heads
    assert f"| 1 %: float, alone |  | {cell} | {cell} | 10 | 25.00 ± 0.00 | 3 | alone |" in lines
    # Pruning adds its epochs to the student's; a teacher has no file.
    assert f"| pruned, distilled | 91.0 | {cell} |" in lines[4]
    assert "| 13 |" in lines[4]
    assert "| teacher |  | 2.00 ± 0.00 | – | 10 |" in lines[5]

    tables_page.write(table, found, tmp_path / "out")
    text = (tmp_path / "out" / "errors.md").read_text()
    assert "mean ± standard error" in text
    assert "--rows=" in text
    assert (tmp_path / "out" / "errors.svg").read_text().count("pruned, distilled") >= 1
    curves = (tmp_path / "out" / "errors_curves.svg").read_text()
    assert curves.index("1 %") < curves.index("float, alone")  # the group above the label


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('"file_error"', '"file_errors"'), ("'file_errors'", "file_error")),
        (('"spread": "error"', '"spread": "range"'), ("'range'", "deviation, error")),
    ],
)
def test_what_a_table_cannot_show(change: tuple, words: tuple, tmp_path: pathlib.Path) -> None:
    (tmp_path / "errors.py").write_text(ERRORS.replace(*change))
    table = tables.load(str(tmp_path / "errors.py"))
    with pytest.raises(kd.InputError) as error:
        tables_page.markdown(table, {})
    for word in words:
        assert word in str(error.value)


class Clock:
    """A device that takes as many microseconds as a file has bytes."""

    kind, notes, backends, cores = "clock", (), ("xnnpack",), ("all",)

    def facts(self) -> dict:
        return {}

    def read(self, model: ModelFile, setting: object, effort: object) -> tuple:
        return Reading(runs=1, mean=model.bytes, median=float(model.bytes)), None

    def peak_memory(self, model: object, setting: object) -> None:
        return None

    def agreement(self, model: object, setting: object) -> None:
        return None


def test_all_files_are_timed_in_turn(table: tables.Table) -> None:
    report(table, "alone", 1, 0.9)
    export = table.folder("alone", 1) / "export"
    export.mkdir()
    (export / "student_float32.tflite").write_bytes(b"1234")
    (export / "student_int8.tflite").write_bytes(b"1")
    found = tables_figures.results(table, list(table.rows), [0, 1], {})
    tables_figures.measure(table, found, Clock())
    assert (found["alone"][1]["latency_us"], found["ptq"][1]["latency_us"]) == (4.0, 1.0)
    assert found["ptq"][1]["latency_ratio"] == 0.25
    assert "| 0.25 |" in tables_page.markdown(table, found)


@pytest.mark.parametrize(
    ("spec", "rows", "seeds", "words"),
    [
        ("none.py", [], [], ("none.py", "does not exist")),
        ("small.py:other", [], [], ("no table 'other'",)),
        ("small.py", ["tought"], [], ("tought", "taught")),
        ("small.py", [], ["one"], ("'one'", "whole number")),
    ],
)
def test_bad_input_is_told(
    table: tables.Table, spec: str, rows: list, seeds: list, words: tuple, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(kd.InputError) as error:
        tables.chosen(tables.load(str(tmp_path / spec)), rows, seeds)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        *((f"compression.py:{n}", 18) for n in ("fashion_mnist", "cifar10_resnet8")),
        ("compression.py:cifar10_resnet20", 18),
        ("mnist_hinton.py", 8),
        ("fashion_mnist_anc.py", 17),
        ("cifar10_resnet56_to_resnet8.py", 15),
        ("scarce_labels.py", 35),
        ("scarce_labels.py:smoke", 35),
    ],
)
def test_rows_of_our_tables_are_configs(spec: str, count: int) -> None:
    table = tables.load(f"{ROOT}/configs/tables/{spec}")
    assert len(table.rows) == count
    tables_page.markdown(table, {})  # it has the columns
    runs = {}
    for row in table.rows.values():
        given = configs.complete(table.get_config(table.run_name(row["run"])))
        configs.check(given)
        runs[row["run"]] = given.to_json()
    assert len(set(runs.values())) == len(runs), "two runs are the same"


@pytest.mark.slow
def test_a_table_runs_at_its_smoke_size(tmp_path: pathlib.Path, tfds_dir: str) -> None:
    """One row of a paper's table, with its transfer set, its bias and its teacher."""
    command = [sys.executable, "-m", "kd_keras.table", "--rows=teacher,without_3_bias"]
    command += [f"--table={ROOT}/configs/tables/mnist_hinton.py:smoke", f"--output={tmp_path}"]
    environment = {**os.environ, "TFDS_DATA_DIR": tfds_dir}
    subprocess.run(
        [*command, f"--workdir={tmp_path}/runs"], env=environment, check=True, timeout=500
    )
    rows = json.loads((tmp_path / "smoke.json").read_text())["rows"]
    assert rows["without_3_bias"]["0"]["class_errors"]["3"] < 1
    assert rows["teacher"]["0"]["epochs"] == 2
    assert (tmp_path / "smoke_curves.svg").exists()
