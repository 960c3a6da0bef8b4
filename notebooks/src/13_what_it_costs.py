# %% [markdown]
# # 13. What it costs: parameters, FLOPs, dollars, GPUs
#
# DeepSeek-V3 has 671 billion parameters, and its final training run cost 5.576 million dollars. **Can you check both numbers with
# nothing but a configuration file and a multiplication table?**

# %% [markdown]
# You can. Everything in this notebook is arithmetic: no weight is allocated, nothing is trained. By the end you will have rebuilt
# the size of the model, the work of training it, the bill, and the machines that serve it, and you will know at which step each claim of the paper enters.
#
# | you will rebuild | printed | where |
# |---|---|---|
# | parameters, total and at work on one token | 671B, 37B | V3 report, abstract |
# | training work per token | 250 GFLOP | [ISCA 2025 paper](https://arxiv.org/abs/2505.09343), Table 2 |
# | GPU hours and dollars | 2664K h, 5.576M \$ | [V3 report](https://arxiv.org/abs/2412.19437), Table 1 |
# | cache per token | 70.272 KB | ISCA 2025 paper, Table 1 |
# | tokens per second and user | 67 | ISCA 2025 paper, section 2.3.2 |
#
# Code used here: [`analysis/parameters.py`](minids/lab/analysis/parameters.py), [`flops.py`](minids/lab/analysis/flops.py),
# [`cost.py`](minids/lab/analysis/cost.py), [`kv_cache.py`](minids/lab/analysis/kv_cache.py),
# [`models.py`](minids/lab/analysis/models.py), [`network.py`](minids/lab/analysis/network.py),
# [`memory.py`](minids/lab/analysis/memory.py), [`placement.py`](minids/lab/analysis/placement.py),
# [`laptop.py`](minids/lab/analysis/laptop.py); drawings in [`plots/costs.py`](minids/lab/plots/costs.py).

# %%
from minids import ModelConfig, check
from minids.lab import notebook
from minids.lab.analysis import (
    cost,
    flops,
    kv_cache,
    laptop,
    memory,
    models,
    network,
    parameters,
    placement,
)
from minids.lab.plots import costs

notebook.set_up()
notebook.here()
v3 = ModelConfig.preset("deepseek-v3")  # a few dozen integers, and not one weight
print(f"width {v3.hidden_size}, {v3.num_hidden_layers} layers, {v3.num_attention_heads} heads,")
print(f"{v3.n_routed_experts} routed experts, of which a token uses {v3.num_experts_per_tok}")

# %% [markdown]
# ## 1. How big is it?
#
# A parameter is an entry of a matrix, so counting them is multiplying shapes. Take one attention layer. MLA squeezes the hidden
# state $h_t \in \mathbb{R}^{7168}$ into two latents and expands them again (V3 section 2.1.1, eqs 1–11):
#
# $$
# \underbrace{d\,d_c' + d_c' + d_c'\,H(d_{nope}+d_r)}_{\text{queries through their latent}}
# \;+\; \underbrace{d\,(d_c+d_r) + d_c + d_c\,H(d_{nope}+d_v)}_{\text{keys and values through theirs}}
# \;+\; \underbrace{H d_v\,d}_{\text{output}}
# $$
#
# with $d = 7168$, $d_c' = 1536$, $d_c = 512$, $H = 128$, $d_{nope} = d_v = 128$, $d_r = 64$. The two lone terms are RMSNorm gains.

# %%
d, H = v3.hidden_size, v3.num_attention_heads
d_nope, d_r, d_v = v3.qk_nope_head_dim, v3.qk_rope_head_dim, v3.v_head_dim
d_cq, d_c = v3.q_lora_rank, v3.kv_lora_rank

queries = d * d_cq + d_cq + d_cq * H * (d_nope + d_r)
keys_values = d * (d_c + d_r) + d_c + d_c * H * (d_nope + d_v)
output = H * d_v * d
for name, count in [("queries", queries), ("keys and values", keys_values), ("output", output)]:
    print(f"{name:<18} {count:>15,}")
print(f"{'one MLA layer':<18} {queries + keys_values + output:>15,}")

