import numpy as np
import pytest
from PIL import Image

from kd_keras import data
from kd_keras.errors import InputError

pytestmark = pytest.mark.any_keras

RNG = np.random.default_rng(0)


def _write(path, shape=(6, 8, 3), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return pixels


def _fill(root, classes=("zebra", "ant"), each=10, shape=(6, 8, 3)):
    return {
        name: [_write(root / name / f"{i}.png", shape) for i in range(each)] for name in classes
    }


def test_pixels_and_sorted_class_names(tmp_path):
    written = _fill(tmp_path)
    (tmp_path / "ant" / ".hidden.png").write_text("not an image")
    (tmp_path / "ant" / "notes.txt").write_text("not an image")
    dataset = data.load("folder", data_dir=tmp_path)
    assert dataset.class_names == ("ant", "zebra")
    assert [len(split) for _, split in dataset.splits()] == [14, 2, 4]
    seen = {name: [] for name in written}
    for _, split in dataset.splits():
        for image, label in zip(split.images, split.labels, strict=True):
            seen[dataset.class_names[label]].append(image.tobytes())
    for name, images in written.items():
        assert sorted(seen[name]) == sorted(image.tobytes() for image in images)


def test_own_splits_are_kept(tmp_path):
    _fill(tmp_path / "train", each=5)
    _fill(tmp_path / "validation", each=2)
    written = _fill(tmp_path / "test", classes=("zebra",), each=3)
    dataset = data.load("folder", data_dir=tmp_path)
    assert [len(split) for _, split in dataset.splits()] == [10, 4, 3]
    np.testing.assert_array_equal(dataset.test.images, written["zebra"])
    np.testing.assert_array_equal(dataset.test.labels, [1, 1, 1])


def test_grey_images_have_one_channel_until_one_is_coloured(tmp_path):
    written = _fill(tmp_path, shape=(6, 8))
    grey = data.load("folder", data_dir=tmp_path)
    assert grey.image_shape == (6, 8, 1)
    _write(tmp_path / "ant" / "colour.png")
    colour = data.load("folder", data_dir=tmp_path)
    assert colour.image_shape == (6, 8, 3)
    pixels = np.concatenate([split.images for _, split in colour.splits()])
    repeated = np.repeat(written["ant"][0][..., np.newaxis], 3, axis=-1)
    assert any(np.array_equal(image, repeated) for image in pixels)


def test_palette_alpha_and_jpeg_are_read(tmp_path):
    _fill(tmp_path)
    image = Image.fromarray(RNG.integers(0, 256, (6, 8, 4), np.uint8), "RGBA")
    image.save(tmp_path / "ant" / "alpha.png")
    image.convert("RGB").convert("P").save(tmp_path / "ant" / "palette.gif")
    image.convert("RGB").save(tmp_path / "ant" / "photo.JPG", "JPEG")
    dataset = data.load("folder", data_dir=tmp_path)
    assert sum(len(split) for _, split in dataset.splits()) == 23


def test_mixed_sizes_need_image_size_which_cuts_the_centre(tmp_path):
    _fill(tmp_path)
    wide = np.zeros((6, 24, 3), np.uint8)
    wide[:, 8:16] = 200
    Image.fromarray(wide).save(tmp_path / "ant" / "wide.png")
    with pytest.raises(InputError, match=r"differ in size: .*wide.png' is 24x6, .*8x6.*image_size"):
        data.load("folder", data_dir=tmp_path)
    dataset = data.load("folder", data_dir=tmp_path, image_size=(3, 4))
    assert dataset.image_shape == (3, 4, 3)
    pixels = np.concatenate([split.images for _, split in dataset.splits()])
    assert any((image == 200).all() for image in pixels)


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_truncated_and_unreadable_images_are_named(tmp_path):
    images, out = tmp_path / "images", tmp_path / "out"
    _fill(images, shape=(40, 40, 3))
    broken = images / "zebra" / "7.png"
    _truncate(broken)
    with pytest.raises(InputError, match=r"zebra/7\.png' cannot be read .*replace or delete") as e:
        data.load("folder", data_dir=images, directory=out)
    assert "\n" not in str(e.value)
    assert not (out / "data.json").exists()
    broken.write_text("no image at all")
    with pytest.raises(InputError, match=r"zebra/7\.png' cannot be read"):
        data.load("folder", data_dir=images)


def test_truncated_jpeg_is_named(tmp_path):
    _fill(tmp_path, shape=(40, 40, 3))
    _write(tmp_path / "ant" / "a.jpg", (40, 40, 3))
    _truncate(tmp_path / "ant" / "a.jpg")
    with pytest.raises(InputError, match=r"a\.jpg' cannot be read"):
        data.load("folder", data_dir=tmp_path)


def test_deep_images_are_refused(tmp_path):
    _fill(tmp_path, shape=(6, 8))
    Image.fromarray(np.full((6, 8), 40_000, np.uint16)).save(tmp_path / "ant" / "deep.png")
    with pytest.raises(InputError, match=r"deep\.png' has more than 8 bits"):
        data.load("folder", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "has no sub-folders"),
        (lambda root: (root / "ant").mkdir(), r"ant' has no images; add some"),
        (lambda root: (_fill(root), (root / "bee").mkdir()), "bee' has no images"),
        (lambda root: _fill(root / "train"), None),
        (lambda root: (_fill(root / "train"), (root / "val").mkdir()), "beside 'val'"),
        (lambda root: (_fill(root / "train"), (root / "test").mkdir()), "test' has no images"),
        (
            lambda root: (_fill(root / "train"), _fill(root / "test", ("emu",))),
            r"class 'emu' .*ant, zebra",
        ),
        (lambda root: _write(root / "ant" / "0.png"), "left to train on"),
    ],
)
def test_bad_folders(tmp_path, make, message):
    make(tmp_path)
    if message is None:
        assert len(data.load("folder", data_dir=tmp_path).train) > 0
        return
    with pytest.raises(InputError, match=message):
        data.load("folder", data_dir=tmp_path)


def test_no_folder_given_or_there(tmp_path):
    with pytest.raises(InputError, match="needs data_dir"):
        data.load("folder")
    with pytest.raises(InputError, match="is not a folder"):
        data.load("folder", data_dir=tmp_path / "missing")
