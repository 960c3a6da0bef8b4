"""Dispatch: copy every token once for each expert it chose, sorted by expert.

    rows[r] = x[ token(r) ]        r = 0 … N·K − 1, all rows of expert 0 first, then those of expert 1, …

What the all-to-all does between nodes (DeepSeek-V3 section 3.2.2). No expert has a capacity: no token is ever dropped.

Backward, the sum over a token's K copies:  dx[n] = Σ_{r: token(r) = n} d_rows[r]
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Plan(NamedTuple):
    """Where each (token, choice) pair went. Pair p = n·K + k is token n's k-th expert."""

    order: Array  # (N·K,) int  the pair that row r holds
    place: Array  # (N·K,) int  the row that pair p went to: the inverse of `order`
    starts: Array  # (E + 1,) int  expert e has the rows starts[e] … starts[e + 1] − 1
    top_k: int

    @property
    def counts(self) -> Array:
        """(E,) int: tokens sent to each expert, its load."""
        return np.diff(self.starts)


def plan(chosen: Array, n_experts: int) -> Plan:
    """chosen (N, K) int → the plan. Within an expert, tokens keep their order."""
    flat = chosen.reshape(-1)
    order = np.argsort(flat, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    starts = np.zeros(n_experts + 1, dtype=np.int64)
    np.cumsum(np.bincount(flat, minlength=n_experts), out=starts[1:])
    return Plan(order, place, starts, chosen.shape[1])


def busy_experts(starts: Array) -> Iterator[tuple[int, slice]]:
    """starts (E + 1,) → (e, slice of its rows) for every expert that has rows."""
    for e in np.flatnonzero(np.diff(starts)):
        yield int(e), slice(int(starts[e]), int(starts[e + 1]))


def forward(x: Array, plan: Plan) -> tuple[Array, Plan]:
    """x (N, d) → rows (N·K, d)."""
    return x[plan.order // plan.top_k], plan


def backward(d_rows: Array, plan: Plan) -> Array:
    """d_rows (N·K, d) → dx (N, d)."""
    by_pair = d_rows[plan.place]  # (N·K, d): a token's copies side by side again
    return by_pair.reshape(-1, plan.top_k, d_rows.shape[-1]).sum(axis=1)
