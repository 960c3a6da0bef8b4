# %% [markdown]
# # 14. The museum of mistakes
#
# You have written DeepSeek-V3 from the paper. The shapes are right, every gradient is non-zero, and the loss falls. **Is it right?**

# %% [markdown]
# Probably not, and this notebook shows why. Its exhibits are mistakes that were each found in real, public implementations. All of them keep
# the shapes, all let the loss fall, and most of them even pass a gradient check, because their backward pass is the correct derivative of a
# *wrong forward pass*. For each you will see what it does wrong, its symptom drawn, the cheap check that does **not** notice, and the one
# that does.
#
# The mistakes live in [`minids/mistakes.py`](minids/mistakes.py): each is a few wrong lines that replace right ones. `with made(mistake):`
# puts one in and takes it out again. The test suite ([`tests/guards`](tests/guards/test_every_mistake_is_noticed.py)) does the same with every one of them and demands that a named
# test fails; that is how a test suite is itself tested.
#
# Code used here: [`mistakes.py`](minids/mistakes.py), [`pico.py`](minids/pico.py), [`ops/`](minids/ops/), [`layers/`](minids/layers/),
# [`inference/cache.py`](minids/inference/cache.py), [`inference/decode.py`](minids/inference/decode.py),
# [`training/batches.py`](minids/training/batches.py), [`training/metrics.py`](minids/training/metrics.py),
# [`analysis/kv_cache.py`](minids/analysis/kv_cache.py). Paper:
# [DeepSeek-V3 technical report](https://arxiv.org/abs/2412.19437).

# %%
import tempfile

import numpy as np

import minids
from minids import ModelConfig, Yarn, check, mistakes, notebook, pico
from minids.analysis import kv_cache
from minids.inference.cache import LatentCache
from minids.inference.decode import read
from minids.mistakes import MISTAKES, made
from minids.ops import balance_loss, bias_update, rope, router, yarn
from minids.training.batches import Batches, TokenStream
from minids.training.metrics import max_violation

notebook.set_up()
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK = notebook.COLOURS
print(len(MISTAKES), "exhibits")

# %% [markdown]
# ## 1. What everybody checks
#
# Here is a whole DeepSeek-V3 that fits on a stamp: a dense block, a block with 8 experts in 4 groups, two MTP modules, YaRN, all losses on.

# %%
stamp = ModelConfig(
    vocab_size=19, hidden_size=12, num_hidden_layers=2, first_k_dense_replace=1, intermediate_size=10,
    moe_intermediate_size=6, num_attention_heads=4, q_lora_rank=7, kv_lora_rank=5, qk_nope_head_dim=6,
    qk_rope_head_dim=4, v_head_dim=3, n_routed_experts=8, num_experts_per_tok=3, n_group=4, topk_group=2,
    max_position_embeddings=64, num_nextn_predict_layers=2, initializer_range=0.3, bos_token_id=None,
    eos_token_id=None, aux_loss_alpha=0.001, mtp_loss_weight=0.7, rope_theta=10.0,
    rope_scaling=Yarn(factor=8.0, original_max_position_embeddings=40, beta_fast=6.0, beta_slow=0.25, mscale=1.2, mscale_all_dim=0.8),
)  # fmt: skip


def build(config=stamp, seed=0, dtype=np.float64, lively=True):
    """A model; ``lively``: norm gains and routing biases are random too, because at 1 and 0 they hide mistakes."""
    model = minids.DeepSeekV3(config, seed, dtype)
    rng = np.random.default_rng(seed + 1)
    if lively:
        for p in model.parameters:
            if p.init == "ones":
                p.value[...] = rng.uniform(0.5, 1.5, p.shape)
        for bias in model.parameters.buffers.values():
            bias[...] = rng.normal(0, 0.2, bias.shape)
    return model


def text(config=stamp, size=3, length=8, seed=2):
    """Tokens and the tokens that follow them, (B, T) each."""
    whole = np.random.default_rng(seed).integers(0, config.vocab_size, (size, length + 1))
    return whole[:, :-1], whole[:, 1:]


# %% [markdown]
# Three checks that every repository has. Each returns whether all looks well:


# %%
def shapes_look_right():
    """Logits, MTP logits and gradients have the shapes they should, and no NaN."""
    model, (tokens, targets) = build(), text()
    gradients = model.loss_and_grads(tokens, targets)[1]
    return (
        model.logits(tokens).shape == (3, 8, 19)
        and [x.shape for x in model.mtp_logits(tokens)] == [(3, 7, 19), (3, 6, 19)]
        and all(
            gradients[p.name].shape == p.shape and np.isfinite(gradients[p.name]).all()
            for p in model.parameters
        )
    )


def gradients_look_alive():
    """Every parameter gets a gradient."""
    return all(g.any() for g in build().loss_and_grads(*text())[1].values())


def train(model, tokens, targets, steps=25, rate=0.01, fresh=None):
    """Plain Adam; ``fresh``, a generator, draws new random text at every step. Returns the losses of all steps."""
    values, m, v, history = model.parameters.values, 0.0, 0.0, []
    for step in range(1, steps + 1):
        if fresh is not None:
            whole = fresh.integers(
                0, model.config.vocab_size, (tokens.shape[0], tokens.shape[1] + 1)
            )
            tokens, targets = whole[:, :-1], whole[:, 1:]
        model.parameters.zero_grads()
        history.append(model.forward_backward(tokens, targets))
        g = model.parameters.grads
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        values -= rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.99**step)) + 1e-8)
        model.update_biases(history[-1].counts, model.config.bias_update_speed)
    return history


