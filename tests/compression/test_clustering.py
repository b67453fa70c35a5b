import numpy as np
import pytest
import tensorflow as tf

from kd_keras import models
from kd_keras.compression import clustering
from kd_keras.errors import InputError
from kd_keras.taps import find_layer

pytestmark = pytest.mark.tf_keras

IMAGES = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype("float32")
LABELS = np.arange(64) % 3


def convnet():
    tf.keras.utils.set_random_seed(1)
    return models.build("convnet-4-8", classes=3, input_shape=(8, 8, 1))


def kernels(model):
    return {name: np.asarray(model.get_layer(name).kernel) for name in ("conv1", "conv2", "logits")}


def distinct(model):
    return {name: np.unique(kernel).size for name, kernel in kernels(model).items()}


def fit(clustered, epochs=1):
    """A few steps, one by one: much sooner done than tracing."""
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    clustered.compile(tf.keras.optimizers.Adam(0.01), loss, run_eagerly=True)
    clustered.fit(IMAGES, LABELS, batch_size=16, epochs=epochs, verbose=0,
                  callbacks=clustering.callbacks(clustered))  # fmt: skip


def test_the_finished_model_is_plain_clustered_and_trained():
    student = convnet()
    before = [w.copy() for w in student.get_weights()]
    clustered = clustering.apply(student, clusters=6, per_layer={"conv1": 3})
    start = distinct(clustering.finish(clustered))
    assert start == {"conv1": 3, "conv2": 6, "logits": 6}
    fit(clustered)
    finished = clustering.finish(clustered)
    np.testing.assert_allclose(finished(IMAGES), clustered(IMAGES), atol=1e-6)
    assert all(count <= start[name] for name, count in distinct(finished).items())
    assert min(distinct(finished).values()) > 1
    untrained = clustering.finish(clustering.apply(student, clusters=6))
    assert set(np.unique(kernels(finished)["conv2"])).isdisjoint(
        np.unique(kernels(untrained)["conv2"])
    )

    # The user's model is as it was, and shares nothing with what was trained.
    assert all(np.array_equal(a, b) for a, b in zip(before, student.get_weights(), strict=True))
    assert [len(la.inbound_nodes) for la in student.layers] == [1] * len(student.layers)
    assert finished.name == student.name
    assert [la.name for la in finished.layers] == [la.name for la in student.layers]
    assert [type(la) for la in finished.layers] == [type(la) for la in student.layers]
    assert models.taps(finished) == models.taps(student)
    assert getattr(finished, "optimizer", None) is None
    assert find_layer(clustered, "conv2").name == "cluster_conv2"


def test_each_weight_is_the_nearest_centroid():
    """The oracle: linear centroids over the kernel's values."""
    student = convnet()
    clustered = clustering.apply(student, clusters=5, initialization="linear")
    for name, kernel in kernels(student).items():
        centroids = np.linspace(kernel.min(), kernel.max(), 5)
        expected = centroids[np.abs(kernel[..., None] - centroids).argmin(-1)]
        found = kernels(clustering.finish(clustered))[name]
        np.testing.assert_allclose(found, expected, atol=1e-5)
    # A fresh model predicts as the finished one does: at once, and with the student's weights.
    np.testing.assert_allclose(clustered(IMAGES), clustering.finish(clustered)(IMAGES), atol=1e-6)


@pytest.mark.parametrize("initialization", ["kmeans++", "density"])
def test_other_initializations_follow_the_weights(initialization):
    student = convnet()
    finished = clustering.finish(
        clustering.apply(student, clusters=16, initialization=initialization)
    )
    kernel = kernels(student)["conv2"]
    error = np.abs(kernels(finished)["conv2"] - kernel).mean()
    assert error < 0.1 * np.abs(kernel).mean()


@pytest.mark.parametrize("keep_zeros", [True, False])
def test_few_zeros_stay_only_if_asked(keep_zeros):
    student = convnet()
    kernel = kernels(student)["conv2"].copy()
    zeros = np.zeros(kernel.shape, bool)
    zeros[0, 0, :, 0] = True  # too few for a pruned kernel, which would be refused
    kernel[zeros] = 0
    student.get_layer("conv2").kernel.assign(kernel)
    clustered = clustering.apply(student, clusters=4, keep_zeros=keep_zeros, skip=("logits",))
    fit(clustered)
    found = kernels(clustering.finish(clustered))
    assert np.all(found["conv2"][zeros] == 0) == keep_zeros
    assert np.any(found["conv2"] != 0)
    assert np.unique(found["logits"]).size == found["logits"].size


