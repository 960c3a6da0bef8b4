"""SwiGLU: the gated nonlinearity inside every feed-forward network and every expert.

    a = silu(p) · q        silu(p) = p · sigmoid(p)        p = W_gate u,  q = W_up u

Shazeer 2020, eq. 5. The whole network is FFN(u) = W_down a; in the checkpoint gate_proj, up_proj, down_proj.

Backward, with s = sigmoid(p):
    dq = da · silu(p)
    dp = da · q · s (1 + p (1 − s))
"""

from typing import NamedTuple

import numpy as np

from minids.ops import sigmoid

Array = np.ndarray


class Saved(NamedTuple):
    gate: Array  # (..., I)  p
    up: Array  # (..., I)  q
    s: Array  # (..., I)  sigmoid(p)


def forward(gate: Array, up: Array) -> tuple[Array, Saved]:
    """gate and up (..., I) → a (..., I)."""
    s, _ = sigmoid.forward(gate)
    return gate * s * up, Saved(gate, up, s)


def backward(da: Array, saved: Saved) -> tuple[Array, Array]:
    """da (..., I) → d_gate, d_up (..., I)."""
    gate, up, s = saved
    d_up = da * gate * s
    d_gate = da * up * s * (1 + gate * (1 - s))
    return d_gate, d_up
