"""The search for a student: its space, its limits, its front, and kd-search on the real digits."""

import json
import pathlib
import re
import runpy
import signal
import subprocess
import sys

import pytest
import tensorflow as tf
from ml_collections import ConfigDict

import kd_keras as kd
from kd_keras import data
from kd_keras.errors import InputError
from kd_keras.pipeline import (
    compressing,
    device,
    fitting,
    search,
    search_front,
    search_page,
    search_sampling,
    search_space,
    search_table,
    search_trial,
)
from kd_keras.pipeline import config as configs
from kd_keras.pipeline.job import Job
from kd_keras.pipeline.search_front import FINISHED, REJECTED, STOPPED, Limits, Trial
from kd_keras.pipeline.search_space import Dimension
from kd_keras.pipeline.workdir import Workdir

pytestmark = pytest.mark.tf_keras

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUICKSTART = f"--config={ROOT}/configs/quickstart.py:smoke"
SPACE = (
    Dimension("student.model", {f"convnet-{width}": f"convnet-{width}" for width in (4, 8, 12)}),
    Dimension("compression", {"ptq": [], "qat": [{"technique": "quantization"}]}),
)


def quickstart(**search: object) -> ConfigDict:
    config = runpy.run_path(str(ROOT / "configs" / "quickstart.py"))["get_config"]("smoke")
    config.search = ConfigDict(search)
    return configs.complete(config)


def finished(number: int, accuracy: float, size: int, latency: float, gzip: int = 0) -> Trial:
    choices = {"student.model": f"convnet-{number}", "compression": "ptq"}
    sizes = {"bytes": size, "untrained_bytes": size - 1, "gzip_bytes": gzip or size}
    figures = {**sizes, "latency_us": latency, "accuracy": accuracy}
    return Trial(number, f"t{number}", choices, FINISHED, **figures)


# --- the space -----------------------------------------------------------------------------------


def test_a_config_without_search_walks_widths_sparsity_and_quantization() -> None:
    widths, compressions = search_space.read(quickstart())
    assert widths.key == "student.model"
    assert list(widths.choices) == [
        *("convnet-4-4-8", "convnet-6-6-12", "convnet-8-8-16"),
        *("convnet-12-12-24", "convnet-16-16-32"),
    ]
    techniques = {
        name: [(step["technique"], step.get("sparsity")) for step in steps]
        for name, steps in compressions.choices.items()
    }
    assert techniques == {
        "ptq": [],
        "sparse50-ptq": [("pruning", 0.5)],
        "sparse75-ptq": [("pruning", 0.75)],
        "qat": [("quantization", None)],
        "sparse50-qat": [("pruning", 0.5), ("quantization", None)],
        "sparse75-qat": [("pruning", 0.75), ("quantization", None)],
    }


def test_suggested_lists_keep_what_the_config_says_of_its_own() -> None:
    config = quickstart()
    entries = [
        {"technique": "filter_pruning", "keep": 0.5, "epochs": 0},
        {"technique": "clustering", "clusters": 8, "epochs": 2},
        {"technique": "quantization", "keep_clusters": True, "epochs": 7},
    ]
    config.compression = configs.complete(ConfigDict({"compression": entries})).compression
    steps = search_space.read(config)[-1].choices["sparse50-qat"]
    assert [step["technique"] for step in steps] == [
        *("filter_pruning", "pruning", "clustering", "quantization")
    ]
    assert steps[-1]["epochs"] == 7


def test_a_network_of_options_walks_these() -> None:
    config = quickstart()
    config.student.model = "mobilenet"
    keys = [dimension.key for dimension in search_space.read(config)]
    assert keys == ["student.options.width", "compression"]


