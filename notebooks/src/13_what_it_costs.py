# %% [markdown]
# # 13. What it costs: parameters, FLOPs, cache, pipelines, dollars
#
# DeepSeek-V3 has 671 billion parameters, and its final training run cost 5.576 million dollars. The first number is usually
# believed and the second usually is not. **Can you check both with nothing but a configuration file and a multiplication table?**

# %% [markdown]
# You can. Everything in this notebook is arithmetic: no weight is allocated, nothing is trained. By the end you will have rebuilt
# the size of the model, the work of training it, the bill, the memory of a conversation, and the idle time of its pipeline, and you
# will know at which step each claim of the paper enters.
#
# | you will rebuild | printed | where |
# |---|---|---|
# | parameters, total and at work on one token | 671B, 37B | V3 report, abstract |
# | training work per token | 250 GFLOP | [ISCA 2025 paper](https://arxiv.org/abs/2505.09343), Table 2 |
# | GPU hours and dollars | 2664K h, 5.576M \$ | [V3 report](https://arxiv.org/abs/2412.19437), Table 1 |
# | cache per token | 70.272 KB | ISCA 2025 paper, Table 1 |
# | pipeline bubbles | three formulas | V3 report, Table 2 |
#
# Code used here: [`analysis/parameters.py`](minids/lab/analysis/parameters.py), [`flops.py`](minids/lab/analysis/flops.py),
# [`cost.py`](minids/lab/analysis/cost.py), [`kv_cache.py`](minids/lab/analysis/kv_cache.py),
# [`models.py`](minids/lab/analysis/models.py), [`pipeline.py`](minids/lab/analysis/pipeline.py),
# [`network.py`](minids/lab/analysis/network.py), [`laptop.py`](minids/lab/analysis/laptop.py).

# %%
import numpy as np
from matplotlib.patches import Rectangle

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
    pipeline,
    placement,
)

notebook.set_up()
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK = notebook.COLOURS
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
# shared in each of 58 layers, and a token uses 8 + 1 of them. That is the whole secret of "671B, of which 37B are active":

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

# %% tags=["picture"]
groups = {
    "routed experts": ["routed experts"],
    "attention": [
        "q_a_proj",
        "q_a_layernorm",
        "q_b_proj",
        "kv_a_proj_with_mqa",
        "kv_a_layernorm",
        "kv_b_proj",
        "o_proj",
    ],
    "shared experts": ["shared experts"],
    "dense FFN (3 layers)": ["dense FFN"],
    "embedding": ["embedding"],
    "head": ["head"],
    "routers and norms": ["router", "routing bias", "block norms", "final norm"],
}
by_name = {p.name: p for p in parameters.parts(v3)}
total = np.array([sum(by_name[n].total for n in names) for names in groups.values()])
active = np.array([sum(by_name[n].activated for n in names) for names in groups.values()])
active[list(groups).index("embedding")] = 0  # a token reads one row of it

figure, axes = notebook.picture(1, 2, width=10, height=3.2, sharey=True)
place = np.arange(len(groups))[::-1]
titles = ("all parameters", "at work on one token")
for axis, counts, title in zip(axes, (total, active), titles, strict=True):
    axis.barh(place, counts / 1e9, color=BLUE)
    for y, n in zip(place, counts, strict=True):
        axis.text(n / 1e9, y, f" {n / 1e9:.1f}", va="center")
    axis.set(
        title=f"{title}: {counts.sum() / 1e9:.1f} billion",
        xlabel="billions",
        xlim=(0, counts.max() * 1.15 / 1e9),
    )
axes[0].set_yticks(place, list(groups))
notebook.show(
    figure,
    "Two bar charts: all parameters by kind, 97 percent routed experts; and those at work on one "
    "token, led by experts and attention",
)

# %% [markdown]
# **The claim, checked.** "671B total parameters with 37B activated for each token" (V3 abstract): 671.03 and, depending on whether
# the input embedding counts, 36.63 or 37.55. Left, the experts are everything; right, attention holds its own: *a sparse
# model is, per token, a modest dense one*.

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
# The paper prints 250. And how does that compare with other models? Dense ones use every parameter on every token:

