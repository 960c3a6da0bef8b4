# %% [markdown]
# # 4. From MHA over MQA and GQA to MLA
#
# To write token 100,001 a model looks back at the keys and values of 100,000 others. **What does it cost to keep them, and how small
# can they be made without making the model worse?**
#
# %% [markdown]
# This notebook walks the road that leads to DeepSeek's latent attention: keep everything (MHA), keep less by sharing (MQA, GQA), keep
# less by compressing (MLA). You will see that MLA *contains* the sharing schemes, what the choice is worth in gigabytes, and what it costs in
# loss, measured.
#
# Code used here: [attention](minids/ops/attention.py), the layer [mla](minids/layers/mla.py), the walk through a model's
# blocks, [through](minids/lab/figures/trained.py), and the arithmetic of [kv_cache](minids/lab/analysis/kv_cache.py),
# [flops](minids/lab/analysis/flops.py) and [models](minids/lab/analysis/models.py); the small models of section 6 are those of the
# [attention study](minids/lab/studies/attention.py). Papers: section 2.1
# and Table 1 of the [DeepSeek-V2 report](https://arxiv.org/abs/2405.04434), section 2.1.1 of the
# [V3 report](https://arxiv.org/abs/2412.19437), and Table 1 of ["Insights into DeepSeek-V3"](https://arxiv.org/abs/2505.09343).

# %%
import numpy as np

import minids
from minids import check
from minids.lab import notebook
from minids.lab.analysis import flops, kv_cache, models
from minids.lab.figures.trained import through
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
# Notebooks 1 to 9 share a small DeepSeek-V3 that was trained ([how](notebooks/model/README.md)) and one sentence. Here are the queries, keys and values that
# its second block makes of the sentence:

# %%
model = notebook.model(np.float64)
tokens, pieces = notebook.read(model)
at = list(through(model, tokens))[1]  # the second block, and what goes into it

mla = at.block.attention
q, *_ = mla.queries(at.normed, at.rotary)
k, v, _ = mla.keys_values(*mla.latent(at.normed, at.rotary)[:2])
scale = mla.scale
B, T, H, d_h = k.shape
letters = {"T": T, "H": H, "d_h + d_r": d_h, "d_v": v.shape[-1]}
notebook.shapes(letters, q=q, k=k, v=v)

# %% [markdown]
# **Write your guess; then run.** To which earlier tokens does the full stop at the end give most of its weight: to the first, to those just before it, or to
# all alike?

# %%
at_once, saved = attention.forward(q, k, v, scale)
draw.looked_at(pieces, saved.probs[0, :, 0], query=-1)

# %% [markdown]
# **What to notice.** Each of the four heads looks at something else, mostly at the last few tokens, `value` among them, and needs key and value of every
# token it looks at. Now the same one token at a time, as in writing:

# %%
one_by_one = np.empty_like(at_once)
for t in range(T):  # one query, and the cache so far
    now, so_far = slice(t, t + 1), slice(t + 1)
    one_by_one[:, now], _ = attention.forward(q[:, now], k[:, so_far], v[:, so_far], scale)
print("largest difference:", f"{np.abs(at_once - one_by_one).max():.0e}")

# %% [markdown]
# The same numbers, with a $T$-th of the work per token. The price is memory: $2\,n_h d_h$ numbers per token and layer, 32,768 at the
# sizes of DeepSeek-V3, which has 128 heads of 128, 61 layers, and keeps each number in two bytes.
#
# **Write your guess; then run.** An H800 has 80 GB (a GB is $10^9$ bytes). How many of them hold one conversation of 100,000 tokens?

# %%
v3 = minids.ModelConfig.preset("deepseek-v3")
per_layer = kv_cache.mha_elements(v3)
per_token = v3.num_hidden_layers * per_layer * 2
print(f"{per_layer:,} numbers per token and layer; {per_token / 1e6:.1f} MB per token")
print(f"one conversation of 100,000 tokens: {1e5 * per_token / 1e9:.0f} GB")

# %% [markdown]
# Five accelerators to remember one conversation. Worse, all of it must be *read* for every single new token. The next three ideas keep
# less. Hatched is what each of them keeps:

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
# `attention.forward` shares heads by itself. Do it by hand: give every query head its own copy of the key head that it reads, so that query head 0 and
# 1 get group 0's, and 2 and 3 group 1's. Which of `np.repeat` and `np.tile` is it?


