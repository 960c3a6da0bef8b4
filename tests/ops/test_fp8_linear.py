"""The three products in FP8 against an explicit emulation: tile by tile, casts by ml_dtypes, scales applied to partial sums."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minids.ops import fp8_linear, linear, quantise
from minids.ops.float8 import E4M3, E5M6
from minids.ops.fp8_accumulation import NEVER_PROMOTED
from minids.ops.fp8_linear import Scheme

RNG = np.random.default_rng(0)
RECIPES = {
    "V3": Scheme(),
    "V3, tiles of 5": Scheme(5),
    "dispatched": Scheme(5, round_inputs=True, round_gradients=True),
    "behind attention": Scheme(5).after_attention(),
    "per tensor": Scheme(None),
}


def cast(x, amax, power_of_two=False, format=E4M3):
    """x of one tile → its numbers before scaling, and the scale. float32 as in the kernels."""
    scale = np.float32(max(amax, np.float32(1e-4))) / np.float32(format.largest)
    if power_of_two:
        scale = np.float32(2.0 ** np.ceil(np.log2(np.float64(scale))))
    y = np.clip(x / scale, -format.largest, format.largest)
    if format is E4M3:
        return y.astype(ml_dtypes.float8_e4m3fn).astype(np.float64), float(scale)
    exponent = np.maximum(np.floor(np.log2(np.maximum(np.abs(y), 1e-30).astype(np.float64))), -14)
    step = 2.0 ** (exponent - 6)  # E5M6, of which ml_dtypes has none
    return np.rint(y / step) * step, float(scale)


def tiled(x, rows, columns, power_of_two=False, format=E4M3):
    """Whole matrix: numbers before scaling and the scale of each element, both (M, N), by loops over tiles."""
    numbers, scales = np.empty(x.shape), np.empty(x.shape)
    for r in range(0, x.shape[0], rows):
        for c in range(0, x.shape[1], columns):
            own = np.s_[r : r + rows, c : c + columns]
            numbers[own], scales[own] = cast(x[own], np.abs(x[own]).max(), power_of_two, format)
    return numbers, scales


def product(a, b, tile):
    """Σ over blocks of K of (numbers · numbers) · scale · scale: the scales meet partial sums, as on the tensor core.
    And Σ |products|, which summation errors are measured by."""
    (a, a_scale), (b, b_scale) = a, b  # (M, K), (K, N)
    total, magnitude = np.zeros((a.shape[0], b.shape[1])), np.zeros((a.shape[0], b.shape[1]))
    for k in range(0, a.shape[1], tile):
        own, scale = slice(k, k + tile), a_scale[:, k][:, None] * b_scale[k]
        total += (a[:, own] @ b[own]) * scale
        magnitude += (np.abs(a[:, own]) @ np.abs(b[own])) * scale
    return total, magnitude


def emulated(x, w, dy, scheme):
    """y, dx, dW of the paper's scheme, each with its Σ |products|."""
    huge = 10**6
    t = scheme.tile or huge
    row, column, block = ((1, t), (t, 1), (t, t)) if scheme.tile else ((huge, huge),) * 3

    def transposed(pair):
        return pair[0].T, pair[1].T

    x_row = tiled(x, *row, scheme.round_inputs, scheme.inputs)
    w_block = tiled(w, *block)
    y = product(x_row, transposed(w_block), t)
    dy_row = tiled(dy, *row, scheme.round_gradients)
    dx = product(dy_row, w_block, t)
    x_kept = (x_row[0] * x_row[1]).astype(np.float32)
    arrived = (dy_row[0] * dy_row[1]).astype(np.float32) if scheme.round_gradients else dy
    dy_column = tiled(arrived, *column, scheme.round_gradients)
    x_column = tiled(x_kept, *column, scheme.round_inputs, scheme.inputs)
    d_weight = product(transposed(dy_column), x_column, t)
    return y, dx, d_weight


def some(n, n_in, n_out, rng=RNG):
    x = (rng.standard_normal((n, n_in)) * np.exp(rng.normal(0, 1, n_in))).astype(np.float32)
    w, dy = rng.standard_normal((n_out, n_in)).astype(np.float32), rng.standard_normal((n, n_out)).astype(np.float32)
    return x, w, dy * np.exp(rng.normal(0, 2, (n, 1))).astype(np.float32)


