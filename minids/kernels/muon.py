"""Muon, compiled: see ``minids/ops/muon.py`` for the equations.

One matrix after the other, so that all it needs stays in the cache; with P = a I + b G + c G², G = X Xᵀ, a round's new X is the
one product P X. No matrix looks at another: threads may share them out in any way and the bits stay the same. To save half of
the symmetric products G and G² gains nothing: small products run slower than large ones (docs/performance.md).
"""

import math
from collections.abc import Sequence

import numpy as np

from minids.kernels._arrays import Array, common_float
from minids.kernels._jit import kernel
from minids.kernels._product import product, products
from minids.ops.muon import COEFFICIENTS, RMS, ROUNDS


def update(
    values: Sequence[Array],
    grads: Sequence[Array],
    momenta: Sequence[Array],
    lr: float,
    momentum: float,
    weight_decay: float,
    scale: float = 1.0,
    rounds: int = ROUNDS,
) -> None:
    """One step on some parameters (..., out, in) in C order, in place on values and momenta."""
    for w, g, m in zip(values, grads, momenta, strict=True):
        dtype, stack = common_float(w, m), (-1, *w.shape[-2:])  # the matrices of a parameter, one after the other
        if not (w.flags.c_contiguous and m.flags.c_contiguous and w.dtype == m.dtype):
            raise TypeError("values and momenta are written in place: they must be of one type and in C order")
        g = np.ascontiguousarray(g, dtype).reshape(stack)
        settings = (lr * RMS * math.sqrt(max(w.shape[-2:])), 1 - lr * weight_decay, momentum, scale, rounds)
        step(w.reshape(stack), g, m.reshape(stack), *settings, *COEFFICIENTS, products(dtype))


@kernel
def step(w, g, m, rate, keep, momentum, scale, rounds, a, b, c, by):
    """w, g, m (n, out, in): w ← keep · w − rate · O of each matrix, m ← momentum · m + (1 − momentum) · scale · g."""
    count, n_out, n_in = w.shape
    rows, columns = min(n_out, n_in), max(n_out, n_in)  # the smaller side first: X Xᵀ is as small as it can be
    number = w.dtype.type
    rate, keep, a, b, c = number(rate), number(keep), number(a), number(b), number(c)
    now, following = np.empty((rows, columns), w.dtype), np.empty((rows, columns), w.dtype)
    gram, polynomial = np.empty((rows, rows), w.dtype), np.empty((rows, rows), w.dtype)
    for i in range(count):
        look_ahead(g[i], m[i], now, momentum, scale)
        x, y = now, following
        for _ in range(rounds):
            product(x, x.T, gram, False, by)
            product(gram, gram, polynomial, False, by)
            for j in range(rows):  # P = a I + b G + c G², so that the new X is one product
                of_g, of_p = gram[j], polynomial[j]
                for k in range(rows):
                    of_p[k] = b * of_g[k] + c * of_p[k]
                of_p[j] += a
            product(polynomial, x, y, False, by)
            x, y = y, x
        for j in range(n_out):
            weights = w[i, j]
            for k in range(n_in):
                weights[k] = keep * weights[k] - rate * (x[k, j] if n_out > n_in else x[j, k])  # X may be transposed


@kernel
def look_ahead(g, m, x, momentum, scale):
    """g, m (out, in) → m averaged, and μ m + (1 − μ) ĝ of Frobenius norm 1 in x, transposed where that is wider than tall."""
    n_out, n_in = g.shape
    number = g.dtype.type
    old, new, scale, square = number(momentum), number(1.0 - momentum), number(scale), 0.0
    for j in range(n_out):
        from_g, average = g[j], m[j]
        for k in range(n_in):
            fresh = new * (scale * from_g[k])
            average[k] = old * average[k] + fresh
            u = old * average[k] + fresh
            if n_out > n_in:
                x[k, j] = u
            else:
                x[j, k] = u
    for j in range(x.shape[0]):  # in float64: the momentum of an expert that is never chosen gets too small to be squared
        for k in range(x.shape[1]):
            square += np.float64(x[j, k]) * np.float64(x[j, k])
    norm, tiny = np.sqrt(square), np.finfo(g.dtype).tiny
    inverse = number(1.0 / (tiny if norm < tiny else norm))  # 0, of an expert never chosen, stays 0; NaN is not below tiny
    for j in range(x.shape[0]):
        for k in range(x.shape[1]):
            x[j, k] *= inverse
