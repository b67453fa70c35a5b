import json
import os

import h5py
import numpy as np
import pytest
import tensorflow as tf

from kd_keras import models
from kd_keras.errors import InputError

IMAGES = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype("float32")


def convnet():
    tf.keras.utils.set_random_seed(1)
    return models.build("convnet-4-6", classes=3, input_shape=(8, 8, 1))


def with_lambda():
    x = tf.keras.Input((2,))
    return tf.keras.Model(x, tf.keras.layers.Lambda(lambda v: v + 1)(x))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_load_model(tmp_path, suffix):
    model = convnet()
    path = tmp_path / f"model{suffix}"
    model.save(path)
    loaded = models.load_model(path)
    np.testing.assert_array_equal(np.asarray(loaded(IMAGES)), np.asarray(model(IMAGES)))
    assert models.taps(loaded) == ("stage1", "stage2", "features", "logits")


@pytest.mark.tf_keras
def test_load_saved_model(tmp_path):
    model = convnet()
    model.save(tmp_path / "saved")
    loaded = models.load_model(tmp_path / "saved")
    np.testing.assert_allclose(np.asarray(loaded(IMAGES)), np.asarray(model(IMAGES)), rtol=1e-6)
    with_lambda().save(tmp_path / "code")
    with pytest.raises(InputError, match="holds Python code"):
        models.load_model(tmp_path / "code")
    os.remove(tmp_path / "saved" / "keras_metadata.pb")
    with pytest.raises(InputError, match="not written by Keras"):
        models.load_model(tmp_path / "saved")


@pytest.mark.skipif(os.environ.get("TF_USE_LEGACY_KERAS") == "1", reason="about Keras 3")
def test_saved_model_under_keras_3(tmp_path):
    convnet().export(tmp_path / "saved")
    with pytest.raises(InputError, match=r"Keras 3 does not load.*TF_USE_LEGACY_KERAS=1"):
        models.load_model(tmp_path / "saved")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_code_in_a_file_is_not_run(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    with_lambda().save(path)
    with pytest.raises(InputError, match=r"[Ll]ambda") as error:
        models.load_model(path)
    assert "\n" not in str(error.value)


def test_escaped_code_in_h5_is_found(tmp_path):
    path = tmp_path / "model.h5"
    with_lambda().save(path)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        file.attrs["model_config"] = json.dumps(config).replace("lambda", "\\u006cambda")
    with pytest.raises(InputError, match="holds Python code"):
        models.load_model(path)


def test_paths(tmp_path):
    with pytest.raises(InputError, match=r"absent\.keras' does not exist"):
        models.load_model(tmp_path / "absent.keras")
    (tmp_path / "model.bin").write_text("")
    with pytest.raises(InputError, match="no known kind"):
        models.load_model(tmp_path / "model.bin")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"no saved_model\.pb"):
        models.load_model(tmp_path / "folder")
    path = tmp_path / "weights.h5"
    convnet().save_weights(tmp_path / "only.weights.h5")
    os.rename(tmp_path / "only.weights.h5", path)
    with pytest.raises(InputError, match="holds weights only"):
        models.load_model(path)
