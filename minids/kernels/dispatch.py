"""Dispatch, compiled: see ``minids/ops/dispatch.py`` for the equations. The plan is a counting sort, two passes over the
choices. Backward adds a token's K rows up where they lie."""

import numpy as np

from minids.kernels._arrays import Array, common_float, expect
from minids.kernels._jit import kernel
from minids.ops.dispatch import Plan


def plan(chosen: Array, n_experts: int) -> Plan:
    """chosen (N, K) int → the plan. Within an expert, tokens keep their order."""
    flat = np.ascontiguousarray(chosen, np.int64).reshape(-1)
    order, place = np.empty_like(flat), np.empty_like(flat)
    starts = np.zeros(n_experts + 1, np.int64)
    if not counting_sort(flat, order, place, starts, np.empty(n_experts, np.int64)):
        raise ValueError(f"chosen: experts run from 0 to {n_experts - 1}, got {flat.min()} … {flat.max()}")
    return Plan(order, place, starts, chosen.shape[1])


def forward(x: Array, plan: Plan) -> tuple[Array, Plan]:
    """x (N, d) → rows (N·K, d)."""
    expect("x", x, (plan.place.size // plan.top_k, x.shape[1]))
    x = np.ascontiguousarray(x, common_float(x))
    rows = np.empty((plan.place.size, x.shape[1]), x.dtype)
    copy_out(x, plan.place, plan.top_k, rows)
    return rows, plan


def backward(d_rows: Array, plan: Plan) -> Array:
    """d_rows (N·K, d) → dx (N, d)."""
    expect("d_rows", d_rows, (plan.place.size, d_rows.shape[1]))
    d_rows = np.ascontiguousarray(d_rows, common_float(d_rows))
    dx = np.empty((plan.place.size // plan.top_k, d_rows.shape[1]), d_rows.dtype)
    add_up(d_rows, plan.place, plan.top_k, dx)
    return dx


@kernel
def counting_sort(flat, order, place, starts, following):
    """flat (N·K,) → order, place (N·K,), starts (E + 1,); False if an expert does not exist. following (E,) is scratch."""
    experts = following.size
    for p in range(flat.size):
        if flat[p] < 0 or flat[p] >= experts:
            return False
        starts[flat[p] + 1] += 1  # counted one place further on, so that the running sum leaves beginnings
    for e in range(experts):
        starts[e + 1] += starts[e]
        following[e] = starts[e]
    for p in range(flat.size):
        r = following[flat[p]]  # pairs come in order, so that within an expert tokens keep theirs
        following[flat[p]] = r + 1
        order[r], place[p] = p, r
    return True


@kernel
def copy_out(x, place, top_k, rows):
    """x (N, d), place (N·K,) → rows (N·K, d)."""
    for n in range(x.shape[0]):  # by token and not by row: x[n] is read from memory once for its K copies
        for k in range(top_k):
            row = rows[place[n * top_k + k]]
            for i in range(row.size):
                row[i] = x[n, i]


@kernel
def add_up(d_rows, place, top_k, dx):
    """d_rows (N·K, d), place (N·K,) → dx (N, d)."""
    for n in range(dx.shape[0]):
        target = dx[n]  # stays in the cache while the K gradients of its copies are added
        target[:] = dx.dtype.type(0)
        for k in range(top_k):
            row = d_rows[place[n * top_k + k]]
            for i in range(target.size):
                target[i] += row[i]
