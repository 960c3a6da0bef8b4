"""Cross-entropy: the mean surprise, in nats, at the tokens that really came.

    L = −1/D Σ_n ln p_n[target_n]        p_n = softmax(logits_n)

D is the number of targets that count. DeepSeek-V3 eq. 24 divides the T − k terms of MTP depth k by T, hence ``divisor``.

Backward:  d_logits_n = dL/D · (p_n − onehot(target_n)), what was predicted minus what came.
"""

from typing import NamedTuple

import numpy as np

Array = np.ndarray

IGNORE = -100  # a target that does not count, as in PyTorch


class Saved(NamedTuple):
    probs: Array  # (N, V)
    targets: Array  # (N,)
    counted: Array  # (N,) bool
    divisor: float


def forward(logits: Array, targets: Array, divisor: float | None = None) -> tuple[float, Saved]:
    """logits (N, V), targets (N,) int, IGNORE where nothing is to be predicted → L. ``divisor``: D, if not their number."""
    counted = targets != IGNORE
    if divisor is None:
        divisor = max(int(counted.sum()), 1)
    shifted = logits - logits.max(axis=-1, keepdims=True)
    probs = np.exp(shifted)
    total = probs.sum(axis=-1, keepdims=True)  # (N, 1)
    label = np.where(counted, targets, 0)[:, None]
    surprise = np.log(total) - np.take_along_axis(shifted, label, axis=-1)  # (N, 1)
    loss = float(np.sum(surprise[counted], dtype=np.float64) / divisor)
    probs /= total
    return loss, Saved(probs, targets, counted, divisor)


def backward(d_loss: float, saved: Saved) -> Array:
    """dL → d_logits (N, V)."""
    probs, targets, counted, divisor = saved
    d_logits = probs.copy()
    rows = np.flatnonzero(counted)
    d_logits[rows, targets[rows]] -= 1
    d_logits[~counted] = 0
    d_logits *= d_loss / divisor
    return d_logits
