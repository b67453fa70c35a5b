"""Factors of kernels against references in NumPy that share no code with them."""

import itertools

import numpy as np
import pytest

from kd_keras.compression.factorization import FACTORIZATIONS, relative_error

pytestmark = pytest.mark.any_keras

SHAPES = [(3, 3, 4, 6), (5, 3, 2, 3), (1, 3, 5, 4), (3, 1, 4, 2), (1, 1, 6, 9)]


def random_kernel(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def tails(matrix):
    """Relative error of the best approximation of each rank from 1, from the eigenvalues of MMᵀ."""
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    values = np.sort(np.linalg.eigvalsh(matrix @ matrix.T))[::-1]
    return np.array(
        [np.sqrt(max(values[r:].sum(), 0) / values.sum()) for r in range(1, len(values) + 1)]
    )


def unfolded_by_hand(kernel):
    """Rows are (row of the kernel, input), columns (column of the kernel, output)."""
    height, width, inputs, outputs = kernel.shape
    matrix = np.zeros((height * inputs, width * outputs))
    for i, j, s, t in itertools.product(*map(range, kernel.shape)):
        matrix[i * inputs + s, j * outputs + t] = kernel[i, j, s, t]
    return matrix


def composed(factors):
    """The kernel of two ordinary convolutions one after another, from its definition."""
    vertical, horizontal = factors
    kernel = np.zeros((len(vertical), horizontal.shape[1], vertical.shape[2], horizontal.shape[3]))
    for i, j, c in itertools.product(*map(range, (*kernel.shape[:2], vertical.shape[3]))):
        kernel[i, j] += np.outer(vertical[i, 0, :, c], horizontal[0, j, c])
    return kernel


@pytest.mark.parametrize("shape", SHAPES)
def test_svd_has_the_error_of_eckart_and_young_at_every_rank(shape):
    kernel = random_kernel(shape)
    svd = FACTORIZATIONS["svd"]
    theory = tails(unfolded_by_hand(kernel))
    ranks, errors = svd.errors(kernel)
    assert ranks[:, 0].tolist() == list(range(1, svd.limits(shape)[0] + 1))
    np.testing.assert_allclose(errors, theory, atol=1e-7)
    for (rank,), error in zip(ranks, theory, strict=True):
        factors = svd.factors(kernel, (rank,))
        assert [factor.shape for factor in factors] == [
            (shape[0], 1, shape[2], rank),
            (1, shape[1], rank, shape[3]),
        ]
        np.testing.assert_allclose(svd.product(factors), composed(factors), atol=1e-12)
        found = np.linalg.norm(kernel - composed(factors)) / np.linalg.norm(kernel)
        assert found == pytest.approx(error, abs=1e-7)
    np.testing.assert_allclose(composed(factors), kernel, atol=1e-12)


def test_tucker_is_between_the_bound_and_the_truncated_hosvd():
    kernel = random_kernel((3, 3, 5, 7))
    tucker = FACTORIZATIONS["tucker"]
    by_input, by_output = (
        tails(np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)) for axis in (2, 3)
    )
    ranks, errors = tucker.errors(kernel)
    assert len(ranks) == 5 * 7
    truncated = {}
    for (a, b), error in zip(ranks, errors, strict=True):
        # Projections on both sides at once, each from the kernel itself.
        both = kernel
        for axis, size in ((2, a), (3, b)):
            basis = np.linalg.svd(np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1))[0]
            half = basis[:, :size] @ basis[:, :size].T
            both = np.moveaxis(np.tensordot(half, both, (1, axis)), 0, axis)
        truncated[a, b] = relative_error(kernel, both)
        assert error == pytest.approx(truncated[a, b], abs=1e-7)
    for rank in ((1, 1), (2, 3), (4, 2), (5, 7)):
        reduce, core, restore = tucker.factors(kernel, rank)
        assert (reduce.shape, core.shape) == ((1, 1, 5, rank[0]), (3, 3, *rank))
        assert restore.shape == (1, 1, rank[1], 7)
        found = np.zeros_like(kernel)
        for i, j in np.ndindex(3, 3):
            found[i, j] = reduce[0, 0] @ core[i, j] @ restore[0, 0]
        np.testing.assert_allclose(tucker.product((reduce, core, restore)), found, atol=1e-12)
        error = np.linalg.norm(kernel - found) / np.linalg.norm(kernel)
        bound = max(by_input[rank[0] - 1], by_output[rank[1] - 1])
        assert bound - 1e-7 <= error <= truncated[rank] + 1e-9


