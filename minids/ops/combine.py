"""Combine: bring every token's K expert outputs home and add them, weighted by the gates.

    y_n = Σ_k g_nk · rows[ place(n, k) ]        the second sum of DeepSeek-V3 eq. 12

Backward:
    d_rows[ place(n, k) ] = g_nk dy_n        dg_nk = dy_n · rows[ place(n, k) ]
"""

from typing import NamedTuple

import numpy as np

from minids.ops.dispatch import Plan

Array = np.ndarray


class Saved(NamedTuple):
    by_token: Array  # (N, K, d)  the expert outputs, a token's side by side
    gates: Array  # (N, K)
    plan: Plan


def forward(rows: Array, gates: Array, plan: Plan) -> tuple[Array, Saved]:
    """rows (N·K, d) sorted by expert, gates (N, K) → y (N, d)."""
    by_token = rows[plan.place].reshape(*gates.shape, rows.shape[-1])  # (N, K, d)
    y = (gates[:, None, :] @ by_token)[:, 0, :]  # (N, 1, K) (N, K, d) → (N, d)
    return y, Saved(by_token, gates, plan)


def backward(dy: Array, saved: Saved) -> tuple[Array, Array]:
    """dy (N, d) → d_rows (N·K, d), d_gates (N, K)."""
    by_token, gates, plan = saved
    d_gates = (by_token @ dy[:, :, None])[:, :, 0]  # (N, K, d) (N, d, 1) → (N, K)
    # Row r holds pair order[r]: its token is that // K.
    d_rows = dy[plan.order // plan.top_k] * gates.reshape(-1)[plan.order, None]
    return d_rows, d_gates