# %% tags=["picture"]
rows = models.comparison(T)
shown = ["DeepSeek-V2", "DeepSeek-V3", "Qwen2.5-72B", "Llama-3.1-405B"]
rows = [next(r for r in rows if r.name == name) for name in shown]
figure, (left, right) = notebook.picture(1, 2, width=10, height=2.8, sharey=True)
for axis, values, title, unit in (
    (left, [r.total / 1e9 for r in rows], "Parameters", "billions"),
    (right, [r.training_flops / 1e9 for r in rows], "Training work", "GFLOP per token"),
):
    axis.barh(shown[::-1], values[::-1], color=[ORANGE, ORANGE, BLUE, BLUE])
    for y, value in enumerate(values[::-1]):
        axis.text(value, y, f" {value:,.0f}", va="center")
    axis.set(title=title, xlabel=unit, xlim=(0, max(values) * 1.18))
notebook.show(
    figure,
    "Two bar charts: V3 has the most parameters of four models and needs a tenth of the work of "
    "the largest dense one",
)

# %% [markdown]
# **What to notice.** V3 has the most parameters in the left picture and the second least work in the right one. A dense model (orange)
# pays for every parameter on every token; V3 (blue) pays for one in eighteen.

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
# What would the same 14.8 trillion tokens cost with a dense model, at the same utilisation?


# %%
def dollars(flops_per_token, tokens=14.8e12, price=2.0, utilisation=0.3894):
    """Price of training: so many tokens at so much work, in dollars."""
    hours = tokens * flops_per_token / (989e12 * utilisation) / 3600
    return hours * price


for row in rows:
    print(f"{row.name:<15} {dollars(row.training_flops) / 1e6:6.2f} million dollars")
years = laptop.training_time(v3, 200e9).years
print(f"and on a laptop that sustains 200 GFLOP/s, V3's pre-training would take {years:,.0f} years")


# %% tags=["picture"]
def draw_bill(trillion_tokens=14.8, price=2.0, utilisation=0.3894):
    """Price of training four models."""
    figure, axis = notebook.picture(1, 1, width=8, height=2.4)
    bills = [
        dollars(r.training_flops, 1e12 * trillion_tokens, price, utilisation) / 1e6 for r in rows
    ]
    names = [r.name for r in rows]
    axis.barh(names[::-1], bills[::-1], color=[ORANGE, ORANGE, BLUE, BLUE])
    for y, value in enumerate(bills[::-1]):
        axis.text(value, y, f" {value:.1f}", va="center")
    axis.set(xlabel="million dollars", xlim=(0, 1.15 * max(bills)))
    axis.set_title(
        f"{trillion_tokens:g}T tokens, {price:g} $ an hour, {utilisation:.0%} utilisation"
    )
    notebook.show(
        figure, "Bars of training cost: V3 about 5 million dollars, Llama-3.1-405B about 53"
    )


draw_bill()

# %%
notebook.explore(
    draw_bill, trillion_tokens=(1, 30, 0.1), price=(0.5, 6, 0.1), utilisation=(0.1, 0.7, 0.01)
)

# %% [markdown]
# **What to notice.** A dense model of Llama's size would have cost ten times as much for the same tokens, and one of Qwen's size, a ninth of V3's parameters, nearly twice as much. (In a live session three sliders change tokens, price and utilisation: the bill is
# proportional to the first two and inversely to the third, and nothing else enters.)
#
# (How fast is *your* machine? `minids doctor` measures it; `laptop.measure_flops_per_second()` gives the number to put in place of 200.)

# %% [markdown]
# ## 4. What a conversation leaves behind
#
# While a model writes, every token it has read stays in memory, because later tokens attend to it. What is stored per token and layer is
# the subject of [notebook 4](notebooks/04_mha_to_mla.ipynb); here is only its size (V2 report, Table 1, with V3's heads):

