import os

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from kd_keras import models
from kd_keras.compression import quantization
from kd_keras.errors import InputError

pytestmark = pytest.mark.tf_keras

DIGITS = load_digits()
IMAGES = ((DIGITS.images[..., None] / 16 - 0.3) / 0.37).astype("float32")
LABELS = DIGITS.target
CALIBRATION, TEST = IMAGES[:512], slice(1200, 1797)


class Mimic(tf.keras.Model):
    """A distiller in little: its ``fit`` trains ``student`` towards given logits."""

    def __init__(self, student):
        super().__init__()
        self.student = student

    def train_step(self, data):
        x, target = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self.student(x, training=True) - target) ** 2)
        variables = self.student.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return {"loss": loss}


def fine_tune(quantized, targets, steps=20):
    mimic = Mimic(quantized)
    mimic.compile(optimizer=tf.keras.optimizers.Adam(1e-3))
    data = tf.data.Dataset.from_tensor_slices((IMAGES[:1024], targets[:1024])).batch(32).repeat()
    mimic.fit(data, steps_per_epoch=steps, verbose=0, callbacks=quantization.callbacks(quantized))
    return mimic


def logits_of(model, images=IMAGES):
    return np.asarray(model(images, training=False))


@pytest.fixture(scope="module")
def weights():
    """A net with logits well outside [-6, 6], as trained ones have, and half its weights zero."""
    tf.keras.utils.set_random_seed(1)
    model = models.build("convnet-8-16", classes=10, input_shape=(8, 8, 1))
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.Adam(0.03), loss)
    model.fit(IMAGES[:1200], LABELS[:1200], epochs=12, batch_size=64, verbose=0)
    values = model.get_weights()
    for index, value in enumerate(values):
        if value.ndim > 1:
            zeros = np.abs(value) < np.median(np.abs(value))
            values[index] = np.where(zeros, 0, value).astype("float32")
    model.set_weights(values)
    # The rest, and BatchNorm's statistics, adapt to the zeros.
    model.fit(IMAGES[:1200], LABELS[:1200], epochs=3, batch_size=64, verbose=0)
    for kept, value in zip(values, fitted := model.get_weights(), strict=True):
        if value.ndim > 1:
            value[kept == 0] = 0
    return fitted


@pytest.fixture
def student(weights):
    model = models.build("convnet-8-16", classes=10, input_shape=(8, 8, 1))
    model.set_weights(weights)
    return model


def kernel_zeros(model):
    return {
        weight.name.split("/")[-2].removeprefix("quant_"): np.asarray(weight) == 0
        for weight in model.weights
        if weight.name.endswith("kernel:0")
    }


def test_the_first_step_sees_the_students_real_logits(student):
    expected = logits_of(student)
    assert np.abs(expected).max() > 8
    before = [w.copy() for w in student.get_weights()]
    quantized = quantization.apply(student, calibration=CALIBRATION)
    error = np.abs(logits_of(quantized) - expected)[TEST].mean()
    assert error < 0.2

    # tfmot's own start, as quantize_model gives it and after the training pass that it needs.
    import tensorflow_model_optimization as tfmot

    own = tfmot.quantization.keras.quantize_model(student)
    assert np.abs(logits_of(own) - expected)[TEST].mean() > 1
    statistics = student.get_layer("bn1").momentum
    assert statistics == 0.9
    own(CALIBRATION, training=True)
    assert np.abs(logits_of(own) - expected)[TEST].mean() > max(0.4, 3 * error)

    assert all(np.array_equal(a, b) for a, b in zip(before, student.get_weights(), strict=True))


def test_apply_leaves_the_students_layers_alone(student):
    nodes = [(len(la.inbound_nodes), len(la.outbound_nodes)) for la in student.layers]
    quantized = quantization.apply(student, calibration=CALIBRATION)
    assert nodes == [(len(la.inbound_nodes), len(la.outbound_nodes)) for la in student.layers]
    assert quantized.name == student.name
    names = {la.name.removeprefix("quant_") for la in quantized.layers}
    assert {la.name for la in student.layers} <= names


