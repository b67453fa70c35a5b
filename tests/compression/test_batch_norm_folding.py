import numpy as np
import pytest
import tensorflow as tf
from nets import one_line
from structures import STRUCTURES, finished, images, outputs, plain, with_statistics

from kd_keras import models
from kd_keras.compression import batch_norm_folding, quantization
from kd_keras.errors import InputError

pytestmark = pytest.mark.tf_keras

layers = tf.keras.layers


def norms(model):
    found = [la for la in model._flatten_layers() if isinstance(la, layers.BatchNormalization)]
    return {layer.name for layer in found}


def sequence(*stack, shape=(6, 6, 2)):
    """The layers one after another, as a Functional model with logits."""
    image = x = layers.Input(shape, name="image")
    for layer in stack:
        x = layer(x)
    return finished(image, layers.Dense(3, name="logits")(layers.Flatten(name="flat")(x)))


@pytest.mark.parametrize(
    "layer",
    [
        *(layers.Conv2D(4, 3, name="a"), layers.Conv2D(4, 3, groups=2, use_bias=False, name="a")),
        layers.DepthwiseConv2D(3, depth_multiplier=3, use_bias=False, name="a"),
        *(layers.SeparableConv2D(5, 3, name="a"), layers.Conv2DTranspose(5, 3, name="a")),
        layers.Dense(5, use_bias=False, name="a"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_each_kind_is_folded_exactly(layer):
    assert_folded_exactly(layer, layers.BatchNormalization(name="norm"))


@pytest.mark.parametrize("option", ["scale", "center"])
def test_a_batch_norm_without_gamma_or_beta_is_folded(option):
    norm = layers.BatchNormalization(name="norm", **{option: False})
    assert_folded_exactly(layers.Conv2D(4, 3, name="a"), norm)


def assert_folded_exactly(layer, norm):
    copy = type(layer).from_config(layer.get_config())
    student = sequence(copy, norm, layers.ReLU(name="relu"))
    before = [weight.copy() for weight in student.get_weights()]
    folded = batch_norm_folding.apply(student)
    np.testing.assert_allclose(outputs(folded), outputs(student), atol=1e-5)
    assert not norms(folded)
    assert [la.name for la in folded.layers] == [la.name for la in student.layers]
    assert folded.output_names == student.output_names
    assert batch_norm_folding.unfolded(student) == {}
    for old, new in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_kernel_and_bias_are_those_of_the_formula():
    student = sequence(layers.Dense(4, name="a"), layers.BatchNormalization(name="norm"))
    kernel, bias = student.get_layer("a").get_weights()
    gamma, beta, mean, variance = student.get_layer("norm").get_weights()
    scale = gamma / np.sqrt(variance + 1e-3)
    new_kernel, new_bias = batch_norm_folding.apply(student).get_layer("a").get_weights()
    np.testing.assert_allclose(new_kernel, kernel * scale, rtol=1e-5)
    np.testing.assert_allclose(new_bias, (bias - mean) * scale + beta, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", sorted({*STRUCTURES} - {"flattened"}))
def test_structures(name):
    student = STRUCTURES[name]()
    folded = batch_norm_folding.apply(student)
    np.testing.assert_allclose(outputs(folded), outputs(student), rtol=1e-5, atol=1e-5)
    assert norms(folded) == {name.split("/")[-1] for name in batch_norm_folding.unfolded(student)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet8", "densenet-bc-10-4"])
def test_networks(name):
    student = with_statistics(models.build(name, classes=4, input_shape=(8, 8, 3)))
    folded = batch_norm_folding.apply(student)
    np.testing.assert_allclose(outputs(folded), outputs(student), rtol=1e-5, atol=1e-5)
    assert models.taps(folded) == models.taps(student)
    assert bool(norms(folded)) == (name != "resnet8")
    assert norms(folded) == set(batch_norm_folding.unfolded(student))


def listed(*calls):
    """The reason for the layer ``norm`` of a model made by functions of its tensors."""
    image = x = layers.Input((6, 6, 2), name="image")
    for call in calls:
        x = call(x)
    maps = layers.Conv2D(2, 1, name="last")(x)
    maps = layers.BatchNormalization(name="last_norm")(maps)
    student = finished(image, layers.Flatten(name="logits")(maps))
    folded = batch_norm_folding.apply(student)
    np.testing.assert_allclose(outputs(folded), outputs(student), atol=1e-5)
    left = batch_norm_folding.unfolded(student)
    assert norms(folded) == set(left) == {"norm"}
    return left["norm"]


def test_what_cannot_be_folded_is_left_and_listed():
    norm = lambda **options: layers.BatchNormalization(name="norm", **options)  # noqa: E731
    conv = lambda **options: layers.Conv2D(2, 3, padding="same", name="a", **options)  # noqa: E731
    assert listed(norm()) == "it reads an input"
    assert "a behind its activation relu" in listed(conv(activation="relu"), norm())
    assert "act (ReLU), which has no kernel" in listed(conv(), layers.ReLU(name="act"), norm())
    assert "(Add)" in listed(conv(), lambda x: layers.Add(name="sum")([x, x]), norm())
    assert "(Concatenate)" in listed(lambda x: layers.Concatenate(name="both")([x, x]), norm())
    assert "axis" in listed(conv(), norm(axis=1))
    twice = conv()
    assert "a, which is used more than once" in listed(twice, twice, norm())
    shared = norm()
    assert listed(conv(), shared, shared) == "it is used more than once"
    split = lambda x: layers.Add(name="sum")([x, norm()(x)])  # noqa: E731
    assert listed(conv(), split) == "it is not all that reads a"


def test_a_layer_that_is_an_output_itself_is_not_changed():
    image = layers.Input((6, 6, 2), name="image")
    maps = layers.Conv2D(2, 3, name="maps")(image)
    student = tf.keras.Model(image, [maps, layers.BatchNormalization(name="norm")(maps)])
    assert batch_norm_folding.unfolded(student) == {"norm": "it is not all that reads maps"}
    with pytest.raises(InputError) as error:
        batch_norm_folding.apply(student)
    one_line(error, "no BatchNorm to fold", "norm: it is not all that reads maps")


def test_bad_input_and_the_other_verbs():
    class Own(tf.keras.Model):
        def call(self, x):
            return x

    for use in (batch_norm_folding.apply, batch_norm_folding.unfolded, batch_norm_folding.finish):
        with pytest.raises(InputError) as error:
            use(Own(name="own"))
        one_line(error, "own", "make it one with tf.keras.Model(inputs, outputs)")
    folded = batch_norm_folding.apply(plain())
    assert batch_norm_folding.callbacks(folded) == []
    assert batch_norm_folding.finish(folded) is folded
    with pytest.raises(InputError) as error:
        batch_norm_folding.apply(sequence(layers.Dense(2, name="a")))
    one_line(error, "no BatchNorm to fold (it has none)")


@pytest.mark.slow
def test_a_folded_model_can_be_quantized():
    student = with_statistics(models.build("resnet8", classes=4, input_shape=(8, 8, 3)))
    quantized = quantization.apply(
        batch_norm_folding.apply(student), calibration=images(student, 64)
    )
    assert np.isfinite(outputs(quantized)).all()
