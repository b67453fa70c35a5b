"""Weight clustering: each kernel is left with a few values, which its weights share.

Han, Mao and Dally (2016), through tensorflow-model-optimization: a weight is the nearest of the
kernel's ``n`` centroids; the centroids and the choice among them are trained. Files pack smaller.

Example (``distiller`` is any ``tf.keras.Model`` that trains ``clustered`` in its ``fit``):

    clustered = clustering.apply(student, clusters=16, per_layer={"conv1": 64})
    distiller.fit(train, callbacks=clustering.callbacks(clustered))
    student = clustering.finish(clustered)
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.compression import kernels, order, rebuilding, toolkit
from kd_keras.errors import InputError

_INITIALIZATIONS = {
    "kmeans++": "KMEANS_PLUS_PLUS",
    "linear": "LINEAR",
    "density": "DENSITY_BASED",
}


def apply(
    student: tf.keras.Model,
    *,
    clusters: int,
    initialization: str = "kmeans++",
    per_layer: Mapping[str, int] | None = None,
    keep_zeros: bool = True,
    skip: Sequence[str] = (),
) -> tf.keras.Model:
    """Returns a copy of ``student`` whose convolution and dense kernels are clustered.

    It predicts with clustered weights at once. Depthwise kernels, biases and BatchNorm are left as
    they are; ``kernels.kernel_of`` says which kernels are meant.

    Args:
        student: a built, trained Functional or Sequential model; it is not changed.
        clusters: most values in each kernel, 2 to 256; with kept zeros at least 3, zero among them.
        initialization: where centroids begin: "kmeans++", "linear" (evenly from the least to the
            largest weight) or "density" (evenly over the weights' distribution).
        per_layer: numbers of clusters of single layers, by the user's layer name.
        keep_zeros: weights that are zero now stay zero. They are taken from ``student``; so to
            resume, apply to the same student and then restore.
        skip: names of layers to leave as they are.

    Returns:
        The copy; its clustered layers are called ``cluster_`` and the user's name.

    Raises:
        InputError: a number of clusters or a name does not fit, the model has no kernel to
            cluster, is quantization-aware or subclassed, is pruned and ``keep_zeros`` is False, or
            TensorFlow runs with Keras 3.
    """
    library = toolkit.tfmot().clustering.keras
    toolkit.require_graph(student)
    order.require_before_clustering(student, keep_zeros)
    if initialization not in _INITIALIZATIONS:
        raise InputError(
            f"initialization {initialization!r} is not known; give one of "
            f"{', '.join(_INITIALIZATIONS)}"
        )
    names = kernels.chosen(student, "cluster", skip=skip, per_layer=per_layer)
    counts = {name: (per_layer or {}).get(name, clusters) for name in names}
    _check(clusters, "clusters")
    for name, count in counts.items():
        _check(count, f"per_layer[{name!r}]")
    values = kernels.kernels(student)
    zeros = {name for name in names if keep_zeros and (values[name] == 0).any()}
    frozen = [
        la.name for la in toolkit.leaf_layers(student) if la.name in counts and not la.trainable
    ]
    if frozen:
        raise InputError(
            f"layers {', '.join(frozen)} are frozen, and tfmot clusters only what is trained; set "
            "trainable = True, or name them in skip"
        )
    few = [name for name in names if name in zeros and counts[name] < 3]
    if few:
        raise InputError(
            f"clusters {counts[few[0]]!r} is not possible for {', '.join(few)}, where zeros are "
            "kept: zero is one of the clusters; give at least 3"
        )

    def wrapped(layer: Any) -> Any:
        copy = toolkit.copy_layer(layer)
        if layer.name not in counts:
            return copy
        # Centroids are placed when the wrapper is built: the weights must be there before.
        with tf.name_scope(layer.name):
            copy.build(layer.get_input_shape_at(0))
        copy.set_weights(layer.get_weights())
        # tfmot fails with more centroids than values, and leaves a layer with as many as weights.
        kernel = values[layer.name]
        count = min(counts[layer.name], np.unique(kernel).size, kernel.size - 1)
        return library.cluster_weights(
            copy,
            max(count, 3 if layer.name in zeros else 2),
            getattr(library.CentroidInitialization, _INITIALIZATIONS[initialization]),
            preserve_sparsity=layer.name in zeros,
        )

    return rebuilding.rebuilt(
        student, wrapped, lambda layer: None if layer.name in counts else layer.get_weights()
    )


def callbacks(model: tf.keras.Model) -> list[tf.keras.callbacks.Callback]:
    """The callbacks for the ``fit`` that trains ``model``: none are needed."""
    _require_clustered(model)
    return []


def finish(model: tf.keras.Model) -> tf.keras.Model:
    """Returns the plain model: the user's layer names, no wrappers, clustered kernels.

    Args:
        model: a model from ``apply``, trained.

    Raises:
        InputError: the model is not from ``apply``.
    """
    _require_clustered(model)
    return rebuilding.rebuilt(
        model,
        lambda layer: toolkit.copy_layer(layer.layer if _is_wrapper(layer) else layer),
        _clustered_weights,
    )


def _clustered_weights(layer: Any) -> list[np.ndarray]:
    weights = layer.get_weights()
    if _is_wrapper(layer):
        layer.update_clustered_weights_associations()  # with the last update of the optimizer
        weights = layer.layer.get_weights()  # all but those that are clustered
        for position, name in sorted(layer.position_original_weights.items()):
            weights.insert(position, np.asarray(layer.get_weight_from_layer(name)))
    return weights


def _is_wrapper(layer: Any) -> bool:
    return hasattr(layer, "position_original_weights")


def _require_clustered(model: tf.keras.Model) -> None:
    if not any(_is_wrapper(layer) for layer in toolkit.leaf_layers(model)):
        raise InputError(f"model {model.name!r} is not being clustered; give the one from apply")


def _check(count: Any, what: str) -> None:
    if isinstance(count, bool) or not isinstance(count, int):
        raise InputError(f"{what} {count!r} is not possible; give a whole number from 2 to 256")
    if not 2 <= count <= kernels.MOST_CLUSTERS:
        raise InputError(
            f"{what} {count!r} is not possible; give 2 to 256 values a kernel (8 bits hold no more)"
        )