def test_ranges_are_the_datas(student):
    quantized = quantization.apply(student, calibration=CALIBRATION)
    ranges = {weight.name: float(weight) for weight in quantized.weights if not weight.shape.rank}
    image = {name: value for name, value in ranges.items() if "quantize_layer" in name}
    assert sorted(value for name, value in image.items() if "step" not in name) == pytest.approx(
        [CALIBRATION.min(), CALIBRATION.max()]
    )
    taps = tf.keras.Model(student.input, [student.get_layer("stage1").output, student.output])
    stage, logits = (np.asarray(t) for t in taps(CALIBRATION))
    assert ranges["quant_stage1/output_min:0"] == 0
    assert ranges["quant_stage1/output_max:0"] == pytest.approx(stage.max(), rel=0.05)
    for end, value in (("min", logits.min()), ("max", logits.max())):
        assert ranges[f"quant_logits/post_activation_{end}:0"] == pytest.approx(value, rel=0.1)


def test_zeros_survive_distillation_only_if_asked(student):
    zeros = kernel_zeros(student)
    assert all(0.45 < z.mean() < 0.55 for z in zeros.values())
    targets = logits_of(student)
    for keep in (True, False):
        quantized = quantization.apply(student, calibration=CALIBRATION, keep_zeros=keep)
        start = [w.numpy().copy() for w in quantized.trainable_variables]
        fine_tune(quantized, targets)
        moved = [
            np.abs(a - b).max() for a, b in zip(start, quantized.trainable_variables, strict=True)
        ]
        assert min(moved) > 0
        finished = quantization.finish(quantized)
        kept = [np.all(kernel_zeros(finished)[name][z]) for name, z in zeros.items()]
        assert kept == [keep] * len(zeros)


def test_finish_save_and_load(student, tmp_path):
    quantized = quantization.apply(student, calibration=CALIBRATION)
    fine_tune(quantized, logits_of(student), steps=5)
    finished = quantization.finish(quantized)
    np.testing.assert_array_equal(logits_of(finished), logits_of(quantized))
    path = tmp_path / "student.h5"
    for _ in range(2):  # the second time it replaces the first
        quantization.save(finished, path)
    assert os.listdir(tmp_path) == ["student.h5"]
    loaded = quantization.load(path)
    np.testing.assert_allclose(logits_of(loaded), logits_of(finished), atol=1e-5)
    assert [la.name for la in loaded.layers] == [la.name for la in finished.layers]
    assert all(
        np.array_equal(kernel_zeros(loaded)[n], z) for n, z in kernel_zeros(finished).items()
    )
    accuracies = [
        np.mean(logits_of(model)[TEST].argmax(-1) == LABELS[TEST]) for model in (student, loaded)
    ]
    assert accuracies[1] > accuracies[0] - 0.02 > 0.5


def test_the_int8_file_predicts_as_the_model_does(student):
    quantized = quantization.apply(student, calibration=CALIBRATION)
    fine_tune(quantized, logits_of(student), steps=10)
    finished = quantization.finish(quantized)
    converter = tf.lite.TFLiteConverter.from_keras_model(finished)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=converter.convert())
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, (597, 8, 8, 1))
    interpreter.allocate_tensors()
    interpreter.set_tensor(index, IMAGES[TEST])
    interpreter.invoke()
    outputs = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    expected = logits_of(finished)[TEST]
    step = np.diff(np.unique(np.round(expected, 4))).min()  # of the output's 8 bits
    assert np.abs(outputs - expected).max() < 4.5 * step
    # The classes differ only where the model itself hardly decides between two of them.
    first, second = np.sort(expected, -1)[:, :-3:-1].T
    differ = outputs.argmax(-1) != expected.argmax(-1)
    assert np.all((first - second)[differ] < 4.5 * step)
    accuracies = [np.mean(z.argmax(-1) == LABELS[TEST]) for z in (outputs, expected)]
    assert abs(accuracies[0] - accuracies[1]) < 0.02


