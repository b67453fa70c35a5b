"""A student's kernels: which layers have one, and what earlier techniques made of it."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.compression import toolkit
from kd_keras.errors import InputError

# int8 has 255 values in use; and large float kernels hold equal values by chance.
MOST_CLUSTERS = 256
_LEAST_SHARE_OF_ZEROS = 0.05


def kernel_of(layer: Any) -> Any:
    """The kernel that pruning and clustering change, a variable, or None if they leave ``layer``.

    Of a separable convolution it is the pointwise one. Depthwise kernels are left as they are: they
    are small, and the accuracy suffers.
    """
    layers = tf.keras.layers
    if type(layer) in (layers.SeparableConv1D, layers.SeparableConv2D):
        return layer.pointwise_kernel
    kinds = (
        *(layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D),
        *(layers.Conv2DTranspose, layers.Conv3DTranspose),
    )
    return layer.kernel if type(layer) in kinds else None


def kernels(model: tf.keras.Model) -> dict[str, np.ndarray]:
    """The values of all such kernels by layer name, those of nested models in their place."""
    found = {layer.name: kernel_of(layer) for layer in toolkit.leaf_layers(model)}
    return {name: np.asarray(kernel) for name, kernel in found.items() if kernel is not None}


def chosen(
    student: tf.keras.Model,
    verb: str,
    *,
    skip: Collection[str] = (),
    per_layer: Mapping[str, Any] | None = None,
    possible: Iterable[str] | None = None,
) -> list[str]:
    """The names of the layers to change, in the model's order.

    Args:
        student: a built Functional or Sequential model.
        verb: what is done to them, "prune", for the errors.
        skip: names of layers to leave as they are.
        per_layer: settings of single layers by name; each must be one that can be changed.
        possible: names of layers that can be changed, if not all with a kernel.

    Raises:
        InputError: a name is no layer, cannot be changed, or is both skipped and set; or there is
            no layer to change.
    """
    everything = {layer.name for layer in toolkit.leaf_layers(student)}
    found = list(kernels(student))
    if possible is not None:
        found = [name for name in found if name in set(possible)]
    can = f"it can {verb}: {', '.join(sorted(found)) or 'none of its layers'}"
    for name in skip:
        if name not in everything:
            raise InputError(f"layer {name!r} in skip is not in model {student.name!r}; {can}")
    for name in per_layer or ():
        if name not in everything:
            raise InputError(f"layer {name!r} in per_layer is not in model {student.name!r}; {can}")
        if name not in found:
            raise InputError(f"layer {name!r} in per_layer cannot be changed; {can}")
        if name in skip:
            raise InputError(f"layer {name!r} is in per_layer and in skip; name it in one of them")
    names = [name for name in found if name not in skip]
    if not names:
        raise InputError(
            f"model {student.name!r} has no layer to {verb}; convolution and dense layers can be"
        )
    return names


def is_pruned(kernel: np.ndarray) -> bool:
    """Whether at least a twentieth of ``kernel`` is exactly zero: no initializer leaves as many."""
    return bool(np.mean(kernel == 0) >= _LEAST_SHARE_OF_ZEROS)


def is_clustered(kernel: np.ndarray) -> bool:
    """Whether the weights of ``kernel`` share 2 to 256 values, beside zeros that pruning made."""
    others = kernel[kernel != 0]
    values = np.unique(others).size
    shared = values < others.size and values <= MOST_CLUSTERS
    return bool(shared and values + (others.size < kernel.size) >= 2)
