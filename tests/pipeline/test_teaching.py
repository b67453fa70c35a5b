"""The teacher of a run: from whatever file, cached or not, looked at before anything trains."""

import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from ml_collections import ConfigDict
from nets import assert_same, one_line
from sklearn.linear_model import LogisticRegression

import kd_keras as kd
import tflite_export
from kd_keras import pipeline
from kd_keras.errors import InputError
from kd_keras.pipeline import stages, teaching
from kd_keras.pipeline.job import opened

pytestmark = pytest.mark.tf_keras

#: Data, teacher, the cache if there is one, and the distilled student.
UP_TO_STUDENT = [stage for stage in stages.STAGES[:5] if stage.name != "student_alone"]


def config(**teacher: Any) -> ConfigDict:
    """A run of seconds: a tenth of the digits, and two networks of one hidden layer."""
    sections: dict[str, Any] = {
        "data": {"name": "digits", "limit": 160, "batch_size": 16},
        "teacher": {"model": "mlp-32", "epochs": 4, **teacher},
        "student": {"model": "mlp-8", "epochs": 3},
        "distillation": {"methods": {"soft_targets": {}, "hint": {"weight": 0.1}}},
    }
    return ConfigDict(sections)


def run(given: ConfigDict, folder: pathlib.Path) -> list[np.ndarray]:
    """Run up to the distilled student, and return its weights."""
    with opened(given, folder) as job:
        wanted = [stage for stage in UP_TO_STUDENT if stage.wanted(job)]
        stages._run(job, wanted, total=len(wanted))
    return kd.models.load_model(folder / "student" / "model.keras").get_weights()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("live")
    run(config(), folder)
    return folder


def student_of(folder: pathlib.Path) -> list[np.ndarray]:
    return kd.models.load_model(folder / "student" / "model.keras").get_weights()


def teacher_of(folder: pathlib.Path) -> Any:
    return kd.models.load_model(folder / "teacher" / "model.keras")


def test_a_cached_run_ends_with_the_weights_of_a_live_one(
    live: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The layers to cache are those that the config's methods read."""
    weights = run(config(cache={"views": 1, "dtype": "float32"}), tmp_path)
    assert_same(weights, student_of(live), atol=1e-5)
    found = json.loads((tmp_path / "teacher_cache" / "cache.json").read_text())
    assert list(found["outputs"]["layers"]) == ["features"]


@pytest.mark.slow
def test_a_cache_filled_in_parts_is_not_filled_again(tmp_path: pathlib.Path) -> None:
    given = config(cache={"views": 2, "path": str(tmp_path / "shared")})
    given.data.augmentation = {"shift": {"pixels": 1}}
    for index in (0, 1):
        part = {"shard_index": index, "num_shards": 2}
        pipeline.fill_cache(given, tmp_path / f"worker{index}", **part)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "shared").iterdir()}
    assert len([name for name in before if name.endswith(".tfrecord")]) == 2
    run(given, tmp_path / "run")
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "shared").iterdir()}
    assert after == before
    weights = student_of(tmp_path / "run")
    shard = next((tmp_path / "shared").glob("view001*"))
    content = shard.read_bytes()
    shard.write_bytes(content[:-20])
    shutil.rmtree(tmp_path / "run" / "student")
    assert_same(run(given, tmp_path / "run"), weights)
    assert shard.read_bytes() == content, "a stage that opens the cache makes it whole"
    put_another_teachers_cache(given, tmp_path / "shared")
    shutil.rmtree(tmp_path / "run" / "student")
    with pytest.raises(InputError) as error:
        run(given, tmp_path / "run")
    one_line(error, "from another teacher", str(tmp_path / "shared"))


def put_another_teachers_cache(given: ConfigDict, folder: pathlib.Path) -> None:
    shutil.rmtree(folder)
    other = ConfigDict({**given.to_dict(), "seed": given.get("seed", 0)})
    other.teacher.epochs = 1
    pipeline.fill_cache(other, folder.parent / "other", shard_index=0, num_shards=1)


