import json
import math

import numpy as np
import pytest
import tensorflow as tf
from nets import one_line
from replicas import two_replicas
from structures import (
    STRUCTURES,
    concatenated,
    conv_bn,
    finished,
    flattened,
    images,
    model_of,
    outputs,
    plain,
    projected,
    with_statistics,
)

import kd_keras as kd
import tflite_export
from kd_keras import models
from kd_keras.compression import filter_pruning, quantization, toolkit
from kd_keras.errors import InputError

pytestmark = pytest.mark.tf_keras

SLOW = pytest.mark.slow

layers = tf.keras.layers

NETWORKS = {
    "lenet4": ("lenet4", (20, 20, 1), {}),
    "convnet": ("convnet-6-8", (8, 8, 1), {}),
    "resnet8-A": ("resnet8", (8, 8, 3), {"shortcut": "A"}),
    "resnet8-B": ("resnet8", (8, 8, 3), {}),
    "resnet20-A": ("resnet20", (8, 8, 3), {"shortcut": "A"}),
    "resnet20-B": ("resnet20", (8, 8, 3), {}),
    "vgg8": ("vgg8", (8, 8, 3), {}),
    "mobilenet": ("mobilenet", (32, 32, 3), {"width": 0.125}),
    "densenet": ("densenet-bc-10-4", (8, 8, 3), {}),
}


def network(key):
    name, shape, options = NETWORKS[key]
    tf.keras.utils.set_random_seed(1)
    return with_statistics(models.build(name, classes=4, input_shape=shape, **options))


def kernels_of(layer):
    """Each output channel's weights, ``(entries, channels)``; BatchNorm's are gamma and beta."""
    if isinstance(layer, layers.BatchNormalization):
        return [layer.gamma, layer.beta]
    if isinstance(layer, layers.SeparableConv2D):
        return [layer.pointwise_kernel, layer.bias]
    kernel = getattr(layer, "depthwise_kernel", None)
    return [layer.kernel if kernel is None else kernel, layer.bias]


def masked(student, kept):
    """The same model with all weights that make a removed channel set to 0."""
    copy = toolkit.copy_model(student)
    for layer in toolkit.leaf_layers(copy):
        stays = kept.get(layer.name)
        for weight in kernels_of(layer) if stays is not None else ():
            if weight is not None:
                values = weight.numpy()
                transposed = isinstance(layer, layers.Conv2DTranspose) and values.ndim == 4
                values = np.swapaxes(values, -1, -2) if transposed else values
                inner = 2 if isinstance(layer, layers.DepthwiseConv2D) and values.ndim == 4 else 1
                flat = values.reshape(-1, math.prod(values.shape[-inner:]))
                flat = flat * np.isin(np.arange(flat.shape[1]), stays)
                values = flat.reshape(values.shape)
                weight.assign(np.swapaxes(values, -1, -2) if transposed else values)
    return copy


def norms(model, *names):
    """The sum over the layers of the L1 norms of their filters."""
    return sum(np.abs(model.get_layer(name).kernel.numpy()).sum((0, 1, 2)) for name in names)


def largest(values, count):
    return sorted(np.argsort(values)[-count:].tolist())


def assert_equals_masked(student, **options):
    """Prunes, compares with the masked model, and returns the plan and the smaller model."""
    before = [weight.copy() for weight in student.get_weights()]
    plan = filter_pruning.plan(student, **options)
    smaller = filter_pruning.apply(student, **options)
    kept = {name.split("/")[-1]: stays for name, stays in plan["layers"].items()}
    expected = outputs(masked(student, kept))
    np.testing.assert_allclose(outputs(smaller), expected, rtol=1e-5, atol=1e-5)
    assert np.abs(expected - outputs(student)).max() > 1e-3  # something was taken away
    assert plan["parameters"] == smaller.count_params() < student.count_params()
    assert plan["multiply_adds"] == tflite_export.multiply_adds(smaller)
    for old, new in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert [la.name for la in smaller.layers] == [la.name for la in student.layers]
    assert smaller.output_names == student.output_names
    assert smaller.name == student.name
    return plan, smaller