# %% [markdown]
# **What to notice.** The output projection alone is 63 % of the layer: it is the one matrix MLA does not factor. And an ordinary
# multi-head layer with these heads would need $3 \cdot 7168 \cdot 16384$ for its queries, keys and values where MLA has 70 million.
#
# Now the experts. Each is a SwiGLU network of three matrices, $3 \cdot d \cdot I_m$ with $I_m = 2048$; there are 256 routed and one
# shared in each of 58 layers, and a token uses 8 + 1 of them. That is what "671B, of which 37B are active" means:

# %%
expert = 3 * d * v3.moe_intermediate_size
moe_layers = v3.num_hidden_layers - v3.first_k_dense_replace
routed = moe_layers * 256 * expert
rows = {
    "one expert": (expert, ""),
    "all routed experts, 58 layers": (routed, f"{routed / parameters.total(v3):.1%} of the model"),
    "of these, at work on one token": (moe_layers * 8 * expert, ""),
    "the whole main model": (parameters.total(v3), ""),
    "at work on one token": (parameters.activated(v3), "head counted, embedding not: a look-up"),
    "the same, both counted": (parameters.activated(v3, "both"), ""),
}
for name, (count, remark) in rows.items():
    print(f"{name:<31} {count:>15,}   {remark}")

# %% [markdown]
# **The claim, checked.** "671B total parameters with 37B activated for each token" (V3 abstract): 671.03 and, depending on whether
# the input embedding counts, 36.63 or 37.55. The experts are 97 % of the model and a third of what works on a token: *a sparse
# model is, per token, a modest dense one* (drawn in [notebook 1](notebooks/01_tour.ipynb)).

# %% [markdown]
# ### Exercise 1: count an attention layer
#
# Write `mla_parameters(c)`: the parameters of one MLA layer for *any* configuration `c`, by its field names. Mind the models without a
# query latent (`c.q_lora_rank is None`: then one matrix takes the hidden state straight to the queries).


# %% tags=["solution"]
def mla_parameters(c):
    """Parameters of one MLA layer, norms on the latents included."""
    heads, d_qk = c.num_attention_heads, c.qk_nope_head_dim + c.qk_rope_head_dim
    if c.q_lora_rank is None:
        queries = c.hidden_size * heads * d_qk
    else:
        queries = c.hidden_size * c.q_lora_rank + c.q_lora_rank + c.q_lora_rank * heads * d_qk
    latent = c.hidden_size * (c.kv_lora_rank + c.qk_rope_head_dim) + c.kv_lora_rank
    expanded = c.kv_lora_rank * heads * (c.qk_nope_head_dim + c.v_head_dim)
    return queries + latent + expanded + heads * c.v_head_dim * c.hidden_size


# %% tags=["check"]
def from_the_list(c):
    """The same from the package's list of tensors."""
    return sum(tensor.size for tensor in parameters.attention_tensors(c))


tiny = ModelConfig.preset("tiny")
configs = [
    ModelConfig.preset("deepseek-v3"),
    ModelConfig.preset("deepseek-v2-lite"),
    tiny,
    tiny.replace(v_head_dim=24),
]
check.ok(check.against(from_the_list, mla_parameters, [(c,) for c in configs]))

# %% [markdown]
# Forgetting that the rotary key is *one for all heads* is an easy slip. The check says by how much:


# %%
def forgetful(c):
    """Counts a rotary key for every head."""
    return from_the_list(c) + c.hidden_size * c.qk_rope_head_dim * (c.num_attention_heads - 1)


notebook.caught(check.against(from_the_list, forgetful, [(c,) for c in configs]))

# %% [markdown]
# ## 2. How much work is one token?
#
# A matrix of $N$ entries times a vector takes $N$ multiplications and $N$ additions: $2N$ FLOPs. Attention adds, for every earlier
# token, a dot product over $d_{nope} + d_r = 192$ and a weighted sum over $d_v = 128$, in 128 heads and 61 layers; in a
# sequence of $T$ a token sees $T/2$ others on average. Training is three times the forward pass, because the backward pass multiplies
# each matrix twice: once for the gradient of its input, once for its own ([`ops/linear.py`](minids/ops/linear.py) shows the two lines).
#
# $$
# \text{FLOPs per training token} = 3\,\Big(2 N_{\text{active}} + 2H(d_{nope}+d_r+d_v)\,\tfrac{T}{2}\,L\Big)
# $$

