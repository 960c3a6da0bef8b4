"""A forward pass that reads only the new tokens: the old ones are in the cache.

With a latent cache there are two ways to attend, equal in exact arithmetic:

    naive     expand every cached latent into the keys and values of all heads, then attend as in training
    absorbed  never expand. W^UK moves into the query, W^UV behind the sum:

        q_h · (W^UK_h c_j) = (W^UK_hᵀ q_h) · c_j            Σ_j p_j (W^UV_h c_j) = W^UV_h (Σ_j p_j c_j)

Absorbed, every head reads the same [c_kv | k_rope] as its key and the same c_kv as its value: it is multi-query attention with
heads of size d_c + d_r. More arithmetic per pair of tokens, but no expansion of all that was read before, at every step.

The sequences of a batch may bring different numbers of new tokens and have different lengths. Their tokens are packed: one row
of N = Σ_b S_b tokens goes through norms, projections and experts, which look at one token at a time, each token turned by the
angle of its own place; only attention takes the row apart. So there is no padding, and nothing to mask.

Where the step is small and ``compiled`` covers the model, it takes over; what it computes is this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from minids.backend import op
from minids.inference import compiled
from minids.inference.cache import Cache, FullCache
from minids.layers.attention import Attention
from minids.layers.block import Block
from minids.layers.mla import MLA
from minids.layers.parameters import Array
from minids.layers.positions import Rotary
from minids.model import DeepSeekV3


def read(model: DeepSeekV3, tokens: Array, cache: Cache, absorb: bool = True) -> Array:
    """Feed tokens (B, S) that follow what the cache holds → the normalised hidden state h⁰ of each, (B, S, d).

    Any number of chunks of any size gives what one pass over all tokens would. ``absorb`` concerns a latent cache only.
    """
    batch, count = tokens.shape
    hidden = read_packed(model, tokens.reshape(-1), np.full(batch, count), cache, absorb)
    return hidden.reshape(batch, count, -1)


def read_ragged(model: DeepSeekV3, rows: Sequence[Array], cache: Cache, absorb: bool = True) -> list[Array]:
    """The same for B sequences of S_b new tokens each, of which any number may be 0 → h⁰ (S_b, d) of each."""
    counts = np.array([len(row) for row in rows])
    if not counts.any():
        return [np.empty((0, model.config.hidden_size), model.dtype) for _ in rows]
    hidden = read_packed(model, np.concatenate([np.asarray(row, np.int64) for row in rows]), counts, cache, absorb)
    return np.split(hidden, np.cumsum(counts)[:-1])


def read_packed(model: DeepSeekV3, tokens: Array, counts: Array, cache: Cache, absorb: bool = True) -> Array:
    """tokens (N,) of all sequences one after the other, counts (B,) of each → h⁰ (N, d)."""
    fast = compiled.step_for(model, cache, len(tokens), absorb)
    if fast is not None:
        return fast.main(tokens, counts, cache)
    rows = Rows(model, counts, cache)
    x, _ = model.embed_tokens.forward(tokens[None])  # (1, N, d): all tokens as one sequence
    for layer, block in enumerate(model.blocks):
        x = _through(block, layer, x, rows, cache, absorb)
    cache.advance(counts)
    return model.norm.forward(x)[0][0]


def read_mtp(
    model: DeepSeekV3, depth: int, tokens: Array, hidden: Array, cache: Cache, absorb: bool = True, wanted: int = 0
) -> Array:
    """One sequence through MTP module ``depth``: tokens t_{i+depth} (S,) and h^{depth−1}_i (S, d) of the S positions i that
    follow what the module's own cache of one layer holds → h^depth (S − wanted, d), normalised, of the positions from the
    ``wanted``-th new one on. The others are only put into the cache, which costs a sixth."""
    fast = compiled.step_for(model, cache, len(tokens), absorb)
    if fast is not None:
        return fast.mtp(depth, tokens, np.ascontiguousarray(hidden), cache, wanted)
    module, counts = model.mtp[depth - 1], np.array([len(tokens)])
    rows = Rows(model, counts, cache)
    embedding, _ = model.embed_tokens.forward(tokens[None])
    x, _ = op.mtp_combine.forward(
        embedding, hidden[None], module.enorm.value, module.hnorm.value, module.eh_proj.value, module.eps
    )
    x = _through(module.block, 0, x, rows, cache, absorb)
    cache.advance(counts)
    return module.norm.forward(x[:, wanted:])[0][0]


def logits_of(model: DeepSeekV3, hidden: Array, cache: Cache) -> Array:
    """The head: normalised hidden states (N, d) of any depth → logits (N, V). ``cache`` is the one they were read with."""
    if cache.step is not None and len(hidden) <= compiled.MOST_ROWS and compiled.covers(model):
        return cache.step.logits(hidden)
    return model.head.forward(hidden)[0]


class Span(NamedTuple):
    """The new tokens of one sequence within the packed row."""

    sequence: int
    tokens: slice


class Rows:
    """Where the packed tokens come from: angles of their positions, and the span of each sequence."""

    def __init__(self, model: DeepSeekV3, counts: Array, cache: Cache):
        stops = np.cumsum(counts)
        spans = [Span(b, slice(int(stop - n), int(stop))) for b, (n, stop) in enumerate(zip(counts, stops, strict=True))]
        self.spans = [span for span in spans if span.tokens.start < span.tokens.stop]
        lengths = cache.lengths
        positions = np.concatenate([np.arange(length, length + n) for length, n in zip(lengths, counts, strict=True)])  # (N,)
        angles = model.rotary(int((lengths + counts).max()))
        self.rotary = Rotary(angles.cos[positions], angles.sin[positions])
        self.batch = len(counts)
        self.alike = cache.uniform and bool((counts == counts[0]).all())  # then the sequences attend side by side
        cache.reserve(counts)


def _through(block: Block, layer: int, x: Array, rows: Rows, cache: Cache, absorb: bool) -> Array:
    """x (1, N, d) through a block whose entries are the cache's layer ``layer``."""
    normed, _ = block.input_norm.forward(x)
    x = x + _attend(block.attention, layer, normed, rows, cache, absorb)
    return block.feed_forward(x)[0]


