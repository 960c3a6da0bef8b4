"""Routed experts, compiled and in one call: see ``minids/ops/routed_experts.py`` for the equations.

In NumPy all N·K rows are written before the experts begin, and their outputs before they are added up: at d = 256 and 4,096
tokens 17 MB each, forward and again backward, which no cache holds. Here at most ``ROWS`` rows of one expert are on their way:
copied out of x, sent through the three products and added to their tokens' sums while they are in the second-level cache. The
rows and the outputs of all experts exist at no time, and the backward pass does without both:

- rows are copied out of x again;
- a gate's gradient is dy · y_e = dy · W_down a = (W_downᵀ dy) · a, a sum over I numbers that are at hand, instead of over d
  that would have to be kept.

Meanwhile each product asks for the weight that the next one reads: an expert's weights come from afar, once a pass.

A token's sum is formed in the order of the experts' numbers, in ``ops`` in the order in which the token chose them.
"""

from typing import NamedTuple

import numpy as np

from minids.kernels._arrays import Array, common_float, expect
from minids.kernels._exp import sigmoid
from minids.kernels._jit import kernel, part
from minids.kernels._product import before, product, products
from minids.kernels._rows import bring
from minids.kernels.grouped_feed_forward import activate
from minids.ops.dispatch import Plan

ROWS = 256
"""Of one expert at a time: 256 × 256 numbers of four bytes, of x and of dy, are half of a second-level cache."""
AHEAD = 2
"""Rows: while one is copied or added, its second next is asked for."""


class Placed(NamedTuple):
    order: Array  # (N·K,)  as in the plan
    top_k: int
    parts: Array  # (P, 3)  an expert, the first of its rows and the one behind the last: at most ``ROWS`` in each


class Saved(NamedTuple):
    x: Array  # (N, d)
    gates: Array  # (N, K)
    placed: Placed
    gate_up: Array  # (N·K, 2 I)  W_gate x and W_up x, side by side, sorted by expert
    weights: tuple[Array, Array, Array]  # W_gate, W_up (E, I, d), W_down (E, d, I)


class ForWeights(NamedTuple):
    dy: Array  # (N, d)
    x: Array  # (N, d)
    placed: Placed
    act: Array  # (N·K, I)  times the gates
    d_gate_up: Array  # (N·K, 2 I)


