"""The compiled FP8 operations against those of ops: to the bit where it is rounding, to summation order behind BLAS."""

import numba
import numpy as np
import pytest
from agreement import assert_same, examples, layouts, normal, poison, seeds, twins, uncompiled
from hypothesis import given
from hypothesis import strategies as st

from minids.kernels import fp8_accumulation, quantise
from minids.ops import float8
from minids.ops.float8 import E4M3, E5M2, E5M6
from minids.ops.fp8_accumulation import NEVER_PROMOTED, PROMOTED, Accumulator
from minids.ops.fp8_feed_forward import dispatched
from minids.ops.fp8_linear import Scheme

FORMATS = (E4M3, E5M2, E5M6)
formats = st.sampled_from(FORMATS)


def identical(ours, reference, what=""):
    np.testing.assert_array_equal(ours, reference, err_msg=what)
    assert ours.dtype == reference.dtype


def anything(count, seed=0):
    """Float32 numbers of any bits: every exponent, subnormals, NaN and the infinities."""
    return np.random.default_rng(seed).integers(0, 1 << 32, count, dtype=np.uint32).view(np.float32)


@numba.njit
def one_by_one(y, numbers, codes, values):
    for i in range(y.size):
        codes[i], values[i] = quantise.encode_one(y[i], numbers), quantise.round_one(y[i], numbers)


@pytest.mark.parametrize("format", FORMATS, ids=lambda f: f.name)
def test_formats_are_the_same_to_the_bit_on_a_million_numbers_and_on_halves(format):
    finite = np.unique(format.values[np.isfinite(format.values)])
    halves = (finite[1:] + finite[:-1]) / 2
    near = np.exp2(np.random.default_rng(1).uniform(-24, 17, 500_000)).astype(np.float32)
    y = np.concatenate([finite, halves, near, -near, anything(500_000)])
    codes, values = np.empty(y.shape, format.dtype), np.empty_like(y)
    one_by_one(y, quantise.numbers_of(format), codes, values)
    identical(codes, float8.encode(y, format))
    identical(values, float8.rounded(y, format))


@examples
@given(
    seeds, st.integers(1, 12), st.integers(1, 12), layouts, formats, st.booleans(), st.sampled_from([np.float32, np.float64])
)
def test_quantiser_is_the_same_to_the_bit(seed, m, n, layout, format, power_of_two, dtype):
    reference, ours = twins("quantise")
    rng = np.random.default_rng(seed)
    x = normal(rng, (m, n), dtype, layout) * dtype(10.0 ** rng.integers(-6, 6))
    if seed % 3 == 0:
        poison(rng, x)
    for tile in ((1, 5), (5, 1), (4, 3), None):
        want, got = reference.forward(x, tile, format, power_of_two), ours.forward(x, tile, format, power_of_two)
        number = ~np.isnan(format.values[want.codes])
        identical(got.codes[number], want.codes[number], "codes")
        assert np.isnan(format.values[got.codes[~number]]).all()
        identical(got.scales, want.scales, "scales")
        identical(ours.dequantise(want), reference.dequantise(want), "numbers")
        identical(ours.rounded(x, tile, format, power_of_two), reference.rounded(x, tile, format, power_of_two), "rounded")


@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (130, 257)])
def test_quantiser_at_the_edges(shape):
    reference, ours = twins("quantise")
    x = normal(np.random.default_rng(0), shape, np.float32)
    for tile in ((1, 128), (128, 1), (128, 128)):
        identical(ours.forward(x, tile).codes, reference.forward(x, tile).codes)