def loss_falls():
    """Every loss falls by a quarter within 25 steps on one batch."""
    history = train(build(lively=False), *text())
    first, last = history[0], history[-1]
    return last.main < 0.75 * first.main and all(
        b < 0.8 * a for a, b in zip(first.mtp, last.mtp, strict=True)
    )


# %% [markdown]
# And two that only careful people have: central differences of the total loss, and an *independent* implementation to compare with. Ours is
# [`pico.py`](minids/pico.py), the whole forward pass on one page, written apart from the package.


# %%
def central_differences_agree():
    """Along random directions, with the choice of experts held still, the gradient is the slope of the loss."""
    model, (tokens, targets) = build(), text()
    frozen = model.choices(tokens, targets)
    model.loss_and_grads(tokens, targets, chosen=frozen)
    start, rng, h = model.parameters.values.copy(), np.random.default_rng(5), 1e-3
    gradient = model.parameters.grads.copy()
    for _ in range(4):
        direction = rng.standard_normal(start.shape)
        direction /= np.sqrt(np.sum(direction**2))
        loss = {}
        for step in (-2, -1, 1, 2):
            model.parameters.values[...] = start + step * h * direction
            loss[step] = model.losses(tokens, targets, chosen=frozen).total
        slope = (8 * (loss[1] - loss[-1]) - (loss[2] - loss[-2])) / (12 * h)
        if abs(slope - gradient @ direction) > 1e-6 * np.sqrt(np.mean(gradient**2)):
            return False
    return True


def another_implementation_agrees():
    """pico gives the same logits, at every MTP depth too."""
    model, tokens = build(), text(length=16)[0]
    weights = {p.name: p.value for p in model.parameters} | model.parameters.buffers
    hidden = pico.hidden_states(tokens[:1], weights, stamp)
    pairs = [(model.logits(tokens[:1]), pico.deepseek_v3(tokens[:1], weights, stamp))]
    for depth, logits in enumerate(model.mtp_logits(tokens[:1]), start=1):
        pairs.append((logits, pico.mtp_logits(tokens[:1], hidden, weights, stamp, depth)))
    return all(np.abs(a - b).max() < 1e-9 for a, b in pairs)


CHECKS = {
    "shapes": shapes_look_right, "gradients\nnot zero": gradients_look_alive, "falling\nloss": loss_falls,
    "central\ndifferences": central_differences_agree, "another\nimplementation": another_implementation_agrees,
}  # fmt: skip
for name, run in CHECKS.items():
    print(f"{name.replace(chr(10), ' '):<24} on the right model: {run()}")

# %% [markdown]
# Now put in each mistake and ask all five.

# %%
noticed = np.zeros((len(MISTAKES), len(CHECKS)), dtype=bool)
for row, mistake in enumerate(MISTAKES):
    with made(mistake.put_in):
        noticed[row] = [not run() for run in CHECKS.values()]

figure, axis = notebook.picture(width=8, height=4.9)
axis.imshow(noticed, cmap="Blues", vmin=0, vmax=1.4, aspect="auto")
for (row, column), caught in np.ndenumerate(noticed):
    axis.text(
        column,
        row,
        "●" if caught else "·",
        ha="center",
        va="center",
        color="white" if caught else "0.6",
        fontsize=9,
    )
axis.set_xticks(range(len(CHECKS)), list(CHECKS))
axis.xaxis.tick_top()
axis.set_yticks(range(len(MISTAKES)), [m.put_in.__name__.replace("_", " ") for m in MISTAKES])
axis.grid(False)
notebook.show(
    figure,
    "Mistakes and checks: the three usual checks notice one mistake, central differences five, another implementation twelve",
)
for name, count in zip(CHECKS, noticed.sum(axis=0), strict=True):
    print(f"{name.replace(chr(10), ' '):<24} notices {count:2d} of {len(MISTAKES)}")
print("noticed by none of them:", int((~noticed.any(axis=1)).sum()))

# %% [markdown]
# **What to notice.** The first three columns are almost empty. A falling loss notices *nothing*: a wrong network is a network too, and learns. Central differences
# find five, those whose two halves disagree; where the backward pass is the true derivative of a wrong forward pass, they are content. Another implementation finds what
# changes a logit of *one forward pass*, and nothing about balance, training, caches or resuming. Seven mistakes pass all five checks. For them
# somebody has to have thought of the mistake: that is what the exhibits are for.
#
# ## 2. Room one: the router
#
# [`ops/router.py`](minids/ops/router.py), V3 eqs 13–16. The bias $b_i$ decides *who is chosen* and has no say in *how much they count*:
#
# $$ \mathcal{T} = \text{top-}K_r(s_i + b_i), \qquad g_i = 2.5\, s_i \big/ \textstyle\sum_{j\in\mathcal{T}} s_j , \qquad s_i = \sigma(u^\top e_i)$$
#
# Three mistakes: gates from $s_i + b_i$; a softmax for $s_i$ (V2's choice, not V3's); forbidden groups set to 0 instead of $-\infty$.

