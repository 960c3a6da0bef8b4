"""Router: which experts a token goes to, and with what weight.

DeepSeek-V3 eqs 13-16 and section 2.1.2 ("Node-Limited Routing"). From the logits u · e_i of a token:

    s_i = sigmoid(u · e_i)                              V3; V2 takes the softmax over i
    c_i = s_i + b_i                                     b: the balancing bias. It decides the choice, nothing else
    group score = sum of the two largest c in the group     (V2: the largest; it has no bias)
    c_i = −∞ outside the M best groups                  at most M nodes a token
    chosen = the K experts with the largest c
    g_i = ρ · s_i / Σ_{j chosen} s_j                    from the unbiased score; V2: g_i = ρ · s_i

−∞ and not 0 for forbidden experts: biased scores may be negative, and then 0 would win. Among equals the lowest index wins.

Backward. The choice is a step function and b only acts through it, so neither has a gradient. With S = Σ s_j over the chosen
and G_i = dL/dg_i, the quotient rule gives
    ds_j = ρ/S · ( G_j − Σ_i G_i s_i / S )              for chosen j, 0 for the others
The balance loss adds its own gradient to all scores. Then ds goes through the sigmoid or the softmax.
"""

from typing import NamedTuple

import numpy as np

from minids.ops import sigmoid

Array = np.ndarray

SCORINGS = ("sigmoid", "softmax")
METHODS = ("noaux_tc", "group_limited_greedy", "greedy")
TINY = 1e-20  # keeps a sum of scores that underflowed from dividing by zero


class Routing(NamedTuple):
    gates: Array  # (N, K)  g, in the order of `chosen`
    chosen: Array  # (N, K) int, best first
    scores: Array  # (N, E)  s, unbiased


class Saved(NamedTuple):
    scores: Array  # (N, E)
    chosen: Array  # (N, K)
    scoring: str
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
    """logits (N, E), bias (E,) or None → gates and choices (N, K), scores (N, E).
    ``method`` names the group score as checkpoints do: "noaux_tc" (sum of two), "group_limited_greedy" (maximum) or
    "greedy" (no groups). ``chosen`` (N, K) prescribes the choice: gradient checks hold it still.
    """
    check(logits.shape, bias, top_k, n_group, topk_group, scoring, method, chosen)
    scores = _scores(logits, scoring)  # (N, E)
    if chosen is None:
        biased = scores if bias is None else scores + bias
        chosen = choose(biased, top_k, n_group, topk_group, method)
    gates = np.take_along_axis(scores, chosen, axis=-1)  # (N, K), unbiased
    if normalise:
        gates = gates / (gates.sum(axis=-1, keepdims=True) + TINY)
    return Routing(gates * scale, chosen, scores), Saved(scores, chosen, scoring, normalise, scale)


def check(
    shape: tuple[int, ...], bias: Array | None, top_k: int, n_group: int, topk_group: int,
    scoring: str, method: str, chosen: Array | None = None,
) -> None:  # fmt: skip
    """ValueError for what cannot be routed, given ``shape`` (N, E) of the logits; the arguments are those of ``forward``."""
    tokens, experts = shape
    if scoring not in SCORINGS or method not in METHODS:
        raise ValueError(f"scoring is one of {SCORINGS} and method one of {METHODS}, got {scoring!r} and {method!r}")
    if bias is not None and bias.shape != (experts,):
        raise ValueError(f"bias: expected shape {(experts,)}, got {bias.shape}")
    if chosen is not None:
        if len(chosen) != tokens:
            raise ValueError(f"chosen: expected experts of {tokens} tokens, got those of {len(chosen)}")
        return
    open_to_a_token = experts
    if method != "greedy" and topk_group < n_group:
        if experts % n_group or topk_group < 1:
            raise ValueError(f"{experts} experts do not make {n_group} groups of which a token may use {topk_group}")
        open_to_a_token = experts // n_group * topk_group
    if not 1 <= top_k <= open_to_a_token:
        raise ValueError(f"a token may choose among {open_to_a_token} experts, so not {top_k}")


def choose(biased: Array, top_k: int, n_group: int = 1, topk_group: int = 1, method: str = "noaux_tc") -> Array:
    """The K experts with the largest biased score within the best groups: (N, E) → (N, K) int."""
    check(biased.shape, None, top_k, n_group, topk_group, "sigmoid", method)
    tokens, experts = biased.shape
    if method != "greedy" and topk_group < n_group:
        grouped = biased.reshape(tokens, n_group, experts // n_group)  # (N, G, E/G): groups are neighbours
        best = np.sort(grouped, axis=-1)[..., -2:] if method == "noaux_tc" else grouped.max(axis=-1, keepdims=True)
        group_score = best.sum(axis=-1)  # (N, G)
        kept = _largest(group_score, topk_group)  # (N, M)
        forbidden = np.ones((tokens, n_group), dtype=bool)
        np.put_along_axis(forbidden, kept, False, axis=-1)
        biased = np.where(np.repeat(forbidden, experts // n_group, axis=-1), -np.inf, biased)
    return _largest(biased, top_k)


def backward(d_gates: Array, d_scores: Array | None, saved: Saved) -> Array:
    """d_gates (N, K), and what the balance loss adds to the scores, (N, E) or None → d_logits (N, E)."""
    scores, chosen, scoring, normalise, scale = saved
    d_chosen = d_gates * scale  # (N, K)
    if normalise:
        s = np.take_along_axis(scores, chosen, axis=-1)
        total = s.sum(axis=-1, keepdims=True) + TINY
        d_chosen = (d_chosen - np.sum(d_chosen * s, axis=-1, keepdims=True) / total) / total
    ds = np.zeros_like(scores) if d_scores is None else d_scores.copy()
    # A token's K experts are distinct, so adding at their places never meets the same place twice.
    np.put_along_axis(ds, chosen, np.take_along_axis(ds, chosen, axis=-1) + d_chosen, axis=-1)
    if scoring == "sigmoid":
        return sigmoid.backward(ds, scores)
    return scores * (ds - np.sum(ds * scores, axis=-1, keepdims=True))


def _scores(logits: Array, scoring: str) -> Array:
    if scoring == "sigmoid":
        return sigmoid.forward(logits)[0]
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


def _largest(values: Array, count: int) -> Array:
    """Indices of the ``count`` largest per row, best first; a stable sort, so that the lowest index wins a tie."""
    return np.argsort(-values, axis=-1, kind="stable")[..., :count]
