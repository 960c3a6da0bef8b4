"""All of DeepSeek-V3 in one file of NumPy: the forward pass, the backward pass by hand, and training.

    python -m minids.pico some.txt      trains a small one on any text for two minutes; so does python pico.py some.txt,
                                        because this file needs NumPy and nothing else

The order is that of the DeepSeek-V3 report (arXiv 2412.19437), [n] is its equation n, and right below a function stands its
backward pass (a loss returns its gradient at once):

    y, saved = f(x, w, ...)                 saved: what the backward pass needs again
    dx = f_backward(dy, saved, w, g, ...)   dy is dLoss/dy and so on; the gradients of the weights are added into g

w, g      dicts from Hugging Face checkpoint names to arrays (out, in); the routed experts of a layer are stacked, e.g.
          model.layers.3.mlp.experts.gate_proj.weight (E, I, d). MTP module 1 is layer L, module 2 layer L + 1, ...
p, c      the prefix of a layer's names, "model.layers.3.mlp."; the configuration, CONFIG or anything with its attributes
choices   dict from p to the experts (N, K) chosen there: those found in it are used, the others are chosen and put in
shapes    B batch, T time, N = B·T tokens, H heads, E experts, K chosen experts, G groups of them, M kept groups, I hidden
          width of a feed-forward network, V vocabulary, L layers, D MTP modules; d model, d_c KV latent, d_c' query latent,
          d_h content part of a query or key head, d_v value head, d_r RoPE
left out  FP8 and attention other than MLA (refused where c asks for them), caches, tokenizers, Muon, BF16 moments
"""

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray
Weights = dict[str, Array]
Choices = dict[str, Array]
LATENT_EPS = 1e-6  # the norms of MLA's latents have this ε, whatever rms_norm_eps says (as in Hugging Face transformers)
IGNORE = -100  # a target that does not count

CONFIG = SimpleNamespace(  # V3 in miniature, 2.2 million parameters. Its own sizes: 7168 wide, 61 layers, 256 experts, ...
    **dict(vocab_size=256, hidden_size=128, num_hidden_layers=4, first_k_dense_replace=1, intermediate_size=384),
    **dict(num_attention_heads=4, q_lora_rank=64, kv_lora_rank=32, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32),
    **dict(n_routed_experts=16, n_shared_experts=1, num_experts_per_tok=4, moe_intermediate_size=64, n_group=4, topk_group=2),
    **dict(scoring_func="sigmoid", topk_method="noaux_tc", norm_topk_prob=True, routed_scaling_factor=2.5),
    **dict(balance="bias", bias_update_speed=0.01, bias_update_rule="sign"),  # 0.001 in V3, whose runs are longer
    **dict(aux_loss_alpha=0.0001, seq_aux=True, aux_loss_counts="selected"),
    **dict(num_nextn_predict_layers=1, mtp_loss_weight=0.3, tie_word_embeddings=False, attention_bias=False, rms_norm_eps=1e-6),
    **dict(rope_theta=10000.0, rope_interleave=True, rope_scaling=None, max_position_embeddings=128, initializer_range=0.02),
)


# Functions that every part uses.
def sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))  # at most 1: no overflow
    return np.where(x >= 0, 1, e) / (1 + e)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_backward(dy: Array, y: Array) -> Array:
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))


def top_k(x: Array, k: int) -> Array:
    return np.argsort(-x, axis=-1, kind="stable")[..., :k]  # (..., n) -> (..., k): best first, of equals the first


def rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])  # (..., n) -> (N, n)


def linear(x: Array, w: Weights, name: str) -> Array:
    y = x @ w[name + ".weight"].T  # (..., in) -> (..., out)
    return y + w[name + ".bias"] if name + ".bias" in w else y


def linear_backward(dy: Array, x: Array, w: Weights, g: Weights, name: str) -> Array:
    g[name + ".weight"] += rows(dy).T @ rows(x)  # (out, N) · (N, in)
    if name + ".bias" in w:
        g[name + ".bias"] += rows(dy).sum(axis=0)
    return dy @ w[name + ".weight"]  # (..., out) -> (..., in)


def embedding_backward(dx: Array, tokens: Array, g: Weights) -> None:
    """Of x = w["model.embed_tokens.weight"][tokens], (B, T) -> (B, T, d): a token's gradients add up, wherever it stands."""
    order = np.argsort(tokens, axis=None, kind="stable")  # equal tokens side by side: each run of them is one sum
    present, starts = np.unique(tokens.ravel()[order], return_index=True)
    g["model.embed_tokens.weight"][present] += np.add.reduceat(rows(dx)[order], starts, axis=0)


def rmsnorm(x: Array, w: Weights, name: str, eps: float) -> tuple[Array, tuple]:
    r = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)  # (..., 1): Zhang & Sennrich 2019, eq. 4
    n = x * r  # (..., d)
    return n * w[name + ".weight"], (n, r)