# %%
rng = np.random.default_rng(0)
logits = rng.normal(0, 1, (1, 8))  # (N, E): one token, eight experts


def gate_of_the_favourite(b):
    """The gate of the expert with the largest score, after its bias was raised by b."""
    bias = np.zeros(8)
    bias[logits.argmax()] = b
    return router.forward(logits, bias, 3, scale=2.5)[0].gates[0, 0]


def score_of_a_bystander(push):
    """The score of expert 0 when another expert's logit grows."""
    pushed = logits.copy()
    pushed[0, 5] += push
    return router.forward(pushed, None, 3)[0].scores[0, 0]


def share_of_forbidden(level):
    """Share of choices outside the two groups that the token may use, when all biases are lowered by ``level``."""
    many = np.random.default_rng(1).normal(0, 1, (400, 16))
    biased = 1 / (1 + np.exp(-many)) - level
    chosen = router.choose(biased, 4, n_group=4, topk_group=2)
    grouped = biased.reshape(400, 4, 4)
    kept = np.argsort(-np.sort(grouped, axis=-1)[..., -2:].sum(-1), axis=-1, kind="stable")[:, :2]
    return np.mean(~(chosen[..., None] // 4 == kept[:, None, :]).any(-1))


exhibits = [
    (mistakes.gates_from_biased_scores, gate_of_the_favourite, 0.6, "bias of the best expert", "its gate"),
    (mistakes.softmax_gate, score_of_a_bystander, 4, "another expert's logit grows by", "score of expert 0"),
    (mistakes.forbidden_groups_set_to_zero, share_of_forbidden, 1, "all biases lowered by", "choices in forbidden groups"),
]  # fmt: skip
figure, axes = notebook.picture(1, 3, width=8.4, height=2.7)
for axis, (mistake, measure, most, xlabel, ylabel) in zip(axes, exhibits, strict=True):
    where = np.linspace(0, most, 25)
    axis.plot(where, [measure(x) for x in where], color=BLUE, label="right")
    with made(mistake):
        axis.plot(where, [measure(x) for x in where], color=ORANGE, ls="--", label="mistake")
    axis.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, None) if axis is not axes[2] else (-0.05, 1))
    axis.set_title(mistake.__name__.replace("_", " "), fontsize=10)
axes[0].legend()
notebook.show(
    figure,
    "Three plots: the right curves are flat, the wrong ones move with the bias, with a bystander's logit, and with lowered biases",
)

# %% [markdown]
# **Symptoms.** Left: balancing leaks into the output, so a busy expert is not only chosen less but also *counts* less. Middle: under softmax experts
# compete inside the score, and a bias of 0.001 a step no longer means the same everywhere. Right: scores lie in $(0,1)$; as soon as biases are
# negative enough, a forbidden expert's 0 beats an allowed one's $-0.1$, and tokens travel to nodes they must not touch. This one was in
# DeepSeek's own demo code until February 2025.
#
# **Caught by** a test that changes only the bias and asks for the same gates; one that raises another logit and asks for the same score; one whose
# biased scores are all negative. **Not caught by** any test with a bias of zero: with $b = 0$ the first and the third are *correct*.
#
# ## 3. Room two: the bias has its times
#
# [`ops/bias_update.py`](minids/ops/bias_update.py), V3 section 2.1.2. After an optimizer step, $b_i \leftarrow b_i + \gamma\,\mathrm{sign}(\bar c - c_i)$: an
# overloaded expert goes *down*, once per step, and never in evaluation.


# %%
def balance_over_time(steps=100, speed=0.01):
    """MaxVio (most loaded expert's excess over the mean) while the bias is at work on a router that prefers a few experts."""
    source, bias, found = np.random.default_rng(3), np.zeros(16, np.float32), []
    favour = np.linspace(-1, 1, 16)  # (E,): some experts are simply liked better
    for _ in range(steps):
        routing, _ = router.forward(source.normal(0, 1, (256, 16)) + favour, bias, 4)
        counts = np.bincount(routing.chosen.reshape(-1), minlength=16)
        found.append(max_violation(counts[None])[0])
        bias = bias_update.updated(bias, counts, speed)
    return np.array(found)


def bias_after(calls, what):
    """Largest routing bias after calling a method of the model again and again, with no optimizer step at all."""
    model, (tokens, targets) = build(lively=False), text()
    found = []
    for _ in range(calls):
        getattr(model, what)(tokens, targets)
        found.append(max(np.abs(b).max() for b in model.parameters.buffers.values()))
    return found


figure, (left, right) = notebook.picture(1, 2, width=8.4, height=2.7)
left.plot(balance_over_time(), color=BLUE, label="right")
with made(mistakes.bias_moved_the_wrong_way):
    left.plot(balance_over_time(), color=ORANGE, ls="--", label="bias moved the wrong way")
left.set(xlabel="step", ylabel="MaxVio (0 is balanced)", ylim=(0, None))
left.legend()
right.plot(bias_after(40, "losses"), color=BLUE, label="right: no step, no change")
with made(mistakes.bias_updated_in_evaluation):
    right.plot(bias_after(40, "losses"), color=ORANGE, ls="--", label="updated in evaluation")
