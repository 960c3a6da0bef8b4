"""What is read from files against ml_dtypes, and the block scales against a loop."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minids.checkpoint.dtypes import decode, dequantise
from minids.ops.quantise import grid


@pytest.mark.parametrize(
    ("name", "oracle", "codes"),
    [
        ("F8_E4M3", ml_dtypes.float8_e4m3fn, np.arange(256, dtype=np.uint8)),
        ("F8_E5M2", ml_dtypes.float8_e5m2, np.arange(256, dtype=np.uint8)),
        ("F8_E8M0", ml_dtypes.float8_e8m0fnu, np.arange(256, dtype=np.uint8)),
        ("BF16", ml_dtypes.bfloat16, np.arange(1 << 16, dtype=np.uint16)),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_code_has_its_value(name, oracle, codes, dtype):
    out = np.empty(codes.shape, dtype)
    decode(codes, name, out)
    np.testing.assert_array_equal(out, codes.view(oracle).astype(np.float32))


@given(st.integers(1, 9), st.integers(1, 11), st.integers(1, 5), st.integers(1, 5), st.integers(0, 100))
def test_dequantise_is_the_loop_of_the_definition(m, n, block_m, block_n, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1, (m, n)).astype(np.float32)
    scales = rng.normal(0, 1, grid((m, n), (block_m, block_n))).astype(np.float32)
    expected = np.array([[values[i, j] * scales[i // block_m, j // block_n] for j in range(n)] for i in range(m)])
    whole = values.copy()
    dequantise(whole, scales, (block_m, block_n))
    np.testing.assert_array_equal(whole, expected)
    rows = rng.integers(0, m, 4)
    some = values[rows]
    dequantise(some, scales, (block_m, block_n), rows)
    np.testing.assert_array_equal(some, expected[rows], "scales of chosen rows")


def test_v3_has_5_by_56_scales_for_kv_a_proj():
    assert grid((576, 7168), (128, 128)) == (5, 56)
