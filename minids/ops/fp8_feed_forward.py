"""SwiGLU networks in FP8: those of all experts on their own rows, or a dense one, which is an expert that gets every row.

    y = W_down^e ( silu(W_gate^e x) · W_up^e x )        each of the three a linear map in FP8, see fp8_linear

Beyond three linear maps, DeepSeek-V3 sections 3.3.2 and 3.3.3:

- What is kept of SwiGLU are its inputs, in FP8 tiles of 1 × 128. The backward pass decodes them, differentiates SwiGLU at what
  it finds, and computes its output again from them: that is what W_down's gradient takes for its input.
- Experts get x after the all-to-all, which carries FP8 in tiles whose scales are powers of two, and dy likewise on the way
  back: ``dispatched`` rounds both kinds of scales up.

x is quantised once for W_gate and W_up, dy once in rows for W_down and once along each expert's tokens. An expert without a
token gets a zero gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minids.ops import swiglu
from minids.ops.dispatch import busy_experts
from minids.ops.fp8_linear import FINE, PLAIN, Arithmetic, Recipe, weight_gradient
from minids.ops.quantise import Quantised

Array = np.ndarray


class Saved(NamedTuple):
    rows: Quantised  # (R, d)
    gate: Quantised  # (R, I)
    up: Quantised  # (R, I)
    starts: Array  # (E + 1,)
    weights: dict[int, tuple[Quantised, Quantised, Quantised]]  # of the experts that have rows: gate, up, down
    experts: int  # E
    recipe: Recipe


def forward(
    rows: Array,
    starts: Array,
    w_gate: Array,
    w_up: Array,
    w_down: Array,
    recipe: Recipe = FINE,
    by: Arithmetic = PLAIN,
    nonlinearity=swiglu,
) -> tuple[Array, Saved]:
    """rows (R, d) sorted by expert, expert e's being starts[e]:starts[e+1]; weights stacked by expert → y (R, d)."""
    kind = rows.dtype
    q_rows = by.quantised(rows, recipe.row, recipe.inputs, recipe.round_inputs)
    x = by.dequantise(q_rows, kind)
    gate, up, y = (
        np.empty((len(rows), w_gate.shape[1]), kind),
        np.empty((len(rows), w_gate.shape[1]), kind),
        np.empty_like(rows),
    )
    weights = {}
    for e, own in busy_experts(starts):
        weights[e] = tuple(by.quantised(w[e], recipe.block) for w in (w_gate, w_up, w_down))
        for weight, out in zip(weights[e], (gate, up), strict=False):
            out[own] = by.matmul(x[own], by.dequantise(weight, kind).T, recipe.accumulator)
    act = by.rounded(nonlinearity.forward(gate, up)[0], recipe.row)
    for e, own in busy_experts(starts):
        y[own] = by.matmul(act[own], by.dequantise(weights[e][2], kind).T, recipe.accumulator)
    q_gate, q_up = by.quantised(gate, recipe.row), by.quantised(up, recipe.row)
    return y, Saved(q_rows, q_gate, q_up, starts, weights, len(w_down), recipe)


def backward(dy: Array, saved: Saved, by: Arithmetic = PLAIN, nonlinearity=swiglu) -> tuple[Array, Array, Array, Array]:
    """dy (R, d) → d_rows (R, d), d_w_gate (E, I, d), d_w_up (E, I, d), d_w_down (E, d, I)."""
    q_rows, q_gate, q_up, starts, weights, experts, recipe = saved
    kind = dy.dtype
    x, gate, up = (by.dequantise(q, kind) for q in (q_rows, q_gate, q_up))
    act, inner = nonlinearity.forward(gate, up)  # computed again
    inside = Recipe(recipe.tile, accumulator=recipe.accumulator)  # nothing in here is dispatched
    of_down, of_gate = inside._replace(round_gradients=recipe.round_gradients), recipe._replace(round_gradients=False)
    dy_rows = by.rounded(dy, recipe.row, power_of_two=recipe.round_gradients)
    arrived = dy_rows if recipe.round_gradients else dy
    (d, width), shape = (dy.shape[1], gate.shape[1]), gate.shape
    d_act, d_rows = np.empty(shape, kind), np.empty_like(dy)
    d_w_gate, d_w_up = np.zeros((experts, width, d), kind), np.zeros((experts, width, d), kind)
    d_w_down = np.zeros((experts, d, width), kind)
    for e, own in busy_experts(starts):
        d_act[own] = by.matmul(dy_rows[own], by.dequantise(weights[e][2], kind), recipe.accumulator)
        d_w_down[e] = weight_gradient(arrived[own], act[own], of_down, by)
    d_gate, d_up = nonlinearity.backward(d_act, inner)
    gate_rows, up_rows = by.rounded(d_gate, recipe.row), by.rounded(d_up, recipe.row)
    for e, own in busy_experts(starts):
        of_gate_weight, of_up_weight = (by.dequantise(weight, kind) for weight in weights[e][:2])
        d_rows[own] = by.matmul(gate_rows[own], of_gate_weight, recipe.accumulator)
        d_rows[own] += by.matmul(up_rows[own], of_up_weight, recipe.accumulator)
        d_w_gate[e] = weight_gradient(d_gate[own], x[own], of_gate, by)
        d_w_up[e] = weight_gradient(d_up[own], x[own], of_gate, by)
    return d_rows, d_w_gate, d_w_up, d_w_down


def dispatched(recipe: Recipe) -> Recipe:
    """The recipe of experts behind an all-to-all in FP8: power-of-two scales for what arrives, forward and backward."""
    return recipe._replace(round_inputs=True, round_gradients=True)
