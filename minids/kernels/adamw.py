"""AdamW, compiled: see ``minids/ops/adamw.py`` for the equations. One fused loop reads four arrays of the model's size and
writes three. The two kernels share no function for an element: inlined, it would be contracted to other last digits."""

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
    correction = math.sqrt(1 - beta2**step)
    rate, eps, decay = lr * correction / (1 - beta1**step), eps * correction, lr * weight_decay
    step_of = apply_bf16 if m.dtype == np.uint16 else apply
    step_of(values, grads, m, v, rate, beta1, beta2, eps, decay, scale)


def squared_norm(grads: Array) -> float:
    """grads (P,) → Σ g², in float64."""
    return float(sum_of_squares(np.ascontiguousarray(grads).reshape(-1)))


@kernel
def apply(values, grads, m, v, rate, beta1, beta2, eps, decay, scale):
    """All arrays (P,). ``rate`` and ``eps`` carry the bias corrections; ``decay`` is lr · weight_decay."""
    number = values.dtype.type
    rate, eps, keep, scale = number(rate), number(eps), number(1.0 - decay), number(scale)
    old1, new1, old2, new2 = number(beta1), number(1.0 - beta1), number(beta2), number(1.0 - beta2)
    for i in range(values.size):
        g = grads[i] * scale  # clipped here, so that clipping needs no pass of its own
        first = old1 * m[i] + new1 * g
        second = old2 * v[i] + new2 * g * g
        m[i], v[i] = first, second
        values[i] = values[i] * keep - rate * first / (np.sqrt(second) + eps)


@kernel
def apply_bf16(values, grads, m, v, rate, beta1, beta2, eps, decay, scale):
    """The same with m and v in BF16, read and written as bits."""
    number = values.dtype.type
    rate, eps, keep, scale = number(rate), number(eps), number(1.0 - decay), number(scale)
    old1, new1, old2, new2 = number(beta1), number(1.0 - beta1), number(beta2), number(1.0 - beta2)
    for i in range(values.size):
        g = grads[i] * scale
        # BF16 is the upper half of a float32: decoding is a shift.
        first = old1 * number(float_of_bits(np.int32(m[i]) << np.int32(16))) + new1 * g
        second = old2 * number(float_of_bits(np.int32(v[i]) << np.int32(16))) + new2 * g * g
        m[i], v[i] = to_bf16(first), to_bf16(second)  # rounded for the next step; this one uses them as they are
        values[i] = values[i] * keep - rate * first / (np.sqrt(second) + eps)


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
