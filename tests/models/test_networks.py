import numpy as np
import pytest
import tensorflow as tf

from kd_keras import models
from kd_keras.errors import InputError

# name, options, input_shape, trainable weights, width of the features
NETWORKS = [
    ("resnet8", {}, (32, 32, 3), 75_290 + (16 * 32 + 64) + (32 * 64 + 128), 64),
    ("resnet20", {"shortcut": "A"}, (32, 32, 3), 269_722, 64),  # He et al., table 6: 0.27M
    ("resnet20", {}, (32, 32, 3), 269_722 + (16 * 32 + 64) + (32 * 64 + 128), 64),
    ("resnet56", {"shortcut": "A"}, (32, 32, 3), 853_018, 64),  # 0.85M
    ("nin", {}, (28, 28, 1), 961_610 - 2 * 1408, 192),
    ("lenet4", {}, (28, 28, 1), 33_770, 120),
    ("lenet-20-50-500", {}, (28, 28, 1), 431_080, 500),
    ("mlp-1200-1200", {}, (28, 28, 1), 785 * 1200 + 1201 * 1200 + 1201 * 10, 1200),
    ("mlp-7", {"dropout": 0.5, "input_dropout": 0.2}, (8, 8, 1), 65 * 7 + 8 * 10, 7),
    ("convnet-16-32", {}, (8, 8, 1), 9 * 16 + 32 + 9 * 16 * 32 + 64 + 33 * 10, 32),
]
IDS = [name + "".join(f"-{value}" for value in options.values()) for name, options, *_ in NETWORKS]


def build(name, options, shape):
    tf.keras.utils.set_random_seed(1)
    return models.build(name, classes=10, input_shape=shape, **options)


@pytest.mark.parametrize(("name", "options", "shape", "parameters", "width"), NETWORKS, ids=IDS)
def test_network(name, options, shape, parameters, width):
    model = build(name, options, shape)
    assert model.name == name
    assert sum(np.prod(v.shape) for v in model.trainable_variables) == parameters
    assert all("/" not in layer.name for layer in model.layers)
    assert model.layers[0].name == "image"
    found = models.taps(model)
    assert found[-2:] == ("features", "logits")
    assert found[:-2] == tuple(f"stage{k + 1}" for k in range(len(found) - 2)) != ()
    features = model.get_layer("features").output
    assert tuple(features.shape) == (None, width)
    assert model.get_layer("logits").input is features

    images = np.random.default_rng(0).normal(size=(4, *shape)).astype("float32")
    logits = np.asarray(model(images, training=False))
    assert logits.shape == (4, 10)
    assert logits.dtype == np.float32
    assert (logits < 0).any()  # linear: no softmax, no ReLU
    assert not np.allclose(logits.sum(-1), 1)

    copy = model.__class__.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    np.testing.assert_array_equal(np.asarray(copy(images, training=False)), logits)


def test_zero_padded_shortcut_is_the_publications():
    model = build("resnet8", {"shortcut": "A"}, (7, 8, 3))  # an odd size too
    maps = [model.get_layer(name).output for name in ("stage1", "stage2_0_shortcut")]
    images = np.random.default_rng(0).normal(size=(2, 7, 8, 3)).astype("float32")
    x, short = (np.asarray(m) for m in tf.keras.Model(model.input, maps)(images))
    expected = np.pad(x[:, ::2, ::2, :], ((0, 0), (0, 0), (0, 0), (8, 8)))
    np.testing.assert_array_equal(short, expected)


