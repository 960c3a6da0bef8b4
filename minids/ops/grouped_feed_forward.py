"""Grouped feed-forward network: every expert's SwiGLU network on its own rows.

    rows of expert e:   y = W_down^e ( silu(W_gate^e x) · W_up^e x )        DeepSeek-V3 eq. 12, FFN^(r)_e

Rows come sorted by expert (see dispatch): each expert is three matrix products on a contiguous slice. Backward: the
same slices, linear maps all; an expert without a token gets a zero gradient.
"""

from typing import NamedTuple

import numpy as np

from minids.ops import swiglu
from minids.ops.dispatch import busy_experts

Array = np.ndarray


class Saved(NamedTuple):
    rows: Array  # (R, d)
    act: Array  # (R, I)  silu(gate) · up
    inner: swiglu.Saved
    starts: Array  # (E + 1,)
    w_gate: Array  # (E, I, d)
    w_up: Array  # (E, I, d)
    w_down: Array  # (E, d, I)


class ForWeights(NamedTuple):
    """What the weights' gradients are made of."""

    dy: Array  # (R, d)
    rows: Array  # (R, d)
    act: Array  # (R, I)
    d_gate: Array  # (R, I)
    d_up: Array  # (R, I)
    starts: Array  # (E + 1,)


def forward(rows: Array, starts: Array, w_gate: Array, w_up: Array, w_down: Array) -> tuple[Array, Saved]:
    """rows (R, d) sorted by expert, expert e's being starts[e]:starts[e+1]; weights stacked by expert → y (R, d)."""
    width = w_gate.shape[1]
    gate = np.empty((rows.shape[0], width), dtype=rows.dtype)
    up = np.empty_like(gate)
    for e, span in busy_experts(starts):
        np.matmul(rows[span], w_gate[e].T, out=gate[span])
        np.matmul(rows[span], w_up[e].T, out=up[span])
    act, inner = swiglu.forward(gate, up)
    y = np.empty_like(rows)
    for e, span in busy_experts(starts):
        np.matmul(act[span], w_down[e].T, out=y[span])
    return y, Saved(rows, act, inner, starts, w_gate, w_up, w_down)


def backward(dy: Array, saved: Saved) -> tuple[Array, Array, Array, Array]:
    """dy (R, d) → d_rows (R, d), d_w_gate (E, I, d), d_w_up (E, I, d), d_w_down (E, d, I)."""
    d_rows, for_weights = backward_input(dy, saved)
    d_gate, d_up, d_down = (np.zeros(w.shape, dtype=dy.dtype) for w in (saved.w_gate, saved.w_up, saved.w_down))
    backward_weights_into(for_weights, d_gate, d_up, d_down)
    return d_rows, d_gate, d_up, d_down


def backward_input(dy: Array, saved: Saved) -> tuple[Array, ForWeights]:
    """dy (R, d) → d_rows (R, d), and what ``backward_weights_into`` needs: the half that others wait for."""
    rows, act, inner, starts, w_gate, w_up, w_down = saved
    d_act, d_rows = np.empty_like(act), np.empty_like(rows)
    for e, span in busy_experts(starts):
        np.matmul(dy[span], w_down[e], out=d_act[span])
    d_gate, d_up = swiglu.backward(d_act, inner)
    for e, span in busy_experts(starts):
        np.matmul(d_gate[span], w_gate[e], out=d_rows[span])
        d_rows[span] += d_up[span] @ w_up[e]
    return d_rows, ForWeights(dy, rows, act, d_gate, d_up, starts)


def backward_weights_into(found: ForWeights, d_w_gate: Array, d_w_up: Array, d_w_down: Array) -> None:
    """The other half, at any time after: adds the weights' gradients into the three arrays."""
    dy, rows, act, d_gate, d_up, starts = found
    for e, span in busy_experts(starts):
        d_w_down[e] += dy[span].T @ act[span]
        d_w_gate[e] += d_gate[span].T @ rows[span]
        d_w_up[e] += d_up[span].T @ rows[span]


def backward_into(dy: Array, saved: Saved, d_w_gate: Array, d_w_up: Array, d_w_down: Array) -> Array:
    """dy (R, d) → d_rows (R, d); adds the weights' gradients into the last three arrays."""
    d_rows, for_weights = backward_input(dy, saved)
    backward_weights_into(for_weights, d_w_gate, d_w_up, d_w_down)
    return d_rows