@pytest.mark.slow
def test_files_teach_as_the_network_did(
    live: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    """The same teacher as a TFLite file and as predictions for the training images."""
    teacher = teacher_of(live)
    path = tmp_path / "teacher.tflite"
    tflite_export.convert(teacher, path, "float32")
    given = config(path=str(path))
    given.distillation.methods = {"soft_targets": {}}
    from_tflite = run(given, tmp_path / "tflite")
    assert "on validation" in capsys.readouterr().err
    data = kd.data.open_saved(live / "data")
    normalization = json.loads((live / "config.json").read_text())["data"]
    assert normalization["mean"] == [], "the config gives none, so it is that of the images"
    with opened(config(), live) as job:
        predicted = teacher.predict(job.images(data.train), verbose=0)
    np.save(tmp_path / "predicted.npy", predicted)
    given.teacher.path = str(tmp_path / "predicted.npy")
    from_predictions = run(given, tmp_path / "predictions")
    assert_same(from_predictions, from_tflite, atol=1e-4)
    printed = capsys.readouterr().err
    assert "on train" in printed
    assert "on validation" not in printed


def linear_classifier(order: np.ndarray) -> Any:
    """A good teacher of the digits, whose output j is of class `order[j]`."""
    train = kd.data.load("digits").train
    images = kd.data.normalization.from_data(train).apply(train.images).reshape(-1, 64)
    fitted = LogisticRegression(max_iter=200).fit(images, train.labels)
    layers = [tf.keras.Input((8, 8, 1)), tf.keras.layers.Flatten(), tf.keras.layers.Dense(10)]
    model = tf.keras.Sequential(layers)
    model.layers[-1].set_weights([fitted.coef_.T[:, order], fitted.intercept_[order]])
    return model


def test_a_whole_model_in_h5_needs_no_other_change(
    live: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """The config names a network, for which files of weights are taken."""
    teacher_of(live).save(tmp_path / "teacher.h5")
    with opened(config(path=str(tmp_path / "teacher.h5"), model="mlp-7"), tmp_path) as job:
        stages._run(job, UP_TO_STUDENT[:2], total=2)
        found = teaching.load(job).model.get_weights()
    assert_same(found, teacher_of(live).get_weights())


def test_a_file_that_has_changed_is_refused(live: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "teacher.tflite"
    tflite_export.convert(teacher_of(live), path, "float32")
    given = config(path=str(path))
    given.distillation.methods = {"soft_targets": {}}
    with opened(given, tmp_path / "run") as job:
        stages._run(job, UP_TO_STUDENT[:2], total=2)
        other = kd.models.build("mlp-8", classes=10, input_shape=(8, 8, 1))
        tflite_export.convert(other, path, "float32", overwrite=True)
        with pytest.raises(InputError) as error:
            teaching.load(job)
    one_line(error, str(path), "not the teacher that this run began with")


def test_a_bad_teacher_is_warned_of(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    """Its classes are in another order, which the run's own class_map puts right."""
    order = np.roll(np.arange(10), 1)
    path = tmp_path / "rolled.keras"
    linear_classifier(order).save(path)
    right = [int(np.flatnonzero(order == digit)[0]) for digit in range(10)]
    for class_map, is_warned_of in (((), True), (right, False)):
        given = config(path=str(path), class_map=tuple(class_map))
        given.data.limit = 600  # few examples say little of an order
        given.distillation.methods = {"soft_targets": {}}
        with opened(given, tmp_path / f"run{is_warned_of}") as job:
            stages._run(job, UP_TO_STUDENT[:2], total=2)
            assert teaching.quality_of(job)["warnings"] == [] or is_warned_of
        printed = capsys.readouterr().err
        assert "teacher: accuracy" in printed
        assert ("warning: the teacher's accuracy" in printed) == is_warned_of
        assert ("class_map" in printed) == is_warned_of


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cache": {"views": -1}}, ("teacher.cache.views", "-1", "from 0")),
        ({"cache": {"views": 1, "dtype": "int8"}}, ("int8", "float32, float16")),
        ({"cache": {"views": 1, "top_k": 10}}, ("top_k is 10", "from 1 to 9")),
        ({"class_map": (0, 1, 2)}, ("the teacher has 3", "the student 10", "ClassMap")),
        ({"path": "teacher.pkl", "model": ""}, ("pickle", "run any code")),
        ({"path": "teacher.tflite"}, ("'teacher.tflite' does not exist",)),
    ],
)
def test_bad_input(change: dict, words: tuple, tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError) as error:
        pipeline.run(config(**change), tmp_path)
    one_line(error, *words)
    assert not (tmp_path / "student_alone").exists()


def test_views_that_no_cache_can_hold(tmp_path: pathlib.Path) -> None:
    given = config(cache={"views": 2})
    given.data.augmentation = {"mix_up": {}}
    with pytest.raises(InputError) as error:
        pipeline.run(given, tmp_path)
    one_line(error, "mix_up", "leave them out")
    assert not (tmp_path / "teacher" / "model.keras").exists()
    with pytest.raises(InputError) as error:
        pipeline.fill_cache(config(), tmp_path / "parts", shard_index=0, num_shards=2)
    one_line(error, "config.teacher.cache", "give both")


def test_predictions_of_other_examples(tmp_path: pathlib.Path) -> None:
    np.save(tmp_path / "few.npy", np.eye(10)[:5])
    with pytest.raises(InputError) as error:
        pipeline.run(config(path=str(tmp_path / "few.npy")), tmp_path / "run")
    one_line(error, "5 examples", "few.npy")
    tf.keras.backend.clear_session()
