"""Multi-head Latent Attention (DeepSeek-V3 section 2.1.1, eqs 1-11; figure 2, lower half).

Keys and values of all heads are made from one small latent c_kv, which is cached; queries have a latent of their own. RoPE
between latent and heads would stand in the way of absorption, so it acts on extra dimensions, whose key is one for all heads.

    c_q    = q_a_proj x                       eq. 6     W^DQ   (d_c', d)
    q      = q_b_proj norm(c_q)               eqs 7, 8  W^UQ and W^QR, per head [d_nope | d_r]
    c_kv,k = kv_a_proj_with_mqa x             eqs 1, 3  W^DKV and W^KR, [d_c | d_r]
    k,v    = kv_b_proj norm(c_kv)             eqs 2, 5  W^UK and W^UV, per head [d_nope | d_v]
    q_h    = [q_nope_h ; rope(q_rope_h)]      eq. 9     the first concatenation
    k_h    = [k_nope_h ; rope(k_rope)]        eq. 4     the second: every head gets the same k_rope
    u      = o_proj [o_1 ; … ; o_H]           eq. 11

Backward, the two places to be careful at: the shared k_rope receives the *sum* of its gradients over the heads, and c_kv the
sum of the gradients through keys and through values, which kv_b_proj's one matrix adds by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minids.backend import op
from minids.config import ModelConfig
from minids.layers.basic import RMSNorm, SavedLinear
from minids.layers.fp8 import projection
from minids.layers.parameters import Array, Parameters
from minids.layers.positions import Rotary, softmax_scale
from minids.layers.recompute import NOTHING, with_input, without_input

LATENT_NORM_EPS = 1e-6  # DeepSeek's code and transformers use this on both latents, whatever rms_norm_eps says


class SavedQueries(NamedTuple):
    down: SavedLinear | None  # None without query compression, and so is norm
    norm: op.rmsnorm.Saved | None
    up: SavedLinear
    rope: op.rope.Saved


class SavedLatent(NamedTuple):
    down: SavedLinear
    norm: op.rmsnorm.Saved
    rope: op.rope.Saved


class Saved(NamedTuple):
    queries: SavedQueries
    latent: SavedLatent
    up: SavedLinear
    attention: op.attention.Saved
    out: SavedLinear


class Kept(NamedTuple):
    """What is kept where the rest is formed again (``recompute``): both latents as they leave their projections, and o."""

    c_q: Array  # (B, T, d_c'); x itself without query compression
    c_kv_k_rope: Array  # (B, T, d_c + d_r)
    down: tuple[SavedLinear | None, SavedLinear]  # of queries and of keys and values, without x
    out: SavedLinear  # holds o


class MLA:
    """x (B, T, d) → u (B, T, d)."""

    def __init__(self, config: ModelConfig, parameters: Parameters, name: str):
        self.heads = config.num_attention_heads
        self.d_nope, self.d_rope, self.d_v = config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim
        self.d_latent = config.kv_lora_rank
        self.interleave = config.rope_interleave
        self.scale = softmax_scale(config)
        d, bias = config.hidden_size, config.attention_bias
        width = self.heads * config.qk_head_dim
        self.compresses_queries = config.q_lora_rank is not None
        if config.q_lora_rank is not None:
            self.q_a_proj = projection(config, parameters, f"{name}.q_a_proj", config.q_lora_rank, d, bias)
            self.q_a_layernorm = RMSNorm(parameters, f"{name}.q_a_layernorm", config.q_lora_rank, LATENT_NORM_EPS)
            self.q_b_proj = projection(config, parameters, f"{name}.q_b_proj", width, config.q_lora_rank)
        else:
            self.q_proj = projection(config, parameters, f"{name}.q_proj", width, d)
        self.kv_a_proj = projection(config, parameters, f"{name}.kv_a_proj_with_mqa", self.d_latent + self.d_rope, d, bias)
        self.kv_a_layernorm = RMSNorm(parameters, f"{name}.kv_a_layernorm", self.d_latent, LATENT_NORM_EPS)
        width = self.heads * (self.d_nope + self.d_v)
        self.kv_b_proj = projection(config, parameters, f"{name}.kv_b_proj", width, self.d_latent)
        self.o_proj = projection(config, parameters, f"{name}.o_proj", d, self.heads * self.d_v, bias, after_attention=True)
        self.on_queries_keys: Callable[[Array, Array], None] | None = None  # an observer's, with q and k of a forward pass

    def forward(self, x: Array, rotary: Rotary, starts: Array | None = None) -> tuple[Array, Saved]:
        """starts (B, T): where each token's sample begins, if several lie packed in a sequence."""
        q, saved_q = self.queries(x, rotary)  # (B, T, H, d_nope + d_r)
        c_kv, k_rope, saved_latent = self.latent(x, rotary)  # (B, T, d_c), (B, T, 1, d_r)
        k, v, saved_up = self.keys_values(c_kv, k_rope)  # (B, T, H, d_nope + d_r), (B, T, H, d_v)
        if self.on_queries_keys:
            self.on_queries_keys(q, k)
        o, saved_attention = op.attention.forward(q, k, v, self.scale, starts)  # (B, T, H, d_v)
        u, saved_out = self.o_proj.forward(o.reshape(*x.shape[:-1], -1))
        return u, Saved(saved_q, saved_latent, saved_up, saved_attention, saved_out)

    def backward(self, du: Array, saved: Saved) -> Array:
        do = self.o_proj.backward(du, saved.out).reshape(*du.shape[:-1], self.heads, self.d_v)
        dq, dk, dv = op.attention.backward(do, saved.attention)
        d_c_kv, d_k_rope = self.keys_values_backward(dk, dv, saved.up)
        dx = self.latent_backward(d_c_kv, d_k_rope, saved.latent)
        dx += self.queries_backward(dq, saved.queries)
        return dx

    # With recomputation the forward pass keeps little, and the backward pass first forms the rest again: the same bits.

    def forward_keeping_little(self, x: Array, rotary: Rotary, starts: Array | None = None) -> tuple[Array, Kept]:
        """x (B, T, d) → u (B, T, d), the same as ``forward`` gives."""
        c_q, down_q = self.query_latent(x)
        c_kv_k_rope, down_kv = self.kv_a_proj.forward(x)
        q, _, k, _, v, _ = self._formed(c_q, c_kv_k_rope, (down_q, down_kv), rotary)
        if self.on_queries_keys:
            self.on_queries_keys(q, k)
        o = op.attention.forward(q, k, v, self.scale, starts)[0]
        u, saved_out = self.o_proj.forward(o.reshape(*x.shape[:-1], -1))
        down = (down_q and without_input(down_q), without_input(down_kv))
        return u, Kept(c_q if self.compresses_queries else NOTHING, c_kv_k_rope, down, saved_out)

    def formed_again(self, kept: Kept, x: Array, rotary: Rotary, starts: Array | None = None) -> Saved:
        """What ``forward`` would have saved; x (B, T, d) as it was given."""
        down_q, down_kv = kept.down
        down = (down_q and with_input(down_q, x), with_input(down_kv, x))
        c_q = kept.c_q if self.compresses_queries else x
        q, saved_q, k, saved_latent, v, saved_up = self._formed(c_q, kept.c_kv_k_rope, down, rotary)
        saved_attention = op.attention.forward(q, k, v, self.scale, starts)[1]
        return Saved(saved_q, saved_latent, saved_up, saved_attention, kept.out)

    def _formed(
        self, c_q: Array, c_kv_k_rope: Array, down: tuple[SavedLinear | None, SavedLinear], rotary: Rotary
    ) -> tuple[Array, SavedQueries, Array, SavedLatent, Array, SavedLinear]:
        q, saved_q = self.queries_from(c_q, down[0], rotary)
        c_kv, k_rope, saved_latent = self.latent_from(c_kv_k_rope, down[1], rotary)
        k, v, saved_up = self.keys_values(c_kv, k_rope)
        return q, saved_q, k, saved_latent, v, saved_up

    # The forward pass in three steps, which inference takes one by one: what it caches lies between the second and third.

    def queries(self, x: Array, rotary: Rotary) -> tuple[Array, SavedQueries]:
        """x (B, T, d) → q (B, T, H, d_nope + d_r), eqs 6-9."""
        c_q, saved_down = self.query_latent(x)
        return self.queries_from(c_q, saved_down, rotary)

    def query_latent(self, x: Array) -> tuple[Array, SavedLinear | None]:
        """x (B, T, d) → c_q (B, T, d_c'), or x itself without query compression."""
        return self.q_a_proj.forward(x) if self.compresses_queries else (x, None)

    def queries_from(self, c_q: Array, saved_down: SavedLinear | None, rotary: Rotary) -> tuple[Array, SavedQueries]:
        """c_q (B, T, d_c') → q (B, T, H, d_nope + d_r)."""
        saved_norm: op.rmsnorm.Saved | None = None
        if self.compresses_queries:
            c_q, saved_norm = self.q_a_layernorm.forward(c_q)
            q, saved_up = self.q_b_proj.forward(c_q)
        else:
            q, saved_up = self.q_proj.forward(c_q)
        q = q.reshape(*c_q.shape[:-1], self.heads, self.d_nope + self.d_rope)
        q, saved_rope = op.query_heads.forward(q, *rotary, self.interleave)
        return q, SavedQueries(saved_down, saved_norm, saved_up, saved_rope)

    def latent(self, x: Array, rotary: Rotary) -> tuple[Array, Array, SavedLatent]:
        """x (B, T, d) → normalised c_kv (B, T, d_c) and turned k_rope (B, T, 1, d_r), eqs 1 and 3: all that is cached."""
        both, saved_down = self.kv_a_proj.forward(x)  # (B, T, d_c + d_r)
        return self.latent_from(both, saved_down, rotary)

    def latent_from(self, both: Array, saved_down: SavedLinear, rotary: Rotary) -> tuple[Array, Array, SavedLatent]:
        """[c_kv ; k_rope] (B, T, d_c + d_r) as projected → c_kv (B, T, d_c), k_rope (B, T, 1, d_r)."""
        c_kv, k_rope = both[..., : self.d_latent], both[..., None, self.d_latent :]
        c_kv, saved_norm = self.kv_a_layernorm.forward(c_kv)
        k_rope, saved_rope = op.rope.forward(k_rope, *rotary, self.interleave)
        return c_kv, k_rope, SavedLatent(saved_down, saved_norm, saved_rope)

    def keys_values(self, c_kv: Array, k_rope: Array) -> tuple[Array, Array, SavedLinear]:
        """c_kv (B, T, d_c), k_rope (B, T, 1, d_r) → k (B, T, H, d_nope + d_r), v (B, T, H, d_v), eqs 2, 4, 5."""
        kv, saved_up = self.kv_b_proj.forward(c_kv)
        kv = kv.reshape(*c_kv.shape[:-1], self.heads, self.d_nope + self.d_v)
        (k, v), _ = op.key_heads.forward(kv, k_rope, self.d_nope)
        return k, v, saved_up

    def queries_backward(self, dq: Array, saved: SavedQueries) -> Array:
        dq = op.query_heads.backward(dq, saved.rope).reshape(*dq.shape[:-2], -1)
        if saved.norm is None or saved.down is None:
            return self.q_proj.backward(dq, saved.up)
        d_c_q = self.q_b_proj.backward(dq, saved.up)
        d_c_q = self.q_a_layernorm.backward(d_c_q, saved.norm)
        return self.q_a_proj.backward(d_c_q, saved.down)

    def latent_backward(self, d_c_kv: Array, d_k_rope: Array, saved: SavedLatent) -> Array:
        d_c_kv = self.kv_a_layernorm.backward(d_c_kv, saved.norm)
        d_k_rope = op.rope.backward(d_k_rope, saved.rope)[..., 0, :]  # (B, T, d_r): back from one head to none
        return self.kv_a_proj.backward(np.concatenate([d_c_kv, d_k_rope], axis=-1), saved.down)

    def keys_values_backward(self, dk: Array, dv: Array, saved_up: SavedLinear) -> tuple[Array, Array]:
        d_kv, d_k_rope = op.key_heads.backward(dk, dv, op.key_heads.Saved(self.d_nope))  # (B, T, H, d_nope + d_v)
        return self.kv_b_proj.backward(d_kv.reshape(*d_kv.shape[:-2], -1), saved_up), d_k_rope
