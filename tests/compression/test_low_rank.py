import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from nets import assert_same, one_line, values, with_weights
from replicas import two_replicas

import kd_keras as kd
import tflite_export
from kd_keras import models
from kd_keras.compression import low_rank, quantization
from kd_keras.errors import InputError

pytestmark = pytest.mark.tf_keras

layers = tf.keras.layers

_LARGE = ("stage4_conv1", "stage5_conv1")  # of vgg8: Tucker-2 takes a while


def images(shape, examples=3):
    return np.random.default_rng(5).normal(size=(examples, *shape)).astype("float32")


def one_layer(layer, shape=(9, 8, 4)):
    start = tf.keras.Input(shape)
    return with_weights(tf.keras.Model(start, layer(start)), 1)


def convnet():
    """conv (strided) -> BatchNorm -> ReLU -> depthwise -> 1x1 -> mean -> features -> logits."""
    x = start = tf.keras.Input((8, 8, 4), name="pixels")
    x = layers.Conv2D(12, 3, strides=2, padding="same", name="conv")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="maps")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Conv2D(16, 1, activation="relu", name="point")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Dense(12, "relu", name="features")(x)
    model = tf.keras.Model(start, layers.Dense(3, name="logits")(x), name="student")
    for weight in model.weights:
        value = np.random.default_rng(len(weight.name)).uniform(0.1, 1, weight.shape)
        weight.assign(value * (1 if "norm" in weight.name else np.sign(value - 0.5)))
    return model


def totals(rows):
    return (
        sum(row.parameters_before - row.parameters_after for row in rows),
        sum(row.multiply_adds_before - row.multiply_adds_after for row in rows),
    )


CONVOLUTIONS = [
    {"kernel_size": 3, "strides": 1, "padding": "same"},
    {"kernel_size": 3, "strides": 2, "padding": "same"},
    {"kernel_size": (5, 3), "strides": (2, 3), "padding": "valid"},
    {"kernel_size": (1, 3), "strides": 2, "padding": "same"},
    {"kernel_size": (3, 1), "strides": 2, "padding": "same"},
    {"kernel_size": 3, "dilation_rate": 2, "padding": "same"},
    {"kernel_size": (2, 4), "strides": 3, "padding": "same", "use_bias": False},
    {"kernel_size": 1, "strides": 2},
]


@pytest.mark.parametrize("method", ["svd", "tucker"])
@pytest.mark.parametrize("config", CONVOLUTIONS, ids=str)
def test_at_full_rank_a_convolution_computes_the_same(config, method):
    layer = layers.Conv2D(6, activation="tanh", name="conv", **config)
    student = one_layer(layer)
    if method == "tucker" and config["kernel_size"] != 1:
        rank = (4, 6)
    else:
        height, width = layer.kernel_size
        rank = min(height * 4, width * 6)
    goal = {"method": method, "ranks": {"conv": rank}}
    exact = low_rank.apply(student, **goal)
    (row,) = low_rank.plan(student, **goal)
    x = images((9, 8, 4))
    np.testing.assert_allclose(exact(x), student(x), rtol=1e-4, atol=1e-5)
    assert row.error < 1e-6
    if "dilation_rate" in config:  # TensorFlow pads for these, and tflite_export counts what it did
        assert row.multiply_adds_before == 9 * 8 * layer.kernel.shape.num_elements()
        return
    for model, counted in (
        (student, (row.parameters_before, row.multiply_adds_before)),
        (exact, (row.parameters_after, row.multiply_adds_after)),
    ):
        assert counted == (model.count_params(), tflite_export.multiply_adds(model))