def test_checkpoint_of_a_quantized_student(student, tmp_path):
    """Resume: apply to the same student, then restore; ranges and zeros are there again."""
    quantized = quantization.apply(student, calibration=CALIBRATION)
    mimic = fine_tune(quantized, logits_of(student), steps=3)
    saved = tf.train.Checkpoint(mimic).write(str(tmp_path / "checkpoint"))
    again = Mimic(quantization.apply(student, calibration=CALIBRATION[:32]))
    again.compile(optimizer=tf.keras.optimizers.Adam(1e-3))
    tf.train.Checkpoint(again).restore(saved).expect_partial()
    np.testing.assert_array_equal(logits_of(again.student), logits_of(quantized))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("lenet4", (28, 28, 1)), ("resnet8", (8, 8, 3)), ("mlp-16-16", (8, 8, 1)), ("nin", (8, 8, 1))],
)
def test_networks(name, shape):
    tf.keras.utils.set_random_seed(1)
    model = models.build(name, classes=10, input_shape=shape)
    images = np.random.default_rng(0).normal(size=(64, *shape)).astype("float32")
    quantized = quantization.apply(model, calibration=images)
    expected = logits_of(model, images)
    assert np.abs(logits_of(quantized, images) - expected).mean() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("relu", [tf.keras.layers.ReLU, tf.keras.layers.Activation])
def test_a_bare_relu_layer_leaves_no_kernel_in_float(relu):
    """tfmot alone gives the kernels before these ReLU layers no range, and so loses their zeros."""
    layers = tf.keras.layers

    def activation(name):
        return relu(name=name) if relu is layers.ReLU else relu("relu", name=name)

    x = image = layers.Input((8, 8, 1), name="image")
    x = activation("relu1")(layers.Conv2D(4, 3, name="conv1")(x))
    x = activation("relu2")(layers.Dense(8, name="dense1")(layers.Flatten(name="flatten")(x)))
    model = tf.keras.Model(image, layers.Dense(3, name="logits")(x))
    quantized = quantization.apply(model, calibration=CALIBRATION)
    for name in ("conv1", "dense1", "logits"):
        weights = [w.name for w in quantized.get_layer(f"quant_{name}").weights]
        assert any("kernel_min" in weight for weight in weights)
    tap = tf.keras.Model(quantized.input, quantized.get_layer("quant_relu2").output)
    original = tf.keras.Model(model.input, model.get_layer("relu2").output)
    np.testing.assert_allclose(tap(IMAGES[:64]), original(IMAGES[:64]), atol=0.05)


class Double(tf.keras.layers.Layer):
    """A user's own layer, which is registered nowhere."""

    def call(self, x):
        return x * 2.0


def odd_network():
    """With layers that tfmot rejects, each for a reason of its own."""
    layers = tf.keras.layers
    tf.keras.utils.set_random_seed(1)
    x = image = layers.Input((8, 8, 1), name="image")
    a = layers.Conv2D(4, 3, padding="same", name="conv1")(x)
    b = layers.Conv2D(4, 3, padding="same", activation="elu", name="conv2")(x)
    x = layers.BatchNormalization(name="bn_after_add")(layers.Add(name="add")([a, b]))
    x = layers.Multiply(name="gate")([x, layers.PReLU(name="prelu")(x)])
    x = layers.ReLU(6.0, name="relu6")(layers.Conv2D(4, 3, name="conv3")(Double(name="double")(x)))
    nested = tf.keras.Sequential([layers.Flatten(input_shape=(6, 6, 4))], name="nested")
    return tf.keras.Model(image, layers.Dense(3, name="logits")(nested(x)), name="odd")


REJECTED = (
    "conv2 (Conv2D with activation elu), bn_after_add (BatchNormalization not directly after a "
    "linear convolution or dense layer), prelu (PReLU), gate (Multiply), double (Double), "
    "nested (a nested model)"
)
BEFORE_RELU6 = "conv3 (before a ReLU layer with a limit; put BatchNormalization between)"