def rmsnorm_backward(dy: Array, saved: tuple, w: Weights, g: Weights, name: str) -> Array:
    n, r = saved
    g[name + ".weight"] += rows(dy * n).sum(axis=0)
    dn = dy * w[name + ".weight"]
    return r * (dn - n * np.mean(dn * n, axis=-1, keepdims=True))  # r depends on all of x: nothing along n is left


def feed_forward(u: Array, w: Weights, p: str, e: Any = ...) -> tuple[Array, tuple]:
    """W_down (silu(W_gate u) · W_up u): SwiGLU, Shazeer 2020. e: which one, where several are stacked."""
    gate, up, down = (w[f"{p}{name}_proj.weight"][e] for name in ("gate", "up", "down"))
    a, b = u @ gate.T, u @ up.T  # (..., d) -> (..., I)
    s = sigmoid(a)
    return (a * s * b) @ down.T, (u, a, b, s)  # (..., I) -> (..., d)


def feed_forward_backward(dy: Array, saved: tuple, w: Weights, g: Weights, p: str, e: Any = ...) -> Array:
    u, a, b, s = saved
    gate, up, down = (w[f"{p}{name}_proj.weight"][e] for name in ("gate", "up", "down"))
    dm = dy @ down  # (..., d) -> (..., I): of silu(a) · b, where silu(a) = a · s
    da, db = dm * b * s * (1 + a * (1 - s)), dm * a * s
    for name, d_out, x in (("gate", da, u), ("up", db, u), ("down", dy, a * s * b)):
        g[f"{p}{name}_proj.weight"][e] += rows(d_out).T @ rows(x)
    return da @ gate + db @ up


# Positions: RoPE (Su et al. 2021), stretched by YaRN (Peng et al. 2023; section 4.3).
def mscale(factor: float, a: float) -> float:
    return 0.1 * a * float(np.log(factor)) + 1 if factor > 1 else 1.0  # attention is sharpened for so much longer a context


