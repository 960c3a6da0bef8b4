"""SwiGLU, compiled: see ``minids/ops/swiglu.py`` for the equations. One pass forward and one backward; NumPy makes 8 and 9."""

from typing import NamedTuple

import numpy as np

from minids.kernels._arrays import Array, common_float, expect
from minids.kernels._exp import sigmoid
from minids.kernels._jit import kernel


class Saved(NamedTuple):
    gate: Array  # (..., I)  p
    up: Array  # (..., I)  q


def forward(gate: Array, up: Array) -> tuple[Array, Saved]:
    """gate and up (..., I) → a (..., I)."""
    expect("up", up, gate.shape)
    dtype = common_float(gate, up)
    gate, up = np.ascontiguousarray(gate, dtype), np.ascontiguousarray(up, dtype)
    act = np.empty_like(gate)
    activate(gate.reshape(-1), up.reshape(-1), act.reshape(-1))
    return act, Saved(gate, up)


def backward(da: Array, saved: Saved) -> tuple[Array, Array]:
    """da (..., I) → d_gate, d_up (..., I)."""
    gate, up = saved
    expect("da", da, gate.shape)
    da = np.ascontiguousarray(da, gate.dtype)
    d_gate, d_up = np.empty_like(gate), np.empty_like(up)
    activate_backward(da.reshape(-1), gate.reshape(-1), up.reshape(-1), d_gate.reshape(-1), d_up.reshape(-1))
    return d_gate, d_up


@kernel
def activate(gate, up, act):
    """gate, up → act, all (n,)."""
    for i in range(gate.size):  # flat, whatever the shape: one long vectorised loop
        act[i] = gate[i] * sigmoid(gate[i]) * up[i]


@kernel
def activate_backward(d_act, gate, up, d_gate, d_up):
    """d_act, gate, up → d_gate, d_up, all (n,)."""
    one = gate.dtype.type(1)
    for i in range(gate.size):
        s = sigmoid(gate[i])  # computed again: cheaper than to write and to read it
        d_up[i] = d_act[i] * gate[i] * s
        d_gate[i] = d_act[i] * up[i] * s * (one + gate[i] * (one - s))
