"""The maxout net, FitNets, mimic nets, MobileNet and ShuffleNet."""

import numpy as np
import pytest
import tensorflow as tf

from kd_keras import models
from kd_keras.errors import InputError
from kd_keras.models.halvings import strides
from tflite_export import multiply_adds

CIFAR, IMAGENET = (32, 32, 3), (224, 224, 3)

# name, options, input_shape, classes, trainable weights, those without biases, the publication's
# figure in millions, multiply-adds in millions as published; FitNets count without biases
PUBLISHED = [
    ("maxout", {}, CIFAR, 10, 9_046_330, 9_044_360, "9", "725"),
    ("fitnet1", {}, CIFAR, 10, 251_194, 249_576, "0.25", "30"),
    ("fitnet2", {}, CIFAR, 10, 864_122, 861_928, "0.862", "108"),
    ("fitnet3", {}, CIFAR, 10, 1_572_474, 1_569_544, "1.6", "392"),
    ("fitnet4", {}, CIFAR, 10, 2_548_602, 2_544_712, "2.5", "382"),
    ("mimic-64c-1200-30000", {}, CIFAR, 10, 53_616_074, 53_584_800, "54", None),
    ("mobilenet", {}, IMAGENET, 1000, 4_231_976, 4_230_976, "4.2", "569"),
    ("mobilenet", {"width": 0.5}, IMAGENET, 1000, 1_331_592, 1_330_592, "1.3", "149"),
]
SMALL = [
    ("maxout", {}, (9, 8, 1)),
    ("maxout", {"dense_pieces": 5, "dropout": 0.0, "input_dropout": 0.0}, (5, 4, 1)),
    ("fitnet1", {}, (8, 9, 1)),
    ("mimic-5-12", {}, (4, 4, 1)),
    ("mimic-3c-5-12", {}, (7, 6, 2)),
    ("mobilenet", {"width": 0.1}, (9, 8, 3)),
    ("shufflenet", {"groups": 2, "width": 0.1}, (9, 8, 3)),
]
STAGES = {"maxout": 3, "fitnet1": 3, "mimic-5-12": 1, "mimic-3c-5-12": 2}
STAGES |= {"mobilenet": 5, "shufflenet": 4}


def build(name, options=None, shape=CIFAR, classes=10):
    tf.keras.utils.set_random_seed(1)
    return models.build(name, classes=classes, input_shape=shape, **(options or {}))


def run(model, layer_names, images):
    """The outputs of these layers."""
    outputs = [model.get_layer(name).output for name in layer_names]
    return [np.asarray(y) for y in tf.keras.Model(model.inputs, outputs)(images, training=False)]


def images_of(shape, count=3):
    return np.random.default_rng(0).normal(size=(count, *shape)).astype("float32")


@pytest.mark.any_keras
@pytest.mark.parametrize(
    ("name", "options", "shape", "classes", "weights", "kernels", "millions", "products"),
    PUBLISHED,
    ids=[f"{case[0]}{''.join(map(str, case[1].values()))}" for case in PUBLISHED],
)
def test_costs_are_the_publications(
    name, options, shape, classes, weights, kernels, millions, products
):
    model = build(name, options, shape, classes)
    assert sum(np.prod(v.shape) for v in model.trainable_variables) == weights
    without_biases = [v for v in model.trainable_variables if "bias" not in v.name]
    assert sum(np.prod(v.shape) for v in without_biases) == kernels
    decimals = len(millions.partition(".")[2])
    assert f"{kernels / 1e6:.{decimals}f}" == millions
    if products is not None:
        assert f"{multiply_adds(model) / 1e6:.0f}" == products


@pytest.mark.any_keras
def test_the_128_channel_mimic_net_by_arithmetic():
    narrow, wide = (build(f"mimic-{c}c-20-30", shape=CIFAR).count_params() for c in (64, 128))
    added = 64 * (5 * 5 * 3 + 1) + 15 * 15 * 64 * 20
    assert wide - narrow == added
    published = 53_616_074 + added + 15 * 15 * 64 * (1200 - 20)
    assert published == 70_900_938  # "70M"