@pytest.mark.parametrize("name", STRUCTURES)
def test_outputs_equal_those_of_the_masked_model(name):
    plan, _ = assert_equals_masked(STRUCTURES[name](), keep=0.5)
    assert plan["left_alone"] == {"logits": "it makes the output"}
    assert all(group["kept"] == (group["channels"] + 1) // 2 for group in plan["groups"])
    assert json.loads(json.dumps(plan)) == plan


@pytest.mark.parametrize(
    "name",
    [
        *("lenet4", "resnet8-A"),
        *(pytest.param(key, marks=SLOW) for key in NETWORKS if key not in ("lenet4", "resnet8-A")),
    ],
)
def test_networks(name):
    student = network(name)
    plan, smaller = assert_equals_masked(student, keep=0.6)
    assert models.taps(smaller) == models.taps(student)
    assert plan["left_alone"] == {"logits": "it makes the output"}
    for group in plan["groups"]:
        for layer in group["layers"]:
            assert isinstance(smaller.get_layer(layer), (layers.Conv2D, layers.Dense))


def test_the_smallest_filters_of_each_layer_go():
    student = plain()
    plan = filter_pruning.plan(student, keep=0.5)
    assert plan["layers"]["conv1"] == largest(norms(student, "conv1"), 3)
    assert plan["layers"]["conv2"] == largest(norms(student, "conv2"), 4)
    assert plan["layers"]["conv2_bn"] == plan["layers"]["conv2"]
    assert plan["groups"] == [
        {"layers": ["conv1"], "channels": 6, "kept": 3},
        {"layers": ["conv2"], "channels": 8, "kept": 4},
    ]


def test_a_residual_group_is_ranked_by_the_sum_of_all_its_filters():
    student = projected()
    plan = filter_pruning.plan(student, keep=0.5)
    expected = largest(norms(student, "a2", "a_short", "b2"), 4)
    for name in ("a2", "a_short", "b2", "a2_bn", "a_short_bn", "b2_bn"):
        assert plan["layers"][name] == expected
    assert {"layers": ["a_short", "a2", "b2"], "channels": 8, "kept": 4} in plan["groups"]
    assert plan["layers"]["b1"] == largest(norms(student, "b1"), 3)


def test_zero_channels_of_shortcut_a_go_with_the_channels_they_are_added_to():
    student = network("resnet8-A")
    smaller = filter_pruning.apply(student, keep=0.5)
    plan = filter_pruning.plan(student, keep=0.5)
    inner = norms(student, "conv1", "stage1_0_conv2")
    inner += norms(student, "stage2_0_conv2")[8:24] + norms(student, "stage3_0_conv2")[24:40]
    assert plan["layers"]["conv1"] == largest(inner, 8)
    outer = norms(student, "stage2_0_conv2") + norms(student, "stage3_0_conv2")[16:48]
    outside = [*range(8), *range(24, 32)]
    kept = [outside[i] for i in largest(outer[outside], 8)]
    expected = sorted([channel + 8 for channel in plan["layers"]["conv1"]] + kept)
    assert plan["layers"]["stage2_0_conv2"] == expected
    widen = smaller.get_layer("stage2_0_widen").padding[1]
    assert widen == (sum(channel < 8 for channel in kept), sum(channel >= 24 for channel in kept))


def test_physical_shapes():
    smaller = filter_pruning.apply(flattened(), keep=0.5)
    shapes = [tuple(weight.shape) for weight in smaller.weights]
    assert shapes == [(3, 3, 2, 2), (2,), (8, 3), (3,), *[(3,)] * 4, (3, 3), (3,)]
    smaller = filter_pruning.apply(concatenated(), keep=0.5)
    assert smaller.get_layer("top").kernel.shape == (3, 3, 3 + 2 + 2, 3)


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("resnet8-A", "parameters"),
        ("resnet8-A", "multiply_adds"),
        *(
            pytest.param(name, measure, marks=SLOW)
            for name in ("mobilenet", "resnet20-B", "lenet4")
            for measure in ("parameters", "multiply_adds", "cost")
        ),
    ],
)
def test_targets_are_met_and_one_filter_more_would_not(name, measure):
    student = network(name)
    count = tflite_export.parameters if measure == "parameters" else tflite_export.multiply_adds
    target = count(student) // 2
    options = {measure: target}
    if measure == "cost":
        options = {"cost": count, "at_most": target}
    plan = filter_pruning.plan(student, **options)
    key = "parameters" if measure == "parameters" else "multiply_adds"
    assert plan[key] <= target
    # The least share that would keep one filter more in some group.
    share = min((group["kept"] + 0.5) / group["channels"] for group in plan["groups"])
    more = filter_pruning.plan(student, keep=share)
    assert sum(g["kept"] for g in more["groups"]) > sum(g["kept"] for g in plan["groups"])
    assert more[key] > target


