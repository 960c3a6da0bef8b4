"""MTP combine with compiled norms: see ``minids/ops/mtp_combine.py`` for the equations.

The same steps over ``kernels/rmsnorm.py``; the product stays with BLAS.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minids.kernels import rmsnorm
from minids.kernels._arrays import Array
from minids.ops import linear


class Saved(NamedTuple):
    embedding: rmsnorm.Saved
    hidden: rmsnorm.Saved
    projection: linear.Saved


def forward(
    embedding: Array, hidden: Array, enorm: Array, hnorm: Array, eh_proj: Array, eps: float = 1e-6
) -> tuple[Array, Saved]:
    """embedding and hidden (B, T', d), gains (d,), eh_proj (d, 2d) → h' (B, T', d)."""
    e, saved_e = rmsnorm.forward(embedding, enorm, eps)
    h, saved_h = rmsnorm.forward(hidden, hnorm, eps)
    out, saved_p = linear.forward(np.concatenate([e, h], axis=-1), eh_proj)
    return out, Saved(saved_e, saved_h, saved_p)


def backward(dy: Array, saved: Saved) -> tuple[Array, Array, Array, Array, Array]:
    """dy (B, T', d) → d_embedding, d_hidden (B, T', d), d_enorm, d_hnorm (d,), d_eh_proj (d, 2d)."""
    d_both, d_eh_proj, _ = linear.backward(dy, saved.projection)
    width = dy.shape[-1]
    d_embedding, d_enorm = rmsnorm.backward(d_both[..., :width], saved.embedding)
    d_hidden, d_hnorm = rmsnorm.backward(d_both[..., width:], saved.hidden)
    return d_embedding, d_hidden, d_enorm, d_hnorm, d_eh_proj
