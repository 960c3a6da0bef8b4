"""One Transformer block: attention, then a feed-forward network or experts, each normalised before and added after.

x ← x + attention(norm(x))        x ← x + ffn(norm(x))        DeepSeek-V3 figure 2
"""

from __future__ import annotations

from typing import NamedTuple

from minids.backend import op
from minids.blas import one_blas_thread
from minids.config import ModelConfig
from minids.layers.attention import Attention
from minids.layers.attention import Saved as SavedAttention
from minids.layers.basic import RMSNorm
from minids.layers.feed_forward import FeedForward, SavedFeedForward
from minids.layers.fp8 import feed_forward
from minids.layers.mla import MLA
from minids.layers.mla import Kept as KeptMLA
from minids.layers.mla import Saved as SavedMLA
from minids.layers.moe import MoE
from minids.layers.moe import Saved as SavedMoE
from minids.layers.parameters import Array, Parameters
from minids.layers.positions import Rotary
from minids.layers.recompute import feed_forward_again, feed_forward_without


class Saved(NamedTuple):
    input_norm: op.rmsnorm.Saved
    attention: SavedMLA | SavedAttention
    ffn_norm: op.rmsnorm.Saved
    ffn: SavedMoE | SavedFeedForward


class Kept(NamedTuple):
    """What a block keeps where the rest is formed again: its input, the sum in its middle, and the parts' own."""

    x: Array  # (B, T, d)
    middle: Array  # (B, T, d)  x + attention
    attention: KeptMLA
    ffn: SavedMoE | SavedFeedForward
    rotary: Rotary
    starts: Array | None


class Block:
    """Block ``index``: x (B, T, d) → x (B, T, d)."""

    def __init__(self, config: ModelConfig, parameters: Parameters, index: int):
        name = f"model.layers.{index}"
        self.input_norm = RMSNorm(parameters, f"{name}.input_layernorm", config.hidden_size, config.rms_norm_eps)
        kind = MLA if config.attention == "mla" else Attention
        self.attention = kind(config, parameters, f"{name}.self_attn")
        self.ffn_norm = RMSNorm(parameters, f"{name}.post_attention_layernorm", config.hidden_size, config.rms_norm_eps)
        self.moe = MoE(config, parameters, f"{name}.mlp") if config.is_moe(index) else None
        self.ffn: MoE | FeedForward = self.moe or feed_forward(config, parameters, f"{name}.mlp", config.intermediate_size)
        self.recompute = False

    @one_blas_thread()
    def forward(self, x: Array, rotary: Rotary, starts: Array | None = None) -> tuple[Array, Saved | Kept]:
        """starts (B, T): where each token's sample begins, if several lie packed in a sequence."""
        normed, saved_norm = self.input_norm.forward(x)
        if self.recompute and isinstance(self.attention, MLA):
            attended, kept = self.attention.forward_keeping_little(normed, rotary, starts)
            middle = x + attended
            y, _, saved_ffn = self.feed_forward(middle)
            if isinstance(saved_ffn, SavedMoE):
                assert self.moe
                return y, Kept(x, middle, kept, self.moe.without(saved_ffn), rotary, starts)
            return y, Kept(x, middle, kept, feed_forward_without(saved_ffn), rotary, starts)
        attended, saved_attention = self.attention.forward(normed, rotary, starts)
        x = x + attended
        y, saved_ffn_norm, saved_ffn = self.feed_forward(x)
        return y, Saved(saved_norm, saved_attention, saved_ffn_norm, saved_ffn)

    @one_blas_thread()
    def feed_forward(self, x: Array) -> tuple[Array, op.rmsnorm.Saved, SavedMoE | SavedFeedForward]:
        """The second half of the block, which inference shares: x + ffn(norm(x))."""
        normed, saved_norm = self.ffn_norm.forward(x)
        y, saved_ffn = self.ffn.forward(normed)
        return x + y, saved_norm, saved_ffn

    def formed_again(self, kept: Kept) -> Saved:
        """What ``forward`` saves without recomputation, to the bit."""
        assert isinstance(self.attention, MLA)
        normed, saved_norm = self.input_norm.forward(kept.x)
        attention = self.attention.formed_again(kept.attention, normed, kept.rotary, kept.starts)
        normed, saved_ffn_norm = self.ffn_norm.forward(kept.middle)
        if isinstance(kept.ffn, SavedMoE):
            assert self.moe
            return Saved(saved_norm, attention, saved_ffn_norm, self.moe.formed_again(kept.ffn, normed))
        return Saved(saved_norm, attention, saved_ffn_norm, feed_forward_again(kept.ffn, normed))

    @one_blas_thread()
    def backward(self, dx: Array, saved: Saved | Kept, loss_weight: float) -> Array:
        """``loss_weight``: weight of the balance loss in the total."""
        if isinstance(saved, Kept):
            saved = self.formed_again(saved)
        if isinstance(self.ffn, MoE):
            assert isinstance(saved.ffn, SavedMoE)
            d = self.ffn.backward(dx, saved.ffn, loss_weight)
        else:
            assert not isinstance(saved.ffn, SavedMoE)
            d = self.ffn.backward(dx, saved.ffn)
        dx = dx + self.ffn_norm.backward(d, saved.ffn_norm)
        d = self.attention.backward(dx, saved.attention)  # type: ignore[arg-type]  # what this very layer saved
        return dx + self.input_norm.backward(d, saved.input_norm)