# %%
T = 4096
weights_work = 3 * 2 * parameters.activated(v3)
attention_work = 3 * 2 * H * (d_nope + d_r + d_v) * (T / 2) * v3.num_hidden_layers
print(f"weights    {weights_work / 1e9:7.2f} GFLOP")
print(f"attention  {attention_work / 1e9:7.2f} GFLOP")
print(f"together   {(weights_work + attention_work) / 1e9:7.2f} GFLOP")

# %% [markdown]
# The paper prints 250. And how does that compare with other models? Dense ones use every parameter on every token. **Write your guess;
# then run:** Llama-3.1-405B has fewer parameters than V3; how many times its training work per token?

# %%
rows = costs.four_models(T)
printed = {"DeepSeek-V2": 155, "DeepSeek-V3": 250, "Qwen2.5-72B": 394, "Llama-3.1-405B": 2448}
for row in rows:
    ours, table = row.training_flops / 1e9, printed[row.name]
    print(f"{row.name:<15} {ours:7.1f} GFLOP, printed {table:>5,}: {ours / table - 1:+.1%}")

# %% tags=["picture"]
costs.size_and_work(rows, printed=list(printed.values()))

# %% [markdown]
# **Errata.** The table (ISCA 2025, Table 2) prints 155 and 250 for the sparse models, and so do we. For the dense ones it prints 394 and
# 2,448 where the same formula gives 445 and 2,473: 2,448 would be 6 · 408 billion; the 394 cannot be rebuilt
# from any reading of Qwen's sizes ([`claims.py`](minids/lab/analysis/claims.py) lists both). The black marks are the printed numbers.
#
# **What to notice.** V3 has the most parameters in the left picture and the second least work in the right one. A dense model (orange)
# pays for every parameter on every token; V3 (blue) pays for one in eighteen.

# %% [markdown]
# ### Exercise 2: the work of a token
#
# Write `work(c, T)`: FLOPs of training on one token of a text of T, by the formula above. `parameters.activated(c)` counts
# $N_\text{active}$; the sizes are `c.num_attention_heads`, `c.qk_nope_head_dim`, `c.qk_rope_head_dim`, `c.v_head_dim`,
# `c.num_hidden_layers`.


# %% tags=["solution"]
def work(c, T):
    """FLOPs per training token."""
    # Forward once, backward twice: once for the input's gradient, once for the weight's.
    pair = c.num_attention_heads * (c.qk_nope_head_dim + c.qk_rope_head_dim + c.v_head_dim)
    return 3 * (2 * parameters.activated(c) + 2 * pair * (T / 2) * c.num_hidden_layers)


# %% tags=["check"]
many = [ModelConfig.preset(name) for name in ("deepseek-v3", "deepseek-v2-lite", "kimi-k2")]
check.ok(check.against(flops.training, work, [(c, T) for c in many for T in (4096, 1000)]))

# %% [markdown]
# ## 3. From work to dollars
#
# Four numbers make a bill: tokens, work per token, what the chips sustain, and the price of an hour.
#
# $$
# \text{GPU hours} = \frac{14.8\cdot 10^{12} \;\cdot\; 250.46\cdot 10^{9}}{989\cdot 10^{12} \;\cdot\; 0.3894 \;\cdot\; 3600}
# $$
#
# In words: the work of all tokens, over what one GPU really does in an hour. 989 TFLOP/s is an H800's BF16 peak and 0.3894 the share of it that V3's training reached (ISCA 2025 paper, Table 4). V3 multiplies in
# FP8, whose peak is twice as high; the utilisation is quoted against BF16 by convention.

