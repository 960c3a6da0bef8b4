# %% [markdown]
# # 4. From MHA over MQA and GQA to MLA
#
# To write token 100,001 a model looks back at the keys and values of 100,000 others. **What does it cost to keep them, and how small
# can they be made without making the model worse?**
#
# %% [markdown]
# This notebook walks the road that leads to DeepSeek's latent attention: keep everything (MHA), keep less by sharing (MQA, GQA), keep
# less by compressing (MLA). You will see that every way of sharing is a special case of MLA, what the choice is worth in gigabytes, and what
# it costs in loss, measured.
#
# You need matrix products and the formula of attention, which stands in section 1 once more.
#
# Code used here: [attention](minids/ops/attention.py), the layer [mla](minids/layers/mla.py), and the arithmetic of
# [kv_cache](minids/lab/analysis/kv_cache.py) and [flops](minids/lab/analysis/flops.py); the small models of section 6 are those of the
# [attention study](minids/lab/studies/attention.py). What only prepares, prints or checks is in
# [lessons/attention](minids/lab/lessons/attention.py) and [lessons/printed](minids/lab/lessons/printed.py). Papers: section 2.1
# and Table 1 of the [DeepSeek-V2 report](https://arxiv.org/abs/2405.04434), section 2.1.1 of the
# [V3 report](https://arxiv.org/abs/2412.19437), and Table 1 of ["Insights into DeepSeek-V3"](https://arxiv.org/abs/2505.09343).

# %%
import numpy as np

import minids
from minids import check
from minids.lab import notebook
from minids.lab.analysis import kv_cache
from minids.lab.lessons import attention as lesson
from minids.lab.lessons import printed
from minids.lab.plots import attention as draw
from minids.ops import attention

notebook.set_up()
rng = np.random.default_rng(0)
notebook.here("attention")

# %% [markdown]
# ## 1. Why there is a cache at all
#
# A causal model never looks ahead. So the keys and values of old tokens do not change when a new one arrives: compute them once, keep
# them, and each step only computes the query, key and value of *one* token:
#
# $$ o_t = \sum_{j \le t} \text{softmax}_j\Big(\frac{q_t \cdot k_j}{\sqrt{d_h}}\Big)\, v_j . $$
#
# Notebooks 1 to 9 share a small trained DeepSeek-V3 ([how it was trained](notebooks/model/README.md)) and one sentence. Here are the
# queries, keys and values that its second block makes of the sentence:

# %%
model = notebook.model(np.float64)
tokens, pieces = notebook.read(model)
q, k, v, scale = lesson.queries_keys_values(model, tokens, block=1)
B, T, H, d_v = v.shape
notebook.shapes({"T": T, "H": H, "d_v": d_v, "d_h + d_r": q.shape[-1]}, q=q, k=k, v=v)

# %% [markdown]
# **Write your guess; then run.** To which earlier tokens does the full stop at the end give most of its weight: to the first, to those just before it, or to
# all alike?

# %%
at_once, saved = attention.forward(q, k, v, scale)
draw.looked_at(pieces, saved.probs[0, :, 0], query=-1)

# %% [markdown]
# **What to notice.** Three of the four heads look mostly at the last few tokens, each at others; head 0 spreads its weight over the whole sentence. A head
# needs key and value of every token it looks at. Now the same one token at a time, as in writing:

# %%
one_by_one = np.empty_like(at_once)
for t in range(T):  # one query, and the cache so far
    now, so_far = slice(t, t + 1), slice(t + 1)
    one_by_one[:, now], _ = attention.forward(q[:, now], k[:, so_far], v[:, so_far], scale)
print("largest difference:", f"{np.abs(at_once - one_by_one).max():.0e}")

# %% [markdown]
# The same numbers, and a new token costs one query instead of $T$. The price is memory. With $n_h$ heads of size $d_h$ it is $2\,n_h d_h$
# numbers per token and layer: 32,768 at the sizes of DeepSeek-V3, which has 128 heads of 128, 61 layers, and keeps each number in two bytes.
#
# **Write your guess; then run.** An H800 has 80 GB (a GB is $10^9$ bytes). How many of them hold one conversation of 100,000 tokens?

# %%
v3 = minids.ModelConfig.preset("deepseek-v3")
per_layer = kv_cache.mha_elements(v3)
per_token = v3.num_hidden_layers * per_layer * 2
print(f"{per_layer:,} numbers per token and layer; {per_token / 1e6:.1f} MB per token")
print(f"one conversation of 100,000 tokens: {1e5 * per_token / 1e9:.0f} GB")

# %% [markdown]
# Five accelerators to remember one conversation. Worse, all of it must be *read* for every single new token. There are three ideas to keep
# less. What each of them keeps is hatched; the numbers are for V3's sizes:

