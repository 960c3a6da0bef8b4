"""Linear map, compiled: see ``minids/ops/linear.py`` for the equations. The backward pass is one call, and the product adds
the weight's gradient where it is kept, instead of written, read and added. A few rows are multiplied as in a decoding step: to
lay out the weight for a large product takes as long as to multiply a dozen rows by it.
"""

import numpy as np

from minids.kernels._arrays import Array, common_float, expect, rows_of
from minids.kernels._gemv import project
from minids.kernels._jit import kernel
from minids.kernels._product import before, product, products
from minids.ops import linear as plain
from minids.ops.linear import Saved, backward

__all__ = ["Saved", "backward", "backward_input", "backward_into", "backward_weight_into", "forward"]

FEW = 16  # rows


def forward(x: Array, weight: Array, bias: Array | None = None) -> tuple[Array, Saved]:
    """x (..., in), weight (out, in), bias (out,) or None → y (..., out)."""
    if x.size <= x.shape[-1] or not isinstance(weight, np.ndarray):  # a row is NumPy's, and so are weights on disk
        return plain.forward(x, weight, bias)
    expect("weight", weight, (len(weight), x.shape[-1]))
    dtype = common_float(x, weight)
    flat, weight = rows_of(x, dtype), np.ascontiguousarray(weight, dtype)
    y = np.empty((len(flat), len(weight)), dtype)
    if len(flat) < FEW:
        multiply_few(flat, weight.reshape(-1), y)
    else:
        multiply(flat, weight.T, y, products(dtype))
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], len(weight)), Saved(flat, weight, bias is not None)


def backward_input(dy: Array, saved: Saved) -> Array:
    """dy (..., out) → dx (..., in): the half of ``backward`` that others wait for."""
    if dy.size < FEW * dy.shape[-1]:
        return plain.backward_input(dy, saved)
    dtype = common_float(dy, saved.weight)
    flat, weight = rows_of(dy, dtype), np.ascontiguousarray(saved.weight, dtype)
    expect("dy", flat, (len(saved.x), len(weight)))
    dx = np.empty((len(flat), weight.shape[1]), dtype)
    multiply(flat, weight, dx, products(dtype))
    return dx.reshape(*dy.shape[:-1], weight.shape[1])


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
def multiply(a, b, out, by):
    """out = a b, (N, k) by (k, n)."""
    product(a, b, out, False, by)


@kernel
def multiply_few(x, weight, y):
    """y (N, out) = x (N, in) Wᵀ, W (out, in) flat."""
    project(x, x.shape[0], weight, 0, y.shape[1], x.shape[1], y)


@kernel
def differentiate_weight(dy, x, d_weight, by):
    """dy (N, out), x (N, in): adds into d_weight (out, in)."""
    product(dy.T, x, d_weight, True, by)


@kernel
def differentiate(dy, x, weight, dx, d_weight, by):
    """dy (N, out), x (N, in), weight (out, in) → dx (N, in); adds into d_weight (out, in)."""
    product(dy.T, x, d_weight, True, before(weight, by))  # neither the transpose nor the addition copies anything
    product(dy, weight, dx, False, by)