def test_a_given_space_makes_complete_configs() -> None:
    config = quickstart(
        student={"model": ["mobilenet", "convnet-4-4-8"], "optimizer": {"learning_rate": [0.1]}},
        distillation={"methods": {"soft_targets": {"temperature": [2.0, 8.0]}}},
        compression={"half": [{"technique": "pruning", "sparsity": 0.5}]},
    )
    space = search_space.read(config)
    assert search_space.size(space) == 4
    choices = list(search_space.combinations(space))[1]
    title = "mobilenet, temperature 8.0, learning_rate 0.1, half"
    assert Trial(1, "", choices).title == title
    assert search_space.name(choices) == "mobilenet_temperature8.0_learning_rate0.1_half"
    made = search_space.configured(config, space, choices)
    assert (made.student.model, made.student.optimizer.learning_rate) == ("mobilenet", 0.1)
    assert made.distillation.methods.soft_targets.temperature == 8.0
    assert made.distillation.methods.soft_targets.weight == 0.9
    assert [step["sparsity"] for step in made.compression] == [0.5]
    assert not made.search
    assert config.distillation.methods.soft_targets.temperature == 4.0


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"studnet": {"model": ["mlp-4"]}}, ("config.search", "'studnet'", "student")),
        ({"teacher": {"model": ["mlp-4"]}}, ("'teacher'", "student, distillation, compression")),
        ({"student": {"modle": ["mlp-4"]}}, ("config.search.student.modle", "student.model")),
        ({"student": {"model": "mlp-4"}}, ("config.search.student.model", "'mlp-4'", "list")),
        ({"student": {"model": []}}, ("config.search.student.model", "at least one")),
        ({"student": {"model": ["mlp-4", "mlp-4"]}}, ("mlp-4 twice",)),
        ({"student": {"epochs": [0]}}, ("config.search.student.epochs", "'0'", "from 1")),
        ({"compression": [[]]}, ("config.search.compression", "by name")),
        ({"compression": {"a": [{"technique": "prune"}]}}, ("compression", "'a'", "pruning")),
    ],
)
def test_a_space_that_cannot_be_walked_is_one_line(search: dict, words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as error:
        search_space.read(quickstart(**search))
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_search_is_no_part_of_what_a_run_reads() -> None:
    walked = configs.plain(quickstart(student={"model": ["mlp-4"]}))
    assert walked == configs.plain(quickstart())
    assert "search" not in walked


# --- limits and front ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["max_bytes", "max_gzip_bytes", "max_latency_us"])
@pytest.mark.parametrize("value", [0, -5])
def test_a_limit_is_above_0(name: str, value: int) -> None:
    with pytest.raises(InputError, match=rf"--{name} is {value}; give a number above 0"):
        Limits(**{name: value})


def test_a_trial_over_a_limit_says_which() -> None:
    limits = Limits(max_bytes=100, max_latency_us=20.0)
    assert limits.broken(finished(1, 0.9, 100, 20.0)) == ""
    over = limits.broken(finished(1, 0.9, 150, 30.0))
    assert over == "150 bytes over --max_bytes 100, 30.0 µs over --max_latency_us 20.0"
    assert limits.excess(finished(1, 0.9, 150, 10.0)) == {"max_bytes": 0.5, "max_latency_us": -0.5}


def test_the_front_is_what_no_other_trial_beats_in_all() -> None:
    trials = [
        finished(1, 0.90, 100, 10.0),
        finished(2, 0.95, 200, 20.0),
        finished(3, 0.94, 250, 30.0),  # beaten by 2
        finished(4, 0.94, 300, 15.0),  # larger, but faster than 2
        finished(5, 0.89, 100, 10.2),  # beaten by 1: 2 % faster is not faster
        finished(6, 0.90, 100, 10.1),  # like 1
        finished(7, 0.93, 200, 20.0, gzip=50),  # smaller after gzip than 2
        finished(10, 0.80, 100, 10.0, gzip=97),  # beaten by 1: 3 % after gzip is chance
        finished(8, 0.99, 900, 10.0),  # over the limit
        finished(9, 0.97, 200, 20.0).but(state=STOPPED),
    ]
    limits = Limits(max_bytes=500)
    assert [trial.number for trial in search_front.front(trials, limits)] == [2, 4, 7, 1]
    best = search_front.recommended(trials, limits)
    assert best is not None
    assert best.number == 2
    assert search_front.recommended(trials, Limits(max_bytes=10)) is None
    smallest = search_front.smallest([*trials, Trial(10, "t10", {}, REJECTED, bytes=99)])
    assert smallest is not None
    assert smallest.number == 10


def test_of_equal_accuracies_the_smaller_is_recommended() -> None:
    trials = [finished(1, 0.9, 300, 5.0), finished(2, 0.9, 200, 9.0)]
    best = search_front.recommended(trials, Limits())
    assert best is not None
    assert best.number == 2


# --- Optuna's part -------------------------------------------------------------------------------


def walk(seed: int, limits: Limits, count: int) -> list[Trial]:
    """A search whose trials are not trained."""
    trials: list[Trial] = []
    while len(trials) < count:
        choices = search_sampling.suggest(SPACE, trials, limits, seed)
        if choices is None:
            break
        width = int(choices["student.model"].split("-")[1])
        trial = finished(len(trials) + 1, 0.8 + 0.01 * width, 100 * width, width)
        trials.append(trial.but(choices=choices))
    return trials


def test_every_combination_is_tried_once_and_the_same_seed_tries_the_same() -> None:
    trials = walk(0, Limits(max_bytes=900), 10)
    assert len(trials) == 6
    assert len({tuple(trial.choices.values()) for trial in trials}) == 6
    assert walk(0, Limits(max_bytes=900), 10) == trials
    assert any(walk(seed, Limits(max_bytes=900), 10) != trials for seed in (1, 2, 3))


def test_the_next_trial_depends_on_the_records_alone() -> None:
    """So a search that was killed goes on as one that was not."""
    whole = walk(3, Limits(), 5)
    for done in range(5):
        assert search_sampling.suggest(SPACE, whole[:done], Limits(), 3) == whole[done].choices


def test_infeasible_and_stopped_trials_are_no_trouble_to_the_sampler() -> None:
    trials = walk(0, Limits(), 4)
    trials[0] = trials[0].but(state=REJECTED, accuracy=None, gzip_bytes=None)
    trials[1] = trials[1].but(state=STOPPED, gzip_bytes=None)
    trials[2] = trials[2].but(state=search_front.FAILED, bytes=None, latency_us=None)
    space = (Dimension("student.model", {f"convnet-{w}": w for w in range(1, 40)}), SPACE[1])
    for _ in range(6):  # beyond the random ones
        choices = search_sampling.suggest(space, trials, Limits(max_bytes=500), 0)
        assert choices is not None
        trials.append(finished(len(trials) + 1, 0.9, 400, 2.0).but(choices=choices))


def test_a_training_is_stopped_by_cheaper_students_only() -> None:
    good, bad = [0.5, 0.8, 0.9, 0.95], {0: 0.2, 1: 0.3, 2: 0.4}
    cheaper = [finished(n, 0.95, 100, 5.0).but(curves={"student": good}) for n in (1, 2)]
    dearer = [finished(n, 0.95, 900, 5.0).but(curves={"student": good}) for n in (1, 2)]
    slower = [finished(n, 0.95, 100, 50.0).but(curves={"student": good}) for n in (1, 2)]
    own = finished(3, 0.0, 200, 5.0).but(bytes=199)  # as before training
    alike = [trial.but(bytes=200, untrained_bytes=199) for trial in cheaper]
    hopeless = search_sampling.is_hopeless
    assert hopeless(own, "student", bad, 4, cheaper)
    assert hopeless(own, "student", bad, 4, alike)
    assert not hopeless(own, "student", bad, 4, dearer)
    assert not hopeless(own, "student", bad, 4, slower)
    assert not hopeless(own, "student", bad, 4, cheaper[:1])  # one is too few
    assert not hopeless(own, "quantization", bad, 4, cheaper)  # another training
    assert not hopeless(own, "student", {0: 0.2}, 4, cheaper)  # its first epochs are free
    assert not hopeless(own, "student", {0: 0.4, 1: 0.9, 2: 0.9}, 4, cheaper)
    unfinished = [trial.but(state=STOPPED) for trial in cheaper]
    assert not hopeless(own, "student", bad, 4, unfinished)


# --- a device's profile --------------------------------------------------------------------------


def test_a_profile_measures_by_its_command(tmp_path: pathlib.Path) -> None:
    script = "import sys; print('warming up'); print(len(open(sys.argv[1]).read()) / 2)"
    profile = tmp_path / "phone.json"
    profile.write_text(
        json.dumps({"name": "A phone", "command": [sys.executable, "-c", script, "{file}"]})
    )
    (tmp_path / "student.tflite").write_text("12345")
    phone = device.load(str(profile))
    assert phone.name == "A phone"
    assert phone.latency(tmp_path / "student.tflite", threads=1, runs=1) == 2.5
    assert device.load("").command is None


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"name": "A"}', '{"name": "A", "command": ["time.sh"]}']
)
def test_what_is_no_profile_is_refused(content: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "phone.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"device profile .*phone\.json"):
        device.load(str(path))


@pytest.mark.parametrize("script", ["print('fast')", "print(-1)", "raise SystemExit(3)", "pass"])
def test_a_command_that_tells_no_latency_is_one_line(script: str, tmp_path: pathlib.Path) -> None:
    phone = device.Device("A phone", (sys.executable, "-c", script, "{file}"))
    with pytest.raises(InputError, match="A phone") as error:
        phone.latency(tmp_path / "student.tflite", threads=1, runs=1)
    assert "\n" not in " ".join(str(error.value).split())


# --- a trial -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "known"),
    [
        ({"technique": "pruning", "sparsity": 0.5}, True),
        ({"technique": "quantization"}, True),
        ({"technique": "filter_pruning", "multiply_adds": 0.5}, True),
        ({"technique": "filter_pruning", "latency": 0.5}, False),
        ({"technique": "low_rank", "energy": 0.9}, False),
        ({"technique": "dead_channels"}, False),
    ],
)
def test_only_a_shape_that_training_does_not_change_is_refused_before_it(
    entry: dict, known: bool, tmp_path: pathlib.Path
) -> None:
    config = ConfigDict({**quickstart().to_dict(), "compression": [entry]})
    data.load("digits", validation=0.1, seed=0, directory=tmp_path / "data")
    job = Job(configs.complete(config), Workdir(tmp_path), None, "")
    assert compressing.shape_is_known(job) is known


