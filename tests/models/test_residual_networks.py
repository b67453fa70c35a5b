"""The deep convolutional families: counts against the papers', structure, taps, conversion."""

import functools
import math
import re

import numpy as np
import pytest
import tensorflow as tf

import tflite_export
from kd_keras import models
from kd_keras.errors import InputError
from tflite_export import file_facts, recipes

BASIC = {"block": "basic"}

# name, options, classes, our own count of trainable weights, the source's count in millions and
# what it may differ by in percent: 0 where ours rounds to it.
COUNTS = [
    ("preact-resnet20", {}, 10, 272_282, 0.27, 0),  # He et al. 2015, ResNet-20
    ("preact-resnet164", {}, 10, 1_703_258, 1.7, 0),  # He et al. 2016, as the WRN paper counts it
    ("wrn-10-4", {}, 10, 1_198_810, 1.2, 0),
    ("wrn-16-2", {}, 10, 691_674, 0.7, 0),  # Zagoruyko & Komodakis 2016
    ("wrn-40-10", {}, 10, 55_841_754, 55.8, 0),
    # Born-again networks, whose count no reading of the definition meets: the family's docstring.
    ("densenet-bc-112-33", {}, 100, 6_987_916, 6.3, 11),
    ("vgg8", {}, 100, 3_963_556, 3.96, 0),
    ("vgg13", {}, 100, 9_459_236, 9.46, 0),
    ("vgg16", {}, 10, 14_724_042, 14.7, 0),
    ("resnet18", {}, 1000, 11_689_512, 11.69, 0),  # torchvision, to the last weight
    ("resnet34", {}, 1000, 21_797_672, 21.80, 0),
    ("resnet50", {}, 1000, 25_557_032, 25.56, 0),
    ("resnet152", {}, 1000, 60_192_808, 60.19, 0),
]
DEEP = ("preact-resnet164", "resnet152", "densenet-bc-112-33", "wrn-40-10")  # seconds each
# One small member of each family: name, options, shape, sizes of the stages, width of the features.
SMALL = [
    ("preact-resnet20", {}, (9, 8, 3), [(9, 8), (5, 4), (3, 2)], 64),
    ("preact-resnet20", {"block": "bottleneck"}, (8, 8, 1), [(8, 8), (4, 4), (2, 2)], 256),
    ("wrn-10-2", {"dropout": 0.3}, (8, 8, 3), [(8, 8), (4, 4), (2, 2)], 128),
    ("densenet-bc-16-4", {}, (8, 8, 3), [(8, 8), (4, 4), (2, 2)], 16),
    ("vgg8", {}, (32, 32, 3), [(32, 32), (16, 16), (8, 8), (4, 4), (4, 4)], 512),
    ("vgg16", {}, (16, 16, 1), [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)], 512),
    ("resnet18", {}, (32, 16, 3), [(8, 4), (4, 2), (2, 1), (1, 1)], 512),
    ("resnet50", {}, (16, 16, 3), [(4, 4), (2, 2), (1, 1), (1, 1)], 2048),
]


def ids(rows):
    return ["-".join([row[0], *map(str, row[1].values())]) for row in rows]


@pytest.fixture(autouse=True, scope="module")
def _models_are_freed():
    yield
    built.cache_clear()


@functools.cache
def built(name, options=(), classes=10, shape=(16, 16, 3)):
    tf.keras.utils.set_random_seed(1)
    return models.build(name, classes=classes, input_shape=shape, **dict(options))


def images_of(shape, count=2):
    return np.random.default_rng(0).normal(size=(count, *shape)).astype("float32")


def count(model):
    return sum(math.prod(v.shape) for v in model.trainable_variables)


def convolutions_of(model):
    return [layer for layer in model.layers if isinstance(layer, tf.keras.layers.Conv2D)]


def outputs(model, names, images):
    layers = [model.get_layer(name).output for name in names]
    return [np.asarray(x) for x in tf.keras.Model(model.input, layers)(images, training=False)]


@pytest.mark.any_keras
@pytest.mark.parametrize(
    ("name", "options", "classes", "own", "stated", "percent"),
    [pytest.param(*row, marks=pytest.mark.slow) if row[0] in DEEP else row for row in COUNTS],
    ids=ids(COUNTS),
)
def test_counts_of_the_papers(name, options, classes, own, stated, percent):
    # No weight depends on the image's size. Not kept: the large ones would fill the memory.
    model = built.__wrapped__(name, tuple(options.items()), classes)
    assert count(model) == own
    if percent:
        assert 1 < abs(own / 1e6 / stated - 1) * 100 < percent
    else:
        assert round(own / 1e6, len(str(stated).partition(".")[2])) == stated
    convolutions = convolutions_of(model)
    assert not any(conv.use_bias for conv in convolutions)  # BatchNorm follows or precedes all
    assert weighted_layers(name, convolutions) == int(re.search(r"\d+", name).group())


