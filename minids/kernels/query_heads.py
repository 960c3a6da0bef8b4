"""Query heads, compiled: see ``minids/ops/query_heads.py`` for the equations. A head is copied, and its rotary part
turned on the way (``rope``)."""

import numpy as np

from minids.kernels._arrays import Array, common_float
from minids.kernels.rope import turned
from minids.ops.rope import Saved


def forward(q: Array, cos: Array, sin: Array, interleave: bool = True) -> tuple[Array, Saved]:
    """q (B, T, H, d_nope + d_r), cos and sin of each token's position, (T, d_r/2) or by sequence (B, T, d_r/2) → q of which the
    last d_r numbers of each head are turned."""
    dtype = common_float(q, cos, sin)
    saved = Saved(np.ascontiguousarray(cos, dtype), np.ascontiguousarray(sin, dtype), interleave)
    return turned(q, saved, 1), saved


def backward(dy: Array, saved: Saved) -> Array:
    """dy (B, T, H, d_nope + d_r) → dq, of the same shape: turned back."""
    return turned(dy, saved, -1)
