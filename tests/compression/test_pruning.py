import numpy as np
import pytest
import tensorflow as tf
from replicas import two_replicas

import tflite_export
from kd_keras import models
from kd_keras.compression import pruning
from kd_keras.errors import InputError

pytestmark = pytest.mark.tf_keras

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(64, 8, 8, 1)).astype("float32")
SCHEDULE = {"sparsity": 0.5, "begin_step": 2, "end_step": 10, "frequency": 4}


class Mimic(tf.keras.Model):
    """A distiller in little: its ``fit`` trains ``student`` towards the logits of a teacher."""

    def __init__(self, student, passes=1):
        super().__init__()
        self.student = student
        self.passes = passes

    def train_step(self, data):
        x, target = data
        with tf.GradientTape() as tape:
            outputs = [self.student(x, training=True) for _ in range(self.passes)]
            loss = tf.add_n([tf.reduce_mean((output - target) ** 2) for output in outputs])
        variables = self.student.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return {"loss": loss}

    def call(self, x, training=None):
        return self.student(x, training=training)


def convnet():
    tf.keras.utils.set_random_seed(1)
    return models.build("convnet-4-8", classes=3, input_shape=(8, 8, 1))


def fit(pruned, steps=12, passes=1, mimic=None, epochs=1, **compile_options):
    if mimic is None:
        mimic = Mimic(pruned, passes)
        mimic.compile(optimizer=tf.keras.optimizers.Adam(0.01), **compile_options)
    target = np.stack([IMAGES.mean((1, 2, 3)), IMAGES.std((1, 2, 3)), IMAGES[:, 0, 0, 0]], -1)
    data = tf.data.Dataset.from_tensor_slices((IMAGES, target)).batch(8).repeat()
    mimic.fit(data, epochs=epochs, steps_per_epoch=steps, verbose=0,
              callbacks=pruning.callbacks(pruned))  # fmt: skip
    return mimic


def kernels(model):
    return {
        layer.name: np.asarray(layer.kernel)
        for layer in model.layers
        if hasattr(layer, "kernel") and "bn" not in layer.name
    }


def share_of_zeros(kernel):
    return np.mean(kernel == 0)


def step_of(pruned):
    return {int(la.pruning_step.numpy()) for la in pruned.layers if hasattr(la, "pruning_step")}


def test_a_distiller_prunes_and_finish_gives_a_plain_model():
    student = convnet()
    before = [w.copy() for w in student.get_weights()]
    pruned = pruning.apply(student, **SCHEDULE)
    np.testing.assert_array_equal(pruned(IMAGES), student(IMAGES))
    fit(pruned)
    finished = pruning.finish(pruned)

    # The user's model is as it was, and shares nothing with what was trained.
    assert all(np.array_equal(a, b) for a, b in zip(before, student.get_weights(), strict=True))
    for layer in student.layers:
        assert len(layer.inbound_nodes) == 1
        assert layer.output is not None

    assert finished.name == student.name
    assert [la.name for la in finished.layers] == [la.name for la in student.layers]
    assert [type(la) for la in finished.layers] == [type(la) for la in student.layers]
    for name, kernel in kernels(finished).items():
        assert share_of_zeros(kernel) == pytest.approx(0.5, abs=0.5 / kernel.size + 1e-9), name
        assert not np.array_equal(kernel, kernels(student)[name])  # trained
    np.testing.assert_allclose(finished(IMAGES), pruned(IMAGES), atol=1e-6)
    assert models.taps(finished) == models.taps(student)


def test_skipped_layers_and_other_weights_stay_dense():
    pruned = pruning.apply(convnet(), **SCHEDULE, skip=("logits", "conv1"))
    fit(pruned)
    finished = pruning.finish(pruned)
    zeros = {name: share_of_zeros(kernel) for name, kernel in kernels(finished).items()}
    assert zeros["conv2"] == 0.5
    assert zeros["logits"] == zeros["conv1"] == 0
    assert share_of_zeros(finished.get_layer("bn1").get_weights()[0]) == 0


