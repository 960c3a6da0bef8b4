"""When a decoding step goes through ``minids/kernels/decode.py``, and what that kernel is told.

It serves small steps of MLA models over a latent cache: every router, with and without query latent, biases, YaRN, either
RoPE layout, tied embeddings, and the MTP modules. The layers serve the rest:

    attention = mha, gqa, mqa, and the full cache of MLA: other entries in the cache
    naive attention (absorb=False), which is there to be compared with
    more than ``MOST_ROWS`` new tokens at once: a prefill is bound by arithmetic, which BLAS does better
    the NumPy backend; models whose weights stay on disk; precision = fp8
"""

from __future__ import annotations

import importlib

import numpy as np

from minids.backend import backend_name
from minids.inference.cache import Cache, LatentCache
from minids.layers.block import Block
from minids.layers.mla import LATENT_NORM_EPS, MLA
from minids.layers.parameters import Array, Parameter
from minids.layers.positions import softmax_scale
from minids.model import DeepSeekV3

MOST_ROWS = 16
"""New tokens in a step, over all sequences, up to which the kernel is the faster one."""


def step_for(model: DeepSeekV3, cache: Cache, rows: int, absorb: bool) -> Step | None:
    """The compiled step of ``model`` for ``rows`` new tokens; None where the layers have to do it."""
    if rows > MOST_ROWS or not absorb or not isinstance(cache, LatentCache) or not covers(model):
        return None
    if cache.step is None or cache.step.model is not model:
        cache.step = Step(model)  # kept with the cache, as its entries belong to these weights
    return cache.step


def covers(model: DeepSeekV3) -> bool:
    """Whether there is a compiled step for this model under the active backend."""
    if backend_name() != "numba" or model.config.attention != "mla" or model.config.precision != "fp32":
        return False
    if model.dtype not in (np.float32, np.float64):
        return False
    flat = model.parameters.values
    return flat is not None and flat.flags.c_contiguous and flat.dtype == model.dtype


