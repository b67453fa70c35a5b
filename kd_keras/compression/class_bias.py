"""The bias of classes that a student has not seen, or too rarely, raised by what serves it best.

A student that learns from a transfer set without a class knows it all the same from what its
teacher says of other images, but has learned that it never comes: "the learned bias for the 3 class
is much too low" (Hinton, Vinyals and Dean 2015, section 3). One number is added to the biases of
these classes: the one with the most labelled images right. The paper chose it on the test images;
here they are given, and a run gives its validation images.

For an image let ``gap`` be the largest logit of the other classes less the largest of these. It is
taken for one of these classes exactly where ``offset > gap``, so the best offset is found among
the gaps by sorting them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from kd_keras.compression import toolkit
from kd_keras.compression.channel_rules import activation_name
from kd_keras.compression.ordinary import callbacks, finish
from kd_keras.errors import InputError

__all__ = ["apply", "best_offset", "callbacks", "finish"]


def apply(
    student: tf.keras.Model, *, classes: Sequence[int], images: Any, labels: Any
) -> tf.keras.Model:
    """Returns a copy of ``student`` whose biases of ``classes`` are raised.

    Args:
        student: a built Functional or Sequential model that ends in a dense layer of logits; it is
            not changed.
        classes: the numbers of the classes.
        images: what the offset is chosen by, as the model takes them, (n, ...); no test images.
        labels: their classes, integer, (n,).

    Returns:
        The copy, with the same layer and output names.

    Raises:
        InputError: there is no such class, the model does not end in such a layer or is subclassed,
            or TensorFlow runs with Keras 3.
    """
    toolkit.require_tf_keras()
    toolkit.require_graph(student)
    raised = toolkit.copy_model(student)
    layer = _logits_layer(raised)
    chosen = list(dict.fromkeys(classes))
    wrong = [number for number in chosen if number not in range(layer.units)]
    if wrong or not 0 < len(chosen) < layer.units:
        raise InputError(
            f"classes are {tuple(classes)!r}; give some, not all, of 0 to {layer.units - 1}"
        )
    offset = best_offset(student.predict(images, verbose=0), np.asarray(labels), chosen)
    bias = layer.bias.numpy()
    bias[chosen] += offset
    layer.bias.assign(bias)
    return raised


def best_offset(logits: np.ndarray, labels: np.ndarray, classes: Sequence[int]) -> float:
    """The number that, added to the logits of ``classes``, has the most examples right.

    Of several ranges of such numbers it takes the one nearest to 0, and its middle; of a range
    without end, 1 beyond its end.

    Args:
        logits: ``(n, C)``.
        labels: class numbers, ``(n,)``.
        classes: some of the classes, not all.

    >>> best_offset(np.array([[2.0, 0.0], [4.0, 1.0], [9.0, 0.0]]), np.array([1, 1, 0]), [1])
    6.0
    """
    among = np.isin(np.arange(logits.shape[1]), classes)
    gaps = logits[:, ~among].max(-1) - logits[:, among].max(-1)
    # Of an example that the right logit leads on its own side, the offset decides the rest.
    lowered, raised = (np.where(side, logits, -np.inf) for side in (~among, among))
    won = gaps[raised.argmax(-1) == labels]
    lost = gaps[lowered.argmax(-1) == labels]
    edges = np.unique(gaps)
    # Right in the range above each edge, and, first, below them all.
    right = np.concatenate(
        [
            [len(lost)],
            np.searchsorted(np.sort(won), edges, side="right")
            + len(lost)
            - np.searchsorted(np.sort(lost), edges, side="right"),
        ]
    )
    lows, highs = np.append(-np.inf, edges), np.append(edges, np.inf)
    middles = np.where(np.isinf(lows), highs - 1, np.where(np.isinf(highs), lows + 1, 0))
    finite = np.isfinite(lows) & np.isfinite(highs)
    middles[finite] = (lows[finite] + highs[finite]) / 2
    best = np.flatnonzero(right == right.max())
    distances = np.maximum(0, np.maximum(lows[best], -highs[best]))
    return float(middles[best[distances.argmin()]])


def _logits_layer(model: tf.keras.Model) -> Any:
    layer = model.output._keras_history.layer
    if type(layer) is not tf.keras.layers.Dense or not layer.use_bias:
        raise InputError(
            f"model {model.name!r} ends in {layer.name} ({type(layer).__name__}); its classes' "
            "biases can be raised only in a last Dense layer with a bias"
        )
    if activation_name(layer) != "linear":
        raise InputError(
            f"model {model.name!r} ends in {activation_name(layer)}; raise biases in one that "
            "gives logits"
        )
    return layer