@pytest.mark.parametrize("keep_zeros", [True, False])
def test_rejected_layers_are_left_in_float_and_listed(keep_zeros, tmp_path):
    model = odd_network()
    with pytest.warns(UserWarning, match="left in float") as caught:
        quantized = quantization.apply(model, calibration=CALIBRATION, keep_zeros=keep_zeros)
    ours = [str(w.message) for w in caught if "left in float" in str(w.message)]
    assert ours == [f"model 'odd': left in float are {REJECTED}, {BEFORE_RELU6}"]
    left = ["conv2", "bn_after_add", "prelu", "gate", "double", "conv3", "nested"]
    assert sorted(quantization.in_float(quantized)) == sorted(left)
    expected = logits_of(model)
    assert np.abs(logits_of(quantized) - expected).mean() < 0.05 * np.abs(expected).mean()
    finished = quantization.finish(quantized)
    np.testing.assert_array_equal(logits_of(finished), logits_of(quantized))
    if keep_zeros:
        quantization.save(finished, tmp_path / "odd.h5")
        with tf.keras.utils.custom_object_scope({"Double": Double}):
            loaded = quantization.load(tmp_path / "odd.h5")
        assert quantization.in_float(loaded) == quantization.in_float(quantized)


def test_strict_refuses_models_with_rejected_layers():
    with pytest.raises(InputError) as error:
        quantization.apply(odd_network(), calibration=CALIBRATION, strict=True)
    assert str(error.value) == (
        f"model 'odd' cannot be quantized because of {REJECTED}; "
        "replace these layers, or leave them in float with strict=False"
    )


def test_relu6_directly_after_a_kernel_is_refused_if_strict():
    """A silent float kernel would make the int8 file another model."""
    layers = tf.keras.layers
    image = layers.Input((8, 8, 1))
    x = layers.ReLU(6.0, name="relu6")(layers.Conv2D(4, 3, name="conv1")(image))
    model = tf.keras.Model(image, layers.Dense(3)(layers.Flatten()(x)))
    with pytest.raises(InputError, match=r"because of conv1 \(before a ReLU layer with a limit"):
        quantization.apply(model, calibration=CALIBRATION, strict=True)


