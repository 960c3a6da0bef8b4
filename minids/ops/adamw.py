"""AdamW over flat arrays: Adam's step, with a weight decay of its own.

With ĝ = scale · g, where ``scale`` is the factor that clips the gradient's global norm, and t = 1, 2, … the step:

    m ← β₁ m + (1 − β₁) ĝ            v ← β₂ v + (1 − β₂) ĝ²
    m̂ = m / (1 − β₁ᵗ)                v̂ = v / (1 − β₂ᵗ)
    θ ← θ − lr ( m̂ / (√v̂ + ε) + λ θ )

Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019, algorithm 2. The decay λ acts on the parameter itself: added to the
gradient, it would be divided by √v̂. DeepSeek-V3 section 4.2: β₁ = 0.9, β₂ = 0.95, λ = 0.1, clipped at norm 1. It keeps m and v
in BF16 (section 3.3.3; here as uint16): decoded, moved on in full precision, used for this step, and only then rounded.
"""

import numpy as np

from minids.ops import bfloat16

Array = np.ndarray

_PIECE = 1 << 14  # elements at a time: scratch arrays of this size stay in the cache


def update(
    values: Array,
    grads: Array,
    m: Array,
    v: Array,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
    scale: float = 1.0,
) -> None:
    """One step on flat arrays (P,), in place on values θ, m and v. ``step`` counts from 1. m and v: as values, or uint16."""
    first_correction, second_correction = 1 - beta1**step, 1 - beta2**step
    for start in range(0, values.size, _PIECE):
        piece = slice(start, start + _PIECE)
        g = grads[piece] * scale
        first, second = _numbers(m[piece], g.dtype), _numbers(v[piece], g.dtype)
        first += (1 - beta1) * (g - first)  # β₁ m + (1 − β₁) ĝ
        second += (1 - beta2) * (g * g - second)
        m_hat, v_hat = first / first_correction, second / second_correction
        values[piece] -= lr * (m_hat / (np.sqrt(v_hat) + eps) + weight_decay * values[piece])
        if m.dtype == np.uint16:
            m[piece], v[piece] = bfloat16.encode(first), bfloat16.encode(second)


def _numbers(kept: Array, dtype: np.dtype) -> Array:
    """A piece of a moment to compute with: itself, or BF16 decoded into a new array."""
    return bfloat16.decode(kept).astype(dtype, copy=False) if kept.dtype == np.uint16 else kept


def squared_norm(grads: Array) -> float:
    """grads (P,) → Σ g², summed in float64: √ of it is the global norm that clipping looks at."""
    total = 0.0
    for start in range(0, grads.size, _PIECE):
        piece = grads[start : start + _PIECE].astype(np.float64)
        total += float(piece @ piece)
    return total
