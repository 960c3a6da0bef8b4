"""Grouped feed-forward network, compiled: see ``minids/ops/grouped_feed_forward.py`` for the equations.

All experts are served in one call, products included (``_blas``): no waiting for the interpreter's lock between two of them. An
expert goes through all its steps before the next one begins, so that what one step writes the next finds in the cache.
"""

from typing import NamedTuple

import numpy as np

from minids.kernels._arrays import Array, common_float, expect
from minids.kernels._exp import sigmoid
from minids.kernels._jit import kernel
from minids.kernels._product import product, products


class Saved(NamedTuple):
    rows: Array  # (R, d)
    gate_up: Array  # (R, 2 I)  W_gate x and W_up x, side by side
    starts: Array  # (E + 1,)
    weights: tuple[Array, Array, Array]  # W_gate, W_up (E, I, d), W_down (E, d, I)


class ForWeights(NamedTuple):
    dy: Array  # (R, d)
    rows: Array  # (R, d)
    act: Array  # (R, I)
    d_gate_up: Array  # (R, 2 I)
    starts: Array  # (E + 1,)


def forward(rows: Array, starts: Array, w_gate: Array, w_up: Array, w_down: Array) -> tuple[Array, Saved]:
    """rows (R, d) sorted by expert, expert e's being starts[e]:starts[e+1]; weights stacked by expert → y (R, d)."""
    dtype = common_float(rows, w_gate, w_up, w_down)
    rows, starts = np.ascontiguousarray(rows, dtype), np.ascontiguousarray(starts, np.int64)
    experts, d, width = w_down.shape
    expect("w_gate", w_gate, (experts, width, d))
    expect("w_up", w_up, (experts, width, d))
    expect("starts", starts, (experts + 1,))
    expect("rows", rows, (int(starts[-1]), d))
    if starts[0] != 0 or np.diff(starts).min(initial=0) < 0:
        raise ValueError(f"starts: must rise from 0, got {starts.tolist()}")
    gate_up, y = np.empty((len(rows), 2 * width), dtype), np.empty_like(rows)
    act = np.empty((np.diff(starts).max(initial=0), width), dtype)
    if all(isinstance(w, np.ndarray) for w in (w_gate, w_up, w_down)):
        w_gate, w_up, w_down = (np.ascontiguousarray(w, dtype) for w in (w_gate, w_up, w_down))
        experts_forward(rows, starts, w_gate, w_up, w_down, gate_up, act, y, products(dtype))
    else:  # on disk: one expert is read when its turn comes
        for e in np.flatnonzero(np.diff(starts)):
            span, its_starts = slice(starts[e], starts[e + 1]), np.array([0, starts[e + 1] - starts[e]])
            its_weights = (np.ascontiguousarray(w[e], dtype)[None] for w in (w_gate, w_up, w_down))
            experts_forward(rows[span], its_starts, *its_weights, gate_up[span], act, y[span], products(dtype))
    return y, Saved(rows, gate_up, starts, (w_gate, w_up, w_down))


def backward(dy: Array, saved: Saved) -> tuple[Array, Array, Array, Array]:
    """dy (R, d) → d_rows (R, d), d_w_gate (E, I, d), d_w_up (E, I, d), d_w_down (E, d, I)."""
    d_w_gate, d_w_up, d_w_down = (np.zeros(w.shape, saved.rows.dtype) for w in saved.weights)
    d_rows = backward_into(dy, saved, d_w_gate, d_w_up, d_w_down)
    return d_rows, d_w_gate, d_w_up, d_w_down


