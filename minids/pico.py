"""All of DeepSeek-V3's forward pass on one page of NumPy.

Pure functions from arrays to arrays, in the order in which the DeepSeek-V3 report (arXiv 2412.19437) introduces them; a
number in square brackets is its equation. Nothing here is shared with the rest of the package, so the two check each other.

weights   dict of Hugging Face checkpoint names to arrays (out, in); the routed experts of a layer are stacked, e.g.
          ``model.layers.3.mlp.experts.gate_proj.weight`` (E, I, d). MTP module 1 is layer L, module 2 layer L + 1, ...
config    anything with ModelConfig's attributes; the attention is always MLA, the precision that of the weights
shapes    B batch, T time, N = B·T tokens, H heads, E experts, K chosen experts, G groups of them, M kept groups, I hidden
          width of a feed-forward network, V vocabulary, L layers; d model, d_c KV latent, d_c' query latent, d_h content
          part of a query or key head, d_v value head, d_r RoPE
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray
Weights = dict[str, Array]


# Functions that know no model.


def sigmoid(x: Array) -> Array:
    return np.exp(-np.logaddexp(0, -x))  # 1 / (1 + e^-x) without overflow


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def rmsnorm(x: Array, gain: Array, eps: float) -> Array:
    """x · gain / sqrt(mean(x²) + ε): Zhang & Sennrich 2019, eq. 4."""
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * gain


def linear(x: Array, w: Weights, name: str) -> Array:
    y = x @ w[name + ".weight"].T  # (..., in) -> (..., out)
    return y + w[name + ".bias"] if name + ".bias" in w else y


def swiglu(u: Array, gate: Array, up: Array, down: Array) -> Array:
    """W_down (silu(W_gate u) · W_up u): Shazeer 2020."""
    a = u @ gate.T  # (..., d) -> (..., I)
    return (a * sigmoid(a) * (u @ up.T)) @ down.T  # (..., I) -> (..., d)


def top_k(x: Array, k: int) -> Array:
    """Indices of the k largest, best first; of equals the first."""
    return np.argsort(-x, axis=-1, kind="stable")[..., :k]  # (..., n) -> (..., k)


# Positions: RoPE (Su et al. 2021), stretched by YaRN (Peng et al. 2023; section 4.3).


def mscale(factor: float, a: float) -> float:
    """m(s, a) = 0.1 · a · ln s + 1: by how much attention is sharpened for a context s times longer."""
    return 0.1 * a * float(np.log(factor)) + 1 if factor > 1 else 1.0


def rope_frequencies(c: Any) -> Array:
    """Radians per position of each rotated pair, (d_r/2,), in float64."""
    d_r, yarn = c.qk_rope_head_dim, c.rope_scaling
    i = np.arange(d_r // 2)
    theta = c.rope_theta ** (-2 * i / d_r)
    if yarn is None:
        return theta

    def pair_that_turns(times: float) -> float:  # the fractional i at which the old context holds that many turns
        return d_r * np.log(yarn.original_max_position_embeddings / (2 * np.pi * times)) / (2 * np.log(c.rope_theta))

    low = max(np.floor(pair_that_turns(yarn.beta_fast)), 0)
    high = min(np.ceil(pair_that_turns(yarn.beta_slow)), d_r - 1)
    ramp = np.clip((i - low) / (high - low if high != low else 0.001), 0, 1)  # 0: fast pair, kept; 1: slow pair, stretched
    return theta * ((1 - ramp) + ramp / yarn.factor)


def rope(x: Array, c: Any) -> Array:
    """Rotate each pair of x (..., T, d_r) by position · frequency; the shape stays."""
    angle = np.arange(x.shape[-2])[:, None] * rope_frequencies(c)  # (T, d_r/2)
    yarn = c.rope_scaling
    stretch = mscale(yarn.factor, yarn.mscale) / mscale(yarn.factor, yarn.mscale_all_dim) if yarn else 1.0
    cos, sin = (stretch * f(angle).astype(x.dtype) for f in (np.cos, np.sin))
    if c.rope_interleave:  # pairs (2i, 2i+1), as in DeepSeek's weights
        a, b = x[..., 0::2], x[..., 1::2]  # (..., T, d_r) -> 2 × (..., T, d_r/2)
        return np.stack([a * cos - b * sin, a * sin + b * cos], axis=-1).reshape(x.shape)
    a, b = np.split(x, 2, axis=-1)  # pairs (i, i + d_r/2)
    return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)


# Multi-head latent attention, section 2.1.1.

LATENT_EPS = 1e-6  # the norms of both latents have this ε, whatever rms_norm_eps says (as in Hugging Face transformers)


def split_heads(x: Array, heads: int) -> Array:
    B, T, _ = x.shape
    return x.reshape(B, T, heads, -1).swapaxes(1, 2)  # (B, T, H·n) -> (B, H, T, n)


def softmax_scale(c: Any) -> float:
    """1 / sqrt(d_h + d_r), times m² under YaRN."""
    m = mscale(c.rope_scaling.factor, c.rope_scaling.mscale_all_dim) if c.rope_scaling else 1.0
    return (c.qk_nope_head_dim + c.qk_rope_head_dim) ** -0.5 * m * m


def mla(h: Array, w: Weights, p: str, c: Any) -> Array:
    """Attention through low-rank latents, (B, T, d) -> (B, T, d); only c_kv and k_rope would have to be cached."""
    B, T, _ = h.shape
    H, d_h, d_c, d_r = c.num_attention_heads, c.qk_nope_head_dim, c.kv_lora_rank, c.qk_rope_head_dim

    if c.q_lora_rank is None:
        q = linear(h, w, p + "q_proj")  # (B, T, d) -> (B, T, H·(d_h+d_r))
    else:
        c_q = linear(h, w, p + "q_a_proj")  # [6] (B, T, d) -> (B, T, d_c')
        c_q = rmsnorm(c_q, w[p + "q_a_layernorm.weight"], LATENT_EPS)
        q = linear(c_q, w, p + "q_b_proj")  # [7, 8] (B, T, d_c') -> (B, T, H·(d_h+d_r))
    q_nope, q_rope = np.split(split_heads(q, H), [d_h], axis=-1)  # (B, H, T, d_h), (B, H, T, d_r)
    q = np.concatenate([q_nope, rope(q_rope, c)], axis=-1)  # [8, 9] (B, H, T, d_h+d_r)

    compressed = linear(h, w, p + "kv_a_proj_with_mqa")  # [1, 3] (B, T, d) -> (B, T, d_c+d_r)
    c_kv, k_rope = np.split(compressed, [d_c], axis=-1)  # (B, T, d_c), (B, T, d_r)
    c_kv = rmsnorm(c_kv, w[p + "kv_a_layernorm.weight"], LATENT_EPS)
    kv = split_heads(linear(c_kv, w, p + "kv_b_proj"), H)  # [2, 5] (B, T, d_c) -> (B, H, T, d_h+d_v)
    k_nope, v = np.split(kv, [d_h], axis=-1)  # (B, H, T, d_h), (B, H, T, d_v)
    k_rope = np.broadcast_to(rope(k_rope[:, None], c), (B, H, T, d_r))  # [3] (B, T, d_r) -> (B, H, T, d_r): all heads share it
    k = np.concatenate([k_nope, k_rope], axis=-1)  # [4] (B, H, T, d_h+d_r)

    scores = q @ k.swapaxes(-1, -2) * softmax_scale(c)  # [10] (B, H, T, d_h+d_r) -> (B, H, T, T)
    scores = np.where(np.tri(T, dtype=bool), scores, -np.inf)  # token t sees tokens 0..t
    o = softmax(scores) @ v  # [10] (B, H, T, T) -> (B, H, T, d_v)
    o = o.swapaxes(1, 2).reshape(B, T, -1)  # (B, H, T, d_v) -> (B, T, H·d_v)
    return linear(o, w, p + "o_proj")  # [11] (B, T, H·d_v) -> (B, T, d)


# Mixture of experts, section 2.1.2.


def route(u: Array, w: Weights, p: str, c: Any) -> tuple[Array, Array]:
    """Chosen experts (N, K) and their gates (N, K) for tokens u (N, d)."""
    N, E, G = len(u), c.n_routed_experts, c.n_group
    logits = linear(u, w, p + "gate")  # (N, d) -> (N, E)
    s = sigmoid(logits) if c.scoring_func == "sigmoid" else softmax(logits)  # [15]
    corrected = c.topk_method == "noaux_tc"
    choice = s + w.get(p + "gate.e_score_correction_bias", 0) if corrected else s  # [16]

    if c.topk_method != "greedy":  # a token may only touch its best groups of experts, in V3 the best 4 of 8 nodes
        groups = choice.reshape(N, G, E // G)  # (N, E) -> (N, G, E/G)
        best = np.sort(groups, axis=-1)[..., -2:].sum(axis=-1) if corrected else groups.max(axis=-1)  # (N, G)
        kept = (top_k(best, c.topk_group)[..., None] == np.arange(G)).any(axis=1)  # (N, G) -> (N, M) -> (N, G)
        choice = np.where(kept[..., None], groups, -np.inf).reshape(N, E)  # not 0: a biased score may be negative

    chosen = top_k(choice, c.num_experts_per_tok)  # (N, E) -> (N, K)
    gates = np.take_along_axis(s, chosen, axis=-1)  # [14, 16] (N, K), unbiased: the bias decides who, not how much
    if c.norm_topk_prob:
        gates = gates / (gates.sum(axis=-1, keepdims=True) + 1e-20)  # [13]
    return chosen, gates * c.routed_scaling_factor


def feed_forward(u: Array, w: Weights, p: str) -> Array:
    return swiglu(u, *(w[f"{p}{name}_proj.weight"] for name in ("gate", "up", "down")))


def moe(h: Array, w: Weights, p: str, c: Any) -> Array:
    """Shared experts + gated routed experts, (B, T, d) -> (B, T, d): [12] without its residual, which the block adds."""
    u = h.reshape(-1, h.shape[-1])  # (B, T, d) -> (N, d)
    y = feed_forward(u, w, p + "shared_experts.") if c.n_shared_experts else np.zeros_like(u)
    chosen, gates = route(u, w, p, c)
    gate, up, down = (w[f"{p}experts.{name}_proj.weight"] for name in ("gate", "up", "down"))
    for e in np.unique(chosen):
        n, k = np.nonzero(chosen == e)  # the tokens that chose expert e, and which of their K choices it was
        y[n] += gates[n, k, None] * swiglu(u[n], gate[e], up[e], down[e])
    return y.reshape(h.shape)  # (N, d) -> (B, T, d)


# The model.


def block(x: Array, w: Weights, layer: int, c: Any) -> Array:
    """One Transformer block, (B, T, d) -> (B, T, d): Figure 2."""
    p, eps = f"model.layers.{layer}.", c.rms_norm_eps
    x = x + mla(rmsnorm(x, w[p + "input_layernorm.weight"], eps), w, p + "self_attn.", c)
    u = rmsnorm(x, w[p + "post_attention_layernorm.weight"], eps)
    return x + (moe(u, w, p + "mlp.", c) if layer >= c.first_k_dense_replace else feed_forward(u, w, p + "mlp."))


def hidden_states(tokens: Array, w: Weights, c: Any) -> Array:
    """What the head and the first MTP module read: the output of the last block, after the final norm."""
    x = w["model.embed_tokens.weight"][tokens]  # (B, T) -> (B, T, d)
    for layer in range(c.num_hidden_layers):
        x = block(x, w, layer, c)
    return rmsnorm(x, w["model.norm.weight"], c.rms_norm_eps)


def head(hidden: Array, w: Weights, c: Any) -> Array:
    return hidden @ w["model.embed_tokens.weight" if c.tie_word_embeddings else "lm_head.weight"].T  # (B, T, d) -> (B, T, V)


def deepseek_v3(tokens: Array, weights: Weights, config: Any) -> Array:
    """Logits of the token after each, (B, T) -> (B, T, V)."""
    return head(hidden_states(tokens, weights, config), weights, config)


def mtp_logits(tokens: Array, hidden: Array, weights: Weights, config: Any, depth: int) -> Array:
    """Multi-token prediction, section 2.2: logits (B, T-depth, V) of token i+depth+1 at position i, for depth >= 1.

    ``hidden`` (B, T, d) is ``hidden_states`` of the same tokens. Module k reads the normalised output of module k-1 at
    position i and the embedding of token i+k: a chain, not parallel heads.
    """
    embedding, eps = weights["model.embed_tokens.weight"], config.rms_norm_eps
    for k, layer in enumerate(range(config.num_hidden_layers, config.num_hidden_layers + depth), start=1):
        p = f"model.layers.{layer}."
        ahead = rmsnorm(embedding[tokens[:, k:]], weights[p + "enorm.weight"], eps)  # (B, T) -> (B, T-k, d)
        so_far = rmsnorm(hidden[:, :-1], weights[p + "hnorm.weight"], eps)  # (B, T-k+1, d) -> (B, T-k, d)
        both = np.concatenate([ahead, so_far], axis=-1)  # (B, T-k, 2d); the paper writes the halves the other way round
        x = block(linear(both, weights, p + "eh_proj"), weights, layer, config)  # [21, 22] (B, T-k, 2d) -> (B, T-k, d)
        hidden = rmsnorm(x, weights[p + "shared_head.norm.weight"], eps)
    return head(hidden, weights, config)  # [23] (B, T-k, d) -> (B, T-k, V)


def generate(tokens: Array, weights: Weights, config: Any, new_tokens: int) -> Array:
    """Append the likeliest token again and again, (B, T) -> (B, T+new_tokens)."""
    for _ in range(new_tokens):
        likeliest = deepseek_v3(tokens, weights, config)[:, -1].argmax(axis=-1)  # (B, T, V) -> (B,)
        tokens = np.concatenate([tokens, likeliest[:, None]], axis=1)  # (B, T) -> (B, T+1)
    return tokens