class Step:
    """One model's weights as the kernel finds them: places in the flat array, sizes, routing biases."""

    def __init__(self, model: DeepSeekV3):
        self.kernels = importlib.import_module("minids.kernels.decode")
        self.model = model
        self.weights = model.parameters.values
        every = [*model.blocks, *(module.block for module in model.mtp)]
        self.places = np.array([self._places_of(block) for block in every], np.int64)
        self.biases = np.zeros((len(every), model.config.n_routed_experts), model.dtype)
        for row, block in zip(self.biases, every, strict=True):
            if block.moe and block.moe.bias is not None:
                row[...] = block.moe.bias
        self.sizes = self._sizes()
        self.head_place = self._place(model.head.weight)
        self.final_norm = self._place(model.norm.gain)
        self.mtp_inputs = [tuple(self._place(p) for p in (m.enorm, m.hnorm, m.eh_proj)) for m in model.mtp]
        self.mtp_norms = [self._place(module.norm.gain) for module in model.mtp]

    def main(self, tokens: Array, counts: Array, cache: LatentCache) -> Array:
        """As ``decode.read_packed``: tokens (N,), counts (B,) → h⁰ (N, d)."""
        x = self.model.embed_tokens.weight.value[tokens]  # (N, d), a copy
        return self._run(x, 0, self.final_norm, counts, cache, 0)

    def mtp(self, depth: int, tokens: Array, before: Array, cache: LatentCache, wanted: int) -> Array:
        """As ``decode.read_mtp``: tokens (S,), h^{depth−1} (S, d) → h^depth (S − wanted, d)."""
        embedding, x = self.model.embed_tokens.weight.value[tokens], np.empty_like(before)
        self.kernels.combine(embedding, before, self.weights, *self.mtp_inputs[depth - 1], self.sizes, x)
        first = len(self.model.blocks) + depth - 1
        return self._run(x, first, self.mtp_norms[depth - 1], np.array([len(tokens)]), cache, wanted)

    def _run(self, x: Array, first: int, norm: int, counts: Array, cache: LatentCache, wanted: int) -> Array:
        """x (N, d), in place, through the blocks from ``first`` that the cache is of, and the norm after them; the rows from
        ``wanted`` on."""
        cache.reserve(counts)
        positions, sequences = _rows(cache.lengths, counts)
        cos, sin = self.model.rotary(int(positions.max()) + 1)
        latent = cache.arrays[0]
        own = (self.weights, self.places, self.biases, norm, self.sizes, first)
        self.kernels.step(x, *own, positions, sequences, cos, sin, latent, wanted)
        cache.advance(counts)
        return x[wanted:]

    def logits(self, hidden: Array) -> Array:
        """h (N, d) → logits (N, V)."""
        out = np.empty((len(hidden), self.model.config.vocab_size), self.weights.dtype)
        self.kernels.head(np.ascontiguousarray(hidden), self.weights, self.head_place, self.sizes.d, out)
        return out

    def _place(self, parameter: Parameter | None) -> int:
        """Where a parameter begins in the flat weights; −1 for none."""
        if parameter is None:
            return -1
        start = parameter.value.__array_interface__["data"][0] - self.weights.__array_interface__["data"][0]
        return start // self.weights.itemsize

    def _places_of(self, block: Block) -> list[int]:
        mla: MLA = block.attention
        if mla.compresses_queries:
            queries = [mla.q_a_proj.weight, mla.q_a_proj.bias, mla.q_a_layernorm.gain, mla.q_b_proj.weight]
        else:
            queries = [None, None, None, mla.q_proj.weight]
        rest = [mla.kv_a_proj.weight, mla.kv_a_proj.bias, mla.kv_a_layernorm.gain, mla.kv_b_proj.weight]
        found = [block.input_norm.gain, *queries, *rest, mla.o_proj.weight, mla.o_proj.bias, block.ffn_norm.gain]
        shared = None
        if block.moe:
            found += [block.moe.gate.weight, block.moe.w_gate, block.moe.w_up, block.moe.w_down]
            shared = block.moe.shared
        else:
            found += [None, block.ffn.gate_proj.weight, block.ffn.up_proj.weight, block.ffn.down_proj.weight]
        if shared:
            found += [shared.gate_proj.weight, shared.up_proj.weight, shared.down_proj.weight]
        return [self._place(p) for p in found] + [-1] * (self.kernels.COLUMNS - len(found))

    def _sizes(self):
        c = self.model.config
        by_two = c.topk_method == "noaux_tc"
        return self.kernels.Sizes(
            d=c.hidden_size,
            heads=c.num_attention_heads,
            d_q=c.q_lora_rank or 0,
            d_c=c.kv_lora_rank,
            d_nope=c.qk_nope_head_dim,
            d_rope=c.qk_rope_head_dim,
            d_v=c.v_head_dim,
            pair_step=2 if c.rope_interleave else 1,
            pair_apart=1 if c.rope_interleave else c.qk_rope_head_dim // 2,
            dense_width=c.intermediate_size,
            width=c.moe_intermediate_size,
            shared_width=c.n_shared_experts * c.moe_intermediate_size,
            experts=c.n_routed_experts,
            top_k=c.num_experts_per_tok,
            grouping=0 if c.topk_method == "greedy" or c.topk_group == c.n_group else 2 if by_two else 1,
            n_group=c.n_group,
            topk_group=c.topk_group,
            softmax=int(c.scoring_func == "softmax"),
            normalise=int(c.norm_topk_prob),
            gate_scale=float(c.routed_scaling_factor),
            scale=float(softmax_scale(c)),
            eps=float(c.rms_norm_eps),
            latent_eps=LATENT_NORM_EPS,
        )


def _rows(lengths: Array, counts: Array) -> tuple[Array, Array]:
    """Position and sequence of each new token, (N,) each."""
    if len(counts) == 1:
        return np.arange(lengths[0], lengths[0] + counts[0]), np.zeros(counts[0], np.int64)
    sequences = np.repeat(np.arange(len(counts)), counts)
    firsts = np.cumsum(counts) - counts  # of each sequence within the packed row
    return lengths[sequences] + np.arange(len(sequences)) - firsts[sequences], sequences
