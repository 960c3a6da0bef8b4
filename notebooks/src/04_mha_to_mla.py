# %% [markdown]
# # 4. From MHA over MQA and GQA to MLA
#
# To write token 100,001 a model looks back at the keys and values of 100,000 others. What does it cost to keep them, and how small can
# they be made without making the model stupid?
#
# %% [markdown]
# This notebook walks the road that leads to DeepSeek's latent attention: keep everything (MHA), keep less by sharing (MQA, GQA), keep
# less by compressing (MLA). You will see that MLA *contains* the sharing schemes, and what the choice is worth in gigabytes.
#
# Used here: [attention](minids/ops/attention.py), the comparison layer [attention.py](minids/layers/attention.py), and the arithmetic
# of [kv_cache](minids/lab/analysis/kv_cache.py), [flops](minids/lab/analysis/flops.py) and [models](minids/lab/analysis/models.py). Papers: section 2.1
# and Table 1 of the [DeepSeek-V2 report](https://arxiv.org/abs/2405.04434), section 2.1.1 of the
# [V3 report](https://arxiv.org/abs/2412.19437), and Table 1 of ["Insights into DeepSeek-V3"](https://arxiv.org/abs/2505.09343).

# %%
import numpy as np

import minids
from minids import check
from minids.lab import notebook
from minids.lab.analysis import flops, kv_cache, models
from minids.ops import attention

notebook.set_up()
rng = np.random.default_rng(0)

# %% [markdown]
# ## Why there is a cache at all
#
# A causal model never looks ahead. So the keys and values of old tokens do not change when a new one arrives: compute them once, keep
# them, and each step only computes the query, key and value of *one* token:
#
# $$ o_t = \sum_{j \le t} \text{softmax}_j\Big(\frac{q_t \cdot k_j}{\sqrt{d_h}}\Big)\, v_j . $$

# %%
B, T, H, d_h = 1, 9, 4, 6
letters = {"T": T, "H": H, "d_h": d_h}
q, k, v = rng.standard_normal((3, B, T, H, d_h))
scale = d_h**-0.5

at_once, _ = attention.forward(q, k, v, scale)  # all positions together, as in training
one_by_one = np.empty_like(at_once)
for t in range(T):  # as in generation: one query, and the cache so far
    one_by_one[:, t : t + 1], _ = attention.forward(
        q[:, t : t + 1], k[:, : t + 1], v[:, : t + 1], scale
    )

notebook.shapes(letters, q=q, k=k, v=v, o=at_once)
print("\nlargest difference:", f"{np.abs(at_once - one_by_one).max():.0e}")

# %% [markdown]
# The same numbers, with a $T$-th of the work per token. The price is memory: $2\,n_h d_h$ numbers per token and layer. Put in the sizes of
# DeepSeek-V3, 128 heads of 128, 61 layers, two bytes each:

# %%
v3 = minids.ModelConfig.preset("deepseek-v3")
per_layer = kv_cache.mha_elements(v3)
per_token = v3.num_hidden_layers * per_layer * 2
print(f"{per_layer:,} numbers per token and layer; {per_token / 1e6:.1f} MB per token")
print(f"one conversation of 100,000 tokens: {1e5 * per_token / 1e9:.0f} GB; an H800 has 80")

# %% [markdown]
# Five accelerators to remember one conversation. Worse, all of it must be *read* for every single new token. This is the wall that
# the next three ideas climb.
#
# ## Sharing: MQA and GQA
#
# Let several query heads read the same key-value head. With $n_g$ groups the cache shrinks by $n_h/n_g$: one group is multi-query attention
# ([Shazeer 2019](https://arxiv.org/abs/1911.02150)), eight are what Llama uses ([Ainslie et al. 2023](https://arxiv.org/abs/2305.13245)).
# The operation is the same; keys and values only have fewer heads, and query head $h$ reads head $\lfloor h\, n_g / n_h \rfloor$:

