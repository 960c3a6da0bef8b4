# %% [markdown]
# # 5. MLA inside
#
# Latent attention caches 576 numbers where its keys and values are 40,960. How can it attend without ever making the 40,960 again?
#
# %% [markdown]
# Section 2.1.1 of the [report](https://arxiv.org/abs/2412.19437), equations 1 to 11, on arrays small enough to print. Used here:
# [the layer](minids/layers/mla.py), [attention](minids/ops/attention.py), [rmsnorm](minids/ops/rmsnorm.py),
# [rope](minids/ops/rope.py), [yarn](minids/ops/yarn.py), and the counts of [flops](minids/analysis/flops.py).

# %%
import numpy as np

import minids
from minids import check, notebook
from minids.analysis import flops
from minids.ops import attention, rmsnorm, rope, yarn

notebook.set_up()
rng = np.random.default_rng(0)

# %% [markdown]
# ## Two latents and one shared key
#
# $$ c^Q = W^{DQ} h, \qquad c^{KV} = W^{DKV} h, \qquad k^R = \text{RoPE}(W^{KR} h) $$
# $$ [q^C_i ; q^R_i] = W^{UQ}_i\, \text{norm}(c^Q), \qquad k_i = [W^{UK}_i\, \text{norm}(c^{KV}) ; k^R], \qquad v_i = W^{UV}_i\, \text{norm}(c^{KV}) $$
#
# The query latent saves memory in training only. Of keys and values, the normalised $c^{KV}$ and the turned $k^R$ are cached, and
# $k^R$ is *one* for all heads.

# %%
B, T, H, d, d_c, d_q, d_h, d_r = 1, 7, 3, 16, 10, 14, 8, 4
letters = {
    "T": T,
    "H": H,
    "d": d,
    "d_c": d_c,
    "d_c'": d_q,
    "d_h": d_h,
    "d_r": d_r,
    "d_h+d_r": d_h + d_r,
}
h = rng.standard_normal((B, T, d))
w_dq, w_dkv, w_kr = (rng.standard_normal((n, d)) / 4 for n in (d_q, d_c, d_r))
w_uq = rng.standard_normal((H, d_h + d_r, d_q)) / 3
w_uk, w_uv = rng.standard_normal((2, H, d_h, d_c)) / 3
angles = yarn.rotation_table(yarn.plain_frequencies(d_r, 10000.0), np.arange(T))
scale = (d_h + d_r) ** -0.5


def heads(c, weights):
    """c (B, T, n), weights (H, m, n) → (B, T, H, m)."""
    return np.einsum("btn,hmn->bthm", c, weights)


c_q, _ = rmsnorm.forward(h @ w_dq.T, np.ones(d_q))
c_kv, _ = rmsnorm.forward(h @ w_dkv.T, np.ones(d_c))
k_rope, _ = rope.forward((h @ w_kr.T)[:, :, None], *angles)  # one head
q = heads(c_q, w_uq)
q_nope, q_rope = q[..., :d_h], rope.forward(q[..., d_h:], *angles)[0]
q = np.concatenate([q_nope, q_rope], axis=-1)
k = np.concatenate([heads(c_kv, w_uk), np.broadcast_to(k_rope, (B, T, H, d_r))], axis=-1)
v = heads(c_kv, w_uv)
o, _ = attention.forward(q, k, v, scale)
notebook.shapes(letters, c_q=c_q, c_kv=c_kv, k_rope=k_rope, q=q, k=k, v=v, o=o)
print(
    "\ncached per token:",
    d_c + d_r,
    "numbers; keys and values would be",
    k[0, 0].size + v[0, 0].size,
)

# %% [markdown]
# ## Exercise 1: the gradient of a shared key
#
# Every head reads the same $k^R$. Given the gradients of all heads' keys, what is the gradient of $k^R$?


# %% tags=["solution"]
def shared_key_backward(dk, saved):
    """dk (B, T, H, d_h + d_r) → d_content (B, T, H, d_h), d_k_rope (B, T, 1, d_r)."""
    return dk[..., :d_h], dk[..., d_h:].sum(axis=2, keepdims=True)


