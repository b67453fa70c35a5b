import types

import numpy as np
import pytest
import tensorflow as tf

from kd_keras import data
from kd_keras.data import tfds_source
from kd_keras.errors import InputError

pytestmark = pytest.mark.any_keras

tfds = pytest.importorskip("tensorflow_datasets")


@pytest.mark.parametrize(
    ("name", "shape", "first_class", "train_of_first_class", "train"),
    [
        pytest.param("mnist", (28, 28, 1), "0", 5_923, 60_000, marks=pytest.mark.slow),
        ("fashion_mnist", (28, 28, 1), "T-shirt/top", 6_000, 60_000),
        ("cifar10", (32, 32, 3), "airplane", 5_000, 50_000),
    ],
)
def test_real_sets(tfds_dir, name, shape, first_class, train_of_first_class, train):
    if not tfds.builder(name, data_dir=tfds_dir).is_prepared():
        pytest.skip(f"{name} is not prepared in {tfds_dir}")
    source = tfds_source.source(name, data_dir=tfds_dir)
    assert source.image_shape == shape
    assert source.class_names[0] == first_class
    counts = {split: len(labels) for split, labels in source.labels.items()}
    assert counts == {"train": train, "test": 10_000}
    assert (source.labels["train"] == 0).sum() == train_of_first_class
    rows = np.array([0, 255, 256, 700, 9_999])
    images = list(source.read("test", rows))
    records = tfds.load(name, split="test", data_dir=tfds_dir, download=False)
    for row, image in zip(rows, images, strict=True):
        [record] = records.skip(row).take(1).as_numpy_iterator()
        np.testing.assert_array_equal(image, record["image"])
        assert source.labels["test"][row] == record["label"]


def test_limit_and_image_size(tfds_dir):
    dataset = data.load("mnist", data_dir=tfds_dir, limit=50, validation=0.2, image_size=(14, 28))
    assert dataset.image_shape == (14, 28, 1)
    assert [len(split) for _, split in dataset.splits()] == [50, 50, 50]
    assert dataset.train.images.max() > 100


def _store(folder, splits, image_shape=(None, None, 3)):
    """A prepared set of our own, with labels -1 where a split's are not published."""
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=image_shape),
            "label": tfds.features.ClassLabel(names=["a", "b"]),
        }
    )
    root = folder / "toy" / "1.0.0"
    root.mkdir(parents=True)
    template = tfds.core.ShardedFileTemplate(
        data_dir=root, dataset_name="toy", filetype_suffix="tfrecord"
    )
    infos = []
    for split, shards, labelled in splits:
        rng = np.random.default_rng(0)
        for shard, count in enumerate(shards):
            path = root / f"toy-{split}.tfrecord-{shard:05d}-of-{len(shards):05d}"
            with tf.io.TFRecordWriter(str(path)) as writer:
                for i in range(count):
                    size = (8, 8) if image_shape[0] else (8 + i % 3, 9 + i % 2)
                    image = rng.integers(0, 256, (*size, 3), np.uint8)
                    example = {"image": image, "label": i % 2 if labelled else -1}
                    writer.write(features.serialize_example(features.encode_example(example)))
        infos.append(tfds.core.SplitInfo(split, list(shards), 0, template))
    tfds.folder_dataset.write_metadata(
        data_dir=root, features=features, split_infos=infos, filename_template=template
    )
    return tfds.builder_from_directory(root)


@pytest.fixture
def opened(monkeypatch):
    """Makes `tfds.builder` give a builder of ours."""
    return lambda builder: monkeypatch.setattr(tfds, "builder", lambda *args, **kwargs: builder)


def test_unlabelled_test_split_is_replaced_and_said(tmp_path, opened):
    splits = [("train", (40,), True), ("validation", (10,), True), ("test", (6,), False)]
    opened(_store(tmp_path, splits))
    dataset = data.load("toy", image_size=8, validation=0.2)
    assert dataset.image_shape == (8, 8, 3)
    assert [len(split) for _, split in dataset.splits()] == [32, 8, 10]
    assert dataset.notes == (
        "The test split of toy has no labels and is not used.",
        "The validation split of toy is used as the test split.",
    )
    with pytest.raises(InputError, match="'toy' differ in size; give image_size"):
        data.load("toy")