@pytest.mark.parametrize("begin_end", [(0, 10), (3, 10), (1, 2)])
def test_the_target_is_reached_whatever_the_frequency(begin_end):
    """Without shifting the schedule tfmot's last pruning is before ``end_step``, short of it."""
    begin, end = begin_end
    pruned = pruning.apply(convnet(), sparsity=0.75, begin_step=begin, end_step=end, frequency=4)
    fit(pruned, steps=10)
    assert share_of_zeros(kernels(pruning.finish(pruned))["conv2"]) == 0.75


def test_initial_sparsity_and_growth():
    pruned = pruning.apply(
        convnet(), sparsity=0.8, initial_sparsity=0.4, begin_step=1, end_step=9, frequency=1
    )
    mimic = fit(pruned, steps=1)
    mask = next(la for la in pruned.layers if la.name.endswith("conv2")).pruning_vars[0][1]
    assert np.mean(mask.numpy() == 0) == pytest.approx(0.4, abs=0.01)
    fit(pruned, steps=4, mimic=mimic)  # step 5, half way: 0.8 - 0.4 / 8
    assert np.mean(mask.numpy() == 0) == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize(
    ("passes", "steps_per_execution"),
    [(1, 1), (2, 5), *(pytest.param(*n, marks=pytest.mark.slow) for n in ((1, 5), (2, 1)))],
)
def test_steps_are_the_optimizers(steps_per_execution, passes):
    pruned = pruning.apply(convnet(), **SCHEDULE)
    mimic = fit(pruned, steps=10, passes=passes, steps_per_execution=steps_per_execution)
    assert step_of(pruned) == {10} == {int(mimic.optimizer.iterations.numpy())}
    fit(pruned, steps=5, mimic=mimic)  # a second fit goes on counting
    assert step_of(pruned) == {15}
    assert share_of_zeros(kernels(pruning.finish(pruned))["conv2"]) == 0.5


def test_resumed_training_equals_an_uninterrupted_one(tmp_path):
    def fresh():
        pruned = pruning.apply(convnet(), **SCHEDULE)
        mimic = Mimic(pruned)
        mimic.compile(optimizer=tf.keras.optimizers.Adam(0.01))
        mimic.optimizer.build(pruned.trainable_variables)
        return pruned, mimic

    pruned, mimic = fresh()
    fit(pruned, steps=8, epochs=2, mimic=mimic)
    whole = pruning.finish(pruned)

    pruned, mimic = fresh()
    fit(pruned, steps=8, mimic=mimic)
    saved = tf.train.Checkpoint(mimic).write(str(tmp_path / "checkpoint"))
    pruned, mimic = fresh()
    tf.train.Checkpoint(mimic).restore(saved)
    fit(pruned, steps=8, mimic=mimic)
    assert step_of(pruned) == {16}
    resumed = pruning.finish(pruned)
    for name, kernel in kernels(whole).items():
        np.testing.assert_allclose(kernels(resumed)[name], kernel, atol=1e-6)
        np.testing.assert_array_equal(kernels(resumed)[name] == 0, kernel == 0)


def test_step_comes_from_a_restored_optimizer():
    pruned = pruning.apply(convnet(), **SCHEDULE)
    mimic = Mimic(pruned)
    mimic.compile(optimizer="sgd")
    mimic.optimizer.iterations.assign(7)
    fit(pruned, steps=3, mimic=mimic)
    assert step_of(pruned) == {10}


def test_weights_are_sparse_after_each_epoch():
    pruned = pruning.apply(convnet(), **SCHEDULE)
    fit(pruned, steps=11)  # one update after the last mask: momentum would move pruned weights
    inner = next(la for la in pruned.layers if la.name.endswith("conv2")).layer
    assert share_of_zeros(inner.kernel.numpy()) == 0.5


def test_nested_and_sequential_models():
    layers = tf.keras.layers
    inner = tf.keras.Sequential([layers.Dense(8, name="a", input_shape=(4,))], name="inner")
    image = layers.Input((8, 8, 1))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="c")(image))
    student = tf.keras.Model(image, layers.Dense(3, name="b")(inner(x)))
    pruned = pruning.apply(student, **SCHEDULE)
    np.testing.assert_allclose(pruned(IMAGES), student(IMAGES), atol=1e-6)
    fit(pruned)
    finished = pruning.finish(pruned)
    for kernel in (
        finished.get_layer("inner").get_layer("a").kernel,
        finished.get_layer("c").kernel,
    ):
        assert share_of_zeros(kernel.numpy()) == 0.5
    assert share_of_zeros(inner.get_layer("a").kernel.numpy()) == 0