def weighted_layers(name, convolutions):
    if name.startswith("wrn"):  # counts all convolutions, and nothing else
        return len(convolutions)
    dense = 3 if name.startswith("vgg") else 1  # one stands for the original's three
    return len([c for c in convolutions if not c.name.endswith("_shortcut_conv")]) + dense


@pytest.mark.slow
@pytest.mark.any_keras
def test_resnet164_of_adversarial_compression_has_basic_blocks():
    """Its table gives 2.6M weights where He et al. have 1.7M: 6n + 2 = 164 is not 9n + 2 = 164.

    Its 97.49B multiply-adds, beside ResNet-20's 10.52B, confirm it: those of a batch of 256.
    """
    for name, own, weights, multiply_adds in (
        ("preact-resnet164", 2_605_466, 2.6e6, 97.49e9),
        ("preact-resnet20", 272_282, 0.27e6, 10.52e9),
    ):
        model = built.__wrapped__(name, tuple(BASIC.items()))
        assert count(model) == own == pytest.approx(weights, rel=0.01)
        assert weighted_layers(name, convolutions_of(model)) == int(
            name.removeprefix("preact-resnet")
        )
        found = sum(
            math.prod(conv.kernel.shape) * math.prod(conv.output.shape[1:3])
            for conv in convolutions_of(model)
        )
        # The image here is 16x16 and CIFAR's 32x32.
        assert 256 * 4 * found == pytest.approx(multiply_adds, rel=0.01)


def wide_resnet_count(blocks, factor, classes):
    """Weights of a Wide ResNet for three channels, from the paper's words alone."""
    channels, total = 16, 27 * 16
    for width in (16 * factor, 32 * factor, 64 * factor):
        total += channels * width  # the projection
        for _ in range(blocks):
            total += 2 * channels + 9 * channels * width + 2 * width + 9 * width**2
            channels = width
    return total + 2 * channels + channels * classes + classes


def densenet_count(layers, growth, stem, classes):
    """Weights of a DenseNet-BC for three channels, from the paper's words alone."""
    channels, total = stem, 27 * stem
    for stage in range(3):
        for _ in range(layers):
            total += 2 * channels + channels * 4 * growth + 8 * growth + 36 * growth**2
            channels += growth
        total += 2 * channels
        if stage < 2:
            total += channels * (channels // 2)
            channels //= 2
    return total + channels * classes + classes


@pytest.mark.any_keras
def test_counts_by_formula_of_what_takes_long_to_build():
    for name, expected in (
        ("wrn-10-3", wide_resnet_count(1, 3, 10)),
        ("wrn-16-2", wide_resnet_count(2, 2, 10)),
        ("densenet-bc-10-6", densenet_count(1, 6, 12, 10)),
        ("densenet-bc-15-6", densenet_count(2, 6, 12, 10)),  # rounded up to 16
    ):
        assert count(built(name)) == expected
    assert count(built("densenet-bc-16-6", (("stem", 16),))) == densenet_count(2, 6, 16, 10)

    assert wide_resnet_count(3, 4, 10) == 4_298_970  # wrn-22-4
    assert wide_resnet_count(6, 2, 10) == 2_243_546  # wrn-40-2; 2.2M in the paper
    assert densenet_count(16, 12, 24, 10) == 769_162  # 100-12; 0.8M in Huang et al., table 2
    assert round(densenet_count(41, 24, 48, 10) / 1e6, 1) == 15.3  # 250-24, likewise
    assert round(densenet_count(31, 40, 80, 10) / 1e6, 1) == 25.6  # 190-40, likewise
    # Born-again networks, whose depths 90, 80 and 80 are rounded up: within 1 % with stem=16.
    for layers, growth, stated, own in (
        (15, 60, 16.1, 16_120_538),
        (13, 80, 22.4, 22_576_116),
        (13, 120, 50.4, 50_469_436),
    ):
        found = densenet_count(layers, growth, 16, 100)
        assert (found, found / 1e6) == (own, pytest.approx(stated, rel=0.01))


@pytest.mark.parametrize(
    ("name", "options", "shape", "sizes", "width"),
    [pytest.param(*row, marks=pytest.mark.slow) if row[0] == "resnet50" else row for row in SMALL],
    ids=ids(SMALL),
)
def test_taps_forward_pass_and_round_trip(name, options, shape, sizes, width):
    model = built(name, tuple(options.items()), 10, shape)
    assert model.name == name
    stages = [f"stage{k + 1}" for k in range(len(sizes))]
    assert models.taps(model) == (*stages, "features", "logits")
    assert not any("/" in layer.name for layer in model.layers)
    images = images_of(shape)
    *maps, features, logits = outputs(model, [*stages, "features", "logits"], images)
    assert [x.shape[1:3] for x in maps] == sizes
    assert all(x.min() == 0 < x.max() for x in maps)  # each tap is a ReLU
    assert features.shape == (2, width)
    np.testing.assert_allclose(features, maps[-1].mean(axis=(1, 2)), rtol=1e-4, atol=1e-6)
    kernel, bias = model.get_layer("logits").get_weights()
    np.testing.assert_allclose(logits, features @ kernel + bias, rtol=1e-4, atol=1e-4)

    copy = model.__class__.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    np.testing.assert_array_equal(np.asarray(copy(images, training=False)), logits)


def normalised(model, name, x):
    gamma, beta, mean, variance = model.get_layer(name).get_weights()
    return gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta


def with_random_statistics(model):
    rng = np.random.default_rng(3)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape) * 0.3 for w in model.get_weights()])
    return model


