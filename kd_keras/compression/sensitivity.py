"""What pruning each layer alone would cost, before any training."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from kd_keras.compression import kernels, toolkit
from kd_keras.errors import InputError


def sensitivity(
    student: tf.keras.Model,
    evaluate: Callable[[Any], float],
    sparsities: Sequence[float] = (0.25, 0.5, 0.75, 0.9),
    skip: Sequence[str] = (),
) -> dict[str, dict[float, float]]:
    """Scores the student with one layer at a time pruned by magnitude, without training.

    Layers whose score falls early are those to give a smaller target in ``pruning.apply``. Source:
    Li et al. (2017), section 3.2, there for filters.

    Args:
        student: a built, trained Functional or Sequential model; it is not changed.
        evaluate: gives a model's score, its accuracy say. The model it gets has the student's
            layers and is not compiled; it is one and the same model with other weights each time.
        sparsities: shares of zeros to try, each in [0, 1).
        skip: names of layers to leave out.

    Returns:
        ``{layer name: {sparsity: score}}``, in the model's order.

    Raises:
        InputError: a share is out of its range, a name in ``skip`` is no layer, the model has no
            kernel to prune, or is subclassed, or TensorFlow runs with Keras 3.

    Example:
        >>> layers = [tf.keras.Input((4,)), tf.keras.layers.Dense(2, name="logits")]
        >>> zeros = lambda model: (model.get_weights()[0] == 0).mean()  # or an accuracy
        >>> sensitivity(tf.keras.Sequential(layers), zeros, (0.25, 0.5))
        {'logits': {0.25: 0.25, 0.5: 0.5}}
    """
    toolkit.tfmot()  # not used, but the techniques that it plans for need it
    toolkit.require_graph(student)
    shares = [float(share) for share in sparsities]
    for share in shares:
        if not 0 <= share < 1:
            raise InputError(f"sparsity {share!r} is not possible; give a share of zeros in [0, 1)")
    names = kernels.chosen(student, "prune", skip=skip)
    model = toolkit.copy_model(student)
    variables = {layer.name: kernels.kernel_of(layer) for layer in toolkit.leaf_layers(model)}
    scores: dict[str, dict[float, float]] = {name: {} for name in names}
    total = len(names) * len(shares)
    with tqdm(total=total, desc="sensitivity", unit="score", delay=2, disable=None) as bar:
        for name in names:
            before = np.asarray(variables[name]).copy()
            for share in shares:
                variables[name].assign(pruned_by_magnitude(before, share))
                scores[name][share] = float(evaluate(model))
                bar.update()
            variables[name].assign(before)
    return scores


def pruned_by_magnitude(kernel: np.ndarray, sparsity: float) -> np.ndarray:
    """A copy of ``kernel`` whose share ``sparsity`` of the smallest weights is zero.

    As tfmot counts: ``max(1, round(size * (1 - sparsity)))`` weights are left.
    """
    left = max(1, round(kernel.size * (1 - sparsity)))
    pruned = kernel.flatten()
    pruned[np.argsort(np.abs(pruned), kind="stable")[: kernel.size - left]] = 0
    return pruned.reshape(kernel.shape)
