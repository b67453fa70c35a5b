"""Kernels as products of smaller ones: by SVD, Tucker-2 and CP decomposition, in NumPy.

A kernel ``W`` is ``(kh, kw, in, out)``; a dense or 1x1 one has ``kh = kw = 1``. Each factor has the
shape of the Keras kernel that it becomes. All are float64; errors are ``||W - W_r|| / ||W||`` in
the Frobenius norm.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

Rank = tuple[int, ...]
Factors = tuple[np.ndarray, ...]

_CP_RANKS = 8
_CP_ITERATIONS = 50
_CP_TOLERANCE = 1e-5
# Tucker-2 begins close to its optimum: more iterations are slow and gain nothing that matters.
_TUCKER_ITERATIONS = 20
_TUCKER_TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class Part:
    """One of the layers that stand for a layer.

    Attributes:
        end: of its name, behind the user's; "" for the last part.
        place: the pixels that it computes for: those of the layer's "inputs", of its "outputs", or
            "between", which has the rows of the outputs and the columns of the inputs.
        depthwise: whether it is a depthwise convolution.
    """

    end: str
    place: str
    depthwise: bool = False


@dataclasses.dataclass(frozen=True)
class Factorization:
    """One way to factorize a kernel.

    Attributes:
        parts: the layers that compute the factors, in their order.
        errors: ``kernel -> (ranks, errors)``, the ranks to choose from, ``(n, 1)`` (Tucker-2:
            ``(n, 2)``), and their errors ``(n,)``.
        sizes: ``kernel shape, ranks (n, d) -> weights``: for each part ``(n,)``, one a rank.
        limits: ``kernel shape -> rank``, the highest.
        factors: ``kernel, rank -> kernels``, one for each part.
        product: ``kernels -> kernel``, what they compute one after another.
    """

    parts: tuple[Part, ...]
    errors: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    sizes: Callable[[tuple[int, ...], np.ndarray], list[np.ndarray]]
    limits: Callable[[tuple[int, ...]], Rank]
    factors: Callable[[np.ndarray, Rank], Factors]
    product: Callable[[Factors], np.ndarray]


def relative_error(kernel: np.ndarray, approximation: np.ndarray) -> float:
    """``||W - W_r|| / ||W||`` in the Frobenius norm; 0 for a kernel of zeros."""
    norm = float(np.linalg.norm(kernel))
    return float(np.linalg.norm(kernel - approximation)) / norm if norm else 0.0


def _unfolded(kernel: np.ndarray) -> np.ndarray:
    """``M[(i, s), (j, t)] = W[i, j, s, t]``: ``(kh * in, kw * out)``."""
    height, width, inputs, outputs = kernel.shape
    return kernel.transpose(0, 2, 1, 3).reshape(height * inputs, width * outputs)


def _svd_errors(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = np.linalg.svd(_unfolded(kernel), compute_uv=False) ** 2
    # Summed from the smallest value up: a difference of large sums would lose the small errors.
    tails = np.append(np.cumsum(values[::-1])[::-1], 0.0)
    return np.arange(1, len(values) + 1)[:, None], _errors(tails[1:], tails[0])


def _svd_sizes(shape: tuple[int, ...], ranks: np.ndarray) -> list[np.ndarray]:
    height, width, inputs, outputs = shape
    return [height * inputs * ranks[:, 0], width * outputs * ranks[:, 0]]


def _svd_factors(kernel: np.ndarray, rank: Rank) -> Factors:
    height, width, inputs, outputs = kernel.shape
    left, values, right = np.linalg.svd(_unfolded(kernel), full_matrices=False)
    # Half of each singular value to either side: equal scales train and quantize best.
    root = np.sqrt(values[: rank[0]])
    vertical = (left[:, : rank[0]] * root).reshape(height, 1, inputs, rank[0])
    horizontal = (right[: rank[0]].T * root).reshape(1, width, outputs, rank[0])
    return vertical, horizontal.swapaxes(2, 3)


def _svd_product(factors: Factors) -> np.ndarray:
    return np.einsum("isr,jrt->ijst", factors[0][:, 0], factors[1][0])


def _tucker_errors(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The errors before tensorly's iterations, which only lower them (De Lathauwer et al. 2000).

    Projecting on the first singular vectors of both unfoldings keeps the leading block of the core,
    and all projections are orthogonal: so one core gives the error of every pair of ranks.
    """
    height, width, inputs, outputs = kernel.shape
    by_input = kernel.transpose(2, 0, 1, 3).reshape(inputs, -1)
    by_output = kernel.transpose(3, 0, 1, 2).reshape(outputs, -1)
    # Of the Gram matrix, largest first: the left singular vectors, in a tenth of the SVD's time.
    bases = [np.linalg.eigh(m @ m.T)[1][:, ::-1] for m in (by_input, by_output)]
    core = np.einsum("ijst,sa,tb->ijab", kernel, *bases, optimize=True)
    kept = np.sum(core**2, (0, 1)).cumsum(0).cumsum(1)
    ranks = np.argwhere(np.ones_like(kept)) + 1
    errors = _errors(kept[-1, -1] - kept, kept[-1, -1]).ravel()
    # A core wider than the rest of it is deep has rows of zeros, which nobody needs.
    full = (ranks <= height * width * ranks[:, ::-1]).all(1)
    return ranks[full], errors[full]


