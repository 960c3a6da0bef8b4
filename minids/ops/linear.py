"""Linear map, every projection of the model: y = x Wᵀ + b, W with one row per output, as in checkpoints.

Backward. Written out, y_no = Σ_i x_ni W_oi + b_o, so each gradient is one matrix product:
    dx = dy W        dW = dyᵀ x        db = Σ_n dy_n
"""

from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Saved(NamedTuple):
    x: Array  # (N, in)
    weight: Array  # (out, in)
    has_bias: bool


def forward(x: Array, weight: Array, bias: Array | None = None) -> tuple[Array, Saved]:
    """x (..., in), weight (out, in), bias (out,) or None → y (..., out)."""
    flat = x.reshape(-1, x.shape[-1])  # (N, in): one large product instead of a small one per sequence
    y = flat @ weight.T
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], weight.shape[0]), Saved(flat, weight, bias is not None)


def backward(dy: Array, saved: Saved) -> tuple[Array, Array, Array | None]:
    """dy (..., out) → dx (..., in), d_weight (out, in), d_bias (out,) or None."""
    x, weight, has_bias = saved
    flat = dy.reshape(-1, dy.shape[-1])  # (N, out)
    dx = flat @ weight
    d_weight = flat.T @ x
    d_bias = flat.sum(axis=0) if has_bias else None
    return dx.reshape(*dy.shape[:-1], weight.shape[1]), d_weight, d_bias


def backward_input(dy: Array, saved: Saved) -> Array:
    """dy (..., out) → dx (..., in): the half of ``backward`` that others wait for."""
    dx = dy.reshape(-1, dy.shape[-1]) @ saved.weight
    return dx.reshape(*dy.shape[:-1], saved.weight.shape[1])


def backward_weight_into(dy: Array, saved: Saved, d_weight: Array, d_bias: Array | None = None) -> None:
    """The other half, at any time after: adds the gradients into d_weight (out, in) and d_bias (out,)."""
    flat = dy.reshape(-1, dy.shape[-1])  # (N, out)
    d_weight += flat.T @ saved.x
    if d_bias is not None:
        d_bias += flat.sum(axis=0)


def backward_into(dy: Array, saved: Saved, d_weight: Array, d_bias: Array | None = None) -> Array:
    """dy (..., out) → dx (..., in); adds the gradients into d_weight (out, in) and d_bias (out,)."""
    dx, of_weight, of_bias = backward(dy, saved)
    d_weight += of_weight
    if d_bias is not None:
        d_bias += of_bias
    return dx