@pytest.mark.slow
def test_the_cost_is_known_before_training(tmp_path: pathlib.Path) -> None:
    data.load("digits", validation=0.1, seed=0, directory=tmp_path / "data")
    whole = quickstart().to_dict()
    entry = {"technique": "filter_pruning", "multiply_adds": 0.5}
    found = []
    for entries in ([], [entry]):
        config = configs.complete(ConfigDict({**whole, "compression": entries}))
        job = Job(config, Workdir(tmp_path), None, "")
        found.append(search_trial.untrained_cost(job, device.Device()))
    assert found[1]["bytes"] < found[0]["bytes"] < 8000
    assert found[1]["macs"] < 0.55 * found[0]["macs"]
    assert found[0]["parameters"] == 2098
    assert found[0]["latency_us"] > 0


# --- stopping early ------------------------------------------------------------------------------


def untaught() -> tuple:
    """A network that learns nothing, and images without anything in them."""
    tf.keras.utils.set_random_seed(0)
    model = kd.models.build("mlp-4", classes=10, input_shape=(8, 8, 1))
    model.compile("sgd", tf.keras.losses.SparseCategoricalCrossentropy(True), ["accuracy"])
    return model, tf.zeros((64, 8, 8, 1)), tf.range(64) % 10


def watched(peers: list[Trial], folder: pathlib.Path) -> list[dict]:
    """The epochs of a training of 5, as the pipeline trains."""
    model, x, y = untaught()
    workdir = Workdir(folder)
    job = Job(quickstart(), workdir, None, "")
    own = finished(3, 0.0, 200, 5.0)
    return fitting.fit(
        model,
        workdir,
        "student",
        batches=lambda first: tf.data.Dataset.from_tensor_slices((x, y)).batch(16).repeat(),
        steps_per_epoch=4,
        validation=(x, y),
        epochs=5,
        seed=0,
        watchers=(search_trial.Watcher(job, "student", own, peers),),
    )