def test_preactivation_block_normalises_what_it_adds_to_and_not_the_sum():
    model = with_random_statistics(built("wrn-16-2", (), 10, (8, 8, 3)))
    first, added, last, tap = outputs(
        model, ["stage2_0_add", "stage2_1_conv2", "stage2_1_add", "stage2"], images_of((8, 8, 3))
    )
    np.testing.assert_allclose(last, first + added, rtol=1e-5)
    expected = np.maximum(normalised(model, "stage2_bn", last), 0)
    np.testing.assert_allclose(tap, expected, rtol=1e-4, atol=1e-5)


def test_preactivation_stage_reads_the_tap_before_it_on_both_ways():
    model = with_random_statistics(built("wrn-16-2", (), 10, (8, 8, 3)))
    names = ["stage1", "stage2_0_shortcut_conv", "stage2_0_conv1"]
    tap, shortcut, branch = outputs(model, names, images_of((8, 8, 3)))
    kernel = model.get_layer("stage2_0_shortcut_conv").get_weights()[0][0, 0]
    np.testing.assert_allclose(shortcut, tap[:, ::2, ::2] @ kernel, rtol=1e-4)
    padded = np.pad(tap, ((0, 0), (1, 1), (1, 1), (0, 0)))  # one pixel on every side
    kernel = model.get_layer("stage2_0_conv1").get_weights()[0]
    expected = np.tensordot(padded[:, 2:5, 4:7], kernel, axes=3)
    np.testing.assert_allclose(branch[:, 1, 2], expected, rtol=1e-4)


def test_wide_resnet_dropout_lies_between_a_blocks_convolutions():
    model = built("wrn-10-2", (("dropout", 0.3),), 10, (8, 8, 3))
    dropouts = [layer for layer in model.layers if isinstance(layer, tf.keras.layers.Dropout)]
    assert [(d.name, d.rate) for d in dropouts] == [(f"stage{s}_0_dropout", 0.3) for s in (1, 2, 3)]
    assert model.get_layer("stage2_0_conv2").input is dropouts[1].output
    plain = built("wrn-10-2", (), 10, (8, 8, 3))
    assert [layer.name for layer in model.layers] == [layer.name for layer in plain.layers]


def test_densenet_layer_keeps_what_it_reads():
    model = built("densenet-bc-16-4", (), 10, (8, 8, 3))
    names = ["conv1", "stage1_0_concat", "stage1_1_concat", "stage1_1_conv2", "stage1", "pool1"]
    stem, one, two, new, tap, pooled = outputs(model, names, images_of((8, 8, 3)))
    np.testing.assert_array_equal(one[..., :8], stem)  # 2K channels
    np.testing.assert_array_equal(two, np.concatenate([one, new], axis=-1))
    assert (tap.shape[-1], pooled.shape) == (8 + 2 * 4, (2, 4, 4, 8))