def test_strided_convolution_pads_one_pixel_on_every_side():
    model = build("resnet8", {}, (8, 8, 3))
    names = ("stage1", "stage2_0_conv1")
    outputs = [model.get_layer(name).output for name in names]
    images = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype("float32")
    x, y = (np.asarray(m) for m in tf.keras.Model(model.input, outputs)(images))
    padded = np.pad(x[0], ((1, 1), (1, 1), (0, 0)))
    kernel = np.asarray(model.get_layer("stage2_0_conv1").kernel)
    for row, column in ((0, 0), (3, 1)):
        window = padded[2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
        expected = np.tensordot(window, kernel, axes=3)
        np.testing.assert_allclose(y[0, row, column], expected, rtol=1e-4, atol=1e-5)


def test_network_in_network_equals_its_convolutional_form():
    model = build("nin", {}, (12, 12, 1))
    parts = [model.get_layer("stage3").output, model.output]
    images = np.random.default_rng(0).normal(size=(2, 12, 12, 1)).astype("float32")
    maps, logits = (np.asarray(m) for m in tf.keras.Model(model.input, parts)(images))
    kernel, bias = model.get_layer("logits").get_weights()
    class_maps = maps @ kernel + bias  # a 1x1 convolution
    np.testing.assert_allclose(logits, class_maps.mean(axis=(1, 2)), rtol=1e-4, atol=1e-5)


def test_mlp_options():
    options = {"dropout": 0.5, "input_dropout": 0.2, "max_norm": 0.5, "l2": 0.01}
    model = build("mlp-20-10", options, (4, 4, 1))
    dense = model.get_layer("stage1")
    squares = sum(
        np.square(model.get_layer(n).get_weights()[0]).sum() for n in ("stage1", "stage2")
    )
    np.testing.assert_allclose(float(sum(model.losses)), 0.01 * squares, rtol=1e-5)
    norms = np.linalg.norm(np.asarray(dense.kernel_constraint(dense.kernel)), axis=0)
    assert norms.max() <= 0.5 + 1e-5
    rates = [model.get_layer(n).rate for n in ("input_dropout", "dropout1", "features")]
    assert rates == [0.2, 0.5, 0.5]
    names = [layer.name for layer in build("mlp-20-10", {}, (4, 4, 1)).layers]
    assert [layer.name for layer in model.layers if layer.name != "input_dropout"] == names


def test_logits_stay_float32_under_mixed_precision():
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = build("convnet-4-4", {}, (8, 8, 1))
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    assert model(np.zeros((1, 8, 8, 1), "float32")).dtype == tf.float32
    assert model.get_layer("conv1").compute_dtype == "float16"


def test_same_seed_gives_the_same_weights():
    first, second = (build("resnet8", {}, (8, 8, 3)).get_weights() for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


# Others of their families are built; the largest counts are in test_residual_networks.py.
DEEP = (
    *("resnet34", "resnet50", "resnet56", "resnet110", "resnet152", "resnet164"),
    *("preact-resnet164", "wrn-22", "wrn-40", "densenet"),
)


@pytest.mark.slow
@pytest.mark.any_keras  # the families' own tests build them under both
def test_all_listed_names_are_built():
    for name in models.names():
        if not name.startswith(DEEP):
            assert models.build(name, classes=3, input_shape=(16, 16, 1)).output.shape[-1] == 3


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet200", {}, "network 'resnet200' does not exist; there are: resnet20, "),
        ("mlp-", {}, "network 'mlp-' does not exist; there are: .*mlp-800-800"),
        ("mlp-0", {}, "network 'mlp-0' does not exist"),
        (None, {}, "network None does not exist"),
        ("resnet20", {"shortcuts": "A"}, "'resnet20' has no option 'shortcuts'; it has: shortcut$"),
        ("lenet4", {"dropout": 0.1}, "'lenet4' has no option 'dropout'; it has: none$"),
        (
            "resnet20",
            {"shortcut": "C"},
            "shortcut 'C' is not possible for resnet20; there are: A, B",
        ),
        ("nin", {"dropout": 1.0}, "dropout 1.0 is not a rate"),
        ("mlp-5", {"input_dropout": -0.1}, "input_dropout -0.1 is not a rate"),
        ("mlp-5", {"max_norm": 0.0}, "max_norm 0.0 is not possible"),
        ("mlp-5", {"l2": -1.0}, "l2 -1.0 is not possible"),
        ("lenet4", {"input_shape": (8, 8, 1)}, "too small for lenet4.*16x16"),
        ("convnet-4-4-4", {"input_shape": (3, 8, 1)}, "too small for convnet-4-4-4.*4x4"),
        ("resnet20", {"input_shape": (32, 32)}, "input_shape .32, 32. is not an image's"),
        ("resnet20", {"input_shape": (32, None, 3)}, "input_shape .32, None, 3. is not an image's"),
        ("resnet20", {"input_shape": (32, 0, 3)}, "input_shape .32, 0, 3. is not an image's"),
        ("resnet20", {"classes": 1}, "classes 1 is not possible"),
        ("resnet20", {"classes": 2.5}, "classes 2.5 is not possible"),
    ],
)
def test_bad_input(name, arguments, message):
    arguments = {"classes": 10, "input_shape": (32, 32, 3), **arguments}
    with pytest.raises(InputError, match=message) as error:
        models.build(name, **arguments)
    assert "\n" not in str(error.value)


def test_a_family_costs_one_file(tmp_path, monkeypatch):
    """A new file is found by itself: no list anywhere knows the families."""
    (tmp_path / "made_up.py").write_text(
        "from kd_keras.models.family import Family\n"
        "FAMILY = Family('made-up', ('made-up',), lambda name, *, classes, input_shape: name)\n"
    )
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    registry = __import__("kd_keras.models.registry", fromlist=["_families"])
    registry._families.cache_clear()
    try:
        assert models.build("made-up", classes=2, input_shape=(1, 1, 1)) == "made-up"
        assert "made-up" in models.names()
    finally:
        registry._families.cache_clear()


@pytest.mark.tf_keras
@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("convnet-4-8", {}, (8, 8, 1)),
        ("lenet4", {}, (28, 28, 1)),
        ("resnet8", {}, (8, 8, 3)),
        ("resnet20", {}, (8, 8, 3)),
        ("resnet8", {"shortcut": "A"}, (8, 8, 3)),
        ("nin", {}, (8, 8, 1)),
        ("mlp-8-8", {"dropout": 0.5}, (8, 8, 1)),
    ],
)
def test_tfmot_can_quantize_every_layer(name, options, shape):
    import tensorflow_model_optimization as tfmot

    quantized = tfmot.quantization.keras.quantize_model(build(name, options, shape))
    images = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    assert quantized(images, training=True).shape == (2, 10)
    for layer in quantized.layers:
        names = [weight.name for weight in layer.weights]
        if any("kernel" in name for name in names):  # a kernel without a range stays in float
            assert any("kernel_min" in name for name in names), layer.name