def test_kernels_of_few_values():
    """tfmot fails where there are more centroids than values."""
    student = convnet()
    student.get_layer("conv1").kernel.assign(np.zeros((3, 3, 1, 4)))
    values = np.zeros((3, 3, 4, 8))
    values[0], values[1] = 0.5, -0.25
    student.get_layer("conv2").kernel.assign(values)
    found = kernels(clustering.finish(clustering.apply(student, clusters=256)))
    assert not found["conv1"].any()
    np.testing.assert_allclose(found["conv2"], values)
    np.testing.assert_allclose(found["logits"], kernels(student)["logits"], atol=0.2)


def test_nested_models_and_separable_convolutions():
    layers = tf.keras.layers
    inner = tf.keras.Sequential([layers.Dense(8, name="a", input_shape=(4,))], name="inner")
    image = layers.Input((8, 8, 1))
    x = layers.SeparableConv2D(4, 3, depth_multiplier=4, name="c")(image)
    student = tf.keras.Model(image, inner(layers.GlobalAveragePooling2D()(x)))
    clustered = clustering.apply(student, clusters=4)
    fit(clustered)
    finished = clustering.finish(clustered)
    assert np.unique(finished.get_layer("inner").get_layer("a").kernel).size <= 4
    assert np.unique(finished.get_layer("c").pointwise_kernel).size <= 4
    assert np.unique(finished.get_layer("c").depthwise_kernel).size == 36
    assert np.unique(inner.get_layer("a").kernel).size == 32


def test_resumed_training_equals_an_uninterrupted_one(tmp_path):
    def fresh():
        clustered = clustering.apply(convnet(), clusters=4)
        clustered.compile(tf.keras.optimizers.Adam(0.01), "mse", run_eagerly=True)
        clustered.optimizer.build(clustered.trainable_variables)
        return clustered

    def epoch(model):
        model.fit(IMAGES, np.eye(3)[LABELS], batch_size=16, shuffle=False, verbose=0)

    whole = fresh()
    epoch(whole)
    saved = tf.train.Checkpoint(whole).write(str(tmp_path / "checkpoint"))
    epoch(whole)
    resumed = fresh()
    tf.train.Checkpoint(resumed).restore(saved)
    epoch(resumed)
    for name, kernel in kernels(clustering.finish(whole)).items():
        np.testing.assert_allclose(kernels(clustering.finish(resumed))[name], kernel, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clusters": 1}, r"clusters 1 is not possible; give 2 to 256 values a kernel"),
        ({"clusters": 257}, r"clusters 257 is not possible"),
        ({"clusters": 4.0}, r"clusters 4.0 is not possible; give a whole number"),
        ({"per_layer": {"conv1": 1}}, r"per_layer\['conv1'\] 1 is not possible"),
        ({"per_layer": {"bn1": 4}}, r"'bn1' in per_layer cannot be changed; it can cluster: conv1"),
        (
            {"skip": ("conv9",)},
            r"'conv9' in skip is not in model .* cluster: conv1, conv2, logits$",
        ),
        ({"skip": ("conv1", "conv2", "logits")}, r"has no layer to cluster; convolution and dense"),
        ({"initialization": "random"}, r"'random' is not known; give one of kmeans.., linear, den"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(InputError, match=message) as error:
        clustering.apply(convnet(), **{"clusters": 8, **change})
    assert "\n" not in str(error.value)


def test_models_that_cannot_be_clustered():
    for use in (clustering.finish, clustering.callbacks):
        with pytest.raises(InputError, match="is not being clustered; give the one from apply"):
            use(convnet())
    frozen = convnet()
    frozen.get_layer("conv2").trainable = False
    with pytest.raises(InputError, match=r"layers conv2 are frozen, .* or name them in skip"):
        clustering.apply(frozen, clusters=4)
    pruned = convnet()
    pruned.get_layer("conv2").kernel.assign(np.eye(8)[:4] * np.ones((3, 3, 1, 1)))
    with pytest.raises(InputError, match="clusters 2 is not possible for conv2, where zeros are"):
        clustering.apply(pruned, clusters=2)
