"""Router, compiled: see ``minids/ops/router.py`` for the equations. The K best of a token are kept in a short sorted list,
where NumPy sorts all E scores, and every group's."""

from typing import NamedTuple

import numpy as np

from minids.kernels._arrays import Array, common_float, expect
from minids.kernels._exp import exp, sigmoid
from minids.kernels._jit import kernel
from minids.kernels._rows import largest
from minids.ops.router import TINY, Routing, check


class Saved(NamedTuple):
    scores: Array  # (N, E)
    chosen: Array  # (N, K)
    softmax: bool
    normalise: bool
    scale: float


def forward(
    logits: Array,
    bias: Array | None,
    top_k: int,
    n_group: int = 1,
    topk_group: int = 1,
    scoring: str = "sigmoid",
    method: str = "noaux_tc",
    normalise: bool = True,
    scale: float = 1.0,
    chosen: Array | None = None,
) -> tuple[Routing, Saved]:
    """logits (N, E), bias (E,) or None → gates and choices (N, K), scores (N, E); the arguments are those of ``ops``."""
    logits = np.ascontiguousarray(logits, common_float(logits))
    check(logits.shape, bias, top_k, n_group, topk_group, scoring, method, chosen)
    experts = logits.shape[1]
    softmax = scoring != "sigmoid"
    scores = np.empty_like(logits)
    score(logits, softmax, scores)
    if chosen is None:
        bias = np.zeros(experts, logits.dtype) if bias is None else np.ascontiguousarray(bias, logits.dtype)
        chosen = _choice(scores, bias, top_k, n_group, topk_group, method)
    else:
        chosen = np.ascontiguousarray(chosen, np.int64)
        if chosen.size and not -experts <= chosen.min() <= chosen.max() < experts:
            raise IndexError(f"chosen: experts run from 0 to {experts - 1}, got {chosen.min()} … {chosen.max()}")
    gates = np.empty(chosen.shape, logits.dtype)
    weigh(scores, chosen, normalise, scale, gates)
    return Routing(gates, chosen, scores), Saved(scores, chosen, softmax, normalise, scale)


def choose(biased: Array, top_k: int, n_group: int = 1, topk_group: int = 1, method: str = "noaux_tc") -> Array:
    """The K experts with the largest biased score within the best groups: (N, E) → (N, K) int."""
    check(biased.shape, None, top_k, n_group, topk_group, "sigmoid", method)
    biased = np.ascontiguousarray(biased, common_float(biased))
    return _choice(biased, np.zeros(biased.shape[1], biased.dtype), top_k, n_group, topk_group, method)


def backward(d_gates: Array, d_scores: Array | None, saved: Saved) -> Array:
    """d_gates (N, K), and what the balance loss adds to the scores, (N, E) or None → d_logits (N, E)."""
    scores, chosen, softmax, normalise, scale = saved
    expect("d_gates", d_gates, chosen.shape)
    if d_scores is not None:
        expect("d_scores", d_scores, scores.shape)
    d_logits = np.zeros_like(scores) if d_scores is None else np.array(d_scores, scores.dtype, order="C")
    differentiate(np.ascontiguousarray(d_gates, scores.dtype), scores, chosen, softmax, normalise, scale, d_logits)
    return d_logits


def _choice(scores: Array, bias: Array, top_k: int, n_group: int, topk_group: int, method: str) -> Array:
    summed = 0 if method == "greedy" or topk_group >= n_group else 2 if method == "noaux_tc" else 1
    chosen = np.empty((len(scores), top_k), np.int64)
    select(scores, bias, summed, n_group, topk_group, chosen)
    return chosen


@kernel
def score(logits, softmax, scores):
    """logits (N, E) → scores (N, E)."""
    number = logits.dtype.type
    if not softmax:
        every_logit, every_score = logits.reshape(-1), scores.reshape(-1)
        for i in range(every_logit.size):
            every_score[i] = sigmoid(every_logit[i])
        return
    for n in range(logits.shape[0]):
        highest, total = largest(logits[n]), number(0)  # the sum has a loop of its own below: see ``_jit``
        for e in range(logits.shape[1]):
            scores[n, e] = exp(logits[n, e] - highest)
        for e in range(logits.shape[1]):
            total += scores[n, e]
        for e in range(logits.shape[1]):
            scores[n, e] /= total


