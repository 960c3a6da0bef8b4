"""A forward pass that reads only the new tokens: the old ones are in the cache.

With a latent cache there are two ways to attend, equal in exact arithmetic:

    naive     expand every cached latent into the keys and values of all heads, then attend as in training
    absorbed  never expand. W^UK moves into the query, W^UV behind the sum:

        q_h · (W^UK_h c_j) = (W^UK_hᵀ q_h) · c_j            Σ_j p_j (W^UV_h c_j) = W^UV_h (Σ_j p_j c_j)

Absorbed, every head reads the same [c_kv | k_rope] as its key and the same c_kv as its value: it is multi-query attention with
heads of size d_c + d_r. More arithmetic per pair of tokens, but no expansion of all that was read before, at every step.
"""

from __future__ import annotations

import numpy as np

from minids.backend import op
from minids.inference.cache import FullCache, LatentCache
from minids.layers.attention import Attention
from minids.layers.mla import MLA
from minids.layers.parameters import Array
from minids.layers.positions import Rotary
from minids.model import DeepSeekV3

Cache = LatentCache | FullCache


def read(model: DeepSeekV3, tokens: Array, cache: Cache, absorb: bool = True) -> Array:
    """Feed tokens (B, S) that follow what the cache holds → the normalised hidden state h⁰ of each, (B, S, d).

    Any number of chunks of any size gives what one pass over all tokens would. ``absorb`` concerns a latent cache only.
    """
    count = tokens.shape[1]
    total = cache.length + count
    angles = model.rotary(total)
    rotary = Rotary(angles.cos[cache.length :], angles.sin[cache.length :])  # of the new positions
    x, _ = model.embed_tokens.forward(tokens)
    for layer, block in enumerate(model.blocks):
        normed, _ = block.input_norm.forward(x)
        x = x + _attend(block.attention, layer, normed, rotary, cache, absorb)
        x, _, _ = block.feed_forward(x)
    cache.advance(count)
    return model.norm.forward(x)[0]


def _attend(attention: MLA | Attention, layer: int, x: Array, rotary: Rotary, cache: Cache, absorb: bool) -> Array:
    """x (B, S, d) → u (B, S, d), attending to everything cached and to the new tokens."""
    if isinstance(attention, Attention):
        q, k, v, _ = attention.queries_keys_values(x, rotary)
        k, v = cache.append(layer, k, v)
        o, _ = op.attention.forward(q, k, v, attention.scale)
    else:
        q, _ = attention.queries(x, rotary)  # (B, S, H, d_nope + d_r)
        c_kv, k_rope, _ = attention.latent(x, rotary)  # (B, S, d_c), (B, S, 1, d_r)
        if isinstance(cache, FullCache):
            k, v, _ = attention.keys_values(c_kv, k_rope)
            k, v = cache.append(layer, k, v)
            o, _ = op.attention.forward(q, k, v, attention.scale)
        else:
            (latent,) = cache.append(layer, np.concatenate([c_kv, k_rope[:, :, 0]], axis=-1))  # (B, T, d_c + d_r)
            o = _absorbed(attention, q, latent) if absorb else _naive(attention, q, latent)
    return attention.o_proj.forward(o.reshape(*x.shape[:-1], -1))[0]


def _naive(mla: MLA, q: Array, latent: Array) -> Array:
    """q (B, S, H, d_nope + d_r), latent (B, T, d_c + d_r) → o (B, S, H, d_v), by expanding all T latents."""
    c_kv, k_rope = latent[..., : mla.d_latent], latent[..., None, mla.d_latent :]
    k, v, _ = mla.keys_values(c_kv, k_rope)
    return op.attention.forward(q, k, v, mla.scale)[0]


def _absorbed(mla: MLA, q: Array, latent: Array) -> Array:
    """The same without expanding any."""
    up = mla.kv_b_proj.weight.value.reshape(mla.heads, mla.d_nope + mla.d_v, mla.d_latent)
    w_uk, w_uv = up[:, : mla.d_nope], up[:, mla.d_nope :]  # (H, d_nope, d_c), (H, d_v, d_c)
    q_nope, q_rope = q[..., : mla.d_nope], q[..., mla.d_nope :]
    q_latent = (q_nope.swapaxes(1, 2) @ w_uk).swapaxes(1, 2)  # (B, H, S, d_nope) (H, d_nope, d_c) → (B, S, H, d_c)
    q = np.concatenate([q_latent, q_rope], axis=-1)
    keys = latent[:, :, None, :]  # (B, T, 1, d_c + d_r): one key for all heads
    o, _ = op.attention.forward(q, keys, keys[..., : mla.d_latent], mla.scale)  # (B, S, H, d_c)
    return (o.swapaxes(1, 2) @ w_uv.swapaxes(1, 2)).swapaxes(1, 2)  # (B, S, H, d_v)
