"""Causal softmax attention, compiled and in tiles: see ``minids/ops/attention.py`` for the equations.

The products stay with BLAS; between them one kernel does to a tile of logits, while it is in the cache, what takes NumPy
seven passes through memory: scale, mask, softmax, and in the backward pass the softmax's Jacobian.

    a tile is the logits of some sequences or heads at a block of queries, a few hundred kilobytes, from one buffer;
    keys beyond a block's last query are not multiplied at all, which saves close to half of the work at long T;
    no array of size T × T outlives its tile: what is saved per query is the largest logit and one over the sum of
    exponentials, from which the backward pass forms the probabilities again (Dao et al. 2022, FlashAttention);
    of sequences up to KEPT keys the probabilities are kept instead: there they are no larger than q, k and v themselves.

A weight of exactly 0 beyond the query times a NaN is NaN, so that in ``ops`` a NaN in a later value reaches earlier queries.
Here it reaches those of its own tile only; where causality lets NaN through, both agree.

float32, 4 heads of 48 and 32. 12 × 64 tokens: forward 2.1 times as fast as NumPy, backward 1.1 (0.8 if the weights
were formed again). 16 × 256 tokens: 3.0 and 1.4.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minids.kernels._arrays import Array, common_float
from minids.kernels._exp import exp
from minids.kernels._jit import kernel
from minids.kernels._rows import largest

QUERIES = 64  # of one tile. Fewer skip more of the keys beyond, but make the products too small for BLAS
KEPT = 64  # keys up to which the weights are kept: the product and the exponentials that would form them again cost more
TILE_BYTES = 1 << 19  # of one tile's logits: it stays in the second-level cache between the products


class Saved(NamedTuple):
    q: Array  # (B, H_kv, G, Tq, d_qk)   G = H / H_kv query heads read one key-value head
    k: Array  # (B, H_kv, 1, Tk, d_qk)
    v: Array  # (B, H_kv, 1, Tk, d_v)
    peak: Array  # (B, H_kv, G, Tq)  the largest logit of a query
    rscale: Array  # (B, H_kv, G, Tq)  1 / Σ_j exp(z_ij − peak_i)
    scale: float
    probs: Array | None  # (B, H_kv, G, Tq, Tk), where Tk ≤ KEPT


class Tile(NamedTuple):
    """Some sequences, some key-value heads, a block of queries, and the keys that its last query sees."""

    sequences: slice
    heads: slice
    queries: slice
    keys: int

    def of_queries(self, x: Array) -> Array:
        """x (B, H_kv, G, Tq, ...) → the tile's part."""
        return x[self.sequences, self.heads, :, self.queries]

    def of_keys(self, x: Array) -> Array:
        """x (B, H_kv, 1, Tk, ...) → the tile's part."""
        return x[self.sequences, self.heads, :, : self.keys]


def forward(q: Array, k: Array, v: Array, scale: float) -> tuple[Array, Saved]:
    """q (B, Tq, H, d_qk), k (B, Tk, H_kv, d_qk), v (B, Tk, H_kv, d_v), Tq ≤ Tk → o (B, Tq, H, d_v)."""
    dtype, kv_heads = common_float(q, k, v), k.shape[2]
    q, k, v = (_by_kv_head(_rows_in_order(x, dtype), kv_heads) for x in (q, k, v))
    o, o_by_head = _empty_like(q, v.shape[-1], dtype)
    peak, rscale = np.empty(q.shape[:-1], dtype), np.empty(q.shape[:-1], dtype)
    tiles = _tiles(q, k)
    kept = np.empty((*q.shape[:-1], k.shape[3]), dtype) if _keeps(q, k) else None
    buffer = _buffer(tiles, q) if kept is None else None
    for tile in tiles:
        queries = tile.of_queries(q)  # (b, h, G, rows, d_qk)
        probs = _part(buffer, queries, tile.keys) if kept is None else tile.of_queries(kept)  # (b, h, G, rows, keys)
        np.matmul(queries, tile.of_keys(k).swapaxes(-1, -2), out=probs)
        softmax(probs, scale, tile.sequences.start, tile.heads.start, tile.queries.start, peak, rscale)
        np.matmul(probs, tile.of_keys(v), out=tile.of_queries(o_by_head))
    return o, Saved(q, k, v, peak, rscale, scale, kept)


