"""Products with causal attention's triangle: equal to the whole product, and what lies beyond is not even looked at."""

import numpy as np
import pytest

from minids.kernels._causal import GATHERED, LOGITS, WEIGHTED, causal_product, padded, triangles
from minids.kernels._jit import kernel
from minids.kernels._tile import TALLEST

DTYPES = (np.float32, np.float64)
SIZES = (
    (1, 0, 3),
    (5, 0, 8),
    (13, 2, 16),
    (64, 0, 32),
    (70, 37, 20),
    (128, 128, 33),
)  # queries, keys before them, width of a head


@kernel
def multiplied(kind, later, a, b, out, add, by):
    causal_product(kind, later, a, b, out, add, by)


def whole(rng, shape, dtype):
    """Whole numbers, so that every sum is exact."""
    return rng.integers(-9, 9, shape).astype(dtype)


def tile(values):
    """In a room with as many columns as rows of logits have, the rest NaN."""
    room = np.full((len(values), padded(values.shape[1])), np.nan, values.dtype)
    room[:, : values.shape[1]] = values
    return room[:, : values.shape[1]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("queries, later, width", SIZES)
def test_the_three_kinds_are_the_whole_products(queries, later, width, dtype):
    rng, by = np.random.default_rng(0), triangles(np.dtype(dtype))
    keys = queries + later
    q, k = whole(rng, (queries, width), dtype), whole(rng, (keys, width), dtype)
    seen = np.tri(queries, keys, later, dtype=bool)

    logits = tile(np.full((queries, keys), np.nan, dtype))
    multiplied(LOGITS, later, q, k.T, logits, False, by)
    assert np.array_equal(logits[seen], (q @ k.T)[seen])

    p = tile(np.where(seen, whole(rng, (queries, keys), dtype), 0))
    for add in (False, True):
        out = np.ones((queries, width), dtype)
        multiplied(WEIGHTED, later, p, k, out, add, by)
        assert np.array_equal(out, p @ k + add)
        out = np.ones((keys, width), dtype)
        multiplied(GATHERED, later, p.T, q, out, add, by)
        assert np.array_equal(out, p.T @ q + add)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_no_query_of_a_tile_sees_is_not_read(dtype):
    """A bad number there would show: 0 · NaN is NaN."""
    rng, by, queries = np.random.default_rng(1), triangles(np.dtype(dtype)), 3 * TALLEST
    p = tile(np.tril(whole(rng, (queries, queries), dtype)))
    for first in range(TALLEST, queries, TALLEST):
        v, right = whole(rng, (queries, 32), dtype), np.empty((queries, 32), dtype)
        right[:first] = p[:first, :first] @ v[:first]
        v[first:] = np.nan
        out = np.empty((queries, 32), dtype)
        multiplied(WEIGHTED, 0, p, v, out, False, by)
        assert np.array_equal(out[:first], right[:first]), f"queries before {first} saw keys behind"

        do = whole(rng, (queries, 32), dtype)
        right = p.T[first:, first:] @ do[first:]
        do[:first] = np.nan
        multiplied(GATHERED, 0, p.T, do, out, False, by)
        assert np.array_equal(out[first:], right), f"keys from {first} on were given gradients of queries before"


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_outside_the_result_is_written(dtype):
    rng, by = np.random.default_rng(2), triangles(np.dtype(dtype))
    for queries, later, width in SIZES:
        keys = queries + later
        q, k = whole(rng, (queries, width), dtype), whole(rng, (keys, width), dtype)
        around = np.full((queries + 2, padded(keys)), np.nan, dtype)  # logits may fill their padding, and no other row
        multiplied(LOGITS, later, q, k.T, around[1:-1, :keys], False, by)
        assert np.isnan(around[[0, -1]]).all()
        p, around = tile(np.tri(queries, keys, later, dtype=dtype)), np.full((queries + 2, width + 2), np.nan, dtype)
        multiplied(WEIGHTED, later, p, k, around[1:-1, 1:-1], False, by)
        around[1:-1, 1:-1] = np.nan
        assert np.isnan(around).all(), f"{queries} queries, {width} wide: something beside the result was written"
