"""RMSNorm, compiled: see ``minids/ops/rmsnorm.py`` for the equations. Saved are the input itself and 1 / rms(x): the normalised
rows are one product away, cheaper to form again than to write and read."""

from typing import NamedTuple

import numpy as np

from minids.kernels._arrays import Array, common_float, expect, rows_of
from minids.kernels._jit import kernel


class Saved(NamedTuple):
    x: Array  # (N, d)
    rstd: Array  # (N,)  1 / rms(x)
    gain: Array  # (d,)


def forward(x: Array, gain: Array, eps: float = 1e-6) -> tuple[Array, Saved]:
    """x (..., d), gain (d,) → y (..., d)."""
    expect("gain", gain, x.shape[-1:])
    dtype = common_float(x, gain)
    rows, gain = rows_of(x, dtype), np.ascontiguousarray(gain, dtype)
    y, rstd = np.empty_like(rows), np.empty(len(rows), dtype)
    normalise(rows, gain, eps, y, rstd)
    return y.reshape(x.shape), Saved(rows, rstd, gain)


def backward(dy: Array, saved: Saved) -> tuple[Array, Array]:
    """dy (..., d) → dx (..., d), d_gain (d,)."""
    x, rstd, gain = saved
    rows, dx, d_gain = rows_of(dy, x.dtype), np.empty_like(x), np.zeros_like(gain)
    expect("dy", rows, x.shape)
    normalise_backward(rows, x, rstd, gain, dx, d_gain)
    return dx.reshape(dy.shape), d_gain


@kernel
def normalise(x, gain, eps, y, rstd):
    """x (N, d), gain (d,) → y (N, d), rstd (N,)."""
    number = x.dtype.type
    one, size, eps = number(1), number(x.shape[1]), number(eps)
    for n in range(x.shape[0]):
        square = number(0)
        for i in range(x.shape[1]):
            square += x[n, i] * x[n, i]
        r = one / np.sqrt(square / size + eps)
        rstd[n] = r
        for i in range(x.shape[1]):  # the row is in the cache: from memory it came once
            y[n, i] = x[n, i] * r * gain[i]


@kernel
def normalise_backward(dy, x, rstd, gain, dx, d_gain):
    """dy and x (N, d), rstd (N,), gain (d,) → dx (N, d); adds into d_gain (d,)."""
    number = x.dtype.type
    size = number(x.shape[1])
    for n in range(x.shape[0]):
        r = rstd[n]
        along = number(0)  # Σ u · x, with u = dy · g
        for i in range(x.shape[1]):
            along += dy[n, i] * gain[i] * x[n, i]
        along *= r * r / size  # mean(u · n) / rms, to be multiplied by x instead of n = x · r
        for i in range(x.shape[1]):
            d_gain[i] += dy[n, i] * (x[n, i] * r)  # n is formed again, not kept
            dx[n, i] = r * (dy[n, i] * gain[i] - x[n, i] * along)
