"""RoPE, compiled: see ``minids/ops/rope.py`` for the equations. One pass over heads of which the last d_r numbers are
turned and the others copied: here there are no others, in ``query_heads`` there are. Each layout of pairs has a kernel of its
own: with a distance that is known at run time only, the loop is no vector code and takes twice as long."""

import numpy as np

from minids.kernels._arrays import Array, common_float, expect
from minids.kernels._jit import kernel
from minids.ops.rope import Saved


def forward(x: Array, cos: Array, sin: Array, interleave: bool = True) -> tuple[Array, Saved]:
    """x (B, T, H, d_r), cos and sin of each token's position, (T, d_r/2) or by sequence (B, T, d_r/2) → turned x."""
    expect("x", x, (*x.shape[:3], 2 * cos.shape[-1]))
    dtype = common_float(x, cos, sin)
    saved = Saved(np.ascontiguousarray(cos, dtype), np.ascontiguousarray(sin, dtype), interleave)
    return turned(x, saved, 1), saved


def backward(dy: Array, saved: Saved) -> Array:
    """dy (B, T, H, d_r) → dx (B, T, H, d_r): turned back."""
    expect("dy", dy, (*dy.shape[:3], 2 * saved.cos.shape[-1]))
    return turned(dy, saved, -1)


def turned(x: Array, by: Saved, direction: int) -> Array:
    """x (B, T, H, d), of which the last d_r numbers of every head are turned; −1: turned back, which is the backward pass."""
    cos, sin, interleave = by
    (batch, time, heads, width), half = x.shape, cos.shape[-1]
    expect("cos", cos, (batch, time, half) if cos.ndim == 3 else (time, half))  # by sequence, or the same for all
    expect("sin", sin, cos.shape)
    if 2 * half > width:
        raise ValueError(f"a head of {width} numbers has no rotary part of {2 * half}")
    x, y = np.ascontiguousarray(x, cos.dtype), np.empty(x.shape, cos.dtype)
    tokens, angles = (batch * time, heads, width), (batch * time if cos.ndim == 3 else time, half)
    turn = turn_neighbours if interleave else turn_halves
    turn(x.reshape(tokens), cos.reshape(angles), sin.reshape(angles), direction, y.reshape(tokens))
    return y


@kernel
def turn_neighbours(x, cos, sin, direction, y):
    """x (N, H, d) → y. Of the last d_r numbers 2 i and 2 i + 1 are a pair. cos, sin (N or T, d_r/2)."""
    direction, half = y.dtype.type(direction), cos.shape[1]
    split = x.shape[2] - 2 * half
    for n in range(x.shape[0]):
        c, s = cos[n % cos.shape[0]], sin[n % cos.shape[0]]
        for h in range(x.shape[1]):
            source, target = x[n, h], y[n, h]
            for i in range(split):
                target[i] = source[i]
            pairs, turned = source[split:], target[split:]
            for i in range(half):
                first, second, along = pairs[2 * i], pairs[2 * i + 1], direction * s[i]
                turned[2 * i] = first * c[i] - second * along
                turned[2 * i + 1] = first * along + second * c[i]


@kernel
def turn_halves(x, cos, sin, direction, y):
    """The same where i and i + d_r/2 are a pair."""
    direction, half = y.dtype.type(direction), cos.shape[1]
    split = x.shape[2] - 2 * half
    for n in range(x.shape[0]):
        c, s = cos[n % cos.shape[0]], sin[n % cos.shape[0]]
        for h in range(x.shape[1]):
            source, target = x[n, h], y[n, h]
            for i in range(split):
                target[i] = source[i]
            for i in range(half):
                first, second, along = source[split + i], source[split + half + i], direction * s[i]
                target[split + i] = first * c[i] - second * along
                target[split + half + i] = first * along + second * c[i]
