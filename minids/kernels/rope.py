"""RoPE, compiled: see ``minids/ops/rope.py`` for the equations. One pass over the rotary part of each head, read where it lies
(layers hand in slices of whole heads) and written packed."""

import numpy as np

from minids.kernels._arrays import Array, common_float, expect
from minids.kernels._jit import kernel
from minids.ops.rope import Saved


def forward(x: Array, cos: Array, sin: Array, interleave: bool = True) -> tuple[Array, Saved]:
    """x (B, T, H, d_r), cos and sin of each token's position, (T, d_r/2) or by sequence (B, T, d_r/2) → turned x."""
    dtype = common_float(x, cos, sin)
    cos, sin = np.ascontiguousarray(cos, dtype), np.ascontiguousarray(sin, dtype)
    return _turn(x, cos, sin, interleave, 1), Saved(cos, sin, interleave)


def backward(dy: Array, saved: Saved) -> Array:
    """dy (B, T, H, d_r) → dx (B, T, H, d_r): turned back."""
    cos, sin, interleave = saved
    return _turn(dy, cos, sin, interleave, -1)


def _turn(x: Array, cos: Array, sin: Array, interleave: bool, direction: int) -> Array:
    own = x.shape[:1] if cos.ndim == 3 else ()  # each sequence has angles of its own
    expect("cos", cos, (*own, x.shape[1], x.shape[3] // 2))
    expect("sin", sin, cos.shape)
    cos, sin = (a if own else a[None] for a in (cos, sin))
    y = np.empty(x.shape, cos.dtype)
    step, apart = (2, 1) if interleave else (1, x.shape[-1] // 2)
    turn(x.astype(cos.dtype, copy=False), cos, sin, step, apart, direction, y)
    return y


@kernel
def turn(x, cos, sin, step, apart, direction, y):
    """x (B, T, H, d_r) of any strides → y in C order. Pair i is (i · step, i · step + apart). cos, sin (B or 1, T, d_r/2)."""
    direction = y.dtype.type(direction)  # −1 turns back, which is the backward pass: one kernel for both
    for b in range(x.shape[0]):
        angles = b if cos.shape[0] > 1 else 0
        for t in range(x.shape[1]):
            for h in range(x.shape[2]):
                source, target = x[b, t, h], y[b, t, h]  # read out of the whole head, written packed
                for i in range(cos.shape[2]):
                    c, s = cos[angles, t, i], direction * sin[angles, t, i]
                    first, second = source[i * step], source[i * step + apart]  # either layout, without a branch
                    target[i * step] = first * c - second * s
                    target[i * step + apart] = first * s + second * c
