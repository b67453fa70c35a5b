"""A cached teacher teaches as the live one does, and nothing else passes for it."""

import contextlib
import json
import multiprocessing
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from nets import assert_differ, assert_same, batch, convolutional, net, one_line, values
from replicas import two_replicas

import kd_keras as kd
from kd_keras.errors import InputError
from kd_keras.teachers import KerasTeacher, cache_plan, caching

keras: Any = tf.keras
EXAMPLES, BATCH = 40, 8


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of 16 examples, so that there are three a view, the last a short one."""
    monkeypatch.setattr(cache_plan, "_EXAMPLES_A_SHARD", 16)


def crossentropy() -> Any:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def image_views(**kwargs: Any) -> kd.data.Views:
    pixels = np.random.default_rng(0).integers(0, 256, (EXAMPLES, 6, 6, 1), np.uint8)
    augmentation = kd.data.Augmentation({"shift": {"pixels": 2}, "horizontal_flip": {}}, 3)
    normalization = kd.data.Normalization((0.5,), (0.25,))
    settings = {"count": 2, "augmentation": augmentation, "normalization": normalization, "seed": 3}
    return kd.data.Views(pixels, np.arange(EXAMPLES) % 3, **{**settings, **kwargs})


def all_methods() -> list:
    maps = {"teacher_layer": "maps", "student_layer": "maps"}
    pairs = {"teacher_pairs": (("maps", "wide"),), "student_pairs": (("maps", "wide"),)}
    return [
        kd.SoftTargets(temperature=3.0),
        kd.LogitsL2(weight=0.1),
        kd.LogitsL1(weight=0.1),
        kd.Hint(**maps, weight=0.01),
        kd.FSP(**pairs, weight=0.1),
        kd.ConfidenceWeightedLabels(),
        kd.PermutedSoftTargets(),
    ]


def two_maps(width: int, seed: int = 1) -> Any:
    """A net with two maps of one size, for all methods."""
    start = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(4, 3, activation="tanh", name="maps")(start)
    x = keras.layers.Conv2D(4, 1, activation="tanh", name="wide")(x)
    x = keras.layers.Conv2D(width, 1, activation="tanh")(x)
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    model = keras.Model(start, keras.layers.Dense(3, name="logits")(x))
    for number, weight in enumerate(model.trainable_variables):
        generator = np.random.default_rng([seed, number])
        weight.assign(generator.normal(0, 0.7, weight.shape))
    return model


def plain(teacher: Any) -> Any:
    model = kd.Distiller(two_maps(5, seed=2), teacher, all_methods(), 0.5)
    model.compile(keras.optimizers.SGD(0.05), crossentropy(), teacher_accuracy=True)
    return model


def game(make: Any) -> Any:
    def distiller(teacher: Any) -> Any:
        keras.utils.set_random_seed(7)
        model = make(convolutional(4, seed=2), teacher, label_weight=0.5)
        model.compile(
            keras.optimizers.SGD(0.05),
            crossentropy(),
            discriminator_optimizer=keras.optimizers.SGD(0.05),
        )
        return model

    return distiller


def train(model: Any, data: Any, **kwargs: Any) -> tuple[list, dict]:
    before = values(model.student)
    history = model.fit(data, batch_size=BATCH, epochs=3, verbose=0, **kwargs).history
    assert_differ(values(model.student), before)
    return values(model.student), history


@pytest.mark.parametrize(
    ("make", "teacher", "layers"),
    [
        (plain, two_maps(6), ("maps", "wide")),
        (game(kd.AdversarialDistiller), convolutional(4), ("features",)),
        pytest.param(
            *(plain, {"one": two_maps(6), "two": two_maps(6, seed=4)}, None),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *(game(kd.ConditionalAdversarialDistiller), convolutional(4), ()),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["all methods", "adversarial", "ensemble", "conditional"],
)
def test_it_teaches_as_the_live_teacher_does(
    make: Any, teacher: Any, layers: Any, tmp_path: pathlib.Path
) -> None:
    """The same batches, losses and weights, with augmentation, over more epochs than views."""
    if layers is None:  # of an ensemble, methods that read logits
        teacher = kd.Ensemble(teacher)
        make, layers = logits_methods, ()
    views = image_views()
    live, live_history = train(make(teacher), views)
    cached = caching.cache(teacher, views, tmp_path, layers=layers, dtype="float32")
    found, history = train(make(cached), views)
    assert sorted(history) == sorted(live_history)
    for term, value in live_history.items():
        np.testing.assert_allclose(history[term], value, rtol=1e-4, atol=1e-6, err_msg=term)
    assert_same(found, live, atol=1e-5)


def logits_methods(teacher: Any) -> Any:
    methods = [kd.SoftTargets(temperature=3.0), kd.LogitsL2(weight=0.1)]
    model = kd.Distiller(two_maps(5, seed=2), teacher, methods, 0.5)
    model.compile(keras.optimizers.SGD(0.05), crossentropy())
    return model


@pytest.mark.parametrize(("dtype", "top_k", "close"), [("float16", None, 1e-2), ("float32", 2, 1)])
def test_it_teaches_nearly_so_from_fewer_bytes(
    dtype: str, top_k: int | None, close: float, tmp_path: pathlib.Path
) -> None:
    x, _ = batch(EXAMPLES)
    cached = caching.cache(net(8), x, tmp_path, dtype=dtype, top_k=top_k)

    def student(teacher: Any) -> Any:
        model = kd.Distiller(net(4, seed=2), teacher, [kd.SoftTargets()], label_weight=0.0)
        model.compile(keras.optimizers.SGD(0.05))
        return model

    found = train(student(cached), x)[0]
    live = train(student(net(8)), kd.data.Views(x))[0]
    assert_same(found, live, atol=close)
    assert_differ(found, live)


@pytest.mark.tf_keras
@pytest.mark.slow
def test_on_two_replicas(tmp_path: pathlib.Path) -> None:
    views = image_views()
    cached = caching.cache(two_maps(6), views, tmp_path, layers=("maps", "wide"), dtype="float32")
    alone = train(plain(cached), views)[0]
    with two_replicas().scope():
        mirrored = plain(cached)
    assert_same(train(mirrored, views)[0], alone, atol=1e-5)


@pytest.mark.slow
@pytest.mark.tf_keras
def test_pruning_and_quantization_learn_from_it(tmp_path: pathlib.Path) -> None:
    from kd_keras.compression import pruning, quantization

    views = image_views()
    teacher = convolutional(8)
    cached = caching.cache(teacher, views, tmp_path, layers=("maps",), dtype="float32")

    def compressed(teacher: Any) -> list:
        schedule = {"sparsity": 0.5, "begin_step": 0, "end_step": 10, "frequency": 5}
        pruned = pruning.apply(convolutional(4, seed=2), **schedule)
        methods = [kd.SoftTargets(), kd.Hint(teacher_layer="maps", student_layer="maps")]

        def fit(student: Any, callbacks: Any) -> None:
            model = kd.Distiller(student, teacher, methods, 0.5)
            model.compile(keras.optimizers.SGD(0.05), crossentropy())
            train(model, views, callbacks=callbacks)

        fit(pruned, pruning.callbacks(pruned))
        calibration = views.normalization.apply(views.x)
        pruned = pruning.finish(pruned)
        quantized = quantization.apply(pruned, keep_zeros=True, calibration=calibration)
        fit(quantized, None)
        return values(quantized)

    assert_same(compressed(cached), compressed(teacher), atol=1e-5)


def test_arrays_and_stages(tmp_path: pathlib.Path) -> None:
    """What was cached of an array teaches on that array, also through stages."""
    x, y = batch(EXAMPLES)
    cached = caching.cache(net(8), x, tmp_path / "cache", dtype="float32")
    stages = [kd.Stage([kd.SoftTargets()], epochs=2, optimizer="sgd", label_weight=0.5)]
    results = []
    for teacher in (cached, net(8)):
        student = net(4, seed=2)
        kd.fit_stages(student, teacher, stages, x, y, loss=crossentropy(), batch_size=BATCH)
        results.append(values(student))
    assert_same(*results, atol=1e-6)
    model = kd.Distiller(net(4, seed=2), cached, [kd.SoftTargets()], label_weight=0.5)
    model.compile("sgd", crossentropy(), ["accuracy"])
    model.fit(x, y, verbose=0, validation_data=(x, y))
    assert model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"] <= 1


class Counted(KerasTeacher):
    """A teacher that counts the examples that it is asked about."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.asked = 0

    def outputs(self, x: Any, layers: Any = ()) -> Any:
        def count(rows: np.ndarray) -> np.ndarray:
            self.asked += len(rows)
            return rows

        x = tf.ensure_shape(tf.numpy_function(count, [x], x.dtype), x.shape)
        return super().outputs(x, layers)


