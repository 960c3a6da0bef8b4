"""Causal softmax attention, compiled and in tiles: see ``minids/ops/attention.py`` for the equations.

A tile is the logits of one head at a block of queries, and stays in the second-level cache from its product to its gradient.
Keys beyond a block's last query do not take part in it, and what causality hides of the others is not multiplied (``_causal``).
No array of size T × T outlives its tile: per query the largest logit and one over the sum of exponentials are saved, from which
the backward pass forms the probabilities again (Dao et al. 2022, FlashAttention). A later NaN reaches a few earlier queries,
those in the same tile of registers; in ``ops`` all (0 · NaN is NaN).
"""

from typing import NamedTuple

import numpy as np

from minids.kernels._arrays import Array, common_float, expect
from minids.kernels._causal import GATHERED, LOGITS, WEIGHTED, causal_product, padded, triangles
from minids.kernels._exp import exp
from minids.kernels._jit import kernel
from minids.kernels._rows import largest

QUERIES = 128  # of one tile
KEPT = 64  # keys up to which the weights are kept: the product and the exponentials that would form them again cost more


class Saved(NamedTuple):
    q: Array  # (B, Tq, H, d_qk)
    k: Array  # (B, Tk, H_kv, d_qk)   H / H_kv query heads read one key-value head
    v: Array  # (B, Tk, H_kv, d_v)
    peak: Array  # (B, H, Tq)  the largest logit of a query
    rscale: Array  # (B, H, Tq)  1 / Σ_j exp(z_ij − peak_i)
    scale: float
    probs: Array | None  # (B, H, Tq, padded(Tk)), where Tk ≤ KEPT
    starts: Array  # (B, Tq) the first key that each query sees; (0, 0) where all see the first


def forward(q: Array, k: Array, v: Array, scale: float, starts: Array | None = None) -> tuple[Array, Saved]:
    """q (B, Tq, H, d_qk), k (B, Tk, H_kv, d_qk), v (B, Tk, H_kv, d_v), Tq ≤ Tk → o (B, Tq, H, d_v). starts (B, Tq) int: the
    first key that each query sees, at or before its own; all see the first without."""
    dtype = common_float(q, k, v)
    q, k, v = (_rows_in_order(x, dtype) for x in (q, k, v))
    batch, queries, heads, width = q.shape
    keys, sources = k.shape[1:3]
    expect("k", k, (batch, keys, sources, width))
    expect("v", v, (batch, keys, sources, v.shape[-1]))
    if heads % sources or queries > keys:
        raise ValueError(f"{heads} query heads and {queries} queries do not go with {sources} key heads and {keys} keys")
    if starts is not None:
        expect("starts", starts, (batch, queries))
    first = np.zeros((0, 0), np.int64) if starts is None else np.ascontiguousarray(starts, np.int64)
    o = np.empty((batch, queries, heads, v.shape[-1]), dtype)
    peak, rscale = np.empty((batch, heads, queries), dtype), np.empty((batch, heads, queries), dtype)
    keeps = keys <= KEPT and queries <= QUERIES  # then a sequence's queries are one block, which sees all keys
    probs = np.empty((batch, heads, queries, padded(keys)) if keeps else (0, 0, 0, 0), dtype)
    buffer = np.empty(0 if keeps else min(queries, QUERIES) * padded(keys), dtype)
    attend(q, k, v, scale, QUERIES, first, probs, buffer, o, peak, rscale, triangles(dtype))
    return o, Saved(q, k, v, peak, rscale, scale, probs if keeps else None, first)


def backward(do: Array, saved: Saved) -> tuple[Array, Array, Array]:
    """do (B, Tq, H, d_v) → dq (B, Tq, H, d_qk), dk (B, Tk, H_kv, d_qk), dv (B, Tk, H_kv, d_v)."""
    q, k, v, peak, rscale, scale, probs, first = saved
    dtype, tile = q.dtype, min(q.shape[1], QUERIES) * padded(k.shape[1])
    expect("do", do, (*q.shape[:3], v.shape[-1]))
    do = _rows_in_order(do, dtype)
    dq, dk, dv = (np.empty(x.shape, dtype) for x in (q, k, v))
    buffer, d_buffer = np.empty(tile if probs is None else 0, dtype), np.empty(tile, dtype)
    probs = np.empty((0, 0, 0, 0), dtype) if probs is None else probs
    attend_backward(do, q, k, v, scale, QUERIES, first, probs, peak, rscale, buffer, d_buffer, dq, dk, dv, triangles(dtype))
    return dq, dk, dv


def _rows_in_order(x: Array, dtype: np.dtype) -> Array:
    """x with adjacent elements along its last axis, all that products ask for: slices of heads are used where they lie."""
    x = x.astype(dtype, copy=False)
    return x if x.strides[-1] == x.itemsize else np.ascontiguousarray(x)