with made(mistakes.bias_updated_in_every_backward_pass):
    right.plot(
        bias_after(40, "forward_backward"),
        color=PINK,
        ls=":",
        lw=3,
        label="updated with every micro-batch",
    )
right.set(xlabel="calls without an optimizer step", ylabel="largest |bias|")
right.legend()
notebook.show(
    figure,
    "Left: imbalance falls with the right rule and rises with the wrong sign. Right: the bias creeps where it should rest",
)

# %% [markdown]
# **Symptoms.** Left: with the wrong sign the imbalance feeds itself, until a handful of experts get everything and the others starve. Right: a validation
# pass changes the model, so that the second evaluation gives another loss than the first; with 8 micro-batches a step, $\gamma$ is 8 times what you set.
#
# **Caught by** "the overloaded expert's bias goes down", and "the whole model, buffers included, has the same bits after an evaluation".
# **Not caught by** comparing only *parameters* before and after: the bias is a buffer.
#
# Two more in the same room. The balance loss (V3 eqs 17–20) computed from *detached* scores adds a number to the loss and nothing to the
# gradient. And the residual: V3's eq. 12 writes $h'_t = u_t + \dots$, so some MoE layers add their input, and the block around them adds it again.

# %%
scores = 1 / (
    1 + np.exp(-np.random.default_rng(4).normal(0, 1, (32, 8)) - np.linspace(1, -1, 8))
)  # (N, E)
chosen = router.choose(scores, 2)
counts = np.bincount(chosen.reshape(-1), minlength=8)


def push_on_each_expert():
    """Gradient of the balance loss by the scores, averaged over tokens, (E,): positive pushes down."""
    return balance_loss.backward(1.0, balance_loss.forward(scores, chosen, 32)[1]).mean(axis=0)


def size_through_the_blocks():
    """rms of the residual stream after each block of a deep, untrained model."""
    deep = stamp.replace(num_hidden_layers=10, initializer_range=0.05, num_nextn_predict_layers=0)
    model, found = build(deep, lively=False), []
    x = model.embed_tokens.forward(text(deep, 4, 16)[0])[0]
    for block in model.blocks:
        x, _ = block.forward(x, model.rotary(16))
        found.append(np.sqrt(np.mean(x * x)))
    return found


figure, (left, right) = notebook.picture(1, 2, width=8.4, height=2.7)
left.bar(np.arange(8) - 0.2, push_on_each_expert(), 0.4, color=BLUE, label="right")
with made(mistakes.balance_loss_from_detached_scores):
    left.bar(
        np.arange(8) + 0.2, push_on_each_expert(), 0.4, color=ORANGE, label="detached: 0 everywhere"
    )
left.set(xlabel="expert (from the most to the least loaded)", ylabel="gradient on its score")
left.legend()
right.plot(range(1, 11), size_through_the_blocks(), color=BLUE, marker="o", label="right")
with made(mistakes.residual_inside_the_moe_layer):
    right.plot(
        range(1, 11),
        size_through_the_blocks(),
        color=ORANGE,
        ls="--",
        marker="o",
        label="residual added twice",
    )
right.set(xlabel="block", ylabel="rms of the stream", ylim=(0, None))
right.legend()
notebook.show(
    figure,
    "Left: the right gradient pushes loaded experts down, the detached one is zero. Right: with the doubled residual the stream grows",
)

# %% [markdown]
# **Caught by** "every score, chosen or not, gets a gradient from the balance loss alone", and by comparing one MoE layer with the paper's sum written out.
#
# ## 4. Room three: latent attention
#
# [`layers/mla.py`](minids/layers/mla.py), V3 eqs 1–5. One rotary key $k^R_t = \mathrm{RoPE}(W^{KR} h_t)$ is shared by *all* heads and comes from the hidden state. Its gradient is
# therefore a **sum over the heads**. Three mistakes: a key per head; a key made from the latent; the gradient of one head only. And a fourth, which is no wrong
# line but a wrong idea: caching the expanded keys and values.

# %%
v3 = ModelConfig.preset("deepseek-v3")
cached = {
    "MLA: latent + one rotary key": kv_cache.mla_elements(v3),
    "a rotary key per head": v3.kv_lora_rank + v3.num_attention_heads * v3.qk_rope_head_dim,
    "\"MLA\" that caches keys and values": kv_cache.full_elements(v3),
}  # fmt: skip


def gradient_of_rotary_rows():
    """Gradient of the rows of kv_a_proj that make the rotary key, first block, (d_r, d)."""
    model = build()
    gradients = model.loss_and_grads(*text())[1]
    return gradients["model.layers.0.self_attn.kv_a_proj_with_mqa.weight"][stamp.kv_lora_rank :]


right_gradient = gradient_of_rotary_rows()
figure, (left, right) = notebook.picture(1, 2, width=8.4, height=2.7)
left.barh(list(cached)[::-1], list(cached.values())[::-1], color=[ORANGE, ORANGE, BLUE], log=True)
for y, value in enumerate(list(cached.values())[::-1]):
    left.text(value, y, f" {value:,}", va="center")
