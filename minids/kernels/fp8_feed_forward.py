"""SwiGLU networks in FP8, compiled: see ``minids/ops/fp8_feed_forward.py`` for the steps.

The same steps in the same order, by the quantiser, the accumulation and the SwiGLU of this package.
"""

from __future__ import annotations

from minids.kernels._arrays import Array
from minids.kernels.fp8_linear import COMPILED
from minids.ops import fp8_feed_forward as original
from minids.ops.fp8_feed_forward import Saved, dispatched
from minids.ops.fp8_linear import FINE, Scheme

__all__ = ["Saved", "backward", "dispatched", "forward"]


def forward(
    rows: Array, starts: Array, w_gate: Array, w_up: Array, w_down: Array, scheme: Scheme = FINE
) -> tuple[Array, Saved]:
    """rows (R, d) sorted by expert, expert e's being starts[e]:starts[e+1]; weights stacked by expert → y (R, d)."""
    return original.forward(rows, starts, w_gate, w_up, w_down, scheme, COMPILED)


def backward(dy: Array, saved: Saved) -> tuple[Array, Array, Array, Array]:
    """dy (R, d) → d_rows (R, d), d_w_gate (E, I, d), d_w_up (E, I, d), d_w_down (E, d, I)."""
    return original.backward(dy, saved, COMPILED)