SPLITS = [("train", (300, 17), True), ("validation", (10,), True), ("test", (6,), True)]


def test_own_validation_split_and_shards_are_used(tmp_path, opened):
    opened(_store(tmp_path, SPLITS, image_shape=(8, 8, 3)))
    dataset = data.load("toy")
    assert [len(split) for _, split in dataset.splits()] == [317, 10, 6]
    assert dataset.notes == ()
    rng = np.random.default_rng(0)
    for image in dataset.train.images[:300]:
        np.testing.assert_array_equal(image, rng.integers(0, 256, (8, 8, 3), np.uint8))
    np.testing.assert_array_equal(dataset.train.labels[:300], np.arange(300) % 2)


@pytest.mark.parametrize("lost", [50, 100_000])
def test_damaged_files_are_named(tmp_path, opened, lost):
    builder = _store(tmp_path, SPLITS, image_shape=(8, 8, 3))
    opened(builder)
    records = builder.data_path / "toy-train.tfrecord-00001-of-00002"
    records.write_bytes(records.read_bytes()[:-lost])
    with pytest.raises(InputError, match=r"files of 'toy' in .*cannot be read .*delete") as e:
        data.load("toy")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnits", "'mnits' does not exist; close matches: mnist"),
        ("digit", "close matches: .*digits"),
        ("qqqqqqqq", "does not exist; there are: digits, folder"),
        ("mnist:9.9.9", r"mnist:9\.9\.9' cannot be opened: .*3\.0\.1"),
        ("imdb_reviews", r"not for image classification.*has: text \(Text\), label"),
        ("coco", "needs the features image"),
        ("imagenet2012", "differ in size; give image_size"),
    ],
)
def test_unusable_names(tmp_path, name, message):
    with pytest.raises(InputError, match=message) as e:
        data.load(name, data_dir=tmp_path)
    assert "\n" not in str(e.value)


def _unprepared(folder, opened, fail):
    """A set that is known, but neither prepared nor to be had."""
    features = {
        "image": tfds.features.Image(shape=(8, 8, 3)),
        "label": tfds.features.ClassLabel(num_classes=2),
    }
    builder = types.SimpleNamespace(
        name="toy",
        info=types.SimpleNamespace(features=features),
        builder_config=None,
        data_path=folder / "toy" / "1.0.0",
        url_infos={"https://data.example/toy.tar.gz": None},
        is_prepared=lambda: False,
        download_and_prepare=fail,
    )
    opened(builder)


def _fail():
    raise RuntimeError("the server said no\nand more")


def test_unprepared_set_without_a_connection_is_one_line(tmp_path, monkeypatch, opened):
    def no_network(host, port):
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(tfds_source.socket, "getaddrinfo", no_network)
    monkeypatch.setattr(tfds_source.urllib.request, "getproxies", dict)
    _unprepared(tmp_path, opened, _fail)
    with pytest.raises(InputError, match="'toy' is not prepared in data_dir") as e:
        data.load("toy", data_dir=tmp_path)
    message = str(e.value)
    assert "\n" not in message
    assert f"data_dir {str(tmp_path)!r}" in message
    assert "no connection to data.example" in message
    assert f"tfds build toy --data_dir={tmp_path}" in message


def test_a_failing_download_is_one_line(tmp_path, monkeypatch, opened):
    monkeypatch.setattr(tfds_source.socket, "getaddrinfo", lambda host, port: [])
    _unprepared(tmp_path, opened, _fail)
    with pytest.raises(InputError, match="RuntimeError: the server said no") as e:
        data.load("toy", data_dir=tmp_path)
    assert "\n" not in str(e.value)