def rope_frequencies(c: Any) -> Array:
    """Radians per position of each rotated pair, (d_r/2,), in float64."""
    d_r, yarn = c.qk_rope_head_dim, c.rope_scaling
    i = np.arange(d_r // 2)
    theta = c.rope_theta ** (-2 * i / d_r)
    if yarn is None:
        return theta
    turns = np.array([yarn.beta_fast, yarn.beta_slow])  # so often do pairs low and high turn within the old context
    low, high = d_r * np.log(yarn.original_max_position_embeddings / (2 * np.pi * turns)) / (2 * np.log(c.rope_theta))
    low, high = max(np.floor(low), 0), min(np.ceil(high), d_r - 1)
    ramp = np.clip((i - low) / (high - low if high != low else 0.001), 0, 1)  # 0: fast pair, kept; 1: slow pair, stretched
    return theta * ((1 - ramp) + ramp / yarn.factor)


def rope(x: Array, c: Any, direction: int = 1) -> Array:
    """Rotate each pair of x (..., T, d_r) by position · frequency. Backward: the transpose is the rotation back, -1."""
    angle = direction * np.arange(x.shape[-2])[:, None] * rope_frequencies(c)  # (T, d_r/2)
    yarn = c.rope_scaling
    stretch = mscale(yarn.factor, yarn.mscale) / mscale(yarn.factor, yarn.mscale_all_dim) if yarn else 1.0
    cos, sin = (stretch * f(angle).astype(x.dtype) for f in (np.cos, np.sin))
    if c.rope_interleave:  # pairs (2i, 2i+1), as in DeepSeek's weights
        a, b = x[..., 0::2], x[..., 1::2]  # (..., T, d_r) -> 2 × (..., T, d_r/2)
        return np.stack([a * cos - b * sin, a * sin + b * cos], axis=-1).reshape(x.shape)
    a, b = np.split(x, 2, axis=-1)  # pairs (i, i + d_r/2)
    return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


# Multi-head latent attention, section 2.1.1.
def split_heads(x: Array, H: int) -> Array:
    return x.reshape(*x.shape[:2], H, -1).swapaxes(1, 2)  # (B, T, H·n) -> (B, H, T, n)


def merge_heads(x: Array) -> Array:
    return np.concatenate(x.swapaxes(0, 1), axis=-1)  # (B, H, T, n) -> (B, T, H·n)


def softmax_scale(c: Any) -> float:
    m = mscale(c.rope_scaling.factor, c.rope_scaling.mscale_all_dim) if c.rope_scaling else 1.0  # of YaRN
    return (c.qk_nope_head_dim + c.qk_rope_head_dim) ** -0.5 * m * m


def mla(h: Array, w: Weights, p: str, c: Any) -> tuple[Array, tuple]:
    """Attention through low-rank latents, (B, T, d) -> (B, T, d); only c_kv and k_rope would have to be cached."""
    B, T, _ = h.shape
    H, d_h, d_c, d_r = c.num_attention_heads, c.qk_nope_head_dim, c.kv_lora_rank, c.qk_rope_head_dim
    if c.q_lora_rank is None:
        c_q, saved_q, up = h, None, "q_proj"
    else:
        c_q = linear(h, w, p + "q_a_proj")  # [6] (B, T, d) -> (B, T, d_c')
        (c_q, saved_q), up = rmsnorm(c_q, w, p + "q_a_layernorm", LATENT_EPS), "q_b_proj"
    q = split_heads(linear(c_q, w, p + up), H)  # [7, 8] (B, T, d_c') -> (B, H, T, d_h+d_r)
    q_nope, q_rope = np.split(q, [d_h], axis=-1)  # (B, H, T, d_h), (B, H, T, d_r)
    q = np.concatenate([q_nope, rope(q_rope, c)], axis=-1)  # [8, 9] (B, H, T, d_h+d_r)

    compressed = linear(h, w, p + "kv_a_proj_with_mqa")  # [1, 3] (B, T, d) -> (B, T, d_c+d_r)
    c_kv, k_rope = np.split(compressed, [d_c], axis=-1)  # (B, T, d_c), (B, T, d_r)
    c_kv, saved_kv = rmsnorm(c_kv, w, p + "kv_a_layernorm", LATENT_EPS)
    kv = split_heads(linear(c_kv, w, p + "kv_b_proj"), H)  # [2, 5] (B, T, d_c) -> (B, H, T, d_h+d_v)
    k_nope, v = np.split(kv, [d_h], axis=-1)  # (B, H, T, d_h), (B, H, T, d_v)
    k_rope = np.broadcast_to(rope(k_rope[:, None], c), (B, H, T, d_r))  # [3] (B, T, d_r) -> (B, H, T, d_r): all heads share it
    k = np.concatenate([k_nope, k_rope], axis=-1)  # [4] (B, H, T, d_h+d_r)

    scores = q @ k.swapaxes(-1, -2) * softmax_scale(c)  # [10] (B, H, T, d_h+d_r) -> (B, H, T, T)
    a = softmax(np.where(np.tri(T, dtype=bool), scores, -np.inf))  # [10] (B, H, T, T): token t sees tokens 0..t
    o = merge_heads(a @ v)  # [10] (B, H, T, T) -> (B, H, T, d_v) -> (B, T, H·d_v)
    return linear(o, w, p + "o_proj"), (h, c_q, saved_q, c_kv, saved_kv, q, k, v, a, o)  # [11] (B, T, H·d_v) -> (B, T, d)


def mla_backward(du: Array, saved: tuple, w: Weights, g: Weights, p: str, c: Any) -> Array:
    """The same equations upwards, (B, T, d) -> (B, T, d). h goes two ways, so its gradient has two parts."""
    h, c_q, saved_q, c_kv, saved_kv, q, k, v, a, o = saved
    H, d_h = c.num_attention_heads, c.qk_nope_head_dim
    do = split_heads(linear_backward(du, o, w, g, p + "o_proj"), H)  # [11] (B, T, d) -> (B, H, T, d_v)
    da, dv = do @ v.swapaxes(-1, -2), a.swapaxes(-1, -2) @ do  # [10] (B, H, T, T), (B, H, T, d_v)
    d_scores = softmax_backward(da, a) * softmax_scale(c)  # [10] (B, H, T, T): 0 for the future, as a is
    dq, dk = d_scores @ k, d_scores.swapaxes(-1, -2) @ q  # [10] (B, H, T, d_h+d_r) each

    dk_nope, dk_rope = np.split(dk, [d_h], axis=-1)  # [4] (B, H, T, d_h), (B, H, T, d_r)
    dk_rope = rope(dk_rope.sum(axis=1), c, -1)  # [3] (B, H, T, d_r) -> (B, T, d_r): all heads share it, so theirs add up
    dkv = merge_heads(np.concatenate([dk_nope, dv], axis=-1))  # [2, 5] (B, T, H·(d_h+d_v))
    dc_kv = linear_backward(dkv, c_kv, w, g, p + "kv_b_proj")  # (B, T, d_c): through keys and values at once
    dc_kv = rmsnorm_backward(dc_kv, saved_kv, w, g, p + "kv_a_layernorm")
    dc = np.concatenate([dc_kv, dk_rope], axis=-1)  # [1, 3] (B, T, d_c+d_r)
    dh = linear_backward(dc, h, w, g, p + "kv_a_proj_with_mqa")  # (B, T, d)

    dq_nope, dq_rope = np.split(dq, [d_h], axis=-1)  # [9] (B, H, T, d_h), (B, H, T, d_r)
    dq = merge_heads(np.concatenate([dq_nope, rope(dq_rope, c, -1)], axis=-1))  # [8] (B, T, H·(d_h+d_r))
    if c.q_lora_rank is None:
        return dh + linear_backward(dq, h, w, g, p + "q_proj")
    dc_q = linear_backward(dq, c_q, w, g, p + "q_b_proj")  # [7, 8] (B, T, d_c')
    dc_q = rmsnorm_backward(dc_q, saved_q, w, g, p + "q_a_layernorm")
    return dh + linear_backward(dc_q, h, w, g, p + "q_a_proj")  # [6] (B, T, d)


# Mixture of experts, section 2.1.2.
def route(u: Array, w: Weights, p: str, c: Any, choices: Choices) -> tuple[Array, Array, Array]:
    """Tokens u (N, d) -> scores s (N, E), chosen experts (N, K) and their gates (N, K)."""
    logits = linear(u, w, p + "gate")  # (N, d) -> (N, E)
    s = sigmoid(logits) if c.scoring_func == "sigmoid" else softmax(logits)  # [15]
    corrected = c.topk_method == "noaux_tc"
    choice = s + w[p + "gate.e_score_correction_bias"] if corrected else s  # [16]
    if c.topk_method != "greedy":  # a token may only touch its best groups of experts, in V3 the best 4 of 8 nodes
        groups = choice.reshape(len(u), c.n_group, -1)  # (N, E) -> (N, G, E/G)
        best = np.sort(groups, axis=-1)[..., -2:].sum(axis=-1) if corrected else groups.max(axis=-1)  # (N, G)
        kept = (top_k(best, c.topk_group)[..., None] == np.arange(c.n_group)).any(axis=1)  # (N, G) -> (N, M) -> (N, G)
        choice = np.where(kept[..., None], groups, -np.inf).reshape(s.shape)  # not 0: a biased score may be negative
    chosen = choices.setdefault(p, top_k(choice, c.num_experts_per_tok))  # (N, E) -> (N, K)
    gates = np.take_along_axis(s, chosen, axis=-1)  # [14, 16] (N, K), unbiased: the bias decides who, not how much
    if c.norm_topk_prob:
        gates = gates / (gates.sum(axis=-1, keepdims=True) + 1e-20)  # [13]
    return s, chosen, gates * c.routed_scaling_factor


def route_backward(d_gates: Array, ds: Array, saved: tuple, w: Weights, g: Weights, p: str, c: Any) -> Array:
    """d_gates (N, K), and ds (N, E) from the balance loss -> du (N, d). The choice is a step and has no gradient."""
    u, s, chosen = saved
    d_picked = d_gates * c.routed_scaling_factor  # (N, K)
    if c.norm_topk_prob:  # [13] the quotient rule: all K share the sum S
        picked = np.take_along_axis(s, chosen, axis=-1)
        S = picked.sum(axis=-1, keepdims=True) + 1e-20
        d_picked = (d_picked - (d_picked * picked).sum(axis=-1, keepdims=True) / S) / S
    np.put_along_axis(ds, chosen, np.take_along_axis(ds, chosen, axis=-1) + d_picked, axis=-1)  # [14] (N, K) -> (N, E)
    d_logits = ds * s * (1 - s) if c.scoring_func == "sigmoid" else softmax_backward(ds, s)  # [15]
    return linear_backward(d_logits, u, w, g, p + "gate")


def balance_loss(s: Array, chosen: Array, sequences: int, c: Any) -> tuple[float, Array]:
    """α Σ_i f_i P_i, the mean over sequences, and its gradient by the scores s, (N, E): an end of the chain, like each loss."""
    E, K, B = c.n_routed_experts, c.num_experts_per_tok, sequences if c.seq_aux else 1
    chosen = top_k(s, K) if c.aux_loss_counts == "unbiased" else chosen
    S = s.sum(axis=-1, keepdims=True)  # (N, 1)
    share = (s / S).reshape(B, -1, E)  # [19] (N, E) -> (B, T, E)
    P, T = share.mean(axis=1, keepdims=True), share.shape[1]  # [20] (B, 1, E): what the router wants to give
    counts = (chosen.reshape(B, -1, 1) == np.arange(E)).sum(axis=1, keepdims=True)  # (B, T·K, E) -> (B, 1, E)
    f = (counts * (E / (K * T))).astype(s.dtype)  # [18] what the experts get; 1 for all when balanced; no gradient
    alpha = 0.0 if c.balance == "none" else c.aux_loss_alpha
    ds = alpha / (B * T) * (f - (f * share).sum(axis=-1, keepdims=True)).reshape(-1, E) / S  # all scores of a token share S
    return alpha * float((f * P).sum(dtype=np.float64)) / B, ds  # [17]


def moe(h: Array, w: Weights, p: str, c: Any, choices: Choices) -> tuple[Array, float, tuple]:
    """Shared experts + gated routed experts, (B, T, d) -> (B, T, d): [12] without its residual, which the block adds."""
    u, saved_experts = rows(h), []  # (B, T, d) -> (N, d)
    s, chosen, gates = route(u, w, p, c, choices)
    balance, ds = balance_loss(s, chosen, len(h), c)
    y, saved_shared = feed_forward(u, w, p + "shared_experts.") if c.n_shared_experts else (np.zeros_like(u), None)
    for e in np.unique(chosen):
        n, k = np.nonzero(chosen == e)  # the tokens that chose expert e, and which of their K choices it was
        out, saved = feed_forward(u[n], w, p + "experts.", e)
        y[n] += gates[n, k, None] * out
        saved_experts.append((e, n, k, out, saved))
    return y.reshape(h.shape), balance, (u, s, chosen, gates, ds, saved_shared, saved_experts)  # (N, d) -> (B, T, d)


def moe_backward(dy: Array, saved: tuple, w: Weights, g: Weights, p: str, c: Any) -> Array:
    u, s, chosen, gates, ds, saved_shared, saved_experts = saved
    flat, du, d_gates = rows(dy), np.zeros_like(u), np.zeros_like(gates)
    for e, n, k, out, saved in saved_experts:
        d_gates[n, k] = (flat[n] * out).sum(axis=-1)
        du[n] += feed_forward_backward(gates[n, k, None] * flat[n], saved, w, g, p + "experts.", e)
    if c.n_shared_experts:
        du += feed_forward_backward(flat, saved_shared, w, g, p + "shared_experts.")
    return (du + route_backward(d_gates, ds.copy(), (u, s, chosen), w, g, p, c)).reshape(dy.shape)


def update_biases(w: Weights, choices: Choices, c: Any) -> None:
    """After a step: the biases of experts with less than the mean load go up, the others down. No gradient is involved."""
    for p, chosen in choices.items() if c.balance == "bias" else ():
        counts = np.bincount(chosen.ravel(), minlength=c.n_routed_experts)  # (N, K) -> (E,)
        error = counts.mean() - counts
        step = np.sign(error) if c.bias_update_rule == "sign" else error / counts.mean()
        w[p + "gate.e_score_correction_bias"] += c.bias_update_speed * step


# The main model, Figures 2 and 3.
def block(x: Array, w: Weights, layer: int, c: Any, choices: Choices) -> tuple[Array, float, tuple]:
    """One Transformer block, (B, T, d) -> (B, T, d), and its balance loss."""
    p, eps, balance = f"model.layers.{layer}.", c.rms_norm_eps, 0.0
    h, saved_h = rmsnorm(x, w, p + "input_layernorm", eps)
    attended, saved_mla = mla(h, w, p + "self_attn.", c)
    x = x + attended
    u, saved_u = rmsnorm(x, w, p + "post_attention_layernorm", eps)
    if layer < c.first_k_dense_replace:
        y, saved_y = feed_forward(u, w, p + "mlp.")
    else:
        y, balance, saved_y = moe(u, w, p + "mlp.", c, choices)
    return x + y, balance, (saved_h, saved_mla, saved_u, saved_y)


def block_backward(dx: Array, saved: tuple, w: Weights, g: Weights, layer: int, c: Any) -> Array:
    (saved_h, saved_mla, saved_u, saved_y), p = saved, f"model.layers.{layer}."
    if layer < c.first_k_dense_replace:
        du = feed_forward_backward(dx, saved_y, w, g, p + "mlp.")
    else:
        du = moe_backward(dx, saved_y, w, g, p + "mlp.", c)
    dx = dx + rmsnorm_backward(du, saved_u, w, g, p + "post_attention_layernorm")  # past the sub-layer, and through it
    dh = mla_backward(dx, saved_mla, w, g, p + "self_attn.", c)
    return dx + rmsnorm_backward(dh, saved_h, w, g, p + "input_layernorm")


def main_model(tokens: Array, w: Weights, c: Any, choices: Choices) -> tuple[Array, float, tuple]:
    """(B, T) -> (B, T, d): what the head and the first MTP module read, the output of the last block after the final norm."""
    for name, known in (("attention", "mla"), ("precision", "fp32"), ("mtp_state", "normed")):
        if getattr(c, name, known) != known:
            raise ValueError(f"{name} = {getattr(c, name)!r}: pico knows {known!r} only")
    x, balance, saved_blocks = w["model.embed_tokens.weight"][tokens], 0.0, []
    for layer in range(c.num_hidden_layers):
        x, more, saved = block(x, w, layer, c, choices)
        balance += more
        saved_blocks.append(saved)
    h, saved_norm = rmsnorm(x, w, "model.norm", c.rms_norm_eps)
    return h, balance, (saved_blocks, saved_norm)  # backward: the end of loss_and_grads


# Multi-token prediction, section 2.2.
def mtp_module(tokens: Array, hidden: Array, w: Weights, k: int, c: Any, choices: Choices) -> tuple[Array, float, tuple]:
    """Module k: normalised output of module k-1 at position i, and the embedding of token i+k. (B, T-k+1, d) -> (B, T-k, d)."""
    layer, eps = c.num_hidden_layers + k - 1, c.rms_norm_eps
    p = f"model.layers.{layer}."
    ahead, saved_e = rmsnorm(w["model.embed_tokens.weight"][tokens[:, k:]], w, p + "enorm", eps)  # (B, T) -> (B, T-k, d)
    so_far, saved_h = rmsnorm(hidden[:, :-1], w, p + "hnorm", eps)  # (B, T-k+1, d) -> (B, T-k, d)
    both = np.concatenate([ahead, so_far], axis=-1)  # (B, T-k, 2d); the paper writes the halves the other way round
    x = linear(both, w, p + "eh_proj")  # [21] (B, T-k, 2d) -> (B, T-k, d)
    x, balance, saved_block = block(x, w, layer, c, choices)  # [22]
    h, saved_norm = rmsnorm(x, w, p + "shared_head.norm", eps)
    return h, balance, (saved_e, saved_h, both, saved_block, saved_norm)


def mtp_module_backward(dh: Array, tokens: Array, saved: tuple, w: Weights, g: Weights, k: int, c: Any) -> Array:
    (saved_e, saved_h, both, saved_block, saved_norm), layer = saved, c.num_hidden_layers + k - 1
    p = f"model.layers.{layer}."
    dx = rmsnorm_backward(dh, saved_norm, w, g, p + "shared_head.norm")
    dx = block_backward(dx, saved_block, w, g, layer, c)  # [22]
    d_ahead, d_so_far = np.split(linear_backward(dx, both, w, g, p + "eh_proj"), 2, axis=-1)  # [21] (B, T-k, d) each
    embedding_backward(rmsnorm_backward(d_ahead, saved_e, w, g, p + "enorm"), tokens[:, k:], g)
    return rmsnorm_backward(d_so_far, saved_h, w, g, p + "hnorm")  # (B, T-k, d): of all hidden states but the last


# The losses, and the gradient of their total.
class Losses(NamedTuple):
    total: float  # main + λ/D Σ mtp + balance, in nats per token: what is minimised
    main: float  # cross-entropy of the next token
    mtp: tuple[float, ...]  # of the token after it, and so on
    balance: float  # α Σ_layers Σ_i f_i P_i
    choices: Choices  # the chosen experts of every layer that has some


def cross_entropy(logits: Array, targets: Array, divisor: int) -> tuple[float, Array]:
    """-1/divisor Σ ln prob(target), and its gradient by the logits (B, T, V): what was predicted minus what came."""
    counted = (targets != IGNORE)[..., None]  # (B, T, 1)
    label = np.where(counted, targets[..., None], 0)
    z = logits - logits.max(axis=-1, keepdims=True)
    log_prob = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))  # (B, T, V)
    loss = -np.take_along_axis(log_prob, label, axis=-1)[counted].sum(dtype=np.float64) / divisor
    d_logits = np.exp(log_prob) - (label == np.arange(logits.shape[-1]))
    return float(loss), d_logits * counted / divisor