def test_tucker_offers_no_core_with_rows_of_zeros():
    ranks, _ = FACTORIZATIONS["tucker"].errors(random_kernel((1, 2, 8, 3)))
    assert [2, 1] in ranks.tolist()
    assert [3, 1] not in ranks.tolist()


def test_cp_finds_a_kernel_of_known_rank_and_balances_its_factors():
    generator = np.random.default_rng(3)
    columns = [generator.normal(size=(size, 2)) for size in (3, 3, 4, 5)]
    kernel = sum(
        np.multiply.outer(np.multiply.outer(a, b), np.multiply.outer(c, d))
        for a, b, c, d in zip(*(column.T for column in columns), strict=True)
    )
    cp = FACTORIZATIONS["cp"]
    reduce, rows, cols, restore = factors = cp.factors(kernel, (2,))
    assert [factor.shape for factor in factors] == [
        *((1, 1, 4, 2), (3, 1, 2, 1), (1, 3, 2, 1), (1, 1, 2, 5)),
    ]
    found = np.zeros_like(kernel)
    for i, j, s, t in np.ndindex(kernel.shape):
        found[i, j, s, t] = sum(
            reduce[0, 0, s, r] * rows[i, 0, r, 0] * cols[0, j, r, 0] * restore[0, 0, r, t]
            for r in range(2)
        )
    np.testing.assert_allclose(cp.product(factors), found, atol=1e-12)
    assert np.linalg.norm(kernel - found) / np.linalg.norm(kernel) < 1e-3
    norms = [np.linalg.norm(f.reshape(-1, 2), axis=0) for f in (reduce[0, 0], rows, cols)]
    norms.append(np.linalg.norm(restore[0, 0], axis=1))
    np.testing.assert_allclose(norms, [norms[0]] * 4)
    # Twice is the same: the start is not drawn anew.
    np.testing.assert_array_equal(cp.factors(kernel, (2,))[0], reduce)


def test_cp_offers_ranks_with_their_own_errors():
    kernel = random_kernel((3, 3, 4, 6))
    ranks, errors = FACTORIZATIONS["cp"].errors(kernel)
    assert ranks[0] == 1
    assert ranks[-1] * (3 + 3 + 4 + 6) < kernel.size
    assert (np.diff(ranks[:, 0]) > 0).all()
    assert (np.diff(errors) < 0).all()
    assert errors[-1] < 0.7
    first = relative_error(
        kernel, FACTORIZATIONS["cp"].product(FACTORIZATIONS["cp"].factors(kernel, (1,)))
    )
    assert errors[0] == pytest.approx(first)


@pytest.mark.parametrize("method", FACTORIZATIONS)
def test_sizes_are_those_of_the_factors(method):
    way, rank = FACTORIZATIONS[method], (2, 3) if method == "tucker" else (3,)
    kernel = random_kernel((5, 3, 4, 6))
    sizes = [int(size[0]) for size in way.sizes(kernel.shape, np.array([rank]))]
    assert sizes == [factor.size for factor in way.factors(kernel, rank)]
    assert len(sizes) == len(way.parts)


@pytest.mark.parametrize("method", ["svd", "tucker"])
def test_a_kernel_of_zeros_has_no_error(method):
    _, errors = FACTORIZATIONS[method].errors(np.zeros((3, 3, 2, 4)))
    assert not errors.any()
