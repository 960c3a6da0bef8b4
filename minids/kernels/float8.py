"""Floats of 8 and 12 bits, compiled: see ``minids/ops/float8.py`` for the formats and the equations.

The exponent is read from the bits of the float32 and its power of two is written as bits, so that the loop over the elements is
vector code from end to end: no ``frexp``, no look-up. float64 goes the way of ``ops``, in one rounding.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from minids.kernels._arrays import Array
from minids.kernels._bits import exponent, power_of_two
from minids.kernels._jit import kernel
from minids.ops import float8 as original
from minids.ops.float8 import E4M3, Format


def encode(y: Array, format: Format = E4M3) -> Array:
    """y (...) float32 or float64 → codes (...), uint8 or for E5M6 uint16."""
    if y.dtype != np.float32:
        return original.encode(y, format)
    y = np.asarray(y, order="C")
    codes = np.empty(y.shape, format.dtype)
    encode_all(y.reshape(-1), numbers_of(format), codes.reshape(-1))
    return codes


def decode(codes: Array, format: Format = E4M3) -> Array:
    """codes (...) → their numbers (...) float32, exactly."""
    codes = np.asarray(codes, order="C")
    numbers = np.empty(codes.shape, np.float32)
    look_up(codes.reshape(-1), format.values, numbers.reshape(-1))
    return numbers


def rounded(y: Array, format: Format = E4M3) -> Array:
    """y (...) → the nearest numbers of the format, in the type of y."""
    if y.dtype != np.float32:
        return original.rounded(y, format)
    y = np.asarray(y, order="C")
    result = np.empty_like(y)
    round_all(y.reshape(-1), numbers_of(format), result.reshape(-1))
    return result


@cache
def numbers_of(format: Format) -> tuple[np.float32, np.int32, np.int32, np.int32, np.int32]:
    """Of a format, what the kernels need: largest number, lowest exponent, mantissa bits, bits before the sign, code of NaN."""
    return (
        np.float32(format.largest),
        np.int32(1 - format.bias),
        np.int32(format.mantissa_bits),
        np.int32(format.bits - 1),
        np.int32(format.nan),
    )


@kernel
def encode_one(y, numbers):
    """y → its code."""
    largest, lowest, mantissa, sign_place, nan = numbers
    size = abs(y)
    size = largest if size > largest else size  # a NaN is not above it
    e = max(exponent(size), lowest)  # below the smallest normal number steps no longer shrink
    q = np.rint(size * power_of_two(mantissa - e))  # exact but for the rounding: a product with a power of two
    code = ((e - lowest) << mantissa) + np.int32(q if q == q else np.float32(0))
    sign = np.int32(np.signbit(y)) << sign_place  # of −0 too, which y < 0 would not see
    return (code if size == size else nan) | sign


@kernel
def round_one(y, numbers):
    """y → the nearest number of the format."""
    largest, lowest, mantissa, _, _ = numbers
    size = abs(y)
    size = largest if size > largest else size  # saturates
    e = max(exponent(size), lowest)
    size = np.rint(size * power_of_two(mantissa - e)) * power_of_two(e - mantissa)  # straight back, without a code
    return np.copysign(size, y)


@kernel
def encode_all(y, numbers, codes):
    """y (n,) → codes (n,)."""
    for i in range(y.size):
        codes[i] = encode_one(y[i], numbers)


@kernel
def round_all(y, numbers, result):
    """y (n,) → result (n,)."""
    for i in range(y.size):
        result[i] = round_one(y[i], numbers)


@kernel
def look_up(codes, values, numbers):
    """codes (n,), the format's values → numbers (n,)."""
    for i in range(codes.size):  # 256 numbers for E4M3: the table is in the cache after the first few
        numbers[i] = values[codes[i]]
