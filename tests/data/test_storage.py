import json
import os
import stat

import numpy as np
import pytest

from kd_keras import data
from kd_keras.data import storage
from kd_keras.data.splits import Dataset, Split
from kd_keras.errors import InputError

pytestmark = pytest.mark.any_keras


def _dataset():
    rng = np.random.default_rng(0)
    splits = {
        name: Split(rng.integers(0, 256, (n, 3, 4, 3), np.uint8), np.arange(n, dtype=np.int64) % 2)
        for name, n in (("train", 10), ("validation", 4), ("test", 5))
    }
    return Dataset("toy", ("cat", "dög"), notes=("A note.",), **splits)


def _same(one, other):
    assert (one.name, one.class_names, one.notes) == (other.name, other.class_names, other.notes)
    for name, split in one.splits():
        np.testing.assert_array_equal(split.images, getattr(other, name).images)
        np.testing.assert_array_equal(split.labels, getattr(other, name).labels)


def test_round_trip_is_memory_mapped_and_leaves_nothing_behind(tmp_path):
    saved = data.save(_dataset(), tmp_path / "deep" / "er")
    opened = data.open_saved(tmp_path / "deep" / "er", verify=True)
    for dataset in (saved, opened):
        _same(dataset, _dataset())
        assert isinstance(dataset.train.images, np.memmap)
        assert not dataset.train.images.flags.writeable
    names = {path.name for path in (tmp_path / "deep" / "er").iterdir()}
    arrays = {f"{s}_{k}.npy" for s in ("train", "validation", "test") for k in ("images", "labels")}
    assert names == arrays | {"data.json"}
    assert storage.read_manifest(tmp_path / "deep/er")["checksum"] == data.checksum(_dataset())


def _cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def _empty(path):
    path.write_bytes(b"")


def _pickle(path):
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)


def _shorter(path):
    np.save(path, np.load(path)[:-1])


@pytest.mark.parametrize("damage", [_cut, _empty, _pickle, _shorter, os.remove])
@pytest.mark.parametrize("name", ["train_images.npy", "test_labels.npy"])
def test_damaged_array_is_named_with_the_cure(tmp_path, name, damage):
    data.save(_dataset(), tmp_path)
    damage(tmp_path / name)
    with pytest.raises(
        InputError, match=rf"{name}' is missing or damaged .*delete the folder"
    ) as e:
        data.open_saved(tmp_path)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": 2}'])
def test_damaged_manifest_is_named(tmp_path, text):
    data.save(_dataset(), tmp_path)
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(InputError, match=r"data\.json' is missing or damaged"):
        data.open_saved(tmp_path)


def test_verify_finds_one_changed_pixel(tmp_path):
    data.save(_dataset(), tmp_path)
    images = np.load(tmp_path / "test_images.npy", mmap_mode="r+")
    images[2, 1, 1, 0] ^= 1
    images.flush()
    data.open_saved(tmp_path)
    with pytest.raises(InputError, match="do not have its checksum"):
        data.open_saved(tmp_path, verify=True)


def test_a_save_that_dies_half_way_is_not_taken_for_data(tmp_path, monkeypatch):
    data.save(_dataset(), tmp_path)

    def die(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, "checksum", die)
        with pytest.raises(KeyboardInterrupt):
            data.save(_dataset(), tmp_path)
    with pytest.raises(InputError, match=r"data\.json"):
        data.open_saved(tmp_path)
    _same(data.save(_dataset(), tmp_path), _dataset())
    assert not list(tmp_path.glob("*.partial"))


def test_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match=r"cannot be written .*No space left on device"):
        data.save(_dataset(), tmp_path)
    with pytest.raises(InputError, match="missing or damaged"):
        data.open_saved(tmp_path)


def test_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        data.save(_dataset(), tmp_path / "file" / "data")
    if os.geteuid():  # root may write anywhere
        tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
        with pytest.raises(InputError, match="Permission denied"):
            data.save(_dataset(), tmp_path / "data")


def test_manifest_is_readable_json(tmp_path):
    data.save(_dataset(), tmp_path)
    manifest = json.loads((tmp_path / "data.json").read_text())
    assert manifest["class_names"] == ["cat", "dög"]
    assert manifest["splits"] == {
        "train": [10, 3, 4, 3],
        "validation": [4, 3, 4, 3],
        "test": [5, 3, 4, 3],
    }
