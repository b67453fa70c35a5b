import numpy as np
import pytest
import tensorflow as tf
from nets import one_line
from structures import STRUCTURES, conv_bn, finished, model_of, outputs, plain, with_statistics

from kd_keras import models
from kd_keras.compression import dead_channels
from kd_keras.errors import InputError

pytestmark = pytest.mark.tf_keras

layers = tf.keras.layers


def kill(model, name, channels, beta=0.0):
    """Zeroes a layer's filters, and lets its BatchNorm, if there is one, give ``beta``."""
    layer = model.get_layer(name)
    kernel = layer.pointwise_kernel if hasattr(layer, "pointwise_kernel") else layer.kernel
    values = kernel.numpy()
    values[..., channels] = 0
    kernel.assign(values)
    if f"{name}_bn" in {la.name for la in model.layers}:
        norm = model.get_layer(f"{name}_bn")
        for weight, value in ((norm.gamma, 0.0), (norm.beta, beta)):
            values = weight.numpy()
            values[channels] = value
            weight.assign(values)
    return model


def widths(model, *names):
    return [model.get_layer(name).output.shape[-1] for name in names]


def removed(student):
    before = [weight.copy() for weight in student.get_weights()]
    smaller = dead_channels.apply(student)
    np.testing.assert_allclose(outputs(smaller), outputs(student), rtol=1e-5, atol=1e-5)
    for old, new in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert [la.name for la in smaller.layers] == [la.name for la in student.layers]
    return smaller


def test_zero_maps_go_also_behind_zero_padding():
    smaller = removed(kill(plain(), "conv1", [0, 4], beta=-0.3))  # relu(-0.3) = 0
    assert widths(smaller, "conv1", "conv1_bn", "pad", "conv2") == [4, 4, 4, 8]
    assert smaller.get_layer("conv2").kernel.shape == (3, 3, 4, 8)


def test_a_constant_stays_behind_zero_padding_and_goes_elsewhere():
    smaller = removed(kill(plain(), "conv1", [0, 4], beta=0.3))  # conv1 is read through a padding
    assert widths(smaller, "conv1") == [6]
    smaller = removed(kill(plain(), "conv2", [1, 2, 3], beta=0.3))  # read by pooling and dense
    assert widths(smaller, "conv2", "features") == [5, 5]


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"kernel_size": 3, "padding": "valid"}, 2),
        ({"kernel_size": 1, "padding": "same"}, 2),
        ({"kernel_size": 3, "padding": "valid", "strides": 2, "use_bias": False}, 2),
        ({"kernel_size": 3, "padding": "same"}, 4),
    ],
)
def test_the_constant_goes_into_the_next_bias_where_that_is_exact(options, left):
    image = layers.Input((8, 8, 2), name="image")
    x = conv_bn(image, 4, "conv1")
    x = layers.Conv2D(3, activation="relu", name="next", **options)(x)
    smaller = removed(kill(model_of(image, x), "conv1", [1, 3], beta=0.4))
    assert widths(smaller, "conv1") == [left]
    assert smaller.get_layer("next").use_bias


def test_gamma_alone_makes_a_map_constant_and_so_does_the_filter_alone():
    student = plain()
    gamma = student.get_layer("conv2_bn").gamma
    gamma.assign(gamma * np.array([0, 1, 1, 1, 1, 1, 1, 1]))
    assert widths(removed(student), "conv2") == [7]
    student = plain()
    kernel = student.get_layer("conv2").kernel
    kernel.assign(kernel * np.array([0, 0, 1, 1, 1, 1, 1, 1]))
    assert widths(removed(student), "conv2") == [6]


def test_a_sum_is_constant_if_both_sides_are():
    student = kill(STRUCTURES["projected"](), "a2", [0, 1], beta=0.2)
    assert widths(removed(student), "a2", "a_short", "b2") == [8, 8, 8]
    kill(student, "a_short", [0, 1], beta=-0.7)  # relu(0.2 - 0.7) = 0 is what b1 reads
    assert widths(removed(student), "a2") == [8]  # but b2 adds to it
    kill(student, "b2", [0, 1], beta=0.6)  # and now relu(0 + 0.6) is pooled
    assert widths(removed(student), "a2", "a_short", "b2", "features") == [6, 6, 6, 6]


