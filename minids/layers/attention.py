"""Multi-head, grouped-query and multi-query attention: what MLA is compared with.

Heads, head sizes and rotary dimensions are those of the MLA of the same configuration. But keys and values come straight from
the hidden state, for H_kv = H (MHA), 1 < H_kv < H (GQA) or H_kv = 1 (MQA) heads, all of which have to be cached.

    q = q_proj x    k = k_proj x    v = v_proj x    u = o_proj attention([q_nope ; rope(q_rope)], [k_nope ; rope(k_rope)], v)
"""

from typing import NamedTuple

from minids.backend import op
from minids.config import ModelConfig
from minids.layers.basic import SavedLinear
from minids.layers.fp8 import projection
from minids.layers.parameters import Array, Parameters
from minids.layers.positions import Rotary, softmax_scale


class SavedInputs(NamedTuple):
    q: SavedLinear
    k: SavedLinear
    v: SavedLinear
    q_rope: op.rope.Saved
    k_rope: op.rope.Saved


class Saved(NamedTuple):
    inputs: SavedInputs
    attention: op.attention.Saved
    out: SavedLinear


class Attention:
    """x (B, T, d) → u (B, T, d)."""

    def __init__(self, config: ModelConfig, parameters: Parameters, name: str):
        self.heads, self.kv_heads = config.num_attention_heads, config.kv_heads
        self.d_nope, self.d_qk, self.d_v = config.qk_nope_head_dim, config.qk_head_dim, config.v_head_dim
        self.interleave = config.rope_interleave
        self.scale = softmax_scale(config)
        d, bias = config.hidden_size, config.attention_bias
        self.q_proj = projection(config, parameters, f"{name}.q_proj", self.heads * self.d_qk, d, bias)
        self.k_proj = projection(config, parameters, f"{name}.k_proj", self.kv_heads * self.d_qk, d, bias)
        self.v_proj = projection(config, parameters, f"{name}.v_proj", self.kv_heads * self.d_v, d, bias)
        self.o_proj = projection(config, parameters, f"{name}.o_proj", d, self.heads * self.d_v, bias, after_attention=True)

    def forward(self, x: Array, rotary: Rotary, starts: Array | None = None) -> tuple[Array, Saved]:
        """starts (B, T): where each token's sample begins, if several lie packed in a sequence."""
        q, k, v, saved = self.queries_keys_values(x, rotary)
        o, saved_attention = op.attention.forward(q, k, v, self.scale, starts)  # (B, T, H, d_v)
        u, saved_out = self.o_proj.forward(o.reshape(*x.shape[:-1], -1))
        return u, Saved(saved, saved_attention, saved_out)

    def backward(self, du: Array, saved: Saved) -> Array:
        do = self.o_proj.backward(du, saved.out).reshape(*du.shape[:-1], self.heads, self.d_v)
        dq, dk, dv = op.attention.backward(do, saved.attention)
        q, k, v, q_rope, k_rope = saved.inputs
        dx = self.q_proj.backward(self._turned_back(dq, q_rope), q)
        dx += self.k_proj.backward(self._turned_back(dk, k_rope), k)
        dx += self.v_proj.backward(dv.reshape(*dv.shape[:-2], -1), v)
        return dx

    def queries_keys_values(self, x: Array, rotary: Rotary) -> tuple[Array, Array, Array, SavedInputs]:
        """x (B, T, d) → q (B, T, H, d_qk), k (B, T, H_kv, d_qk), v (B, T, H_kv, d_v); k and v are what is cached."""
        q, saved_q = self.q_proj.forward(x)
        k, saved_k = self.k_proj.forward(x)
        v, saved_v = self.v_proj.forward(x)
        q = q.reshape(*x.shape[:-1], self.heads, self.d_qk)
        k = k.reshape(*x.shape[:-1], self.kv_heads, self.d_qk)
        q, saved_q_rope = op.query_heads.forward(q, *rotary, self.interleave)
        k, saved_k_rope = op.query_heads.forward(k, *rotary, self.interleave)
        v = v.reshape(*x.shape[:-1], self.kv_heads, self.d_v)
        return q, k, v, SavedInputs(saved_q, saved_k, saved_v, saved_q_rope, saved_k_rope)

    def _turned_back(self, dx: Array, saved_rope: op.rope.Saved) -> Array:
        """(B, T, H, d_nope + d_r) → (B, T, H · (d_nope + d_r))."""
        return op.query_heads.backward(dx, saved_rope).reshape(*dx.shape[:-2], -1)
