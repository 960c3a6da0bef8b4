"""Combine, compiled: see ``minids/ops/combine.py`` for the equations. A token's K rows are added up where the experts left
them: nothing of size N·K·d is made besides the gradient itself."""

from typing import NamedTuple

import numpy as np

from minids.kernels._arrays import Array, common_float, expect
from minids.kernels._jit import kernel
from minids.ops.dispatch import Plan


class Saved(NamedTuple):
    rows: Array  # (N·K, d)  the expert outputs, sorted by expert
    gates: Array  # (N, K)
    plan: Plan


def forward(rows: Array, gates: Array, plan: Plan) -> tuple[Array, Saved]:
    """rows (N·K, d) sorted by expert, gates (N, K) → y (N, d)."""
    expect("gates", gates, (len(plan.place) // plan.top_k, plan.top_k))
    expect("rows", rows, (len(plan.place), rows.shape[1]))
    dtype = common_float(rows, gates)
    rows, gates = np.ascontiguousarray(rows, dtype), np.ascontiguousarray(gates, dtype)
    y = np.empty((gates.shape[0], rows.shape[1]), dtype)
    gather(rows, gates, plan.place, y)
    return y, Saved(rows, gates, plan)


def backward(dy: Array, saved: Saved) -> tuple[Array, Array]:
    """dy (N, d) → d_rows (N·K, d), d_gates (N, K)."""
    rows, gates, plan = saved
    expect("dy", dy, (len(gates), rows.shape[1]))
    d_rows, d_gates = np.empty_like(rows), np.empty_like(gates)
    scatter(np.ascontiguousarray(dy, rows.dtype), rows, gates, plan.place, d_rows, d_gates)
    return d_rows, d_gates


@kernel
def gather(rows, gates, place, y):
    """rows (N·K, d), gates (N, K), place (N·K,) → y (N, d)."""
    top_k = gates.shape[1]
    for n in range(gates.shape[0]):
        target = y[n]  # stays in the first-level cache while its K rows come by
        target[:] = y.dtype.type(0)
        for k in range(top_k):
            gate, row = gates[n, k], rows[place[n * top_k + k]]  # read where the expert left it
            for i in range(target.size):
                target[i] += gate * row[i]


@kernel
def scatter(dy, rows, gates, place, d_rows, d_gates):
    """dy (N, d), rows (N·K, d), gates (N, K), place (N·K,) → d_rows (N·K, d), d_gates (N, K)."""
    top_k = gates.shape[1]
    for n in range(gates.shape[0]):
        source = dy[n]
        for k in range(top_k):
            r = place[n * top_k + k]
            gate, along = gates[n, k], dy.dtype.type(0)
            for i in range(source.size):  # the sum has a loop of its own: see ``_jit``
                along += source[i] * rows[r, i]
            for i in range(source.size):  # dy is in the cache by now: both gradients for one reading of it
                d_rows[r, i] = gate * source[i]
            d_gates[n, k] = along
