"""Linear map in FP8: three matrix products whose operands are all quantised, finely, where the paper quantises them.

DeepSeek-V3 section 3.3, figures 6 and 7. Tiles lie along the axis summed over: a scale is taken out of 128 products at a time.

    Fprop    y_no  = Σ_i x̂_ni Ŵ_oi          x in 1 × 128 along i          W in 128 × 128
    Dgrad    dx_ni = Σ_o d̂y_no Ŵ_oi         dy in 1 × 128 along o         the same Ŵ
    Wgrad    dW_oi = Σ_n d̂y_no x̂_ni         dy in 128 × 1 along tokens    x in 128 × 1: decoded, and quantised again

Kept for the backward pass are the codes of x and W and their scales; y, dx and dW leave in full precision. A gradient is passed
straight through the rounding, as if x̂ were x. The paper's kernel scales each sum of 128 products, C += (A_kb B_kbᵀ) s_a s_b;
here the operands are scaled before: the two differ by a few units of 2⁻²⁴ of Σ|products|.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from minids.ops import fp8_accumulation, quantise, swiglu
from minids.ops.delayed import Amaxes
from minids.ops.float8 import E4M3, E5M6, Format
from minids.ops.fp8_accumulation import Accumulator
from minids.ops.quantise import Quantised, Tile

Array = np.ndarray


class Scheme(NamedTuple):
    """How one linear map is quantised."""

    tile: int | None = 128  # elements along a tile's side; None: one scale for each whole matrix
    inputs: Format = E4M3  # of x; W and dy are always E4M3
    round_inputs: bool = False  # scales of x are powers of two, so that turning its tiles costs nothing
    round_gradients: bool = False  # those of dy too: then its tiles are turned as well, instead of being made from dy itself
    accumulator: Accumulator | None = None  # None: float32
    history: Amaxes | None = None  # of the layer, with delayed scaling; None: online

    def amax(self, role: str, x: Array) -> float | None:
        """What x is scaled by if not its own maxima."""
        return None if self.history is None else self.history.of(role, x)

    @property
    def row(self) -> Tile:
        return None if self.tile is None else (1, self.tile)

    @property
    def column(self) -> Tile:
        return None if self.tile is None else (self.tile, 1)

    @property
    def block(self) -> Tile:
        return None if self.tile is None else (self.tile, self.tile)

    def after_attention(self) -> Scheme:
        """That of the map behind the attention operator, whose input also serves the operator's own backward pass."""
        return self._replace(inputs=E5M6, round_inputs=True)


FINE = Scheme()  # DeepSeek-V3's


class Arithmetic(NamedTuple):
    """Who quantises and multiplies: the functions of ``ops``, or their compiled twins."""

    quantised: Callable[..., Quantised]
    dequantise: Callable[..., Array]
    rounded: Callable[..., Array]
    matmul: Callable[..., Array]
    swiglu: Callable[..., tuple[Array, Any]]
    swiglu_backward: Callable[..., tuple[Array, Array]]


PLAIN = Arithmetic(
    quantise.forward, quantise.dequantise, quantise.rounded, fp8_accumulation.matmul, swiglu.forward, swiglu.backward
)


class Saved(NamedTuple):
    x: Quantised  # (N, in), in tiles 1 × 128
    weight: Quantised  # (out, in), in blocks
    has_bias: bool
    scheme: Scheme


def forward(
    x: Array, weight: Array, bias: Array | None = None, scheme: Scheme = FINE, by: Arithmetic = PLAIN
) -> tuple[Array, Saved]:
    """x (..., in), weight (out, in), bias (out,) or None → y (..., out)."""
    flat = x.reshape(-1, x.shape[-1])  # (N, in)
    q_x = by.quantised(flat, scheme.row, scheme.inputs, scheme.round_inputs, amax=scheme.amax("x", flat))
    q_weight = by.quantised(weight, scheme.block, amax=scheme.amax("weight", weight))
    y = by.matmul(by.dequantise(q_x, x.dtype), by.dequantise(q_weight, x.dtype).T, scheme.accumulator)
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], weight.shape[0]), Saved(q_x, q_weight, bias is not None, scheme)


def backward(dy: Array, saved: Saved, by: Arithmetic = PLAIN) -> tuple[Array, Array, Array | None]:
    """dy (..., out) → dx (..., in), d_weight (out, in), d_bias (out,) or None."""
    q_x, q_weight, has_bias, scheme = saved
    flat = dy.reshape(-1, dy.shape[-1])  # (N, out)
    dy_rows = by.rounded(flat, scheme.row, power_of_two=scheme.round_gradients, amax=scheme.amax("dy", flat))
    dx = by.matmul(dy_rows, by.dequantise(q_weight, dy.dtype), scheme.accumulator)
    arrived = dy_rows if scheme.round_gradients else flat
    d_weight = weight_gradient(arrived, by.dequantise(q_x, dy.dtype), scheme, by)
    d_bias = flat.sum(axis=0) if has_bias else None
    return dx.reshape(*dy.shape[:-1], dx.shape[-1]), d_weight, d_bias


def weight_gradient(dy: Array, x: Array, scheme: Scheme, by: Arithmetic = PLAIN, roles: tuple[str, str] = ("dy", "x")) -> Array:
    """Wgrad: dy (N, out) and x (N, in), as they are at hand, are quantised in tiles along the tokens → dW (out, in)."""
    dy = by.rounded(dy, scheme.column, power_of_two=scheme.round_gradients, amax=scheme.amax(roles[0], dy))
    x = by.rounded(x, scheme.column, scheme.inputs, scheme.round_inputs, amax=scheme.amax(roles[1], x))
    return by.matmul(dy.T, x, scheme.accumulator)
