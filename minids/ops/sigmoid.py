"""The logistic function: sigmoid(x) = 1 / (1 + e^(−x)), sigmoid'(x) = s (1 − s). SwiGLU and the router build on it."""

import numpy as np

Array = np.ndarray


def forward(x: Array) -> tuple[Array, Array]:
    """x (...) → s (...), which is also all that the backward pass needs."""
    dtype = x.dtype if np.issubdtype(x.dtype, np.floating) else np.float64  # whole numbers have no whole sigmoid
    small = np.exp(-np.abs(x))  # in (0, 1]: never overflows, and keeps its relative precision far out
    s = np.where(x >= 0, 1, small).astype(dtype) / (1 + small)
    return s, s


def backward(ds: Array, s: Array) -> Array:
    """ds (...) → dx (...)."""
    return ds * s * (1 - s)