@pytest.mark.parametrize("shape", [(7,), (5, 7)])
def test_at_full_rank_a_dense_layer_computes_the_same(shape):
    student = one_layer(layers.Dense(5, "tanh", name="dense"), shape)
    exact = low_rank.apply(student, ranks={"dense": 5})
    assert [(la.name, la.units, la.use_bias) for la in exact.layers[1:]] == [
        ("dense_reduce", 5, False),
        ("dense", 5, True),
    ]
    np.testing.assert_allclose(exact(images(shape)), student(images(shape)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dilation", [1, 2])
def test_cp_computes_what_its_factors_say(dilation):
    layer = layers.Conv2D(6, (3, 5), padding="same", dilation_rate=dilation, name="conv")
    student = one_layer(layer)
    goal = {"method": "cp", "ranks": {"conv": 7}}
    smaller = low_rank.apply(student, **goal)
    parts = smaller.layers[1:]
    assert [(type(part).__name__, part.name) for part in parts] == [
        ("Conv2D", "conv_reduce"),
        ("DepthwiseConv2D", "conv_vertical"),
        ("DepthwiseConv2D", "conv_horizontal"),
        ("Conv2D", "conv"),
    ]
    assert [part.dilation_rate for part in parts] == [
        *((1, 1), (dilation, 1), (1, dilation), (1, 1))
    ]
    (row,) = low_rank.plan(student, **goal)
    # Its kernel, read off its answer to single pixels, has the planned error.
    kernel, size = np.zeros((3, 5, 4, 6)), (1 + 2 * dilation, 1 + 4 * dilation)
    for channel in range(4):
        pixel = np.zeros((1, 9, 15, 4), "float32")
        pixel[0, 4, 7, channel] = 1
        same = tf.keras.models.clone_model(smaller, input_tensors=tf.keras.Input((9, 15, 4)))
        same.set_weights(smaller.get_weights())
        answer = (same(pixel).numpy() - layer.bias.numpy())[0, ::-1, ::-1]
        top, left = 4 - size[0] // 2, 7 - size[1] // 2
        answer = answer[top : top + size[0] : dilation, left : left + size[1] : dilation]
        kernel[:, :, channel] = answer
    original = layer.kernel.numpy()
    error = np.linalg.norm(original - kernel) / np.linalg.norm(original)
    assert error == pytest.approx(row.error, abs=1e-5)
    assert 0.1 < error < 0.9
    assert row.multiply_adds_after == 9 * 8 * sum(p.weights[0].shape.num_elements() for p in parts)


def relative_tail(kernel, rank):
    """Eckart-Young, from singular values of the kernel unfolded to (row, in) x (column, out)."""
    matrix = np.concatenate([np.concatenate(list(rows), 1) for rows in kernel.astype("float64")])
    values = np.linalg.svd(matrix, compute_uv=False)
    return np.sqrt(np.sum(values[rank:] ** 2) / np.sum(values**2))


@pytest.mark.parametrize("goal", [{"error": 0.5}, {"energy": 0.75}])
def test_the_rank_is_the_lowest_that_keeps_to_the_error(goal):
    student = convnet()
    before = values(student)
    rows = {row.layer: row for row in low_rank.plan(student, **goal)}
    assert [*rows] == ["conv", "depthwise", "point", "features", "logits"]
    smaller = low_rank.apply(student, **goal)
    decomposed = [row for row in rows.values() if row.method]
    assert {row.layer for row in decomposed} >= {"conv", "features"}
    for row in decomposed:
        kernel = student.get_layer(row.layer).kernel.numpy()
        kernel = kernel.reshape((1,) * (4 - kernel.ndim) + kernel.shape)
        assert row.error == pytest.approx(relative_tail(kernel, row.rank), abs=1e-6)
        assert row.error <= 0.5 < relative_tail(kernel, row.rank - 1)
        assert row.parameters_after < row.parameters_before
        assert row.multiply_adds_after < row.multiply_adds_before
    saved, saved_multiply_adds = totals(rows.values())
    assert smaller.count_params() == student.count_params() - saved
    assert tflite_export.multiply_adds(smaller) == (
        tflite_export.multiply_adds(student) - saved_multiply_adds
    )
    # The user's model is as it was, and shares nothing with the copy.
    assert_same(before, values(student))
    assert all(len(layer.inbound_nodes) == 1 for layer in student.layers)
    assert not {id(la) for la in student.layers} & {id(la) for la in smaller.layers}


def test_fewer_parameters_alone_are_not_smaller():
    """Where columns are strided, the vertical part computes for twice as many pixels."""
    student = one_layer(layers.Conv2D(12, 3, strides=2, name="conv"))
    (row,) = low_rank.plan(student, ranks={"conv": 8})  # a rank that is named is taken
    assert row.parameters_after < row.parameters_before
    assert row.multiply_adds_after > row.multiply_adds_before
    with pytest.raises(InputError, match=r"no layer of model .* gets smaller"):
        low_rank.plan(student, error=row.error + 1e-6)


def test_what_is_around_stays_and_names_are_the_users():
    student = convnet()
    smaller = low_rank.apply(student, error=0.5)
    names = [layer.name for layer in smaller.layers]
    assert set(names) > {layer.name for layer in student.layers}
    assert names[:4] == ["pixels", "conv_vertical", "conv", "norm"]
    assert (smaller.name, smaller.output_names) == (student.name, student.output_names)
    assert smaller.input_names == student.input_names
    assert models.taps(smaller) == models.taps(student)
    for name in ("norm", "depthwise"):
        assert_same(values(student.get_layer(name)), values(smaller.get_layer(name)))
    conv, vertical = smaller.get_layer("conv"), smaller.get_layer("conv_vertical")
    assert (vertical.kernel_size, vertical.strides) == ((3, 1), (2, 1))
    assert (conv.kernel_size, conv.strides) == ((1, 3), (1, 2))
    assert not vertical.use_bias
    assert vertical.activation is tf.keras.activations.linear
    np.testing.assert_array_equal(conv.bias, student.get_layer("conv").bias)
    assert low_rank.callbacks(smaller) == []
    assert low_rank.finish(smaller) is smaller
    # Twice over: no name is given twice.
    again = low_rank.apply(smaller, ranks={"conv": 1, "conv_vertical": 1})
    assert "conv_vertical_" in [layer.name for layer in again.layers]


def test_frozen_and_regularized_layers_stay_so():
    layer = layers.Conv2D(
        8, 3, kernel_regularizer="l2", bias_regularizer="l1", activity_regularizer="l2",
        trainable=False, name="conv",
    )  # fmt: skip
    for method, rank in (("svd", 2), ("tucker", (2, 2)), ("cp", 2)):
        parts = low_rank.apply(one_layer(layer), method=method, ranks={"conv": rank}).layers[1:]
        assert not any(part.trainable for part in parts)
        assert all(
            (getattr(p, "depthwise_regularizer", None) or p.kernel_regularizer) for p in parts
        )
        assert [part.bias_regularizer is None for part in parts[:-1]] == [True] * (len(parts) - 1)
        assert [part.activity_regularizer is None for part in parts[:-1]] == [True] * len(parts[1:])
        assert None not in (parts[-1].bias_regularizer, parts[-1].activity_regularizer)


def test_shared_layers_nested_models_and_several_inputs_and_outputs():
    conv = layers.Conv2D(8, 3, padding="same", name="conv")
    inner = tf.keras.Sequential([layers.Dense(8, name="a"), layers.Dense(3, name="b")], "inner")
    one, other = tf.keras.Input((6, 6, 4), name="one"), tf.keras.Input((6, 6, 4), name="other")
    x, y = conv(one), conv(other)
    added = layers.Add(name="added")([x, y]) * 2.0
    mean = layers.GlobalAveragePooling2D()(tf.concat([added, y], -1))
    student = tf.keras.Model({"a": one, "b": other}, [inner(mean), inner(mean + 1.0), x])
    with_weights(student, 2)
    rows = low_rank.plan(student, ranks={"conv": 8, "a": 8})
    exact = low_rank.apply(student, ranks={"conv": 12, "a": 8})
    batch = {"a": images((6, 6, 4)), "b": -images((6, 6, 4))}
    for got, wanted in zip(exact(batch), student(batch), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
    assert [la.name for la in exact.get_layer("inner").layers][-3:] == ["a_reduce", "a", "b"]
    by_name = {row.layer: row for row in rows}
    assert by_name["conv"].multiply_adds_before == 2 * 36 * 9 * 4 * 8  # it is called twice
    assert sum(row.multiply_adds_before for row in rows) == tflite_export.multiply_adds(student)
    assert len(exact.get_layer("conv").inbound_nodes) == 2


def test_a_sequential_model_becomes_functional():
    student = tf.keras.Sequential(
        [layers.Conv2D(6, 3, input_shape=(8, 8, 4), name="c"), layers.Flatten(), layers.Dense(4)]
    )
    exact = low_rank.apply(student, ranks={"c": 12})
    x = images((8, 8, 4))
    np.testing.assert_allclose(exact(x), student(x), rtol=1e-4, atol=1e-5)
    assert not any("batch_input_shape" in part.get_config() for part in exact.layers[1:])


def test_tucker_takes_the_cheapest_pair_within_the_error():
    student = one_layer(layers.Conv2D(6, 3, padding="same", name="conv"), (8, 8, 5))
    (row,) = low_rank.plan(student, method="tucker", error=0.6)
    others = [
        low_rank.plan(student, method="tucker", ranks={"conv": (a, b)})[0]
        for a in range(1, 6)
        for b in range(1, 7)
    ]
    cheaper = [o for o in others if o.multiply_adds_after < row.multiply_adds_after]
    assert row.error <= 0.6
    # Ranks are chosen before tensorly's iterations, which gain a little on every pair.
    assert all(other.error > 0.6 - 0.03 for other in cheaper)
    assert row in others


@pytest.mark.parametrize("method", ["svd", "tucker", "cp"])
def test_budgets_are_kept_by_the_whole_model(method):
    x = start = tf.keras.Input((8, 8, 4))
    for number in range(2):
        x = layers.Conv2D(12, 3, padding="same", name=f"conv{number}")(x)
        x = layers.BatchNormalization()(x)
    x = layers.SeparableConv2D(6, 3)(layers.Conv2DTranspose(5, 2, strides=2)(x))
    student = with_weights(tf.keras.Model(start, layers.Dense(3)(layers.Flatten()(x))), 3)
    whole = {
        "parameters": student.count_params(),
        "multiply_adds": tflite_export.multiply_adds(student),
    }
    for goal, share in (("parameters", 0.93), ("multiply_adds", 0.75)):
        budget = int(share * whole[goal])
        smaller = low_rank.apply(student, method=method, **{goal: budget})
        found = {
            "parameters": smaller.count_params(),
            "multiply_adds": tflite_export.multiply_adds(smaller),
        }[goal]
        assert 0.8 * budget < found <= budget
        rows = low_rank.plan(student, method=method, **{goal: whole[goal]})
        assert {row.reason for row in rows if row.layer.startswith("conv")} >= {
            "the budget is met without it"
        }
        assert totals(rows) == (0, 0)


def test_what_is_left_alone_is_listed_with_the_reason():
    x = start = tf.keras.Input((8, 8, 4))
    x = layers.Conv2D(8, 3, groups=2, name="grouped")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Conv2D(8, 3, strides=2, padding="same", name="strided")(x)
    x = layers.Conv2D(8, 3, padding="same", kernel_constraint="unit_norm", name="bound")(x)
    x = layers.Conv2D(8, 3, padding="same", name="skipped")(x)
    x = layers.Conv2D(16, 3, padding="same", name="conv")(x)
    x = layers.Dense(1, name="logits")(layers.Flatten()(x))
    student = with_weights(tf.keras.Model(start, x), 4)
    rows = low_rank.plan(student, method="cp", error=0.9, skip=("skipped",))
    assert [(row.layer, row.reason) for row in rows] == [
        ("grouped", "a grouped convolution is not decomposed"),
        ("depthwise", "DepthwiseConv2D is not decomposed"),
        ("strided", "a depthwise convolution cannot stride one way, as cp needs"),
        ("bound", "its kernel's constraint would not hold"),
        ("skipped", "in skip"),
        ("conv", ""),
        ("logits", "nothing smaller keeps to the error"),
    ]
    for row in rows:
        left = row.reason != ""
        assert left == (row.method == "") == (row.rank is None)
        assert not left or (row.error, row.parameters_after) == (0.0, row.parameters_before)
    assert sum(row.multiply_adds_before for row in rows) == tflite_export.multiply_adds(student)
    assert {type(value) for value in dataclasses.astuple(rows[5])} == {str, int, float}
    named = low_rank.plan(student, ranks={"conv": 2})
    assert {row.reason for row in named if row.layer == "logits"} == {"not in ranks"}


@pytest.mark.parametrize(("name", "shape"), [("resnet8", (16, 16, 3)), ("lenet4", (16, 16, 1))])
@pytest.mark.parametrize("method", ["svd", pytest.param("tucker", marks=pytest.mark.slow)])
def test_networks(name, shape, method):
    student = models.build(name, classes=10, input_shape=shape)
    goal = {"method": method, "error": 0.6}
    smaller = low_rank.apply(student, **goal)
    saved, saved_multiply_adds = totals(low_rank.plan(student, **goal))
    assert 0 < saved == student.count_params() - smaller.count_params()
    assert saved_multiply_adds > 0
    assert tflite_export.multiply_adds(smaller) == (
        tflite_export.multiply_adds(student) - saved_multiply_adds
    )
    assert models.taps(smaller) == models.taps(student)
    assert smaller(images(shape)).shape == (3, 10)


@pytest.mark.slow
def test_vgg8():
    student = models.build("vgg8", classes=10, input_shape=(8, 8, 3))
    smaller = low_rank.apply(student, parameters=1_000_000)
    assert 950_000 < smaller.count_params() <= 1_000_000
    assert models.taps(smaller) == models.taps(student)
    (row,) = [
        row
        for row in low_rank.plan(student, method="tucker", error=0.5, skip=_LARGE)
        if row.layer == "stage3_conv1"
    ]
    assert row.error <= 0.5
    assert row.parameters_after < row.parameters_before


def test_a_distiller_trains_it_with_a_hint_at_a_decomposed_layer():
    teacher, student = convnet(), low_rank.apply(convnet(), error=0.7)
    before = values(student)
    distiller = kd.Distiller(
        student,
        teacher,
        methods=[
            kd.SoftTargets(temperature=2.0),
            kd.Hint(teacher_layer="conv", student_layer="conv"),
        ],
    )
    distiller.compile(optimizer="sgd", loss=tf.keras.losses.SparseCategoricalCrossentropy(True))
    x = images((8, 8, 4), 8)
    distiller.fit(x, np.arange(8) % 3, batch_size=8, verbose=0,
                  callbacks=low_rank.callbacks(student))  # fmt: skip
    changed = {
        weight.name.split("/")[0]
        for weight, old in zip(student.weights, before, strict=True)
        if not np.array_equal(weight, old)
    }
    assert {"conv_vertical", "conv", "norm", "logits"} <= changed


@pytest.mark.slow
def test_two_replicas():
    with two_replicas().scope():
        student = low_rank.apply(convnet(), error=0.7)
        student.compile("sgd", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = student.fit(images((8, 8, 4), 8), np.arange(8) % 3, verbose=0).history
    assert np.isfinite(history["loss"][0])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["svd", "tucker", "cp"])
def test_its_int8_file(method, tmp_path):
    x = start = tf.keras.Input((8, 8, 4))
    x = layers.Conv2D(12, 3, padding="same", use_bias=False, name="conv")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dense(3, name="logits")(layers.Flatten()(x))
    student = tf.keras.Model(start, x)
    smaller = low_rank.apply(student, method=method, error=0.8)
    data = images((8, 8, 4), 64)
    quantized = quantization.finish(quantization.apply(smaller, calibration=data))
    path = tflite_export.convert(quantized, tmp_path / "model.tflite", recipe="int8")
    file = tflite_export.TFLiteModel(path)
    expected = np.argmax(quantized.predict(data, verbose=0), -1)
    assert np.mean(np.argmax(file.predict(data, progress=False), -1) == expected) > 0.95


@pytest.mark.parametrize(
    ("goal", "words"),
    [
        ({}, ["exactly one goal and has none", "error, energy, ranks, parameters"]),
        ({"error": 0.1, "energy": 0.9}, ["has error and energy"]),
        ({"error": 1.0}, ["error 1.0 is not possible", "[0, 1)"]),
        ({"error": -0.1}, ["error -0.1 is not possible"]),
        ({"error": float("nan")}, ["error nan is not possible"]),
        ({"energy": 0.0}, ["energy 0.0 is not possible", "(0, 1]"]),
        ({"energy": 1.5}, ["energy 1.5 is not possible"]),
        ({"error": 0.01}, ["no layer of model 'student' gets smaller", "0.01", "allow more"]),
        ({"error": 0.5, "method": "qr"}, ["method 'qr' is not there", "svd, tucker, cp"]),
        ({"error": 0.5, "skip": ("conv9",)}, ["'conv9' in skip is not", "conv, features, logits"]),
        ({"ranks": {"conv9": 3}}, ["'conv9' in ranks is not", "conv, features, logits, point"]),
        ({"ranks": {"norm": 3}}, ["'norm' in ranks is not"]),
        ({"ranks": {"depthwise": 3}}, ["'depthwise' in ranks cannot", "DepthwiseConv2D"]),
        ({"ranks": {"conv": 3}, "skip": ("conv",)}, ["'conv' in ranks cannot", "in skip"]),
        ({"ranks": {}}, ["ranks is empty"]),
        ({"ranks": {"conv": 13}}, ["rank 13 of layer 'conv'", "whole number from 1 to 12"]),
        ({"ranks": {"conv": 0}}, ["rank 0 of layer 'conv'"]),
        ({"ranks": {"conv": 2.0}}, ["rank 2.0 of layer 'conv'"]),
        ({"ranks": {"conv": (2, 2)}}, ["rank (2, 2) of layer 'conv' is not possible for svd"]),
        ({"ranks": {"conv": 2}, "method": "tucker"}, ["a pair", "1 to 4 and 1 to 12"]),
        ({"ranks": {"conv": (1, 10)}, "method": "tucker"}, ["rank (1, 10)", "9 times the other"]),
        ({"parameters": 100}, ["parameters 100 cannot be met", "has 1063", "lowest ranks 330"]),
        ({"multiply_adds": 10}, ["multiply_adds 10 cannot be met"]),
        ({"parameters": 0.5}, ["parameters 0.5 is not possible", "whole number"]),
    ],
)
def test_bad_input(goal, words):
    for use in (low_rank.plan, low_rank.apply):
        with pytest.raises(InputError) as error:
            use(convnet(), **goal)
        one_line(error, *words)


def test_models_that_cannot_be_decomposed():
    class Subclassed(tf.keras.Model):
        pass

    start = tf.keras.Input((None, None, 3))
    flat = tf.keras.Input((6, 4))
    for student, goal, words in (
        (Subclassed(), {"error": 0.5}, ["only Functional"]),
        (tf.keras.Model(start, layers.ReLU()(start)), {"error": 0.5}, ["no layer to decompose"]),
        (tf.keras.Model(start, layers.Conv2D(4, 3, name="c")(start)), {"error": 0.5},
         ["'c'", "is open", "tf.keras.Input"]),
        (tf.keras.Model(flat, layers.Dense(9)(layers.GRU(9, name="g")(flat))),
         {"multiply_adds": 100}, ["multiply_adds of g (GRU)", "such as parameters"]),
    ):  # fmt: skip
        with pytest.raises(InputError) as error:
            low_rank.apply(student, **goal)
        one_line(error, *words)
    with pytest.raises(InputError, match="only Functional"):
        low_rank.callbacks(Subclassed())
