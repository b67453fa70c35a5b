"""Each recipe makes what it says, from a net trained on scikit-learn's digits."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

import tflite_export
from tflite_export import recipes
from tflite_export.file_facts import check_facts, read_facts
from tflite_export.tflite_file import tflite_content
from tflite_export.writing import write_checked

# What a file says and does is one under both Keras; how each is converted, test_conversion tells.
pytestmark = pytest.mark.any_keras

KERNELS = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
QUANTIZING = [name for name, recipe in tflite_export.RECIPES.items() if recipe.quantizes]


@pytest.fixture(scope="module")
def made(digits, float_digits, tmp_path_factory):
    """Makes the file of a recipe, from the float file, and keeps it."""
    folder = tmp_path_factory.mktemp("recipes")

    @functools.cache
    def make(name):
        recipe = recipes.get(name)
        images = digits.representative if recipe.needs_ranges else None
        path = folder / f"{len(list(folder.iterdir()))}.tflite"
        write_checked(tflite_content(float_digits, recipe, images), path)
        return path

    return make


def kernels(facts):
    return {operator for operator in facts.operators if operator.name in KERNELS}


@pytest.mark.parametrize("name", QUANTIZING)
def test_file_is_what_its_recipe_says(name, made):
    recipe = recipes.get(name)
    facts = read_facts(made(name).read_bytes())
    assert (facts.inputs, facts.outputs) == ({"image": recipe.io}, {"logits": recipe.io})
    borders = {"QUANTIZE", "DEQUANTIZE"}
    computed = {o.formats for o in facts.operators if o.name not in borders}
    assert computed == {(recipe.activations,)}
    assert len(kernels(facts)) == 5
    for operator in kernels(facts):
        expected = recipe.weights
        if name == "weight_int4" and operator.name == "DEPTHWISE_CONV_2D":
            expected = "int8"  # there is no int4 for it
        assert operator.weights == expected
        assert operator.dequantized == (name in ("float16", "weight_int8", "weight_int4"))
        assert len(operator.weight_scales) in ((0,) if name == "float16" else (10, 16, 32))


@pytest.mark.parametrize("name", QUANTIZING)
def test_file_decides_as_the_float_net(name, digits, made):
    expected = digits.model.predict(digits.images, verbose=0)
    proof = tflite_export.verify(made(name), expected, digits.images, digits.labels)
    assert proof.agreement >= (0.94 if name == "weight_int4" else 0.97)


def test_sizes_follow_the_weights(digits, made):
    size = {
        name: made(name).stat().st_size
        for name in ("float32", "float16", "weight_int8", "weight_int4")
    }
    weights = 4 * sum(w.size for w in digits.model.get_weights() if w.ndim > 1)
    assert size["float32"] - size["float16"] > 0.4 * weights
    assert size["float32"] - size["weight_int8"] > 0.6 * weights
    assert size["weight_int8"] - size["weight_int4"] > 0.1 * weights


@pytest.mark.parametrize(
    "name",
    ["int8", "weight_int8", pytest.param("int16x8_float_io", marks=pytest.mark.slow)],
)
def test_layers_are_kept_in_float(name, digits, tmp_path):
    recipe = recipes.get(name)
    path = tflite_export.convert(
        digits.model,
        tmp_path / "digits.tflite",
        f"{name}@float:conv1,logits",
        representative=digits.representative if recipe.needs_ranges else None,
    )
    facts = read_facts(path.read_bytes())
    assert (facts.inputs, facts.outputs) == ({"image": recipe.io}, {"logits": recipe.io})
    by_channels = {(o.name, o.weights, o.formats) for o in kernels(facts)}
    rest = (recipe.weights, (recipe.activations,))
    assert by_channels == {
        ("CONV_2D", "float32", ("float32",)),
        ("DEPTHWISE_CONV_2D", *rest),
        ("CONV_2D", *rest),
        ("FULLY_CONNECTED", *rest),
        ("FULLY_CONNECTED", "float32", ("float32",)),
    }
    outputs = tflite_export.TFLiteModel(path).predict(digits.images)
    expected = digits.model.predict(digits.images, verbose=0)
    assert np.mean(outputs.argmax(1) == expected.argmax(1)) >= 0.97


def test_layer_is_not_taken_for_another_with_its_name_in_it(tmp_path):
    """Keras 3 calls the operations of the layer `conv` those of `conv_1`."""
    image = tf.keras.Input((8, 8, 1), name="image")
    x = tf.keras.layers.Conv2D(2, 3, name="conv")(image)
    x = tf.keras.layers.Conv2D(3, 3, activation="relu", name="conv_1")(x)
    nested = tf.keras.Input((4, 4, 3))
    head = tf.keras.Model(nested, tf.keras.layers.Conv2D(4, 3, name="inner")(nested), name="head")
    x = tf.keras.layers.Flatten(name="flat")(head(x))
    model = tf.keras.Model(image, tf.keras.layers.Dense(5, name="logits")(x))
    for layer, channels in (("conv", 2), ("conv_1", 3), ("inner", 4), ("logits", 5)):
        path = tflite_export.convert(
            model, tmp_path / "x.tflite", f"weight_int8@float:{layer}", overwrite=True
        )
        found = {len(o.weight_scales): o.weights for o in kernels(read_facts(path.read_bytes()))}
        assert found.pop(0) == "float32"
        assert found == dict.fromkeys({2, 3, 4, 5} - {channels}, "int8")
    assert "call" not in vars(model.get_layer("conv"))


def test_output_layer_without_weights_can_be_kept(digits, tmp_path):
    image = tf.keras.Input((8, 8, 1), name="image")
    x = tf.keras.layers.Dense(3, name="logits")(tf.keras.layers.Flatten(name="flat")(image))
    model = tf.keras.Model(image, tf.keras.layers.Softmax(name="classes")(x))
    path = tflite_export.convert(
        model, tmp_path / "x.tflite", "int8@float:classes", representative=digits.representative
    )
    facts = read_facts(path.read_bytes())
    formats = {operator.name: operator.formats for operator in facts.operators}
    assert formats["SOFTMAX"] == ("float32",)
    assert formats["FULLY_CONNECTED"] == ("int8",)
    assert facts.outputs == {"classes": "int8"}


def test_operator_without_an_int8_form_can_be_kept(digits, tmp_path):
    image = tf.keras.Input((8, 8, 1), name="image")
    x = tf.keras.layers.ELU(name="odd_one")(tf.keras.layers.Conv2D(2, 3, name="conv")(image))
    x = tf.keras.layers.Flatten(name="flat")(x)
    model = tf.keras.Model(image, tf.keras.layers.Dense(3, name="logits")(x))
    path = tflite_export.convert(
        model, tmp_path / "x.tflite", "int8@float:odd_one", representative=digits.representative
    )
    formats = {o.name: o.formats for o in read_facts(path.read_bytes()).operators}
    assert formats["ELU"] == ("float32",)
    assert formats["CONV_2D"] == formats["FULLY_CONNECTED"] == ("int8",)


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        ("int8@float:stem", r"'stem' .* is not in model 'digits'; it has: image, conv1"),
        ("int8@float:image", "'image' .* has no operator of its own"),
        ("int8@float:", "names an empty layer"),
        ("int8@float:a,a", "one twice"),
        ("float32@float:conv1", "all layers are in float32"),
        ("int8@floats:conv1", "is unknown; choose one of"),
        ("int8_int4_io", "is unknown; choose one of"),
    ],
)
def test_names_outside_the_grammar(recipe, reason, digits, tmp_path, one_line):
    with pytest.raises(tflite_export.ExportError, match=reason) as caught:
        tflite_export.convert(
            digits.model, tmp_path / "x.tflite", recipe, representative=digits.representative
        )
    one_line(caught)
    assert list(tmp_path.iterdir()) == []


def test_recipes_are_frozen_and_named_by_the_grammar():
    for name, recipe in tflite_export.RECIPES.items():
        assert recipe.name == name
        with pytest.raises(dataclasses.FrozenInstanceError):
            recipe.io = "uint8"
    with_layers = recipes.get("int8_uint8_io@float:a,b/c")
    assert with_layers.float_layers == ("a", "b/c")
    assert dataclasses.replace(with_layers, name="int8_uint8_io", float_layers=()) == recipes.get(
        "int8_uint8_io"
    )


@pytest.mark.tf_keras
@pytest.mark.parametrize("io", ["uint8", pytest.param("float", marks=pytest.mark.slow)])
def test_quantization_aware_models_take_every_io(io, quantized_net, images, tmp_path):
    path = tflite_export.convert(quantized_net, tmp_path / "x.tflite", f"int8_{io}_io")
    outputs = tflite_export.TFLiteModel(path).predict(images)
    expected = quantized_net.predict(images, verbose=0)
    assert np.mean(outputs.argmax(1) == expected.argmax(1)) >= 0.98


@pytest.mark.tf_keras
@pytest.mark.parametrize("recipe", ["dynamic_int8", "int16x8", "int8@float:logits"])
def test_quantization_aware_models_take_no_other_recipe(recipe, quantized_net, tmp_path, one_line):
    with pytest.raises(tflite_export.ExportError, match="is quantization-aware") as caught:
        tflite_export.convert(quantized_net, tmp_path / "x.tflite", recipe)
    assert "int8_uint8_io" in one_line(caught)


def test_weights_too_large_for_half_precision_are_refused(tmp_path, one_line):
    image = tf.keras.Input((4,), name="image")
    model = tf.keras.Model(image, tf.keras.layers.Dense(2, name="logits")(image))
    model.set_weights([np.full((4, 2), 1e5), np.zeros(2)])
    with pytest.raises(tflite_export.ExportError, match=r"does not fit .* 'float16'") as caught:
        tflite_export.convert(model, tmp_path / "x.tflite", "float16")
    one_line(caught)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("dynamic_int8", "weight_int8"),
        ("weight_int8", "float16"),
        ("int8", "int16x8"),
        ("int8", "int8_uint8_io"),
    ],
)
def test_a_file_of_another_recipe_is_found_out(name, asked, made, one_line):
    facts = read_facts(made(name).read_bytes())
    check_facts(facts, recipes.get(name), "image", "logits")
    with pytest.raises(tflite_export.ExportError, match=f"recipe '{asked}'") as caught:
        check_facts(facts, recipes.get(asked), "image", "logits")
    one_line(caught)
