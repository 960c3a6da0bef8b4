"""Products of a few vectors: right at every size, with the same bits alone and in company, and no byte outside is touched."""

import numpy as np
import pytest
from agreement import DTYPES

from minids.kernels._gemv import feed_forward, project
from minids.kernels._jit import kernel

SIZES = ((1, 1), (5, 7), (16, 16), (17, 40), (64, 33), (8, 128), (3, 300))  # outputs, inputs


@kernel
def projected(x, rows, weights, start, n_out, n_in, y):
    project(x, rows, weights, start, n_out, n_in, y)


@kernel
def fed_forward(x, members, factors, weights, gate, up, down, width, n_in, scratch, y):
    feed_forward(x, members, factors, weights, gate, up, down, width, n_in, scratch, y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", range(1, 11))
def test_every_number_of_vectors_between_bad_numbers(rows, dtype):
    """Whole numbers, so that every sum is exact; around weights, vectors and results lies NaN."""
    rng = np.random.default_rng(rows)
    for n_out, n_in in SIZES:
        weights = np.full(n_out * n_in + 10, np.nan, dtype)
        weights[5:-5] = rng.integers(-9, 9, n_out * n_in)
        x, y = np.full((rows + 1, n_in + 3), np.nan, dtype), np.full((rows + 1, n_out + 2), np.nan, dtype)
        x[:rows, :n_in] = rng.integers(-9, 9, (rows, n_in))
        projected(x, rows, weights, 5, n_out, n_in, y)
        assert np.array_equal(y[:rows, :n_out], x[:rows, :n_in] @ weights[5:-5].reshape(n_out, n_in).T), (n_out, n_in)
        assert np.isnan(y[rows:]).all() and np.isnan(y[:, n_out:]).all(), f"({n_out}, {n_in}): something beside y was written"


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_vector_gets_the_same_bits_alone_and_in_company(dtype):
    rng = np.random.default_rng(0)
    for n_out, n_in in SIZES:
        x, weights = rng.standard_normal((9, n_in)).astype(dtype), rng.standard_normal(n_out * n_in).astype(dtype)
        together = np.empty((9, n_out), dtype)
        projected(x, 9, weights, 0, n_out, n_in, together)
        for rows in range(1, 9):
            some = np.empty((rows, n_out), dtype)
            projected(x[-rows:], rows, weights, 0, n_out, n_in, some)
            assert np.array_equal(some, together[-rows:]), f"{rows} of 9 vectors, ({n_out}, {n_in})"


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity_are_what_they_are_in_numpy(dtype):
    x, weights = np.ones((3, 40), dtype), np.ones((6, 40), dtype)
    x[1, 2], weights[3, 39], weights[4, 5] = np.nan, -np.inf, np.inf
    x[2, 39] = 0  # 0 · −inf
    y = np.empty((3, 6), dtype)
    projected(x, 3, weights.reshape(-1), 0, 6, 40, y)
    with np.errstate(invalid="ignore"):
        assert np.array_equal(y, x @ weights.T, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_network_adds_to_its_members_and_to_nobody_else(dtype):
    rng, (n_in, width) = np.random.default_rng(1), (24, 20)
    gate, up = (rng.standard_normal((width, n_in)).astype(dtype) for _ in range(2))
    down, x = rng.standard_normal((n_in, width)).astype(dtype), rng.standard_normal((6, n_in)).astype(dtype)
    weights = np.concatenate([part.reshape(-1) for part in (gate, up, down)])
    members, factors, y = np.array([4, 0, 3]), np.array([0.5, 2.0, 1.0, 9.0]).astype(dtype), np.ones((6, n_in), dtype)
    places = (0, gate.size, 2 * gate.size)
    fed_forward(x, members, factors, weights, *places, width, n_in, np.full((4, 3, n_in), np.nan, dtype), y)
    right = np.ones((6, n_in))
    for m, f in zip(members, factors, strict=False):
        z = gate.astype(float) @ x[m]
        right[m] += f * (down.astype(float) @ (z / (1 + np.exp(-z)) * (up.astype(float) @ x[m])))
    np.testing.assert_allclose(y, right, rtol=1e-5 if dtype == np.float32 else 1e-12)
    assert (y[[1, 2, 5]] == 1).all()