def test_two_replicas():
    strategy = two_replicas()
    with strategy.scope():
        pruned = pruning.apply(convnet(), **SCHEDULE)
        mimic = Mimic(pruned)
        mimic.compile(optimizer=tf.keras.optimizers.SGD(0.01))
    fit(pruned, mimic=mimic)
    assert step_of(pruned) == {12}
    assert share_of_zeros(kernels(pruning.finish(pruned))["conv2"]) == 0.5


def eager_fit(pruned, steps):
    """A few steps, one by one: much sooner done than tracing."""
    mimic = Mimic(pruned)
    mimic.compile(optimizer=tf.keras.optimizers.SGD(0.01), run_eagerly=True)
    return fit(pruned, steps, mimic=mimic)


def finished_zeros(steps=4, **options):
    pruned = pruning.apply(convnet(), **options)
    eager_fit(pruned, steps)
    return {name: kernel == 0 for name, kernel in kernels(pruning.finish(pruned)).items()}


def test_targets_of_single_layers():
    zeros = finished_zeros(
        sparsity=0.75,
        end_step=3,
        frequency=1,
        initial_sparsity=0.5,
        per_layer={"conv1": 0.25, "logits": 0.0},
    )
    shares = {name: np.mean(of) for name, of in zeros.items()}
    assert shares == {"conv1": 0.25, "conv2": 0.75, "logits": 0.0}


def test_a_constant_schedule_has_its_zeros_at_once_and_chooses_anew():
    pruned = pruning.apply(
        convnet(), sparsity=0.5, schedule="constant", end_step=9, frequency=4
    )  # chosen at steps 1, 5 and 9
    mask = next(la for la in pruned.layers if la.name.endswith("conv2")).pruning_vars[0][1]
    mimic = eager_fit(pruned, 1)
    first = mask.numpy().copy()
    assert share_of_zeros(first) == 0.5
    weight = next(la for la in pruned.layers if la.name.endswith("conv2")).layer.kernel
    weight.assign(np.random.default_rng(5).normal(size=weight.shape))
    fit(pruned, 3, mimic=mimic)
    np.testing.assert_array_equal(mask, first)
    weight.assign(np.random.default_rng(5).normal(size=weight.shape))
    fit(pruned, 1, mimic=mimic)
    assert share_of_zeros(mask.numpy()) == 0.5
    assert np.any(mask.numpy() != first)


def test_two_of_four_input_channels():
    pruned = pruning.apply(convnet(), pattern="2:4")
    before = kernels(convnet())
    mimic = Mimic(pruned)
    mimic.compile(optimizer=tf.keras.optimizers.SGD(0.0), run_eagerly=True)
    fit(pruned, 2, mimic=mimic)
    after = kernels(pruning.finish(pruned))
    np.testing.assert_array_equal(after["conv1"], before["conv1"])  # of one input channel
    for name in ("conv2", "logits"):
        # The oracle: of four consecutive inputs of a filter at a place, the two largest are left.
        groups = np.moveaxis(before[name], -2, -1).reshape(-1, 4)
        expected = np.zeros_like(groups)
        for row, group in zip(expected, groups, strict=True):
            largest = np.argsort(np.abs(group))[2:]
            row[largest] = group[largest]
        found = np.moveaxis(after[name], -2, -1).reshape(-1, 4)
        np.testing.assert_allclose(found, expected, atol=1e-7)


