"""Linear map in FP8, compiled: see ``minids/ops/fp8_linear.py`` for the three products and their tiles.

The same steps in the same order, by the quantiser and the accumulation of this package; float32 products are BLAS's in both.
"""

from __future__ import annotations

from minids.kernels import fp8_accumulation, quantise, swiglu
from minids.kernels._arrays import Array
from minids.ops import fp8_linear as original
from minids.ops.fp8_linear import FINE, Arithmetic, Saved, Scheme

__all__ = ["COMPILED", "FINE", "Saved", "Scheme", "backward", "forward"]

COMPILED = Arithmetic(
    quantise.forward, quantise.dequantise, quantise.rounded, fp8_accumulation.matmul, swiglu.forward, swiglu.backward
)


def forward(x: Array, weight: Array, bias: Array | None = None, scheme: Scheme = FINE) -> tuple[Array, Saved]:
    """x (..., in), weight (out, in), bias (out,) or None → y (..., out)."""
    return original.forward(x, weight, bias, scheme, COMPILED)


def backward(dy: Array, saved: Saved) -> tuple[Array, Array, Array | None]:
    """dy (..., out) → dx (..., in), d_weight (out, in), d_bias (out,) or None."""
    return original.backward(dy, saved, COMPILED)
