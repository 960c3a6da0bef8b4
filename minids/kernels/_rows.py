"""Reductions over a row that the compiler vectorises only when told that the order of NaN does not matter."""

import numba
import numpy as np


# Comparisons that must treat NaN as unordered cannot be vectorised into a maximum, hence "nnan". It is harmless in a softmax:
# if a row holds NaN, then whatever comes out here, e^(NaN − peak) is NaN, and with it the row's sum and its probabilities.
@numba.njit(fastmath={"nsz", "nnan", "reassoc"}, nogil=True)
def largest(row):
    """The largest element of row (n,); −inf of none."""
    peak = row.dtype.type(-np.inf)
    for i in range(row.size):
        if row[i] > peak:
            peak = row[i]
    return peak
