import numpy as np
import pytest
import tensorflow as tf
from replicas import two_replicas

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


@pytest.mark.parametrize("steps_per_execution", [1, 5])
@pytest.mark.parametrize("passes", [1, 2])
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
