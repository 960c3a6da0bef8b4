"""BF16 and FP8 against ml_dtypes, and the block scales against a loop."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minids.checkpoint.dtypes import E4M3, E5M2, bf16_to_float32, decode, dequantise, float32_to_bf16, scale_shape


@pytest.mark.parametrize(("table", "oracle"), [(E4M3, ml_dtypes.float8_e4m3fn), (E5M2, ml_dtypes.float8_e5m2)])
def test_every_fp8_code_has_its_value(table, oracle):
    expected = np.arange(256, dtype=np.uint8).view(oracle).astype(np.float32)
    np.testing.assert_array_equal(table, expected)
    number = ~np.isnan(expected)  # the sign of a NaN means nothing
    assert np.array_equal(np.signbit(table[number]), np.signbit(expected[number])), "a zero lost its sign"


def test_e4m3_limits_of_the_paper():
    assert np.nanmax(E4M3) == 448 and not np.isinf(E4M3).any() and np.isnan(E4M3).sum() == 2
    assert E4M3[1] == 2.0**-9 and E4M3[8] == 2.0**-6, "smallest subnormal and smallest normal"


def test_every_bf16_code_decodes_exactly():
    codes = np.arange(1 << 16, dtype=np.uint16)
    expected = codes.view(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(bf16_to_float32(codes), expected)
    for dtype in (np.float32, np.float64):
        out = np.empty(codes.shape, dtype)
        decode(codes, "BF16", out)
        np.testing.assert_array_equal(out, expected)


def test_bf16_rounds_to_nearest_even_on_all_kinds_of_float32():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 1 << 32, 200_000, dtype=np.uint32)
    ties = (rng.integers(0, 1 << 16, 20_000, dtype=np.uint32) << 16) | 0x8000  # exactly between two BF16 numbers
    edges = np.array([0, 1, 0x7F7FFFFF, 0x7F7F8000, 0x7F7F7FFF, 0x7F800000, 0x80000000, 0xFF800000], np.uint32)
    values = np.concatenate([bits, ties, ties - 1, ties + 1, edges]).view(np.float32)
    nan = np.isnan(values)
    with np.errstate(invalid="ignore"):
        expected = values[~nan].astype(ml_dtypes.bfloat16).view(np.uint16)
    np.testing.assert_array_equal(float32_to_bf16(values[~nan]), expected)
    assert np.isnan(bf16_to_float32(float32_to_bf16(values[nan]))).all(), "a NaN became a number"


def test_a_nan_whose_payload_lies_in_the_lower_half_stays_nan():
    values = np.array([0x7F800001, 0xFFFFFFFF, 0xFF800001], np.uint32).view(np.float32)
    assert np.isnan(bf16_to_float32(float32_to_bf16(values))).all()


@given(st.integers(1, 9), st.integers(1, 11), st.integers(1, 5), st.integers(1, 5), st.integers(0, 100))
def test_dequantise_is_the_loop_of_the_definition(m, n, block_m, block_n, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1, (m, n)).astype(np.float32)
    scales = rng.normal(0, 1, scale_shape((m, n), (block_m, block_n))).astype(np.float32)
    expected = np.array([[values[i, j] * scales[i // block_m, j // block_n] for j in range(n)] for i in range(m)])
    whole = values.copy()
    dequantise(whole, scales, (block_m, block_n))
    np.testing.assert_array_equal(whole, expected)
    rows = rng.integers(0, m, 4)
    some = values[rows]
    dequantise(some, scales, (block_m, block_n), rows)
    np.testing.assert_array_equal(some, expected[rows], "scales of chosen rows")


def test_v3_has_5_by_56_scales_for_kv_a_proj():
    assert scale_shape((576, 7168), (128, 128)) == (5, 56)
