"""Embedding: look up one row per token, x_t = W[t].

Backward: a row receives the gradients of all places where its token stood, dW[v] = Σ_{t = v} dx_t.
"""

from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Saved(NamedTuple):
    tokens: Array  # (...) int
    weight: Array  # (V, d); only its shape is used


def forward(tokens: Array, weight: Array) -> tuple[Array, Saved]:
    """tokens (...) of any integer type, weight (V, d) → x (..., d)."""
    return weight[tokens], Saved(tokens, weight)


def backward(dx: Array, saved: Saved) -> Array:
    """dx (..., d) → d_weight (V, d)."""
    tokens, weight = saved
    d_weight = np.zeros(weight.shape, dtype=dx.dtype)
    flat = tokens.reshape(-1)
    if flat.size == 0:
        return d_weight
    # Sorted, so that equal tokens are one run and one sum: `d_weight[tokens] += dx` would keep only the last of them.
    order = np.argsort(flat, kind="stable")
    present, starts = np.unique(flat[order], return_index=True)
    d_weight[present] = np.add.reduceat(dx.reshape(flat.size, -1)[order], starts, axis=0)
    return d_weight
