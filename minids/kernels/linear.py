"""Linear map, compiled: see ``minids/ops/linear.py`` for the equations. The backward pass is one call, and BLAS adds the
weight's gradient where it is kept, instead of written, read and added."""

import numpy as np

from minids.kernels._arrays import Array, common_float, expect, rows_of
from minids.kernels._jit import kernel
from minids.kernels._product import product, products
from minids.ops.linear import Saved, backward, backward_input, forward

__all__ = ["Saved", "backward", "backward_input", "backward_into", "backward_weight_into", "forward"]


def backward_into(dy: Array, saved: Saved, d_weight: Array, d_bias: Array | None = None) -> Array:
    """dy (..., out) → dx (..., in); adds the gradients into d_weight (out, in) and d_bias (out,)."""
    x, weight, _ = saved
    dtype = common_float(weight)
    flat, x, weight = rows_of(dy, dtype), np.ascontiguousarray(x, dtype), np.ascontiguousarray(weight, dtype)
    expect("dy", flat, (len(x), len(weight)))
    dx = np.empty((len(flat), weight.shape[1]), dtype)
    differentiate(flat, x, weight, dx, d_weight, products(dtype))
    if d_bias is not None:
        d_bias += flat.sum(axis=0)
    return dx.reshape(*dy.shape[:-1], weight.shape[1])


def backward_weight_into(dy: Array, saved: Saved, d_weight: Array, d_bias: Array | None = None) -> None:
    """Adds the gradients into d_weight (out, in) and d_bias (out,); dy (..., out)."""
    dtype = common_float(saved.weight)
    flat, x = rows_of(dy, dtype), np.ascontiguousarray(saved.x, dtype)
    expect("dy", flat, (len(x), len(saved.weight)))
    differentiate_weight(flat, x, d_weight, products(dtype))
    if d_bias is not None:
        d_bias += flat.sum(axis=0)


@kernel
def differentiate_weight(dy, x, d_weight, by):
    """dy (N, out), x (N, in): adds into d_weight (out, in)."""
    product(dy.T, x, d_weight, True, by)


@kernel
def differentiate(dy, x, weight, dx, d_weight, by):
    """dy (N, out), x (N, in), weight (out, in) → dx (N, in); adds into d_weight (out, in)."""
    product(dy.T, x, d_weight, True, by)  # the transpose is a flag to BLAS, and so is the addition: nothing is copied
    product(dy, weight, dx, False, by)
