"""What ``minids/kernels/decode.py`` is told of a model: where its weights lie, its sizes, its routing biases.

The kernel serves MLA models over an absorbed latent cache, MTP modules included. The layers serve the rest: the other
attentions and caches, naive attention, ``precision = fp8``, models whose weights stay on disk, and the NumPy backend.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import numpy as np

from minids.backend import backend_name
from minids.inference.cache import Cache
from minids.layers.block import Block
from minids.layers.feed_forward import FeedForward
from minids.layers.mla import LATENT_NORM_EPS, MLA
from minids.layers.moe import MoE
from minids.layers.parameters import Array, Parameter
from minids.layers.positions import softmax_scale
from minids.model import DeepSeekV3

if TYPE_CHECKING:
    from minids.kernels.decode import Sizes

MOST_ROWS = 16  # new tokens in a step up to which the kernel is the faster one: it multiplies vectors, and BLAS matrices


def covers(model: DeepSeekV3) -> bool:
    """Whether there is a compiled step for this model under the active backend."""
    c, weights = model.config, model.parameters.values
    in_memory = weights is not None and weights.size > 0
    return backend_name() == "numba" and c.attention == "mla" and c.precision == "fp32" and in_memory


class Step:
    """One model's compiled step. It reads weights and routing biases where the model keeps them, so it never has old ones."""

    def __init__(self, model: DeepSeekV3):
        self.kernels = importlib.import_module("minids.kernels.decode")
        self.model = model
        self.weights = model.parameters.values
        blocks = [*model.blocks, *(module.block for module in model.mtp)]
        self.routers = [block.moe for block in blocks if block.moe]
        self.biases = np.zeros((len(self.routers), model.config.n_routed_experts), model.dtype)  # 0 where a router has none
        self.places = np.array([self._places_of(block) for block in blocks], np.int64)  # (L + D, columns)
        self.sizes = self._sizes()
        self.chosen = np.empty((0, 0, 0), np.int64)  # (layers with experts, R, K): where the rows of the last step went

    def main(self, tokens: Array, counts: Array, cache: Cache) -> Array:
        """tokens (N,), counts (B,) of each sequence → h⁰ (N, d), as ``Decoder.read_packed``."""
        x = self.model.embed_tokens.weight.value[tokens]  # (N, d), a copy
        return self._through(x, 0, self.model.norm.gain, counts, cache)

    def mtp(self, depth: int, tokens: Array, before: Array, cache: Cache, skip: int) -> Array:
        """tokens (S,), h^{depth−1} (S, d) → the block's output (S − skip, d), as ``Decoder.read_mtp``."""
        module, x = self.model.mtp[depth - 1], np.empty_like(before)
        embedding = self.model.embedding_of(depth).weight.value[tokens]
        places = map(_place, (module.enorm, module.hnorm, module.eh_proj))
        self.kernels.combine(embedding, before, self.weights, *places, self.sizes, x)
        first = len(self.model.blocks) + depth - 1
        return self._through(x, first, None, np.array([len(tokens)]), cache, skip)

    def logits(self, hidden: Array, depth: int = 0) -> Array:
        """h (N, d) → logits (N, V)."""
        rows, head = np.ascontiguousarray(hidden), self.model.head_of(depth).weight
        out = np.empty((len(rows), head.shape[0]), rows.dtype)
        self.kernels.logits(rows, self.weights, _place(head), head.shape[0], out)
        return out

    def _through(self, x: Array, first: int, gain: Parameter | None, counts: Array, cache: Cache, skip: int = 0) -> Array:
        """x (N, d), in place, through the cache's blocks, from ``first`` on, and the norm after them if there is a ``gain``."""
        cos, sin = self.model.rotary(cache.reserve(counts))
        if biases := [moe.bias for moe in self.routers if moe.bias is not None]:
            np.concatenate(biases, out=self.biases.reshape(-1))
        positions, sequences = new_rows(cache.lengths, counts)
        block_weights = (self.weights, self.places, self.biases, _place(gain), self.sizes, first)
        self.chosen = np.empty((max(1, len(self.routers)), len(x), self.sizes.top_k), np.int64)
        self.kernels.step(x, *block_weights, positions, sequences, cos, sin, cache.arrays[0], skip, self.chosen)
        cache.advance(counts)
        return x[skip:]

    def _places_of(self, block: Block) -> list[int]:
        """One row of the table of places: the columns of ``kernels/decode.py`` in their order."""
        mla, ffn, none = block.attention, block.ffn, [None, None, None]
        assert isinstance(mla, MLA)
        if mla.compresses_queries:
            queries = [mla.q_a_proj.weight, mla.q_a_proj.bias, mla.q_a_layernorm.gain, mla.q_b_proj.weight]
        else:
            queries = [*none, mla.q_proj.weight]
        latent = [mla.kv_a_proj.weight, mla.kv_a_proj.bias, mla.kv_a_layernorm.gain, mla.kv_b_proj.weight]
        parameters = [block.input_norm.gain, *queries, *latent, mla.o_proj.weight, mla.o_proj.bias, block.ffn_norm.gain]
        if not isinstance(ffn, MoE):
            return [*map(_place, [*parameters, None, *_matrices(ffn), *none]), -1]
        parameters += [ffn.gate.weight, ffn.w_gate, ffn.w_up, ffn.w_down, *(_matrices(ffn.shared) if ffn.shared else none)]
        return [*map(_place, parameters), self.routers.index(ffn)]

    def _sizes(self) -> Sizes:
        c = self.model.config
        without_groups = c.topk_method == "greedy" or c.topk_group == c.n_group
        grouping = 0 if without_groups else 2 if c.topk_method == "noaux_tc" else 1
        return self.kernels.Sizes(
            **dict(d=c.hidden_size, heads=c.num_attention_heads, d_q=c.q_lora_rank or 0, d_c=c.kv_lora_rank),
            **dict(d_nope=c.qk_nope_head_dim, d_rope=c.qk_rope_head_dim, d_v=c.v_head_dim),
            pair_step=2 if c.rope_interleave else 1,
            pair_apart=1 if c.rope_interleave else c.qk_rope_head_dim // 2,
            **dict(dense_width=c.intermediate_size, width=c.moe_intermediate_size),
            shared_width=c.n_shared_experts * c.moe_intermediate_size,
            **dict(experts=c.n_routed_experts, top_k=c.num_experts_per_tok),
            **dict(grouping=grouping, n_group=c.n_group, topk_group=c.topk_group),
            **dict(softmax=int(c.scoring_func == "softmax"), normalise=int(c.norm_topk_prob)),
            **dict(gate_scale=float(c.routed_scaling_factor), scale=float(softmax_scale(c))),
            **dict(eps=float(c.rms_norm_eps), latent_eps=LATENT_NORM_EPS),
        )


def _matrices(ffn: FeedForward) -> list[Parameter]:
    return [ffn.gate_proj.weight, ffn.up_proj.weight, ffn.down_proj.weight]


def _place(parameter: Parameter | None) -> int:
    """Where a parameter begins in the flat weights; −1 for none."""
    return -1 if parameter is None else parameter.place.start


def new_rows(lengths: Array, counts: Array) -> tuple[Array, Array]:
    """Position and sequence of each new token, (N,) each."""
    if len(counts) == 1:
        return np.arange(lengths[0], lengths[0] + counts[0]), np.zeros(counts[0], np.int64)
    sequences = np.repeat(np.arange(len(counts)), counts)
    firsts = np.cumsum(counts) - counts  # of each sequence within the packed row
    return lengths[sequences] + np.arange(len(sequences)) - firsts[sequences], sequences