# %% tags=["solution"]
def copies(shared, heads):
    """Keys or values of the groups (B, T, n_g, d_h) → a copy for every query head (B, T, heads, d_h)."""
    return np.repeat(shared, heads // shared.shape[2], axis=2)


# %% tags=["check"]
def one_head_after_the_other(shared, heads):
    each = heads // shared.shape[2]
    return np.stack([shared[:, :, h // each] for h in range(heads)], axis=2)


few_heads = [(k[:, :, :groups], H) for groups in (2, 1)]
check.ok(check.against(one_head_after_the_other, copies, few_heads))

# %% [markdown]
# The other one gives the right shape, and the right answer for one group and for as many groups as heads. Only in between is it wrong, at
# the heads that got a stranger's keys:


# %%
def tiled(shared, heads):
    return np.tile(shared, (1, 1, heads // shared.shape[2], 1))


check.ok(check.against(one_head_after_the_other, tiled, k[:, :, :1], H))
notebook.caught(check.against(one_head_after_the_other, tiled, k[:, :, :2], H))

# %% [markdown]
# ### Exercise 2: the gradient of something shared
#
# What several heads read receives the sum of their gradients. `attention.backward` for equally many heads gives `dk` and `dv` of shape
# (B, T, H, d_h); bring them back to the $n_g$ heads that exist. (The same sum waits in MLA, at the one rotary key of all heads.)


# %% tags=["solution"]
def back_to_groups(d_copies, groups):
    """Gradients of the copies (B, T, H, d_h) → gradients of the key-value heads (B, T, n_g, d_h)."""
    batch, time, heads, size = d_copies.shape
    return d_copies.reshape(batch, time, groups, heads // groups, size).sum(axis=3)


# %% tags=["check"]
def by_copies(q, k, v):
    each_own = (one_head_after_the_other(x, q.shape[2]) for x in (k, v))
    o, saved = attention.forward(q, *each_own, scale)
    return o, (saved, k.shape[2])


def by_copies_backward(do, saved):
    saved_attention, groups = saved
    dq, dk, dv = attention.backward(do, saved_attention)
    return dq, back_to_groups(dk, groups), back_to_groups(dv, groups)


few = {"q": q[:, :5], "k": k[:, :5, :2], "v": v[:, :5, :2]}
check.ok(check.gradient(by_copies, by_copies_backward, few, hints={"n_heads": H}))

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
# (Theirs, not ours.) Every head that loses its own keys costs. Is there a way to keep every head *different* and still cache little?
#
# ## 4. Compressing: MLA
#
# The keys and values of all heads at one token are $2 n_h d_h$ numbers, but all of them are linear functions of the same hidden state $h_t$.
# Instead of caching the results, cache a compressed $h_t$ from which they can be made again (equations 1, 2 and 5):
#
# $$ c_t = W^{DKV} h_t \in \mathbb{R}^{d_c}, \qquad k_{t,i} = W^{UK}_i c_t, \qquad v_{t,i} = W^{UV}_i c_t . $$
#
# Every head $i$ has matrices of its own, so every head sees something else. What is lost is only that all keys and values must fit
# through $d_c$ numbers. How much is that compared with sharing? **Any GQA is an MLA**: let the latent hold the keys and values of the $n_g$
# groups side by side, $d_c = 2 n_g d_h$, and let $W^{UK}_i$ merely *copy* the part of its group. Do it, with a GQA of random weights:

# %%
d, d_h, groups = 20, 6, 2
hidden = rng.standard_normal((B, T, d))
w_q = rng.standard_normal((H, d_h, d))
w_k, w_v = rng.standard_normal((2, groups, d_h, d))  # a GQA's weights
scale = d_h**-0.5


def project(x, weights):
    """x (B, T, d), weights (heads, d_h, d) → (B, T, heads, d_h)."""
    return np.einsum("btd,hed->bthe", x, weights)


gqa, _ = attention.forward(project(hidden, w_q), project(hidden, w_k), project(hidden, w_v), scale)

# The same as an MLA: compress with all the GQA's matrices stacked, expand by copying.
d_c = 2 * groups * d_h
w_down = np.concatenate([w_k.reshape(-1, d), w_v.reshape(-1, d)])  # (d_c, d)  W^DKV
copy = np.eye(d_c).reshape(2, groups, d_h, d_c)
w_uk, w_uv = np.repeat(copy[0], H // groups, axis=0), np.repeat(copy[1], H // groups, axis=0)

latent = hidden @ w_down.T  # (B, T, d_c): what is cached
k_mla, v_mla = project(latent, w_uk), project(latent, w_uv)
as_mla, _ = attention.forward(project(hidden, w_q), k_mla, v_mla, scale)

letters = {"T": T, "H": H, "d_h": d_h, "d_c": d_c}
notebook.shapes(letters, latent=latent, w_uk=w_uk, gqa=gqa, as_mla=as_mla)
print("\nlargest difference:", f"{np.abs(gqa - as_mla).max():.0e}")
print("cached per token: GQA", 2 * groups * d_h, "numbers, MLA", d_c)

# %% [markdown]
# **What to notice.** With the same cache an MLA can do everything that a GQA can; and where the GQA's up-matrices are frozen copies, MLA's
# are free to be trained. Sharing is compression with a frozen decompressor. (Left out here: positions and
# the norm on the latent. [Notebook 5](notebooks/05_mla_inside.ipynb) has both.)
#
# ## 5. What the cache costs
#
# Positions need 64 more numbers per token, for the shared rotary key. So, per token and layer (V2 report, Table 1):
#
# | | numbers cached | V3's sizes |
# |---|---|---|
# | MHA | $2\, n_h d_h$ | 32,768 |
# | GQA | $2\, n_g d_h$ | 256 a group |
# | MQA | $2\, d_h$ | 256 |
# | MLA | $d_c + d_r$ | 512 + 64 = 576 |
#
# MHA's 32,768 is the baseline of all notebooks: 128 heads with a key of 128 and a value of 128, as V2's table counts. You may meet
# 40,960 as well: that is 128 · (192 + 128), what the keys and values of MLA's own heads are once they are *expanded*, since each of its keys carries the 64 rotated numbers
# too. The saving is 57 times by the first, 71 times by the second.
#
# ### Exercise 3: the table as a function
#
# Write the right column's formulas. The check asks for three different models.


# %% tags=["solution"]
def cached(kind, n_h, d_h, n_g, d_c, d_r):
    """Numbers per token and layer for kind "mha", "gqa", "mqa" or "mla"."""
    return {"mha": 2 * n_h * d_h, "gqa": 2 * n_g * d_h, "mqa": 2 * d_h, "mla": d_c + d_r}[kind]


# %% tags=["check"]
other = dict(kv_lora_rank=384, qk_rope_head_dim=32, v_head_dim=96, qk_nope_head_dim=96)
moonlight = minids.ModelConfig.preset("moonlight-16b-a3b")
asked = {
    c.num_attention_heads: c for c in (v3, moonlight, v3.replace(num_attention_heads=32, **other))
}


def right_cached(kind, n_h, d_h, n_g, d_c, d_r):
    return kv_cache.by_kind(asked[n_h])[kind]


questions = [
    (kind, n_h, c.v_head_dim, kv_cache.GQA_GROUPS, c.kv_lora_rank, c.qk_rope_head_dim)
    for n_h, c in asked.items()
    for kind in kv_cache.KINDS
]
check.ok(check.against(right_cached, cached, questions))

# %% [markdown]
# Two slips are common: to count keys and forget values, and to give every head of MLA a rotary key of its own. Both are caught:


# %%
def without_values(kind, n_h, d_h, n_g, d_c, d_r):
    return {"mha": n_h * d_h, "gqa": n_g * d_h, "mqa": d_h, "mla": d_c + d_r}[kind]


def rotary_key_per_head(kind, n_h, d_h, n_g, d_c, d_r):
    return d_c + n_h * d_r if kind == "mla" else right_cached(kind, n_h, d_h, n_g, d_c, d_r)


for wrong in (without_values, rotary_key_per_head):
    notebook.caught(check.against(right_cached, wrong, questions))

# %% [markdown]
# ## 6. How small, and how good
#
# Both halves of the question on one picture. Above, cards of 80 GB fill as a conversation grows, at V3's sizes. Below, the loss of four small
# models that differ in their attention alone and have equally many parameters: five seeds each, the same text in the same order ([the study](minids/lab/studies/attention.py), `minids
# study attention`).
#
# **Write your guess; then run.** MLA caches the fewest numbers of the four small models. Which of MHA, GQA and MQA comes closest to it in loss?

# %%
draw.conversation()
notebook.explore(
    draw.conversation,
    tokens=(0, 160_000, 4_000),
    heads=[16, 32, 64, 128],
    groups=[1, 2, 4, 8, 16],
    latent=(64, 1024, 64),
    bits=[16, 8, 6],
)

# %% [markdown]
# **What to notice.** Above, MHA needs five cards, MLA a tenth of one. (With a running kernel, drag `tokens`: that is the conversation
# being written. Then change the number of heads: only MHA's cards move. Of which latent is the cache as large as that of a GQA with 4 groups?) Below, fewer cached heads cost loss, MHA to
# GQA to MQA, and MLA, further left than all of them, is beside MHA: 2.063 against 2.024.
#
# Is MLA as good as MHA, then? The study answers for itself:

# %%
from minids.lab.studies import results

for finding in results("attention")["findings"]:
    verdict = {True: "yes", False: "no", None: "undecided"}[finding["holds"]]
    print(f"{verdict:<10} {finding['claim']}: {finding['numbers']}")

# %% [markdown]
# Five seeds leave MLA against MHA open; fifteen find MLA worse by 0.057 nats, [0.008, 0.106] ([findings](docs/findings.md)). DeepSeek's models
# are ten thousand times larger, and there MLA is the better one (V2 report, Table 9; theirs, not ours):
#
# | 250B parameters with 25B or 21B active | BBH | MMLU | C-Eval | CMMLU | numbers cached per token |
# |---|---|---|---|---|---|
# | MHA | 46.6 | 57.5 | 57.9 | 60.7 | 860,200 |
# | MLA | **50.7** | **59.0** | **59.2** | **62.5** | 34,600 |
#
# And beside models that people use, per token, in all layers:

# %%
notebook.slide("kv_cache_per_token", height=4.6)

# %% [markdown]
# ## 7. Claims checked, one that needs a footnote, and one that is wrong

# %%
print("V2 report, section 2.1.4: 'GQA with only 2.25 groups'")
groups_as_large = kv_cache.gqa_equivalent_groups(v3)
print(f"    ({v3.kv_lora_rank} + {v3.qk_rope_head_dim}) / (2 · 128) = {groups_as_large}\n")

ours = kv_cache.bytes_per_token(v3)
print("Insights paper, Table 1: 70.272 kB per token;")
print("Qwen-2.5 72B 4.66 times as much, LLaMA-3.1 405B 7.28 times")
print(f"    61 · 576 · 2 = {ours:,} bytes")
for other_model in (models.QWEN_72B, models.LLAMA_405B):
    other = other_model.cache_elements * 2
    print(f"    {other_model.name:<15} {other:,} / {ours:,} = {other / ours:.3f}")

reduction = kv_cache.reduction(60 * 576, models.DEEPSEEK_67B.cache_elements, 6, 16)
print("\nV2 report, abstract: 'reducing the KV cache by 93.3%'")
print(f"    by numbers {reduction.by_elements:.1%}, by bits (6 against 16) {reduction.by_bits:.2%}")
print(f"    against MHA with V2's own heads it would be {1 - 576 / 32768:.2%}")

# %% [markdown]
# **What to notice.** 7.28 should read 7.34: a slip in a table. And the famous 93.3 % compares two models *as deployed*: the old one was DeepSeek
# 67B, with GQA and 16 bits, the new one's cache was quantised to 6 bits on average (V2 report, section 3.2.3). Both are true, neither is
# "MLA against MHA". (The sizes of DeepSeek 67B are recalled, not read in the report.)
#
# ## 8. It is also about arithmetic per byte
#
# A decoding step must *read* the whole cache, and an H800 can do about 295 FLOPs in the time it reads one byte. How many does attention do
# with each cached byte?

# %%
kinds = {
    "MHA": {"attention": "mha"},
    "GQA, 8 groups": {"attention": "gqa", "num_key_value_heads": 8},
    "MQA": {"attention": "mqa"},
    "MLA": {},
}
intensity = {name: flops.attention_intensity(v3.replace(**how)) for name, how in kinds.items()}
draw.intensity(intensity, machine=295)

# %% [markdown]
# **What to notice.** MHA starves the machine: one FLOP for each byte. MLA, in the form that [notebook 5](notebooks/05_mla_inside.ipynb) derives, lets all 128 heads
# work on the same 576 numbers and comes close to what the hardware can feed. The small cache is not only smaller, it is *busier*.
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
def decoded(x):
    cache_k, cache_v = [], []
    steps = [step(x[:, t : t + 1], cache_k, cache_v) for t in range(x.shape[1])]
    return np.concatenate(steps, axis=1)


def together(x):
    return attention.forward(project(x, w_q), project(x, w_k), project(x, w_v), scale)[0]


check.ok(check.against(together, decoded, hidden))

# %% [markdown]
# ## Where to go from here
#
# - [Notebook 5](notebooks/05_mla_inside.ipynb): MLA with all its parts, and why nobody ever expands the latent when decoding.
# - [minids/inference/cache.py](minids/inference/cache.py): the two caches of this package; `minids generate --cache full` against
#   `--cache latent` measures them.
# - `minids info --preset deepseek-v3`: every number above with its formula.

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
