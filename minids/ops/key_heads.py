"""Key heads of MLA: what each head makes of the latent, and the one turned key that all heads share.

    k_h = [k_nope_h ; k_rope]        DeepSeek-V3 eq. 4, a concatenation

Backward: all heads read the same k_rope, so it gets the sum of their gradients.
"""

from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Saved(NamedTuple):
    d_nope: int


def forward(kv: Array, k_rope: Array, d_nope: int) -> tuple[tuple[Array, Array], Saved]:
    """kv (B, T, H, d_nope + d_v), a head's [k_nope ; v], and k_rope (B, T, 1, d_r), turned → k (B, T, H, d_nope + d_r) and
    v (B, T, H, d_v), which is a view of kv."""
    k_nope, v = kv[..., :d_nope], kv[..., d_nope:]
    every_head = np.broadcast_to(k_rope, (*k_nope.shape[:-1], k_rope.shape[-1]))
    return (np.concatenate([k_nope, every_head], axis=-1), v), Saved(d_nope)


def backward(dk: Array, dv: Array, saved: Saved) -> tuple[Array, Array]:
    """dk (B, T, H, d_nope + d_r), dv (B, T, H, d_v) → d_kv (B, T, H, d_nope + d_v), d_k_rope (B, T, 1, d_r)."""
    d_k_nope, d_every_head = dk[..., : saved.d_nope], dk[..., saved.d_nope :]
    return np.concatenate([d_k_nope, dv], axis=-1), d_every_head.sum(axis=2, keepdims=True)
