"""GRPO's loss: what is minimised so that answers with a higher reward than their rivals become more likely.

DeepSeek-V3 section 5.2.2, eqs 26-28. A question gets a group of G answers o_i, drawn from π_old, with rewards r_i:

    A_i = (r_i − mean(r)) / std(r)                                     over the group; Dr. GRPO leaves the division out
    J   = mean_i [ min(ρ_i A_i, clip(ρ_i, 1 − ε, 1 + ε) A_i) − β D_i ]              ρ_i = π(o_i) / π_old(o_i)
    D_i = q_i − ln q_i − 1                                                          q_i = π_ref(o_i) / π(o_i)

The loss is −J. The report prints ρ and D of the whole answer. DeepSeekMath and V3.2 form them of every token, and take in
place of the bracket (1/|o_i|) Σ_t of the tokens' brackets. Both are here: ``by`` "answer" and "token". A constant ``divisor``
in place of |o_i| (Dr. GRPO) does not forgive long wrong answers.

Three repairs of DeepSeek-V3.2's section on GRPO are here too. D's expectation under π is KL(π ‖ π_ref), but the gradient of D
is not KL's: times ρ it is (V3.2, eq. 7; ``corrected``). A bad answer that the policy has moved away from counts no more, but
for its D (V3.2, eqs 8 and 9; ``drop_above`` is δ):

    M_i = 0  where A_i < 0 and 1/|o_i| Σ_t ln(π_old,t / π_t) > δ,  else 1             min(…) M_i in place of min(…)

And where answers were drawn among a part of the tokens, by top-p, π is the softmax over the same part (``kept``), or else ρ
compares a distribution with a part of itself. In the parts left out p = 0, and with it their gradient.

Backward, by the tokens' ln π_t. ln ρ is ln π minus a constant, or the sum of such over an answer, so dρ/d ln π_t = ρ:

    of the minimum    ρ A,  or 0 where the clipped term is the smaller one: there it does not depend on π
    of D              1 − q,   of ρ D   ρ (D + 1 − q) = −ρ ln q
    d_logits_t        c_t (onehot(o_t) − p_t),   c_t = dL/d ln π_t: cross-entropy with one weight for each token

In the first step after the answers were drawn ρ = 1: A's mean over a group, and with it the loss, is 0. The gradient is not.
"""

from typing import NamedTuple

import numpy as np

Array = np.ndarray

SAME = 1e-12
"""Rewards of a group that differ by no more are equal: a difference of rounding must not be divided by itself."""


class Saved(NamedTuple):
    probs: Array  # (N, V)
    tokens: Array  # (N,)
    slopes: Array  # (N,) dL/d ln π_t
    log_probs: Array  # (N,) ln π_t
    log_ratio: Array  # (N,) ln π_t − ln π_old,t
    divergence: Array  # (A,) or (N,) D of each answer or token, without ρ; zeros without a reference
    clipped: Array  # (A,) or (N,) bool: where the clipped term was the smaller one
    dropped: Array  # (A,) bool: where M = 0


def advantages(rewards: Array, groups: Array, by_std: bool = True) -> Array:
    """rewards (A,) and the number of each answer's group (A,) int → A_i, eq. 28, (A,) float64. Their sum over a group is 0. A
    group of equal rewards has no contrast, and nothing to teach: all 0. ``by_std=False``: not divided by the group's standard
    deviation, which weighs groups of nearly equal rewards most."""
    _, group = np.unique(groups, return_inverse=True)
    sizes = np.bincount(group)
    centred = rewards - (np.bincount(group, rewards) / sizes)[group]
    std = np.sqrt(np.bincount(group, centred**2) / sizes)[group]  # of the group itself: divided by G, not by G − 1
    largest = np.sqrt(np.bincount(group, np.square(rewards, dtype=np.float64)) / sizes)[group]
    contrast = std > SAME * largest
    return np.where(contrast, centred / np.where(contrast & by_std, std, 1.0), 0.0)