def head(c: Any) -> str:
    return "model.embed_tokens" if c.tie_word_embeddings else "lm_head"


def forward(tokens: Array, targets: Array, w: Weights, c: Any, choices: Choices | None = None) -> tuple[Losses, list]:
    """tokens (B, T), and as targets (B, T) the tokens that follow them. ``choices`` holds the choice of experts still."""
    choices, D = dict(choices or {}), c.num_nextn_predict_layers
    divisor = max(int((targets != IGNORE).sum()), 1)  # [24] divides by T at every depth, not by T - k
    hidden, balance, saved = main_model(tokens, w, c, choices)
    losses, saved_depths = [], []
    for k in range(D + 1):  # depth 0 is the main model; depth k predicts token i+k+1 at position i
        if k:
            hidden, more, saved = mtp_module(tokens, hidden, w, k, c, choices)
            balance += more
        logits = linear(hidden, w, head(c))  # [23] (B, T-k, d) -> (B, T-k, V): one head for all depths
        loss, d_logits = cross_entropy(logits, targets[:, k:], divisor)  # [24]
        losses.append(loss)
        saved_depths.append((saved, hidden, d_logits))
    total = losses[0] + c.mtp_loss_weight * sum(losses[1:]) / max(D, 1) + balance  # [25]
    return Losses(total, losses[0], tuple(losses[1:]), balance, choices), saved_depths


