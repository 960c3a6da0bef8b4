"""Grouped feed-forward network, compiled: see ``minids/ops/grouped_feed_forward.py`` for the equations.

An expert goes through all its steps before the next one begins, so that what one step writes the next finds in the cache.
Its W_gate and W_up are laid one under the other, which makes their two products one, of twice the width, both forward and
for either gradient: three products fewer per expert, and larger ones run nearer to the machine's limit. Experts without a
token are not looked at, so that a token decoded alone, or weights that stay on disk, cost only what was chosen. SwiGLU is
one pass between the products (see ``kernels/swiglu.py``). Only gate and up are kept; the activation is formed again in the
backward pass, in the same kernel that differentiates it.

float32, 16 experts of 128 × 64: 3072 rows forward 1.5 times as fast as NumPy, backward 1.1; 16384 rows 1.6 and 1.2.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from minids.kernels._arrays import Array, common_float
from minids.kernels._exp import sigmoid
from minids.kernels._jit import kernel


class Saved(NamedTuple):
    rows: Array  # (R, d)
    gate_up: Array  # (R, 2 I)  W_gate x and W_up x, side by side
    starts: list[int]  # E + 1
    weights: dict[int, tuple[Array, Array]]  # of the experts that have rows: W_gate over W_up (2 I, d), W_down (d, I)
    experts: int  # E


def forward(rows: Array, starts: Array, w_gate: Array, w_up: Array, w_down: Array) -> tuple[Array, Saved]:
    """rows (R, d) sorted by expert, expert e's being starts[e]:starts[e+1]; weights stacked by expert → y (R, d)."""
    dtype = common_float(rows, w_gate, w_up, w_down)
    rows = np.ascontiguousarray(rows, dtype)
    starts, width = np.asarray(starts).tolist(), w_down.shape[2]
    gate_up = np.empty((len(rows), 2 * width), dtype)
    act, y = np.empty((_most_rows(starts), width), dtype), np.empty_like(rows)
    weights = {}
    for e, own, count in _experts(starts):
        pair, down = np.concatenate([w_gate[e], w_up[e]], dtype=dtype), np.ascontiguousarray(w_down[e], dtype)
        weights[e] = pair, down
        np.matmul(rows[own], pair.T, out=gate_up[own])
        activate(gate_up[own], act[:count])
        np.matmul(act[:count], down.T, out=y[own])
    return y, Saved(rows, gate_up, starts, weights, len(w_down))


def backward(dy: Array, saved: Saved) -> tuple[Array, Array, Array, Array]:
    """dy (R, d) → d_rows (R, d), d_w_gate (E, I, d), d_w_up (E, I, d), d_w_down (E, d, I)."""
    rows, gate_up, starts, weights, experts = saved
    dy = np.ascontiguousarray(dy, rows.dtype)
    (d, width), most = (rows.shape[1], gate_up.shape[1] // 2), _most_rows(starts)
    act, d_act = np.empty((most, width), rows.dtype), np.empty((most, width), rows.dtype)
    d_gate_up = np.empty((most, 2 * width), rows.dtype)
    d_rows = np.empty_like(rows)
    d_w_gate_up, d_w_down = np.empty((experts, 2 * width, d), rows.dtype), np.empty((experts, d, width), rows.dtype)
    for e in range(experts):
        own, count = slice(starts[e], starts[e + 1]), starts[e + 1] - starts[e]
        if count == 0:
            d_w_gate_up[e] = d_w_down[e] = 0
            continue
        pair, down = weights[e]
        np.matmul(dy[own], down, out=d_act[:count])
        activate_backward(d_act[:count], gate_up[own], act[:count], d_gate_up[:count])
        np.matmul(dy[own].T, act[:count], out=d_w_down[e])
        np.matmul(d_gate_up[:count], pair, out=d_rows[own])
        np.matmul(d_gate_up[:count].T, rows[own], out=d_w_gate_up[e])
    return d_rows, d_w_gate_up[:, :width], d_w_gate_up[:, width:], d_w_down


def _experts(starts: list[int]):
    """(e, slice of its rows, their number) for every expert that has rows."""
    for e in range(len(starts) - 1):
        if starts[e + 1] > starts[e]:
            yield e, slice(starts[e], starts[e + 1]), starts[e + 1] - starts[e]


def _most_rows(starts: list[int]) -> int:
    return max((stop - start for start, stop in pairwise(starts)), default=0)


@kernel
def activate(gate_up, act):
    """gate_up (n, 2 I) → act (n, I) = silu(gate) · up."""
    width = act.shape[1]
    for n in range(act.shape[0]):
        gate, up, target = gate_up[n, :width], gate_up[n, width:], act[n]
        for i in range(width):
            target[i] = gate[i] * sigmoid(gate[i]) * up[i]


@kernel
def activate_backward(d_act, gate_up, act, d_gate_up):
    """d_act (n, I), gate_up (n, 2 I) → act (n, I), d_gate_up (n, 2 I)."""
    one, width = act.dtype.type(1), act.shape[1]
    for n in range(act.shape[0]):
        gate, up, d, target = gate_up[n, :width], gate_up[n, width:], d_act[n], act[n]
        d_gate, d_up = d_gate_up[n, :width], d_gate_up[n, width:]
        for i in range(width):
            s = sigmoid(gate[i])
            silu = gate[i] * s
            target[i] = silu * up[i]
            d_up[i] = d[i] * silu
            d_gate[i] = d[i] * up[i] * s * (one + gate[i] * (one - s))
