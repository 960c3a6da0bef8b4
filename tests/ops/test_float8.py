"""The formats against ml_dtypes on every code, every half between two codes and a million numbers; E5M6 against fractions."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minids.ops import float8
from minids.ops.float8 import E4M3, E5M2, E5M6

FORMATS = (E4M3, E5M2, E5M6)
ORACLES = {"E4M3": ml_dtypes.float8_e4m3fn, "E5M2": ml_dtypes.float8_e5m2}


def by_oracle(x, format):
    """Codes by ml_dtypes, whose casts do not saturate: clipped before."""
    with np.errstate(invalid="ignore"):
        return np.clip(x, -format.largest, format.largest).astype(ORACLES[format.name]).view(np.uint8)


def assert_same_codes(x, format, module=float8):
    got, want = module.encode(x, format), by_oracle(x, format)
    nan = np.isnan(x)
    np.testing.assert_array_equal(got[~nan], want[~nan], err_msg=f"{format.name}: other codes than ml_dtypes")
    assert np.isnan(float8.decode(got[nan], format)).all(), f"{format.name}: a NaN became a number"


def numbers_between(format):
    """Every finite number of the format, every half between neighbours, and their neighbours in float32."""
    finite = np.unique(format.values[np.isfinite(format.values)])
    halves = (finite[1:].astype(np.float64) + finite[:-1]) / 2
    assert (halves.astype(np.float32) == halves).all(), "a half is no float32"
    halves = halves.astype(np.float32)
    around = [np.nextafter(halves, np.float32(side) * np.float32(np.inf)) for side in (-1, 1)]
    return np.concatenate([finite, halves, *around])


def random_numbers(format, count=1_000_000, seed=0):
    """Half of them any bits of a float32, the others spread over the format's range and a little beyond."""
    rng = np.random.default_rng(seed)
    anything = rng.integers(0, 1 << 32, count // 2, dtype=np.uint32).view(np.float32)
    lowest, highest = np.log2(format.smallest_normal) - format.mantissa_bits - 3, np.log2(format.largest) + 1
    spread = np.exp2(rng.uniform(lowest, highest, count // 2)) * rng.choice([-1, 1], count // 2)
    return np.concatenate([anything, spread.astype(np.float32)])


@pytest.mark.parametrize("format", [E4M3, E5M2], ids=lambda f: f.name)
def test_every_code_stands_for_the_number_that_ml_dtypes_reads(format):
    want = np.arange(256, dtype=np.uint8).view(ORACLES[format.name]).astype(np.float32)
    np.testing.assert_array_equal(format.values, want)
    number = ~np.isnan(want)
    assert np.array_equal(np.signbit(format.values[number]), np.signbit(want[number])), "a zero lost its sign"


@pytest.mark.parametrize("format", FORMATS, ids=lambda f: f.name)
def test_every_number_of_the_format_is_encoded_as_itself(format):
    codes = np.arange(2**format.bits).astype(format.dtype)
    finite = np.isfinite(format.values)
    np.testing.assert_array_equal(float8.encode(format.values, format)[finite], codes[finite])


@pytest.mark.parametrize("format", [E4M3, E5M2], ids=lambda f: f.name)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_halves_between_codes_round_to_even_as_ml_dtypes_does(format, dtype):
    assert_same_codes(numbers_between(format).astype(dtype), format)


@pytest.mark.parametrize("format", [E4M3, E5M2], ids=lambda f: f.name)
def test_a_million_numbers_round_as_ml_dtypes_does(format):
    assert_same_codes(random_numbers(format), format)


def exactly(x: float, format) -> float:
    """The nearest number of the format in exact arithmetic; of two, the one with the even code; saturating."""
    above = min(int(np.searchsorted(format.values[: format.last + 1], abs(x))), format.last)
    distances = {
        code: abs(Fraction(float(format.values[code])) - abs(Fraction(x))) for code in range(max(above - 2, 0), above + 1)
    }
    code = min(distances, key=lambda code: (distances[code], code & 1))
    return float(np.copysign(format.values[code], x))


@pytest.mark.parametrize("format", FORMATS, ids=lambda f: f.name)
def test_rounding_is_that_of_exact_arithmetic(format):
    every = numbers_between(format)
    some = np.random.default_rng(1).choice(every, 40, replace=False)
    some = np.concatenate([some, random_numbers(format, 40, seed=2), [0.0, -0.0, np.inf, -np.inf, 1e-30, 3e38]])
    for x in some[~np.isnan(some)].astype(np.float32):
        want = exactly(float(x), format) if np.isfinite(x) else np.copysign(format.largest, x)
        got = float8.rounded(x[None], format)[0]
        assert got == want and np.signbit(got) == np.signbit(want), f"{x!r} became {got}, nearest is {want}"


def test_e5m6_is_fp16_with_four_bits_less():
    """So every E5M6 number is an FP16 number, and halves and a million others round as integers of FP16's bits do."""
    as_half = np.arange(0, 1 << 16, 16).astype(np.uint16).view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(E5M6.values, as_half)
    x = np.concatenate([numbers_between(E5M6), random_numbers(E5M6)])
    x = x[np.abs(x) < E5M6.largest].astype(np.float64)
    step = np.exp2(np.maximum(np.floor(np.log2(np.maximum(np.abs(x), 1e-30))), -14) - 6)
    below = np.floor(np.abs(x) / step)
    rest = np.abs(x) / step - below
    up = (rest > 0.5) | ((rest == 0.5) & (below % 2 == 1))
    np.testing.assert_array_equal(float8.rounded(x, E5M6), np.copysign((below + up) * step, x))


@pytest.mark.parametrize("format", FORMATS, ids=lambda f: f.name)
def test_encoding_saturates_and_nan_stays_nan(format):
    big = np.array([format.largest, 1e9, np.inf, -1e9, -np.inf], np.float32)
    np.testing.assert_array_equal(float8.rounded(big, format), np.copysign(format.largest, big).astype(np.float32))
    assert np.isnan(float8.rounded(np.array([np.nan, -np.nan]), format)).all()


@pytest.mark.parametrize(
    ("format", "largest", "normal", "step", "infinities", "nans"),
    [(E4M3, 448, 2**-6, 2**-9, 0, 2), (E5M2, 57344, 2**-14, 2**-16, 2, 6), (E5M6, 65024, 2**-14, 2**-20, 2, 126)],
)
def test_limits_of_the_table(format, largest, normal, step, infinities, nans):
    assert (format.largest, format.smallest_normal, format.values[1]) == (largest, normal, step)
    assert (np.isinf(format.values).sum(), np.isnan(format.values).sum()) == (infinities, nans)


def test_float64_is_rounded_once():
    """Just above a half in float64, but the half itself in float32: rounded twice it would go down to even."""
    x = np.array([1 + 1 / 16 + 2.0**-40])
    assert float8.rounded(x)[0] == 1.125 and float8.rounded(x.astype(np.float32))[0] == 1.0


@given(st.floats(-600, 600, width=32), st.floats(-600, 600, width=32))
def test_rounding_is_monotone(a, b):
    low, high = float8.rounded(np.array(sorted([a, b]), np.float32))
    assert low <= high


# Scales.


def test_every_scale_code_is_the_power_of_two_that_ml_dtypes_reads():
    codes = np.arange(256, dtype=np.uint8)
    want = codes.view(ml_dtypes.float8_e8m0fnu).astype(np.float32)
    np.testing.assert_array_equal(float8.decode_scale(codes), want)
    np.testing.assert_array_equal(float8.encode_scale(want), codes)
    assert float8.encode_scale(want).dtype == np.uint8


def test_scales_to_nearest_as_ml_dtypes_and_never_down_otherwise():
    rng = np.random.default_rng(0)
    powers = float8.decode_scale(np.arange(1, 254, dtype=np.uint8))
    halves = powers * np.float32(1.5)
    x = np.concatenate([powers, halves, np.nextafter(halves, np.float32(0)), np.exp2(rng.uniform(-126, 127, 100_000))])
    x = x.astype(np.float32)
    want = x.astype(ml_dtypes.float8_e8m0fnu).view(np.uint8)
    np.testing.assert_array_equal(float8.encode_scale(x, up=False), want)
    up = float8.decode_scale(float8.encode_scale(x)).astype(np.float64)
    assert (up >= x).all() and (up < 2 * x.astype(np.float64)).all(), "not the next power of two above"


def test_scales_that_have_no_code():
    np.testing.assert_array_equal(float8.encode_scale(np.array([0, -1, np.nan], np.float32)), [255, 255, 255])
    np.testing.assert_array_equal(float8.encode_scale(np.array([1e-45, 3e38, np.inf], np.float32)), [0, 254, 254])
