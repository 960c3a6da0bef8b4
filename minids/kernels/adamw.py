"""AdamW, compiled: see ``minids/ops/adamw.py`` for the equations.

The update is bound by memory. One fused loop reads four arrays of the model's size and writes three; NumPy makes more than
twice as many passes.
"""

from __future__ import annotations

import math

import numpy as np

from minids.kernels._arrays import Array, expect
from minids.kernels._bits import bits_of_float, float_of_bits
from minids.kernels._jit import kernel


def update(
    values: Array,
    grads: Array,
    m: Array,
    v: Array,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
    scale: float = 1.0,
) -> None:
    """One step on flat arrays (P,) of one type in C order, in place on values, m and v; the arguments are those of ``ops``."""
    for name, array in (("grads", grads), ("m", m), ("v", v)):
        expect(name, array, values.shape)
    correction = math.sqrt(1 - beta2**step)  # of v̂; it and that of m̂ are the same for all elements
    rate, eps, keep = lr * correction / (1 - beta1**step), eps * correction, 1 - lr * weight_decay
    settings = tuple(map(values.dtype.type, (rate, eps, keep, beta1, 1 - beta1, beta2, 1 - beta2, scale)))
    apply_to = apply_bf16 if m.dtype == np.uint16 else apply
    apply_to(values, grads, m, v, settings)


def squared_norm(grads: Array) -> float:
    """grads (P,) → Σ g², in float64."""
    return float(sum_of_squares(np.ascontiguousarray(grads).reshape(-1)))


@kernel
def apply(values, grads, m, v, settings):
    """All arrays (P,)."""
    for i in range(values.size):
        values[i], m[i], v[i] = moved(values[i], grads[i], m[i], v[i], settings)


@kernel
def apply_bf16(values, grads, m, v, settings):
    """The same with m and v in BF16, the upper half of a float32: decoding is a shift."""
    number = values.dtype.type
    for i in range(values.size):
        first = number(float_of_bits(np.int32(m[i]) << np.int32(16)))
        second = number(float_of_bits(np.int32(v[i]) << np.int32(16)))
        values[i], first, second = moved(values[i], grads[i], first, second, settings)
        m[i], v[i] = to_bf16(first), to_bf16(second)  # rounded for the next step; this one used them as they are


@kernel
def moved(value, g, m, v, settings):
    """One element and its moments, a step later."""
    rate, eps, keep, old1, new1, old2, new2, scale = settings
    g = g * scale  # clipped here, so that clipping needs no pass of its own
    m = old1 * m + new1 * g
    v = old2 * v + new2 * g * g
    return value * keep - rate * m / (np.sqrt(v) + eps), m, v


@kernel
def to_bf16(x):
    """x → BF16 as uint16, to nearest even; NaN stays NaN."""
    bits = bits_of_float(np.float32(x))
    upper = (bits >> np.int32(16)) & np.int32(0xFFFF)
    lower = bits & np.int32(0xFFFF)  # what is cut off; 0x8000 is one half of the last kept bit
    up = np.int32(1) if lower > 0x8000 or (lower == 0x8000 and upper & 1) else np.int32(0)
    # A NaN whose marks are all in the lower half would become infinity: its quiet bit is set.
    return np.uint16(upper | np.int32(0x40) if x != x else upper + up)


@kernel
def sum_of_squares(grads):
    """grads (P,) → Σ g²."""
    total = 0.0  # float64: millions of squares would lose their last digits in float32
    for i in range(grads.size):
        total += np.float64(grads[i]) * np.float64(grads[i])
    return total
