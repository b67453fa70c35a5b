"""`config.compression`: a list of techniques, in order, each trained by what it says."""

import json
import pathlib
import runpy

import numpy as np
import pytest
from ml_collections import ConfigDict

import kd_keras as kd
import tflite_export
from kd_keras import pipeline
from kd_keras.compression import kernels, order
from kd_keras.pipeline import fitting, results_table
from kd_keras.pipeline.workdir import Workdir

pytestmark = pytest.mark.tf_keras

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHAIN = [
    {"technique": "filter_pruning", "multiply_adds": 0.7, "epochs": 1},
    {"technique": "dead_channels"},
    {"technique": "pruning", "sparsity": 0.5, "epochs": 1, "methods": {"logits_l2": {}}},
    {"technique": "quantization", "epochs": 1},
]
CLUSTERED = [
    {"technique": "batch_norm_folding"},
    {"technique": "low_rank", "error": 0.7, "epochs": 1},
    {"technique": "pruning", "sparsity": 0.5, "epochs": 1},
    {"technique": "clustering", "clusters": 8, "epochs": 1},
    {"technique": "quantization", "epochs": 1, "keep_clusters": True},
]


def smoke(**sections: object) -> ConfigDict:
    config = runpy.run_path(str(ROOT / "configs" / "quickstart.py"))["get_config"]("smoke")
    config.distillation = ConfigDict({"methods": {"soft_targets": {}}})
    config.teacher.epochs = config.student.epochs = 1
    for name, value in sections.items():
        config[name] = ConfigDict(value) if isinstance(value, dict) else value
    return config


class KilledError(Exception):
    """What stands for a SIGKILL."""