def test_concatenated_depthwise_separable_and_flattened_maps():
    student = kill(STRUCTURES["concatenated"](), "left", [0, 5])
    assert widths(removed(student), "left", "joined", "top") == [6, 14, 6]  # joined_bn moves the 0
    student.get_layer("joined_bn").set_weights([np.ones(14), *[np.zeros(14)] * 2, np.ones(14)])
    assert widths(removed(student), "left", "joined", "top") == [4, 12, 6]

    student = kill(STRUCTURES["separable"](), "stem", [2])
    student.get_layer("depthwise").bias.assign(np.zeros(8))
    assert widths(removed(student), "stem", "depthwise") == [3, 6]
    student.get_layer("depthwise").bias.assign(np.ones(8))  # a constant, which 1x1 takes in
    assert widths(removed(student), "stem", "depthwise") == [3, 6]
    kill(student, "pointwise", [0, 1, 2], beta=0.5)  # `separable` has no padding
    kill(student, "separable", [1])  # its bias is what is left; the transposed one has borders
    assert widths(removed(student), "pointwise", "separable") == [3, 5]

    student = kill(STRUCTURES["flattened"](), "conv1", [0, 3])
    kill(student, "hidden", [2])
    assert widths(removed(student), "conv1", "flatten", "hidden") == [2, 8, 5]


def test_what_reads_dead_maps_only_is_dead_itself_and_one_channel_is_left():
    student = kill(plain(), "conv1", [0, 1, 2, 3, 4, 5])
    smaller = removed(student)
    assert widths(smaller, "conv1", "conv2") == [1, 1]


def test_a_layer_that_is_used_twice_keeps_other_constants():
    image = layers.Input((4, 4, 2), name="image")
    first, second = conv_bn(image, 2, "a", 1), conv_bn(image, 2, "b", 1)
    shared = layers.Conv2D(2, 1, name="shared")
    maps = layers.Concatenate(name="both")([shared(first), shared(second)])
    student = finished(image, layers.Dense(3, name="logits")(layers.Flatten(name="flat")(maps)))
    kill(kill(student, "a", [0], beta=0.5), "b", [0], beta=0.1)
    assert widths(removed(student), "a", "b") == [2, 2]
    kill(kill(student, "a", [0]), "b", [0])
    assert widths(removed(student), "a", "b") == [1, 1]


def test_the_output_and_what_unknown_layers_read_stays():
    student = kill(plain(), "logits", [0])
    assert widths(removed(student), "logits") == [3]
    image = layers.Input((8, 8, 2), name="image")
    x = layers.PReLU(shared_axes=(1, 2), name="odd")(conv_bn(image, 4, "conv1"))
    student = kill(model_of(image, conv_bn(x, 4, "conv2")), "conv1", [0])
    assert widths(removed(student), "conv1") == [4]


@pytest.mark.slow
@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_resnet(shortcut):
    student = with_statistics(
        models.build("resnet8", classes=4, input_shape=(8, 8, 3), shortcut=shortcut)
    )
    names = [la.name for la in student.layers if isinstance(la, layers.Conv2D)]
    for name in names:
        norm = name.replace("conv", "bn")
        values = student.get_layer(norm).get_weights()
        values[0][:5], values[1][:5] = 0, 0
        student.get_layer(norm).set_weights(values)
        kill(student, name, [0, 1, 2, 3, 4])
    smaller = removed(student)
    # With A, the first channels of a stage lie on live ones of the next.
    expected = {"A": [16, 32, 59], "B": [11, 27, 59]}[shortcut]
    assert widths(smaller, "stage1", "stage2", "stage3") == expected
    assert widths(smaller, "stage1_0_conv1", "stage3_0_conv1") == [11, 59]


def test_a_subclassed_model_is_refused_with_the_cure():
    class Own(tf.keras.Model):
        def call(self, x):
            return x

    with pytest.raises(InputError) as error:
        dead_channels.apply(Own(name="own"))
    one_line(error, "own", "make it one with tf.keras.Model(inputs, outputs)")
