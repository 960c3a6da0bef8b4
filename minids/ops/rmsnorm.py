"""RMSNorm: bring every token vector to unit root-mean-square, then scale it.

    y = n · g        n = x / rms(x)        rms(x) = sqrt(mean(x²) + ε)

Zhang & Sennrich 2019, eq. 4. Backward, with u = dy · g; that rms moves with every x_i takes away the part of u along n:
    dg = Σ_tokens dy · n
    dx = (u − n · mean(u · n)) / rms(x)
"""

from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Saved(NamedTuple):
    normed: Array  # (..., d)  n
    rstd: Array  # (..., 1)  1 / rms(x)
    gain: Array  # (d,)


def forward(x: Array, gain: Array, eps: float = 1e-6) -> tuple[Array, Saved]:
    """x (..., d), gain (d,) → y (..., d)."""
    rstd = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    normed = x * rstd
    return normed * gain, Saved(normed, rstd, gain)


def backward(dy: Array, saved: Saved) -> tuple[Array, Array]:
    """dy (..., d) → dx (..., d), d_gain (d,)."""
    normed, rstd, gain = saved
    d_gain = np.sum((dy * normed).reshape(-1, gain.size), axis=0)
    u = dy * gain
    dx = rstd * (u - normed * np.mean(u * normed, axis=-1, keepdims=True))
    return dx, d_gain