def test_bottlenecks_stride_where_their_sources_do():
    bottleneck = (("block", "bottleneck"),)
    for model, strided in (
        (built("resnet50", (), 10, (16, 16, 3)), "conv2"),
        (built("preact-resnet20", bottleneck, 10, (8, 8, 1)), "conv1"),
    ):
        for conv in ("conv1", "conv2", "conv3"):
            strides = model.get_layer(f"stage2_0_{conv}").strides
            assert strides == ((2, 2) if conv == strided else (1, 1))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("wrn-11-4", {}, "depth 11 of 'wrn-11-4' is not 6n . 4; give e.g. wrn-10-4 or wrn-16-4$"),
        ("wrn-4-2", {}, "give e.g. wrn-10-2 or wrn-16-2$"),
        ("wrn-1-2", {}, "give e.g. wrn-10-2 or wrn-16-2$"),
        ("wrn-16", {}, "network 'wrn-16' does not exist; there are: wrn-16-2"),
        ("wrn-16-0", {}, "network 'wrn-16-0' does not exist"),
        ("wrn-16-2", {"dropout": 1}, "dropout 1 is not a rate"),
        (
            "preact-resnet164",
            {"block": "wide"},
            "block 'wide' is not possible for preact-resnet164",
        ),
        ("preact-resnet56", {}, "network 'preact-resnet56' does not exist; there are: preact-res"),
        ("densenet-bc-8-12", {}, "depth 8 of 'densenet-bc-8-12' is too small; give at least 10"),
        ("densenet-bc-16-4", {"stem": 0}, "stem 0 is not possible"),
        ("densenet-bc-16-4", {"stem": 1.5}, "stem 1.5 is not possible"),
        (
            "densenet-bc-16-4",
            {"input_shape": (3, 9, 1)},
            "too small for dense.* at least 4x4 pixel",
        ),
        ("vgg8", {"input_shape": (7, 9, 1)}, "too small for vgg8, which halves it 3 .* 8x8 pixels"),
        ("vgg16", {"input_shape": (15, 16, 1)}, "too small for vgg16.* at least 16x16 pixels"),
        ("vgg11", {}, "network 'vgg11' does not exist; there are: vgg"),
        ("resnet50", {"shortcut": "A"}, "'resnet50' has no option 'shortcut'; it has: none$"),
    ],
)
def test_bad_input(name, arguments, message):
    arguments = {"classes": 10, "input_shape": (32, 32, 3), **arguments}
    with pytest.raises(InputError, match=message) as error:
        models.build(name, **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.any_keras
def test_every_name_belongs_to_one_family():
    from kd_keras.models import registry

    for name in models.names():
        matches = [f for f in registry._families() if re.fullmatch(f.pattern, name)]
        assert len(matches) == 1, name


def quantize_model(model):
    import tensorflow_model_optimization as tfmot

    return tfmot.quantization.keras.quantize_model(model)


@pytest.mark.slow  # the same chains of layers as in the fast tests of smaller networks
@pytest.mark.tf_keras
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("vgg8", (32, 32, 3)),
        ("vgg16", (16, 16, 1)),
        ("resnet18", (32, 16, 3)),
        ("resnet50", (16, 16, 3)),
    ],
)
def test_tfmot_quantizes_every_kernel(name, shape):
    quantized = quantize_model(built(name, (), 10, shape))
    for layer in quantized.layers:
        names = [weight.name for weight in layer.weights]
        if any("kernel" in weight for weight in names):
            assert any("kernel_min" in weight for weight in names), layer.name


@pytest.mark.tf_keras
@pytest.mark.parametrize("name", ["wrn-10-2", "densenet-bc-16-4"])
def test_tfmot_rejects_batch_norm_before_the_convolution(name):
    """So these need quantization after training; if this fails, tfmot has learned it."""
    with pytest.raises(RuntimeError, match="BatchNormalization"):
        quantize_model(built(name, (), 10, (8, 8, 3)))


@pytest.mark.tf_keras
@pytest.mark.parametrize("name", ["resnet8", pytest.param("resnet20", marks=pytest.mark.slow)])
def test_quantization_aware_students_become_int8_files(name, tmp_path):
    quantized = quantize_model(built(name, (), 10, (8, 8, 3)))
    images = images_of((8, 8, 3), 16)
    quantized(images, training=True)  # sets the ranges
    # The file is refused if it has an operator that is not built in, or does not compute in int8.
    path = tflite_export.convert(quantized, tmp_path / "student.tflite", recipe="int8")
    logits = tflite_export.TFLiteModel(path).predict(images)
    expected = np.asarray(quantized(images, training=False))
    assert np.corrcoef(logits.ravel(), expected.ravel())[0, 1] > 0.99


@pytest.mark.slow
@pytest.mark.tf_keras
def test_wide_resnet_becomes_an_int8_file_after_training(tmp_path):
    model = built("wrn-10-4", (), 10, (16, 16, 3))
    images = images_of((16, 16, 3), 16)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    path = tmp_path / "student.tflite"
    path.write_bytes(converter.convert())
    facts = file_facts.read_facts(path.read_bytes())
    file_facts.check_facts(facts, recipes.get("int8"), "image", "logits")
    logits = tflite_export.TFLiteModel(path).predict(images)
    expected = np.asarray(model(images, training=False))
    assert np.corrcoef(logits.ravel(), expected.ravel())[0, 1] > 0.99
