"""The quantiser against a loop over tiles with ml_dtypes, and what its scales promise."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minids.ops import quantise
from minids.ops.float8 import E4M3, E5M2, E5M6

RNG = np.random.default_rng(0)


def by_tiles(x, rows, columns, power_of_two=False):
    """Codes, scales and x̂ tile by tile, as DeepSeek's act_quant writes it, with ml_dtypes for the cast."""
    codes, values = np.empty(x.shape, np.uint8), np.empty(x.shape, np.float32)
    scales = np.empty((-(-x.shape[0] // rows), -(-x.shape[1] // columns)), np.float32)
    for r in range(scales.shape[0]):
        for c in range(scales.shape[1]):
            own = np.s_[r * rows : (r + 1) * rows, c * columns : (c + 1) * columns]
            scale = np.float32(max(np.abs(x[own]).max(), np.float32(1e-4))) / np.float32(448)
            if power_of_two:
                scale = np.float32(2.0 ** np.ceil(np.log2(np.float64(scale))))
            cast = np.clip(x[own] / scale, -448, 448).astype(ml_dtypes.float8_e4m3fn)
            scales[r, c], codes[own], values[own] = scale, cast.view(np.uint8), cast.astype(np.float32) * scale
    return codes, scales, values


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 9), st.integers(1, 9), st.booleans(), st.integers(0, 99))
def test_any_tile_of_any_matrix_is_the_loop_over_tiles(m, n, rows, columns, power_of_two, seed):
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((m, n)) * np.exp(rng.normal(0, 4, (m, n)))).astype(np.float32)
    codes, scales, values = by_tiles(x, rows, columns, power_of_two)
    q = quantise.forward(x, (rows, columns), power_of_two=power_of_two)
    np.testing.assert_array_equal(q.codes, codes)
    np.testing.assert_array_equal(q.scales, scales)
    np.testing.assert_array_equal(quantise.dequantise(q), values)
    np.testing.assert_array_equal(quantise.rounded(x, (rows, columns), power_of_two=power_of_two), values)


def test_shapes_of_the_scales():
    """576 × 7168 is V3's kv_a_proj: 5 × 56 blocks, the last of only 64 rows."""
    x = np.ones((576, 7168), np.float32)
    assert quantise.forward(x, (128, 128)).scales.shape == (5, 56)
    assert quantise.forward(x, (1, 128)).scales.shape == (576, 56)
    assert quantise.forward(x, (128, 1)).scales.shape == (5, 7168)
    assert quantise.forward(x, None).scales.shape == (1, 1)
    assert quantise.forward(x[:0], (1, 128)).scales.shape == (0, 56)


def test_codes_are_bytes_and_a_block_costs_one_scale():
    q = quantise.forward(np.ones((256, 256), np.float32), (128, 128))
    assert q.codes.dtype == np.uint8 and q.scales.dtype == np.float32
    assert q.codes.nbytes + q.scales.nbytes == q.bits // 8 == 256 * 256 + 4 * 4
    assert quantise.forward(np.ones((2, 128), np.float32), (1, 128), E5M6).bits == 2 * 128 * 12 + 2 * 32


@pytest.mark.parametrize("format", [E4M3, E5M2, E5M6], ids=lambda f: f.name)
@pytest.mark.parametrize("power_of_two", [False, True])
def test_the_error_is_half_a_step_of_the_format(format, power_of_two):
    x = RNG.standard_normal((64, 256)).astype(np.float32)
    q = quantise.forward(x, (1, 128), format, power_of_two)
    scale = np.repeat(q.scales, 128, axis=1)
    allowed = np.maximum(np.abs(x) * 2.0 ** -(format.mantissa_bits + 1), scale * format.values[1] / 2)
    assert (np.abs(quantise.dequantise(q) - x) <= allowed * (1 + 1e-6)).all()