def test_a_target_that_is_met_already_changes_nothing():
    student = plain()
    same = filter_pruning.apply(student, parameters=student.count_params())
    for old, new in zip(student.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_pruning_twice_composes():
    student = projected()
    once, smaller = assert_equals_masked(student, keep=0.75)
    twice, smallest = assert_equals_masked(smaller, keep=0.5)
    for first, second in zip(once["groups"], twice["groups"], strict=True):
        assert second["channels"] == first["kept"]
        assert second["layers"] == first["layers"]
    # The stem reads the image, so its norms are the same in the second ranking.
    left = np.array(once["layers"]["stem"])[twice["layers"]["stem"]]
    assert left.tolist() == largest(norms(student, "stem"), len(left))
    assert smallest.count_params() < smaller.count_params() < student.count_params()


def test_skip_minimum_and_rounding():
    plan = filter_pruning.plan(projected(), keep=0.5, skip=("a2", "stem"))
    assert plan["left_alone"]["stem"] == "stem is in skip"
    assert plan["left_alone"]["b2"] == "a2 is in skip"  # added to the same sum
    assert set(plan["layers"]) == {"a1", "a1_bn", "b1", "b1_bn"}
    plan = filter_pruning.plan(projected(), keep=0.01, minimum=3)
    assert [group["kept"] for group in plan["groups"]] == [3, 3, 3, 3]
    plan = filter_pruning.plan(projected(), keep=0.01)
    assert [group["kept"] for group in plan["groups"]] == [1, 1, 1, 1]
    plan = filter_pruning.plan(projected(), keep=0.01, minimum=99)
    assert not plan["layers"]
    plan = filter_pruning.plan(STRUCTURES["nested"](), keep=0.5, skip=("block/pooling/conv",))
    assert "block/pooling/conv" in plan["left_alone"]


def test_filters_stay_in_multiples():
    student = models.build("resnet8", classes=10, input_shape=(32, 32, 3))
    plan = filter_pruning.plan(student, keep=0.7, multiple=8)
    assert {(g["channels"], g["kept"]) for g in plan["groups"]} == {(16, 8), (32, 24), (64, 48)}
    budget = tflite_export.multiply_adds(student) // 2
    plain = filter_pruning.plan(student, multiply_adds=budget)
    plan = filter_pruning.plan(student, multiply_adds=budget, multiple=8)
    assert 0.8 * budget < plan["multiply_adds"] <= plain["multiply_adds"] <= budget
    assert all(group["kept"] % 8 == 0 for group in plan["groups"])
    # A layer of fewer filters than that keeps them all.
    plan = filter_pruning.plan(projected(), keep=0.01, multiple=99)
    assert not plan["layers"]


def with_middle(middle):
    """conv1, something in the middle, conv2."""
    image = layers.Input((8, 8, 2), name="image")
    x = middle(conv_bn(image, 4, "conv1"))
    return model_of(image, conv_bn(x, 4, "conv2"))


@pytest.mark.parametrize(
    ("middle", "words"),
    [
        (lambda x: layers.PReLU(shared_axes=(1, 2), name="odd")(x), ("odd", "PReLU")),
        (lambda x: layers.Lambda(lambda maps: maps * 2, name="odd")(x), ("odd", "Lambda")),
        (lambda x: x[:, ::2], ("SlicingOpLambda",)),
        (lambda x: layers.Activation("sigmoid", name="odd")(x), ("odd", "Activation")),
        (lambda x: layers.Multiply(name="odd")([x, x]), ("odd", "Multiply")),
        (lambda x: layers.Reshape((8, 8, 2, 2), name="odd")(x), ("odd", "Reshape")),
        (
            lambda x: layers.Conv2D(4, 3, groups=2, name="odd")(x),
            ("odd", "it is a grouped convolution"),
        ),
        (
            lambda x: layers.ZeroPadding2D(1, data_format="channels_first", name="odd")(x),
            ("odd", "ZeroPadding2D"),
        ),
    ],
)
def test_channels_at_an_op_of_unknown_kind_are_left_alone_by_name(middle, words):
    if words[1:] == ("Reshape",):
        student = with_middle(lambda x: layers.Reshape((8, 8, 4))(middle(x)))
    else:
        student = with_middle(middle)
    plan = filter_pruning.plan(student, keep=0.5)
    for word in words:
        assert word in plan["left_alone"]["conv1"]
    assert plan["layers"] == dict.fromkeys(("conv2", "conv2_bn"), plan["layers"]["conv2"])
    smaller = filter_pruning.apply(student, keep=0.5)
    expected = outputs(masked(student, plan["layers"]))
    np.testing.assert_allclose(outputs(smaller), expected, atol=1e-5)
    with pytest.raises(InputError) as error:
        filter_pruning.apply(student, keep=0.5, strict=True)
    one_line(error, "conv1", *words, "skip", "strict=False")


def test_an_activation_that_moves_zero_holds_its_own_filters_only():
    image = layers.Input((8, 8, 2), name="image")
    x = layers.Conv2D(4, 3, activation="sigmoid", name="odd")(conv_bn(image, 4, "conv1"))
    plan, _ = assert_equals_masked(model_of(image, conv_bn(x, 4, "conv2")), keep=0.5)
    assert "sigmoid" in plan["left_alone"]["odd"]
    assert {"conv1", "conv2"} <= set(plan["layers"])


def test_layers_that_are_used_more_than_once():
    relu, pool = layers.ReLU(name="relu"), layers.AveragePooling2D(2, name="pool")
    image = layers.Input((8, 8, 2), name="image")
    x = pool(relu(conv_bn(image, 4, "a", active=False)))
    x = pool(relu(conv_bn(x, 6, "b", active=False)))  # on maps of another width
    plan, _ = assert_equals_masked(model_of(image, x), keep=0.5)
    assert [group["channels"] for group in plan["groups"]] == [4, 6]

    # A model has one input width: what it is used on loses the same channels.
    block = tf.keras.Sequential([layers.MaxPooling2D(2, input_shape=(8, 8, 4))], name="block")
    image = layers.Input((8, 8, 2), name="image")
    left, right = block(conv_bn(image, 4, "a")), block(conv_bn(image, 4, "b"))
    student = model_of(image, layers.Concatenate(name="both")([left, right]))
    plan, _ = assert_equals_masked(student, keep=0.5)
    assert plan["layers"]["a"] == plan["layers"]["b"]

    # A convolution whose inputs are an image in one use and maps in another keeps both.
    shared = layers.Conv2D(4, 3, padding="same", activation="relu", name="shared")
    image = layers.Input((8, 8, 4), name="image")
    x = layers.Add(name="sum")([shared(image), shared(conv_bn(image, 4, "a"))])
    plan, _ = assert_equals_masked(model_of(image, conv_bn(x, 4, "b")), keep=0.5)
    assert plan["left_alone"]["a"] == "it is joined to the input"
    assert {"shared", "b", "b_bn"} == set(plan["layers"])

    # Its second use mixes channels and places, so its first one's channels stay too.
    image = layers.Input((4, 4, 2), name="image")
    shared = layers.Reshape((16, 4), name="shared")
    wide = conv_bn(image, 8, "wide", strides=(1, 2))
    x = layers.Concatenate(name="both")([shared(conv_bn(image, 4, "a")), shared(wide)])
    hidden = layers.Dense(4, activation="relu", name="hidden")(layers.Flatten(name="flat")(x))
    student = finished(image, layers.Dense(3, name="logits")(hidden))
    plan, _ = assert_equals_masked(student, keep=0.5)
    assert set(plan["layers"]) == {"hidden"}
    for name in ("a", "wide"):
        assert plan["left_alone"][name] == "shared (Reshape) is of unknown kind or use"


def test_multiply_adds_that_cannot_be_told_are_refused_as_a_target():
    student = with_middle(lambda x: layers.Lambda(lambda maps: maps * 2, name="odd")(x))
    assert filter_pruning.plan(student, keep=0.5)["multiply_adds"] is None
    with pytest.raises(InputError) as error:
        filter_pruning.apply(student, multiply_adds=1000)
    one_line(error, "odd", "cost=", "at_most=")
    half = tflite_export.multiply_adds(student) * 0.7
    smaller = filter_pruning.apply(student, cost=tflite_export.multiply_adds, at_most=half)
    assert tflite_export.multiply_adds(smaller) <= half


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ("0 targets (none)", "give one of keep, parameters, multiply_adds")),
        ({"keep": 0.5, "parameters": 9}, ("2 targets (keep, parameters)",)),
        ({"keep": 0}, ("keep 0 is not possible", "(0, 1]")),
        ({"keep": 1.5}, ("keep 1.5 is not possible",)),
        ({"keep": math.nan}, ("keep nan is not possible",)),
        ({"keep": 0.5, "at_most": 3}, ("at_most 3 and cost None go together",)),
        ({"cost": len}, ("at_most None", "go together")),
        ({"parameters": 0}, ("parameters 0 is not possible", "positive")),
        ({"multiply_adds": math.inf}, ("multiply_adds inf is not possible",)),
        ({"keep": 0.5, "minimum": 0}, ("minimum 0 is not possible", "at least 1")),
        ({"keep": 0.5, "multiple": 0}, ("multiple 0 is not possible", "at least 1")),
        ({"keep": 0.5, "skip": ("conv9",)}, ("'conv9' in skip", "can prune: conv1, conv2, logits")),
        ({"keep": 0.5, "skip": ("conv1", "conv2")}, ("no filter to prune", "conv1 is in skip")),
        ({"parameters": 10}, ("parameters of at most 10 cannot be met", "allow that much")),
        (
            {"cost": lambda model: math.nan, "at_most": 3},
            ("cost of at most 3 cannot be met", "there are nan"),
        ),
    ],
)
def test_bad_input(options, words):
    with pytest.raises(InputError) as error:
        filter_pruning.apply(plain(), **options)
    one_line(error, *words)