def backward(do: Array, saved: Saved) -> tuple[Array, Array, Array]:
    """do (B, Tq, H, d_v) → dq (B, Tq, H, d_qk), dk (B, Tk, H_kv, d_qk), dv (B, Tk, H_kv, d_v)."""
    q, k, v, peak, rscale, scale, kept = saved
    do = _by_kv_head(_rows_in_order(do, q.dtype), k.shape[1])  # (B, H_kv, G, Tq, d_v)
    dq, dq_by_head = _empty_like(q, q.shape[-1], q.dtype)
    dk, dk_by_head = _empty_like(k, k.shape[-1], q.dtype)
    dv, dv_by_head = _empty_like(v, v.shape[-1], q.dtype)
    tiles = _tiles(q, k)
    buffer, d_buffer = _buffer(tiles, q) if kept is None else None, _buffer(tiles, q)
    for tile in tiles:
        queries, d_out, keys = tile.of_queries(q), tile.of_queries(do), tile.of_keys(k)
        dz = _part(d_buffer, queries, tile.keys)  # (b, h, G, rows, keys)
        np.matmul(d_out, tile.of_keys(v).swapaxes(-1, -2), out=dz)  # dp
        if kept is None:
            probs = _part(buffer, queries, tile.keys)
            np.matmul(queries, keys.swapaxes(-1, -2), out=probs)
            form_again(probs, scale, tile.sequences.start, tile.heads.start, tile.queries.start, peak, rscale)
        else:
            probs = tile.of_queries(kept)
        softmax_backward(probs, dz, scale)
        np.matmul(dz, keys, out=tile.of_queries(dq_by_head))
        # The last queries come first and see all keys: what they give is written, what earlier ones give is added.
        seen_before = tile.queries.stop < q.shape[3]
        _put(dz.swapaxes(-1, -2), queries, tile.of_keys(dk_by_head), seen_before)
        _put(probs.swapaxes(-1, -2), d_out, tile.of_keys(dv_by_head), seen_before)
    return dq, dk, dv


def _put(a: Array, b: Array, out: Array, add: bool) -> None:
    """out = a b, or out += a b; a and b (b, h, G, ...) are summed over G, the query heads of one key-value head."""
    if a.shape[2] == 1 and not add:
        np.matmul(a, b, out=out)
        return
    product = np.matmul(a, b).sum(axis=2, keepdims=True) if a.shape[2] > 1 else np.matmul(a, b)
    if add:
        out += product
    else:
        out[...] = product