def test_the_largest_of_a_tile_uses_the_whole_range_and_a_power_of_two_at_least_half():
    x = RNG.standard_normal((64, 128)).astype(np.float32)
    top = np.abs(E4M3.values[quantise.forward(x, (1, 128)).codes]).max(axis=1)
    assert (top == 448).all()
    q = quantise.forward(x, (1, 128), power_of_two=True)
    assert (np.frexp(q.scales)[0] == 0.5).all(), "a scale is no power of two"
    top = np.abs(E4M3.values[q.codes]).max(axis=1)
    assert (top >= 224).all() and (top < 448).any()


def test_a_tile_of_zeros_has_the_smallest_scale_and_stays_zero():
    q = quantise.forward(np.zeros((2, 5), np.float32), (1, 128))
    assert (q.scales == np.float32(1e-4) / np.float32(448)).all() and not quantise.dequantise(q).any()


@given(st.integers(1, 300), st.booleans(), st.sampled_from([E4M3, E5M6]), st.integers(0, 99))
def test_what_was_quantised_once_is_not_changed_again(n, power_of_two, format, seed):
    x = np.random.default_rng(seed).standard_normal((3, n)).astype(np.float32)
    once = quantise.rounded(x, (1, 128), format, power_of_two)
    twice = quantise.rounded(once, (1, 128), format, power_of_two)
    if power_of_two:
        np.testing.assert_array_equal(twice, once)
    else:
        np.testing.assert_allclose(twice, once, rtol=2e-7, err_msg="beyond the rounding of the scale itself")


def test_powers_of_two_let_the_tiles_be_turned_without_loss():
    """But for numbers that fall below the smallest normal one of their new tile; other scales lose everywhere."""
    x = (RNG.standard_normal((256, 256)) * np.exp(RNG.normal(0, 1.5, (256, 1)))).astype(np.float32)
    lost = {}
    for power_of_two in (True, False):
        rows = quantise.rounded(x, (1, 128), power_of_two=power_of_two)
        turned = quantise.forward(rows, (128, 1), power_of_two=power_of_two)
        columns = quantise.dequantise(turned)
        scale = np.repeat(turned.scales, 128, axis=0)
        normal = np.abs(rows) >= E4M3.smallest_normal * scale
        lost[power_of_two] = (columns != rows)[normal].mean()
    assert lost[True] == 0, "a normal number was rounded a second time"
    assert lost[False] > 0.5, "the comparison shows nothing"


def test_an_outlier_takes_the_range_of_its_own_tile_only():
    x = RNG.standard_normal((128, 512)).astype(np.float32)
    x[5, 7] = 1e6
    error = {tile: np.abs(quantise.rounded(x, tile) - x) for tile in ((1, 128), (128, 128), None)}
    clean = np.s_[:, 128:]
    assert error[(1, 128)][clean].max() < 0.2 and error[(128, 128)][clean].max() < 0.2
    assert error[None][clean].max() > 1, "per tensor, everything else becomes 0"
    ordinary = np.ones(x.shape, bool)
    ordinary[5, :128] = False
    assert error[(1, 128)][ordinary].max() < 0.2 < 1 < error[(128, 128)][ordinary].max()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("power_of_two", [False, True])
def test_nan_and_infinity_spoil_their_tile_and_no_other(bad, power_of_two):
    x = np.ones((3, 256), np.float32)
    x[1, 5] = bad
    values = quantise.rounded(x, (1, 128), power_of_two=power_of_two)
    assert np.isnan(values[1, :128]).all() and np.isfinite(np.delete(values, 1, axis=0)).all()
    assert np.isfinite(values[1, 128:]).all()


def test_float64_comes_back_as_float64_and_equals_float32_where_that_holds_it():
    x = RNG.standard_normal((4, 130)).astype(np.float32)
    wide = quantise.rounded(x.astype(np.float64), (1, 128))
    assert wide.dtype == np.float64
    np.testing.assert_allclose(wide, quantise.rounded(x, (1, 128)), rtol=0.07)
    assert (wide == quantise.rounded(x, (1, 128))).mean() > 0.999
