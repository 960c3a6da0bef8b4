"""Muon: a matrix is moved by the *orthogonal* matrix nearest to its averaged gradient, every direction by the same length.

With ĝ = scale · g the clipped gradient of a matrix W (out, in) and μ the momentum:

    m ← μ m + (1 − μ) ĝ
    u = μ m + (1 − μ) ĝ                                    Nesterov: where m will be after one more such gradient
    O = polar(u) = U Vᵀ   for   u = U S Vᵀ                  all singular values become 1
    W ← W − lr ( 0.2 √max(out, in) · O + λ W )

Jordan et al. 2024 (the optimizer), Liu et al. 2025 ("Muon is Scalable for LLM Training": the factor and the decay).

**Why.** Among all ΔW that lengthen no input by more than η (spectral norm ‖ΔW‖₂ ≤ η), the linearised loss ⟨g, ΔW⟩ is lowest at
−η U Vᵀ: ⟨g, ΔW⟩ ≥ −η Σ σ_i(g), and −η U Vᵀ attains it. A gradient has few large singular values and many small ones; in U Vᵀ
the small ones, rare in the data, have as much say as the large.

**Polar factor without an SVD.** An odd polynomial of a matrix acts on its singular values alone: X = U S Vᵀ gives
X (XᵀX)ᵏ = U S²ᵏ⁺¹ Vᵀ. So

    X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X          σ ← p(σ) = a σ + b σ³ + c σ⁵ for every singular value at once

needs products only. X begins as u / ‖u‖_F, so that σ ∈ [0, 1]. Newton–Schulz (15/8, −10/8, 3/8) converges to 1 but leaves 0
slowly: σ = 0.003 needs ten rounds. Muon's a = 3.4445, b = −4.7750, c = 2.0315 make a large, and p maps [0, 1.2024] and
[0.6818, 1.2024] into themselves; p(1) = 0.70, so values end in a band around 1 and never settle. After the five rounds

    every σ ≥ 0.003 ‖u‖_F ends in [0.68, 1.21]              (smaller ones at about 3.4445⁵ σ ≈ 485 σ, at most 1.21)

X Xᵀ is taken on the smaller side: a tall matrix is transposed first.

**The factor.** O of full rank has min(out, in) singular values of 1, so its entries have root mean square 1 / √max(out, in).
Times 0.2 √max(out, in) that is 0.2, about that of AdamW's m̂/√v̂, whose learning rates carry over (Liu et al., section 2.2).

**Which matrices.** Maps between two hidden spaces, each expert's by itself. Embedding, head and all vectors stay with AdamW.
"""

import math
from collections.abc import Sequence

import numpy as np

Array = np.ndarray

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # a, b, c
ROUNDS = 5
RMS = 0.2  # root mean square of an update, in learning rates


def orthogonalised(matrices: Array, rounds: int = ROUNDS) -> Array:
    """(..., out, in) → of each matrix the nearest orthogonal one, nearly: its singular vectors, and values near 1."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = np.swapaxes(matrices, -1, -2) if tall else matrices  # (..., r, s) with r ≤ s
    # In float64: the momentum of an expert that no token chose shrinks for ever, and the squares would vanish before it does.
    norm = np.sqrt(np.sum(np.square(x, dtype=np.float64), axis=(-2, -1), keepdims=True))
    x = (x / np.maximum(norm, np.finfo(x.dtype).tiny)).astype(x.dtype)  # 0, of an expert never chosen, stays 0
    for _ in range(rounds):
        gram = x @ np.swapaxes(x, -1, -2)  # (..., r, r)  X Xᵀ
        polynomial = gram @ gram
        polynomial *= c
        gram *= b
        polynomial += gram  # b X Xᵀ + c (X Xᵀ)²
        following = polynomial @ x
        x *= a
        x += following
    return np.swapaxes(x, -1, -2) if tall else x


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
    """One step on some parameters (..., out, in) of equal (out, in), stacked, in place on values W and momenta m."""
    out_in = values[0].shape[-2:]
    directions = []
    for g, m in zip(grads, momenta, strict=True):
        g = g * scale
        m += (1 - momentum) * (g - m)  # μ m + (1 − μ) ĝ
        g += momentum * (m - g)  # Nesterov: μ m + (1 − μ) ĝ
        directions.append(g.reshape(-1, *out_in))
    steps = orthogonalised(np.concatenate(directions), rounds)  # (matrices, out, in)
    steps *= lr * RMS * math.sqrt(max(out_in))
    start = 0
    for w in values:
        stop = start + w.size // math.prod(out_in)
        w *= 1 - lr * weight_decay
        w -= steps[start:stop].reshape(w.shape)
        start = stop
