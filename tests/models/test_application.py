"""Backbones of Keras applications and keras-cv, and the names of their stages."""

import numpy as np
import pytest
import tensorflow as tf

from kd_keras import models
from kd_keras.errors import InputError
from kd_keras.models import application, keras_cv_backbones
from kd_keras.models.backbone_stages import name_stages


def branching():
    """Two branches between ``b`` and ``join``; 16 pixels, halved by ``b`` and by ``join_pool``."""
    layers = tf.keras.layers
    image = tf.keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="a")(image)
    x = layers.Conv2D(4, 3, strides=2, padding="same", name="b")(x)
    left = layers.Conv2D(4, 3, padding="same", name="left")(x)
    x = layers.Add(name="join")([left, x])
    x = layers.ZeroPadding2D(1, name="pad")(x)
    x = layers.Conv2D(5, 3, strides=2, name="c")(x)
    left = layers.ReLU(name="left2")(x)
    right = layers.Conv2D(5, 1, name="right2")(x)
    return tf.keras.Model(image, layers.Concatenate(name="end")([left, right]))


def test_stages_end_where_all_paths_meet():
    backbone = branching()
    named = name_stages(backbone)
    names = {layer.name for layer in named.layers}
    changed = {layer.name for layer in backbone.layers} - names
    assert changed == {"join", "end"}
    assert names >= {"stage1", "stage2", "pad", "c", "left"}
    assert named.get_layer("stage1").output.shape[1:] == (8, 8, 4)
    assert named.get_layer("stage2").output.shape[1:] == (4, 4, 10)
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    np.testing.assert_array_equal(np.asarray(named(images)), np.asarray(backbone(images)))


def test_a_path_around_everything_leaves_the_last_stage():
    layers = tf.keras.layers
    image = tf.keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 2, strides=2, name="a")(image)
    around = layers.Conv2D(4, 4, strides=4, name="around")(image)
    x = layers.Conv2D(4, 2, strides=2, name="b")(x)
    named = name_stages(tf.keras.Model(image, layers.Add(name="join")([x, around])))
    assert [layer.name for layer in named.layers if layer.name.startswith("stage")] == ["stage1"]


def test_keras_mobilenetv2():
    tf.keras.utils.set_random_seed(1)
    model = models.build("keras-mobilenetv2", classes=7, input_shape=(32, 32, 3))
    assert model.name == "keras-mobilenetv2"
    assert model.layers[0].name == "image"
    assert models.taps(model) == (*(f"stage{n}" for n in range(1, 6)), "features", "logits")
    widths = [model.get_layer(f"stage{n}").output.shape[-1] for n in range(1, 6)]
    assert widths == [96, 144, 192, 576, 1280]  # the expansions, as segmentation nets read them
    assert model.count_params() == 2_257_984 + 1281 * 7  # Keras' own count without top
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        loss = tf.reduce_mean(tf.square(logits - 1.0))
    assert logits.shape == (2, 7)
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(gradient is not None for gradient in gradients)


def test_keras_cv_resnet18_has_the_size_that_keras_cv_states():
    general = keras_cv_backbones.backbones()["resnet18"].__mro__[1]
    stated = general.presets["resnet18"]["metadata"]["params"]
    model = models.build("keras-cv-resnet18", classes=3, input_shape=(32, 32, 1))
    in_one_channel = 7 * 7 * 2 * 64
    assert model.count_params() == stated - in_one_channel + 513 * 3
    assert models.taps(model) == (*(f"stage{n}" for n in range(1, 6)), "features", "logits")
    assert model(np.zeros((1, 32, 32, 1), "float32")).shape == (1, 3)


def test_the_libraries_are_asked_what_they_offer():
    names = application.available()
    assert len(names) == len(set(names)) > 60
    assert {"keras-resnet50", "keras-efficientnetb0", "keras-cv-mobilenetv3small"} <= set(names)
    assert not any("backbone" in name or name.endswith("-") for name in names)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("keras-mobilnetv2", {}, "'keras-mobilnetv2' does not exist; there are: keras-mobilenetv2"),
        ("keras-cv-resnet19", {}, "'keras-cv-resnet19' does not exist; there are: keras-cv-resnet"),
        ("keras-resnet50", {"weights": "x"}, "weights 'x' are not possible.*None, imagenet"),
        ("keras-resnet50", {"rescale": True}, "keras-resnet50 offers no rescale"),
        ("keras-vgg16", {"input_shape": (16, 16, 3)}, "keras-vgg16 cannot be built for .*16, 16"),
        ("keras-cv-mobilenetv3small", {}, "keeps the settings of 'mobilenetv3small' online; give"),
        ("keras-cv-resnet18", {"weights": "imagenet"}, "no imagenet weights for 'resnet18'"),
    ],
)
def test_bad_input(name, options, message):
    with pytest.raises(InputError, match=message) as error:
        models.build(name, **{"classes": 10, "input_shape": (32, 32, 3), **options})
    assert "\n" not in str(error.value)


def test_a_failed_download_is_one_line(monkeypatch):
    def offline(*, include_top, weights, input_tensor):
        assert weights == "imagenet"
        raise OSError("URL fetch failure\non https://example.org/weights.h5")

    monkeypatch.setattr(application, "_keras_applications", lambda: {"resnet50": offline})
    with pytest.raises(InputError, match="download the weights beforehand: URL fetch") as error:
        models.build("keras-resnet50", classes=2, input_shape=(32, 32, 3), weights="imagenet")
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("keras-resnet50v2", "keras-densenet121", "keras-efficientnetb0", "keras-vgg16"),
        *("keras-efficientnetv2b0", "keras-mobilenetv3small", "keras-convnexttiny"),
        *("keras-inceptionv3", "keras-nasnetmobile", "keras-xception", "keras-cv-resnet50v2"),
        *("keras-cv-resnet34", "keras-cv-densenet121"),
    ],
)
def test_each_kind_of_backbone(name):
    model = models.build(name, classes=3, input_shape=(96, 96, 3))
    found = models.taps(model)
    assert found[0] == "stage1"
    assert found[-2:] == ("features", "logits")
    assert model(np.zeros((1, 96, 96, 3), "float32")).shape == (1, 3)