def _tiles(q: Array, k: Array) -> list[Tile]:
    """Cuts the logits (B, H_kv, G, Tq, Tk) so that a tile has at most TILE_BYTES where that is possible; last queries first."""
    batch, kv_heads, group, queries, _ = q.shape
    keys = k.shape[3]
    per_head = max(1, group * min(queries, QUERIES) * keys * q.itemsize)
    heads = max(1, min(kv_heads, TILE_BYTES // per_head))
    sequences = max(1, TILE_BYTES // (per_head * kv_heads)) if heads == kv_heads else 1
    return [
        Tile(slice(b, min(b + sequences, batch)), slice(h, min(h + heads, kv_heads)), slice(i, j), j + keys - queries)
        for b in range(0, batch, sequences)
        for h in range(0, kv_heads, heads)
        for j in range(queries, 0, -QUERIES)
        for i in (max(0, j - QUERIES),)
    ]


def _keeps(q: Array, k: Array) -> bool:
    """Whether the weights are kept: then a sequence's queries are one block, and every tile sees all keys."""
    return k.shape[3] <= KEPT and q.shape[3] <= QUERIES


def _buffer(tiles: list[Tile], q: Array) -> Array:
    """Memory for the largest of the tiles."""
    sizes = [_size(tile.of_queries(q).shape[:-1]) * tile.keys for tile in tiles]
    return np.empty(max(sizes, default=0), q.dtype)


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape))


def _part(buffer: Array, queries: Array, keys: int) -> Array:
    shape = (*queries.shape[:-1], keys)
    return buffer[: _size(shape)].reshape(shape)


def _rows_in_order(x: Array, dtype: np.dtype) -> Array:
    """x with adjacent elements along its last axis, all that BLAS asks for: slices of heads are used where they lie."""
    x = x.astype(dtype, copy=False)
    return x if x.strides[-1] == x.itemsize else np.ascontiguousarray(x)


def _by_kv_head(x: Array, kv_heads: int) -> Array:
    """(B, T, H, d_h) → (B, H_kv, G, T, d_h), a view."""
    batch, time, heads, size = x.shape
    return x.reshape(batch, time, kv_heads, heads // kv_heads, size).transpose(0, 2, 3, 1, 4)


def _empty_like(x: Array, size: int, dtype: np.dtype) -> tuple[Array, Array]:
    """For x (B, H_kv, G, T, d): an empty (B, T, H, size), and its view (B, H_kv, G, T, size)."""
    batch, kv_heads, group, time, _ = x.shape
    empty = np.empty((batch, time, kv_heads * group, size), dtype)
    return empty, _by_kv_head(empty, kv_heads)


@kernel
def softmax(probs, scale, first_b, first_h, first_i, peak, rscale):
    """Logits in probs (b, h, G, rows, keys) → weights, in place. Row r's last key is keys − rows + r.

    peak and rscale (B, H_kv, G, Tq) are written at the tile's place, which starts at (first_b, first_h, ·, first_i).
    """
    number = probs.dtype.type
    scale = number(scale)
    batch, heads, group, rows, keys = probs.shape
    for b in range(batch):
        for h in range(heads):
            for g in range(group):
                for r in range(rows):
                    seen = keys - rows + r + 1
                    row = probs[b, h, g, r, :seen]
                    for j in range(seen):
                        row[j] *= scale
                    highest = largest(row)
                    total = number(0)
                    for j in range(seen):
                        row[j] = exp(row[j] - highest)
                        total += row[j]
                    inverse = number(1) / total
                    for j in range(seen):
                        row[j] *= inverse
                    probs[b, h, g, r, seen:] = number(0)
                    peak[first_b + b, first_h + h, g, first_i + r] = highest
                    rscale[first_b + b, first_h + h, g, first_i + r] = inverse


@kernel
def form_again(probs, scale, first_b, first_h, first_i, peak, rscale):
    """Logits in probs (b, h, G, rows, keys) → weights, in place, from what ``softmax`` wrote down."""
    number = probs.dtype.type
    scale = number(scale)
    batch, heads, group, rows, keys = probs.shape
    for b in range(batch):
        for h in range(heads):
            for g in range(group):
                for r in range(rows):
                    seen = keys - rows + r + 1
                    row = probs[b, h, g, r, :seen]
                    highest = peak[first_b + b, first_h + h, g, first_i + r]
                    inverse = rscale[first_b + b, first_h + h, g, first_i + r]
                    for j in range(seen):
                        row[j] = exp(row[j] * scale - highest) * inverse
                    probs[b, h, g, r, seen:] = number(0)


@kernel
def softmax_backward(probs, dz, scale):
    """Weights in probs and dp in dz, both (b, h, G, rows, keys) → the gradient by q · k in dz."""
    number = probs.dtype.type
    scale = number(scale)
    batch, heads, group, rows, keys = probs.shape
    for b in range(batch):
        for h in range(heads):
            for g in range(group):
                for r in range(rows):
                    seen = keys - rows + r + 1
                    p, d = probs[b, h, g, r, :seen], dz[b, h, g, r, :seen]
                    along = number(0)  # Σ_m p_im dp_im
                    for j in range(seen):
                        along += p[j] * d[j]
                    for j in range(seen):
                        d[j] = p[j] * (d[j] - along) * scale
                    dz[b, h, g, r, seen:] = number(0)
