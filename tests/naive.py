"""The paper's definitions as loops over tokens, heads and experts: slow, obvious, and written without the package.

What these functions and the package agree on was written twice. ``import naive`` works from every test.
"""

from __future__ import annotations

import cmath
import math

import numpy as np

Array = np.ndarray


def rmsnorm(x: Array, gain: Array, eps: float) -> Array:
    """One vector (d,)."""
    return np.array([v / math.sqrt(sum(w * w for w in x) / len(x) + eps) * g for v, g in zip(x, gain, strict=True)])


def ffn(x: Array, w_gate: Array, w_up: Array, w_down: Array) -> Array:
    """SwiGLU network on one vector (d,)."""
    gate, up = w_gate @ x, w_up @ x
    return w_down @ np.array([p / (1 + math.exp(-p)) * q for p, q in zip(gate, up, strict=True)])


def turned(x: Array, position: int, frequencies, interleave: bool, amplitude: float = 1.0) -> Array:
    """RoPE on one vector (d_r,): each pair is a complex number, times a · e^(i · position · θ)."""
    want, half = np.zeros(len(x)), len(x) // 2
    for i, frequency in enumerate(frequencies):
        first, second = (2 * i, 2 * i + 1) if interleave else (i, i + half)
        z = complex(x[first], x[second]) * amplitude * cmath.exp(1j * position * frequency)
        want[first], want[second] = z.real, z.imag
    return want


def attention(q: Array, k: Array, v: Array, scale: float) -> Array:
    """q (B, Tq, H, d_qk), k (B, Tk, H_kv, d_qk), v (B, Tk, H_kv, d_v) → (B, Tq, H, d_v); the queries are the last positions."""
    batch, queries, heads, _ = q.shape
    keys, kv_heads = k.shape[1:3]
    out = np.zeros((batch, queries, heads, v.shape[-1]))
    for b, t, h in np.ndindex(batch, queries, heads):
        read = h // (heads // kv_heads)
        last = t + keys - queries  # this query's own position
        weights = [math.exp(scale * float(q[b, t, h] @ k[b, j, read])) for j in range(last + 1)]
        for j, weight in enumerate(weights):
            out[b, t, h] += weight / sum(weights) * v[b, j, read]
    return out


def route(logits, bias, top_k, n_group, topk_group, scoring, method, normalise, scale) -> tuple[Array, Array, Array]:
    """One token at a time, with Python lists → gates, chosen (N, K), scores (N, E). Among equals the lowest index wins."""
    experts = logits.shape[1]
    per_group = experts // n_group
    gates, chosen, scores = [], [], []
    for row in logits:
        if scoring == "sigmoid":
            s = [1 / (1 + math.exp(-v)) for v in row]
        else:
            s = [math.exp(v) / sum(math.exp(w) for w in row) for v in row]
        c = [s[i] + (0.0 if bias is None else float(bias[i])) for i in range(experts)]
        allowed = list(range(experts))
        if method != "greedy":
            count = 2 if method == "noaux_tc" else 1
            of_group = [sum(sorted(c[g * per_group : (g + 1) * per_group])[-count:]) for g in range(n_group)]
            kept = sorted(range(n_group), key=lambda g: (-of_group[g], g))[:topk_group]
            allowed = [i for i in range(experts) if i // per_group in kept]
        best = sorted(allowed, key=lambda i: (-c[i], i))[:top_k]
        total = sum(s[i] for i in best) if normalise else 1.0
        gates.append([scale * s[i] / total for i in best])
        chosen.append(best)
        scores.append(s)
    return np.array(gates), np.array(chosen), np.array(scores)


def balance(scores: Array, chosen: Array, length: int) -> float:
    """Mean over groups of ``length`` tokens of Σ f P, DeepSeek-V3 eqs 17-20 without α."""
    tokens, experts = scores.shape
    top_k, losses = chosen.shape[1], []
    for start in range(0, tokens, length):
        loss = 0.0
        for i in range(experts):
            f = experts / (top_k * length) * sum(i in chosen[t] for t in range(start, start + length))
            loss += f * sum(scores[t, i] / scores[t].sum() for t in range(start, start + length)) / length
        losses.append(loss)
    return sum(losses) / len(losses)


def cross_entropy(logits: Array, targets: Array, divisor: float) -> float:
    """logits (N, V), targets (N,), those of -100 left out."""
    total = 0.0
    for row, target in zip(logits, targets, strict=True):
        if target != -100:
            total += math.log(sum(math.exp(v) for v in row)) - row[target]
    return total / divisor


def policy_loss(
    logits, tokens, answer, advantage, log_old, log_ref, by, clip, beta, corrected, divisor, drop_above=math.inf, kept=None
):
    """−J of eqs 26 and 27, answer by answer and token by token."""
    masks = [[True] * len(x) for x in logits] if kept is None else kept
    logs = [
        x[t] - math.log(sum(math.exp(y) for y, k in zip(x, m, strict=True) if k))
        for x, t, m in zip(logits, tokens, masks, strict=True)
    ]
    total = 0.0
    for i, a in enumerate(advantage):
        rows = [n for n in range(len(tokens)) if answer[n] == i]
        terms = []
        far = a < 0 and sum(log_old[n] - logs[n] for n in rows) / len(rows) > drop_above
        for some in [rows] if by == "answer" else [[n] for n in rows]:
            rho = math.exp(sum(logs[n] - log_old[n] for n in some))
            held = min(max(rho, 1 - clip), 1 + clip)
            q = math.exp(sum(log_ref[n] - logs[n] for n in some)) if log_ref is not None else 1.0
            divergence = (q - math.log(q) - 1) * (rho if corrected else 1)
            terms.append((0.0 if far else min(rho * a, held * a)) - beta * divergence)
        total += sum(terms) / (divisor or len(terms))
    return -total / len(advantage)