def test_two_of_four_needs_the_first_step():
    pruned = pruning.apply(convnet(), pattern="2:4")
    mimic = Mimic(pruned)
    mimic.compile(optimizer=tf.keras.optimizers.SGD(0.0), run_eagerly=True)
    mimic.optimizer.iterations.assign(3)
    fit(pruned, 1, mimic=mimic)
    with pytest.raises(InputError, match="has no zeros: the pattern 2:4 is made at training step"):
        pruning.finish(pruned)


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_blocks_of_dense_kernels(pooling):
    layers = tf.keras.layers
    image = layers.Input((8, 8, 1))
    x = layers.Dense(16, name="wide")(layers.Flatten()(image))
    student = tf.keras.Model(image, layers.Dense(3, name="logits")(x))
    kernel = np.random.default_rng(0).normal(size=(64, 16)).astype("float32")
    student.get_layer("wide").kernel.assign(kernel)
    pruned = pruning.apply(
        student, sparsity=0.5, end_step=1, block_size=(1, 4), block_pooling=pooling,
        skip=("logits",),
    )  # fmt: skip
    eager_fit(pruned, 1)
    blocks = np.abs(kernel).reshape(64, 4, 4)
    sizes = blocks.mean(-1) if pooling == "avg" else blocks.max(-1)
    expected = np.repeat(sizes < np.sort(sizes.ravel())[sizes.size // 2], 4, axis=1)
    np.testing.assert_array_equal(kernels(pruning.finish(pruned))["wide"] == 0, expected)


def test_xnnpack():
    layers = tf.keras.layers

    def student(last):
        x = image = layers.Input((16, 16, 3))
        x = layers.Conv2D(4, 3, 2, name="stem")(layers.ZeroPadding2D(1)(x))
        x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(layers.ReLU()(x))
        x = last(layers.Conv2D(8, 1, name="pointwise")(x))
        return tf.keras.Model(image, layers.Dense(3, name="logits")(layers.Flatten()(x)))

    fits = student(layers.GlobalAveragePooling2D(keepdims=True))
    pruned = pruning.apply(fits, sparsity=0.5, end_step=4, policy="xnnpack")
    wrapped = [la.layer.name for la in pruned.layers if hasattr(la, "pruning_step")]
    assert wrapped == ["pointwise"]
    with pytest.raises(
        InputError, match=r"'xnnpack' \(Could not find .* in GlobalAverage"
    ) as error:
        pruning.apply(student(layers.MaxPooling2D()), sparsity=0.5, end_step=4, policy="xnnpack")
    assert "\n" not in str(error.value)


def test_a_users_wrapper_is_not_taken_off():
    layers = tf.keras.layers
    image = layers.Input((8, 8))
    x = layers.TimeDistributed(layers.Dense(4), name="each")(image)
    student = tf.keras.Model(image, layers.Dense(3, name="logits")(layers.Flatten()(x)))
    pruned = pruning.apply(student, sparsity=0.5, end_step=1)
    mimic = Mimic(pruned)
    mimic.compile(optimizer="sgd", run_eagerly=True)
    mimic.fit(IMAGES[:8, ..., 0], np.zeros((8, 3)), verbose=0,
              callbacks=pruning.callbacks(pruned))  # fmt: skip
    assert type(pruning.finish(pruned).get_layer("each")) is layers.TimeDistributed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": "cubic"}, r"schedule 'cubic' is not known; give 'polynomial' or 'constant'"),
        ({"sparsity": None}, r"sparsity and end_step are missing"),
        ({"end_step": None}, r"sparsity and end_step are missing"),
        ({"per_layer": {"conv9": 0.5}}, r"'conv9' in per_layer is not in model .*: conv1, conv2,"),
        ({"per_layer": {"bn1": 0.5}}, r"'bn1' in per_layer cannot be changed; it can prune: conv1"),
        ({"per_layer": {"conv1": 1.5}}, r"sparsity 1.5 is not possible"),
        (
            {"per_layer": {"conv1": 0.5}, "skip": ("conv1",)},
            r"'conv1' is in per_layer and in skip; name it in one",
        ),
        ({"block_size": (1, 0)}, r"block_size \(1, 0\) is not possible; give two numbers"),
        ({"block_pooling": "min"}, r"block_pooling 'min' is not possible; give 'avg' or 'max'"),
        ({"block_size": (1, 4)}, r"layers conv1, conv2 cannot be pruned in blocks, which only"),
        (
            {"block_size": (1, 4), "skip": ("conv1", "conv2")},
            r"layers logits are too small for blocks of \(1, 4\)",
        ),
        ({"pattern": "1:4"}, r"pattern '1:4' is not known; give '2:4'"),
        ({"pattern": "2:4"}, r"leave sparsity, end_step and per_layer out"),
        ({"pattern": "2:4", "block_size": (2, 2)}, r"\(2, 2\) and pattern '2:4' exclude each"),
        ({"policy": "gpu"}, r"policy 'gpu' is not known; give 'xnnpack'"),
        ({"policy": "xnnpack"}, r"does not fit policy 'xnnpack' .*; or prune it without a policy$"),
    ],
)
def test_bad_options(change, message):
    with pytest.raises(InputError, match=message) as error:
        pruning.apply(convnet(), **{**SCHEDULE, **change})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sparsity": 1.0}, r"sparsity 1.0 is not possible; give a share of zeros in \[0, 1\)"),
        ({"sparsity": -0.1}, r"sparsity -0.1 is not possible"),
        ({"sparsity": float("nan")}, r"sparsity nan is not possible"),
        ({"initial_sparsity": 0.6}, r"initial_sparsity 0.6 is not possible; .* to sparsity, 0.5"),
        ({"begin_step": -1}, r"begin_step -1 is not possible"),
        ({"end_step": 2}, r"end_step 2 must come after begin_step, 2"),
        ({"frequency": 0}, r"frequency 0 is not possible"),
        ({"training_steps": 9}, r"ends at step 10, the training at 9; give an earlier end_step"),
        ({"skip": ("conv9",)}, r"'conv9' in skip is not in model .* prune: conv1, conv2, logits$"),
        ({"skip": ("conv1", "conv2", "logits")}, r"has no layer to prune"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(InputError, match=message) as error:
        pruning.apply(convnet(), **{**SCHEDULE, **change})
    assert "\n" not in str(error.value)


def test_models_that_cannot_be_pruned():
    with pytest.raises(InputError, match="only Functional and built Sequential models"):
        pruning.apply(Mimic(convnet()), **SCHEDULE)
    with pytest.raises(InputError, match="is not being pruned; give the one from apply"):
        pruning.callbacks(convnet())
    pruned = pruning.apply(convnet(), **SCHEDULE)
    with pytest.raises(InputError, match="trained to step 0 of 10; train it on"):
        pruning.finish(pruned)
    fit(pruned, steps=9)
    with pytest.raises(InputError, match="trained to step 9 of 10"):
        pruning.finish(pruned)


def test_a_channel_without_varying_input_survives_int8(tmp_path):
    """A filter that reads nothing but a pruned one's constant: BatchNorm's gain on it is huge."""
    tf.keras.utils.set_random_seed(3)
    student = models.build("convnet-4-4", classes=3, input_shape=(8, 8, 1))
    first, second = (student.get_layer(f"{kind}") for kind in ("conv1", "conv2"))
    kernel = first.kernel.numpy()
    kernel[..., 0] = 0.0
    first.kernel.assign(kernel)
    constant, weight = 0.178, 1.2
    norm = student.get_layer("bn1")
    norm.beta.assign([constant, 0.1, 0.2, 0.3])
    norm.moving_variance.assign([1e-14, 1.0, 1.0, 1.0])
    norm.moving_mean.assign([0.0] * 4)
    kernel = second.kernel.numpy()
    kernel[..., 0] = 0.0
    kernel[1, 1, 0, 0] = weight
    second.kernel.assign(kernel)
    norm = student.get_layer("bn2")
    norm.gamma.assign([2.4, 1.0, 1.0, 1.0])
    norm.beta.assign([0.5, 0.1, 0.1, 0.1])
    norm.moving_variance.assign([1e-10, 1.0, 1.0, 1.0])
    norm.moving_mean.assign([weight * constant, 0.0, 0.0, 0.0])

    pruned = pruning.apply(student, sparsity=0.0, begin_step=0, end_step=1)
    for layer in pruned.layers:
        if hasattr(layer, "pruning_step"):
            layer.pruning_step.assign(1)
    finished = pruning.finish(pruned)

    np.testing.assert_array_equal(finished.get_layer("bn2").gamma, [0.0, 1.0, 1.0, 1.0])
    expected = student.predict(IMAGES, verbose=0)
    np.testing.assert_allclose(finished.predict(IMAGES, verbose=0), expected, atol=1e-3)
    path = tmp_path / "pruned.tflite"
    tflite_export.convert(finished, path, "int8", representative=IMAGES)
    found = tflite_export.TFLiteModel(path).predict(IMAGES, progress=False)
    np.testing.assert_allclose(found, expected, atol=0.1)
