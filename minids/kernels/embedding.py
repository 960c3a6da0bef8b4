"""Embedding, compiled: see ``minids/ops/embedding.py`` for the equations. Looking up is one gather, which NumPy does well.
Backward adds each gradient row straight into its token's row, without a sort."""

import numpy as np

from minids.kernels._arrays import Array, common_float, expect, rows_of
from minids.kernels._jit import kernel
from minids.ops.embedding import Saved, forward

__all__ = ["Saved", "backward", "forward"]


def backward(dx: Array, saved: Saved) -> Array:
    """dx (..., d) → d_weight (V, d)."""
    tokens, weight = saved
    dtype = common_float(dx)
    d_weight = np.zeros(weight.shape, dtype)
    expect("dx", dx, (*tokens.shape, weight.shape[1]))
    # Unchecked in the kernel: forward has looked every token up already, and failed where one was outside.
    scatter_add(rows_of(dx, dtype), np.ascontiguousarray(tokens, np.int64).reshape(-1), d_weight)
    return d_weight


@kernel
def scatter_add(dx, tokens, d_weight):
    """dx (N, d), tokens (N,); adds into d_weight (V, d). A negative token counts from the end, as in NumPy."""
    for n in range(tokens.size):  # one thread, so that equal tokens can be added one after the other without a sort
        row = d_weight[tokens[n]]
        for i in range(row.size):
            row[i] += dx[n, i]
