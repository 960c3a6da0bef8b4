"""Floats of 8 and 12 bits: real numbers to codes and back, rounded to nearest, ties to even.

    format   sign/exponent/mantissa   bias   largest          smallest normal   subnormal step   inf    NaN
    E4M3     1/4/3                    7      448              2⁻⁶               2⁻⁹              none   s.1111.111
    E5M2     1/5/2                    15     57344            2⁻¹⁴              2⁻¹⁶             yes    yes
    E5M6     1/5/6                    15     65024            2⁻¹⁴              2⁻²⁰             yes    yes
    UE8M0    0/8/0                    127    2¹²⁷             (powers of two)   none             none   255

Micikevicius et al. 2022, table 1, for the first two. V3 uses E4M3 for every FP8 tensor, and its own E5M6 for the inputs of the
linear after attention (section 3.3.3). UE8M0 holds scales that are powers of two (from V3.1 on).

Around |y| the numbers of a format are multiples of one step u, a power of two, so that dividing by it has no error:

    e = max(⌊log₂|y|⌋, 1 − bias)      u = 2^(e − m)      q = rint(|y| / u)      code = (e + bias − 1) · 2^m + q

For a normal number q lies in [2^m, 2^(m+1)], for a subnormal one in [0, 2^m]; where q reaches the upper end, the code is the
next exponent's. Encoding saturates, ±inf included, as the casts of DeepSeek's kernels do; NaN stays NaN.
"""

from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Format(NamedTuple):
    """A signed float format; the codes have 1 + exponent_bits + mantissa_bits bits."""

    name: str
    exponent_bits: int
    mantissa_bits: int  # m
    bias: int
    ieee: bool  # the top exponent means infinity and NaN, as usual; otherwise only all ones means NaN

    @property
    def bits(self) -> int:
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8 if self.bits <= 8 else np.uint16)

    @property
    def nan(self) -> int:
        """Code of NaN without its sign: all ones, or with ``ieee`` the top exponent and the upper mantissa bit."""
        ones = 2 ** (self.bits - 1) - 1
        return ones - (2 ** (self.mantissa_bits - 1) - 1) if self.ieee else ones

    @property
    def last(self) -> int:
        """Code of the largest finite number."""
        return ((2**self.exponent_bits - 1) << self.mantissa_bits) - 1 if self.ieee else self.nan - 1

    @property
    def largest(self) -> float:
        return float(self.values[self.last])

    @property
    def smallest_normal(self) -> float:
        return 2.0 ** (1 - self.bias)

    @property
    def values(self) -> Array:
        """The number that each code stands for, (2^bits,) float32."""
        return _VALUES[self.name]


E4M3 = Format("E4M3", 4, 3, 7, ieee=False)
E5M2 = Format("E5M2", 5, 2, 15, ieee=True)
E5M6 = Format("E5M6", 5, 6, 15, ieee=True)


def _values(f: Format) -> Array:
    codes = np.arange(2**f.bits)
    sign = np.where(codes >> (f.bits - 1), -1.0, 1.0)
    exponent = (codes >> f.mantissa_bits) & (2**f.exponent_bits - 1)
    fraction = (codes & (2**f.mantissa_bits - 1)) / 2**f.mantissa_bits
    subnormal = exponent == 0
    values = sign * np.where(subnormal, fraction, 1 + fraction) * 2.0 ** (np.where(subnormal, 1, exponent) - f.bias)
    if f.ieee:
        top = exponent == 2**f.exponent_bits - 1
        values[top] = np.where(fraction[top] == 0, sign[top] * np.inf, np.nan)
    else:
        values[(codes & f.nan) == f.nan] = np.nan
    values = values.astype(np.float32)
    values.setflags(write=False)
    return values


_VALUES = {f.name: _values(f) for f in (E4M3, E5M2, E5M6)}


def encode(y: Array, format: Format = E4M3) -> Array:
    """y (...) float32 or float64 → codes (...), uint8 or for E5M6 uint16. From either type in one rounding."""
    nan = np.isnan(y)
    size = np.where(nan, 0, np.minimum(np.abs(y), format.largest))
    lowest = 1 - format.bias
    _, above = np.frexp(size)  # size = f · 2^above with f in [1/2, 1)
    e = np.where(size == 0, lowest, np.maximum(above - 1, lowest))  # frexp has no exponent for 0
    q = np.rint(np.ldexp(size, format.mantissa_bits - e))
    codes = ((e - lowest) << format.mantissa_bits) + q.astype(np.int64)
    sign = np.signbit(y).astype(np.int64) << (format.bits - 1)
    return (np.where(nan, format.nan, codes) | sign).astype(format.dtype)


def decode(codes: Array, format: Format = E4M3) -> Array:
    """codes (...) → their numbers (...) float32, exactly."""
    return format.values[codes]


def rounded(y: Array, format: Format = E4M3) -> Array:
    """y (...) → the nearest numbers of the format, in the type of y."""
    return decode(encode(y, format), format).astype(y.dtype)


UE8M0_BIAS, UE8M0_NAN = 127, 255


def encode_scale(scale: Array, up: bool = True) -> Array:
    """scale (...) float32 → UE8M0 codes (...) uint8 of the next power of two above or at it, so that x / s stays in the format;
    ``up=False``: the nearest (midway the larger). Positive ones saturate at 2⁻¹²⁷ and 2¹²⁷; all else gets NaN's code."""
    fraction, above = np.frexp(np.asarray(scale, np.float64))  # scale = fraction · 2^above, fraction in [1/2, 1)
    code = above + (UE8M0_BIAS - 1) + (fraction > 0.5 if up else fraction >= 0.75)
    code = np.where(np.isinf(scale), 254, np.clip(code, 0, 254))
    return np.where(np.asarray(scale) > 0, code, UE8M0_NAN).astype(np.uint8)


def decode_scale(codes: Array) -> Array:
    """UE8M0 codes (...) uint8 → powers of two (...) float32, NaN for 255. 2⁻¹²⁷ is a subnormal number of float32."""
    codes = np.asarray(codes)
    powers = np.ldexp(np.float32(1), np.minimum(codes, UE8M0_NAN - 1).astype(np.int32) - UE8M0_BIAS)
    return np.where(codes == UE8M0_NAN, np.float32(np.nan), powers)
