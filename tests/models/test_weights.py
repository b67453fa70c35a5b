import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from kd_keras import models
from kd_keras.errors import InputError

LEGACY = os.environ.get("TF_USE_LEGACY_KERAS") == "1"


def convnet(seed=1, name="convnet-4-6", channels=1):
    tf.keras.utils.set_random_seed(seed)
    model = models.build(name, classes=3, input_shape=(8, 8, channels))
    rng = np.random.default_rng(seed)
    model.set_weights([rng.normal(size=w.shape).astype("float32") for w in model.get_weights()])
    return model


def same_weights(first, second):
    pairs = zip(first.get_weights(), second.get_weights(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def arrays_of(path):
    with np.load(path, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def test_npz_round_trip_is_exact(tmp_path):
    model, other = convnet(1), convnet(2)
    models.save_weights_npz(model, tmp_path / "weights.npz")
    assert not same_weights(model, other)
    models.load_weights(other, tmp_path / "weights.npz")
    assert same_weights(model, other)
    keys = list(arrays_of(tmp_path / "weights.npz"))
    assert keys[:3] == ["conv1/kernel", "bn1/gamma", "bn1/beta"]
    assert keys[-2:] == ["logits/kernel", "logits/bias"]
    assert os.listdir(tmp_path) == ["weights.npz"]


def test_npz_of_nested_and_shared_layers(tmp_path):
    layers = tf.keras.layers

    def nested():
        inner_input = layers.Input((4,))
        inner_output = layers.Dense(3, name="kernel_owner")(inner_input)
        inner = tf.keras.Model(inner_input, inner_output, name="inner")
        shared = layers.Dense(4, name="shared")
        x = image = layers.Input((4,))
        x = inner(shared(shared(x)))
        return tf.keras.Model(image, layers.LSTM(2, name="lstm")(layers.Reshape((1, 3))(x)))

    first, second = nested(), nested()
    models.save_weights_npz(first, tmp_path / "weights.npz")
    assert set(arrays_of(tmp_path / "weights.npz")) == {
        "shared/kernel", "shared/bias", "inner/kernel_owner/kernel", "inner/kernel_owner/bias",
        "lstm/kernel", "lstm/recurrent_kernel", "lstm/bias",
    }  # fmt: skip
    models.load_weights(second, tmp_path / "weights.npz")
    assert same_weights(first, second)


def test_npz_of_a_subclassed_model(tmp_path):
    class Scaled(tf.keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = tf.keras.layers.Dense(2, name="dense")

        def build(self, shape):
            self.scale = self.add_weight(name="scale", shape=(), initializer="random_normal")
            self.dense.build(shape)
            self.built = True

        def call(self, x):
            return self.scale * self.dense(x)

    first, second = Scaled(), Scaled()
    with pytest.raises(InputError, match="has no weights yet; call it on a batch first"):
        models.save_weights_npz(first, tmp_path / "weights.npz")
    for model in (first, second):
        model(np.zeros((1, 3), "float32"))
    models.save_weights_npz(first, tmp_path / "weights.npz")
    assert set(arrays_of(tmp_path / "weights.npz")) == {"dense/kernel", "dense/bias", "scale"}
    models.load_weights(second, tmp_path / "weights.npz")
    assert same_weights(first, second)


def test_npz_goes_from_one_keras_to_the_other(tmp_path):
    """Written here, read and written again by the other Keras, read here: bit for bit the same."""
    model, other = convnet(1), convnet(2)
    there, back = str(tmp_path / "there.npz"), str(tmp_path / "back.npz")
    models.save_weights_npz(model, there)
    code = (
        "import sys, tensorflow as tf; from kd_keras import models;"
        "m = models.build('convnet-4-6', classes=3, input_shape=(8, 8, 1));"
        "models.load_weights(m, sys.argv[1]); models.save_weights_npz(m, sys.argv[2]);"
        "print(tf.keras.Model.__module__.split('.')[0])"
    )
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "0" if LEGACY else "1"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code, there, back],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split()[-1] == ("keras" if LEGACY else "tf_keras")
    models.load_weights(other, back)
    assert same_weights(model, other)


def test_published_names_are_understood(tmp_path):
    """Slashes for underscores, and the 1x1 convolution that is the dense layer ``logits`` here."""
    model = models.build("nin", classes=10, input_shape=(8, 8, 1))
    models.save_weights_npz(model, tmp_path / "ours.npz")
    arrays = arrays_of(tmp_path / "ours.npz")
    arrays["block3_conv3/kernel"] = arrays.pop("logits/kernel")[None, None] + 1
    arrays["block3_conv3/bias"] = arrays.pop("logits/bias") + 2
    arrays["block1/bn1/gamma"] = arrays.pop("block1_bn1/gamma") + 3
    np.savez(tmp_path / "theirs.npz", **arrays)
    models.load_weights(model, tmp_path / "theirs.npz")
    kernel, bias = model.get_layer("logits").get_weights()
    np.testing.assert_array_equal(kernel, arrays["block3_conv3/kernel"][0, 0])
    np.testing.assert_array_equal(bias, arrays["block3_conv3/bias"])
    np.testing.assert_array_equal(model.get_layer("block1_bn1").get_weights()[0], 4.0)
    with pytest.raises(InputError, match="missing in the file: logits/kernel, logits/bias; unexp"):
        models.load_weights(model, tmp_path / "theirs.npz", aliases={})


def test_npz_that_does_not_fit_changes_nothing(tmp_path):
    model = convnet(1)
    before = [w.copy() for w in model.get_weights()]
    models.save_weights_npz(convnet(2), tmp_path / "good.npz")
    arrays = arrays_of(tmp_path / "good.npz")
    del arrays["bn2/beta"]
    arrays["extra/kernel"] = np.zeros(2)
    arrays["conv1/kernel"] = np.zeros((3, 3, 3, 4), "float32")
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(InputError) as error:
        models.load_weights(model, tmp_path / "bad.npz")
    for part in (
        "missing in the file: bn2/beta",
        "unexpected in the file: extra/kernel",
        "conv1/kernel is (3, 3, 3, 4) in the file and (3, 3, 1, 4) in the model",
    ):
        assert part in str(error.value)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def write(model, path):
    """By Keras itself; Keras 3 writes an ``.h5`` only with the whole model in it."""
    (model.save_weights if path.name.endswith(".weights.h5") else model.save)(path)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-700])


def foreign(path):
    path.write_bytes(b"not a weights file at all\n" * 40)


@pytest.mark.parametrize("spoil", [truncated, foreign])
@pytest.mark.parametrize("suffix", [".npz", ".weights.h5", ".h5", ".keras"])
def test_spoilt_files(tmp_path, spoil, suffix):
    path = tmp_path / f"model{suffix}"
    model = convnet(1)
    if suffix == ".npz":
        models.save_weights_npz(model, path)
    else:
        write(model, path)
    spoil(path)
    load = models.load_model if suffix == ".keras" else lambda p: models.load_weights(model, p)
    before = [w.copy() for w in model.get_weights()]
    with pytest.raises(InputError, match="cannot be loaded") as error:
        load(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_npz_with_pickles_or_text_is_refused(tmp_path):
    np.savez(tmp_path / "pickle.npz", **{"conv1/kernel": np.array([{}], dtype=object)})
    np.savez(tmp_path / "text.npz", **{"conv1/kernel": np.array(["a"])})
    np.save(tmp_path / "array.npy", np.zeros(3))
    os.rename(tmp_path / "array.npy", tmp_path / "array.npz")
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    for name in ("pickle", "text", "array", "zip"):
        with pytest.raises(InputError, match=f"{name}.npz"):
            models.load_weights(convnet(), tmp_path / f"{name}.npz")


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
def test_h5_weights(tmp_path, suffix):
    model, other = convnet(1), convnet(2)
    path = tmp_path / f"model{suffix}"
    write(model, path)
    models.load_weights(other, path)
    assert same_weights(model, other)
    wider = convnet(2, channels=2)
    before = [w.copy() for w in wider.get_weights()]
    with pytest.raises(InputError, match="cannot be loaded into model 'convnet-4-6'"):
        models.load_weights(wider, path)
    assert all(np.array_equal(a, b) for a, b in zip(before, wider.get_weights(), strict=True))


def test_weights_paths(tmp_path):
    with pytest.raises(InputError, match=r"absent\.npz' does not exist"):
        models.load_weights(convnet(), tmp_path / "absent.npz")
    (tmp_path / "weights.txt").write_text("")
    with pytest.raises(InputError, match=r"no known kind; give \.npz"):
        models.load_weights(convnet(), tmp_path / "weights.txt")
    with pytest.raises(InputError, match=r"must end in \.npz"):
        models.save_weights_npz(convnet(), tmp_path / "weights.h5")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "weights.npz"
    models.save_weights_npz(convnet(1), path)
    before = path.read_bytes()

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        models.save_weights_npz(convnet(2), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["weights.npz"]
