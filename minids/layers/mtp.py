"""One multi-token-prediction module: a further block that looks one token further ahead.

DeepSeek-V3 section 2.2, eqs 21-23. Depth k, position i = 1 … T − k:

    h'_i = M_k [ norm(Emb(t_{i+k})) ; norm(h_i^{k−1}) ]
    h^k  = block(h')                      causal over positions 1 … i, with attention and experts of its own
    P(t_{i+k+1}) = softmax(head(norm(h_i^k)))

Embedding and head are the main model's, unless ``mtp_own_matrices`` gives each module its own. Depth 1 reads the main model's
state *after* its final norm, as with the released weights. At position i the module has seen tokens up to t_{i+k} and
predicts t_{i+k+1}.

What depth k hands to depth k + 1 no released model tells, since V3 has one module. ``mtp_state`` has both readings: "normed"
hands on what the head reads, as depth 1 gets it, "unnormed" the block's output, and then the norm belongs to the head alone.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from minids.backend import op
from minids.blas import one_blas_thread
from minids.config import ModelConfig
from minids.layers.basic import Embedding, Linear, RMSNorm
from minids.layers.block import Block
from minids.layers.block import Kept as KeptBlock
from minids.layers.block import Saved as SavedBlock
from minids.layers.parameters import Array, Parameters
from minids.layers.positions import Rotary
from minids.layers.put_off import waiting
from minids.layers.recompute import NOTHING


class KeptCombine(NamedTuple):
    """What is kept where both norms are formed again (``recompute``)."""

    embedding: Array  # (B, T − k, d)
    hidden: Array  # (B, T − k, d)
    projection: op.linear.Saved  # without its input


class Saved(NamedTuple):
    combine: op.mtp_combine.Saved | KeptCombine
    block: SavedBlock | KeptBlock
    norm: op.rmsnorm.Saved | None  # where the module's own output is normed


class MTPModule:
    """Depth ``depth`` (from 1), stored as layer L + depth − 1."""

    def __init__(self, config: ModelConfig, parameters: Parameters, depth: int):
        index = config.num_hidden_layers + depth - 1
        name = f"model.layers.{index}"
        d = config.hidden_size
        self.eps = config.rms_norm_eps
        self.enorm = parameters.add(f"{name}.enorm.weight", (d,), init="ones")
        self.hnorm = parameters.add(f"{name}.hnorm.weight", (d,), init="ones")
        self.eh_proj = parameters.add(f"{name}.eh_proj.weight", (d, 2 * d))
        self.block = Block(config, parameters, index)
        self.norm = RMSNorm(parameters, f"{name}.shared_head.norm", d, config.rms_norm_eps)
        self.normed = config.mtp_state == "normed"
        self.embed_tokens: Embedding | None = None
        self.head: Linear | None = None
        if config.mtp_own_matrices:
            self.embed_tokens = Embedding(parameters, f"{name}.embed_tokens", config.vocab_size, d)
            self.head = Linear(parameters, f"{name}.shared_head.head", config.vocab_size, d)

    @one_blas_thread()
    def forward(self, embedding: Array, hidden: Array, rotary: Rotary, starts: Array | None = None) -> tuple[Array, Saved]:
        """embedding of t_{i+k} and state h_i^{k−1}, both (B, T − k, d) → state h_i^k (B, T − k, d). starts (B, T − k): where
        each token's sample begins, if several lie packed in a sequence."""
        x, saved_combine = op.mtp_combine.forward(
            embedding, hidden, self.enorm.value, self.hnorm.value, self.eh_proj.value, self.eps
        )
        kept: op.mtp_combine.Saved | KeptCombine = saved_combine
        if self.block.recompute:
            kept = KeptCombine(embedding, hidden, saved_combine.projection._replace(x=NOTHING))
        x, saved_block = self.block.forward(x, rotary, starts)
        h, saved_norm = self.norm.forward(x) if self.normed else (x, None)
        return h, Saved(kept, saved_block, saved_norm)

    def combined_again(self, kept: KeptCombine) -> op.mtp_combine.Saved:
        """What ``op.mtp_combine`` saved, to the bit; the projection is not made again."""
        e, saved_e = op.rmsnorm.forward(kept.embedding, self.enorm.value, self.eps)
        h, saved_h = op.rmsnorm.forward(kept.hidden, self.hnorm.value, self.eps)
        pair = np.concatenate([e, h], axis=-1)
        return op.mtp_combine.Saved(saved_e, saved_h, kept.projection._replace(x=pair.reshape(-1, pair.shape[-1])))

    @one_blas_thread()
    def backward(self, dh: Array, saved: Saved, loss_weight: float) -> tuple[Array, Array]:
        """dh (B, T − k, d) → d_embedding, d_hidden (B, T − k, d)."""
        dx = self.norm.backward(dh, saved.norm) if saved.norm else dh
        dx = self.block.backward(dx, saved.block, loss_weight)
        combine = self.combined_again(saved.combine) if isinstance(saved.combine, KeptCombine) else saved.combine
        if (later := waiting()) is not None:
            d_embedding, d_hidden, d_enorm, d_hnorm = op.mtp_combine.backward_input(dx, combine)
            later.append(partial(op.linear.backward_weight_into, dx, combine.projection, self.eh_proj.grad))
        else:
            d_embedding, d_hidden, d_enorm, d_hnorm, d_eh_proj = op.mtp_combine.backward(dx, combine)
            self.eh_proj.grad += d_eh_proj
        self.enorm.grad += d_enorm
        self.hnorm.grad += d_hnorm
        return d_embedding, d_hidden

    def readout(self, h: Array) -> tuple[Array, op.rmsnorm.Saved | None]:
        """State h_i^k (…, d) → what the head reads of it, normed."""
        return (h, None) if self.normed else self.norm.forward(h)

    def readout_backward(self, dy: Array, saved: op.rmsnorm.Saved | None) -> Array:
        return self.norm.backward(dy, saved) if saved else dy
