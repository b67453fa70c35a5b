"""Every technique under every distiller: it trains, hints find their layers, and it ends well."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from replicas import two_replicas

import kd_keras as kd
from kd_keras.compression import (
    clustering,
    filter_pruning,
    kernels,
    low_rank,
    pruning,
    quantization,
)

pytestmark = pytest.mark.tf_keras
SLOW = pytest.mark.slow

keras = tf.keras
IMAGES = np.random.default_rng(0).normal(size=(32, 8, 8, 1)).astype("float32")
LABELS = np.arange(32) % 3
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

#: Each technique with its arguments; what it leaves behind is asked of the finished kernels.
TECHNIQUES = {
    "filter_pruning": (filter_pruning, {"keep": 0.5}),
    "low_rank": (low_rank, {"ranks": {"conv2": 3, "features": 4}}),
    "pruning": (pruning, {"sparsity": 0.5, "end_step": 2, "frequency": 1}),
    "clustering": (clustering, {"clusters": 6}),
    "quantization": (quantization, {"calibration": IMAGES}),
}
HINT = kd.Hint(teacher_layer="features", student_layer="features")


def network(width: int, seed: int = 0) -> keras.Model:
    layers = keras.layers
    keras.utils.set_random_seed(seed)
    x = image = layers.Input((8, 8, 1), name="image")
    x = layers.Conv2D(width, 3, use_bias=False, name="conv1")(x)
    x = layers.ReLU(name="relu1")(layers.BatchNormalization(name="bn1")(x))
    x = layers.Conv2D(2 * width, 3, activation="relu", name="conv2")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dense(16, "relu", name="features")(x)
    return keras.Model(image, layers.Dense(3, name="logits")(x))


def soft(student: keras.Model) -> kd.Distiller:
    return kd.Distiller(student, network(8), [kd.SoftTargets()], label_weight=0.1)


def hinted(student: keras.Model) -> kd.Distiller:
    return kd.Distiller(student, network(8), [HINT, kd.LogitsL2()], label_weight=0.0)


def adversarial(student: keras.Model) -> kd.Distiller:
    layers = {"teacher_layer": "features", "student_layer": "features"}
    return kd.AdversarialDistiller(student, network(8), **layers, label_weight=0.1)


def conditional(student: keras.Model) -> kd.Distiller:
    return kd.ConditionalAdversarialDistiller(student, network(8), label_weight=0.1)


def of_an_ensemble(student: keras.Model) -> kd.Distiller:
    both = kd.Ensemble({"one": network(8), "other": network(8, seed=2)}, mean="arithmetic")
    return kd.Distiller(student, both, [kd.SoftTargets()], label_weight=0.1)


def applied(technique: str) -> keras.Model:
    module, arguments = TECHNIQUES[technique]
    return module.apply(network(4, seed=1), **arguments)


def compiled(
    distiller: kd.Distiller,
    optimizer: Callable = lambda: keras.optimizers.Adam(0.01),
    **options: object,
) -> kd.Distiller:
    if hasattr(distiller, "discriminator"):
        options["discriminator_optimizer"] = optimizer()
    distiller.compile(optimizer(), LOSS, **options)
    return distiller


def require_trained(technique: str, changed: keras.Model, start: list[np.ndarray]) -> None:
    """All kernels moved, and what the technique promises holds."""
    module, _ = TECHNIQUES[technique]
    moved = [
        np.any(a != b.numpy()) for a, b in zip(start, changed.trainable_variables, strict=True)
    ]
    assert np.mean(moved) > 0.8
    finished = module.finish(changed)
    assert np.isfinite(finished.predict(IMAGES, verbose=0)).all()
    found = kernels.kernels(finished)
    if technique == "pruning":
        assert all(np.mean(kernel == 0) >= 0.5 for kernel in found.values())
    if technique == "clustering":
        assert all(len(np.unique(kernel)) <= 6 for kernel in found.values())


@pytest.mark.parametrize(
    "distiller",
    [
        hinted,
        *(pytest.param(kind, marks=SLOW) for kind in (soft, adversarial)),
        *(pytest.param(kind, marks=SLOW) for kind in (conditional, of_an_ensemble)),
    ],
)
@pytest.mark.parametrize("technique", TECHNIQUES)
def test_technique_under_distiller(technique: str, distiller: Callable) -> None:
    changed = applied(technique)
    start = [weight.numpy().copy() for weight in changed.trainable_variables]
    # One by one is much sooner done than tracing.
    taught = compiled(distiller(changed), run_eagerly=True)
    callbacks = TECHNIQUES[technique][0].callbacks(changed)
    taught.fit(IMAGES, LABELS, batch_size=8, epochs=1, verbose=0, callbacks=callbacks)
    require_trained(technique, changed, start)


@pytest.mark.parametrize(
    "technique",
    [
        *("pruning", "quantization"),
        *(pytest.param(t, marks=SLOW) for t in ("filter_pruning", "low_rank", "clustering")),
    ],
)
def test_technique_under_a_cached_teacher(technique: str, tmp_path) -> None:
    views = kd.data.Views(
        IMAGES, LABELS, count=1, normalization=kd.data.Normalization((0.0,), (1.0,))
    )
    cached = kd.teachers.cache(network(8), views, tmp_path, layers=["features"])
    changed = applied(technique)
    start = [weight.numpy().copy() for weight in changed.trainable_variables]
    methods = [HINT, kd.SoftTargets()]
    taught = compiled(kd.Distiller(changed, cached, methods, 0.1), run_eagerly=True)
    callbacks = TECHNIQUES[technique][0].callbacks(changed)
    taught.fit(views, batch_size=8, epochs=1, verbose=0, callbacks=callbacks)
    require_trained(technique, changed, start)


@SLOW
@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("distiller", [hinted, adversarial])
def test_two_replicas_end_where_one_does(technique: str, distiller: Callable) -> None:
    """But for BatchNorm, whose statistics are each replica's own: here it is frozen.

    So are the ranges of activations, and tfmot keeps the replicas' mean: quantized outputs may be
    a few of their steps of 0.004 apart. Adam would take a rounded gradient's sign for its size.
    """
    ends = []
    for strategy in (two_replicas(), tf.distribute.get_strategy()):
        with strategy.scope():
            changed = applied(technique)
            for layer in changed.layers:
                if "bn1" in layer.name:
                    layer.trainable = False
            keras.utils.set_random_seed(3)
            taught = compiled(distiller(changed), lambda: keras.optimizers.SGD(0.1))
        data = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(8)
        callbacks = TECHNIQUES[technique][0].callbacks(changed)
        taught.fit(data, epochs=1, verbose=0, callbacks=callbacks)
        ends.append(TECHNIQUES[technique][0].finish(changed).predict(IMAGES, verbose=0))
    np.testing.assert_allclose(*ends, atol=0.015 if technique == "quantization" else 1e-4)
