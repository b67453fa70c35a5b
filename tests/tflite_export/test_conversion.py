import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from replicas import two_replicas

import tflite_export
from tflite_export.file_facts import read_facts


def small_net(layer, shape=(6, 6, 2)):
    image = tf.keras.Input(shape, name="image")
    x = layer(tf.keras.layers.Conv2D(2, 3, name="conv")(image))
    x = tf.keras.layers.Flatten(name="flat")(x)
    return tf.keras.Model(image, tf.keras.layers.Dense(3, name="logits")(x), name="small")


def test_float_file_equals_keras(float_net, float_file, images):
    outputs = tflite_export.TFLiteModel(float_file).predict(images)
    np.testing.assert_allclose(outputs, float_net.predict(images, verbose=0), atol=1e-4)


def test_float_file_has_the_users_names_and_formats(float_file):
    facts = read_facts(float_file.read_bytes())
    assert facts.inputs == {"image": "float32"}
    assert facts.outputs == {"logits": "float32"}
    assert {"CONV_2D", "ADD", "FULLY_CONNECTED"} <= {o.name for o in facts.operators}
    assert not any(operator.custom for operator in facts.operators)


def test_sequential_with_softmax_and_given_names(tmp_path):
    model = tf.keras.Sequential(
        [tf.keras.Input((5,), name="row"), tf.keras.layers.Dense(3, "softmax", name="classes")]
    )
    own = tflite_export.TFLiteModel(
        tflite_export.convert(model, tmp_path / "own.tflite", "float32")
    )
    assert (own.input.name, own.output.name) == ("row", "classes")
    path = tflite_export.convert(
        model, tmp_path / "new" / "given.tflite", "float32", input_name="x", output_name="p"
    )
    given = tflite_export.TFLiteModel(path)
    assert (given.input.name, given.output.name) == ("x", "p")
    assert given.output.shape == (1, 3)


@pytest.mark.parametrize("name", ["block/image", "my-image.1"])
def test_unusual_names_are_kept(name, tmp_path):
    image = tf.keras.Input((4,), name="x")
    model = tf.keras.Model(image, tf.keras.layers.Dense(2)(image))
    path = tflite_export.convert(
        model, tmp_path / "x.tflite", "float32", input_name=name, output_name=name
    )
    found = tflite_export.TFLiteModel(path)
    assert (found.input.name, found.output.name) == (name, name)


@pytest.mark.parametrize("name", ["in", "two words", "größe", "_x"])
def test_impossible_input_names_are_refused(name, float_net, tmp_path, one_line):
    with pytest.raises(tflite_export.ExportError, match="give another input_name") as caught:
        tflite_export.convert(float_net, tmp_path / "x.tflite", "float32", input_name=name)
    one_line(caught)


@pytest.mark.tf_keras
def test_int8_file_agrees_with_fake_quantization(quantized_net, int8_file, images):
    model = tflite_export.TFLiteModel(int8_file)
    rng = np.random.default_rng(2)
    inputs = images + rng.normal(0, 0.5, images.shape).astype("float32")
    expected = quantized_net.predict(inputs, verbose=0)
    outputs = model.predict(inputs)
    assert np.mean(outputs.argmax(1) == expected.argmax(1)) >= 0.98
    assert np.abs(outputs - expected).max() <= 3.5 * model.output.scale
    assert len(set(expected.argmax(1))) == 4


@pytest.mark.tf_keras
def test_int8_file_is_int8_throughout_with_the_users_names(int8_file):
    facts = read_facts(int8_file.read_bytes())
    assert facts.inputs == {"image": "int8"}
    assert facts.outputs == {"logits": "int8"}
    assert {kind for operator in facts.operators for kind in operator.formats} == {"int8"}


