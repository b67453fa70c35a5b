import subprocess
import sys

import numpy as np
import pytest

from kd_keras import data
from kd_keras.errors import InputError

pytestmark = pytest.mark.any_keras


def _rows(split):
    return {image.tobytes() for image in split.images}


def test_digits_are_all_there_once():
    sklearn = pytest.importorskip("sklearn.datasets").load_digits()
    digits = data.load("digits")
    assert [len(split) for _, split in digits.splits()] == [1294, 144, 359]
    assert digits.image_shape == (8, 8, 1)
    assert digits.class_names == tuple("0123456789")
    images = np.concatenate([split.images for _, split in digits.splits()])[..., 0]
    labels = np.concatenate([split.labels for _, split in digits.splits()])
    back = np.rint(images * (16 / 255)).astype(int)
    ours = sorted((*image.ravel(), label) for image, label in zip(back, labels, strict=True))
    theirs = sorted(
        (*image.ravel().astype(int), label)
        for image, label in zip(sklearn.images, sklearn.target, strict=True)
    )
    assert ours == theirs
    assert images.max() == 255


def test_digits_are_stratified():
    digits = data.load("digits", validation=0.25)
    for _, split in digits.splits():
        share = np.bincount(digits.train.labels) / len(digits.train)
        np.testing.assert_allclose(np.bincount(split.labels) / len(split), share, atol=0.01)


def test_seed_changes_the_validation_split_only():
    one, again, other = (data.load("digits", seed=seed) for seed in (1, 1, 2))
    assert data.checksum(one) == data.checksum(again)
    assert _rows(one.validation) != _rows(other.validation)
    assert _rows(one.test) == _rows(other.test)
    assert not _rows(one.train) & _rows(one.validation)


def test_limit_takes_part_of_each_split_of_the_whole():
    whole, part = data.load("digits"), data.load("digits", limit=200)
    assert [len(split) for _, split in part.splits()] == [200, 144, 200]
    for name, split in part.splits():
        assert _rows(split) <= _rows(getattr(whole, name))
    assert np.bincount(part.train.labels).min() >= 19


def test_loading_into_a_folder_equals_saving(tmp_path):
    in_memory = data.load("digits", limit=50)
    on_disk = data.load("digits", limit=50, directory=tmp_path / "a")
    assert isinstance(on_disk.train.images, np.memmap)
    assert data.checksum(on_disk) == data.checksum(in_memory)
    data.save(in_memory, tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 0}, "validation 0 is out of range"),
        ({"validation": 1.0}, "validation 1.0"),
        ({"limit": 0}, "limit 0"),
        ({"image_size": 0}, "image_size 0"),
        ({"image_size": (8, 8, 8)}, "image_size"),
        ({"image_size": 32}, "digits are 8x8"),
        ({"validation": 0.9999}, "left to train on"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        data.load("digits", **options)


def test_importing_the_package_loads_no_source_and_no_tensorflow():
    code = (
        "import sys, kd_keras.data; "
        "print([m for m in ('tensorflow', 'tensorflow_datasets', 'sklearn', 'keras_cv', 'PIL') "
        "if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_every_public_name_is_there():
    for name in data.__all__:
        assert getattr(data, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        data.no_such_name  # noqa: B018