# %%
kinds = kv_cache.by_kind(v3)
for kind in ("mha", "gqa", "mla", "mqa"):
    print(f"{kind.upper():<4} {kinds[kind]:>6,} numbers per token and layer")
print(f"V3 in BF16: 61 · 576 · 2 = {kv_cache.bytes_per_token(v3):,} bytes per token")
groups, times = kv_cache.gqa_equivalent_groups(v3), kv_cache.mha_over_mla(v3)
print(f"MLA caches as much as GQA with {groups} groups, and {times:.1f} times less than MHA")

# %% tags=["picture"]
contexts = 2 ** np.arange(10, 18)  # 1K … 128K tokens
figure, axis = notebook.picture(1, 1, width=8.5, height=3.8)
names = {"mha": "MHA, 128 heads", "gqa": "GQA, 8 groups", "mla": "MLA", "mqa": "MQA, 1 head"}
for (kind, label), colour in zip(names.items(), (BLACK, ORANGE, BLUE, GREEN), strict=True):
    gib = contexts * v3.num_hidden_layers * kinds[kind] * 2 / 2**30
    axis.loglog(contexts, gib, color=colour, label=label, lw=2)
    end = f"{label}: {gib[-1]:,.0f} GiB"
    axis.text(contexts[-1] * 1.08, gib[-1], end, color=colour, va="center")
axis.axhline(80e9 / 2**30, color="0.6", ls=":")
axis.text(1100, 92, "memory of one H800", color="0.4")
axis.set(xlabel="tokens in the conversation", ylabel="GiB of cache (BF16)", xlim=(1000, 900_000))
axis.set_title("One conversation with V3's sizes")
axis.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
axis.set_xticks(contexts[::2], [f"{c // 1024}K" for c in contexts[::2]])
notebook.show(
    figure,
    "Cache against context on two logarithmic axes: MHA 488 GiB at 128K tokens, GQA 30, MLA 9, "
    "MQA 4",
)

# %% [markdown]
# **What to notice.** All lines have the same slope: every kind of cache grows by so much a token, and what differs is how much. With ordinary heads *one* long conversation fills more than six GPUs; with MLA eight of them fit into one.
#
# **The claim, checked.** ISCA 2025, Table 1, prints 70.272 KB for V3, which is what we have, and multipliers of 4.66 for Qwen-2.5 72B and 7.28 for LLaMA-3.1 405B. The first multiplier is right; the second is not, by the table's own bytes:

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
batches = 2 ** np.arange(0, 13)
for users in (1, 32, 128, 4096):
    experts = flops.distinct_experts(v3, users)
    work = flops.decode_intensity(v3, 4096, users).flops_per_byte
    print(f"{users:>4} users: {experts:5.1f} experts a layer are read; {work:5.1f} FLOPs per byte")

# %% tags=["picture"]
figure, (left, right) = notebook.picture(1, 2, width=10, height=3.4)
left.semilogx(batches, [flops.distinct_experts(v3, int(b)) for b in batches], color=BLUE, base=2)
left.set(xlabel="tokens in the batch", ylabel="of 256", ylim=(0, 270))
left.set_title("Experts a layer has to read")
for context, colour in ((1024, SKY), (4096, BLUE), (32768, BLACK)):
    intensity = [flops.decode_intensity(v3, context, int(b)).flops_per_byte for b in batches]
    right.loglog(batches, intensity, color=colour, label=f"{context // 1024}K context", base=2)
right.axhline(295, color=ORANGE, ls=":")
right.text(1, 330, "an H800 can keep up to here", color=ORANGE)
right.set(xlabel="users in the batch", ylabel="FLOP per byte", ylim=(1, 1000))
right.set_title("Work per byte read, decoding")
right.set_yticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
for axis in (left, right):
    axis.set_xticks(batches[::2], batches[::2])
    axis.minorticks_off()
right.legend(frameon=False)
notebook.show(
    figure,
    "Left: experts read per layer rise to all 256 as the batch grows. Right: FLOPs per byte rise "
    "with the batch towards the machine's 295",
)

