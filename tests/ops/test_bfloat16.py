"""BF16 against ml_dtypes."""

import ml_dtypes
import numpy as np

from minids.ops import bfloat16


def test_every_code_decodes_exactly():
    codes = np.arange(1 << 16, dtype=np.uint16)
    np.testing.assert_array_equal(bfloat16.decode(codes), codes.view(ml_dtypes.bfloat16).astype(np.float32))


def test_rounds_to_nearest_even_on_all_kinds_of_float32():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 1 << 32, 200_000, dtype=np.uint32)
    ties = (rng.integers(0, 1 << 16, 20_000, dtype=np.uint32) << 16) | 0x8000  # exactly between two BF16 numbers
    edges = np.array([0, 1, 0x7F7FFFFF, 0x7F7F8000, 0x7F7F7FFF, 0x7F800000, 0x80000000, 0xFF800000], np.uint32)
    values = np.concatenate([bits, ties, ties - 1, ties + 1, edges]).view(np.float32)
    nan = np.isnan(values)
    with np.errstate(invalid="ignore"):
        expected = values[~nan].astype(ml_dtypes.bfloat16).view(np.uint16)
    np.testing.assert_array_equal(bfloat16.encode(values[~nan]), expected)
    assert np.isnan(bfloat16.decode(bfloat16.encode(values[nan]))).all(), "a NaN became a number"


def test_a_nan_whose_payload_lies_in_the_lower_half_stays_nan():
    values = np.array([0x7F800001, 0xFFFFFFFF, 0xFF800001], np.uint32).view(np.float32)
    assert np.isnan(bfloat16.decode(bfloat16.encode(values))).all()


def test_a_single_number_stays_one():
    assert bfloat16.encode(np.float32(1.5)).shape == () and int(bfloat16.encode(np.float32(1.5))) == 0x3FC0
    assert float(bfloat16.decode(bfloat16.encode(np.float32(1.5)))) == 1.5
