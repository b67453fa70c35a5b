"""The part of the training set that a student sees, while its teacher has seen all of it."""

import pathlib

import numpy as np
import pytest
from ml_collections import ConfigDict
from nets import one_line

from kd_keras import pipeline
from kd_keras.errors import InputError
from kd_keras.pipeline import config as configs
from kd_keras.pipeline import stages
from kd_keras.pipeline.job import opened
from kd_keras.pipeline.workdir import read_json

pytestmark = pytest.mark.tf_keras


def config(**sections: dict) -> ConfigDict:
    return ConfigDict(
        {
            "data": {"name": "digits", "batch_size": 16},
            "teacher": {"model": "mlp-8", "epochs": 1, "cache": {"views": 1}},
            "student": {"model": "mlp-4", "epochs": 1},
            "distillation": {"methods": {"soft_targets": {}}},
            "compression": [],
            **sections,
        }
    )


def test_the_teacher_learns_from_all_and_the_student_from_its_part(tmp_path: pathlib.Path) -> None:
    given = config()
    part = {"share": 0.2, "without_classes": (3, 7), "augmented": False}
    given.student.transfer_set = ConfigDict(part)
    given.data.augmentation = ConfigDict({"shift": {"pixels": 1}})
    with opened(given, tmp_path) as job:
        stages.run(job, ["data"])
        train = job.dataset.train
        assert len(job.teacher_views) == len(train)
        assert job.teacher_views.augmentation is not None
        for views in (job.views, job.taught_views, job.plain_views):
            assert views.augmentation is None
            counts = np.bincount(train.labels[views.rows], minlength=10)
            assert counts[3] == counts[7] == 0
            assert counts.sum() == round(0.2 * (~np.isin(train.labels, (3, 7))).sum())
        assert job.steps_per_epoch == len(job.views) // 16
        calibrating = job.normalization.apply(train.images[job.views.rows[:512]])
        np.testing.assert_array_equal(job.calibration_images(), calibrating)
        # Another part of the same data takes its teacher, but not the cache of its outputs.
        by_name = {stage.name: stage for stage in stages.STAGES}
        whole = by_name["teacher"].inputs(job)
        assert "transfer_set" not in str(whole)
        assert "transfer_set" in str(by_name["student_alone"].inputs(job))


def test_a_run_from_before_a_key_existed_still_counts() -> None:
    new = configs.plain(configs.complete(config()))
    old = configs.plain(configs.complete(config()))
    del old["student"]["transfer_set"]
    assert configs.differences(old, new) == []
    new["student"]["transfer_set"]["share"] = 0.5
    assert configs.differences(old, new) == ["student.transfer_set.share"]
    # A list with fewer entries does not stand at its default.
    pruned = {"compression": [{"technique": "pruning", "sparsity": 0.5}]}
    both = {"compression": [*pruned["compression"], {"technique": "quantization"}]}
    assert configs.differences(pruned, both) == ["compression[1].technique"]


def test_none_in_a_free_form_section_is_not_a_missing_key() -> None:
    plain = {"distillation": {"adversarial": {}}}
    unregularized = {"distillation": {"adversarial": {"regularizer": None}}}
    key = "distillation.adversarial.regularizer"
    assert configs.differences(plain, unregularized) == [key]
    assert configs.differences(unregularized, plain) == [key]
    assert configs.differences(unregularized, unregularized) == []
    assert configs.changed(unregularized) == {key: None}


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"share": 0.0}, ("config.student.transfer_set.share is 0.0", "above 0")),
        ({"share": 1.5}, ("1.5", "at most 1")),
        ({"without_classes": (12,)}, ("class 12", "0 to 9")),
    ],
)
def test_bad_input(section: dict, words: tuple, tmp_path: pathlib.Path) -> None:
    given = config(student={"model": "mlp-4", "epochs": 1, "transfer_set": section})
    with pytest.raises(InputError) as error:
        pipeline.run(given, tmp_path)
    one_line(error, *words)


@pytest.mark.slow
def test_a_class_that_was_never_seen_is_known_when_its_bias_is_raised(
    tmp_path: pathlib.Path,
) -> None:
    given = config(
        teacher={"model": "mlp-64", "epochs": 20, "cache": {"views": 1}},
        student={
            "model": "mlp-64",
            "epochs": 30,
            "transfer_set": {"without_classes": (3,)},
        },
        distillation={
            "label_weight": 1.0,  # which says that there are no 3s
            "methods": {"soft_targets": {"temperature": 8.0}},
        },
        compression=[{"technique": "class_bias", "classes": (3,)}],
        verify={"agreement": 0.5},
    )
    models = pipeline.run(given, tmp_path)["models"]
    accuracies = {name: one["class_accuracy"]["3"] for name, one in models.items()}
    assert accuracies["student_alone"] == 0.0
    assert accuracies["student_compressed"] > max(0.7, accuracies["student"])
    sizes = read_json(tmp_path / "report.json")["data"]
    cached = read_json(tmp_path / "teacher_cache" / "cache.json")["data"]["examples"]
    assert cached == sizes["transfer_set"] < sizes["train"]
