"""Balance loss, compiled: see ``minids/ops/balance_loss.py`` for the equations. One pass over the scores either way."""

from typing import NamedTuple

import numpy as np

from minids.kernels._arrays import Array, common_float, expect
from minids.kernels._jit import kernel


class Saved(NamedTuple):
    scores: Array  # (N, E)
    load: Array  # (G, E)  f
    tokens_per_group: int


def forward(scores: Array, chosen: Array, tokens_per_group: int) -> tuple[float, Saved]:
    """scores (N, E), chosen (N, K) int, in groups of ``tokens_per_group`` neighbours → L, mean over groups, without α."""
    scores = np.ascontiguousarray(scores, common_float(scores))
    tokens, experts = scores.shape
    groups = tokens // tokens_per_group
    if groups * tokens_per_group != tokens:
        raise ValueError(f"{tokens} tokens do not divide into groups of {tokens_per_group}")
    expect("chosen", chosen, (tokens, chosen.shape[1]))
    load = np.zeros((groups, experts), scores.dtype)
    total, outside = measure(scores, np.ascontiguousarray(chosen, np.int64), tokens_per_group, load)
    if outside:
        raise ValueError(f"chosen: experts run from 0 to {experts - 1}, got {chosen.min()} … {chosen.max()}")
    return total / groups, Saved(scores, load, tokens_per_group)


def backward(d_loss: float, saved: Saved) -> Array:
    """dL → d_scores (N, E)."""
    scores, load, tokens_per_group = saved
    d_scores = np.empty_like(scores)
    differentiate(d_loss / len(scores), scores, load, tokens_per_group, d_scores)
    return d_scores


@kernel
def measure(scores, chosen, tokens_per_group, load):
    """scores (N, E), chosen (N, K) → adds into load (G, E); the sum of L over groups, and whether a choice is outside."""
    experts, top_k = scores.shape[1], chosen.shape[1]
    wanted = np.empty(experts, np.float64)  # Σ_t s_it / S_t
    loss = 0.0
    for g in range(load.shape[0]):
        wanted[:] = 0.0  # in float64: a sum over all tokens of a sequence
        for n in range(g * tokens_per_group, (g + 1) * tokens_per_group):
            for k in range(top_k):
                e = chosen[n, k]
                if e < 0 or e >= experts:  # looked up nowhere else, and would be written beside the array
                    return loss, True
                load[g, e] += scores.dtype.type(1)
            total = scores.dtype.type(0)
            for e in range(experts):
                total += scores[n, e]
            for e in range(experts):
                wanted[e] += scores[n, e] / total
        for e in range(experts):
            load[g, e] *= scores.dtype.type(experts / (top_k * tokens_per_group))
        for e in range(experts):
            loss += load[g, e] * wanted[e] / tokens_per_group
    return loss, False


@kernel
def differentiate(weight, scores, load, tokens_per_group, d_scores):
    """scores (N, E), load (G, E) → d_scores (N, E); ``weight`` is dL divided by the number of tokens."""
    number = scores.dtype.type
    experts = scores.shape[1]
    for n in range(scores.shape[0]):
        group_load = load[n // tokens_per_group]
        total, along = number(0), number(0)  # S, and Σ_i f_i s_i: the shares s / S are not kept, only what they are made of
        for e in range(experts):
            total += scores[n, e]
            along += group_load[e] * scores[n, e]
        along /= total
        for e in range(experts):
            d_scores[n, e] = (group_load[e] - along) / total * number(weight)