def assert_by_rounding(got, want, what, terms):
    """Equal up to float32 rounding of the operands and of a sum of so many terms: (terms + 4) · 2⁻²⁴ of Σ |products|."""
    want, magnitude = want
    worst = (np.abs(got - want) / magnitude).max()
    allowed = 2.0**-24 * (terms + 4)
    assert worst <= allowed, f"{what}: off by {worst:.2g} of Σ |products|, summation order explains {allowed:.2g}"


@pytest.mark.parametrize("name", RECIPES)
def test_all_three_products_are_the_emulated_ones(name):
    x, w, dy = some(13, 17, 11)
    y, saved = fp8_linear.forward(x, w, None, RECIPES[name])
    dx, d_weight, d_bias = fp8_linear.backward(dy, saved)
    want = emulated(x, w, dy, RECIPES[name])
    for got, wanted, what, terms in zip((y, dx, d_weight), want, ("y", "dx", "dW"), (17, 11, 13), strict=True):
        assert_by_rounding(got, wanted, f"{name}: {what}", terms)
    assert d_bias is None


@settings(max_examples=30)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30), st.integers(1, 9), st.sampled_from([False, True]))
def test_ragged_edges_too(n, n_in, n_out, tile, rounding):
    scheme = Scheme(tile, round_inputs=rounding, round_gradients=rounding)
    x, w, dy = some(n, n_in, n_out, np.random.default_rng(n + 31 * n_in + 961 * n_out))
    y, saved = fp8_linear.forward(x, w, None, scheme)
    dx, d_weight, _ = fp8_linear.backward(dy, saved)
    for got, want in zip((y, dx, d_weight), emulated(x, w, dy, scheme), strict=True):
        assert_by_rounding(got, want, str(scheme), max(n, n_in, n_out))


def test_v3s_tiles_at_a_size_that_has_several_of_each():
    x, w, dy = some(300, 260, 200)
    y, saved = fp8_linear.forward(x, w)
    dx, d_weight, _ = fp8_linear.backward(dy, saved)
    assert saved.x.scales.shape == (300, 3) and saved.weight.scales.shape == (2, 3)
    for got, want, terms in zip((y, dx, d_weight), emulated(x, w, dy, Scheme()), (260, 200, 300), strict=True):
        assert_by_rounding(got, want, "V3", terms)


@pytest.mark.parametrize("name", RECIPES)
def test_numbers_that_need_no_rounding_give_the_exact_linear_map(name):
    """Small integers are E4M3 numbers under any power-of-two scale; so every gradient is the linear map's, bit for bit."""
    scheme = RECIPES[name]._replace(round_inputs=True, round_gradients=True)
    x, w, dy = (RNG.integers(-3, 4, shape).astype(np.float32) * 64 for shape in ((13, 17), (11, 17), (13, 11)))
    w[0, 0] = w[5, 5] = w[0, 10] = w[5, 10] = w[10, 0] = w[5, 0] = w[0, 5] = w[10, 5] = w[10, 10] = w[0, 15] = 448
    w[5, 15] = w[10, 15] = 448  # weights have no power-of-two scales: 448 in each block makes theirs 1
    bias = RNG.standard_normal(11).astype(np.float32)
    y, saved = fp8_linear.forward(x, w, bias, scheme)
    want, want_saved = linear.forward(x, w, bias)
    np.testing.assert_array_equal(y, want)
    for got, exact, what in zip(
        fp8_linear.backward(dy, saved), linear.backward(dy, want_saved), ("dx", "dW", "db"), strict=True
    ):
        np.testing.assert_array_equal(got, exact, err_msg=what)


