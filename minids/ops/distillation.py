"""Distillation from logits: a student is to believe what its teacher believes, of every token, not only of the one that came.

    L = 1/D Σ_n KL(q_n ‖ p_n) = 1/D Σ_n Σ_v q_nv (ln q_nv − ln p_nv)        p = softmax(logits), q: the teacher's

Hinton et al. 2015 at temperature 1. It is 0 where both agree; its gradient is that of a cross-entropy with soft targets.

Backward:  d_logits_n = dL/D · (p_n − q_n), what is believed minus what should be.
"""

from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Saved(NamedTuple):
    probs: Array  # (N, V)  p
    teacher: Array  # (N, V)  q


def forward(logits: Array, teacher: Array) -> tuple[float, Saved]:
    """logits of the student and of its teacher, (N, V) each → L."""
    log_p, log_q = _log_softmax(logits), _log_softmax(teacher)
    q = np.exp(log_q)
    loss = float(np.sum(q * (log_q - log_p), dtype=np.float64) / max(len(logits), 1))
    return loss, Saved(np.exp(log_p), q)


def backward(d_loss: float, saved: Saved) -> Array:
    """dL → d_logits (N, V) of the student; the teacher is a constant."""
    d_logits = saved.probs - saved.teacher
    d_logits *= d_loss / max(len(d_logits), 1)
    return d_logits


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
