"""The tensor core's sum against one written number by number in exact arithmetic, and what it costs."""

import math
from fractions import Fraction

import numpy as np
import pytest

from minids.ops import fp8_accumulation, quantise
from minids.ops.fp8_accumulation import GROUP, NEVER_PROMOTED, PROMOTED, Accumulator

RNG = np.random.default_rng(0)


def floor_log2(x: Fraction) -> int:
    return math.frexp(float(x))[1] - 1


def by_hand(a, b, bits, interval):
    """Σ a_k b_k of two vectors as the module's docstring says, with fractions."""
    total = running = Fraction(0)
    for k in range(0, len(a), GROUP):
        products = [Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a[k : k + GROUP], b[k : k + GROUP], strict=True)]
        largest = max(abs(running), *map(abs, products))
        if largest:
            unit = Fraction(2) ** (floor_log2(largest) - (bits - 1))
            running = unit * (int(running / unit) + sum(int(p / unit) for p in products))  # int() cuts towards 0
            if running:
                unit = Fraction(2) ** (floor_log2(abs(running)) - (bits - 1))
                running = unit * int(running / unit)
        if interval and (k + GROUP) % interval == 0:
            total, running = total + running, Fraction(0)
    return float(total + running)


@pytest.mark.parametrize("accumulator", [PROMOTED, NEVER_PROMOTED, Accumulator(6, 64), Accumulator(3)], ids=str)
@pytest.mark.parametrize("terms", [1, 31, 32, 200, 700])
def test_every_sum_is_the_one_done_by_hand(accumulator, terms):
    a = quantise.rounded(RNG.standard_normal((2, terms)).astype(np.float32), (1, 128), power_of_two=True)
    b = quantise.rounded(RNG.standard_normal((terms, 3)).astype(np.float32), (128, 128), power_of_two=True)
    got = fp8_accumulation.matmul(a, b, accumulator)
    for m in range(2):
        for n in range(3):
            want = by_hand(a[m], b[:, n], *accumulator)
            assert abs(got[m, n] - want) <= 2.0**-22 * abs(want), f"[{m}, {n}]: {got[m, n]} instead of {want}"


def test_without_an_accumulator_it_is_the_float32_product():
    a, b = RNG.standard_normal((3, 5)).astype(np.float32), RNG.standard_normal((5, 4)).astype(np.float32)
    np.testing.assert_array_equal(fp8_accumulation.matmul(a, b), a @ b)


def test_all_bits_and_no_terms():
    a, b = RNG.standard_normal((3, 100)).astype(np.float32), RNG.standard_normal((100, 4)).astype(np.float32)
    np.testing.assert_allclose(fp8_accumulation.matmul(a, b, Accumulator(40)), a @ b, rtol=1e-5, atol=1e-5)
    assert not fp8_accumulation.matmul(a * 0, b, NEVER_PROMOTED).any()


def test_without_promotion_a_long_sum_is_wrong_by_per_cents_and_with_it_by_a_fraction_of_one():
    """V3 section 3.3.2: near 2 % for K = 4096. Positive numbers make the sum, and so what is cut off, grow the most."""
    error = {}
    for terms in (512, 4096):
        a, b = RNG.random((8, terms)).astype(np.float32), RNG.random((terms, 8)).astype(np.float32)
        a = quantise.rounded(a, (1, 128), power_of_two=True)
        b = quantise.rounded(b, (128, 128), power_of_two=True)
        exact = a.astype(np.float64) @ b
        for accumulator in (PROMOTED, NEVER_PROMOTED):
            got = fp8_accumulation.matmul(a, b, accumulator)
            error[terms, accumulator.interval] = float((np.abs(got - exact) / exact).max())
    assert 0.01 < error[4096, None] < 0.2 and error[4096, None] > 4 * error[512, None]
    assert error[4096, 128] < 0.004 and error[4096, 128] < 2 * error[512, 128], "promotion keeps the error from growing"


def test_nan_stays_nan():
    a, b = np.ones((2, 40), np.float32), np.ones((40, 3), np.float32)
    a[0, 3] = np.nan
    got = fp8_accumulation.matmul(a, b, PROMOTED)
    assert np.isnan(got[0]).all() and (got[1] == 40).all()