def test_a_bad_training_ends_with_its_epochs_kept(tmp_path: pathlib.Path) -> None:
    peers = [finished(n, 0.9, 100, 5.0).but(curves={"student": [0.9] * 5}) for n in (1, 2)]
    with pytest.raises(search_trial.Stopped, match="after epoch 3/5 of student, below the median"):
        watched(peers, tmp_path)
    assert len(json.loads((tmp_path / "student" / "history.json").read_text())) == 3
    # One that was killed just then is stopped at once when it goes on.
    with pytest.raises(search_trial.Stopped, match="after epoch 3/5"):
        watched(peers, tmp_path)
    assert len(json.loads((tmp_path / "student" / "history.json").read_text())) == 3


def test_a_training_without_better_peers_runs_to_its_end(tmp_path: pathlib.Path) -> None:
    peers = [finished(n, 0.0, 100, 5.0).but(curves={"student": [0.0] * 5}) for n in (1, 2)]
    assert len(watched(peers, tmp_path)) == 5


# --- the page ------------------------------------------------------------------------------------


def results() -> dict:
    trials = [
        finished(1, 0.90, 4000, 1.0),
        finished(2, 0.95, 8000, 2.0),
        finished(3, 0.80, 8000, 2.0),
        finished(4, 0.40, 9000, 2.0).but(state=STOPPED, gzip_bytes=None, reason="below <others>"),
        finished(5, 0.0, 12000, 4.0).but(state=REJECTED, accuracy=None, reason="12,000 bytes over"),
    ]
    return {
        "config": {"seed": 0},
        "search": {"student/model": {"mlp-4": "mlp-4"}},
        "limits": {"max_bytes": 10000, "max_gzip_bytes": None, "max_latency_us": 3.0},
        "device": "this host",
        "data": {"name": "digits", "validation": 144},
        "combinations": 30,
        "trials": [vars(trial) for trial in trials],
        "front": [2, 1],
        "recommended": 2,
        "machine": {"cpu": "A processor", "cores": 2},
        "versions": {"optuna": "5.0.0"},
        "command": "kd-search --max_bytes=10000",
        "created": "2026-01-02T03:04:05+0000",
    }


