"""The loss of a reward model: of two answers to a prompt the one that was preferred is to get the higher reward.

Rewards r are taken to decide a comparison as strengths do in Bradley & Terry 1952: the chosen answer wins with probability
σ(r⁺ − r⁻). Of P pairs the mean surprise is minimised (Ouyang et al. 2022, eq. 1; what DeepSeek-V3's section 5.2.1 calls
preference data):

    L = −1/P Σ_p ln σ(m_p) = 1/P Σ_p ln(1 + e^(−m_p))              m_p = r⁺_p − r⁻_p, the margin

A constant added to all rewards changes nothing: only differences mean something. Equal rewards cost ln 2.

Backward. d/dm (−ln σ(m)) = −σ(−m), the probability that the wrong answer wins, so

    d_r⁺_p = −dL σ(−m_p) / P               d_r⁻_p = +dL σ(−m_p) / P
"""

from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Saved(NamedTuple):
    wrong: Array  # (P,) float64, σ(−m)
    dtype: np.dtype  # of the rewards


def forward(chosen: Array, rejected: Array) -> tuple[float, Saved]:
    """Rewards (P,) of the chosen answers and of the rejected ones → L, in nats."""
    margin = chosen.astype(np.float64) - rejected  # (P,)
    loss = float(np.mean(np.logaddexp(0.0, -margin)))  # never e^(−m) itself, which a large margin would overflow
    return loss, Saved(np.exp(-np.logaddexp(0.0, margin)), chosen.dtype)


def backward(d_loss: float, saved: Saved) -> tuple[Array, Array]:
    """dL → gradients of the rewards, (P,) each."""
    d_rejected = (d_loss * saved.wrong / len(saved.wrong)).astype(saved.dtype)
    return -d_rejected, d_rejected