left.set(xlabel="cached per token and layer, V3's sizes", xlim=(100, 400_000))
right.plot([-1, 1], [-1, 1], color="0.8", zorder=0)
styles = {
    mistakes.rope_key_gradient_of_one_head: (ORANGE, "x"),
    mistakes.rope_key_per_head: (PINK, "s"),
    mistakes.rope_key_from_the_latent: (GREEN, "^"),
}
for mistake, (colour, marker) in styles.items():
    with made(mistake):
        wrong = gradient_of_rotary_rows()
    right.scatter(
        right_gradient,
        wrong,
        color=colour,
        marker=marker,
        s=18,
        label=mistake.__name__.replace("_", " "),
    )
limit = 1.15 * np.abs(right_gradient).max()
right.set(
    xlim=(-limit, limit),
    ylim=(-limit, limit),
    xlabel="right gradient of the rotary key's rows",
    ylabel="with the mistake",
)
right.legend(fontsize=8)
notebook.show(
    figure,
    "Left: 576 numbers cached, 8,704 with a key per head, 40,960 with keys and values. Right: wrong gradients off the diagonal",
)

# %% [markdown]
# **Symptoms.** Left: the point of MLA is gone. Right: with one head's gradient the points scatter off the diagonal; with the other two mistakes the rows of
# `kv_a_proj_with_mqa` that should make the key get exactly zero gradient. "Gradients not zero" still passes, because the *same matrix* also holds the
# latent's rows: **look at parts, not at tensors**.
#
# What would the learner's check say about the missing sum?

# %%
H = 4


def scores_with_a_shared_key(q, k):
    """q (T, H, d_r), one key for all heads k (T, d_r) → (H, T, T)."""
    return np.einsum("thr,sr->hts", q, k)


def backward_of_one_head(dy, saved):
    """dq is right; dk takes head 0 alone and forgets the others."""
    q, k = saved
    return np.einsum("hts,sr->thr", dy, k), np.einsum("ts,tr->sr", dy[0], q[:, 0])


def backward_averaged(dy, saved):
    """dk is the mean over heads where it should be the sum."""
    q, k = saved
    return np.einsum("hts,sr->thr", dy, k), np.einsum("hts,thr->sr", dy, q) / H


arrays = {"q": rng.normal(size=(5, H, 6)), "k": rng.normal(size=(5, 6))}
notebook.caught(
    check.gradient(scores_with_a_shared_key, backward_averaged, arrays, hints={"n_heads": H})
)

# %% [markdown]
# ## 5. Room four: positions
#
# [`ops/rope.py`](minids/ops/rope.py), [`ops/yarn.py`](minids/ops/yarn.py), V3 section 4.3. All these are right at position 0 and wrong later, which is exactly where nobody looks.

# %%
pairs = np.arange(32)
arguments = (
    64,
    10000.0,
    40.0,
    4096,
    32.0,
    1.0,
)  # d_r, base, factor, original length, β_fast, β_slow
distance = np.arange(0, 60)
q, k = np.random.default_rng(6).normal(size=(2, 1, 1, 1, 64))


def logit_by_distance():
    """q · k when the key stands ``distance`` tokens before the query."""
    cos, sin = yarn.rotation_table(yarn.plain_frequencies(64, 10000.0), distance)
    turned = rope.forward(np.repeat(q, len(distance), axis=1), cos, sin)[0]
    return turned[0, :, 0] @ k[0, 0, 0]