def test_the_page_shows_front_limits_and_how_the_others_ended() -> None:
    page = search_page.render(results())
    assert "convnet-2, ptq: 95.00&nbsp;% accurate, 8.0&nbsp;kB, 2.0&nbsp;µs on this host." in page
    assert page.count("<svg") == 2
    assert "over the limits: 12,000 bytes over" in page
    assert "stopped early: below &lt;others&gt;" in page
    assert "--max_bytes 10000, --max_latency_us 3" in page
    assert "student.model" in page
    assert not re.search(r"(src|href)=\"(?!#)", page)  # it is self-contained
    assert search_page.render(results()) == page


def test_what_is_over_the_limits_only_when_trained_is_told_apart() -> None:
    found = results()
    found["trials"][2]["reason"] = "8,000 bytes over --max_bytes 7000"
    counted = "5 of 30 combinations: 2 finished, 1 finished but over the limits"
    assert counted in search_table.counts(found)
    assert "finished: 8,000 bytes over" in search_page.render(found)


def test_the_page_of_a_search_that_found_nothing() -> None:
    found = results()
    found.update(trials=[found["trials"][-1]], front=[], recommended=None)
    page = search_page.render(found)
    assert "Nothing is within the limits" in page
    assert "<svg" not in page


def test_the_table_marks_what_is_recommended() -> None:
    lines = search_table.table(results()).splitlines()
    [marked] = [line for line in lines if "<- recommended" in line]
    assert "95.00 %" in marked
    assert "5 of 30 combinations: 3 finished, 1 stopped early, 1 over the limits" in lines
    assert lines[-1].startswith("recommended: convnet-2, ptq: 95.00 % accurate")
    told = search_table.how_to_run(results(), "runs/s")
    assert "--config=runs/s/front/t2.py" in told
    assert "--reuse=runs/s/trials/2" in told


# --- kd-search on the digits ---------------------------------------------------------------------


EPOCHS = 12
#: Trial 1 is trained, 2 is too large, 3 has a new student, 4 that of 1.
FLAGS = ("--max_bytes=9000", "--trials=3", "--seed=6")