# %%
outputs = {}
for groups in (4, 2, 1):
    shared_k, shared_v = k[:, :, :groups], v[:, :, :groups]
    outputs[groups], _ = attention.forward(q, shared_k, shared_v, scale)
    name = {4: "MHA", 2: "GQA", 1: "MQA"}[groups]
    kept = shared_k[0, 0].size + shared_v[0, 0].size
    print(f"{name}: {groups} key-value heads, cached {kept:>3} per token and layer")
notebook.shapes(letters, k_gqa=k[:, :, :2], o_gqa=outputs[2])

# %% tags=["picture"]
figure, axes = notebook.picture(1, 4, width=9.4, height=2.7)
for ax, (name, heads) in zip(axes, {"MHA": 8, "GQA": 2, "MQA": 1, "MLA": 0}.items(), strict=True):
    where = np.arange(8) + 0.5
    ax.scatter(where, np.full(8, 2), marker="s", s=110, color="C0")
    if heads:
        centres = (np.arange(heads) + 0.5) * 8 / heads
        ax.scatter(centres, np.ones(heads), marker="s", s=110, color="C1", zorder=3)
        for h, x in enumerate(where):
            ax.plot([x, centres[h * heads // 8]], [1.85, 1.15], color="#999999", lw=1)
    else:
        ax.scatter(where, np.ones(8), marker="s", s=110, facecolor="white", edgecolor="C1")
        for x in where:
            ax.plot([x, x], [1.85, 1.15], color="#999999", lw=1)
            ax.plot([x, 4], [0.85, 0.2], color="#999999", lw=1)
        ax.barh(0, 3, left=2.5, height=0.36, color="C1")
    ax.set(xlim=(-0.2, 8.2), ylim=(-0.5, 2.4), xticks=[], yticks=[])
    ax.set_title(name)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
axes[0].set(yticks=[1, 2], yticklabels=["keys, values", "queries"])
axes[0].tick_params(length=0)
notebook.show(
    figure,
    "Eight query heads: own keys and values, four sharing, all sharing, or one latent for all.",
)

# %% [markdown]
# Filled orange is what is cached. In MLA the keys and values of every head exist only for a moment: they are made from one small cached
# vector, each by a matrix of its own.
#
# ## Exercise 1: groups by hand
#
# Write grouped-query attention with nothing but `attention.forward` for equally many heads: give every query head its own copy of the
# keys and values it reads. Which of `np.repeat` and `np.tile` is it?


# %% tags=["solution"]
def grouped(q, k, v):
    """q (B, T, H, d_h), k and v (B, T, n_g, d_h) → o (B, T, H, d_h)."""
    copies = q.shape[2] // k.shape[2]
    o, _ = attention.forward(
        q, np.repeat(k, copies, axis=2), np.repeat(v, copies, axis=2), q.shape[-1] ** -0.5
    )
    return o


# %% tags=["check"]
def right_grouped(q, k, v):
    return attention.forward(q, k, v, q.shape[-1] ** -0.5)[0]


def with_equal_heads(q, k, v):
    """Yours, with an attention that knows no groups."""
    whole = attention.forward

    def equally_many(q, k, v, *more, **others):
        if not q.shape[2] == k.shape[2] == v.shape[2]:
            raise ValueError("attention.forward was given fewer keys or values than query heads")
        return whole(q, k, v, *more, **others)

    attention.forward = equally_many
    try:
        return grouped(q, k, v)
    finally:
        attention.forward = whole


few_heads = [(q, k[:, :, :groups], v[:, :, :groups]) for groups in (2, 1)]
check.ok(check.against(right_grouped, with_equal_heads, few_heads, hints={"n_heads": H}))

# %% [markdown]
# The other one gives the right shape, and the right answer for one group and for as many groups as heads. Only in between is it wrong, at
# the heads that got a stranger's keys:


# %%
def tiled(q, k, v):
    copies = q.shape[2] // k.shape[2]
    return attention.forward(
        q, np.tile(k, (1, 1, copies, 1)), np.tile(v, (1, 1, copies, 1)), q.shape[-1] ** -0.5
    )[0]


check.ok(check.against(right_grouped, tiled, q, k[:, :, :1], v[:, :, :1]))
notebook.caught(
    check.against(right_grouped, tiled, q, k[:, :, :2], v[:, :, :2], hints={"n_heads": H})
)

# %% [markdown]
# ## Exercise 2: the gradient of something shared
#
# What several heads read receives the sum of their gradients. `attention.backward` for equally many heads gives `dk` and `dv` of shape
# (B, T, H, d_h); bring them back to the $n_g$ heads that exist. (The same sum waits in MLA, at the one rotary key of all heads.)


# %% tags=["solution"]
def back_to_groups(d_copies, groups):
    """Gradients of the copies (B, T, H, d_h) → gradients of the key-value heads (B, T, n_g, d_h)."""
    batch, time, heads, size = d_copies.shape
    return d_copies.reshape(batch, time, groups, heads // groups, size).sum(axis=3)


# %% tags=["check"]
def forward_by_copies(q, k, v):
    copies = q.shape[2] // k.shape[2]
    o, saved = attention.forward(
        q, np.repeat(k, copies, axis=2), np.repeat(v, copies, axis=2), scale
    )
    return o, (saved, k.shape[2])


def backward_by_copies(do, saved):
    saved_attention, groups = saved
    dq, dk, dv = attention.backward(do, saved_attention)
    return dq, back_to_groups(dk, groups), back_to_groups(dv, groups)


few = {"q": q[:, :4], "k": k[:, :4, :2], "v": v[:, :4, :2]}
check.ok(check.gradient(forward_by_copies, backward_by_copies, few, hints={"n_heads": H}))

# %% [markdown]
# ## What sharing costs
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
# ## Compressing: MLA
#
# The keys and values of all heads at one token are $2 n_h d_h$ numbers, but all of them are linear functions of the same hidden state $h_t$.
# Instead of caching the results, cache a compressed $h_t$ from which they can be made again (equations 1, 2 and 5):
#
# $$ c_t = W^{DKV} h_t \in \mathbb{R}^{d_c}, \qquad k_{t,i} = W^{UK}_i c_t, \qquad v_{t,i} = W^{UV}_i c_t . $$
#
# Every head $i$ has matrices of its own, so every head sees something else. What is lost is only that all keys and values must fit
# through $d_c$ numbers. How much is that compared with sharing? **Any GQA is an MLA**: let the latent hold the keys and values of the $n_g$
# groups side by side, $d_c = 2 n_g d_h$, and let $W^{UK}_i$ merely *copy* the part of its group. Do it:

# %%
d, groups = 20, 2
hidden = rng.standard_normal((B, T, d))
w_q = rng.standard_normal((H, d_h, d))
w_k, w_v = rng.standard_normal((2, groups, d_h, d))  # a GQA's weights


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
mla, _ = attention.forward(
    project(hidden, w_q), project(latent, w_uk), project(latent, w_uv), scale
)
notebook.shapes(
    {"T": T, "H": H, "d_h": d_h, "d_c": d_c}, latent=latent, w_uk=w_uk, gqa=gqa, mla=mla
)
print("\nlargest difference:", f"{np.abs(gqa - mla).max():.0e}")
print("cached per token: GQA", 2 * groups * d_h, "numbers, MLA", d_c)

# %% [markdown]
# **What to notice.** With the same cache an MLA can do everything that a GQA can; and where the GQA's up-matrices are frozen copies, MLA's
# are free to be trained. At equal memory, sharing is compression with the worst possible decompressor. (Left out here: positions and
# the norm on the latent. [Notebook 5](notebooks/05_mla_inside.ipynb) has both.)
#
# ## What the cache costs
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
# ## Exercise 3: the table as a function


# %% tags=["solution"]
def cached(kind, n_h, d_h, n_g, d_c, d_r):
    """Numbers per token and layer for kind "mha", "gqa", "mqa" or "mla"."""
    return {"mha": 2 * n_h * d_h, "gqa": 2 * n_g * d_h, "mqa": 2 * d_h, "mla": d_c + d_r}[kind]


# %% tags=["check"]
configs = {}  # by number of heads
for preset in ("deepseek-v3", "moonlight-16b-a3b"):
    config = minids.ModelConfig.preset(preset)
    configs[config.num_attention_heads] = config
# Other latents, so that no shortcut between the sizes is right.
configs[32] = configs[128].replace(
    num_attention_heads=32,
    kv_lora_rank=384,
    qk_rope_head_dim=32,
    v_head_dim=96,
    qk_nope_head_dim=96,
)


def right_cached(kind, n_h, d_h, n_g, d_c, d_r):
    return kv_cache.by_kind(configs[n_h])[kind]


questions = [
    (kind, n_h, c.v_head_dim, kv_cache.GQA_GROUPS, c.kv_lora_rank, c.qk_rope_head_dim)
    for n_h, c in configs.items()
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
# ## In gigabytes

# %%
contexts = np.array([4096, 32768, 131072])
elements = {kind.upper(): n for kind, n in kv_cache.by_kind(v3).items()}
elements = {name.replace("GQA", "GQA, 8 groups"): n for name, n in elements.items()}
print(f"{'':<15}" + "".join(f"{c:>12,}" for c in contexts) + "   tokens")
for name, count in elements.items():
    gigabytes = count * v3.num_hidden_layers * 2 * contexts / 1e9
    print(f"{name:<15}" + "".join(f"{g:>9.2f} GB" for g in gigabytes))

# %% tags=["picture"]
figure, (left, right) = notebook.picture(1, 2, width=9.4, height=3.6, width_ratios=[1.3, 1])
tokens = np.logspace(3, 6, 50)
for (name, count), colour in zip(elements.items(), ("C1", "C4", "C2", "C0"), strict=True):
    size = count * v3.num_hidden_layers * 2
    left.loglog(tokens, size * tokens / 1e9, color=colour, label=name)
left.axhline(80, color="black", linewidth=0.8)
left.text(1100, 95, "memory of one H800", fontsize=8.5)
left.set(xlabel="tokens of context", ylabel="GB per conversation", ylim=(0.01, 10000))
left.set_title("The cache of one conversation, V3's sizes")
left.legend(loc="lower right", fontsize=8.5)
others = {"DeepSeek-V3": kv_cache.bytes_per_token(v3)}
others |= {m.name: m.cache_elements * 2 for m in (models.QWEN_72B, models.LLAMA_405B)}
bars = right.barh(list(others), [n / 1000 for n in others.values()], color=["C0", "C4", "C4"])
right.bar_label(bars, fmt="%.1f", padding=4)
right.set(xlabel="kB per token, BF16", xlim=(0, 640))
right.invert_yaxis()
right.grid(axis="y", visible=False)
right.set_title("Beside models with GQA")
notebook.show(
    figure,
    "Left: gigabytes of cache by context for four kinds. Right: kilobytes per token of three models.",
)


# %% [markdown]
# **What to notice.** Both axes are logarithmic, so every kind is a line of the same slope, and what a kind saves is how far down its line lies, at any
# length. MHA fills an H800 with 20,000 tokens of one conversation; MLA needs a million for that. Only MQA lies lower, by a factor of 2.25,
# at the price of the table above: one key for all heads. On the right are two well known models with 8 groups.
#
# What decides? Not the number of heads, for MLA:


# %% tags=["picture"]
def draw_cache(heads=128, groups=8, latent=512, context=131072, bits=16):
    """Cache of one conversation, for V3's 61 layers and heads of 128."""
    rows = {
        f"MHA, {heads} heads": 2 * heads * 128,
        f"GQA, {groups} groups": 2 * groups * 128,
        "MQA": 2 * 128,
        f"MLA, latent of {latent}": latent + 64,
    }
    bytes_each = v3.num_hidden_layers * bits / 8 * context
    size = {name: count * bytes_each / 1e9 for name, count in rows.items()}
    figure, axes = notebook.picture(height=2.3)
    bars = axes.barh(list(size), list(size.values()), color=["C1", "C4", "C2", "C0"])
    axes.bar_label(bars, fmt="{:,.1f} GB", padding=4)
    axes.set(xscale="log", xlabel="GB", xlim=(0.1, 1e4))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_title(f"One conversation of {context:,} tokens, {bits} bits a number")
    notebook.show(figure, "Gigabytes of cache of four kinds of attention.")


draw_cache()
notebook.explore(
    draw_cache,
    heads=[16, 32, 64, 128],
    groups=[1, 2, 4, 8, 16],
    latent=(64, 1024, 64),
    context=(4096, 163840, 4096),
    bits=[16, 8, 6],
)

# %% [markdown]
# (With a running kernel there are controls here. Change the number of heads: only MHA's bar moves. For which latent do MLA and a GQA of 2 groups need the same? And of 4? For
# 8 groups no latent on the slider is large enough.)
#
# ## Claims checked, one that needs a footnote, and one that is wrong

# %%
print("V2 report, section 2.1.4: 'GQA with only 2.25 groups'")
print(
    f"    ({v3.kv_lora_rank} + {v3.qk_rope_head_dim}) / (2 · 128) = {kv_cache.gqa_equivalent_groups(v3)}\n"
)

ours = kv_cache.bytes_per_token(v3)
qwen, llama = (m.cache_elements * 2 for m in (models.QWEN_72B, models.LLAMA_405B))
print("Insights paper, Table 1: 70.272 kB per token;")
print("Qwen-2.5 72B 4.66 times as much, LLaMA-3.1 405B 7.28 times")
print(f"    61 · 576 · 2 = {ours:,} bytes")
for name, other in (("Qwen", qwen), ("LLaMA", llama)):
    print(f"    {name:<6} {other:,} / {ours:,} = {other / ours:.3f}")
print()

reduction = kv_cache.reduction(60 * 576, models.DEEPSEEK_67B.cache_elements, 6, 16)
print("V2 report, abstract: 'reducing the KV cache by 93.3%'")
print(
    f"    counting numbers: {reduction.by_elements:.1%}; counting bits, 6 against 16: {reduction.by_bits:.2%}"
)
print(f"    against MHA with V2's own heads it would be {1 - 576 / 32768:.2%}")

# %% [markdown]
# **What to notice.** 7.28 should read 7.34: a slip in a table. And the famous 93.3 % compares two models *as deployed*: the old one was DeepSeek
# 67B, with GQA and 16 bits, the new one's cache was quantised to 6 bits on average (V2 report, section 3.2.3). Both are true, neither is
# "MLA against MHA". (The sizes of DeepSeek 67B are recalled, not read in the report.)
#
# ## It is also about arithmetic per byte
#
# A decoding step must *read* the whole cache, and an H800 can do about 295 FLOPs in the time it reads one byte. How many does attention do
# with each cached byte?

# %%
for name, changes in (
    ("MHA", {"attention": "mha"}),
    ("GQA, 8 groups", {"attention": "gqa", "num_key_value_heads": 8}),
    ("MQA", {"attention": "mqa"}),
    ("MLA", {}),
):
    intensity = flops.attention_intensity(v3.replace(**changes))
    print(f"{name:<15}{intensity:>7.1f} FLOPs per byte of cache")

# %% [markdown]
# **What to notice.** MHA starves the machine: one FLOP for each byte. MLA, in the form that [notebook 5](notebooks/05_mla_inside.ipynb) derives, lets all 128 heads
# work on the same 576 numbers and comes close to what the hardware can feed. The small cache is not only smaller, it is *busier*.
#
# ## Exercise 4: decode with a cache
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