# %% tags=["check"]
def keys(content, k_rope):
    return np.concatenate([content, np.broadcast_to(k_rope, (*content.shape[:3], d_r))], axis=-1)


parts = {"content": heads(c_kv, w_uk), "k_rope": k_rope}
check.ok(check.gradient(keys, shared_key_backward, parts, hints={"n_heads": H}))


# %%
def mean_over_heads(dk, saved):
    return dk[..., :d_h], dk[..., d_h:].mean(axis=2, keepdims=True)


notebook.caught(check.gradient(keys, mean_over_heads, parts, hints={"n_heads": H}))

# %% [markdown]
# ## Absorption
#
# $$ q^C_i \cdot (W^{UK}_i c_j) = \big(W^{UK\top}_i q^C_i\big) \cdot c_j, \qquad
# \sum_j p_j\, W^{UV}_i c_j = W^{UV}_i \sum_j p_j c_j . $$
#
# Move $W^{UK}$ into the query and $W^{UV}$ behind the sum: then every head reads the *same* $[c ; k^R]$ as its key and $c$ as its value.
# It is multi-query attention over the cache itself.
#
# ## Exercise 2: absorb the key matrix


# %% tags=["solution"]
def absorbed_queries(q_nope, w_uk):
    """q_nope (B, T, H, d_h), w_uk (H, d_h, d_c) → (B, T, H, d_c)."""
    return np.einsum("bthm,hmc->bthc", q_nope, w_uk)


# %% tags=["check"]
right = np.stack([q_nope[:, :, i] @ w_uk[i] for i in range(H)], axis=2)
check.ok(check.close(absorbed_queries(q_nope, w_uk), right, name="queries"))

# %% [markdown]
# ## Exercise 3: the value matrix, after the sum


# %% tags=["solution"]
def values_after(mixed, w_uv):
    """mixed latents (B, T, H, d_c), w_uv (H, d_h, d_c) → o (B, T, H, d_h)."""
    return np.einsum("bthc,hmc->bthm", mixed, w_uv)


# %% tags=["check"]
latents = np.concatenate([c_kv[:, :, None], k_rope], axis=-1)  # (B, T, 1, d_c + d_r): the cache
mixed, _ = attention.forward(
    np.concatenate([right, q_rope], axis=-1), latents, c_kv[:, :, None], scale
)
check.ok(check.close(values_after(mixed, w_uv), o, name="output"))

# %% [markdown]
# The output is that of the expanded form: absorption is exact, not an approximation.
#
# ## A claim checked: when does it pay?
#
# Per pair of tokens absorbed attention does *more* arithmetic (heads of 576 instead of 192), but it expands no old latent. With V3's sizes:

# %%
v3 = minids.ModelConfig.preset("deepseek-v3")
contexts = np.array([1024, 4096, 16384, 65536])
work = {
    m: np.array([flops.decode(v3, int(c), m).flops for c in contexts])
    for m in ("absorbed", "re-expand")
}
for c, one, two in zip(contexts, *work.values(), strict=True):
    print(
        f"{c:>6} tokens: absorbed {one / 1e9:>7.0f} GFLOP a token, re-expanding {two / 1e9:>8.0f}"
    )
print(
    f"absorbing pays below {flops.absorption_pays_until(v3):.0f} new tokens at once: decoding, not prefill"
)

# %% tags=["picture"]
figure, axes = notebook.picture(height=3.2)
for mode, colour in (("absorbed", "C0"), ("re-expand", "C1")):
    axes.loglog(contexts, work[mode] / 1e9, "o-", color=colour, label=mode)
axes.set(xlabel="tokens of context", ylabel="GFLOP per new token")
axes.set_title("One decoding step of V3 from the latent cache")
axes.legend()
notebook.show(
    figure, "Work of one decoding step by context: absorbing stays far below re-expanding."
)

# %% [markdown]
# **What to notice.** Re-expanding grows steeply with the context, because every old key and value is made anew. DeepSeek's own code
# therefore expands for training and prefill, and absorbs for decoding; so does [decode.py](minids/inference/decode.py) here.