def _attend(attention: MLA | Attention, layer: int, x: Array, rows: Rows, cache: Cache, absorb: bool) -> Array:
    """x (1, N, d) → u (1, N, d), each token attending to what its sequence has cached and to its earlier new tokens."""
    if isinstance(attention, Attention):
        q, k, v, _ = attention.queries_keys_values(x, rows.rotary)
        entries = (k, v)
    else:
        q, _ = attention.queries(x, rows.rotary)  # (1, N, H, d_nope + d_r)
        c_kv, k_rope, _ = attention.latent(x, rows.rotary)  # (1, N, d_c), (1, N, 1, d_r)
        if isinstance(cache, FullCache):
            entries = attention.keys_values(c_kv, k_rope)[:2]
        else:
            entries = (np.concatenate([c_kv, k_rope[:, :, 0]], axis=-1),)  # (1, N, d_c + d_r)
    if rows.alike:
        q = q.reshape(rows.batch, -1, *q.shape[2:])  # (B, S, H, d_qk)
        held = cache.append(layer, *(e.reshape(rows.batch, -1, *e.shape[2:]) for e in entries))
        o = _over(attention, q, held, absorb)
    else:
        parts = []
        for sequence, tokens in rows.spans:
            held = cache.append_to(sequence, layer, *(e[0, tokens] for e in entries))
            parts.append(_over(attention, q[:, tokens], held, absorb))
        o = np.concatenate(parts, axis=1)
    return attention.o_proj.forward(o.reshape(*x.shape[:-1], -1))[0]


def _over(attention: MLA | Attention, q: Array, held: tuple[Array, ...], absorb: bool) -> Array:
    """q (B, S, H, d_qk) over cached entries (B, T, …) whose last S are the queries' own → o (B, S, H, d_v)."""
    if len(held) == 2:
        return op.attention.forward(q, *held, attention.scale)[0]
    return _absorbed(attention, q, held[0]) if absorb else _naive(attention, q, held[0])


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