# %% [markdown]
# **What to notice.** The machine is busy only near its dotted line, far to the right; a single user leaves it idle for all but a hundredth of its time. Left: with 128 tokens nearly every expert is needed by someone; sparsity saves *work*, not *reading*. Right: this is why DeepSeek
# serves V3 from hundreds of GPUs at once (V3 section 3.4), so that each expert sees enough tokens to be worth reading.
#
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
# ## 6. Sixteen stages in a row: the pipeline
#
# V3 is spread over $PP = 16$ *pipeline stages*: each holds a few layers and hands its output on. A batch is cut into $M$ *micro-batches*, which follow each other
# through the stages. The first device must wait for the last one's
# gradients to come back; its idle time is the **bubble**. Write F, B and W for the time of a forward chunk, a full backward chunk, and the
# part of it that computes the weights' gradients. V3's Table 2:
#
# $$
# \text{1F1B: } (PP-1)(F+B) \qquad \text{ZB1P: } (PP-1)(F+B-2W) \qquad \text{DualPipe: } (\tfrac{PP}{2}-1)(F\&B + B - 3W)
# $$
#
# - **1F1B** alternates one forward, one backward.
# - **ZB1P** notices that only the *input's* gradient is waited for; weight gradients fill the gaps.
# - **DualPipe** (V3 section 3.2.1) feeds micro-batches from *both ends*, and runs a forward and a backward together (F&B) so that
#   each hides the other's communication. It stores every weight twice.
#
# [`analysis/pipeline.py`](minids/lab/analysis/pipeline.py) runs these schedules instruction by instruction. First a small one, to see the shapes:

# %% tags=["picture"]
SHADES = {"F": SKY, "B": ORANGE, "I": YELLOW, "W": GREEN}


def draw(axis, timeline):
    """One row per device, one box per instruction; overlapped pairs are two half-height boxes."""
    for s in timeline.slots:
        half = s.overlapped
        bottom = s.device + (0.0 if half and s.kind == "F" else 0.4 if half else 0.0)
        place, height = [(s.start, s.end - s.start)], (bottom - 0.4, 0.4 if half else 0.8)
        axis.broken_barh(place, height, facecolor=SHADES[s.kind], edgecolor="white", lw=0.4)
    devices = len(timeline.idle)
    axis.set(ylim=(devices - 0.5, -0.5), yticks=range(devices), xlim=(0, None), ylabel="device")
    name, length, bubble = timeline.schedule, timeline.makespan, timeline.bubble
    axis.set_title(f"{name}: {length:g} units, bubble {bubble:g}", fontsize=11)
    axis.grid(False)


figure, axes = notebook.picture(3, 1, width=10, height=6, sharex=True)
for axis, schedule in zip(axes, ("1F1B", "ZB1P", "DualPipe"), strict=True):
    draw(axis, pipeline.simulate(schedule, 4, 10))
axes[-1].set_xlabel("time, in units of one forward chunk (F = W = 1, B = 2, F&B = 3)")
handles = [Rectangle((0, 0), 1, 1, color=SHADES[k]) for k in "FBIW"]
kinds = ["forward", "backward", "its input part", "its weight part"]
above = {"ncols": 4, "loc": "lower right", "bbox_to_anchor": (1, 1), "frameon": False}
axes[0].legend(handles, kinds, **above)
notebook.show(
    figure,
    "Timelines of 1F1B, ZB1P and DualPipe on four devices; the white gaps shrink from the first "
    "to the last",
)

# %% [markdown]
# **What to notice.** White is waiting. In 1F1B device 0 waits for the first backward pass to come back through all others, and at the end everybody waits again. ZB1P keeps green boxes, work that nobody waits for, and fills the end with them. DualPipe starts at both ends, so the
# triangles in front are half as long; half-height boxes are pairs that run as one. Now at V3's size, 16 stages, simulated and by formula:

# %%
print("schedule   bubble  formula  idle share  micro-batches held  copies of the model")
for schedule in ("1F1B", "ZB1P", "DualPipe"):
    line, form = pipeline.simulate(schedule, 16, 64), pipeline.closed_form(schedule, 16)
    held, copies = max(line.peak_activations), form.parameters
    print(f"{schedule:<9} {line.bubble:>7g}  {form.bubble:>7g}  {line.bubble_share:>10.1%}", end="")
    print(f"  {held:>18}  {copies:>19}")

# %% [markdown]
# **The claim, checked.** Table 2's three formulas give 45, 15 and 14, and so do the simulations. **What to notice:** with these times
# DualPipe saves just one unit over ZB1P; its point is the communication hidden inside F&B, which no bubble formula shows. Make
# F&B cheaper than F + B and watch:

# %% tags=["picture"]
share = np.linspace(2.0, 3.0, 11)
figure, axis = notebook.picture(1, 1, width=8, height=3)
times = [pipeline.Times(overlapped=s) for s in share]
bubbles = [pipeline.closed_form("DualPipe", 16, t).bubble for t in times]
axis.plot(share, bubbles, color=BLUE, label="DualPipe")
for schedule, colour in (("1F1B", BLACK), ("ZB1P", ORANGE)):
    axis.axhline(pipeline.closed_form(schedule, 16).bubble, color=colour, label=schedule)
axis.set(xlabel="time of an overlapped pair F&B (F + B = 3)", ylabel="bubble", ylim=(0, 50))
axis.set_title("16 stages")
axis.legend(frameon=False)
notebook.show(
    figure,
    "Bubble of DualPipe against the time of an overlapped pair, below ZB1P's 15 and far below "
    "1F1B's 45",
)

# %% [markdown]
# If everything could be hidden in the pair (F&B = 2, the time of the backward pass alone), DualPipe's bubble would be half of ZB1P's.
#
# ## 7. What need not be kept, and who sits where
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
# ## 8. Turn the knobs
#
# How much memory does a server need? Weights once, cache per user. In a live session sliders appear below the picture: context, users, and the type of the cache.


# %% tags=["picture"]
def serving(context_k=32, users=64, cache="bf16"):
    """Draw weights and cache in units of one 80 GB GPU."""
    sizes = {"MLA": v3, "MHA": v3.replace(attention="mha")}
    figure, axis = notebook.picture(1, 1, width=8, height=1.9)
    for row, config in enumerate(sizes.values()):
        weights = parameters.total(v3) / 80e9  # FP8: one byte each
        held = kv_cache.cache_bytes(config, context_k * 1024, users, cache) / 80e9
        axis.barh(row, weights, color=BLUE)
        axis.barh(row, held, left=weights, color=ORANGE)
        axis.text(weights + held, row, f" {np.ceil(weights + held):,.0f} GPUs", va="center")
    axis.set_yticks([0, 1], list(sizes))
    axis.set_xlabel("80 GB GPUs filled by FP8 weights (blue) and cache (orange)")
    axis.set_title(f"{users} users with {context_k}K tokens each, cache in {cache.upper()}")
    axis.margins(x=0.15)
    notebook.show(figure, "Bars: GPUs filled by weights and by cache, with MLA and with MHA")


serving()

# %%
notebook.explore(serving, context_k=(1, 128), users=(1, 512), cache=["bf16", "fp8"])

# %% [markdown]
# **What to notice.** With MLA the weights decide how many GPUs are needed, with ordinary heads the conversations do: 64 users of 32K tokens need thirteen times the machines. That is what "latent" buys.

# %% [markdown]
# ## Exercises
#
# The [exercise version](notebooks/exercises/13_what_it_costs.ipynb) of this page has stubs in place of the solutions. Each check says what is
# wrong.
#
# ### 1. Count an attention layer
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
# ### 2. Run 1F1B yourself
#
# Write `one_f_one_b(stages, microbatches, f, b)`: the total time of the schedule, and the most micro-batches that device 0 holds at a time (their forwards done, their backwards not). Device $s$ first runs $\min(PP - 1 - s, M)$ forwards, then
# alternates one forward and one backward, then finishes the backwards. A forward may start when the stage before has finished the same micro-batch; a
# backward when the stage behind has (and its own forward is done).