# %%
notebook.slide("attention_family", height=4.4)

# %% [markdown]
# ## 2. Sharing: MQA and GQA
#
# Let several query heads read the same key-value head. With $n_g$ groups the cache shrinks by $n_h/n_g$: one group is multi-query attention
# ([Shazeer 2019](https://arxiv.org/abs/1911.02150)), eight are what Llama uses ([Ainslie et al. 2023](https://arxiv.org/abs/2305.13245)).
# The operation is the same; keys and values only have fewer heads, and query head $h$ reads head $\lfloor h\, n_g / n_h \rfloor$:

# %%
for name, groups in {"MHA": 4, "GQA": 2, "MQA": 1}.items():
    shared_k, shared_v = k[:, :, :groups], v[:, :, :groups]
    o, _ = attention.forward(q, shared_k, shared_v, scale)
    kept = shared_k[0, 0].size + shared_v[0, 0].size
    print(f"{name}: {groups} key-value heads, cached {kept:>3} per token and layer, o {o.shape}")

# %% [markdown]
# ### Exercise 1: groups by hand
#
# `attention.forward` shares heads by itself. Do it by hand: give every query head its own copy of the key head that it reads. With four heads and two
# groups, query heads 0 and 1 get the keys of group 0, and 2 and 3 those of group 1. Which of `np.repeat` and `np.tile` is it?


