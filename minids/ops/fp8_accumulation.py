"""How an FP8 tensor core adds up, and the remedy: a matrix product with an accumulator of few bits.

Hopper's tensor cores multiply 32 pairs at a time. Of the exact products and the running sum 14 bits are kept, counted from the
leading one of the largest, the rest is cut off, and what is left is added exactly (DeepSeek-V3 sections 3.3.2 and 3.5.2):

    u = 2^(⌊log₂ max(|sum|, |p_1|, …, |p_32|)⌋ − 13)        sum ← u · (trunc(sum / u) + Σ_i trunc(p_i / u)), cut to 14 bits

The longer the sum, the larger u, and the more of every product is lost. The remedy is *promotion*: every 128 products the sum
goes to an FP32 register, and the tensor core begins again at 0 (N_C = 128). Here the operands carry their scales already, which
for powers of two is the same arithmetic. ``None`` for an accumulator is float32 throughout.
"""

from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Accumulator(NamedTuple):
    """A tensor core's sum."""

    bits: int = 14  # that are kept of each number, the leading one counted
    interval: int | None = None  # products between two promotions, a multiple of GROUP; None: it never is promoted


GROUP = 32  # products that are aligned with each other
PROMOTED = Accumulator(interval=128)  # what DeepSeek-V3 does
NEVER_PROMOTED = Accumulator()

_PIECE = 1 << 20  # products held at a time


def matmul(a: Array, b: Array, accumulator: Accumulator | None = None) -> Array:
    """a (M, K), b (K, N) → a b (M, N), in the type of a."""
    if accumulator is None:
        return a @ b
    bits, interval = accumulator
    out = np.empty((a.shape[0], b.shape[1]), a.dtype)
    step = max(_PIECE // (GROUP * max(b.shape[1], 1)), 1)
    for start in range(0, len(a), step):
        rows = a[start : start + step]
        total = np.zeros((len(rows), b.shape[1]), np.float32)  # the FP32 registers
        running = np.zeros_like(total, dtype=np.float64)  # float64 holds what 33 aligned numbers add up to
        for k in range(0, a.shape[1], GROUP):
            products = rows[:, k : k + GROUP, None].astype(np.float64) * b[None, k : k + GROUP]  # (rows, 32, N)
            largest = np.maximum(np.abs(products).max(axis=1), np.abs(running))
            unit = _unit(largest, bits)
            whole = np.trunc(running / unit) + np.trunc(products / unit[:, None]).sum(axis=1)
            running = whole * unit
            unit = _unit(np.abs(running), bits)
            running = np.trunc(running / unit) * unit
            if interval and (k + GROUP) % interval == 0:
                total += running.astype(np.float32)
                running[...] = 0
        out[start : start + step] = total + running.astype(np.float32)
    return out


def _unit(largest: Array, bits: int) -> Array:
    """The last of the ``bits`` bits of a number of this size."""
    return np.ldexp(1.0, np.frexp(largest)[1] - bits)
