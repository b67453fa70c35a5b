"""The main job on several replicas, and who writes what."""

import json
import os
import pathlib
import runpy
import socket
import subprocess
import sys

import pytest

from kd_keras import pipeline
from kd_keras.errors import InputError
from kd_keras.pipeline import strategies

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "configs" / "quickstart.py"


def test_names_are_checked() -> None:
    with pytest.raises(InputError, match=r"'mirorred' does not exist; there are: default, mirr"):
        strategies.make("mirorred")


def test_mirrored_takes_all_devices() -> None:
    assert strategies.make("mirrored").num_replicas_in_sync == 2
    # A second one would use the collective keys of the first: two runs of one process share it.
    assert strategies.make("mirrored") is strategies.make("mirrored")
    assert strategies.make("default").num_replicas_in_sync == 1


def test_multi_worker_needs_its_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(InputError, match="TF_CONFIG"):
        strategies.make("multi_worker")


def test_tpu_is_missing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TPU_NAME", raising=False)
    with pytest.raises(InputError, match="finds no TPU"):
        strategies.make("tpu")


@pytest.mark.parametrize(
    ("task", "chief"),
    [
        (None, True),
        ({"type": "worker", "index": 0}, True),
        ({"type": "worker", "index": 1}, False),
        ({"type": "chief", "index": 0}, True),
    ],
)
def test_chief(task: dict | None, chief: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if task is not None:
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {}, "task": task}))
    assert strategies.is_chief() == chief


@pytest.mark.tf_keras
@pytest.mark.slow
def test_two_replicas_run_every_stage(tmp_path: pathlib.Path) -> None:
    config = runpy.run_path(str(QUICKSTART))["get_config"]("smoke")
    config.strategy = "mirrored"
    report = pipeline.run(config, tmp_path)
    assert report is not None
    assert report["tflite"]["int8"]["agreement"] >= 0.5
    assert report["models"]["student_compressed"]["sparsity"] > 0.4


@pytest.mark.tf_keras
@pytest.mark.slow
def test_two_workers_share_one_work_directory(tmp_path: pathlib.Path) -> None:
    workers = [f"127.0.0.1:{_free_port()}" for _ in range(2)]
    processes = [_start_worker(workers, index, tmp_path / "run") for index in range(2)]
    outputs = [process.communicate(timeout=550)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    assert "report:" in outputs[0]
    assert "report:" not in outputs[1]
    assert (tmp_path / "run" / "report.html").exists()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _start_worker(workers: list[str], index: int, workdir: pathlib.Path) -> subprocess.Popen:
    cluster = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
    command = [sys.executable, "-m", "kd_keras.train", f"--config={QUICKSTART}:smoke"]
    command += [f"--workdir={workdir}", "--config.strategy=multi_worker"]
    return subprocess.Popen(
        command,
        env={**os.environ, "TF_CONFIG": json.dumps(cluster), "TF_USE_LEGACY_KERAS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
