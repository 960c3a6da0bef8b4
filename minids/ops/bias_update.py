"""The balancing bias: load balance without an auxiliary loss.

DeepSeek-V3 section 2.1.2; Wang et al. 2024, algorithm 1. After every optimizer step, with c_i the tokens that expert i got
over the whole global batch of that step:

    e_i = mean(c) − c_i                positive when the expert got too few
    b_i ← b_i + γ · sign(e_i)          underloaded: up; overloaded: down; exactly even: stays

b only acts on the choice of experts (see router) and has no gradient. The update counts the *finished* step: the load of the
tokens at hand would tell earlier tokens about later ones. The proportional rule of the same paper's table 3 takes e_i itself,
here as a share of the mean load.
"""

import numpy as np

Array = np.ndarray

RULES = ("sign", "proportional")


def updated(bias: Array, counts: Array, speed: float, rule: str = "sign") -> Array:
    """bias (E,) float32 and counts (E,) → the bias of the next step, (E,) float32."""
    counts = np.asarray(counts, dtype=np.float64)
    error = counts.mean() - counts  # e
    if rule not in RULES:
        raise ValueError(f"rule is one of {RULES}, got {rule!r}")
    step = np.sign(error) if rule == "sign" else error / (counts.mean() or 1.0)
    return (bias + speed * step).astype(np.float32)
