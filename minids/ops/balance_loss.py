"""Balance loss: pushes the router towards giving every expert the same share.

DeepSeek-V3 eqs 17-20, over the T tokens of one sequence:

    f_i = E / (K T) · #tokens that chose expert i        the share it got; 1 when balanced
    P_i = 1/T Σ_t s_it / Σ_j s_jt                        the share the router wanted to give
    L   = Σ_i f_i P_i                                    1 when balanced, up to E/K when K experts get everything

V3 gives it a weight α = 10⁻⁴; here it is the mean over sequences. The classic auxiliary loss (GShard; Switch Transformer;
DeepSeek-V2 eqs 23-25) takes the batch as one sequence, and a larger α: ``tokens_per_group`` is T, or N.

Backward. f counts choices and has no gradient; P has. With S_t = Σ_j s_jt,
    ds_jt = dL/T · ( f_j / S_t − Σ_i f_i s_it / S_t² )
for all experts, chosen or not; divided by the number of sequences.
"""

from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Saved(NamedTuple):
    share: Array  # (G, T, E)  s / S
    total: Array  # (G, T, 1)  S
    load: Array  # (G, 1, E)  f


def forward(scores: Array, chosen: Array, tokens_per_group: int) -> tuple[float, Saved]:
    """scores (N, E), chosen (N, K) int, in groups of ``tokens_per_group`` neighbours → L, mean over groups, without α."""
    tokens, experts = scores.shape
    groups, top_k = tokens // tokens_per_group, chosen.shape[-1]
    grouped = scores.reshape(groups, tokens_per_group, experts)
    total = grouped.sum(axis=-1, keepdims=True)
    share = grouped / total  # (G, T, E)
    # One bincount for all groups: group g's expert i is counted under g·E + i.
    label = chosen.reshape(groups, -1) + np.arange(groups)[:, None] * experts
    counts = np.bincount(label.reshape(-1), minlength=groups * experts).reshape(groups, 1, experts)
    load = (counts * (experts / (top_k * tokens_per_group))).astype(scores.dtype)  # f
    loss = float(np.sum(load * share.mean(axis=1, keepdims=True), dtype=np.float64) / groups)
    return loss, Saved(share, total, load)


def backward(d_loss: float, saved: Saved) -> Array:
    """dL → d_scores (N, E)."""
    share, total, load = saved
    groups, time, experts = share.shape
    wanted = np.sum(load * share, axis=-1, keepdims=True)  # (G, T, 1)  Σ_i f_i s_i / S
    return ((load - wanted) / total * (d_loss / (groups * time))).reshape(-1, experts)