@kernel
def beats(a, b):
    """Whether a stands before b in a descending order that puts NaN last, behind −∞."""
    return a > b or (b != b and a == a)


@kernel
def best(values, count, found, found_values):
    """Indices of the ``count`` largest of values (n,) → found (count,), best first, the lowest index among equals."""
    filled = 0
    for i in range(values.size):
        if filled == count and not beats(values[i], found_values[count - 1]):
            continue
        place = min(filled, count - 1)
        while place > 0 and beats(values[i], found_values[place - 1]):
            found[place], found_values[place] = found[place - 1], found_values[place - 1]
            place -= 1
        found[place], found_values[place] = i, values[i]
        filled = min(filled + 1, count)


@kernel
def select(scores, bias, summed, n_group, topk_group, chosen):
    """scores (N, E), bias (E,) → chosen (N, K). A group's score is the sum of its ``summed`` best; 0: there are no groups."""
    number = scores.dtype.type
    tokens, experts = scores.shape
    size, top_k = experts // n_group, chosen.shape[1]
    biased, allowed = np.empty(experts, scores.dtype), np.empty(experts, scores.dtype)
    group_scores = np.empty(n_group, scores.dtype)
    kept, values = np.empty(topk_group, np.int64), np.empty(max(top_k, topk_group), scores.dtype)
    for n in range(tokens):
        for e in range(experts):
            biased[e] = scores[n, e] + bias[e]
        if summed == 0:
            best(biased, top_k, chosen[n], values)
            continue
        for g in range(n_group):
            first, second, broken = number(-np.inf), number(-np.inf), False  # the group's two best; whether it holds NaN
            for e in range(g * size, (g + 1) * size):
                broken |= biased[e] != biased[e]
                if biased[e] > first:
                    first, second = biased[e], first
                elif biased[e] > second:
                    second = biased[e]
            group_scores[g] = first + second if summed == 2 and size > 1 else first
            if broken:
                group_scores[g] = number(np.nan)
        best(group_scores, topk_group, kept, values)
        for e in range(experts):
            allowed[e] = number(-np.inf)  # and not 0, to which a negative biased score would lose
        for k in range(topk_group):
            for e in range(kept[k] * size, (kept[k] + 1) * size):
                allowed[e] = biased[e]
        best(allowed, top_k, chosen[n], values)


@kernel
def weigh(scores, chosen, normalise, scale, gates):
    """scores (N, E), chosen (N, K) → gates (N, K)."""
    number = scores.dtype.type
    for n in range(chosen.shape[0]):
        total = number(TINY) if normalise else number(1)  # TINY: chosen scores may all have underflowed to 0
        for k in range(chosen.shape[1]):
            gates[n, k] = scores[n, chosen[n, k]]
        if normalise:
            for k in range(chosen.shape[1]):
                total += gates[n, k]
        for k in range(chosen.shape[1]):
            gates[n, k] = gates[n, k] / total * number(scale)


@kernel
def differentiate(d_gates, scores, chosen, softmax, normalise, scale, d_logits):
    """d_gates (N, K), scores (N, E), chosen (N, K); d_scores in d_logits (N, E) → d_logits, in place."""
    number = scores.dtype.type
    one, scale = number(1), number(scale)
    for n in range(scores.shape[0]):
        total, along = number(TINY) if normalise else one, number(0)
        if normalise:
            for k in range(chosen.shape[1]):
                s = scores[n, chosen[n, k]]
                total += s
                along += d_gates[n, k] * scale * s
            along /= total
        # On top of what the balance loss wants of all scores; a token's experts are distinct.
        for k in range(chosen.shape[1]):
            d_logits[n, chosen[n, k]] += (d_gates[n, k] * scale - along) / total
        if softmax:
            along = number(0)
            for e in range(scores.shape[1]):
                along += d_logits[n, e] * scores[n, e]
            for e in range(scores.shape[1]):
                d_logits[n, e] = scores[n, e] * (d_logits[n, e] - along)
        else:
            for e in range(scores.shape[1]):
                d_logits[n, e] *= scores[n, e] * (one - scores[n, e])
