"""A forward pass that reads only the new tokens: the old ones are in the cache.

With a latent cache there are two ways to attend, equal in exact arithmetic:

    naive     expand every cached latent into the keys and values of all heads, then attend as in training
    absorbed  never expand. W^UK moves into the query, W^UV behind the sum:

        q_h · (W^UK_h c_j) = (W^UK_hᵀ q_h) · c_j            Σ_j p_j (W^UV_h c_j) = W^UV_h (Σ_j p_j c_j)

Absorbed, every head reads the same [c_kv | k_rope] as its key and the same c_kv as its value: multi-query attention with heads
of size d_c + d_r. More arithmetic per pair of tokens, but no expansion of all that was read before.

Sequences of different lengths and numbers of new tokens are packed: one row of N = Σ_b S_b tokens goes through norms,
projections and experts, and only attention takes it apart. So there is no padding, and nothing to mask. Small steps go through
one compiled kernel, ``minids/kernels/decode.py``, which computes the same. What goes through the layers has one BLAS thread.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np

from minids import arguments
from minids.backend import op
from minids.blas import one_blas_thread
from minids.errors import refuse
from minids.inference.cache import Cache, FullCache, LatentCache
from minids.inference.compiled import MOST_ROWS, Step, covers, new_rows
from minids.layers.attention import Attention
from minids.layers.block import Block
from minids.layers.mla import MLA
from minids.layers.moe import Saved as SavedMoE
from minids.layers.parameters import Array
from minids.layers.positions import Rotary
from minids.model import DeepSeekV3

CacheKind = Literal["latent", "full", "none"]


class Decoder:
    """A model together with what it has read, of ``batch`` sequences. Chunks of any size give what one pass over all would."""

    def __init__(
        self,
        model: DeepSeekV3,
        cache: CacheKind | None = None,
        batch: int = 1,
        absorb: bool = True,
        compiled: bool | None = None,
    ) -> None:
        """``cache``: "latent" (the default for MLA), "full" (for the others), or "none": read everything again at every step.
        ``absorb=False`` expands the cached latents. ``compiled``: the kernel does all steps (True), none (False), or those it
        does faster (None)."""
        c = model.config
        usual: CacheKind = "latent" if c.attention == "mla" else "full"
        kind = usual if cache is None else arguments.one_of("cache", cache, ("latent", "full", "none"))
        if kind == "latent" and c.attention != "mla":
            raise refuse("cache", kind, f"attention = {c.attention!r} has no latent to cache; say full or none")
        covered = kind == "latent" and absorb and covers(model)
        if compiled and not covered:
            raise refuse("compiled", True, "needs MLA in fp32, an absorbed latent cache and the numba backend; say None")
        self.model, self.absorb = model, absorb
        self.step = Step(model) if covered and compiled is not False else None
        # Rows of a step that the kernel takes: a few, or one of each sequence, which the layers would take one by one.
        self.most_rows = math.inf if compiled else max(MOST_ROWS, batch)
        self.texts = [np.empty(0, np.int64)] * batch  # (T_b,) the tokens themselves, where there is no cache
        # (N, K) of each layer with experts: where the tokens read last were sent. Not known without a cache.
        self.chosen = [np.empty((0, c.num_experts_per_tok), np.int64) for b in model.blocks if b.moe]
        self.cache: Cache | None = None
        self.mtp_caches: list[Cache] = []  # of each MTP module its own, of one layer and one sequence
        if kind != "none":
            make = LatentCache if kind == "latent" else FullCache
            self.cache = make(c, batch, model.dtype)
            self.mtp_caches = [make(c, 1, model.dtype, layers=1) for _ in model.mtp]

    @property
    def lengths(self) -> Array:  # (B,) tokens read of each sequence
        return np.array([len(text) for text in self.texts]) if self.cache is None else self.cache.lengths

    def copied(self, copies: int) -> Decoder:
        """Another of ``copies`` times as many sequences, each of which this one has read so many times over."""
        if self.cache is None:
            raise refuse("cache", "none", "there is nothing to copy; say latent or full")
        kind: CacheKind = "full" if isinstance(self.cache, FullCache) else "latent"
        other = Decoder(self.model, kind, len(self.cache.lengths) * copies, self.absorb)
        assert other.cache
        other.cache.lengths = np.repeat(self.cache.lengths, copies)
        other.cache.arrays = [np.repeat(array, copies, axis=1) for array in self.cache.arrays]
        return other

    def read(self, tokens: Array) -> Array:
        """tokens (B, S) that follow → the normalised hidden state h⁰ of each, (B, S, d)."""
        batch, count = tokens.shape
        return self.read_packed(tokens.reshape(-1), np.full(batch, count)).reshape(batch, count, -1)

    def read_packed(self, tokens: Array, counts: Array) -> Array:
        """The same for counts (B,) new tokens of each, any may be 0: tokens (N,), sequence after sequence → h⁰ (N, d)."""
        if self.cache is None or not len(tokens):
            return self._read_again(tokens, counts)
        if self.step and len(tokens) <= self.most_rows:
            hidden = self.step.main(tokens, counts, self.cache)
            self.chosen = list(self.step.chosen[: len(self.chosen)])
            return hidden
        with one_blas_thread():
            new = _new_tokens(self.model, counts, self.cache)
            x, _ = self.model.embed_tokens.forward(tokens[None])  # (1, N, d): all tokens as one sequence
            self.chosen = []
            for layer, block in enumerate(self.model.blocks):
                x = self._through(block, layer, x, new, self.cache, self.chosen)
            self.cache.advance(counts)
            return self.model.norm.forward(x)[0][0]

    def read_mtp(self, depth: int, tokens: Array, hidden: Array, skip: int = 0) -> Array:
        """One sequence through MTP module ``depth``: tokens t_{i+depth} (S,) and h^{depth−1}_i (S, d) of the S positions i
        after its own cache → the output of its block (S − skip, d). The first ``skip`` are only cached."""
        cache, module, counts = self.mtp_caches[depth - 1], self.model.mtp[depth - 1], np.array([len(tokens)])
        if self.step and len(tokens) <= self.most_rows:
            return self.step.mtp(depth, tokens, np.ascontiguousarray(hidden), cache, skip)
        with one_blas_thread():
            embedding, _ = self.model.embedding_of(depth).forward(tokens[None])
            weights = module.enorm.value, module.hnorm.value, module.eh_proj.value
            x, _ = op.mtp_combine.forward(embedding, hidden[None], *weights, module.eps)
            x = self._through(module.block, 0, x, _new_tokens(self.model, counts, cache), cache, [])
            cache.advance(counts)
            return x[0, skip:]

    def handed_on(self, depth: int, states: Array) -> Array:
        """What module ``depth`` + 1 reads of the states (N, d) of module ``depth``."""
        module = self.model.mtp[depth - 1]
        return module.norm.forward(states)[0] if module.normed else states

    def mtp_logits(self, depth: int, states: Array) -> Array:
        """What MTP module ``depth`` guesses: its states (N, d) → logits (N, V)."""
        return self.logits(self.model.mtp[depth - 1].norm.forward(states)[0], depth)

    def logits(self, hidden: Array, depth: int = 0) -> Array:
        """The head: normalised hidden states (N, d) of the main model, or of an MTP module → logits (N, V)."""
        if self.step and len(hidden) <= self.most_rows:
            return self.step.logits(hidden, depth)
        with one_blas_thread():
            return self.model.head_of(depth).forward(hidden)[0]

    def rewind(self, lengths: int | Array) -> None:
        """Forget all tokens from ``lengths`` on, of every sequence alike or of each its own, (B,)."""
        if self.cache is None:
            kept = np.broadcast_to(lengths, len(self.texts))
            self.texts = [text[:length] for text, length in zip(self.texts, kept, strict=True)]
        else:
            self.cache.rewind(lengths)

    @one_blas_thread()
    def _read_again(self, tokens: Array, counts: Array) -> Array:
        """``read_packed`` by the forward pass of training over everything, sequence by sequence."""
        hidden = [np.empty((0, self.model.config.hidden_size), self.model.dtype)]
        for b, new in enumerate(np.split(tokens, np.cumsum(counts)[:-1])):
            if len(new):
                text = self.texts[b] = np.concatenate([self.texts[b], new])
                hidden.append(self.model.hidden_states(text[None])[0][0, -len(new) :])
        return np.concatenate(hidden)

    def _through(self, block: Block, layer: int, x: Array, new: NewTokens, cache: Cache, chosen: list[Array]) -> Array:
        """x (1, N, d) through a block whose entries are the cache's layer ``layer``; its choice of experts joins ``chosen``."""
        normed, _ = block.input_norm.forward(x)
        x = x + self._attend(block.attention, layer, normed, new, cache)
        x, _, saved = block.feed_forward(x)
        if isinstance(saved, SavedMoE):
            chosen.append(saved.routing.chosen)
        return x

    def _attend(self, attention: MLA | Attention, layer: int, x: Array, new: NewTokens, cache: Cache) -> Array:
        """x (1, N, d) → u (1, N, d), each token attending to what its sequence has cached and to its earlier new tokens."""
        entries: tuple[Array, ...]  # what is cached of each token
        if isinstance(attention, Attention):
            q, k, v, _ = attention.queries_keys_values(x, new.rotary)
            entries = (k, v)
        else:
            q, _ = attention.queries(x, new.rotary)  # (1, N, H, d_nope + d_r)
            c_kv, k_rope, _ = attention.latent(x, new.rotary)  # (1, N, d_c), (1, N, 1, d_r)
            if isinstance(cache, FullCache):
                entries = attention.keys_values(c_kv, k_rope)[:2]
            else:
                entries = (np.concatenate([c_kv, k_rope[:, :, 0]], axis=-1),)  # (1, N, d_c + d_r)
        outputs = []
        for sequence, rows in new.spans:
            held = cache.append(layer, sequence, *(e[0, rows] for e in entries))  # (1, T + S, …)
            if isinstance(attention, Attention) or isinstance(cache, FullCache):
                outputs.append(op.attention.forward(q[:, rows], held[0], held[1], attention.scale)[0])
            else:
                outputs.append((absorbed if self.absorb else naive)(attention, q[:, rows], *held))
        o = np.concatenate(outputs, axis=1)  # (1, N, H, d_v)
        return attention.o_proj.forward(o.reshape(*x.shape[:-1], -1))[0]


