"""The largest attention logit of every head: max over queries i and keys j ≤ i of σ q_i · k_j (Kimi-K2 report, QK-Clip).

Queries and keys are those of a whole sequence. No backward pass: what is made of it is a rule for the weights, not a loss.
"""

import numpy as np

Array = np.ndarray


def forward(q: Array, k: Array, scale: float) -> Array:
    """q and k (B, T, H, d_qk) → the largest logit of each head, (H,)."""
    future = np.triu(np.ones((q.shape[1],) * 2, dtype=bool), 1)  # (T, T)
    largest = np.full(q.shape[2], -np.inf, q.dtype)
    for queries, keys in zip(q.swapaxes(1, 2), k.swapaxes(1, 2), strict=True):  # (H, T, d_qk) of one sequence
        logits = queries @ keys.swapaxes(-1, -2)  # (H, T, T)
        logits[:, future] = -np.inf
        np.maximum(largest, logits.max(axis=(1, 2)), out=largest)
    return largest * q.dtype.type(scale)
