"""Rows: the largest number of one, by vector registers, and the next one asked for in advance.

``if x > peak: peak = x`` becomes a vector loop only if LLVM is told, at the comparison *and* at the choice, that the order of
NaN and of the two zeros does not matter. Numba tells it at the comparison alone, hence the intrinsic. It is harmless in a
softmax: if a row holds NaN, then whatever comes out here, e^(NaN − peak) is NaN, and with it the row's sum and probabilities.
"""

import numpy as np
from numba.extending import intrinsic, overload

from minids.kernels._jit import kernel
from minids.kernels._pack import fetch
from minids.kernels._tile import LINE

_ANY_ORDER = ("nnan", "nsz")


def greater(x, y):
    """The greater one of two numbers; either where one is NaN."""
    return x if x > y else y


@intrinsic
def _greater(context, x, y):
    def build(context, builder, signature, arguments):
        a, b = arguments
        return builder.select(builder.fcmp_ordered(">", a, b, flags=_ANY_ORDER), a, b, flags=_ANY_ORDER)

    return x(x, x), build


@overload(greater)
def _on_numbers(x, y):
    return lambda x, y: _greater(x, y)


@kernel
def largest(row):
    """The largest element of row (n,); −inf of none."""
    peak = row.dtype.type(-np.inf)
    for i in range(row.size):
        peak = greater(row[i], peak)
    return peak


def bring(row):
    """Have row (n,), in C order, brought into the nearest cache meanwhile; nobody waits for it."""


@overload(bring)
def _bring(row):
    def lines(row):
        for x in range(0, row.nbytes, LINE):
            fetch(row.ctypes.data + x)

    return lines