def loss_and_grads(tokens: Array, targets: Array, w: Weights, c: Any, choices: Choices | None = None) -> tuple[Losses, Weights]:
    """The losses, and the gradient of their total by every weight: from the deepest MTP module up to the embedding."""
    losses, saved_depths = forward(tokens, targets, w, c, choices)
    g = {name: np.zeros_like(weight) for name, weight in w.items() if not name.endswith("e_score_correction_bias")}
    D, d_hidden = c.num_nextn_predict_layers, np.zeros(1)
    for k in reversed(range(D + 1)):
        saved, hidden, d_logits = saved_depths[k]
        dh = linear_backward(d_logits * (c.mtp_loss_weight / D if k else 1.0), hidden, w, g, head(c))  # [25, 23] (B, T-k, d)
        if k < D:
            dh[:, :-1] += d_hidden  # module k+1 read this too, all positions but the last
        if k:
            d_hidden = mtp_module_backward(dh, tokens, saved, w, g, k, c)
    saved_blocks, saved_norm = saved  # of the main model
    dx = rmsnorm_backward(dh, saved_norm, w, g, "model.norm")
    for layer in reversed(range(c.num_hidden_layers)):
        dx = block_backward(dx, saved_blocks[layer], w, g, layer, c)
    embedding_backward(dx, tokens, g)
    return losses, g


