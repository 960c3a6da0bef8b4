"""The exponential that kernels use, and the sigmoid made from it.

``math.exp`` is a call per element, which keeps a loop scalar. This one is arithmetic only, which becomes vector code:

    e^x = 2^n · e^r        n = round(x / ln 2)        r = x − n ln 2 in [−ln 2 / 2, ln 2 / 2]

e^r is 1 + r + r² times a polynomial of degree 4, fitted for the least maximum of the relative error, below 1e-7. 2^n comes in
two halves, for results below the smallest normal number, and ln 2 in two parts, because n ln 2 in one would lose the digits
that r needs (Cody & Waite 1980, chapter 6). NaN gives NaN, overflow inf, underflow 0. float64 takes ``math.exp``.
"""

import math

import numpy as np
from numba import types
from numba.extending import overload

from minids.kernels._bits import power_of_two
from minids.kernels._jit import FLOAT_RULES

F = np.float32
_LOG2_E, _LN2_HIGH, _LN2_LOW = F(1.4426950408889634), F(0.693359375), F(-2.12194440e-4)
_HALF, _ONE, _ZERO = F(0.5), F(1), F(0)
_C2, _C3, _C4, _C5, _C6 = F(0.49999994), F(0.1666652), F(0.0416684), F(0.008368851), F(0.001381432)
_HIGHEST, _LOWEST = F(89), F(-104.5)  # beyond: inf and 0 in float32


def exp(x):
    """e^x, in the type of x."""
    return np.exp(x)


def sigmoid(x):
    """1 / (1 + e^(−x)) from e^(−|x|), which cannot overflow."""
    small = np.exp(-abs(x))
    return (type(x)(1) if x >= 0 else small) / (type(x)(1) + small)


# Multiplication may be contracted with addition here, but nothing reordered: that would add up the two parts of ln 2 before
# they are used, and multiply the two halves of 2^n by each other, which overflows for n = 128.
@overload(exp, jit_options={"fastmath": {"contract"}})
def _exp(x):
    if x != types.float32:
        return lambda x: math.exp(x)

    def exp32(x):
        y = _HIGHEST if x > _HIGHEST else x
        y = _LOWEST if y < _LOWEST else y
        n = np.floor(y * _LOG2_E + _HALF)
        r = y - n * _LN2_HIGH - n * _LN2_LOW
        p = r * _C6 + _C5
        p = p * r + _C4
        p = p * r + _C3
        p = p * r + _C2
        p = p * r * r + r + _ONE
        whole = np.int32(n if n == n else _ZERO)  # NaN has no integer; p carries it
        half = whole >> np.int32(1)
        return p * power_of_two(half) * power_of_two(whole - half)

    return exp32


@overload(sigmoid, jit_options={"fastmath": FLOAT_RULES})
def _sigmoid(x):
    one = F(1) if x == types.float32 else 1.0

    def of_small(x):
        small = exp(-abs(x))
        return (one if x >= 0 else small) / (one + small)

    return of_small