def test_a_subclassed_model_is_refused_with_the_cure():
    class Own(tf.keras.Model):
        def call(self, x):
            return x

    image = layers.Input((8, 8, 2), name="image")
    around = model_of(image, Own(name="own")(conv_bn(image, 4, "conv1")))
    for model in (Own(name="own"), around):
        with pytest.raises(InputError) as error:
            filter_pruning.apply(model, keep=0.5)
        one_line(error, "own", "make it one with tf.keras.Model(inputs, outputs)")
    with pytest.raises(InputError, match="only Functional"):
        filter_pruning.finish(Own(name="own"))
    with pytest.raises(InputError, match="only Functional"):
        filter_pruning.callbacks(Own(name="own"))


def test_a_sequential_model_and_open_image_sizes():
    stack = [layers.Conv2D(6, 3, input_shape=(None, None, 2), name="a"), layers.ReLU(name="relu")]
    stack += [layers.GlobalMaxPooling2D(name="features"), layers.Dense(2, name="logits")]
    student = with_statistics(tf.keras.Sequential(stack, name="student"))
    smaller = filter_pruning.apply(student, parameters=(18 + 1) * 3 + (3 + 1) * 2)
    assert [tuple(weight.shape) for weight in smaller.weights] == [(3, 3, 2, 3), (3,), (3, 2), (2,)]
    assert smaller(np.zeros((1, 9, 5, 2), "float32")).shape == (1, 2)
    with pytest.raises(InputError, match=r"cannot be told .* an open shape"):
        filter_pruning.apply(student, multiply_adds=99)


