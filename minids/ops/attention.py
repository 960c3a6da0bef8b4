"""Causal softmax attention: every query takes a weighted mean of the values at its own and earlier positions.

    z_ij = σ q_i · k_j  for j ≤ i, −∞ beyond         p_i = softmax(z_i)         o_i = Σ_j p_ij v_j

DeepSeek-V3 eq. 10, with σ = (d_nope + d_r)^(−1/2), times m² under YaRN. Queries may be fewer than keys (decoding): they are
the last ones. Keys and values may have fewer heads than queries (GQA, MQA): query head h reads head h // (H / H_kv).

Where several samples lie packed in one sequence (V3 section 5.1), they are invisible to each other: ``starts`` says for each
query where its own sample begins, and z_ij = −∞ before that too.

Backward. From o = p v:  dv = pᵀ do,  dp = do vᵀ.
Through the softmax, whose Jacobian is diag(p) − p pᵀ:  dz_ij = p_ij ( dp_ij − Σ_m p_im dp_im ).
Then dq = σ dz k and dk = σ dzᵀ q; a key-value head gets the sum of its query heads' gradients.
"""

from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Saved(NamedTuple):
    q: Array  # (B, H_kv, G, Tq, d_qk)   G = H / H_kv query heads read one key-value head
    k: Array  # (B, H_kv, 1, Tk, d_qk)
    v: Array  # (B, H_kv, 1, Tk, d_v)
    probs: Array  # (B, H_kv, G, Tq, Tk)  p
    scale: float


def forward(q: Array, k: Array, v: Array, scale: float, starts: Array | None = None) -> tuple[Array, Saved]:
    """q (B, Tq, H, d_qk), k (B, Tk, H_kv, d_qk), v (B, Tk, H_kv, d_v), Tq ≤ Tk → o (B, Tq, H, d_v). starts (B, Tq) int: the
    first key that each query sees, at or before its own; all see the first without."""
    kv_heads = k.shape[2]
    q = _by_kv_head(q, kv_heads)
    k, v = _by_kv_head(k, kv_heads), _by_kv_head(v, kv_heads)
    probs = q @ k.swapaxes(-1, -2)  # (B, H_kv, G, Tq, Tk)
    probs *= scale
    queries, keys = probs.shape[-2:]
    position = np.arange(queries)[:, None] + (keys - queries)  # (Tq, 1): of each query among the keys
    probs[..., np.arange(keys) > position] = -np.inf
    if starts is not None:
        np.copyto(probs, -np.inf, where=np.arange(keys) < starts[:, None, None, :, None])
    probs -= probs.max(axis=-1, keepdims=True)  # the largest becomes 0: exp cannot overflow
    np.exp(probs, out=probs)
    probs /= probs.sum(axis=-1, keepdims=True)
    return _by_position(probs @ v), Saved(q, k, v, probs, scale)


def backward(do: Array, saved: Saved) -> tuple[Array, Array, Array]:
    """do (B, Tq, H, d_v) → dq (B, Tq, H, d_qk), dk (B, Tk, H_kv, d_qk), dv (B, Tk, H_kv, d_v)."""
    q, k, v, probs, scale = saved
    do = _by_kv_head(do, k.shape[1])  # (B, H_kv, G, Tq, d_v)
    dv = (probs.swapaxes(-1, -2) @ do).sum(axis=2, keepdims=True)  # over the G query heads of a key-value head
    dz = do @ v.swapaxes(-1, -2)  # dp, (B, H_kv, G, Tq, Tk)
    dz -= np.sum(dz * probs, axis=-1, keepdims=True)
    dz *= probs
    dz *= scale
    dq = dz @ k
    dk = (dz.swapaxes(-1, -2) @ q).sum(axis=2, keepdims=True)
    return _by_position(dq), _by_position(dk), _by_position(dv)


def _by_kv_head(x: Array, kv_heads: int) -> Array:
    """(B, T, H, d_h) → (B, H_kv, G, T, d_h)."""
    batch, time, heads, size = x.shape
    return x.reshape(batch, time, kv_heads, heads // kv_heads, size).transpose(0, 2, 3, 1, 4)


def _by_position(x: Array) -> Array:
    """(B, H_kv, G, T, d_h) → (B, T, H, d_h)."""
    batch, kv_heads, group, time, size = x.shape
    return x.transpose(0, 3, 1, 2, 4).reshape(batch, time, kv_heads * group, size)