@kernel
def attend(q, k, v, scale, queries, starts, kept, buffer, o, peak, rscale, by):
    """q, k, v → o (B, Tq, H, d_v); peak, rscale (B, H, Tq); the weights in kept (B, H, Tq, padded(Tk)), or else in buffer."""
    group, keys, everything = q.shape[2] // k.shape[2], k.shape[1], np.zeros(queries, np.int64)
    for b in range(q.shape[0]):
        for h in range(q.shape[2]):
            for stop in range(q.shape[1], 0, -queries):
                start, seen = max(0, stop - queries), stop + keys - q.shape[1]  # keys beyond the block's last query: not met
                rows, later, wide = stop - start, seen - stop + start, padded(seen)
                tile = kept[b, h] if kept.size else buffer[: rows * wide].reshape(rows, wide)
                causal_product(LOGITS, later, q[b, start:stop, h], k[b, :seen, h // group].T, tile[:, :seen], False, by)
                first = starts[b, start:stop] if starts.size else everything
                softmax(tile, later, scale, first, peak[b, h, start:stop], rscale[b, h, start:stop])
                causal_product(WEIGHTED, later, tile[:, :seen], v[b, :seen, h // group], o[b, start:stop, h], False, by)


@kernel
def attend_backward(do, q, k, v, scale, queries, starts, kept, peak, rscale, buffer, d_buffer, dq, dk, dv, by):
    """do (B, Tq, H, d_v) → dq, dk, dv. buffer and d_buffer are scratch, a tile each; the rest as ``attend`` left it."""
    group, keys, everything = q.shape[2] // k.shape[2], k.shape[1], np.zeros(queries, np.int64)
    for b in range(q.shape[0]):
        for h in range(q.shape[2]):
            source = h // group
            for stop in range(q.shape[1], 0, -queries):
                start, seen = max(0, stop - queries), stop + keys - q.shape[1]
                rows, later, wide = stop - start, seen - stop + start, padded(seen)
                q_block, k_seen, d_out = q[b, start:stop, h], k[b, :seen, source], do[b, start:stop, h]
                dz = d_buffer[: rows * wide].reshape(rows, wide)
                causal_product(LOGITS, later, d_out, v[b, :seen, source].T, dz[:, :seen], False, by)  # dp
                tile = kept[b, h] if kept.size else buffer[: rows * wide].reshape(rows, wide)
                first = starts[b, start:stop] if starts.size else everything
                if not kept.size:  # one more product instead of an array of T × T numbers
                    causal_product(LOGITS, later, q_block, k_seen.T, tile[:, :seen], False, by)
                    form_again(tile, later, scale, first, peak[b, h, start:stop], rscale[b, h, start:stop])
                softmax_backward(tile, dz, later, scale, first)
                causal_product(WEIGHTED, later, dz[:, :seen], k_seen, dq[b, start:stop, h], False, by)
                # The last queries come first and see all keys: what they give is written, what others give is added.
                add = stop < q.shape[1] or h % group > 0
                causal_product(GATHERED, later, dz[:, :seen].T, q_block, dk[b, :seen, source], add, by)
                causal_product(GATHERED, later, tile[:, :seen].T, d_out, dv[b, :seen, source], add, by)


@kernel
def softmax(tile, later, scale, first, peak, rscale):
    """Logits in tile (rows, padded keys) → weights, in place, and peak, rscale (rows,). Row r sees first[r] … later + r."""
    number = tile.dtype.type
    scale = number(scale)
    for r in range(tile.shape[0]):
        seen = later + r + 1
        row = tile[r, first[r] : seen]
        for j in range(row.size):
            row[j] *= scale
        highest = largest(row)  # subtracted: the largest exponential is 1, and none overflows
        total = number(0)
        for j in range(row.size):
            row[j] = exp(row[j] - highest)
            total += row[j]
        inverse = number(1) / total
        for j in range(row.size):
            row[j] *= inverse
        tile[r, : first[r]] = number(0)  # the products that follow take the whole tile: keys not seen weigh nothing
        tile[r, seen:] = number(0)
        peak[r], rscale[r] = highest, inverse


@kernel
def form_again(tile, later, scale, first, peak, rscale):
    """Logits in tile (rows, padded keys) → weights, in place, from what ``softmax`` wrote down, (rows,) each."""
    number = tile.dtype.type
    scale = number(scale)
    for r in range(tile.shape[0]):
        seen = later + r + 1
        row, highest, inverse = tile[r, first[r] : seen], peak[r], rscale[r]
        for j in range(row.size):
            row[j] = exp(row[j] * scale - highest) * inverse  # without a second maximum and a second sum
        tile[r, : first[r]] = number(0)
        tile[r, seen:] = number(0)


@kernel
def softmax_backward(tile, dz, later, scale, first):
    """Weights in tile and dp in dz, both (rows, padded keys) → the gradient by q · k in dz."""
    number = tile.dtype.type
    scale = number(scale)
    for r in range(tile.shape[0]):
        seen = later + r + 1
        p, d = tile[r, first[r] : seen], dz[r, first[r] : seen]
        along = number(0)  # Σ_m p_im dp_im, in a loop of its own: see ``_jit`` on sums
        for j in range(p.size):
            along += p[j] * d[j]
        for j in range(p.size):
            d[j] = p[j] * (d[j] - along) * scale
        dz[r, : first[r]] = number(0)
        dz[r, seen:] = number(0)
