"""Which technique may follow which: an order that would undo an earlier one is refused.

Those that make other layers come first, in any order; then prune, then cluster, then quantize. Each
of these three keeps what those before it made (zeros, shared values) and none can be applied after
a later one.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from kd_keras.compression import kernels, toolkit
from kd_keras.errors import InputError

_ORDER = "prune, then cluster, then quantize"
_LASTING = ("pruning", "clustering", "quantization")
#: What a technique would do to those that it may not follow.
_UNDOES = {
    "low_rank": "gives the layers other weights",
    "filter_pruning": "trains its smaller layers freely",
    "pruning": "trains the weights freely",
    "clustering": "moves the weights off their grid",
    "batch_norm_folding": "scales the weights of each channel",
    "dead_channels": "makes new layers",
    "class_bias": "leaves the ranges that it was trained for",
    "quantization": "would quantize twice",
}
#: Those exact ones that keep what a lasting technique made.
_KEEPS = {
    "batch_norm_folding": ("pruning",),
    "dead_channels": ("pruning", "clustering"),
    "class_bias": ("pruning", "clustering"),
}
_UNFINISHED = {"pruning_vars": "pruning", "cluster_centroids": "clustering"}


def is_trained_in(technique: str) -> bool:
    """Whether a technique's `apply` only wraps layers, and training does the rest."""
    return technique in _LASTING


def require_sequence(techniques: Sequence[str]) -> None:
    """InputError if one of the techniques, applied in this order, would undo an earlier one."""
    for position, later in enumerate(techniques):
        for earlier in techniques[:position]:
            if not _keeps(later, earlier):
                raise InputError(
                    f"{later} after {earlier} would undo it: {later} {_UNDOES[later]}; apply "
                    f"{later} before {earlier}"
                    if later != earlier
                    else f"{later} comes twice; leave one of them out"
                )


def _keeps(later: str, earlier: str) -> bool:
    if earlier not in _LASTING or earlier in _KEEPS.get(later, ()):
        return True
    if later == earlier:
        return later == "pruning"  # to a higher share: iterative pruning
    return later in _LASTING and _LASTING.index(later) > _LASTING.index(earlier)


def require_before_pruning(student: tf.keras.Model) -> None:
    """InputError if ``student`` is clustered or quantization-aware, or in training for it."""
    _require_plain(student, "pruning")
    clustered = _those(student, kernels.is_clustered)
    if clustered:
        raise InputError(
            f"model {student.name!r} is clustered (layers {clustered}), and pruning would train "
            f"its weights off their clusters; {_ORDER}"
        )


def require_before_clustering(student: tf.keras.Model, keep_zeros: bool) -> None:
    """InputError if clustering would undo the zeros, or ``student`` is quantization-aware."""
    _require_plain(student, "clustering")
    pruned = _those(student, kernels.is_pruned)
    if pruned and not keep_zeros:
        raise InputError(
            f"model {student.name!r} is pruned (layers {pruned}), and clustering without "
            "keep_zeros would give its zeros another value; leave keep_zeros=True"
        )


def require_before_quantization(student: tf.keras.Model, keep_clusters: bool) -> None:
    """InputError if quantization would undo the clusters, or is asked to keep none."""
    _require_plain(student, "quantization")
    clustered = _those(student, kernels.is_clustered)
    if clustered and not keep_clusters:
        raise InputError(
            f"model {student.name!r} is clustered (layers {clustered}), and quantization-aware "
            "training without keep_clusters would undo it; give keep_clusters=True"
        )
    if keep_clusters and not clustered:
        raise InputError(
            f"model {student.name!r} has no clustered layer that keep_clusters could keep; "
            "give what clustering.finish returns, or leave keep_clusters out"
        )


def _require_plain(student: tf.keras.Model, technique: str) -> None:
    for layer in toolkit.leaf_layers(student):
        if hasattr(layer, "quantize_config"):
            raise InputError(
                f"model {student.name!r} is quantization-aware, and {technique} would undo it; "
                f"{_ORDER}"
            )
        for attribute, other in _UNFINISHED.items():
            if hasattr(layer, attribute):
                raise InputError(
                    f"model {student.name!r} is in training for {other}; "
                    f"call {other}.finish before {technique}.apply"
                )


def _those(student: tf.keras.Model, test: Callable[[np.ndarray], bool]) -> str:
    found = [name for name, kernel in kernels.kernels(student).items() if test(kernel)]
    return ", ".join(found)