@pytest.mark.any_keras
@pytest.mark.parametrize(
    ("groups", "millions"),
    [
        (3, 137),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, 143), (2, 140), (4, 133))),
        pytest.param(8, 137, marks=pytest.mark.slow),
    ],
)
def test_shufflenet_costs_are_the_publications(groups, millions):
    model = build("shufflenet", {"groups": groups}, IMAGENET, 1000)
    logits = 1000 * model.get_layer("features").output.shape[-1]
    # 136.5M and 142.5M are rounded up, as in the publication.
    assert int((multiply_adds(model) - logits) / 1e6 + 0.5) == millions


@pytest.mark.parametrize(("name", "options", "shape"), SMALL)
def test_network(name, options, shape):
    model = build(name, options, shape)
    assert model.name == name
    stages = tuple(f"stage{n}" for n in range(1, STAGES[name] + 1))
    assert models.taps(model) == (*stages, "features", "logits")
    assert model.get_layer("logits").input is model.get_layer("features").output
    images = images_of(shape)
    logits = np.asarray(model(images, training=False))
    assert logits.shape == (3, 10)
    assert np.isfinite(logits).all()
    assert (logits < 0).any()
    copy = model.__class__.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    np.testing.assert_array_equal(np.asarray(copy(images, training=False)), logits)

    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(images, training=True) - 1.0))
    gradients = tape.gradient(loss, model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None, variable.name
        assert np.isfinite(np.asarray(gradient)).all(), variable.name


def test_maxout_is_the_largest_piece():
    model = build("fitnet1", {"dense_pieces": 5}, (8, 8, 1))
    names = ("stage1_conv1", "stage1_maxout1", "dense", "features")
    pieces, maps, dense_pieces, features = run(model, names, images_of((8, 8, 1)))
    np.testing.assert_array_equal(maps, np.maximum(pieces[..., :16], pieces[..., 16:]))
    np.testing.assert_array_equal(features, dense_pieces.reshape(3, 5, 500).max(axis=1))


def test_maxout_pooling_may_step_over_the_lower_and_right_edge():
    model = build("maxout", shape=(9, 8, 1))
    maps, pooled = run(model, ("maxout1", "stage1"), images_of((9, 8, 1)))
    assert maps.shape[1:3] == (10, 9)
    assert pooled.shape[1:3] == (4, 4)
    for row, column in ((0, 0), (3, 1)):
        window = maps[:, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4]
        np.testing.assert_array_equal(pooled[:, row, column], window.max(axis=(1, 2)))
    edge = maps[:, 0:4, 6:10]  # three columns of it exist; a zero stands for the fourth
    np.testing.assert_array_equal(pooled[:, 0, 3], np.maximum(edge.max(axis=(1, 2)), 0))


def test_the_mimic_nets_bottleneck_is_linear():
    model = build("mimic-3c-5-12", shape=(7, 6, 2))
    names = ("stage1", "stage2", "features")
    maps, bottleneck, features = run(model, names, images_of((7, 6, 2)))
    kernel, bias = model.get_layer("stage2").get_weights()
    expected = maps.reshape(3, -1) @ kernel + bias
    np.testing.assert_allclose(bottleneck, expected, rtol=1e-4, atol=1e-5)
    assert (bottleneck < 0).any()
    assert (features >= 0).all()


def test_grouped_convolution_and_channel_shuffle():
    model = build("shufflenet", {"groups": 3, "width": 0.25}, (8, 8, 3))
    names = ("stage2_0_relu", "stage2_1_conv1", "stage2_1_relu1", "stage2_1_shuffle")
    x, grouped, before, shuffled = run(model, names, images_of((8, 8, 3)))
    kernel = np.asarray(model.get_layer("stage2_1_conv1").kernel)[0, 0]  # (60 / 3, 15)
    parts = [x[..., 20 * g : 20 * g + 20] @ kernel[:, 5 * g : 5 * g + 5] for g in range(3)]
    np.testing.assert_allclose(grouped, np.concatenate(parts, -1), rtol=1e-4, atol=1e-5)
    order = [5 * group + index for index in range(5) for group in range(3)]
    np.testing.assert_array_equal(shuffled, before[..., order])


@pytest.mark.any_keras
@pytest.mark.parametrize(
    ("shape", "smallest", "halvings", "expected"),
    [
        ((224, 224, 3), 2, None, (2, 2, 2, 2, 2)),
        ((32, 32, 3), 2, None, (1, 2, 2, 2, 2)),  # MobileNet: the stem only
        ((28, 28, 1), 2, None, (1, 2, 2, 2, 2)),  # 28, 14, 7, 4, 2
        ((32, 32, 3), 4, None, (1, 1, 2, 2, 2)),  # ShuffleNet: stem and pooling
        ((64, 32, 3), 4, None, (1, 1, 2, 2, 2)),
        ((1, 1, 1), 4, None, (1, 1, 1, 1, 1)),
        ((32, 32, 3), 4, 5, (2, 2, 2, 2, 2)),
        ((32, 32, 3), 4, 0, (1, 1, 1, 1, 1)),
    ],
)
def test_small_images_skip_the_first_strides(shape, smallest, halvings, expected):
    assert strides(shape, 5, smallest, halvings) == expected


@pytest.mark.any_keras
def test_the_strides_are_the_networks():
    model = build("mobilenet", {"width": 0.1})
    sides = [model.get_layer(f"stage{n}").output.shape[1] for n in range(1, 6)]
    assert sides == [32, 16, 8, 4, 2]
    model = build("shufflenet", {"width": 0.1, "halvings": 5})
    sides = [model.get_layer(f"stage{n}").output.shape[1] for n in range(1, 5)]
    assert sides == [8, 4, 2, 1]


@pytest.mark.any_keras
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("maxout", {"dense_pieces": 0}, "dense_pieces 0 is not possible; give a whole number"),
        ("maxout", {"dropout": 1.0}, "dropout 1.0 is not a rate"),
        ("maxout", {"input_shape": (3, 8, 3)}, "too small for maxout.*4x4"),
        ("fitnet2", {"dense_pieces": 1.5}, "dense_pieces 1.5 is not possible"),
        ("fitnet2", {"input_shape": (3, 8, 3)}, "too small for fitnet2.*4x4"),
        ("fitnet5", {}, "network 'fitnet5' does not exist; there are: .*fitnet4"),
        ("mimic-10", {}, "network 'mimic-10' does not exist; there are: mimic-"),
        ("mimic-4c-5-6", {"input_shape": (2, 2, 1)}, "too small for mimic-4c-5-6.*mimic-5-6"),
        ("mobilenet", {"width": 0}, "width 0 is not possible; give a positive number"),
        ("mobilenet", {"halvings": 6}, "halvings 6 is not possible; .* 0 to 5"),
        ("shufflenet", {"groups": 5}, "groups 5 is not possible.*1, 2, 3, 4, 8"),
        ("shufflenet", {"width": "x"}, "width 'x' is not possible"),
        ("shufflenet", {"halvings": True}, "halvings True is not possible"),
    ],
)
def test_bad_input(name, options, message):
    with pytest.raises(InputError, match=message) as error:
        models.build(name, **{"classes": 10, "input_shape": CIFAR, **options})
    assert "\n" not in str(error.value)


def int8_file(name, options, shape, path):
    """Quantized as ``kd-train`` does it, converted; ``convert`` refuses what is no built-in op."""
    import tflite_export
    from kd_keras.compression import quantization

    images = images_of(shape, 8)
    student = quantization.apply(build(name, options, shape), calibration=images)
    tflite_export.convert(quantization.finish(student), path, recipe="int8")
    got = tflite_export.TFLiteModel(path).predict(images)
    expected = np.asarray(student(images, training=False))
    return np.abs(got - expected).max() / np.ptp(expected)


@pytest.mark.tf_keras
@pytest.mark.parametrize(("name", "shape"), [("lenet4", (28, 28, 1)), ("mimic-4c-6-8", (8, 8, 1))])
def test_int8(name, shape, tmp_path):
    assert int8_file(name, {}, shape, tmp_path / "model.tflite") < 0.05


@pytest.mark.slow
@pytest.mark.tf_keras
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mobilenet", {}),
        ("shufflenet", {}),
        ("shufflenet", {"groups": 8}),
        ("maxout", {}),
        ("fitnet1", {}),
    ],
)
def test_int8_of_deep_networks(name, options, tmp_path):
    assert int8_file(name, options, CIFAR, tmp_path / "model.tflite") < 0.05
