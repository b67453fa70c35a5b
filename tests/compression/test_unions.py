"""Prune, cluster, quantize: what the int8 file holds after each order."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from replicas import two_replicas

import kd_keras as kd
from kd_keras.compression import clustering, kernels, pruning, quantization
from kd_keras.compression.sensitivity import pruned_by_magnitude
from kd_keras.errors import InputError

pytestmark = pytest.mark.tf_keras

keras = tf.keras
IMAGES = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype("float32")
LABELS = np.arange(64) % 3
CLUSTERS = 6


def network(l2=0.0):
    """Two convolutions, of which the first has BatchNorm and ReLU, and two dense layers."""
    layers = keras.layers
    keras.utils.set_random_seed(1)
    decay = keras.regularizers.L2(l2) if l2 else None
    x = image = layers.Input((8, 8, 1), name="image")
    x = layers.Conv2D(8, 3, use_bias=False, kernel_regularizer=decay, name="conv1")(x)
    x = layers.ReLU(name="relu1")(layers.BatchNormalization(momentum=0.5, name="bn1")(x))
    x = layers.Conv2D(12, 3, activation="relu", kernel_regularizer=decay, name="conv2")(x)
    x = layers.Dense(16, "relu", kernel_regularizer=decay, name="dense")(layers.Flatten()(x))
    return keras.Model(image, layers.Dense(3, kernel_regularizer=decay, name="logits")(x))


def sparse(skip=(), l2=0.0):
    """As pruning leaves it: half of each kernel is zero."""
    model = network(l2)
    for layer in model.layers:
        if kernels.kernel_of(layer) is not None and layer.name not in skip:
            layer.kernel.assign(pruned_by_magnitude(layer.kernel.numpy(), 0.5))
    return model


def train(model, technique):
    """A few steps, one by one: much sooner done than tracing."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, run_eagerly=True)
    start = [weight.numpy().copy() for weight in model.trainable_variables]
    model.fit(IMAGES, LABELS, batch_size=16, verbose=0, callbacks=technique.callbacks(model))
    moved = [np.any(a != b.numpy()) for a, b in zip(start, model.trainable_variables, strict=True)]
    assert np.mean(moved) > 0.8
    return technique.finish(model)


def distil(student, callbacks, strategy=None):
    """Two epochs in a distiller, in the strategy's replicas."""
    with strategy.scope() if strategy else contextlib.nullcontext():
        methods = [kd.SoftTargets(weight=0.5)]
        distiller = kd.Distiller(student, network(), methods, label_weight=0.5)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        distiller.compile(keras.optimizers.Adam(0.01), loss)
    data = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(16)
    distiller.fit(data, epochs=2, verbose=0, callbacks=callbacks)


def clustered(student, **options):
    return train(clustering.apply(student, clusters=CLUSTERS, **options), clustering)


def quantized(student, **options):
    return train(quantization.apply(student, calibration=IMAGES, **options), quantization)


