"""Routed experts: what a token gets from the experts that the router chose for it.

    y_n = Σ_k g_nk FFN_{e(n,k)}(x_n)        the second sum of DeepSeek-V3 eq. 12; e(n, k) is token n's k-th expert

Three operations one after the other, dispatch, grouped_feed_forward and combine; backward in the opposite order.
"""

from typing import NamedTuple

import numpy as np

from minids.ops import combine, dispatch, grouped_feed_forward
from minids.ops.dispatch import Plan

Array = np.ndarray


class Saved(NamedTuple):
    plan: Plan
    experts: grouped_feed_forward.Saved
    combine: combine.Saved


class ForWeights(NamedTuple):
    """What the weights' gradients are made of."""

    experts: grouped_feed_forward.ForWeights


def forward(
    x: Array, gates: Array, plan: Plan, w_gate: Array, w_up: Array, w_down: Array, onto: Array | None = None
) -> tuple[Array, Saved]:
    """x (N, d), gates (N, K), weights stacked by expert, (E, I, d) twice and (E, d, I) → y (N, d). ``onto`` (N, d): what y is
    added to, in place."""
    rows, _ = dispatch.forward(x, plan)  # (N·K, d), sorted by expert
    rows, experts = grouped_feed_forward.forward(rows, plan.starts, w_gate, w_up, w_down)
    y, combined = combine.forward(rows, gates, plan)
    return added(y, onto), Saved(plan, experts, combined)


def backward(dy: Array, saved: Saved) -> tuple[Array, Array, Array, Array, Array]:
    """dy (N, d) → dx (N, d), d_gates (N, K), d_w_gate (E, I, d), d_w_up (E, I, d), d_w_down (E, d, I)."""
    d_rows, d_gates = combine.backward(dy, saved.combine)
    d_rows, d_w_gate, d_w_up, d_w_down = grouped_feed_forward.backward(d_rows, saved.experts)
    return dispatch.backward(d_rows, saved.plan), d_gates, d_w_gate, d_w_up, d_w_down


def backward_into(
    dy: Array, saved: Saved, d_w_gate: Array, d_w_up: Array, d_w_down: Array, onto: Array | None = None
) -> tuple[Array, Array]:
    """dy (N, d) → dx (N, d), d_gates (N, K); adds the weights' gradients into the three arrays. ``onto`` (N, d): what dx is
    added to, in place."""
    dx, d_gates, found = backward_input(dy, saved, onto)
    backward_weights_into(found, d_w_gate, d_w_up, d_w_down)
    return dx, d_gates


def backward_input(dy: Array, saved: Saved, onto: Array | None = None) -> tuple[Array, Array, ForWeights]:
    """dy (N, d) → dx (N, d), d_gates (N, K), and what ``backward_weights_into`` needs: the half that others wait for."""
    d_rows, d_gates = combine.backward(dy, saved.combine)
    d_rows, found = grouped_feed_forward.backward_input(d_rows, saved.experts)
    return added(dispatch.backward(d_rows, saved.plan), onto), d_gates, ForWeights(found)


def backward_weights_into(found: ForWeights, d_w_gate: Array, d_w_up: Array, d_w_down: Array) -> None:
    """The other half, at any time after: adds the weights' gradients into the three arrays."""
    grouped_feed_forward.backward_weights_into(found.experts, d_w_gate, d_w_up, d_w_down)


def added(x: Array, onto: Array | None) -> Array:
    """x itself, or ``onto`` after x was added to it."""
    if onto is None:
        return x
    onto += x
    return onto