def forward(
    x: Array, gates: Array, plan: Plan, w_gate: Array, w_up: Array, w_down: Array, onto: Array | None = None
) -> tuple[Array, Saved]:
    """x (N, d), gates (N, K), weights stacked by expert, (E, I, d) twice and (E, d, I) → y (N, d). ``onto`` (N, d): what y is
    added to, in place."""
    weights = w_gate, w_up, w_down
    dtype = common_float(x, gates, *weights)
    experts, d, width = w_down.shape
    expect("w_gate", w_gate, (experts, width, d))
    expect("w_up", w_up, (experts, width, d))
    expect("gates", gates, (plan.place.size // plan.top_k, plan.top_k))
    expect("x", x, (len(gates), d))
    expect("starts", plan.starts, (experts + 1,))
    x, gates = np.ascontiguousarray(x, dtype), np.ascontiguousarray(gates, dtype)
    gate_up, y = np.empty((plan.place.size, 2 * width), dtype), _sums(onto, x)
    scratch = [np.empty((ROWS, size), dtype) for size in (d, width, d)]  # rows, act, out
    placed, flat, by = _placed(plan), gates.reshape(-1), products(dtype)
    if all(isinstance(w, np.ndarray) for w in weights):
        weights = tuple(np.ascontiguousarray(w, dtype) for w in weights)  # type: ignore[assignment]
        experts_forward(x, flat, *placed, *weights, gate_up, *scratch, y, by)
    else:  # on disk: one expert is read when its turn comes
        for e in np.flatnonzero(plan.counts):
            its_weights = (np.ascontiguousarray(w[e], dtype)[None] for w in weights)
            its_parts = np.where([1, 0, 0], 0, placed.parts[placed.parts[:, 0] == e])  # of the only expert that is there
            experts_forward(x, flat, placed.order, placed.top_k, its_parts, *its_weights, gate_up, *scratch, y, by)
    return y, Saved(x, gates, placed, gate_up, weights)


def backward(dy: Array, saved: Saved) -> tuple[Array, Array, Array, Array, Array]:
    """dy (N, d) → dx (N, d), d_gates (N, K), d_w_gate (E, I, d), d_w_up (E, I, d), d_w_down (E, d, I)."""
    d_weights = tuple(np.zeros(w.shape, saved.x.dtype) for w in saved.weights)
    return *backward_into(dy, saved, *d_weights), *d_weights  # type: ignore[return-value]


def backward_into(
    dy: Array, saved: Saved, d_w_gate: Array, d_w_up: Array, d_w_down: Array, onto: Array | None = None
) -> tuple[Array, Array]:
    """dy (N, d) → dx (N, d), d_gates (N, K); adds the weights' gradients into the three arrays, which are in C order. ``onto``
    (N, d): what dx is added to, in place."""
    x, gates, placed, gate_up, weights = saved
    expect("dy", dy, x.shape)
    dy, dtype, d, width = np.ascontiguousarray(dy, x.dtype), x.dtype, x.shape[1], gate_up.shape[1] // 2
    dx, d_gates = _sums(onto, x), np.empty_like(gates)
    scratch = [np.empty((ROWS, size), dtype) for size in (d, d, width, width, 2 * width)]
    experts_backward(
        dy, x, gates.reshape(-1), *placed, gate_up, *weights, *scratch, dx, d_gates.reshape(-1), d_w_gate, d_w_up,
        d_w_down, products(dtype),
    )  # fmt: skip
    return dx, d_gates


def backward_input(dy: Array, saved: Saved, onto: Array | None = None) -> tuple[Array, Array, ForWeights]:
    """dy (N, d) → dx (N, d), d_gates (N, K), and what ``backward_weights_into`` needs."""
    x, gates, placed, gate_up, weights = saved
    expect("dy", dy, x.shape)
    dy, dtype, d, width = np.ascontiguousarray(dy, x.dtype), x.dtype, x.shape[1], gate_up.shape[1] // 2
    dx, d_gates, d_gate_up = _sums(onto, x), np.empty_like(gates), np.empty_like(gate_up)
    act, rows, d_act = np.empty((len(gate_up), width), dtype), np.empty((ROWS, d), dtype), np.empty((ROWS, width), dtype)
    experts_backward_input(
        dy, gates.reshape(-1), *placed, gate_up, *weights, rows, d_act, act, d_gate_up, dx, d_gates.reshape(-1),
        products(dtype),
    )  # fmt: skip
    return dx, d_gates, ForWeights(dy, x, placed, act, d_gate_up)


def backward_weights_into(found: ForWeights, d_w_gate: Array, d_w_up: Array, d_w_down: Array) -> None:
    """Adds the weights' gradients into the last three, which are in C order."""
    dy, x, placed, act, d_gate_up = found
    rows = [np.empty((ROWS, x.shape[1]), x.dtype) for _ in range(2)]
    experts_backward_weights(dy, x, *placed, act, d_gate_up, *rows, d_w_gate, d_w_up, d_w_down, products(x.dtype))


def _placed(plan: Plan) -> Placed:
    counts = plan.counts
    pieces = -(-counts // ROWS)  # (E,) equal ones, but for one row
    e = np.repeat(np.arange(len(counts)), pieces)
    piece = np.arange(len(e)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    edges = [plan.starts[e] + counts[e] * edge // pieces[e] for edge in (piece, piece + 1)]
    parts = np.stack([e, *edges], axis=1).astype(np.int64)
    return Placed(np.ascontiguousarray(plan.order, np.int64), plan.top_k, parts)


def _sums(onto: Array | None, x: Array) -> Array:
    """Where (N, d) numbers are added up."""
    if onto is None:
        return np.zeros_like(x)
    expect("onto", onto, x.shape)
    return onto


@kernel
def experts_forward(x, gates, order, top_k, parts, w_gate, w_up, w_down, gate_up, rows, act, out, y, by):
    """x (N, d), gates and order (N·K,), parts (P, 3), weights by expert → gate_up (N·K, 2 I); adds to y (N, d). rows, act
    and out (ROWS, d, I or d) are scratch."""
    width = act.shape[1]
    for p in range(parts.shape[0]):
        e, first, stop = parts[p, 0], parts[p, 1], parts[p, 2]
        here, active, to = rows[: stop - first], act[: stop - first], out[: stop - first]
        both, pairs = gate_up[first:stop], order[first:stop]
        gather(x, pairs, top_k, here)
        product(here, w_gate[e].T, both[:, :width], False, before(w_up[e], by))
        product(here, w_up[e].T, both[:, width:], False, before(w_down[e], by))
        activate(both, active)
        product(active, w_down[e].T, to, False, before(w_gate[min(e + 1, w_gate.shape[0] - 1)], by))
        add_weighted(to, gates, pairs, top_k, y)


@kernel
def experts_backward(
    dy, x, gates, order, top_k, parts, gate_up, w_gate, w_up, w_down, rows, d_rows, act, d_act, d_gate_up, dx, d_gates,
    d_w_gate, d_w_up, d_w_down, by,
):  # fmt: skip
    """dy, x (N, d), gates and order (N·K,), gate_up (N·K, 2 I) → d_gates (N·K,); adds to dx (N, d) and to the weights'
    gradients. rows … d_gate_up are scratch."""
    width = act.shape[1]
    for p in range(parts.shape[0]):
        e, first, stop = parts[p, 0], parts[p, 1], parts[p, 2]
        size, pairs = stop - first, order[first:stop]
        here, active, d_active, d_both = rows[:size], act[:size], d_act[:size], d_gate_up[:size]
        d_gate, d_up, d_here = d_both[:, :width], d_both[:, width:], d_rows[:size]
        gather(dy, pairs, top_k, d_here)
        product(d_here, w_down[e], d_active, False, before(w_gate[e], by))
        activate_backward(d_active, gate_up[first:stop], gates, pairs, active, d_both, d_gates)
        product(d_here.T, active, d_w_down[e], True, before(w_up[e], by))
        # dy is not needed from here on: its place serves again.
        product(d_gate, w_gate[e], d_here, False, before(w_up[e], by))
        product(d_up, w_up[e], d_here, True, before(w_down[min(e + 1, w_gate.shape[0] - 1)], by))
        add(d_here, pairs, top_k, dx)
        gather(x, pairs, top_k, here)
        product(d_gate.T, here, d_w_gate[e], True, by)
        product(d_up.T, here, d_w_up[e], True, by)


@kernel
def experts_backward_input(
    dy, gates, order, top_k, parts, gate_up, w_gate, w_up, w_down, rows, d_act, act, d_gate_up, dx, d_gates, by
):
    """dy (N, d), gates and order (N·K,), gate_up (N·K, 2 I) → act (N·K, I), d_gate_up (N·K, 2 I), d_gates (N·K,); adds to dx
    (N, d). rows and d_act are scratch."""
    width = act.shape[1]
    for p in range(parts.shape[0]):
        e, first, stop = parts[p, 0], parts[p, 1], parts[p, 2]
        here, d_active = rows[: stop - first], d_act[: stop - first]
        d_both, pairs = d_gate_up[first:stop], order[first:stop]
        gather(dy, pairs, top_k, here)
        product(here, w_down[e], d_active, False, by)
        activate_backward(d_active, gate_up[first:stop], gates, pairs, act[first:stop], d_both, d_gates)
        product(d_both[:, :width], w_gate[e], here, False, by)
        product(d_both[:, width:], w_up[e], here, True, by)
        add(here, pairs, top_k, dx)


@kernel
def experts_backward_weights(dy, x, order, top_k, parts, act, d_gate_up, rows, d_rows, d_w_gate, d_w_up, d_w_down, by):
    """dy, x (N, d), order (N·K,), act (N·K, I), d_gate_up (N·K, 2 I): adds the weights' gradients. The rest is scratch."""
    width = act.shape[1]
    for p in range(parts.shape[0]):
        e, first, stop = parts[p, 0], parts[p, 1], parts[p, 2]
        here, d_here, d_both = rows[: stop - first], d_rows[: stop - first], d_gate_up[first:stop]
        gather(x, order[first:stop], top_k, here)
        gather(dy, order[first:stop], top_k, d_here)
        product(d_here.T, act[first:stop], d_w_down[e], True, by)
        product(d_both[:, :width].T, here, d_w_gate[e], True, by)
        product(d_both[:, width:].T, here, d_w_up[e], True, by)


@part
def gather(x, pairs, top_k, rows):
    """x (N, d), pairs (n,) → rows (n, d): of each pair the token's."""
    for r in range(pairs.size):
        bring(x[pairs[min(r + AHEAD, pairs.size - 1)] // top_k])
        source, target = x[pairs[r] // top_k], rows[r]
        for i in range(target.size):
            target[i] = source[i]


@part
def add(rows, pairs, top_k, sums):
    """rows (n, d), pairs (n,): adds each row to its token's of sums (N, d)."""
    for r in range(pairs.size):
        bring(sums[pairs[min(r + AHEAD, pairs.size - 1)] // top_k])
        source, target = rows[r], sums[pairs[r] // top_k]
        for i in range(target.size):
            target[i] += source[i]


@part
def add_weighted(rows, gates, pairs, top_k, sums):
    """rows (n, d), gates (N·K,), pairs (n,): adds each row, times its gate, to its token's of sums (N, d)."""
    for r in range(pairs.size):
        bring(sums[pairs[min(r + AHEAD, pairs.size - 1)] // top_k])
        gate, source, target = gates[pairs[r]], rows[r], sums[pairs[r] // top_k]
        for i in range(target.size):
            target[i] += gate * source[i]


@part
def activate_backward(d_act, gate_up, gates, pairs, act, d_gate_up, d_gates):
    """d_act (n, I) before the gates, gate_up (n, 2 I), gates (N·K,), pairs (n,) → act (n, I) times the gates, d_gate_up
    (n, 2 I), and d_gates (N·K,) of these pairs."""
    number, width = act.dtype.type, act.shape[1]
    one = number(1)
    for n in range(pairs.size):
        g, along = gates[pairs[n]], number(0)
        gate, up, d, target = gate_up[n, :width], gate_up[n, width:], d_act[n], act[n]
        d_gate, d_up = d_gate_up[n, :width], d_gate_up[n, width:]
        for i in range(width):
            s, gd = sigmoid(gate[i]), g * d[i]
            silu = gate[i] * s  # serves the activation, which W_down's gradient needs, and d_up
            target[i] = silu * up[i]
            d_up[i] = gd * silu
            d_gate[i] = gd * up[i] * s * (one + gate[i] * (one - s))
        for i in range(width):  # the sum has a loop of its own: see ``_jit``
            along += target[i] * d[i]
        for i in range(width):
            target[i] *= g
        d_gates[pairs[n]] = along