# %%
bill = cost.training_cost(v3, tokens=14.8e12, gpus=2048)
print("from the work, pre-training only       printed")
print(f"work       {bill.flops:10.3g} FLOP")
print(f"GPU hours  {bill.gpu_hours / 1e3:10,.0f} K                2,664 K")
print(f"days       {bill.days:10.1f} on 2048 GPUs     under two months")
print(f"dollars    {bill.dollars / 1e6:10.3f} M, at 2 $ an hour  5.328 M")
print("\nfrom the printed hours (V3 Table 1)")
phases = dict(cost.V3_GPU_HOURS) | {"all": cost.v3_gpu_hours()}
for phase, hours in phases.items():
    print(f"{phase:<18} {hours / 1e3:>6,.0f} K h  {2 * hours / 1e6:.3f} M $")

# %% [markdown]
# The speed that was measured (one paper) and the hours that were printed (the other) meet within 0.4 %. So the famous sum is plausible *for what
# it covers*: the final run. The report itself says that earlier research and ablations on architectures, algorithms and data are not in
# it; neither are salaries, the machines, or the experiments that failed.
#
# **Write your guess; then run:** what would the same 14.8 trillion tokens cost with a dense model, at the same utilisation?

# %%
for row in rows:
    print(f"{row.name:<15} {costs.dollars(row.training_flops) / 1e6:6.2f} million dollars")
years = laptop.training_time(v3, 200e9).years
print(f"and on a laptop that sustains 200 GFLOP/s, V3's pre-training would take {years:,.0f} years")

# %%
costs.bill()
notebook.explore(
    costs.bill, trillion_tokens=(1, 30, 0.2), price=(0.5, 6, 0.1), utilisation=(0.1, 0.7, 0.01)
)

# %% [markdown]
# **What to notice.** A dense model of Llama's size would have cost ten times as much for the same tokens, and one of Qwen's size, a ninth of V3's parameters, nearly twice as much. (With a running kernel three sliders change tokens, price and utilisation: the bill is
# proportional to the first two and inversely to the third, and nothing else enters.)
#
# (How fast is *your* machine? `minids doctor` measures it; `laptop.measure_flops_per_second()` gives the number to put in place of 200.)

# %% [markdown]
# ## 4. Where the machines go
#
# To serve, weights are held once and a cache per user ([notebook 4](notebooks/04_mha_to_mla.ipynb) draws it token by token: 70,272 bytes
# each with V3, as ISCA 2025, Table 1, prints). **Write your guess; then run:** how many GPUs of 80 GB do 64 users with 32K tokens each
# need, with MLA and with MHA?

# %%
costs.serving()
notebook.explore(costs.serving, context_k=(1, 128), users=(1, 512), cache=["bf16", "fp8"])

# %% [markdown]
# **What to notice.** With MLA the weights decide how many GPUs are needed, with ordinary heads the conversations do: thirteen times the
# machines. That is what "latent" buys.
#
# **Errata.** The same Table 1 prints multipliers of 4.66 for Qwen-2.5 72B and 7.28 for LLaMA-3.1 405B. The first is right; the second is
# not, by the table's own bytes:

# %%
ours = kv_cache.bytes_per_token(v3)
for model in (models.QWEN_72B, models.LLAMA_405B):  # two bytes an element
    theirs = 2 * model.cache_elements
    print(f"{model.name:<15} {theirs:>8,} bytes a token, {theirs / ours:.3f} times V3's")

# %% [markdown]
# ## 5. Why serving wants crowds
#
# A chip reads a weight from memory to use it. With one user each weight that is read serves one multiplication and one addition, two FLOPs; an H800 can do about 295 in the time it
# takes to read one byte (989 TFLOP/s over 3.35 TB/s). Batching more users shares the reading, except that
#
# - the *cache* is nobody else's, and
# - in a mixture of experts, more tokens also touch *more experts*: with $B$ tokens choosing 8 of 256 evenly, an average of
#   $256\,(1 - (1 - 8/256)^B)$ experts must be read ([`flops.distinct_experts`](minids/lab/analysis/flops.py)).

# %%
for users in (1, 32, 128, 4096):
    experts = flops.distinct_experts(v3, users)
    work = flops.decode_intensity(v3, 4096, users).flops_per_byte
    print(f"{users:>4} users: {experts:5.1f} experts a layer are read; {work:5.1f} FLOPs per byte")

# %% tags=["picture"]
costs.crowds()