@pytest.fixture(scope="module")
def chained(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run of the whole chain that was killed after its first training, and went on."""
    workdir, fit = tmp_path_factory.mktemp("chained"), fitting.fit
    trained: list[str] = []

    def killed_at_pruning(model: object, folder: Workdir, stage: str, **options: object) -> object:
        if stage.endswith("3_pruning") and trained.count(stage) == 0:
            trained.append(stage)
            raise KilledError
        trained.append(stage)
        return fit(model, folder, stage, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "fit", killed_at_pruning)
        with pytest.raises(KilledError):
            pipeline.run(smoke(compression=CHAIN), workdir)
        pipeline.run(smoke(compression=CHAIN), workdir)
    assert trained.count("student_compressed/1_filter_pruning") == 1
    assert trained[-2:] == ["student_compressed/3_pruning", "student_compressed/4_quantization"]
    return workdir


def model(workdir: pathlib.Path, folder: str) -> object:
    return kd.models.load_model(workdir / folder / "model.keras")


@pytest.mark.slow
def test_each_technique_does_its_part(chained: pathlib.Path) -> None:
    report = json.loads((chained / "report.json").read_text())
    student, smaller = (
        model(chained, "student"),
        model(chained, "student_compressed/1_filter_pruning"),
    )
    macs = tflite_export.multiply_adds
    assert 0.4 * macs(student) < macs(smaller) <= 0.7 * macs(student)
    pruned = kernels.kernels(model(chained, "student_compressed/3_pruning"))
    assert all(np.mean(kernel == 0) >= 0.5 for kernel in pruned.values())
    assert report["models"]["student_compressed"]["sparsity"] >= 0.49
    assert report["tflite"]["int8"]["agreement"] > 0.95
    labels = [row.label for row in results_table.rows(report)]
    assert labels[3:7] == [
        *("… after filter pruning", "… after dead channels", "… after pruning"),
        "Compressed student",
    ]


@pytest.mark.slow
def test_zeros_and_clusters_survive_what_follows(
    chained: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    report = pipeline.run(smoke(compression=CLUSTERED), tmp_path, reuse=[chained])
    assert report is not None
    assert (tmp_path / "student").is_symlink()
    pruned = kernels.kernels(model(tmp_path, "student_compressed/3_pruning"))
    clustered = kernels.kernels(model(tmp_path, "student_compressed/4_clustering"))
    # One with as few weights as clusters, such as 3 x 1 of rank 1, is not clustered.
    large = {name: kernel for name, kernel in clustered.items() if kernel.size > 8}
    assert len(large) >= len(clustered) - 1
    assert all(np.mean(pruned[name] == 0) >= 0.5 for name in large)
    for name, kernel in large.items():
        assert len(np.unique(kernel)) <= 8
        assert np.all(kernel[pruned[name] == 0] == 0)
    assert report["models"]["student_compressed"]["sparsity"] >= 0.49
    assert report["tflite"]["int8"]["agreement"] > 0.95


@pytest.mark.slow
def test_a_step_learns_from_what_it_says(chained: pathlib.Path) -> None:
    logs = {
        path.parent.name: json.loads(path.read_text())[-1]
        for path in (chained / "student_compressed").rglob("history.json")
    }
    assert "logits_l2" in logs["3_pruning"]
    assert "soft_targets" not in logs["3_pruning"]
    assert "soft_targets" in logs["4_quantization"]
    assert "2_dead_channels" not in logs


@pytest.mark.slow
def test_without_distillation_the_student_is_the_student_alone(
    chained: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    config = smoke(distillation={"methods": {}}, compression=[])
    report = pipeline.run(config, tmp_path / "run", reuse=[tmp_path / "none", chained])
    assert report is not None
    for stage in ("data", "teacher", "student_alone"):
        assert (tmp_path / "run" / stage).is_symlink()
    assert not (tmp_path / "run" / "student").is_symlink()
    alone, student = (model(tmp_path / "run", name) for name in ("student_alone", "student"))
    for one, other in zip(alone.get_weights(), student.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    # Nothing is trained for quantization: the file is quantized after training.
    assert report["tflite"]["int8"]["input_dtype"] == "int8"
    assert report["tflite"]["int8"]["agreement"] > 0.9

    again = smoke(distillation={"methods": {}}, compression=[])
    again.student.epochs = 2
    pipeline.run(again, tmp_path / "run", overwrite=True)
    assert not (tmp_path / "run" / "student_alone").is_symlink()
    assert (chained / "student_alone" / "model.keras").exists()


def test_a_stage_is_taken_only_where_its_inputs_are_the_same(tmp_path: pathlib.Path) -> None:
    lender = Workdir(tmp_path / "lender")
    lender.begin("teacher", {"seed": 0})
    lender.scratch("teacher", "model").write_text("one")
    lent = lender.finish("teacher", {"seed": 0})
    workdir = Workdir(tmp_path / "own", reuse=[tmp_path / "lender", tmp_path / "own"])
    assert workdir.done("teacher", {"seed": 1}) is None
    assert workdir.done("teacher", {"seed": 0}) == lent
    assert workdir.path("teacher", "model").read_text() == "one"
    workdir.begin("teacher", {"seed": 1})
    assert not workdir.path("teacher").exists()
    assert lender.path("teacher", "model").read_text() == "one"


@pytest.mark.parametrize(
    ("techniques", "words"),
    [
        (["pruning", "low_rank"], ("low_rank after pruning", "other weights")),
        (["pruning", "filter_pruning"], ("filter_pruning after pruning",)),
        (["clustering", "pruning"], ("pruning after clustering",)),
        (["clustering", "batch_norm_folding"], ("batch_norm_folding after clustering",)),
        (["quantization", "dead_channels"], ("dead_channels after quantization",)),
        (["quantization", "quantization"], ("quantization comes twice",)),
    ],
)
def test_orders_that_undo_are_refused(techniques: list[str], words: tuple[str, ...]) -> None:
    with pytest.raises(kd.InputError) as error:
        order.require_sequence(techniques)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    "techniques",
    [
        ["dead_channels", "batch_norm_folding", "filter_pruning", "low_rank", "filter_pruning"],
        ["filter_pruning", "pruning", "clustering", "quantization"],
        ["pruning", "pruning", "dead_channels", "batch_norm_folding", "quantization"],
    ],
)
def test_orders_that_keep_are_allowed(techniques: list[str]) -> None:
    order.require_sequence(techniques)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"sparsity": 0.5}, ("must be a list",)),
        (["pruning"], ("compression[0]", "section with a technique")),
        ([{"technique": "pruning", "epochs": -1}], ("compression[0].epochs", "from 0")),
    ],
)
def test_a_wrong_list_is_refused(value: object, words: tuple[str, ...]) -> None:
    from kd_keras.pipeline import config as configs

    with pytest.raises(kd.InputError) as error:
        configs.complete(ConfigDict({"compression": value}))
    for word in words:
        assert word in str(error.value)


def test_a_flag_reaches_the_list_and_its_entries() -> None:
    from absl import flags
    from ml_collections import config_flags

    from kd_keras.pipeline import config as configs

    ends = []
    for flag in ("--config.compression[0].sparsity=0.7", "--config.compression=()"):
        values, argv = flags.FlagValues(), ["kd-train", flag]
        config = configs.complete(smoke())
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        values(argv)
        ends.append(configs.complete(values.config).compression)
    assert [entry["technique"] for entry in ends[0]] == ["pruning", "quantization"]
    assert ends[0][0]["sparsity"] == 0.7
    assert ends[1] == ()


def test_the_smaller_shape_can_start_from_new_weights(tmp_path: pathlib.Path) -> None:
    from kd_keras.pipeline import compressing
    from kd_keras.pipeline import config as configs
    from kd_keras.pipeline.job import Job

    entry = {"technique": "filter_pruning", "keep": 0.5, "epochs": 0}
    jobs = [
        Job(configs.complete(smoke(compression=[{**entry, **more}])), Workdir(tmp_path), None, "")
        for more in ({}, {"from_scratch": True})
    ]
    student = kd.models.build("convnet-8-8-16", classes=10, input_shape=(8, 8, 1))
    kept, new = (compressing.steps(job)[0].apply(job, student) for job in jobs)
    assert [w.shape for w in kept.get_weights()] == [w.shape for w in new.get_weights()]
    assert not np.allclose(kept.get_layer("conv2").kernel, new.get_layer("conv2").kernel)


@pytest.mark.slow
def test_a_latency_goal_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    from kd_keras.pipeline import compressing
    from kd_keras.pipeline import config as configs
    from kd_keras.pipeline.job import Job

    entry = {"technique": "filter_pruning", "latency": 0.5, "epochs": 0}
    job = Job(configs.complete(smoke(compression=[entry])), Workdir(tmp_path), None, "")
    student = kd.models.build("convnet-8-8-16", classes=10, input_shape=(8, 8, 1))
    assert compressing.latency(student) > 0
    # A clock that counts multiply-adds, so that the test does not depend on the machine.
    monkeypatch.setattr(compressing, "latency", tflite_export.multiply_adds)
    smaller = compressing.steps(job)[0].apply(job, student)
    assert 0.3 < tflite_export.multiply_adds(smaller) / tflite_export.multiply_adds(student) <= 0.5