def keys_that_count(length):
    """Effective number of keys a query attends to: e to the entropy of its softmax."""
    scale = 192**-0.5 * yarn.mscale(40.0, 1.0) ** 2
    z = np.random.default_rng(7).normal(0, 1, (200, length)) * 192**0.5 * scale
    p = np.exp(z - z.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return np.exp(-(p * np.log(p)).sum(-1)).mean()


figure, (left, middle, right) = notebook.picture(1, 3, width=8.4, height=2.8)
left.semilogy(pairs, yarn.plain_frequencies(64, 10000.0), color="0.7", label="no YaRN")
left.semilogy(pairs, yarn.yarn_frequencies(*arguments), color=BLUE, label="YaRN")
for mistake, colour, label in (
    (mistakes.linear_interpolation_as_yarn, ORANGE, "linear"),
    (mistakes.yarn_with_a_reversed_ramp, PINK, "reversed ramp"),
):
    with made(mistake):
        left.semilogy(pairs, yarn.yarn_frequencies(*arguments), color=colour, ls="--", label=label)
left.set(xlabel="pair i of 32", ylabel="radians per token")
left.legend(fontsize=8)
middle.plot(distance, logit_by_distance(), color=BLUE, label="right layout")
with made(mistakes.rope_in_the_other_layout):
    middle.plot(distance, logit_by_distance(), color=ORANGE, ls="--", label="the other layout")
middle.set(xlabel="distance", ylabel="query · key")
middle.legend(fontsize=8)
lengths = [128, 512, 2048, 8192]
right.loglog(
    lengths, [keys_that_count(n) for n in lengths], color=BLUE, marker="o", label="with mscale"
)
with made(mistakes.yarn_without_mscale):
    right.loglog(
        lengths,
        [keys_that_count(n) for n in lengths],
        color=ORANGE,
        ls="--",
        marker="o",
        label="without",
    )
right.set(xlabel="keys in the context", ylabel="keys that count")
right.legend(fontsize=8)
notebook.show(
    figure,
    "Frequencies under four rules; the logit against distance in two layouts; how widely attention spreads with and without mscale",
)

# %% [markdown]
# **Symptoms.** Left: linear interpolation also slows the *fast* pairs (left end), which tell neighbours apart; the reversed ramp slows only those. Middle: both curves start at the same
# point, since at distance 0 nothing is turned; with one's own weights either layout trains equally well, and only a *checkpoint* of the other kind shows the error. Right: without the factor
# $m^2 = 1.3689^2 = 1.874$ on the logits attention over a long context is too flat.
#
# **Caught by** numbers: V3's $\theta'_{16} = 0.0055$, its cut-offs 10 and 23, its softmax scale 0.13523. **Not caught by** "the norm is kept" or "only the relative position counts": both hold for every one of them.
#
# ## 6. Room five: multi-token prediction
#
# [`layers/mtp.py`](minids/layers/mtp.py), V3 eqs 21–25. Module $k$ takes $h^{k-1}_i$ and the embedding of $t_{i+k}$, runs **a block of its own**, and predicts $t_{i+k+1}$.
# Who depends on whom? Change the block of module 1 or of module 2 and see which logits move:


# %%
def dependence():
    """How much the logits of depth 1 and 2 move when the attention output of module 1 or module 2 is disturbed, (2, 2)."""
    model, tokens = build(), text()[0]
    before, moved = model.mtp_logits(tokens), np.zeros((2, 2))
    for module in range(2):
        weight = model.parameters[
            f"model.layers.{stamp.num_hidden_layers + module}.self_attn.o_proj.weight"
        ].value
        weight += 0.3
        moved[module] = [
            np.abs(a - b).max() for a, b in zip(model.mtp_logits(tokens), before, strict=True)
        ]
        weight -= 0.3
    return moved


figure, axes = notebook.picture(1, 3, width=8.4, height=2.3)
for axis, mistake in zip(
    axes, (None, mistakes.mtp_head_without_the_block, mistakes.parallel_mtp_heads), strict=True
):
    if mistake is None:
        moved = dependence()
    else:
        with made(mistake):
            moved = dependence()
    axis.imshow(moved > 1e-12, cmap="Blues", vmin=0, vmax=1.5)
    for (row, column), value in np.ndenumerate(moved):
        axis.text(column, row, f"{value:.1f}" if value > 1e-12 else "0", ha="center", va="center")
    axis.set(
        xticks=[0, 1],
        xticklabels=["depth 1", "depth 2"],
        yticks=[0, 1],
        yticklabels=["module 1's block", "module 2's block"],
    )
    axis.set_title(
        "right: a chain" if mistake is None else mistake.__name__.replace("_", " "), fontsize=10
    )
    axis.grid(False)
notebook.show(
    figure,
    "Three tables: in the right chain module 1 moves both depths; without the block nothing moves; parallel heads lose the corner",
)

# %% [markdown]
# **What to notice.** In the chain the upper right corner is not zero: depth 2 stands on depth 1. And the most seductive of all mistakes: *showing the module the token it has to predict*. On
# **random text**, which nobody can predict, no loss can honestly fall below that of guessing, $\ln V$ a token:

# %%
noise = stamp.replace(aux_loss_alpha=0.0, num_nextn_predict_layers=1)
figure, axis = notebook.picture(width=7, height=2.7)
for mistake, colour, label in (
    (None, BLUE, "right"),
    (mistakes.mtp_shown_its_target, ORANGE, "shown its target"),
):
    model = build(noise, lively=False, dtype=np.float32)
    arguments_of_training = (*text(noise, 16, 12), 150, 0.01, np.random.default_rng(8))
    if mistake is None:
        history = train(model, *arguments_of_training)
    else:
        with made(mistake):
            history = train(model, *arguments_of_training)
    axis.plot([losses.mtp[0] for losses in history], color=colour, label=f"MTP loss, {label}")
guessing = np.log(19) * 11 / 12  # eq. 24 divides the T − 1 terms of depth 1 by T = 12
axis.axhline(guessing, color="0.5", ls=":")
axis.text(90, guessing + 0.08, "11/12 · ln 19: guessing", color="0.4")
axis.set(xlabel="step, each on fresh random text", ylabel="nats per token", ylim=(0, None))
axis.legend()
notebook.show(
    figure, "On random text the right MTP loss stays at ln 19, the wrong one falls towards zero"
)

# %% [markdown]
# The wrong module looks *better* in every report. **Caught by** changing one token and asking which logits move: those of depth $k$ at position $i$ may depend on tokens up to $i + k$, and on no later one.
#
# ## 7. Room six: serving and resuming
#
# Three mistakes that training never sees. A *causal mask* built for the chunk alone, as $S \times S$, is right for the first chunk only; a verification rule for drafts that is a
# *heuristic* changes what the model says; and a resumed run that forgets where it was.


# %%
def error_by_position(cuts):
    """Largest difference of the logits from the full forward pass, position by position, when the text is read in chunks."""
    model, tokens = build(), text(size=2, length=16)[0]
    cache = LatentCache(model.config, 2, model.dtype)
    parts = [
        model.head.forward(read(model, part, cache))[0] for part in np.split(tokens, cuts, axis=1)
    ]
    return np.abs(np.concatenate(parts, axis=1) - full_logits).max(axis=(0, 2))


full_logits = build().logits(text(size=2, length=16)[0])  # (B, T, V), before any mistake is made
stream = TokenStream(np.arange(400, dtype=np.uint16), np.array([0, 100, 200, 300, 400]))


def windows_read():
    """First token of every window of a run that is stopped after 5 steps and continued for 5."""
    batches = Batches(stream, 1, 40, np.random.default_rng(0))
    firsts = [int(batches.next()[0][0, 0]) for _ in range(5)]
    again = Batches(stream, 1, 40, np.random.default_rng(99))
    again.restore(batches.state())
    return firsts + [int(again.next()[0][0, 0]) for _ in range(5)]


figure, (left, right) = notebook.picture(1, 2, width=8.4, height=2.7)
left.semilogy(range(16), error_by_position([6, 11]) + 1e-17, color=BLUE, marker="o", label="right")
with made(mistakes.cache_offset_forgotten):
    left.semilogy(
        range(16),
        error_by_position([6, 11]) + 1e-17,
        color=ORANGE,
        ls="--",
        marker="o",
        label="offset forgotten",
    )
for cut in (5.5, 10.5):
    left.axvline(cut, color="0.8")
left.set(xlabel="position (chunks of 6, 5 and 5)", ylabel="error of the logits", ylim=(1e-18, 1e2))
left.legend()
right.plot(range(10), windows_read(), "o", color=BLUE, ms=9, label="right: every window once")
with made(mistakes.resumed_from_the_beginning_of_the_data):
    right.plot(
        range(10),
        windows_read(),
        "x",
        color=ORANGE,
        ms=8,
        mew=2,
        label="resumed from the beginning",
    )
right.axvline(4.5, color="0.8")
right.set(xlabel="step (stopped and resumed after 5)", ylabel="where the window begins")
right.legend(fontsize=8)
notebook.show(
    figure,
    "Left: rounding errors, until the second chunk, where the mistake makes them large. Right: the resumed run repeats its windows",
)

# %% [markdown]
# **Symptoms.** Left: position 0 to 5 are right to the last bit; then the newcomers look at the wrong keys. Every test that reads its prompt in *one* piece passes. Right: text is read twice, and the run is no
# longer the run that was interrupted. A resumed run can also forget the routing bias, which is a buffer and no parameter:


# %%
def loads_before_and_after():
    """Load of each expert, as a share of the mean, before saving and after loading."""
    config = stamp.replace(n_routed_experts=16, num_experts_per_tok=4, num_nextn_predict_layers=0)
    model = build(config, dtype=np.float32)
    tokens, targets = text(config, 16, 32)
    for _ in range(150):  # let the bias do its work; nothing else is trained
        model.update_biases(model.losses(tokens, targets).counts, 0.02)
    with tempfile.TemporaryDirectory() as folder:
        minids.save(model, folder)
        again = minids.load(folder)
    return [
        np.sort(m.losses(tokens, targets).counts[0])[::-1] / (16 * 32 * 4 / 16)
        for m in (model, again)
    ]


before, after = loads_before_and_after()
with made(mistakes.resumed_without_the_routing_bias):
    _, forgotten = loads_before_and_after()
print("the right way, the same load before and after:", bool(np.array_equal(before, after)))
figure, axis = notebook.picture(width=7, height=2.4)
axis.bar(np.arange(16) - 0.2, after, 0.4, color=BLUE, label=f"right: MaxVio {after.max() - 1:.2f}")
axis.bar(
    np.arange(16) + 0.2,
    forgotten,
    0.4,
    color=ORANGE,
    label=f"bias forgotten: MaxVio {forgotten.max() - 1:.2f}",
)
axis.axhline(1, color="0.4", lw=1)
axis.set(xlabel="experts, by load", ylabel="load / mean")
axis.legend()
notebook.show(
    figure, "Loads after loading: even with the biases, a few experts far above the mean without"
)

# %% [markdown]
# (minids refuses to open a folder in which the bias is *missing*; this mistake had to skip it on purpose.)
#
# The last exhibit is about text that is written two tokens at a time. A draft $x \sim q$ is accepted with probability $\min(1, p(x)/q(x))$; if it is rejected, the token is drawn
# from the normalised positive part of $p - q$. Some implementations use "accept if $p(x)$ is at least half of $q(x)$" instead, which reads almost the same:

# %%
p = np.array([0.30, 0.25, 0.20, 0.15, 0.10])  # what the model wants to say
q = np.array([0.15, 0.45, 0.10, 0.10, 0.20])  # what the draft proposes


def spoken(accept):
    """Distribution of the token that comes out, given the acceptance probability of each draft, (V,)."""
    residual = np.maximum(p - q, 0) / np.maximum(p - q, 0).sum()
    return q * accept + (1 - (q * accept).sum()) * residual


lossless, heuristic = spoken(np.minimum(1, p / q)), spoken((p >= 0.5 * q).astype(float))
figure, axis = notebook.picture(width=7, height=2.4)
for offset, values, colour, label in (
    (-0.27, p, "0.7", "the model alone"),
    (0, lossless, BLUE, "lossless rule"),
    (0.27, heuristic, ORANGE, "ratio heuristic"),
):
    axis.bar(np.arange(5) + offset, values, 0.27, color=colour, label=label)
axis.set(xlabel="token", ylabel="probability")
axis.legend()
notebook.show(
    figure,
    "Bars of five tokens: the lossless rule gives the model's distribution exactly, the heuristic another",
)
print("lossless:", lossless, " heuristic:", heuristic)

# %% [markdown]
# The heuristic accepts more, so it is *faster*, and it writes another language model's text. **Caught by** comparing the distribution over many draws with the model's own. **Not caught by** greedy decoding, where both rules agree.

# %% [markdown]
# ## Exercises: be the test
#
# In these exercises you write the *check*. Yours is run on the right code and with the mistake in; it has to return True for the first and False for the second.


# %%
def judged(test, mistake):
    """A report on a test: does it accept the right code and notice the mistake?"""
    try:
        accepts = test()
        with made(mistake):
            notices = not test()
    except Exception as error:
        finding = check.Finding(test.__name__, f"raised {type(error).__name__}: {error}")
        return check.Report(test.__name__, {test.__name__: 1.0}, (finding,), 0.0)
    findings = []
    if not isinstance(accepts, (bool, np.bool_)):
        findings.append(
            check.Finding(
                test.__name__,
                f"returned {accepts!r} on the right code; it has to return True or False.",
            )
        )
    elif not accepts:
        findings.append(check.Finding(test.__name__, "rejects the right code."))
    elif not notices:
        findings.append(
            check.Finding(
                test.__name__,
                f"does not notice {mistake.__name__}.",
                "would anything you look at change with it?",
            )
        )
    return check.Report(test.__name__, {test.__name__: 0.0}, tuple(findings), 0.0)


# %% [markdown]
# ### 1. Gates do not know the bias
#
# Use `router.forward(logits, bias, top_k)`, whose first result has `.gates` and `.chosen`, both (N, K). Mind that a bias may change the *choice*; then the gates differ rightly.


# %% tags=["solution"]
def gates_do_not_know_the_bias():
    """True if the bias has no influence on the gates of unchanged choices."""
    # One token and clear favourites: the choice stays the same under a small bias.
    logits = np.array([[2.0, 1.0, -1.0, -2.0]])
    bias = np.array([0.05, -0.05, 0.0, 0.0])
    without, _ = router.forward(logits, None, 2)
    with_bias, _ = router.forward(logits, bias, 2)
    return bool(
        np.array_equal(without.chosen, with_bias.chosen)
        and np.allclose(without.gates, with_bias.gates)
    )


# %% tags=["check"]
check.ok(judged(gates_do_not_know_the_bias, mistakes.gates_from_biased_scores))

# %% [markdown]
# ### 2. No peeking
#
# Write a test that the MTP module at depth 1 does not see the token it has to predict. `build()` makes a model and `text()` tokens; `model.mtp_logits(tokens)[0]` is
# (B, T − 1, V), and entry $i$ predicts token $i + 2$ (positions from 0).


# %% tags=["solution"]
def mtp_does_not_peek():
    """True if a changed token moves no MTP logit that has to predict it or an earlier one."""
    # Change one token and compare the logits before and after.
    model, tokens = build(), text()[0]
    changed = tokens.copy()
    changed[:, 5] = (changed[:, 5] + 1) % stamp.vocab_size
    before, after = model.mtp_logits(tokens)[0], model.mtp_logits(changed)[0]
    return bool(np.allclose(before[:, :4], after[:, :4]))  # positions 0 to 3 predict tokens 2 to 5


# %% tags=["check"]
check.ok(judged(mtp_does_not_peek, mistakes.mtp_shown_its_target))

# %% [markdown]
# ### 3. The gradient of a shared key
#
# The function `scores_with_a_shared_key` of room three, backward: `dy` is (H, T, T), `saved` is `(q, k)`. Return `dq` (T, H, d_r) and `dk` (T, d_r).


# %% tags=["solution"]
def backward(dy, saved):
    """Gradients of q (T, H, d_r) and of the one key that all heads read, k (T, d_r)."""
    q, k = saved
    dq = np.einsum("hts,sr->thr", dy, k)
    dk = np.einsum("hts,thr->sr", dy, q)  # h is summed: every head read this key
    return dq, dk


# %% tags=["check"]
check.ok(check.gradient(scores_with_a_shared_key, backward, arrays, hints={"n_heads": H}))

# %% [markdown]
# ### A wrong answer is noticed
#
# A test for exercise 1 that compares shapes, and a backward pass that takes one head:


# %%
def gates_have_the_right_shape():
    """Looks like a test."""
    return router.forward(np.zeros((5, 8)), np.zeros(8), 3)[0].gates.shape == (5, 3)


notebook.caught(judged(gates_have_the_right_shape, mistakes.gates_from_biased_scores))
notebook.caught(
    check.gradient(scores_with_a_shared_key, backward_of_one_head, arrays, hints={"n_heads": H})
)

# %% [markdown]
# ## The guards
#
# Every exhibit with the test of this repository that notices it; `make test` proves each pair, by putting the mistake in and watching the test fail.

# %%
for mistake in MISTAKES:
    file, _, test = mistake.noticed_by.partition("::")
    print(f"{mistake.put_in.__name__}\n    {file}: {test.removeprefix('test_').replace('_', ' ')}")