# %% [markdown]
# **What to notice.** The machine is busy only near its dotted line, far to the right; a single user leaves it idle for all but a hundredth of its time. Left: with 128 tokens nearly every expert is needed by someone; sparsity saves *work*, not *reading*. Right: this is why DeepSeek
# serves V3 from hundreds of GPUs at once (V3 section 3.4), so that each expert sees enough tokens to be worth reading.
#
# ### Exercise 3: experts that somebody wants
#
# Write `wanted(E, K, B)`: the mean number of experts that B tokens touch, if each chooses K of E evenly.


# %% tags=["solution"]
def wanted(E, K, B):
    """Experts read for B tokens."""
    # One expert is missed by one token with probability 1 − K / E, by all of them if every token misses it.
    return E * (1 - (1 - K / E) ** B)


# %% tags=["check"]
def by_the_package(E, K, B):
    """The same from analysis/flops.py."""
    return flops.distinct_experts(v3.replace(n_routed_experts=E, num_experts_per_tok=K), B)


check.ok(
    check.against(by_the_package, wanted, [(256, 8, 1), (256, 8, 40), (64, 6, 20), (32, 8, 5)])
)

# %% [markdown]
# The network sets a floor of its own. ISCA 2025, section 2.3.2: 32 tokens a device, 9 destinations, 3 bytes out and back per element, twice per
# layer, 61 layers:

# %%
networks = {"InfiniBand": (network.INFINIBAND, "14.76 ms"), "NVL72": (network.NVL72, "0.82 ms")}
for name, (bandwidth, printed) in networks.items():
    limit = network.decode_limit(bandwidth)
    per_token, rate = 1e3 * limit.tpot, limit.tokens_per_second
    print(
        f"{name:<11} {bandwidth / 1e9:4.0f} GB/s: {per_token:6.3f} ms per token (printed: {printed})"
    )
    print(f"{'':<11} at most {rate:.0f} tokens a second for one user")

# %% [markdown]
# ## 6. What need not be kept, and who sits where
#
# Between forward and backward pass a training step keeps its activations. V3 forms the cheap ones again (section 3.2.3): norms, MLA's up-projections, the SwiGLU product. `minids train --recompute` does so, with the same bits of every gradient. And to decode, V3 counts the shared expert as a ninth routed one (3.4.2): every token has it, so it needs 256/8 = 32 copies to be no busier than the others.

# %%
for name, config, tokens in (("tiny", ModelConfig.preset("tiny"), 256), ("V3", v3, 4096)):
    kept = [memory.activation_elements(config, 1, tokens, how) for how in ("stored", "recompute")]
    print(
        f"{name}: {kept[0]:,} numbers kept for {tokens} tokens, {kept[1]:,} with recomputation ({kept[1] / kept[0]:.0%})"
    )

decoding = placement.v3_decoding()
print(
    f"\n320 GPUs, one expert each: {decoding.copies[:256].sum() - 256} redundant copies of routed experts,"
)
print(f"{decoding.copies[256]} copies of the shared one")

# %% [markdown]
# ## Where to go from here
#
# - Every printed number of the papers that is arithmetic, recomputed in one list: [`analysis/claims.py`](minids/lab/analysis/claims.py), or
#   `minids info --preset deepseek-v3` on the command line, each with its formula and source.
# - [Notebook 15](notebooks/15_pipelines.ipynb): sixteen stages in a row, and who waits for whom.
# - V3 report: sections 2.1 (architecture), 3.4 (deployment), 4.2 (sizes), Table 1 (cost).
# - ISCA 2025 paper: sections 2.2 (FLOPs), 2.3 (speed limits).

# %% tags=["picture"]
notebook.card(
    """
    - 671 billion parameters, of which 37 billion work on a token: the rest are experts that others use.
    - Training work per token is six FLOPs for each of the 37 billion, and a little for attention.
    - Sparsity saves work, not reading: a server wants a hundred users at once.
    """,
    number="5.3 M $",
    meaning="is what 14.8T tokens · 250 GFLOP cost at 39 % of an H800 and 2 $ an hour. The same tokens, in million dollars:",
    bars={row.name: costs.dollars(row.training_flops) / 1e6 for row in rows},
)