def _tucker_sizes(shape: tuple[int, ...], ranks: np.ndarray) -> list[np.ndarray]:
    height, width, inputs, outputs = shape
    return [inputs * ranks[:, 0], height * width * ranks.prod(1), outputs * ranks[:, 1]]


def _tucker_factors(kernel: np.ndarray, rank: Rank) -> Factors:
    tensorly, decomposition = _tensorly()
    with tensorly.backend_context("numpy"):
        (core, (reduce, restore)), _ = decomposition.partial_tucker(
            *(kernel, rank, [2, 3], _TUCKER_ITERATIONS), tol=_TUCKER_TOLERANCE, random_state=0
        )
    return reduce[None, None], core, restore.T[None, None]


def _tucker_product(factors: Factors) -> np.ndarray:
    reduce, core, restore = factors
    return np.einsum("sa,ijab,bt->ijst", reduce[0, 0], core, restore[0, 0], optimize=True)


def _cp_errors(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """No formula gives them: they are computed at a few ranks, up to where CP is no smaller."""
    top = max((kernel.size - 1) // sum(kernel.shape), 1)
    ranks = np.unique(np.geomspace(1, top, _CP_RANKS).round().astype(int))
    errors = [relative_error(kernel, _cp_product(_cp_factors(kernel, (r,)))) for r in ranks]
    return ranks[:, None], np.array(errors)


def _cp_sizes(shape: tuple[int, ...], ranks: np.ndarray) -> list[np.ndarray]:
    height, width, inputs, outputs = shape
    return [size * ranks[:, 0] for size in (inputs, height, width, outputs)]


def _cp_factors(kernel: np.ndarray, rank: Rank) -> Factors:
    tensorly, decomposition = _tensorly()
    with tensorly.backend_context("numpy"):
        _, columns = decomposition.parafac(
            *(kernel, rank[0], _CP_ITERATIONS), init="random", random_state=0, tol=_CP_TOLERANCE
        )
    # Only the product of the four scales of a component is given: the same for all of them.
    scales = np.array([np.linalg.norm(factor, axis=0) for factor in columns])
    scales[scales == 0] = 1
    balance = scales.prod(0) ** 0.25 / scales
    rows, cols, reduce, restore = (c * b for c, b in zip(columns, balance, strict=True))
    return reduce[None, None], rows[:, None, :, None], cols[None, :, :, None], restore.T[None, None]


def _cp_product(factors: Factors) -> np.ndarray:
    reduce, rows, cols, restore = factors
    spatial = np.einsum("ir,jr->ijr", rows[:, 0, :, 0], cols[0, :, :, 0])
    return np.einsum("ijr,sr,rt->ijst", spatial, reduce[0, 0], restore[0, 0], optimize=True)


def _errors(squared: np.ndarray, total: float) -> np.ndarray:
    return np.sqrt(np.maximum(squared, 0) / total) if total else np.zeros_like(squared)


def _tensorly() -> tuple[Any, Any]:
    """Imported where it is used: SVD does without, and it takes a while."""
    import tensorly
    import tensorly.decomposition

    return tensorly, tensorly.decomposition


#: By the name that a user gives.
FACTORIZATIONS = {
    "svd": Factorization(
        parts=(Part("_vertical", "between"), Part("", "outputs")),
        errors=_svd_errors,
        sizes=_svd_sizes,
        limits=lambda shape: (min(shape[0] * shape[2], shape[1] * shape[3]),),
        factors=_svd_factors,
        product=_svd_product,
    ),
    "tucker": Factorization(
        parts=(Part("_reduce", "inputs"), Part("_core", "outputs"), Part("", "outputs")),
        errors=_tucker_errors,
        sizes=_tucker_sizes,
        limits=lambda shape: (shape[2], shape[3]),
        factors=_tucker_factors,
        product=_tucker_product,
    ),
    "cp": Factorization(
        parts=(
            Part("_reduce", "inputs"),
            Part("_vertical", "between", depthwise=True),
            Part("_horizontal", "outputs", depthwise=True),
            Part("", "outputs"),
        ),
        errors=_cp_errors,
        sizes=_cp_sizes,
        limits=lambda shape: (math.prod(shape) // max(shape),),
        factors=_cp_factors,
        product=_cp_product,
    ),
}
