"""Notebook 5: the checks of its exercises, the names of its sizes, and how much the rotary part of a score decides."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from unittest import mock

import numpy as np

from minids import check
from minids.check import Finding, Report
from minids.config import ModelConfig
from minids.lab.figures.trained import through
from minids.model import DeepSeekV3
from minids.ops import attention

Array = np.ndarray


def letters(config: ModelConfig, tokens: int) -> dict[str, int]:
    """The letters of section 1 with their sizes; a size that has two names in this model gets both."""
    c = config
    heads, content, rope, value = c.num_attention_heads, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim
    return {
        "T": tokens, "H": heads, "d=H·d_v": c.hidden_size, "d_c": c.kv_lora_rank, "d_c'=d_c+d_r": c.q_lora_rank or 0,
        "d_h=d_v": content, "d_r": rope, "d_h+d_r": content + rope,
        "H(d_h+d_r)": heads * (content + rope), "H(d_h+d_v)": heads * (content + value),
    }  # fmt: skip


# Exercises 1 to 3, and the moved bracket.


def check_shared_key_backward(shared_key_backward: Callable, content: Array, k_rope: Array) -> Report:
    """Gradients of the content parts (B, T, H, d_h) and of the one rotary key (B, T, 1, d_r): central differences."""
    parts = {"content": content[:, :5], "k_rope": k_rope[:, :5]}
    return check.gradient(keys, shared_key_backward, parts, hints={"n_heads": content.shape[2]})


def keys(content: Array, k_rope: Array) -> Array:
    """Equation 4: every head's content with its copy of the rotary key."""
    return np.concatenate([content, np.broadcast_to(k_rope, (*content.shape[:3], k_rope.shape[-1]))], axis=-1)


def check_absorbed_queries(absorbed_queries: Callable, q_content: Array, w_uk: Array) -> Report:
    """Queries that meet the latents, beside one product a head."""
    return check.against(head_by_head, absorbed_queries, q_content, w_uk)


def head_by_head(q_content: Array, w_uk: Array) -> Array:
    """q_content (B, T, H, d_h), w_uk (H, d_h, d_c) → (B, T, H, d_c)."""
    return np.stack([q_content[:, :, i] @ w_uk[i] for i in range(len(w_uk))], axis=2)


def check_values_after(values_after: Callable, mixed: Array, w_uv: Array, o: Array) -> Report:
    """Outputs made from weighted sums of latents, beside ``o``, made from expanded values."""
    return check.against(_expanded(o), values_after, mixed, w_uv)


def check_absorbed(form: Callable, o: Array, *arguments) -> Report:
    """Attention without keys and values, form(*arguments), beside ``o``, made from expanded ones."""
    return check.against(_expanded(o), form, *arguments)


def _expanded(o: Array) -> Callable:
    def expanded(*_):
        return o

    return expanded


# Exercises 4 and 5.


def check_break_even(break_even: Callable) -> Report:
    """The head size at which the product of two factors has as many entries as they have, for three pairs of sizes."""

    def by_search(d_c, d_q):
        sizes = np.arange(1, 2 * d_c, 0.5)
        return sizes[np.argmin(np.abs(d_c * d_q - sizes * (d_c + d_q)))]

    return check.against(by_search, break_even, [(512, 1536), (20, 30), (10, 30)])


def check_step(step: Callable, h: Array, o: Array) -> Report:
    """One token after the other, each from the cache of the earlier ones, beside all at once; and no key for every head."""
    heads, forward = set(), attention.forward

    def watched(q, k, *others, **keywords):
        heads.add(k.shape[2])
        return forward(q, k, *others, **keywords)

    def all_at_once(h):
        return o

    def decoded(h):
        cache: list[Array] = []
        return np.concatenate([step(h[:, t : t + 1], t, cache) for t in range(h.shape[1])], axis=1)

    decoded.__name__ = step.__name__
    with mock.patch.object(attention, "forward", watched):
        report = check.against(all_at_once, decoded, h)
    if report and heads - {1}:
        text = f"gives the right numbers, but attends with keys of {max(heads)} heads, made from the cache."
        return replace(report, findings=(Finding(step.__name__, text, "the absorbed form has one key for all heads."),))
    return report


# Section 10.


def rotary_shares(model: DeepSeekV3, tokens: Array) -> Array:
    """Of the variance of the scores of every head: the share of q_rope · k_rope beside q_content · k_content. (blocks, H)

    Over all pairs of a query and a key that it may see.
    """
    content = model.config.qk_nope_head_dim
    causal = np.tril(np.ones((tokens.shape[1],) * 2, bool))
    shares = np.empty((model.config.num_hidden_layers, model.config.num_attention_heads))
    for at in through(model, tokens):
        q, *_ = at.block.attention.queries(at.normed, at.rotary)
        k, *_ = at.block.attention.keys_values(*at.block.attention.latent(at.normed, at.rotary)[:2])
        for i in range(shares.shape[1]):
            parts: Mapping[str, slice] = {"content": slice(content), "position": slice(content, None)}
            spread = {name: (q[0, :, i, part] @ k[0, :, i, part].T)[causal].var() for name, part in parts.items()}
            shares[at.index, i] = spread["position"] / (spread["position"] + spread["content"])
    return shares