@pytest.mark.parametrize("accumulator", [PROMOTED, NEVER_PROMOTED, Accumulator(8, 64)], ids=str)
@pytest.mark.parametrize("terms", [1, 33, 300])
def test_the_short_accumulator_is_the_same_to_the_bit_where_products_are_exact(accumulator, terms):
    reference, ours = twins("fp8_accumulation")
    rng, rounded = np.random.default_rng(terms), twins("quantise")[0].rounded
    a = rounded(normal(rng, (5, terms), np.float32), (1, 128), power_of_two=True)
    b = rounded(normal(rng, (terms, 70), np.float32), (128, 128), power_of_two=True)
    identical(ours.matmul(a, b, accumulator), reference.matmul(a, b, accumulator))
    wide = a.astype(np.float64)
    identical(ours.matmul(wide, b, accumulator), reference.matmul(wide, b, accumulator))
    a[0, 0] = np.nan
    identical(ours.matmul(a, b, accumulator), reference.matmul(a, b, accumulator), "NaN")


RECIPES = [Scheme(5), dispatched(Scheme()), Scheme(None), Scheme(7).after_attention()]


@examples
@given(seeds, st.integers(1, 20), layouts, st.sampled_from(RECIPES))
def test_linear(seed, n, layout, scheme):
    rng = np.random.default_rng(seed)
    x, w, dy = (normal(rng, shape, np.float32, layout) for shape in ((n, 9), (6, 9), (n, 6)))
    results = []
    for module in twins("fp8_linear"):
        y, saved = module.forward(x, w, x[0, :6].copy(), scheme)
        results.append((y, *module.backward(dy, saved)))
    assert_same(results[1], tuple(results[0]), str(scheme))


def test_a_float64_weight_and_the_accumulator():
    rng = np.random.default_rng(0)
    x, w, dy = (normal(rng, shape, np.float64) for shape in ((6, 40), (3, 40), (6, 3)))
    for scheme in (Scheme(), Scheme(accumulator=PROMOTED)):
        results = []
        for module in twins("fp8_linear"):
            y, saved = module.forward(x, w, None, scheme)
            results.append((y, *module.backward(dy, saved)))
        assert_same(results[1], tuple(results[0]), str(scheme))
        assert results[1][0].dtype == np.float64


@examples
@given(seeds, st.sampled_from([[3], [4, 0, 7], [0, 2]]), st.sampled_from(RECIPES[:3]))
def test_feed_forward(seed, counts, scheme):
    rng, starts = np.random.default_rng(seed), np.concatenate([[0], np.cumsum(counts)])
    shapes = ((sum(counts), 9), (len(counts), 6, 9), (len(counts), 6, 9), (len(counts), 9, 6), (sum(counts), 9))
    rows, gate, up, down, dy = (normal(rng, shape, np.float32) for shape in shapes)
    results = []
    for module in twins("fp8_feed_forward"):
        y, saved = module.forward(rows, starts, gate, up, down, scheme)
        results.append((y, *module.backward(dy, saved)))
    # The two exponentials differ in the last digit, which now and then turns a rounding the other way: one step of E4M3.
    assert_same(results[1], tuple(results[0]), str(scheme), tolerance=0.05)
    close = [np.mean(np.abs(a - b) <= 1e-5 * np.abs(a).max()) for a, b in zip(*results, strict=True)]
    assert np.mean(close) > 0.9, "not a matter of single roundings"


def test_kernels_also_run_uncompiled(monkeypatch):
    reference, ours = twins("quantise")
    x = normal(np.random.default_rng(0), (3, 40), np.float32)
    a, b = reference.rounded(x, (1, 8), power_of_two=True), reference.rounded(x.T.copy(), (8, 8), power_of_two=True)
    want = twins("fp8_accumulation")[0].matmul(a, b, PROMOTED)
    for module in (ours, fp8_accumulation):
        uncompiled(monkeypatch, module)
    for power_of_two in (False, True):
        identical(ours.forward(x, (2, 8), E4M3, power_of_two).codes, reference.forward(x, (2, 8), E4M3, power_of_two).codes)
        identical(ours.rounded(x, (2, 8), E4M3, power_of_two), reference.rounded(x, (2, 8), E4M3, power_of_two))
    np.testing.assert_array_equal(fp8_accumulation.matmul(a, b, PROMOTED), want)