def cut_off_after(shards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the caching killed in the middle of the file behind so many whole ones."""
    real, begun = caching.shards.writing, []

    @contextlib.contextmanager
    def writing(path: Any, header: Any) -> Iterator[Any]:
        begun.append(path)
        with real(path, header) as append:
            yield append
            if len(begun) > shards:
                raise KeyboardInterrupt

    monkeypatch.setattr(caching.shards, "writing", writing)


@pytest.mark.any_keras
def test_a_killed_cache_goes_on(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    views, model = image_views(), convolutional(4)
    caching.cache(model, views, tmp_path / "whole")
    with monkeypatch.context() as patch:
        cut_off_after(4, patch)
        with pytest.raises(KeyboardInterrupt):
            caching.cache(model, views, tmp_path / "cut")
    assert len(list((tmp_path / "cut").iterdir())) == 1 + 4
    with pytest.raises(InputError, match="missing"):
        caching.Cached(tmp_path / "cut")
    teacher = Counted(model)
    caching.cache(teacher, views, tmp_path / "cut")
    assert teacher.asked == 1 + (16 + 8), "the first example, for shapes, and the files left over"
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def truncated(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def corrupt(path: pathlib.Path) -> None:
    bytes_ = bytearray(path.read_bytes())
    bytes_[-10] ^= 1
    path.write_bytes(bytes_)


def too_long(path: pathlib.Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def foreign(path: pathlib.Path) -> None:
    shutil.copy(path.with_name("view001-00000-of-00003.tfrecord"), path)


@pytest.mark.any_keras
@pytest.mark.parametrize("damage", [truncated, corrupt, too_long, foreign, pathlib.Path.unlink])
def test_a_damaged_file_is_refused_or_made_anew_alone(
    damage: Any, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    views, teacher = image_views(), Counted(convolutional(4))
    caching.cache(teacher, views, tmp_path)
    before = contents(tmp_path)
    path = tmp_path / "view000-00001-of-00003.tfrecord"
    damage(path)
    with pytest.raises(InputError) as error:
        caching.Cached(tmp_path)
    one_line(error, path.name, "kd.teachers.cache")
    teacher.asked = 0
    capsys.readouterr()
    caching.cache(teacher, views, tmp_path)
    assert teacher.asked == 1 + 16
    assert contents(tmp_path) == before
    if damage is not pathlib.Path.unlink:
        assert f"{path} is made anew" in capsys.readouterr().err


@pytest.mark.any_keras
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"teacher": convolutional(5)}, ("another teacher",)),
        ({"data": image_views(normalization=None)}, ("another normalization",)),
        ({"data": image_views(seed=4)}, ("views of another seed", "3, not 4")),
        ({"data": image_views(count=3)}, ("another number of views", "2, not 3")),
        ({"data": image_views(augmentation=None)}, ("another augmentation",)),
        ({"data": kd.data.Views(np.zeros((4, 6, 6, 1)))}, ("another number of examples",)),
        ({"dtype": "float32"}, ("another dtype",)),
        ({"top_k": 1}, ("another top_k",)),
        ({"layers": ("maps",)}, ("other layers",)),
    ],
)
def test_another_cache_is_refused(
    change: dict, words: tuple, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "of_another"
    settings = {"teacher": convolutional(4), "data": image_views()}
    caching.cache(settings["teacher"], settings["data"], folder)
    asked = {**settings, **change}
    with pytest.raises(InputError) as error:
        caching.cache(asked.pop("teacher"), asked.pop("data"), folder, **asked)
    one_line(error, str(folder), "name another folder", *words)


@pytest.mark.any_keras
def test_other_pixels_are_refused_when_training(tmp_path: pathlib.Path) -> None:
    views = image_views()
    cached = caching.cache(convolutional(4), views, tmp_path)
    other = image_views()
    other.x = other.x.copy()
    other.x[3, 2, 2, 0] ^= 1
    model = kd.Distiller(convolutional(4), cached, [kd.SoftTargets()], label_weight=0.0)
    model.compile("sgd")
    with pytest.raises(InputError) as error:
        model.fit(other, batch_size=BATCH, verbose=0)
    one_line(error, "from other data", str(tmp_path))


@pytest.mark.any_keras
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ("there is no cache",)),
        ('{"version": 1, "data": [], "outputs": {"layers": []}}', ("damaged",)),
        ("{", ("damaged", "delete the folder")),
        ('{"version": 7}', ("another version", "7, not 1")),
    ],
)
def test_a_folder_without_a_cache(text: str | None, words: tuple, tmp_path: pathlib.Path) -> None:
    if text is not None:
        (tmp_path / "cache.json").write_text(text)
    with pytest.raises(InputError) as error:
        caching.Cached(tmp_path)
    one_line(error, "cache", *words)


@pytest.mark.any_keras
@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda d: d.fit(tf.data.Dataset.from_tensors(batch(8)), verbose=0), ("do not hold them",)),
        (lambda d: d.fit(*batch(8), sample_weight=np.ones(8)), ("sample_weight",)),
        (lambda d: d.fit(kd.data.Views(*batch(8)), np.ones(8)), ("y is given beside Views",)),
        (lambda d: kd.Distiller(net(4), d.teacher, [kd.Hint()]), ("'features'", "layers=")),
        (lambda d: kd.Distiller(net(4, classes=5), d.teacher, [kd.SoftTargets()]), ("classes",)),
    ],
)
def test_bad_training(act: Any, words: tuple, tmp_path: pathlib.Path) -> None:
    model = kd.Distiller(net(4), caching.cache(net(8), batch(8)[0], tmp_path), [kd.SoftTargets()])
    model.compile("sgd", crossentropy())
    with pytest.raises(InputError) as error:
        act(model)
    one_line(error, *words)


@pytest.mark.any_keras
def test_bad_caching(tmp_path: pathlib.Path) -> None:
    x = batch(8)[0]
    for act, word in [
        (lambda: caching.cache(net(4), tf.data.Dataset.from_tensors(x), tmp_path), "kd.data.Views"),
        (
            lambda: caching.fill(net(4), x, tmp_path, shard_index=2, num_shards=2),
            "shard_index is 2",
        ),
        (lambda: caching.cache(net(4), x * np.nan, tmp_path), "not finite"),
        (lambda: caching.cache(net(4), x, tmp_path, batch_size=0), "batch_size is 0"),
        (lambda: caching.cache(net(4), x[:, :3], tmp_path), "[None, 3]"),
        (lambda: caching.cache(net(4), x, pathlib.Path(__file__)), "cannot be made in"),
        (lambda: caching.cache(net(4), {"x": x}, tmp_path), "is a dict"),
        (lambda: caching.cache(net(4), x, tmp_path, layers=("high",)), "'high'"),
    ]:
        with pytest.raises(InputError) as error:
            act()
        one_line(error, word)


def named(first: str, second: str) -> Any:
    """Two layers with the same weights whatever they are called."""
    start = keras.Input((4,))
    x = keras.layers.Dense(4, "tanh", name=first)(start)
    x = keras.layers.Dense(4, "tanh", name=second)(x)
    model = keras.Model(start, keras.layers.Dense(3)(x))
    for number, weight in enumerate(model.trainable_variables):
        weight.assign(np.random.default_rng(number).normal(0, 0.7, weight.shape))
    return model


@pytest.mark.any_keras
def test_layers_that_exchanged_their_names_are_found_out(tmp_path: pathlib.Path) -> None:
    x = batch(8)[0]
    caching.cache(named("a", "b"), x, tmp_path / "model", layers=("a",))
    with pytest.raises(InputError) as error:
        caching.cache(named("b", "a"), x, tmp_path / "model", layers=("a",))
    one_line(error, "'layer/a'", "not the teacher's")
    members = {"p": net(4), "q": net(6)}
    caching.cache(kd.Ensemble(members), x, tmp_path / "ensemble", layers=("p/features",))
    exchanged = kd.Ensemble({"q": net(4), "p": net(6)})
    with pytest.raises(InputError):
        caching.cache(exchanged, x, tmp_path / "ensemble", layers=("p/features",))


@pytest.mark.any_keras
@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: np.full((len(x), 3), np.nan), ("finite numbers",)),
        (lambda x: np.ones((len(x), 3)), ("sum to 1",)),
        (lambda x: np.full((len(x) + 1, 3), 1 / 3), ("return one row for each example",)),
    ],
)
def test_what_a_function_may_not_give_is_said_in_one_line(
    function: Any, words: tuple, tmp_path: pathlib.Path
) -> None:
    teacher = kd.teachers.FunctionTeacher(function, classes=3, fingerprint="1")
    with pytest.raises(InputError) as error:
        caching.cache(teacher, batch(8)[0], tmp_path)
    one_line(error, *words)


@pytest.mark.any_keras
def test_fit_on_arrays_takes_the_steps_of_keras_own(tmp_path: pathlib.Path) -> None:
    x, y = batch(EXAMPLES)
    cached = caching.cache(net(8), x, tmp_path, dtype="float32")
    found = []
    for teacher in (net(8), cached):
        model = kd.Distiller(net(4, seed=2), teacher, [kd.SoftTargets()], 0.5)
        model.compile("sgd", crossentropy())
        model.fit(x, y, batch_size=12, epochs=2, shuffle=False, verbose=0)
        assert int(model.optimizer.iterations) == 2 * 4
        found.append(values(model.student))
    assert_same(*found, atol=1e-6)
    model.fit(x, y, batch_size=12, steps_per_epoch=1, verbose=0)
    assert int(model.optimizer.iterations) == 2 * 4 + 1


def _fill_part(folder: str, index: int, parts: int) -> None:
    cache_plan._EXAMPLES_A_SHARD = 16
    caching.fill(convolutional(4), image_views(), folder, shard_index=index, num_shards=parts)


@pytest.mark.any_keras
def test_parts_make_the_whole(tmp_path: pathlib.Path) -> None:
    views, teacher = image_views(), Counted(convolutional(4))
    caching.cache(convolutional(4), views, tmp_path / "alone")
    for index in (1, 0):
        caching.fill(teacher, views, tmp_path / "shared", shard_index=index, num_shards=2)
    assert teacher.asked == 2 + 2 * EXAMPLES
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")


@pytest.mark.slow
def test_processes_that_write_the_same_files_at_once(tmp_path: pathlib.Path) -> None:
    caching.cache(convolutional(4), image_views(), tmp_path / "alone")
    spawn = multiprocessing.get_context("spawn")
    folder = str(tmp_path / "shared")
    parts = [(0, 1), (0, 1), (0, 2), (1, 2)]
    processes = [spawn.Process(target=_fill_part, args=(folder, *part)) for part in parts]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")


@pytest.mark.any_keras
def test_the_description_says_what_it_is_of(tmp_path: pathlib.Path) -> None:
    views = image_views()
    cached = caching.cache(convolutional(4), views, tmp_path, layers=("maps",), top_k=2)
    found = json.loads((tmp_path / "cache.json").read_text())
    assert found["teacher"] == KerasTeacher(convolutional(4)).fingerprint() == cached.fingerprint()
    assert found["data"] == views.identity
    assert found["outputs"]["layers"] == {"maps": [4, 4, 4]}
    assert found["made_with"]["tensorflow"] == tf.__version__
    record = (3 * 2 + 2 * 2) + 4 * 4 * 4 * 2
    assert cached.nbytes == pytest.approx(2 * EXAMPLES * (record + 16), rel=0.1)