def walked(tmp_path: pathlib.Path) -> str:
    """The flag of a config file: the smoke-size quickstart with a small space."""
    path = tmp_path / "config.py"
    quick = ROOT / "configs" / "quickstart.py"
    models, lists = ["convnet-4-4-8", "convnet-6-6-12", "convnet-16-16-32"], {"ptq": []}
    lists["sparse50-qat"] = [
        {"technique": "pruning", "sparsity": 0.5, "epochs": 1},
        {"technique": "quantization", "epochs": 1},
    ]
    path.write_text(
        f"""import runpy
from ml_collections import ConfigDict
def get_config():
    config = runpy.run_path({str(quick)!r})["get_config"]("smoke")
    config.teacher.cache = ConfigDict({{"views": 1}})
    config.student.epochs = {EPOCHS}
    config.search = ConfigDict({{"student": {{"model": {models!r}}}, "compression": {lists!r}}})
    return config
"""
    )
    return f"--config={path}"


def command(config: str, workdir: pathlib.Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", "kd_keras.search", config, f"--workdir={workdir}", *flags]


def run(config: str, workdir: pathlib.Path, *flags: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(config, workdir, *flags), capture_output=True, text=True, timeout=500, check=False
    )


def complaint(result: subprocess.CompletedProcess) -> str:
    """The one line that a refused search prints."""
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    [line] = [line for line in result.stderr.splitlines() if line.startswith("kd-search: ")]
    return line


def test_a_limit_of_0_is_one_line(tmp_path: pathlib.Path) -> None:
    result = run(QUICKSTART, tmp_path / "search", "--max_bytes=0")
    assert "--max_bytes is 0" in complaint(result)
    assert not (tmp_path / "search").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"trials": 0}, "--trials is 0"),
        ({"profile": "phone.json"}, "phone.json"),
    ],
)
def test_bad_options_are_one_line(options: dict, words: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=words):
        search.run(quickstart(), tmp_path / "search", Limits(), **options)
    assert not (tmp_path / "search").exists()


def test_a_choice_that_cannot_be_built_is_refused_before_the_teacher_is_trained(
    tmp_path: pathlib.Path,
) -> None:
    config = quickstart(student={"model": ["convnet-4", "convnet-4-4-4-4-4"]})
    config.compression = []
    with pytest.raises(InputError, match=r"config\.search\.student\.model.*too small"):
        search.run(config, tmp_path, Limits())
    assert not (tmp_path / "base" / "teacher").exists()


