"""SwiGLU networks in FP8: those of all experts on their own rows, or a dense one, which is an expert that gets every row.

    y = W_down^e ( silu(W_gate^e x) · W_up^e x )        each of the three a linear map in FP8, see fp8_linear

Beyond three linear maps, DeepSeek-V3 sections 3.3.2 and 3.3.3: SwiGLU's inputs are kept in FP8 tiles of 1 × 128; the backward
pass differentiates at them and forms W_down's input again from them. Experts get x after the all-to-all, which carries FP8 with
power-of-two scales, and dy likewise on the way back: ``dispatched`` rounds both kinds of scales up.
"""

from typing import NamedTuple

import numpy as np

from minids.ops.dispatch import busy_experts
from minids.ops.fp8_linear import FINE, PLAIN, Arithmetic, Scheme, weight_gradient
from minids.ops.quantise import Quantised

Array = np.ndarray


class Saved(NamedTuple):
    rows: Quantised  # (R, d)
    gate: Quantised  # (R, I)
    up: Quantised  # (R, I)
    starts: Array  # (E + 1,)
    weights: dict[int, tuple[Quantised, Quantised, Quantised]]  # of the experts that have rows: gate, up, down
    experts: int  # E
    scheme: Scheme


def forward(
    rows: Array, starts: Array, w_gate: Array, w_up: Array, w_down: Array, scheme: Scheme = FINE, by: Arithmetic = PLAIN
) -> tuple[Array, Saved]:
    """rows (R, d) sorted by expert, expert e's being starts[e]:starts[e+1]; weights stacked by expert → y (R, d)."""
    kind, shape = rows.dtype, (len(rows), w_gate.shape[1])
    q_rows = by.quantised(rows, scheme.row, scheme.inputs, scheme.round_inputs, amax=scheme.amax("x", rows))
    x = by.dequantise(q_rows, kind)
    gate, up, y = np.empty(shape, kind), np.empty(shape, kind), np.empty_like(rows)  # (R, I), (R, I), (R, d)
    weights: dict = {}
    for e, span in busy_experts(starts):
        named = zip(("gate weight", "up weight", "down weight"), (w_gate, w_up, w_down), strict=True)
        q_gate, q_up, _ = weights[e] = tuple(by.quantised(w[e], scheme.block, amax=scheme.amax(n, w[e])) for n, w in named)
        gate[span] = by.matmul(x[span], by.dequantise(q_gate, kind).T, scheme.accumulator)
        up[span] = by.matmul(x[span], by.dequantise(q_up, kind).T, scheme.accumulator)
    act = by.swiglu(gate, up)[0]
    act = by.rounded(act, scheme.row, amax=scheme.amax("act", act))
    for e, span in busy_experts(starts):
        y[span] = by.matmul(act[span], by.dequantise(weights[e][2], kind).T, scheme.accumulator)
    kept_gate = by.quantised(gate, scheme.row, amax=scheme.amax("gate", gate))
    kept_up = by.quantised(up, scheme.row, amax=scheme.amax("up", up))
    return y, Saved(q_rows, kept_gate, kept_up, starts, weights, len(w_down), scheme)


def backward(dy: Array, saved: Saved, by: Arithmetic = PLAIN) -> tuple[Array, Array, Array, Array]:
    """dy (R, d) → d_rows (R, d), d_w_gate (E, I, d), d_w_up (E, I, d), d_w_down (E, d, I)."""
    q_rows, q_gate, q_up, starts, weights, experts, scheme = saved
    kind = dy.dtype
    x, gate, up = (by.dequantise(q, kind) for q in (q_rows, q_gate, q_up))
    act, inner = by.swiglu(gate, up)  # computed again
    inside = Scheme(scheme.tile, accumulator=scheme.accumulator, history=scheme.history)  # nothing in here is dispatched
    of_down, of_gate = inside._replace(round_gradients=scheme.round_gradients), scheme._replace(round_gradients=False)
    dy_rows = by.rounded(dy, scheme.row, power_of_two=scheme.round_gradients, amax=scheme.amax("dy", dy))
    arrived = dy_rows if scheme.round_gradients else dy
    (d, width), shape = (dy.shape[1], gate.shape[1]), gate.shape
    d_act, d_rows = np.empty(shape, kind), np.empty_like(dy)
    d_w_gate, d_w_up = np.zeros((experts, width, d), kind), np.zeros((experts, width, d), kind)
    d_w_down = np.zeros((experts, d, width), kind)
    for e, span in busy_experts(starts):
        d_act[span] = by.matmul(dy_rows[span], by.dequantise(weights[e][2], kind), scheme.accumulator)
        d_w_down[e] = weight_gradient(arrived[span], act[span], of_down, by, ("dy", "act"))
    d_gate, d_up = by.swiglu_backward(d_act, inner)
    named = zip(("d_gate", "d_up"), (d_gate, d_up), strict=True)
    gate_rows, up_rows = (by.rounded(d, scheme.row, amax=scheme.amax(role, d)) for role, d in named)
    for e, span in busy_experts(starts):
        gate_weight, up_weight = (by.dequantise(weight, kind) for weight in weights[e][:2])
        d_rows[span] = by.matmul(gate_rows[span], gate_weight, scheme.accumulator)
        d_rows[span] += by.matmul(up_rows[span], up_weight, scheme.accumulator)
        d_w_gate[e] = weight_gradient(d_gate[span], x[span], of_gate, by, ("d_gate", "x"))
        d_w_up[e] = weight_gradient(d_up[span], x[span], of_gate, by, ("d_up", "x"))
    return d_rows, d_w_gate, d_w_up, d_w_down


def dispatched(scheme: Scheme) -> Scheme:
    """The scheme of experts behind an all-to-all in FP8: power-of-two scales for what arrives, forward and backward."""
    return scheme._replace(round_inputs=True, round_gradients=True)