# Using the model.
def hidden_states(tokens: Array, weights: Weights, config: Any) -> Array:
    return main_model(tokens, weights, config, {})[0]  # (B, T) -> (B, T, d)


def deepseek_v3(tokens: Array, weights: Weights, config: Any) -> Array:
    return linear(hidden_states(tokens, weights, config), weights, head(config))  # (B, T) -> (B, T, V): of the next token


def mtp_logits(tokens: Array, hidden: Array, weights: Weights, config: Any, depth: int) -> Array:
    """Logits (B, T-depth, V) of token i+depth+1 at position i. ``hidden`` (B, T, d) is ``hidden_states`` of the same tokens."""
    for k in range(1, depth + 1):  # a chain, not parallel heads
        hidden, _, _ = mtp_module(tokens, hidden, weights, k, config, {})
    return linear(hidden, weights, head(config))


def generate(tokens: Array, weights: Weights, config: Any, new_tokens: int) -> Array:
    for _ in range(new_tokens):
        logits = deepseek_v3(tokens[:, -config.max_position_embeddings :], weights, config)  # (B, T, V)
        tokens = np.concatenate([tokens, logits[:, -1:].argmax(axis=-1)], axis=1)  # (B, T) -> (B, T+1): the likeliest
    return tokens


# Training, section 4.2.
def init_weights(c: Any, rng: np.random.Generator, dtype: type = np.float32) -> Weights:
    """Normal(0, initializer_range) for every matrix, 1 for gains, 0 for biases."""
    d, V, L, E, I = c.hidden_size, c.vocab_size, c.num_hidden_layers, c.n_routed_experts, c.moe_intermediate_size
    H, d_h, d_r, d_v = c.num_attention_heads, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim
    d_q, d_c = c.q_lora_rank, c.kv_lora_rank
    shapes = {"model.embed_tokens": (V, d), "model.norm": (d,)} | ({} if c.tie_word_embeddings else {"lm_head": (V, d)})
    for layer in range(L + c.num_nextn_predict_layers):
        p, a, m = (f"model.layers.{layer}.{part}" for part in ("", "self_attn.", "mlp."))
        shapes |= {p + "input_layernorm": (d,), p + "post_attention_layernorm": (d,)}
        shapes |= {a + "q_a_proj": (d_q, d), a + "q_a_layernorm": (d_q,)} if d_q else {}
        shapes |= {a + ("q_b_proj" if d_q else "q_proj"): (H * (d_h + d_r), d_q or d)}
        shapes |= {a + "kv_a_proj_with_mqa": (d_c + d_r, d), a + "kv_a_layernorm": (d_c,)}
        shapes |= {a + "kv_b_proj": (H * (d_h + d_v), d_c), a + "o_proj": (d, H * d_v)}
        networks: list[tuple[str, tuple, int]] = [(m, (), c.intermediate_size)]  # prefix, stack, width
        if layer >= c.first_k_dense_replace:
            shapes[m + "gate"] = (E, d)
            networks = [(m + "experts.", (E,), I), (m + "shared_experts.", (), c.n_shared_experts * I)]
        for q, stack, width in networks:
            up, down = (*stack, width, d), (*stack, d, width)
            shapes |= {q + "gate_proj": up, q + "up_proj": up, q + "down_proj": down} if width else {}
        if layer >= L:
            shapes |= {p + "enorm": (d,), p + "hnorm": (d,), p + "shared_head.norm": (d,), p + "eh_proj": (d, 2 * d)}
    w: Weights = {}
    for name, shape in shapes.items():
        values = np.ones(shape) if len(shape) == 1 else rng.standard_normal(shape) * c.initializer_range
        w[name + ".weight"] = values.astype(dtype)
        if c.attention_bias and name.endswith(("q_a_proj", "kv_a_proj_with_mqa", "self_attn.o_proj")):
            w[name + ".bias"] = np.zeros(shape[0], dtype)
        if c.topk_method == "noaux_tc" and name.endswith("mlp.gate"):
            w[name + ".e_score_correction_bias"] = np.zeros(E, np.float32)
    return w