@pytest.mark.slow
def test_where_nothing_fits_the_smallest_is_named(tmp_path: pathlib.Path) -> None:
    line = complaint(run(walked(tmp_path), tmp_path / "search", "--max_bytes=1000"))
    assert "none of 6 trials is within --max_bytes 1000" in line
    assert "the smallest found is convnet-4-4-8, " in line
    found = json.loads((tmp_path / "search" / "search.json").read_text())
    assert found["recommended"] is None
    assert {trial["state"] for trial in found["trials"]} == {REJECTED}
    assert not list((tmp_path / "search" / "trials").rglob("model.keras"))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, pathlib.Path, str]:
    """A search of three trainings, killed in its second: config, folder, progress of the rest."""
    folder = tmp_path_factory.mktemp("search")
    config, workdir = walked(folder), folder / "search"
    process = subprocess.Popen(command(config, workdir, *FLAGS), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    in_third = False
    for line in process.stderr:
        in_third = in_third or line.startswith("trial 3, 2 of 3 to train")
        if in_third and line.startswith("student: epoch 2/"):
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stderr.close()
    assert process.returncode == -signal.SIGKILL
    result = run(config, workdir, *FLAGS)
    assert result.returncode == 0, result.stderr
    assert "recommended: " in result.stdout
    return config, workdir, result.stderr


@pytest.mark.slow
def test_a_killed_search_goes_on_with_its_trial(searched: tuple) -> None:
    _, workdir, progress = searched
    found = json.loads((workdir / "search.json").read_text())
    trained = [trial for trial in found["trials"] if trial["state"] == FINISHED]
    assert len(trained) == 3
    # Trials 1 and 2 were over; 3 goes on behind its last checkpoint.
    begun = re.findall(r"^trial (\d+), . of 3 to train", progress, re.MULTILINE)
    assert begun == ["3", "4"]
    first = re.search(r"student: epoch (\d+)/", progress)
    assert first is not None
    assert int(first.group(1)) > 2
    for trial in trained:
        path = workdir / "trials" / str(trial["number"]) / "export" / "student_int8.tflite"
        assert trial["bytes"] == path.stat().st_size <= 9000
        assert 0 < trial["gzip_bytes"] < trial["bytes"]
        assert 0 <= trial["accuracy"] <= 1
        assert trial["latency_us"] > 0
        assert len(trial["curves"]["student"]) == EPOCHS
    for trial in found["trials"]:
        assert (trial["state"] == REJECTED) == ("16-16-32" in trial["name"])


@pytest.mark.slow
def test_trials_share_what_is_equal(searched: tuple) -> None:
    _, workdir, _ = searched
    found = json.loads((workdir / "search.json").read_text())
    trained = [trial for trial in found["trials"] if trial["state"] == FINISHED]
    for trial in trained:
        folder = workdir / "trials" / str(trial["number"])
        for stage in ("data", "teacher", "teacher_cache"):
            assert (folder / stage).resolve() == (workdir / "base" / stage).resolve()
    models = [trial["choices"]["student.model"] for trial in trained]
    own = [
        t for t in trained if not (workdir / "trials" / str(t["number"]) / "student").is_symlink()
    ]
    assert len(own) == len(set(models))


@pytest.mark.slow
def test_the_same_command_again_does_nothing_again(searched: tuple) -> None:
    config, workdir, _ = searched
    before = (workdir / "search.json").read_text()
    result = run(config, workdir, *FLAGS)
    assert result.returncode == 0, result.stderr
    assert "to train" not in result.stderr
    found = json.loads((workdir / "search.json").read_text())
    assert found["trials"] == json.loads(before)["trials"]
    line = complaint(run(config, workdir, *FLAGS, "--max_bytes=8000"))
    assert "limits.max_bytes" in line


@pytest.mark.slow
def test_a_config_of_the_front_runs_as_it_is(searched: tuple, tmp_path: pathlib.Path) -> None:
    _, workdir, _ = searched
    found = json.loads((workdir / "search.json").read_text())
    [best] = [t for t in found["trials"] if t["number"] == found["recommended"]]
    path = workdir / "front" / f"{best['name']}.py"
    assert {file.stem for file in path.parent.glob("*.py")} == {
        trial["name"] for trial in found["trials"] if trial["number"] in found["front"]
    }
    train = [sys.executable, "-m", "kd_keras.train", f"--config={path}"]
    # Nothing is borrowed: the config alone makes the same file.
    result = subprocess.run(
        [*train, f"--workdir={tmp_path}"], capture_output=True, text=True, timeout=500, check=False
    )
    assert result.returncode == 0, result.stderr
    name = pathlib.Path("export", "student_int8.tflite")
    ours = (workdir / "trials" / str(best["number"]) / name).read_bytes()
    assert (tmp_path / name).read_bytes() == ours


@pytest.mark.slow
def test_a_trial_among_better_ones_is_stopped(searched: tuple, tmp_path: pathlib.Path) -> None:
    _, workdir, _ = searched
    found = json.loads((workdir / "search.json").read_text())
    config = ConfigDict({**found["config"], "student": {**found["config"]["student"]}})
    config.student.optimizer.learning_rate = 1e-9
    better = {"curves": {"student": [1.0] * EPOCHS}, "untrained_bytes": 1}
    good = [t.but(**better) for t in search_table.trials(found)]
    peers = [trial.but(latency_us=1e-3) for trial in good if trial.state == FINISHED]
    ended = search_trial.run(
        Trial(9, "slow", {}),
        config,
        tmp_path / "trial",
        lenders=[workdir / "base"],
        limits=Limits(),
        device=device.Device(),
        peers=peers,
    )
    assert ended.state == STOPPED
    assert "of student, below the median" in ended.reason
    assert ended.gzip_bytes is None
    assert ended.bytes is not None
    assert not list((tmp_path / "trial").rglob("ckpt*"))