def backward_into(dy: Array, saved: Saved, d_w_gate: Array, d_w_up: Array, d_w_down: Array) -> Array:
    """dy (R, d) → d_rows (R, d); adds the weights' gradients into the last three, which are in C order."""
    rows, gate_up, starts, weights = saved
    expect("dy", dy, rows.shape)
    dy, (most, width) = np.ascontiguousarray(dy, rows.dtype), (np.diff(starts).max(initial=0), gate_up.shape[1] // 2)
    scratch = [np.empty((most, size), rows.dtype) for size in (width, width, 2 * width)]  # act, d_act, d_gate_up
    d_rows = np.empty_like(rows)
    experts_backward(dy, rows, gate_up, starts, *weights, *scratch, d_rows, d_w_gate, d_w_up, d_w_down, products(rows.dtype))
    return d_rows


def backward_input(dy: Array, saved: Saved) -> tuple[Array, ForWeights]:
    """dy (R, d) → d_rows (R, d), and what ``backward_weights_into`` needs."""
    rows, gate_up, starts, weights = saved
    expect("dy", dy, rows.shape)
    dy, width = np.ascontiguousarray(dy, rows.dtype), gate_up.shape[1] // 2
    act, d_gate_up, d_rows = np.empty((len(rows), width), rows.dtype), np.empty_like(gate_up), np.empty_like(rows)
    d_act = np.empty((np.diff(starts).max(initial=0), width), rows.dtype)
    experts_backward_input(dy, gate_up, starts, *weights, act, d_act, d_gate_up, d_rows, products(rows.dtype))
    return d_rows, ForWeights(dy, rows, act, d_gate_up, starts)


def backward_weights_into(found: ForWeights, d_w_gate: Array, d_w_up: Array, d_w_down: Array) -> None:
    """Adds the weights' gradients into the last three, which are in C order."""
    dtype = found.rows.dtype
    experts_backward_weights(*found, d_w_gate, d_w_up, d_w_down, products(dtype))


@kernel
def experts_backward_input(dy, gate_up, starts, w_gate, w_up, w_down, act, d_act, d_gate_up, d_rows, by):
    """dy (R, d), gate_up (R, 2 I) → act (R, I), d_gate_up (R, 2 I), d_rows (R, d). d_act (most rows, I) is scratch."""
    width = act.shape[1]
    for e in range(starts.size - 1):
        first, stop = starts[e], starts[e + 1]
        if first == stop:
            continue
        d_active, d_both, d_x = d_act[: stop - first], d_gate_up[first:stop], d_rows[first:stop]
        product(dy[first:stop], w_down[e], d_active, False, by)
        activate_backward(d_active, gate_up[first:stop], act[first:stop], d_both)
        product(d_both[:, :width], w_gate[e], d_x, False, by)
        product(d_both[:, width:], w_up[e], d_x, True, by)


@kernel
def experts_backward_weights(dy, rows, act, d_gate_up, starts, d_w_gate, d_w_up, d_w_down, by):
    """dy, rows (R, d), act (R, I), d_gate_up (R, 2 I): adds the weights' gradients."""
    width = act.shape[1]
    for e in range(starts.size - 1):
        first, stop = starts[e], starts[e + 1]
        if first == stop:
            continue
        x, d_both = rows[first:stop], d_gate_up[first:stop]
        product(dy[first:stop].T, act[first:stop], d_w_down[e], True, by)
        product(d_both[:, :width].T, x, d_w_gate[e], True, by)
        product(d_both[:, width:].T, x, d_w_up[e], True, by)


@kernel
def experts_forward(rows, starts, w_gate, w_up, w_down, gate_up, act, y, by):
    """rows (R, d), starts (E + 1,), weights by expert → gate_up (R, 2 I), y (R, d). act (most rows, I) is scratch."""
    width = act.shape[1]
    for e in range(starts.size - 1):
        first, stop = starts[e], starts[e + 1]
        if first == stop:
            continue
        x, both, active = rows[first:stop], gate_up[first:stop], act[: stop - first]
        product(x, w_gate[e].T, both[:, :width], False, by)
        product(x, w_up[e].T, both[:, width:], False, by)
        activate(both, active)
        product(active, w_down[e].T, y[first:stop], False, by)


@kernel
def experts_backward(
    dy, rows, gate_up, starts, w_gate, w_up, w_down, act, d_act, d_gate_up, d_rows, d_w_gate, d_w_up, d_w_down, by
):
    """dy, rows (R, d), gate_up (R, 2 I) → d_rows (R, d); adds the weights' gradients. act, d_act, d_gate_up are scratch."""
    width = act.shape[1]
    for e in range(starts.size - 1):
        first, stop = starts[e], starts[e + 1]
        if first == stop:
            continue
        count, x, d_out, d_x = stop - first, rows[first:stop], dy[first:stop], d_rows[first:stop]
        product(d_out, w_down[e], d_act[:count], False, by)
        activate_backward(d_act[:count], gate_up[first:stop], act[:count], d_gate_up[:count])
        d_gate, d_up = d_gate_up[:count, :width], d_gate_up[:count, width:]
        # Added by BLAS where the gradients are kept: no array of a weight's size is made.
        product(d_out.T, act[:count], d_w_down[e], True, by)
        product(d_gate, w_gate[e], d_x, False, by)
        product(d_up, w_up[e], d_x, True, by)
        product(d_gate.T, x, d_w_gate[e], True, by)
        product(d_up.T, x, d_w_up[e], True, by)


@kernel
def activate(gate_up, act):
    """gate_up (n, 2 I) → act (n, I) = silu(gate) · up."""
    width = act.shape[1]
    for n in range(act.shape[0]):
        gate, up, target = gate_up[n, :width], gate_up[n, width:], act[n]
        for i in range(width):
            target[i] = gate[i] * sigmoid(gate[i]) * up[i]  # not kept for the backward pass, which forms it again


@kernel
def activate_backward(d_act, gate_up, act, d_gate_up):
    """d_act (n, I), gate_up (n, 2 I) → act (n, I), d_gate_up (n, 2 I)."""
    one, width = act.dtype.type(1), act.shape[1]
    for n in range(act.shape[0]):
        gate, up, d, target = gate_up[n, :width], gate_up[n, width:], d_act[n], act[n]
        d_gate, d_up = d_gate_up[n, :width], d_gate_up[n, width:]
        for i in range(width):
            s = sigmoid(gate[i])
            silu = gate[i] * s  # serves the activation, which W_down's gradient needs, and d_up
            target[i] = silu * up[i]
            d_up[i] = d[i] * silu
            d_gate[i] = d[i] * up[i] * s * (one + gate[i] * (one - s))