@pytest.mark.tf_keras
def test_pruned_and_quantized_net_keeps_its_zeros_and_converts(float_net, images, labels, tmp_path):
    import tensorflow_model_optimization as tfmot

    quantization = tfmot.quantization.keras
    model = tf.keras.models.clone_model(float_net)
    weights = [np.array(w) for w in float_net.get_weights()]
    for weight in weights:
        if weight.ndim == 4:
            weight[np.abs(weight) < np.median(np.abs(weight))] = 0
    model.set_weights(weights)
    model = quantization.quantize_apply(
        quantization.quantize_annotate_model(model),
        tfmot.experimental.combine.Default8BitPrunePreserveQuantizeScheme(),
    )
    model(images, training=True)
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.SGD(0.01), loss)
    model.fit(images, labels, epochs=2, verbose=0)
    assert 0.4 < tflite_export.sparsity(model) < 0.6
    path = tflite_export.convert(model, tmp_path / "pqat.tflite", "int8")
    outputs = tflite_export.TFLiteModel(path).predict(images)
    expected = model.predict(images, verbose=0)
    assert np.mean(outputs.argmax(1) == expected.argmax(1)) >= 0.98


def test_the_same_model_gives_the_same_bytes(float_net, float_file, tmp_path):
    again = tflite_export.convert(float_net, tmp_path / "again.tflite", "float32")
    assert again.read_bytes() == float_file.read_bytes()


@pytest.mark.tf_keras
def test_the_same_quantized_model_gives_the_same_bytes(quantized_net, int8_file, tmp_path):
    again = tflite_export.convert(quantized_net, tmp_path / "again.tflite", "int8")
    assert again.read_bytes() == int8_file.read_bytes()