def adamw(w: Weights, grads: Weights, moments: dict[str, Array], step: int, lr: float, decay: float = 0.1) -> None:
    """Step 1, 2, ... of AdamW (Loshchilov & Hutter 2019) in place, after clipping the gradient to norm 1."""
    beta1, beta2, eps, clip = 0.9, 0.95, 1e-8, 1.0
    norm = np.sqrt(sum(float(np.square(g, dtype=np.float64).sum()) for g in grads.values()))
    for name, g in grads.items():
        g = g * float(clip / max(norm, clip))
        if name not in moments:
            moments[name] = np.zeros((2, *g.shape), g.dtype)
        m, v = moments[name]
        m += (1 - beta1) * (g - m)
        v += (1 - beta2) * (g * g - v)
        update = m / (1 - beta1**step) / (np.sqrt(v / (1 - beta2**step)) + eps)
        w[name] -= lr * (update + (decay * w[name] if g.ndim > 1 else 0.0))  # gains and biases do not decay


def train(text: bytes, c: Any, seconds: float, batch: int = 8, peak: float = 3e-3) -> Weights:
    """Learn nine tenths of a text, a byte a token, until the time is over; the last tenth is for measuring and for a sample."""
    rng, T, data = np.random.default_rng(0), c.max_position_embeddings, np.frombuffer(text, np.uint8).astype(np.int64)
    w, moments, (learn, rest) = init_weights(c, rng), Weights(), np.split(data, [len(data) * 9 // 10])

    def sequences(part: Array, starts: Array) -> tuple[Array, Array]:
        both = part[starts[:, None] + np.arange(T + 1)]  # (B, T+1)
        return both[:, :-1], both[:, 1:]

    def report(when: str) -> None:
        loss = forward(*sequences(rest, np.linspace(0, len(rest) - T - 1, 32).astype(int)), w, c)[0].main
        written = generate(rest[None, : T // 2], w, c, T)[0].astype(np.uint8).tobytes()
        sample = (written[: T // 2] + b"[...]" + written[T // 2 :]).decode(errors="replace")
        sample = "".join(x if x.isprintable() or x == "\n" else "·" for x in sample)  # no escape sequences for the terminal
        print(f"{when}: {loss:.3f} nats a byte on text it did not learn. It continues a piece of it after [...]:\n{sample}\n")

    print(f"{sum(a.size for a in w.values()):,} parameters, {len(learn):,} bytes to learn, {len(rest):,} held out")
    report("before")
    start, step, done = time.perf_counter(), 0, 0.0
    while done < 1:
        step += 1
        losses, grads = loss_and_grads(*sequences(learn, rng.integers(0, len(learn) - T, batch)), w, c)
        took = time.perf_counter() - start
        done = took / seconds if took < seconds else 1.0
        adamw(w, grads, moments, step, peak * min(done / 0.05, 1.0) * float(0.55 + 0.45 * np.cos(np.pi * done)))  # to a tenth
        update_biases(w, losses.choices, c)
        if step % 20 == 1 or done == 1:
            loads = [np.bincount(chosen.ravel(), minlength=c.n_routed_experts) for chosen in losses.choices.values()]
            worst = max((load.max() / load.mean() - 1 for load in loads), default=0.0)  # 0 when all experts get the same
            numbers = f"loss {losses.main:.3f}" + "".join(f"  MTP {loss:.3f}" for loss in losses.mtp) + f"  MaxVio {worst:.2f}"
            print(f"step {step:4} {took:4.0f} s  {numbers}  {step * batch * T / took:,.0f} tokens/s", flush=True)
    report("after")
    return w


def main(arguments: list[str]) -> int:
    try:
        if len(arguments) not in (1, 2):
            raise ValueError("give the name of a text file")
        text, least = Path(arguments[0]).read_bytes(), 20 * (CONFIG.max_position_embeddings + 1)
        if len(text) < least:
            raise ValueError(f"{arguments[0]!r} has {len(text):,} bytes; give a text of at least {least:,}")
        seconds = int(arguments[1]) if len(arguments) == 2 else 120
    except (OSError, ValueError) as error:
        print(f"python -m minids.pico TEXT [SECONDS]: {error}", file=sys.stderr)
        return 2
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a console may not know all characters of the text
    train(text, CONFIG, seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
