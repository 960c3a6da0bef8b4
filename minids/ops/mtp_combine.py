"""MTP combine: join what the model knows so far with the token that comes next.

    h'_i = M [ RMSNorm(Emb(t_{i+k})) ; RMSNorm(h_i^{k−1}) ]        DeepSeek-V3 eq. 21

The report writes the hidden state first; the released eh_proj and every program that runs it put the embedding first, as here.
Backward: a linear map's, split at the seam, each half through its own norm.
"""

from types import ModuleType
from typing import NamedTuple

import numpy as np

from minids.ops import linear, rmsnorm

Array = np.ndarray


class Saved(NamedTuple):
    embedding: rmsnorm.Saved
    hidden: rmsnorm.Saved
    projection: linear.Saved


def forward(
    embedding: Array, hidden: Array, enorm: Array, hnorm: Array, eh_proj: Array, eps: float = 1e-6, norms: ModuleType = rmsnorm
) -> tuple[Array, Saved]:
    """embedding and hidden (B, T', d), gains (d,), eh_proj (d, 2d) → h' (B, T', d). ``norms``: RMSNorm, plain or compiled."""
    e, saved_e = norms.forward(embedding, enorm, eps)
    h, saved_h = norms.forward(hidden, hnorm, eps)
    out, saved_p = linear.forward(np.concatenate([e, h], axis=-1), eh_proj)  # (B, T', 2d) → (B, T', d)
    return out, Saved(saved_e, saved_h, saved_p)


def backward(dy: Array, saved: Saved, norms: ModuleType = rmsnorm) -> tuple[Array, Array, Array, Array, Array]:
    """dy (B, T', d) → d_embedding, d_hidden (B, T', d), d_enorm, d_hnorm (d,), d_eh_proj (d, 2d)."""
    d_eh_proj = np.zeros_like(saved.projection.weight)
    linear.backward_weight_into(dy, saved.projection, d_eh_proj)
    return *backward_input(dy, saved, norms), d_eh_proj


def backward_input(dy: Array, saved: Saved, norms: ModuleType = rmsnorm) -> tuple[Array, Array, Array, Array]:
    """The same without the gradient of eh_proj, which is a linear map's and can be formed at any time after."""
    d_both, width = linear.backward_input(dy, saved.projection), dy.shape[-1]
    d_embedding, d_enorm = norms.backward(d_both[..., :width], saved.embedding)
    d_hidden, d_hnorm = norms.backward(d_both[..., width:], saved.hidden)
    return d_embedding, d_hidden, d_enorm, d_hnorm