def int8_kernels(model):
    """The kernels in the exported file, (outputs, ..., inputs), by the user's layer name."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    interpreter = Interpreter(model_content=converter.convert())
    interpreter.allocate_tensors()
    wanted = {
        name: (kernel.T if kernel.ndim == 2 else kernel.transpose(3, 0, 1, 2)).shape
        for name, kernel in kernels.kernels(network()).items()
    }
    found = {}
    for details in interpreter.get_tensor_details():
        for name, shape in wanted.items():
            if tuple(details["shape"]) == shape and details["dtype"] is np.int8:
                values = interpreter.get_tensor(details["index"])
                scales = details["quantization_parameters"]["scales"]
                assert len(shape) == 4 or np.unique(scales).size == 1
                found[name] = values
    assert set(found) == set(wanted), "the file has not all kernels in int8"
    return found


def zeros_of(student):
    return {
        name: (kernel.T if kernel.ndim == 2 else kernel.transpose(3, 0, 1, 2)) == 0
        for name, kernel in kernels.kernels(student).items()
    }


def values_each(kernel):
    """The largest number of different values under one scale: of a filter, or a dense kernel."""
    return max(np.unique(part).size for part in (kernel if kernel.ndim == 4 else [kernel]))


def keeps_zeros(file, student):
    return all(np.all(file[name][zeros] == 0) for name, zeros in zeros_of(student).items())


def test_pqat():
    student = sparse()
    file = int8_kernels(quantized(student))
    assert all(0.45 < zeros.mean() < 0.55 for zeros in zeros_of(student).values())
    assert keeps_zeros(file, student)
    assert max(map(values_each, file.values())) > 4 * CLUSTERS


@pytest.mark.slow
def test_cqat():
    student = clustering.finish(clustering.apply(network(), clusters=CLUSTERS))
    file = int8_kernels(quantized(student, keep_clusters=True, keep_zeros=False))
    assert max(map(values_each, file.values())) <= CLUSTERS
    assert min(map(values_each, file.values())) > 2


def test_pcqat(tmp_path):
    """With L2, which moves kernels after the step that put them on their clusters."""
    start = sparse(l2=0.05)
    student = clustered(start)
    still = zeros_of(student)
    assert all(np.all(still[name][zeros]) for name, zeros in zeros_of(start).items())
    model = quantization.apply(student, calibration=IMAGES, keep_clusters=True)
    before = np.asarray(student(IMAGES))
    assert np.abs(np.asarray(model(IMAGES)) - before).mean() < 0.1 * np.abs(before).mean()
    finished = train(model, quantization)
    file = int8_kernels(finished)
    assert keeps_zeros(file, student)
    assert max(map(values_each, file.values())) <= CLUSTERS

    np.testing.assert_array_equal(finished(IMAGES), model(IMAGES))
    assert finished.count_params() < model.count_params()
    assert model.optimizer is not None
    assert getattr(finished, "optimizer", None) is None
    assert [la.name for la in finished.layers] == [la.name for la in model.layers]
    quantization.save(finished, tmp_path / "student.h5")
    loaded = quantization.load(tmp_path / "student.h5")
    np.testing.assert_allclose(loaded(IMAGES), finished(IMAGES), atol=1e-5)
    assert loaded.optimizer is None


@pytest.mark.slow
def test_pcqat_where_a_layer_has_no_zeros_and_one_is_not_clustered():
    """In tfmot's own scheme a layer without zeros ends the keeping of zeros in all others."""
    start = sparse(skip=("conv1",))
    model = clustering.apply(start, clusters=CLUSTERS, skip=("dense",))
    student = clustering.finish(model)
    assert not zeros_of(student)["conv1"].any()
    file = int8_kernels(quantized(student, keep_clusters=True))
    assert keeps_zeros(file, student)
    assert values_each(file["dense"]) > 4 * CLUSTERS
    assert all(values_each(file[name]) <= CLUSTERS for name in ("conv1", "conv2", "logits"))


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [1, 2])
def test_the_whole_chain_in_a_distiller(replicas):
    strategy = two_replicas() if replicas == 2 else tf.distribute.get_strategy()
    with strategy.scope():
        model = pruning.apply(network(), sparsity=0.5, end_step=4, frequency=1)
    distil(model, pruning.callbacks(model), strategy)
    start = pruning.finish(model)
    with strategy.scope():
        model = clustering.apply(start, clusters=CLUSTERS)
    distil(model, clustering.callbacks(model), strategy)
    student = clustering.finish(model)
    for name, kernel in kernels.kernels(student).items():
        assert np.unique(kernel).size <= CLUSTERS
        before = kernels.kernels(start)[name]
        assert 0.45 < np.mean(before == 0) < 0.55
        assert np.all(kernel[before == 0] == 0)
        assert set(kernel[kernel != 0]).isdisjoint(before[before != 0])  # centroids were trained
    with strategy.scope():
        model = quantization.apply(student, calibration=IMAGES, keep_clusters=True)
    distil(model, quantization.callbacks(model), strategy)
    finished = quantization.finish(model)
    file = int8_kernels(finished)
    assert keeps_zeros(file, student)
    assert max(map(values_each, file.values())) <= CLUSTERS


def test_orders_that_would_undo_an_earlier_one_are_refused():
    pruned = sparse()
    shared = clustering.finish(clustering.apply(network(), clusters=CLUSTERS))
    aware = quantization.finish(quantization.apply(network(), calibration=IMAGES))
    schedule = {"sparsity": 0.5, "end_step": 4}
    for use, message in (
        (lambda: pruning.apply(aware, **schedule), "quantization-aware, and pruning would undo it"),
        (lambda: clustering.apply(aware, clusters=4), "and clustering would undo it; prune, then"),
        (lambda: quantization.apply(aware, calibration=IMAGES), "quantization-aware, and quan"),
        (
            lambda: pruning.apply(shared, **schedule),
            r"is clustered \(layers conv1, conv2, dense, l",
        ),
        (lambda: clustering.apply(pruned, clusters=4, keep_zeros=False), "leave keep_zeros=True$"),
        (lambda: quantization.apply(shared, calibration=IMAGES), "give keep_clusters=True$"),
        (
            lambda: quantization.apply(pruned, calibration=IMAGES, keep_clusters=True),
            "has no clustered layer that keep_clusters could keep",
        ),
        (
            lambda: clustering.apply(pruning.apply(network(), **schedule), clusters=4),
            "is in training for pruning; call pruning.finish before clustering.apply",
        ),
        (
            lambda: quantization.apply(
                clustering.apply(network(), clusters=4), calibration=IMAGES, keep_clusters=True
            ),
            "in training for clustering; call clustering.finish before quantization.apply",
        ),
    ):
        with pytest.raises(InputError, match=message) as error:
            use()
        assert "\n" not in str(error.value)