@pytest.mark.slow
def test_two_replicas():
    with two_replicas().scope():
        student = projected()
        smaller = filter_pruning.apply(student, keep=0.5)
        smaller.compile("sgd", "mse")
    expected = outputs(masked(student, filter_pruning.plan(student, keep=0.5)["layers"]))
    np.testing.assert_allclose(outputs(smaller), expected, atol=1e-5)
    smaller.fit(images(student, 4), np.zeros((4, 3), "float32"), batch_size=4, verbose=0)
    assert np.abs(outputs(smaller) - expected).max() > 0


def test_a_distiller_trains_the_smaller_model_and_hints_find_its_layers():
    teacher, student = plain(), plain()
    smaller = filter_pruning.apply(student, keep=0.5)
    hint = kd.Hint(teacher_layer="features", student_layer="features")
    distiller = kd.Distiller(smaller, teacher, [kd.SoftTargets(), hint])
    distiller.compile("sgd")
    x = images(student, 8)
    before = outputs(smaller)
    distiller.fit(x, np.arange(8) % 3, batch_size=8, verbose=0,
                  callbacks=filter_pruning.callbacks(smaller))  # fmt: skip
    assert filter_pruning.finish(smaller) is smaller
    assert np.abs(outputs(smaller) - before).max() > 0
    assert models.taps(smaller) == models.taps(student)


@pytest.mark.slow
def test_the_smaller_model_is_quantized_and_exported_to_int8(tmp_path):
    student = network("resnet8-A")
    smaller = filter_pruning.apply(student, keep=0.5)
    sizes = []
    for model in (student, smaller):
        quantized = quantization.apply(model, calibration=images(model, 64))
        path = tmp_path / f"{len(sizes)}.tflite"
        tflite_export.convert(quantization.finish(quantized), path, "int8")
        sizes.append(path.stat().st_size)
        # Rounding to 8 bits moves the logits by a few hundredths of their range.
        np.testing.assert_allclose(
            outputs(quantized), outputs(model), atol=0.15 * np.ptp(outputs(model))
        )
    assert sizes[1] < 0.6 * sizes[0]