@pytest.mark.parametrize("name", RECIPES)
def test_gradients_are_those_of_the_unquantised_map_up_to_the_formats_step(name):
    """Straight through: a few per cent away from central differences of x Wᵀ, in the direction of them."""
    x, w, _ = some(40, 50, 30)
    g = RNG.standard_normal((40, 30)).astype(np.float32)  # the function is Σ g · (x Wᵀ)
    _, saved = fp8_linear.forward(x, w, None, RECIPES[name])
    dx, d_weight, _ = fp8_linear.backward(g, saved)
    wide, step = (x.astype(np.float64), w.astype(np.float64)), 1e-3

    def f(x, w):
        return float(np.sum(g * (x @ w.T)))

    for which, gradient in enumerate((dx, d_weight)):
        for _ in range(5):
            direction = gradient + np.linalg.norm(gradient) / 10 * RNG.standard_normal(gradient.shape) / gradient.size**0.5
            ends = []
            for side in (1, -1):
                moved = list(wide)
                moved[which] = wide[which] + side * step * direction
                ends.append(f(*moved))
            numeric = (ends[0] - ends[1]) / (2 * step)
            analytic = float(np.sum(gradient * direction))
            assert abs(numeric - analytic) < 0.05 * abs(numeric), f"{name}: {analytic} instead of {numeric}"
    exact = linear.backward(g, linear.forward(x, w)[1])
    for got, want in zip((dx, d_weight), exact[:2], strict=True):
        error = np.linalg.norm(got - want) / np.linalg.norm(want)
        assert 1e-3 < error < 0.06, f"{name}: relative error {error:.3f}; E4M3 rounds to 2 to 4 per cent"


def test_what_is_kept_is_a_byte_per_element():
    x, w, _ = some(8, 256, 128)
    _, saved = fp8_linear.forward(x, w)
    assert saved.x.codes.nbytes == x.size and saved.weight.codes.nbytes == w.size
    _, saved = fp8_linear.forward(x, w, None, Scheme().after_attention())
    assert saved.x.format is E5M6 and saved.x.bits == x.size * 12 + saved.x.scales.size * 32
    assert (np.frexp(saved.x.scales)[0] == 0.5).all()


def test_the_bias_and_any_leading_axes():
    x, w, dy = some(12, 7, 5)
    bias = RNG.standard_normal(5).astype(np.float32)
    y, saved = fp8_linear.forward(x.reshape(3, 4, 7), w, bias)
    flat, _ = fp8_linear.forward(x, w)
    np.testing.assert_array_equal(y.reshape(12, 5), flat + bias)
    dx, _, d_bias = fp8_linear.backward(dy.reshape(3, 4, 5), saved)
    assert dx.shape == (3, 4, 7)
    np.testing.assert_array_equal(d_bias, dy.sum(axis=0))


def test_the_accumulator_is_used_in_all_three_products():
    x, w, dy = some(200, 160, 96)
    results = []
    for accumulator in (None, NEVER_PROMOTED):
        y, saved = fp8_linear.forward(x, w, None, Scheme(accumulator=accumulator))
        results.append((y, *fp8_linear.backward(dy, saved)[:2]))
    for exact, cut, what in zip(*results, ("y", "dx", "dW"), strict=True):
        error = np.linalg.norm(exact - cut) / np.linalg.norm(exact)
        assert 1e-5 < error < 1e-2, f"{what}: {error:.2g}"


def test_an_outlier_in_one_token_hurts_the_others_only_per_tensor():
    x, w, _ = some(16, 128, 64)
    x /= np.abs(x).max()
    exact = linear.forward(x, w)[0]
    x[3, 5] = 1e6
    for scheme, most, least in ((Scheme(), 0.06, 0), (Scheme(None), 2, 0.5)):
        others = np.delete(fp8_linear.forward(x, w, None, scheme)[0] - exact, 3, axis=0)
        error = np.linalg.norm(others) / np.linalg.norm(np.delete(exact, 3, axis=0))
        assert least <= error <= most, f"{scheme}: {error:.3f}"


def test_quantised_rows_do_not_depend_on_their_neighbours():
    """Which is what lets a token be decoded alone and give what it gave in a batch."""
    x, _, _ = some(9, 300, 4)
    whole = quantise.rounded(x, (1, 128))
    np.testing.assert_array_equal(whole[4:5], quantise.rounded(x[4:5], (1, 128)))
