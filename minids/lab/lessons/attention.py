"""Notebook 4: queries, keys and values of the trained model, work per cached byte, and the checks of its exercises."""

from collections.abc import Callable

import numpy as np

from minids import check
from minids.check import Report
from minids.config import ModelConfig
from minids.lab.analysis import flops, kv_cache
from minids.lab.figures.trained import through
from minids.model import DeepSeekV3
from minids.ops import attention

Array = np.ndarray

_B, _T, _H, _D_H = 2, 5, 4, 6
_KEYS, _VALUES, _QUERIES = np.random.default_rng(7).standard_normal((3, _B, _T, _H, _D_H))


def queries_keys_values(model: DeepSeekV3, tokens: Array, block: int) -> tuple[Array, Array, Array, float]:
    """What the attention of a block makes of tokens (B, T): q and k (B, T, H, d_h + d_r), v (B, T, H, d_v), and its scale."""
    at = list(through(model, tokens))[block]
    mla = at.block.attention
    q, _ = mla.queries(at.normed, at.rotary)
    c_kv, k_rope, _ = mla.latent(at.normed, at.rotary)
    k, v, _ = mla.keys_values(c_kv, k_rope)
    return q, k, v, mla.scale


def flops_per_cached_byte(config: ModelConfig) -> dict[str, float]:
    """What attention computes with each byte that it reads of the cache, for the four kinds of attention at these sizes."""
    kinds = {
        "MHA": {"attention": "mha"},
        "GQA, 8 groups": {"attention": "gqa", "num_key_value_heads": 8},
        "MQA": {"attention": "mqa"},
        "MLA": {},
    }
    return {name: flops.attention_intensity(config.replace(**how)) for name, how in kinds.items()}


# Exercise 1.


def check_copies(copies: Callable) -> Report:
    """Keys of 2, 1 and 4 groups, copied for 4 query heads."""
    return check.against(one_head_after_the_other, copies, [(_KEYS[:, :, :groups], _H) for groups in (2, 1, _H)])


def one_head_after_the_other(shared: Array, heads: int) -> Array:
    """(B, T, n_g, d_h) → (B, T, heads, d_h), each head from the group it belongs to."""
    each = heads // shared.shape[2]
    return np.stack([shared[:, :, h // each] for h in range(heads)], axis=2)


# Exercise 2.


def check_back_to_groups(back_to_groups: Callable) -> Report:
    """The gradient of grouped attention, made of that of attention with a copy for every head."""

    def by_copies(q, k, v):
        each_own = (one_head_after_the_other(x, q.shape[2]) for x in (k, v))
        o, saved = attention.forward(q, *each_own, _D_H**-0.5)
        return o, (saved, k.shape[2])

    def by_copies_backward(do, saved):
        saved_attention, groups = saved
        dq, dk, dv = attention.backward(do, saved_attention)
        return dq, back_to_groups(dk, groups), back_to_groups(dv, groups)

    inputs = {"q": _QUERIES, "k": _KEYS[:, :, :2], "v": _VALUES[:, :, :2]}
    return check.gradient(by_copies, by_copies_backward, inputs, hints={"n_heads": _H})


# Exercise 3.


def check_cached(cached: Callable) -> Report:
    """Four kinds of attention at the sizes of three models."""
    v3, moonlight = ModelConfig.preset("deepseek-v3"), ModelConfig.preset("moonlight-16b-a3b")
    other = dict(kv_lora_rank=384, qk_rope_head_dim=32, v_head_dim=96, qk_nope_head_dim=96)
    asked = {c.num_attention_heads: c for c in (v3, moonlight, v3.replace(num_attention_heads=32, **other))}

    def right_cached(kind, n_h, d_h, n_g, d_c, d_r):
        return kv_cache.by_kind(asked[n_h])[kind]

    questions = [
        (kind, n_h, c.v_head_dim, kv_cache.GQA_GROUPS, c.kv_lora_rank, c.qk_rope_head_dim)
        for n_h, c in asked.items()
        for kind in kv_cache.KINDS
    ]
    return check.against(right_cached, cached, questions)


# Exercise 4.


def check_step(step: Callable, hidden: Array, w_q: Array, w_k: Array, w_v: Array) -> Report:
    """Hidden states (B, T, d) one at a time through ``step``, beside all at once; weights (heads, d_h, d)."""

    def decoded(x):
        cache_k, cache_v = [], []
        return np.concatenate([step(x[:, t : t + 1], cache_k, cache_v) for t in range(x.shape[1])], axis=1)

    def together(x):
        q, k, v = (np.einsum("btd,hed->bthe", x, w) for w in (w_q, w_k, w_v))
        return attention.forward(q, k, v, w_q.shape[1] ** -0.5)[0]

    return check.against(together, decoded, hidden)