def int8_shapes(model):
    """The shapes of what the exported file holds in int8."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=converter.convert())
    interpreter.allocate_tensors()
    details = interpreter.get_tensor_details()
    return {tuple(of["shape"]) for of in details if of["dtype"] is np.int8}


def test_layers_are_left_in_float_by_name(student, recwarn):
    names = ("conv1", "logits")
    quantized = quantization.apply(student, calibration=CALIBRATION, float_layers=names)
    # BatchNorm is folded into a quantized convolution, or left.
    assert quantization.in_float(quantized) == ["conv1", "bn1", "logits"]
    ours = [str(w.message) for w in recwarn if "left in float" in str(w.message)]
    assert [text.split("are ")[1] for text in ours] == ["bn1 (BatchNormalization after conv1)"]
    expected = logits_of(student)
    assert np.abs(logits_of(quantized) - expected)[TEST].mean() < 0.2
    shapes = int8_shapes(quantization.finish(quantized))
    assert (16, 3, 3, 8) in shapes  # of conv2
    assert not shapes & {(8, 3, 3, 1), (10, 16)}


def test_a_configuration_of_the_users_own(student):
    import tensorflow_model_optimization as tfmot

    library = tfmot.quantization.keras

    class FourBits(library.QuantizeConfig):
        """Weights in 4 bits, and no quantizer of the logits."""

        def get_weights_and_quantizers(self, layer):
            quantizer = library.quantizers.LastValueQuantizer(4, False, True, True)
            return [(layer.kernel, quantizer)]

        def get_activations_and_quantizers(self, layer):
            return []

        def set_quantize_weights(self, layer, quantize_weights):
            layer.kernel = quantize_weights[0]

        def set_quantize_activations(self, layer, quantize_activations):
            pass

        def get_output_quantizers(self, layer):
            return [library.quantizers.FixedQuantizer(8, -64.0, 64.0, False)] if fixed else []

        def get_config(self):
            return {}

    for fixed in (False, True):  # a fixed range has no variables to be seeded
        configs = {"logits": FourBits()}
        quantized = quantization.apply(student, calibration=CALIBRATION, configs=configs)
        assert quantization.in_float(quantized) == []
        outputs = logits_of(quantized)
        np.testing.assert_array_equal(logits_of(quantization.finish(quantized)), outputs)
        step = np.abs(student.get_layer("logits").kernel).max() / 7
        head = tf.keras.Model(quantized.input, quantized.layers[-1].input)(IMAGES)
        kernel = np.round(np.asarray(student.get_layer("logits").kernel) / step) * step
        expected = head @ kernel + np.asarray(student.get_layer("logits").bias)
        np.testing.assert_allclose(outputs, expected, atol=0.26 if fixed else 1e-3)
    with pytest.raises(InputError, match=r"configs\['logits'\] is 4; give a tfmot.quantization"):
        quantization.apply(student, calibration=CALIBRATION, configs={"logits": 4})


def test_layers_that_cannot_be_named(student):
    for options in ({"float_layers": ("conv9",)}, {"configs": {"conv9": None}}):
        message = rf"'conv9' in {next(iter(options))} is not in model .*; it has: .*logits$"
        with pytest.raises(InputError, match=message):
            quantization.apply(student, calibration=CALIBRATION, **options)
    every = [layer.name for layer in student.layers[1:]]
    with pytest.raises(InputError, match="has no layer to quantize: left in float are"):
        quantization.apply(student, calibration=CALIBRATION, float_layers=every)
    layers = tf.keras.layers
    image = layers.Input((8, 8, 1))
    x = layers.Lambda(lambda x: x + 1, name="shift")(layers.Flatten()(image))
    shifted = tf.keras.Model(image, layers.Dense(3)(x))
    with pytest.raises(InputError, match=r"'shift' of model .* make it a layer class$"):
        quantization.apply(shifted, calibration=CALIBRATION)


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (IMAGES[:8, :4], r"calibration of shape \(8, 4, 8, 1\).* of shape \(8, 8, 1\)$"),
        (IMAGES[0], r"calibration of shape \(8, 8, 1\)"),
        (IMAGES[:0], r"calibration of shape \(0, 8, 8, 1\)"),
        (DIGITS.images[:8, ..., None].astype("uint8"), r"type uint8 does not fit"),
        (np.full((4, 8, 8, 1), np.nan, "float32"), r"not finite; check the normalisation"),
    ],
)
def test_bad_calibration(student, calibration, message):
    with pytest.raises(InputError, match=message):
        quantization.apply(student, calibration=calibration)


def test_models_and_files_that_do_not_fit(student, tmp_path):
    with pytest.raises(InputError, match="only Functional and built Sequential"):
        quantization.apply(Mimic(student), calibration=CALIBRATION)
    for use in (quantization.finish, quantization.callbacks):
        with pytest.raises(InputError, match="is not quantization-aware; give one from apply"):
            use(student)
    with pytest.raises(InputError, match="is not quantization-aware"):
        quantization.save(student, tmp_path / "student.h5")
    with pytest.raises(InputError, match=r"must end in \.h5"):
        quantization.save(student, tmp_path / "student.keras")
    student.save(tmp_path / "plain.h5")
    with pytest.raises(InputError, match="is not quantization-aware"):
        quantization.load(tmp_path / "plain.h5")
    (tmp_path / "cut.h5").write_bytes((tmp_path / "plain.h5").read_bytes()[:5000])
    with pytest.raises(InputError, match=r"cut\.h5' cannot be loaded"):
        quantization.load(tmp_path / "cut.h5")
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        mixed = models.build("convnet-4-4", classes=3, input_shape=(8, 8, 1))
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    with pytest.raises(InputError, match="in mixed precision"):
        quantization.apply(mixed, calibration=CALIBRATION)


def test_layers_that_were_frozen_for_training_are_kept(student, tmp_path):
    quantized = quantization.apply(student, calibration=CALIBRATION)
    frozen = [layer for layer in quantized.layers if "bn" in layer.name]
    for layer in frozen:
        layer.trainable = False
    finished = quantization.finish(quantized)
    quantization.save(finished, tmp_path / "student.h5")
    for model in (finished, quantization.load(tmp_path / "student.h5")):
        np.testing.assert_allclose(logits_of(model), logits_of(quantized), atol=1e-6)
        assert not any(model.get_layer(layer.name).trainable for layer in frozen)
    assert not any(layer.trainable for layer in frozen)
