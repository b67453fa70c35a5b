"""What a work directory says that its stages have cost."""

import pathlib
import time

import numpy as np
import pytest
import tensorflow as tf

from kd_keras.pipeline import fitting
from kd_keras.pipeline.workdir import Workdir, read_json, write_json


def killed_after(seconds: float, folder: pathlib.Path) -> None:
    workdir = Workdir(folder)
    workdir.begin("teacher", {"seed": 0})
    workdir.scratch("teacher").mkdir(exist_ok=True)
    time.sleep(seconds)
    workdir.keep_cost()


@pytest.mark.any_keras
def test_a_stage_costs_what_all_its_processes_took(tmp_path: pathlib.Path) -> None:
    for _ in range(2):
        killed_after(0.1, tmp_path)
    workdir = Workdir(tmp_path)
    workdir.begin("teacher", {"seed": 0})
    sum(range(1_000_000))
    record = workdir.finish("teacher", {"seed": 0})
    assert record["seconds"] >= 0.2
    assert 0 < record["cpu_seconds"] < record["seconds"]


@pytest.mark.any_keras
@pytest.mark.parametrize(
    ("seed", "is_deleted", "counts"), [(0, False, True), (1, False, False), (0, True, False)]
)
def test_only_what_is_gone_on_with_counts(
    tmp_path: pathlib.Path, seed: int, is_deleted: bool, counts: bool
) -> None:
    killed_after(0.0, tmp_path)
    workdir = Workdir(tmp_path)
    begun = workdir.path("stages", "teacher.begun.json")
    write_json(begun, {**read_json(begun), "seconds": 1e6})
    if is_deleted:
        workdir.path("teacher").rmdir()
    workdir.begin("teacher", {"seed": seed})
    workdir.scratch("teacher").mkdir(exist_ok=True)
    assert (workdir.finish("teacher", {"seed": seed})["seconds"] >= 1e6) == counts


def test_a_training_keeps_its_cost_with_each_checkpoint(tmp_path: pathlib.Path) -> None:
    workdir = Workdir(tmp_path)
    workdir.begin("teacher", {})
    at_start = workdir.path("stages", "teacher.begun.json").read_text()
    model = tf.keras.Sequential([tf.keras.Input((2,)), tf.keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    batches = tf.data.Dataset.from_tensors((np.ones((4, 2)), np.ones((4, 1)))).repeat()
    fitting.fit(
        *(model, workdir, "teacher"),
        batches=lambda first: batches,
        steps_per_epoch=1,
        validation=None,
        epochs=1,
        seed=0,
    )
    assert workdir.path("stages", "teacher.begun.json").read_text() != at_start
