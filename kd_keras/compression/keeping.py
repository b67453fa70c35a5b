"""What quantization-aware training keeps of a kernel: its zeros (PQAT), clusters (CQAT), or both.

tfmot's scheme for clusters shares one quantizer among all convolutions, and the first layer without
a zero switches the keeping of zeros off for all. So each layer has a quantizer of its own here, of
the kind that its kernel needs.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.compression import kernels, toolkit

_IN_TRAINING_ONLY = ("cluster_centroids_tf", "ori_weights_vars_tf", "pulling_indices_tf")


class Scheme:
    """A tfmot quantize scheme of 8 bits that keeps zeros or clusters, layer by layer.

    Args:
        keep_zeros: weights that are zero when the model is built stay zero.
        keep_clusters: kernels that are clustered then stay so.
    """

    def __init__(self, keep_zeros: bool, keep_clusters: bool) -> None:
        self._plain = toolkit.tfmot().quantization.keras.default_8bit.Default8BitQuantizeScheme()
        self._keep_zeros = keep_zeros
        self._keep_clusters = keep_clusters

    def get_layout_transformer(self) -> Any:
        """What rewrites the graph: the default's."""
        return self._plain.get_layout_transformer()

    def get_quantize_registry(self) -> "Scheme":
        """Itself: it answers as a registry does."""
        return self

    def supports(self, layer: Any) -> bool:
        """Whether both the default and the registry that keeps something know ``layer``."""
        return self._registry(layer).supports(layer) and self._default().supports(layer)

    def get_quantize_config(self, layer: Any) -> Any:
        """The ``QuantizeConfig`` for ``layer``, which has its weights."""
        return self._registry(layer).get_quantize_config(layer)

    def _default(self) -> Any:
        return self._plain.get_quantize_registry()

    def _registry(self, layer: Any) -> Any:
        combine = toolkit.tfmot().experimental.combine
        variable = kernels.kernel_of(layer)
        kernel = np.zeros(0) if variable is None else np.asarray(variable)
        if self._keep_clusters and kernel.size and kernels.is_clustered(kernel):
            keep_zeros = self._keep_zeros and bool((kernel == 0).any())
            scheme = combine.Default8BitClusterPreserveQuantizeScheme(keep_zeros)
        elif self._keep_zeros:
            scheme = combine.Default8BitPrunePreserveQuantizeScheme()
        else:
            return self._default()
        return scheme.get_quantize_registry()


class Settle(tf.keras.callbacks.Callback):
    """Puts clustered kernels back on their clusters after the last update of an epoch.

    Within a step they are there; regularization and weight decay move them off after it.
    """

    def __init__(self, quantized: tf.keras.Model) -> None:
        super().__init__()
        self._quantized = quantized

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """What is saved now must be clustered."""
        settle(self._quantized)


def is_kept(layer: Any) -> bool:
    """Whether ``layer`` of a quantization-aware model has clusters to keep in training."""
    return any("cluster_centroids_tf" in keys for _, _, keys in getattr(layer, "_weight_vars", ()))


def settle(quantized: tf.keras.Model) -> None:
    """Sets clustered kernels, and their ranges, to what their centroids are now."""
    for layer in filter(is_kept, quantized.layers):
        for weight, quantizer, variables in layer._weight_vars:
            quantizer(weight, True, weights=variables)


def lasting_weights(layer: Any) -> list[np.ndarray]:
    """The weights of ``layer`` in its order, without those that keep clusters in training."""
    return [
        value
        for variable, value in zip(layer.weights, layer.get_weights(), strict=True)
        if not any(name in variable.name for name in _IN_TRAINING_ONLY)
    ]
