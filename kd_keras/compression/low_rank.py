"""Low-rank decomposition: a layer becomes two to four smaller ones that compute nearly the same.

Of a trained student, without data; train it on afterwards, since what was lost is learnt again:

- dense layers and 1x1 convolutions: ``W ~ U_r V_r``, a linear layer to ``r`` channels and the
  user's from there, by SVD;
- larger convolutions, ``method="svd"``: a ``kh x 1`` convolution to ``r`` channels, then a
  ``1 x kw`` one (scheme 2 of Jaderberg, Vedaldi, Zisserman 2014);
- ``"tucker"``: 1x1 to ``r_in`` channels, ``kh x kw`` to ``r_out``, 1x1 (Tucker-2; Kim et al. 2016);
- ``"cp"``: 1x1 to ``r`` channels, depthwise ``kh x 1`` and ``1 x kw``, 1x1 (Lebedev et al. 2015).

All are ordinary Keras layers. The last one keeps the user's name, bias and activation, so that taps
and hints find it and what follows (BatchNorm) is as it was; its output has the same shape.

Where SVD stops short is known, and it is the least possible. Two convolutions ``A`` (``kh x 1``,
``in -> r``) and ``B`` (``1 x kw``, ``r -> out``), the first without bias and activation, are one of
kernel ``W_r[i, j, s, t] = sum_c A[i, s, c] B[j, c, t]``. Unfolded to a matrix with rows ``(i, s)``
and columns ``(j, t)``, ``kh in x kw out``, that is ``A B``: a matrix of rank at most ``r``, and any
such matrix is one. Unfolding only moves numbers, so the Frobenius norm is the matrix's, and by
Eckart and Young (1936) its truncated SVD is nearest: ``||W - W_r||^2 = sum_{i>r} sigma_i^2``. Tai
et al. (2016) gave this solution; Jaderberg et al. descend towards it. "Same" padding and strides
act on rows and columns apart, so they are divided over the two without any difference.

Tucker-2 (higher-order orthogonal iteration) and CP (alternating least squares) are tensorly's. They
reach a local optimum. CP's error has no formula: it is computed at eight ranks, which takes minutes
for 64 channels and hours for 512 (given ``ranks``, once), and components that cancel each other can
be hard to quantize.

Example (``distiller`` is any ``tf.keras.Model`` that trains ``smaller`` in its ``fit``):

    smaller = low_rank.apply(student, error=0.3)
    distiller.fit(train, callbacks=low_rank.callbacks(smaller))
    student = low_rank.finish(smaller)
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from kd_keras.compression import decomposable, rank_goals, substitution, toolkit
from kd_keras.compression.decomposable import Target
from kd_keras.compression.factorization import FACTORIZATIONS, Factors, Rank, relative_error
from kd_keras.compression.ordinary import callbacks, finish
from kd_keras.compression.rank_goals import Goals, Ranks
from kd_keras.errors import InputError

__all__ = ["LayerPlan", "apply", "callbacks", "finish", "plan"]


@dataclasses.dataclass(frozen=True)
class LayerPlan:
    """What becomes of one layer with kernels.

    Attributes:
        layer: its name.
        method: "svd", "tucker" or "cp"; "" for a layer that is left as it is.
        rank: a whole number, for Tucker-2 the pair ``(r_in, r_out)``; None if left.
        error: ``||W - W_r|| / ||W||`` of the kernel in the Frobenius norm; 0.0 if left.
        parameters_before: weights and bias.
        multiply_adds_before: for one example, over all calls of the layer.
        parameters_after: those of the layers in its place.
        multiply_adds_after: likewise.
        reason: why it is left, else "".
    """

    layer: str
    method: str
    rank: int | tuple[int, ...] | None
    error: float
    parameters_before: int
    multiply_adds_before: int
    parameters_after: int
    multiply_adds_after: int
    reason: str


def apply(
    student: tf.keras.Model,
    *,
    method: str = "svd",
    error: float | None = None,
    energy: float | None = None,
    ranks: Ranks | None = None,
    parameters: int | None = None,
    multiply_adds: int | None = None,
    skip: Sequence[str] = (),
) -> tf.keras.Model:
    """Returns a copy of ``student`` with low-rank layers, chosen by exactly one of the five goals.

    A layer whose replacement would not have fewer parameters and fewer multiply-adds is left as it
    is, unless ``ranks`` names it; so are depthwise, grouped and other convolutions. ``plan`` lists
    them with the reason.

    Args:
        student: a built Functional or Sequential model; it is not changed.
        method: for kernels larger than 1x1: "svd", "tucker" or "cp".
        error: relative Frobenius error that each kernel may have at most, in [0, 1); of the ranks
            that keep to it, those of the fewest multiply-adds.
        energy: share of each kernel's squared norm to keep at least, in (0, 1]: the same as
            ``error = sqrt(1 - energy)``.
        ranks: the rank of each layer to decompose, by its name; ``(r_in, r_out)`` for Tucker-2.
        parameters: what the whole model may have at most. Greedy, see
            ``rank_selection.by_budget``; a budget that is met already changes nothing.
        multiply_adds: what the whole model may need at most for one example; likewise.
        skip: names of layers to leave as they are.

    Returns:
        A Functional model of the same name, inputs and output names. New layers are called as the
        user's, with ``_reduce``, ``_vertical``, ``_horizontal`` or ``_core`` behind it.

    Raises:
        InputError: a goal is out of its range, cannot be met or makes no layer smaller, there is
            none or more than one, a named layer does not exist or cannot be decomposed, the model
            has no layer to decompose, an open input shape, or is subclassed, or TensorFlow runs
            with Keras 3.
    """
    goals = Goals(error, energy, ranks, parameters, multiply_adds)
    chosen = _decomposed(student, method, goals, skip)
    taken = {layer.name for layer in toolkit.leaf_layers(student)}
    replaced = {
        id(target.layer): decomposable.parts(target, factors, taken)
        for target, _, factors in chosen
        if factors is not None
    }
    return substitution.substituted(student, lambda layer: replaced.get(id(layer)))


def plan(
    student: tf.keras.Model,
    *,
    method: str = "svd",
    error: float | None = None,
    energy: float | None = None,
    ranks: Ranks | None = None,
    parameters: int | None = None,
    multiply_adds: int | None = None,
    skip: Sequence[str] = (),
) -> list[LayerPlan]:
    """What ``apply`` would do with the same arguments, layer by layer in the order of computation.

    Raises:
        InputError: as ``apply``.
    """
    goals = Goals(error, energy, ranks, parameters, multiply_adds)
    return [row for _, row, _ in _decomposed(student, method, goals, skip)]


def _decomposed(
    student: tf.keras.Model, method: str, goals: Goals, skip: Sequence[str]
) -> list[tuple[Target, LayerPlan, Factors | None]]:
    """All layers with kernels, what becomes of each, and the kernels to do it with."""
    toolkit.require_tf_keras()
    toolkit.require_graph(student)
    if method not in FACTORIZATIONS:
        raise InputError(f"method {method!r} is not there; there are: {', '.join(FACTORIZATIONS)}")
    targets = decomposable.targets(student, method)
    rank_goals.refuse_unknown(skip, "skip", student, targets)
    for target in targets:
        if target.layer.name in skip:
            target.method, target.reason = "", "in skip"
    if not any(target.method for target in targets):
        raise InputError(
            f"model {student.name!r} has no layer to decompose; dense and convolution layers can be"
        )
    chosen = rank_goals.choices(student, targets, goals)
    return [_row(target, *choice) for target, choice in zip(targets, chosen, strict=True)]


def _row(
    target: Target, rank: Rank | None, reason: str
) -> tuple[Target, LayerPlan, Factors | None]:
    name, before = target.layer.name, (target.parameters, target.multiply_adds)
    if rank is None:
        return target, LayerPlan(name, "", None, 0.0, *before, *before, reason), None
    kernel = target.kernel
    factors = target.factorization.factors(kernel, rank)
    error = relative_error(kernel, target.factorization.product(factors))
    parameters, multiply_adds = (int(cost[0]) for cost in target.costs(np.array([rank])))
    shown = rank if len(rank) > 1 else rank[0]
    after = (parameters, multiply_adds)
    return target, LayerPlan(name, target.method, shown, error, *before, *after, ""), factors