def forward(
    logits: Array,
    tokens: Array,
    answer: Array,
    advantage: Array,
    log_old: Array,
    log_ref: Array | None = None,
    by: str = "token",
    clip: float = 0.2,
    beta: float = 0.0,
    corrected: bool = False,
    divisor: float | None = None,
    drop_above: float = np.inf,
    kept: Array | None = None,
) -> tuple[float, Saved]:
    """logits (N, V) that the tokens (N,) of A answers were drawn from → the loss −J.

    answer (N,) int: which answer each token belongs to; advantage (A,); log_old and log_ref (N,): ln π_old,t and ln π_ref,t,
    constants. ``clip``: ε. ``beta``: weight of D, which needs ``log_ref``. ``divisor``: of each answer's sum, if not |o_i|.
    ``drop_above``: δ. ``kept`` (N, V) bool: the tokens that could be drawn, if not all.
    """
    _check(by, divisor, beta, log_ref)
    answers = len(advantage)
    probs, log_probs = _distribution(logits, tokens, kept)
    log_ratio = log_probs - log_old  # (N,)
    away = -np.bincount(answer, log_ratio, answers) / np.bincount(answer, minlength=answers)  # (A,) mean ln(π_old / π)
    dropped = (np.asarray(advantage) < 0) & (away > drop_above)
    log_q = np.zeros_like(log_probs) if log_ref is None else log_ref - log_probs  # (N,)
    if by == "answer":  # an answer's probability is the product of its tokens': their logarithms are added
        log_rho, log_q = (np.bincount(answer, x, answers) for x in (log_ratio, log_q))
        weight, share = np.asarray(advantage, np.float64), np.full(answers, 1 / answers)
    else:
        log_rho, weight = log_ratio, np.asarray(advantage, np.float64)[answer]
        lengths = np.bincount(answer, minlength=answers)[answer] if divisor is None else divisor
        share = np.full(len(tokens), 1 / answers) / lengths
    rho = np.exp(log_rho)
    value, slope, clipped = surrogate(rho, weight, clip)
    counts = ~(dropped if by == "answer" else dropped[answer])  # M
    value, slope, clipped = value * counts, slope * counts, clipped & counts
    divergence, d_slope = k3(log_q)
    if corrected:
        penalty, d_slope = rho * divergence, rho * (divergence + d_slope)
    else:
        penalty = divergence
    loss = -float(np.sum(share * (value - beta * penalty)))
    slopes = -share * (slope - beta * d_slope)
    slopes = slopes[answer] if by == "answer" else slopes
    return loss, Saved(probs, tokens, slopes, log_probs, log_ratio, divergence, clipped, dropped)


def backward(d_loss: float, saved: Saved) -> Array:
    """dL → d_logits (N, V)."""
    c = (d_loss * saved.slopes).astype(saved.probs.dtype)[:, None]  # (N, 1)
    d_logits = -c * saved.probs
    rows = np.arange(len(saved.tokens))
    d_logits[rows, saved.tokens] += c[:, 0]
    return d_logits


def surrogate(rho: Array, advantage: Array, clip: float) -> tuple[Array, Array, Array]:
    """min(ρ A, clip(ρ) A), its derivative by ln ρ, and where the clipped term is the smaller one; (U,) each."""
    free, held = rho * advantage, np.clip(rho, 1 - clip, 1 + clip) * advantage
    clipped = held < free
    return np.where(clipped, held, free), np.where(clipped, 0.0, free), clipped


def k3(log_q: Array) -> tuple[Array, Array]:
    """D = q − ln q − 1 of eq. 27, never negative, and its derivative by ln π, 1 − q; (U,) each."""
    return np.expm1(log_q) - log_q, -np.expm1(log_q)


def log_probabilities(logits: Array, tokens: Array, kept: Array | None = None) -> Array:
    """ln π of tokens (N,) under logits (N, V), over the ``kept`` tokens: (N,) float64."""
    return _distribution(logits, tokens, kept)[1]


def entropy(probs: Array) -> Array:
    """−Σ p ln p of each row, (N,) float64, in nats."""
    p = probs.astype(np.float64)
    return -np.sum(p * np.log(np.maximum(p, np.finfo(np.float64).tiny)), axis=-1)


def _distribution(logits: Array, tokens: Array, kept: Array | None) -> tuple[Array, Array]:
    """logits (N, V) → probabilities (N, V), 0 where a token is not ``kept``, and the logarithm of the tokens' own, (N,)
    float64."""
    if kept is not None:
        logits = np.where(kept, logits, logits.dtype.type(-np.inf))
    shifted = logits - logits.max(axis=-1, keepdims=True)
    probs = np.exp(shifted)
    total = probs.sum(axis=-1, keepdims=True, dtype=np.float64)  # (N, 1)
    log_probs = np.take_along_axis(shifted, tokens[:, None], axis=-1)[:, 0] - np.log(total[:, 0])
    return probs / total.astype(probs.dtype), log_probs


def _check(by: str, divisor: float | None, beta: float, log_ref: Array | None) -> None:
    if by not in ("answer", "token"):
        raise ValueError(f"by: the ratio is formed of each 'answer' or of each 'token', not {by!r}")
    if by == "answer" and divisor is not None:
        raise ValueError(f"divisor = {divisor}: an answer's one ratio is not divided by its length; leave it out")
    if beta and log_ref is None:
        raise ValueError(f"beta = {beta}: D needs a reference; give log_ref")