def test_conversion_does_not_change_the_model(float_net, tmp_path):
    before = [np.array(w) for w in float_net.get_weights()]
    tflite_export.convert(float_net, tmp_path / "a.tflite", "float32")
    for old, new in zip(before, float_net.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_model_made_under_a_distribution_strategy(tmp_path):
    with two_replicas().scope():
        model = small_net(tf.keras.layers.BatchNormalization(name="bn"))
    path = tflite_export.convert(model, tmp_path / "mirrored.tflite", "float32")
    inputs = np.random.default_rng(0).normal(size=(8, 6, 6, 2)).astype("float32")
    expected = np.asarray(model(inputs, training=False))
    np.testing.assert_allclose(tflite_export.TFLiteModel(path).predict(inputs), expected, atol=1e-4)


def test_conversion_says_nothing(tmp_path):
    script = Path(tmp_path / "script.py")
    script.write_text(
        "import tensorflow as tf, tflite_export, sys\n"
        "i = tf.keras.Input((4,), name='x')\n"
        "m = tf.keras.Model(i, tf.keras.layers.Dense(2, name='y')(i))\n"
        "print('BEGIN', file=sys.stderr, flush=True)\n"
        "tflite_export.convert(m, sys.argv[1], 'float32')\n"
        "tflite_export.TFLiteModel(sys.argv[1])\n"
        "print('END', file=sys.stderr, flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "m.tflite")],
        cwd=Path(tflite_export.__file__).parents[1],
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    assert done.stderr.endswith("BEGIN\nEND\n")


@pytest.mark.parametrize("operator", ["erfinv", "MatrixInverse"])
def test_unsupported_operator_is_named_with_its_layer(operator, tmp_path, one_line):
    functions = {"erfinv": tf.math.erfinv, "MatrixInverse": tf.linalg.inv}
    layer = tf.keras.layers.Lambda(functions[operator], output_shape=(4, 4, 2), name="odd_one")
    if operator == "MatrixInverse":
        layer = tf.keras.layers.Lambda(
            lambda x: tf.linalg.inv(tf.matmul(x, x, transpose_a=True)),
            output_shape=(4, 2, 2),
            name="odd_one",
        )
    with pytest.raises(tflite_export.ExportError) as caught:
        tflite_export.convert(small_net(layer), tmp_path / "bad.tflite", "float32")
    message = one_line(caught)
    assert operator.lower() in message.lower()
    assert "odd_one" in message
    assert list(tmp_path.iterdir()) == []


def test_unknown_recipe_lists_the_names(float_net, tmp_path, one_line):
    with pytest.raises(tflite_export.ExportError) as caught:
        tflite_export.convert(float_net, tmp_path / "x.tflite", "int9")
    message = one_line(caught)
    assert message.startswith("recipe 'int9' is unknown; choose one of: float32, float16, ")
    assert all(name in message for name in tflite_export.RECIPES)


def test_int8_of_a_float_model_says_what_to_do(float_net, tmp_path, one_line):
    with pytest.raises(tflite_export.ExportError, match="not quantization-aware") as caught:
        tflite_export.convert(float_net, tmp_path / "x.tflite", "int8")
    assert "quantize_model" in one_line(caught)


@pytest.mark.tf_keras
def test_float_file_of_a_quantized_model_is_refused(quantized_net, tmp_path, one_line):
    with pytest.raises(tflite_export.ExportError, match="is quantization-aware") as caught:
        tflite_export.convert(quantized_net, tmp_path / "x.tflite", "float32")
    one_line(caught)


@pytest.mark.tf_keras
def test_layer_left_in_float_is_named(images, tmp_path, one_line):
    import tensorflow_model_optimization as tfmot

    image = tf.keras.Input((12, 12, 3), name="image")
    annotate = tfmot.quantization.keras.quantize_annotate_layer
    x = annotate(tf.keras.layers.Conv2D(4, 3, name="conv"))(image)
    x = tf.keras.layers.Flatten(name="flat")(x)
    annotated = tf.keras.Model(image, tf.keras.layers.Dense(4, name="logits")(x))
    model = tfmot.quantization.keras.quantize_apply(annotated)
    model(images, training=True)
    with pytest.raises(tflite_export.ExportError, match="float32") as caught:
        tflite_export.convert(model, tmp_path / "x.tflite", "int8")
    assert "quantize every layer" in one_line(caught)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.tf_keras
def test_pruning_wrappers_are_refused_with_the_cure(float_net, tmp_path, one_line):
    import tensorflow_model_optimization as tfmot

    model = tf.keras.models.clone_model(float_net)
    pruned = tfmot.sparsity.keras.prune_low_magnitude(model)
    with pytest.raises(tflite_export.ExportError) as caught:
        tflite_export.convert(pruned, tmp_path / "x.tflite", "float32")
    assert "strip_pruning" in one_line(caught)


def test_half_precision_is_refused(tmp_path, one_line):
    image = tf.keras.Input((6,), name="image")
    x = tf.keras.layers.Dense(4, dtype="mixed_float16", name="half")(image)
    model = tf.keras.Model(image, tf.keras.layers.Dense(2, dtype="float32", name="logits")(x))
    with pytest.raises(tflite_export.ExportError, match="float16") as caught:
        tflite_export.convert(model, tmp_path / "x.tflite", "float32")
    assert "float32 policy" in one_line(caught)


def test_existing_file_is_kept_unless_asked(float_net, tmp_path, one_line):
    path = tmp_path / "x.tflite"
    path.write_text("mine")
    with pytest.raises(tflite_export.ExportError, match="exists") as caught:
        tflite_export.convert(float_net, path, "float32")
    one_line(caught)
    assert path.read_text() == "mine"
    tflite_export.convert(float_net, path, "float32", overwrite=True)
    assert tflite_export.TFLiteModel(path).input.name == "image"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.tflite"]


def test_several_inputs_open_shapes_and_integer_inputs_are_refused(tmp_path, one_line):
    a, b = tf.keras.Input((3,), name="a"), tf.keras.Input((3,), name="b")
    two = tf.keras.Model([a, b], tf.keras.layers.Add(name="sum")([a, b]))
    c = tf.keras.Input((None, None, 3), name="c")
    open_shape = tf.keras.Model(c, tf.keras.layers.Conv2D(2, 1, name="d")(c))
    e = tf.keras.Input((3,), dtype="int32", name="e")
    integer = tf.keras.Model(e, tf.keras.layers.Embedding(4, 2, name="f")(e))
    for model, reason in ((two, "2 inputs"), (open_shape, "open shape"), (integer, "int32")):
        with pytest.raises(tflite_export.ExportError, match=reason) as caught:
            tflite_export.convert(model, tmp_path / "x.tflite", "float32")
        one_line(caught)


def test_folder_that_cannot_be_made_is_one_line(float_net, tmp_path, one_line):
    (tmp_path / "file").write_text("")
    with pytest.raises(tflite_export.ExportError, match="cannot write") as caught:
        tflite_export.convert(float_net, tmp_path / "file" / "x.tflite", "float32")
    one_line(caught)