def naive(mla: MLA, q: Array, latent: Array) -> Array:
    """q (B, S, H, d_nope + d_r), latent (B, T, d_c + d_r), the last S the queries' own → o (B, S, H, d_v), expanding all T."""
    k, v, _ = mla.keys_values(latent[..., : mla.d_latent], latent[..., None, mla.d_latent :])
    return op.attention.forward(q, k, v, mla.scale)[0]


def absorbed(mla: MLA, q: Array, latent: Array) -> Array:
    """The same without expanding any."""
    up = mla.kv_b_proj.weight.value.reshape(mla.heads, mla.d_nope + mla.d_v, mla.d_latent)
    w_uk, w_uv = up[:, : mla.d_nope], up[:, mla.d_nope :]  # (H, d_nope, d_c), (H, d_v, d_c)
    q_nope, q_rope = q[..., : mla.d_nope], q[..., mla.d_nope :]
    q_latent = (q_nope.swapaxes(1, 2) @ w_uk).swapaxes(1, 2)  # (B, H, S, d_nope) (H, d_nope, d_c) → (B, S, H, d_c)
    q = np.concatenate([q_latent, q_rope], axis=-1)
    keys = latent[:, :, None, :]  # (B, T, 1, d_c + d_r): one key for all heads
    o, _ = op.attention.forward(q, keys, keys[..., : mla.d_latent], mla.scale)  # (B, S, H, d_c)
    return (o.swapaxes(1, 2) @ w_uv.swapaxes(1, 2)).swapaxes(1, 2)  # (B, S, H, d_v)


class NewTokens(NamedTuple):
    """Where the packed tokens of a step come from."""

    rotary: Rotary  # the angles of their positions, (N, d_r/2) each
    spans: list[tuple[int, slice]]  # each sequence that has any, and its tokens within the packed row


def _new_tokens(model: DeepSeekV3, counts: Array, cache: Cache) -> NewTokens:
    stops = np.cumsum(counts)
    spans = [(b, slice(int(stop - n), int(stop))) for b, (n, stop) in enumerate(zip(counts, stops, strict=True)) if n]
    positions, _ = new_rows(cache.lengths, counts)  # (N,)
    angles = model.rotary(int(positions.max()) + 1)
    return NewTokens(Rotary(angles.cos[positions], angles.sin[positions]), spans)