# %% tags=["solution"]
def one_f_one_b(stages, microbatches, f, b):
    """Time from the first forward to the last backward; most micro-batches that device 0 holds."""
    programmes = []
    for s in range(stages):
        ahead = min(stages - 1 - s, microbatches)
        order = [("F", m) for m in range(ahead)]
        for m in range(microbatches):
            order += [("F", m + ahead)] if m + ahead < microbatches else []
            order.append(("B", m))
        programmes.append(order)
    end, clock, held, most = {}, [0.0] * stages, 0, 0
    while any(programmes):
        for s, order in enumerate(programmes):
            while order:
                kind, m = order[0]
                if kind == "F":
                    needs = [("F", s - 1, m)] if s else []
                else:
                    needs = [("F", s, m)] + ([("B", s + 1, m)] if s + 1 < stages else [])
                if any(need not in end for need in needs):
                    break
                start = max([clock[s], *(end[need] for need in needs)])
                clock[s] = start + (f if kind == "F" else b)
                end[kind, s, m] = clock[s]
                if s == 0:
                    held += 1 if kind == "F" else -1
                    most = max(most, held)
                order.pop(0)
    return max(clock), most


# %% tags=["check"]
def simulated(stages, microbatches, f, b):
    """The package's simulator."""
    times = pipeline.Times(f, b, b / 2, f + b)
    run = pipeline.simulate("1F1B", stages, microbatches, times)
    return run.makespan, run.peak_activations[0]


cases = [(4, 10, 1.0, 2.0), (16, 64, 1.0, 2.0), (5, 2, 1.5, 2.5)]
check.ok(check.against(simulated, one_f_one_b, cases))

# %% [markdown]
# ### 3. When does absorbing stop paying?
#
# Decoding with the absorbed trick ([notebook 5](notebooks/05_mla_inside.ipynb)) costs $2H(2d_c + d_r)$ FLOPs per query–key pair; expanding a cached latent into keys and values costs
# $2 d_c H (d_{nope} + d_v)$ once per key, and then $2H(d_{nope} + d_r + d_v)$ per pair. Below how many new tokens at once (queries per key) is the
# absorbed form cheaper? Write `break_even(c)`.


# %% tags=["solution"]
def break_even(c):
    """Queries per key at which both cost the same."""
    once = c.kv_lora_rank * (c.qk_nope_head_dim + c.v_head_dim)
    absorbed = 2 * c.kv_lora_rank + c.qk_rope_head_dim  # per pair and head, halved
    expanded = c.qk_nope_head_dim + c.qk_rope_head_dim + c.v_head_dim
    return once / (absorbed - expanded)


# %% tags=["check"]
cases = [(v3,), (v3.replace(kv_lora_rank=256),), (v3.replace(v_head_dim=96),)]
check.ok(check.against(flops.absorption_pays_until, break_even, cases))

# %% [markdown]
# ### What a wrong answer looks like
#
# Forgetting that the rotary key is *one for all heads* is the most common slip in exercise 1. The check says so in numbers:


# %%
def forgetful(c):
    """Counts a rotary key for every head."""
    return from_the_list(c) + c.hidden_size * c.qk_rope_head_dim * (c.num_attention_heads - 1)


notebook.caught(check.against(from_the_list, forgetful, [(c,) for c in configs]))

# %% [markdown]
# ## Where to read on
#
# - Every printed number of the papers that is arithmetic, recomputed in one list: [`analysis/claims.py`](minids/lab/analysis/claims.py), or
#   `minids info --preset deepseek-v3` on the command line, each with its formula and source.
# - V3 report: sections 2.1 (architecture), 3.2 (DualPipe), 3.4 (deployment), 4.2 (sizes), Table 1 (cost), Table 2 (pipelines).
# - ISCA 2025 paper: sections 2.2 (FLOPs), 2.3 (speed limits).
