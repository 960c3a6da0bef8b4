"""Exponents of float32 numbers by shifts of their bits, vector code: ``math.frexp`` and ``ldexp`` call per element."""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload


def exponent(size):
    """⌊log₂ size⌋ of a normal float32 ≥ 0; −127 below the smallest of them, 128 for infinity and NaN."""
    if not size < math.inf:
        return np.int32(128)
    return np.int32(max(math.frexp(size)[1] - 1, -127) if size > 0 else -127)


def power_of_two(n):
    """2^n for −126 ≤ n ≤ 127, as a float32."""
    return np.float32(2.0**n)


def float_of_bits(bits):
    """The float32 whose bits are those of an int32."""
    return np.int32(bits).view(np.float32)


@intrinsic
def _float_of_bits(context, bits):
    def build(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), build


def bits_of_float(number):
    """The bits of a float32, as an int32."""
    return np.float32(number).view(np.int32)


@intrinsic
def _bits_of_float(context, number):
    def build(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), build


@overload(float_of_bits)
def _float32(bits):
    return lambda bits: _float_of_bits(np.int32(bits))


@overload(bits_of_float)
def _int32(number):
    return lambda number: _bits_of_float(np.float32(number))


@overload(exponent)
def _exponent(size):
    return lambda size: (_bits_of_float(np.float32(size)) >> np.int32(23)) - np.int32(127)


@overload(power_of_two)
def _power_of_two(n):
    return lambda n: _float_of_bits(np.int32((np.int32(n) + np.int32(127)) << np.int32(23)))