# %% tags=["solution"]
def copies(shared, heads):
    """Keys or values of the groups (B, T, n_g, d_h) → a copy for every query head (B, T, heads, d_h)."""
    return np.repeat(shared, heads // shared.shape[2], axis=2)


# %% tags=["check"]
check.ok(lesson.check_copies(copies))

# %% [markdown]
# The other one gives the right shape. The check asks for two groups, for one, and for as many as heads. Only with two it is wrong, at
# the heads that got the keys of another group:


# %%
def tiled(shared, heads):
    return np.tile(shared, (1, 1, heads // shared.shape[2], 1))


notebook.caught(lesson.check_copies(tiled))

# %% [markdown]
# ### Exercise 2: the gradient of something shared
#
# What several heads read receives the sum of their gradients. Of the copies of exercise 1, `attention.backward` gives `dk` and `dv` of shape
# (B, T, H, d_h), one for each copy. Bring them back to the $n_g$ heads that exist. (MLA needs the same sum, for the one rotary key of all heads.)


# %% tags=["solution"]
def back_to_groups(d_copies, groups):
    """Gradients of the copies (B, T, H, d_h) → gradients of the key-value heads (B, T, n_g, d_h)."""
    batch, time, heads, size = d_copies.shape
    return d_copies.reshape(batch, time, groups, heads // groups, size).sum(axis=3)


# %% tags=["check"]
check.ok(lesson.check_back_to_groups(back_to_groups))

# %% [markdown]
# ## 3. What sharing costs
#
# It is not free. DeepSeek trained the same 7B dense model three times ([V2 report](https://arxiv.org/abs/2405.04434), Table 8):
#
# | benchmark | MQA | GQA, 8 groups | MHA |
# |---|---|---|---|
# | BBH | 33.2 | 35.6 | **37.0** |
# | MMLU | 37.9 | 41.2 | **45.2** |
# | C-Eval | 30.0 | 37.7 | **42.9** |
# | CMMLU | 34.6 | 38.4 | **43.5** |
#
# These are DeepSeek's measurements; ours come in section 6. The fewer heads have keys of their own, the lower the score. Is there a way to keep
# every head *different* and still cache little?
#
# ## 4. Compressing: MLA
#
# The keys and values of all heads at one token are $2 n_h d_h$ numbers, but all of them are linear functions of the same hidden state $h_t$.
# Instead of caching the results, cache a compressed $h_t$ from which they can be made again (equations 1, 2 and 5):
#
# $$ c_t = W^{DKV} h_t \in \mathbb{R}^{d_c}, \qquad k_{t,i} = W^{UK}_i c_t, \qquad v_{t,i} = W^{UV}_i c_t . $$
#
# Every head $i$ has matrices of its own, so every head sees something else. The one limit is that all keys and values of a token are made of the same
# $d_c$ numbers. Is that worse than sharing? No, because **any GQA is an MLA**: let the latent hold the keys and values of the $n_g$
# groups side by side, $d_c = 2 n_g d_h$, and let $W^{UK}_i$ merely *copy* the part of its group. Here it is done, with a GQA of random weights:

# %%
d, d_h, groups = 20, 6, 2
scale, d_c = d_h**-0.5, 2 * groups * d_h
hidden = rng.standard_normal((B, T, d))
w_q = rng.standard_normal((H, d_h, d))
w_k, w_v = rng.standard_normal((2, groups, d_h, d))  # a GQA's weights


def project(x, weights):
    """x (B, T, d), weights (heads, d_h, d) → (B, T, heads, d_h)."""
    return np.einsum("btd,hed->bthe", x, weights)


gqa, _ = attention.forward(project(hidden, w_q), project(hidden, w_k), project(hidden, w_v), scale)

# The same as an MLA: compress with all the GQA's matrices stacked, expand by copying.
w_down = np.concatenate([w_k.reshape(-1, d), w_v.reshape(-1, d)])  # (d_c, d)  W^DKV
copy = np.eye(d_c).reshape(2, groups, d_h, d_c)
w_uk, w_uv = np.repeat(copy[0], H // groups, axis=0), np.repeat(copy[1], H // groups, axis=0)

latent = hidden @ w_down.T  # (B, T, d_c): what is cached
k_mla, v_mla = project(latent, w_uk), project(latent, w_uv)
as_mla, _ = attention.forward(project(hidden, w_q), k_mla, v_mla, scale)

letters = {"T": T, "H": H, "d_h": d_h, "d_c": d_c}
notebook.shapes(letters, latent=latent, w_uk=w_uk, gqa=gqa, as_mla=as_mla)
print(f"\nlargest difference: {np.abs(gqa - as_mla).max():.0e}")
print("cached per token: GQA", 2 * groups * d_h, "numbers, MLA", d_c)

# %% [markdown]
# **What to notice.** With the same cache an MLA can do everything that a GQA can. And it can do more: GQA's up-matrices are fixed copies, those of
# MLA are trained. (Left out here: positions and the norm on the latent. [Notebook 5](notebooks/05_mla_inside.ipynb) has both.)
#
# ## 5. What the cache costs
#
# Positions need $d_r = 64$ more numbers per token, for the rotary key that all heads share. So, per token and layer (V2 report, Table 1):
#
# | | numbers cached | V3's sizes |
# |---|---|---|
# | MHA | $2\, n_h d_h$ | 32,768 |
# | GQA | $2\, n_g d_h$ | 256 a group |
# | MQA | $2\, d_h$ | 256 |
# | MLA | $d_c + d_r$ | 512 + 64 = 576 |
#
# MHA's 32,768 is the baseline of all notebooks: 128 heads with a key of 128 and a value of 128, as V2's table counts. You may meet
# 40,960 as well. That is 128 · (192 + 128), the keys and values of MLA's own heads once they are *expanded*: each key then carries the 64 rotated
# numbers too. MLA keeps 57 times less than the first, 71 times less than the second.
#
# ### Exercise 3: the table as a function
#
# Write the formulas of the table as a function. The check asks for three different models.


# %% tags=["solution"]
def cached(kind, n_h, d_h, n_g, d_c, d_r):
    """Numbers per token and layer for kind "mha", "gqa", "mqa" or "mla"."""
    return {"mha": 2 * n_h * d_h, "gqa": 2 * n_g * d_h, "mqa": 2 * d_h, "mla": d_c + d_r}[kind]


# %% tags=["check"]
check.ok(lesson.check_cached(cached))

# %% [markdown]
# Two mistakes to try: count keys and forget values, or give every head of MLA a rotary key of its own. Both are caught:


# %%
def without_values(kind, n_h, d_h, n_g, d_c, d_r):
    return cached(kind, n_h, d_h, n_g, d_c, d_r) // (1 if kind == "mla" else 2)  # half of yours


def rotary_key_per_head(kind, n_h, d_h, n_g, d_c, d_r):
    more = (n_h - 1) * d_r if kind == "mla" else 0
    return cached(kind, n_h, d_h, n_g, d_c, d_r) + more


for wrong in (without_values, rotary_key_per_head):
    notebook.caught(lesson.check_cached(wrong))

# %% [markdown]
# ## 6. How small, and how good
#
# Both halves of the question in one picture. Above, cards of 80 GB fill as a conversation grows, at V3's sizes. Below, the loss of four small
# models that differ in their attention alone and have nearly the same number of parameters: five seeds each, the same text in the same order
# ([the study](minids/lab/studies/attention.py), `minids study attention`).
#
# **Write your guess; then run.** MLA caches the fewest numbers of the four small models. Which of MHA, GQA and MQA comes closest to it in loss?

# %%
draw.conversation()
notebook.explore(draw.conversation, **draw.CONVERSATION)

# %% [markdown]
# **What to notice.** Above, MHA needs five cards, MLA less than a tenth of one. Below, the loss grows from MHA to GQA to MQA as fewer heads are
# cached. MLA caches even less than MQA, and its loss is the closest to MHA's: 2.063 against 2.024.
#
# (With a running kernel, drag `tokens`: that is the conversation being written. Then change the number of heads: only MHA's cards move. With which
# latent does MLA cache as much as GQA with 4 groups?)
#
# Are these differences more than chance? The study compares the same seeds and gives the 95 % interval of each difference. An interval that holds 0
# decides nothing:

# %%
printed.findings("attention")

# %% [markdown]
# Five seeds do not decide between MLA and MHA. Fifteen do: at this small size MLA is worse by 0.057 nats, [0.008, 0.106]
# ([findings](docs/findings.md)). For models of V2's size DeepSeek measured the opposite (V2 report, Table 9):
#
# | 250B parameters with 25B or 21B active | BBH | MMLU | C-Eval | CMMLU | numbers cached per token |
# |---|---|---|---|---|---|
# | MHA | 46.6 | 57.5 | 57.9 | 60.7 | 860,200 |
# | MLA | **50.7** | **59.0** | **59.2** | **62.5** | 34,600 |
#
# And this is what models that people use keep for each token, in all layers:

# %%
notebook.slide("kv_cache_per_token", height=4.6)

# %% [markdown]
# ## 7. Claims checked, one that needs a footnote, and one that is wrong
#
# Each claim with the number that the paper prints, the number that comes out here, and how. On the right stands "rounded" where the computed
# number rounds to the printed one, "differs" where it does not:

# %%
printed.claims("gqa_groups", "v3_cache_bytes", "qwen_multiplier")
printed.claims("llama_multiplier", "v2_cache_reduction")

# %% [markdown]
# **What to notice.** 7.28 should read 7.34: a slip in a table. The famous 93.3 % compares two models *as deployed*: the old one is DeepSeek
# 67B, with GQA and 16 bits; the cache of the new one has 6 bits a number on average (V2 report, section 3.2.3). So the number
# does not compare MLA with MHA, and without the 6 bits it is 82.2 %. (The sizes of DeepSeek 67B are from memory, not read in the report.)
#
# ## 8. It is also about arithmetic per byte
#
# A decoding step must *read* the whole cache. An H800 can do about 295 FLOPs in the time it reads one byte (989 TFLOP/s over 3.35 TB/s).
#
# **Write your guess; then run.** How many FLOPs does attention do with each byte of the cache: with MHA, and with MLA?

# %%
draw.intensity(lesson.flops_per_cached_byte(v3), machine=295)

# %% [markdown]
# **What to notice.** With MHA the machine waits: one FLOP for each byte that it reads. With MLA, in the form that [notebook 5](notebooks/05_mla_inside.ipynb) derives, all 128 heads
# work on the same 576 numbers: 242 FLOPs a byte, close to the 295 that the machine can do. So the cache is smaller, and more is computed with every byte of it.
#
# ### Exercise 4: decode with a cache
#
# Finish the loop of a decoder with GQA. At step $t$ it gets one hidden state, appends its key and value to the lists, and returns the output
# for that token.


# %% tags=["solution"]
def step(x, cache_k, cache_v):
    """x (B, 1, d): one new token. Appends to the two lists and returns o (B, 1, H, d_h)."""
    # project(x, w_k) gives the new key (B, 1, n_g, d_h); np.concatenate(cache, axis=1) all of them.
    cache_k.append(project(x, w_k))
    cache_v.append(project(x, w_v))
    keys, values = np.concatenate(cache_k, axis=1), np.concatenate(cache_v, axis=1)
    o, _ = attention.forward(project(x, w_q), keys, values, scale)
    return o


# %% tags=["check"]
check.ok(lesson.check_step(step, hidden, w_q, w_k, w_v))

# %% [markdown]
# ## Where to go from here
#
# - [Notebook 5](notebooks/05_mla_inside.ipynb): MLA with all its parts, and why the latent need not be expanded when decoding.
# - [minids/inference/cache.py](minids/inference/cache.py): the two caches of this package; `minids generate --cache full` against
#   `--cache latent` measures them.
# - `minids info --preset deepseek-v3`: the sizes, parameters and cache of V3, each with its formula.

# %% tags=["picture"]
notebook.card(
    """
    - A causal model keeps keys and values of all earlier tokens. MHA keeps one of each per head.
    - GQA and MQA let heads share them, which costs quality. MLA keeps one latent, from which each
      head makes its own.
    - Any GQA is an MLA whose up-projection is a frozen copy.
    """,
    "57 times less",
    "576 numbers a token and layer in the place of MHA's 32,768",
    {"MHA": 32768, "GQA, 8": 2048, "MLA": 576},
)
