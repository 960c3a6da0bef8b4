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
# The mistakes live in [`minids/lab/mistakes/__init__.py`](minids/lab/mistakes/__init__.py), [`minids/lab/mistakes/fp8.py`](minids/lab/mistakes/fp8.py) and [`minids/lab/mistakes/policy.py`](minids/lab/mistakes/policy.py): each is a few wrong lines that replace right ones. `with made(mistake):`
# puts one in and takes it out again. The test suite ([`tests/lab/guards`](tests/lab/guards/test_every_mistake_is_noticed.py)) does the same with every one of them and demands that a named
# test fails; that is how a test suite is itself tested.
#
# Code used here: [`mistakes.py`](minids/lab/mistakes/__init__.py), [`mistakes_in_fp8.py`](minids/lab/mistakes/fp8.py), [`mistakes_in_policy.py`](minids/lab/mistakes/policy.py), [`model.py`](minids/model.py), [`pico.py`](minids/pico.py), [`ops/`](minids/ops/), [`layers/`](minids/layers/),
# [`inference/cache.py`](minids/inference/cache.py), [`inference/decoder.py`](minids/inference/decoder.py),
# [`inference/speculative.py`](minids/inference/speculative.py),
# [`training/batches.py`](minids/training/batches.py), [`training/grpo.py`](minids/training/grpo.py), [`training/metrics.py`](minids/training/metrics.py),
# [`training/reward_model.py`](minids/training/reward_model.py),
# [`analysis/kv_cache.py`](minids/lab/analysis/kv_cache.py). Paper:
# [DeepSeek-V3 technical report](https://arxiv.org/abs/2412.19437).

# %%
import tempfile

import numpy as np
from IPython.display import Markdown

import minids
from minids import ModelConfig, Yarn, check, pico
from minids.inference.cache import LatentCache
from minids.inference.decoder import Decoder
from minids.inference.speculative import Draft, judge
from minids.lab import mistakes, notebook
from minids.lab.analysis import kv_cache
from minids.lab.mistakes import IN_GENERATION, MISTAKES, made
from minids.lab.mistakes import fp8 as mistakes_in_fp8
from minids.lab.mistakes import policy as mistakes_in_policy
from minids.lab.mistakes.fp8 import IN_FP8
from minids.lab.mistakes.policy import IN_POLICY
from minids.model import routing_fixed
from minids.ops import (
    balance_loss,
    bias_update,
    float8,
    fp8_accumulation,
    fp8_linear,
    policy_loss,
    quantise,
    rope,
    router,
    yarn,
)
from minids.training.batches import Batches, TokenStream
from minids.training.metrics import max_violation

notebook.set_up(dots=88)  # many pictures: each a little coarser than elsewhere
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK = notebook.COLOURS
print(
    f"{len(MISTAKES)} mistakes of building and training, {len(IN_GENERATION)} of generation, {len(IN_FP8)} of FP8,"
)
print(f"{len(IN_POLICY)} of learning from rewards")


def right_and_wrong(measure, mistake):
    """What ``measure()`` gives on the right code, and with the mistake in."""
    right = measure()
    with made(mistake):
        return right, measure()


# %% [markdown]
# ## 1. What everybody checks
#
# Here is a whole DeepSeek-V3 that fits on a stamp: a dense block, a block with 8 experts in 4 groups, two MTP modules, YaRN, all losses on.

# %%
stamp = ModelConfig(
    vocab_size=19, hidden_size=12, num_hidden_layers=2, first_k_dense_replace=1, intermediate_size=10,
    num_attention_heads=4, q_lora_rank=7, kv_lora_rank=5,
    qk_nope_head_dim=6, qk_rope_head_dim=4, v_head_dim=3,
    n_routed_experts=8, num_experts_per_tok=3, n_group=4, topk_group=2, moe_intermediate_size=6,
    num_nextn_predict_layers=2, mtp_loss_weight=0.7, aux_loss_alpha=0.001, initializer_range=0.3,
    max_position_embeddings=64, bos_token_id=None, eos_token_id=None, rope_theta=10.0,
    rope_scaling=Yarn(
        factor=8.0, original_max_position_embeddings=40, beta_fast=6.0, beta_slow=0.25,
        mscale=1.2, mscale_all_dim=0.8,
    ),
)  # fmt: skip


def build(config=stamp, seed=0, dtype=np.float64, lively=True):
    """A model; ``lively``: norm gains and routing biases are random, because 1 and 0 hide mistakes."""
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
    """Plain Adam; the losses of all steps. ``fresh``, a generator, draws new random text every time."""
    values, m, v, history = model.parameters.values, 0.0, 0.0, []
    for step in range(1, steps + 1):
        if fresh is not None:
            shape = tokens.shape[0], tokens.shape[1] + 1
            whole = fresh.integers(0, model.config.vocab_size, shape)
            tokens, targets = whole[:, :-1], whole[:, 1:]
        model.parameters.zero_grads()
        history.append(model.forward_backward(tokens, targets))
        g = model.parameters.grads
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        m_hat, v_hat = m / (1 - 0.9**step), v / (1 - 0.99**step)
        values -= rate * m_hat / (np.sqrt(v_hat) + 1e-8)
        model.update_biases(history[-1].counts, model.config.bias_update_speed)
    return history


def loss_falls():
    """Every loss falls by a quarter within 25 steps on one batch."""
    history = train(build(lively=False), *text())
    first, last = history[0], history[-1]
    depths = all(b < 0.8 * a for a, b in zip(first.mtp, last.mtp, strict=True))
    return last.main < 0.75 * first.main and depths


# %% [markdown]
# And two that only careful people have: central differences of the total loss, and an *independent* implementation to compare with. Ours is
# [`pico.py`](minids/pico.py), the whole forward pass on one page, written apart from the package.


# %%
def central_differences_agree():
    """Along random directions, the choice of experts held still, the gradient is the loss's slope."""
    model, (tokens, targets) = build(), text()
    frozen = model.choices(tokens, targets)
    model.loss_and_grads(tokens, targets)
    start, rng, h = model.parameters.values.copy(), np.random.default_rng(5), 1e-3
    gradient = model.parameters.grads.copy()
    for _ in range(4):
        direction = rng.standard_normal(start.shape)
        direction /= np.sqrt(np.sum(direction**2))
        loss = {}
        for step in (-2, -1, 1, 2):
            model.parameters.values[...] = start + step * h * direction
            with routing_fixed(model, frozen):
                loss[step] = model.losses(tokens, targets).total
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
    "shapes": shapes_look_right,
    "gradients\nnot zero": gradients_look_alive,
    "falling\nloss": loss_falls,
    "central\ndifferences": central_differences_agree,
    "another\nimplementation": another_implementation_agrees,
}
for name, run in CHECKS.items():
    print(f"{name.replace(chr(10), ' '):<24} on the right model: {run()}")

# %% [markdown]
# Now put in each mistake and ask all five. (Those of generation are among them; those of FP8 get a room of their own, where the same five have nothing to hold on to: an FP8 model agrees with no slope and with no other implementation, for it rounds. Those of learning from rewards have the last room: what they spoil is met on the policy's own answers only.)

# %%
EXHIBITS = [*MISTAKES, *IN_GENERATION]
noticed = np.zeros((len(EXHIBITS), len(CHECKS)), dtype=bool)
for row, mistake in enumerate(EXHIBITS):
    with made(mistake):
        noticed[row] = [not run() for run in CHECKS.values()]
for name, count in zip(CHECKS, noticed.sum(axis=0), strict=True):
    print(f"{name.replace(chr(10), ' '):<24} notices {count:2d} of {len(EXHIBITS)}")
print("noticed by none of them:", int((~noticed.any(axis=1)).sum()))

# %% tags=["picture"]
figure, axis = notebook.picture(width=8, height=5.3)
axis.imshow(noticed, cmap="Blues", vmin=0, vmax=1.4, aspect="auto")
for (row, column), caught in np.ndenumerate(noticed):
    mark, colour = ("●", "white") if caught else ("·", "0.6")
    axis.text(column, row, mark, ha="center", va="center", color=colour, fontsize=9)
axis.set_xticks(range(len(CHECKS)), list(CHECKS))
axis.xaxis.tick_top()
axis.set_yticks(range(len(EXHIBITS)), [m.__name__.replace("_", " ") for m in EXHIBITS])
axis.grid(False)
notebook.show(
    figure,
    "Mistakes and checks: the three usual checks notice one mistake, central differences four, "
    "another implementation twelve",
)

# %% [markdown]
# **What to notice.** The first three columns are almost empty. A falling loss notices *nothing*: a wrong network is a network too, and learns. Central differences
# find four, those whose two halves disagree; where the backward pass is the true derivative of a wrong forward pass, they are content. Another implementation finds what
# changes a logit of *one forward pass*, and nothing about balance, training, caches or resuming. Ten mistakes pass all five checks. For them
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
    """Share of choices outside the two allowed groups when all biases are lowered by ``level``."""
    many = np.random.default_rng(1).normal(0, 1, (400, 16))
    biased = 1 / (1 + np.exp(-many)) - level
    chosen = router.choose(biased, 4, n_group=4, topk_group=2)
    grouped = biased.reshape(400, 4, 4)
    kept = np.argsort(-np.sort(grouped, axis=-1)[..., -2:].sum(-1), axis=-1, kind="stable")[:, :2]
    return np.mean(~(chosen[..., None] // 4 == kept[:, None, :]).any(-1))


measures = {
    mistakes.gates_from_biased_scores: (gate_of_the_favourite, np.linspace(0, 0.6, 25)),
    mistakes.softmax_gate: (score_of_a_bystander, np.linspace(0, 4, 25)),
    mistakes.forbidden_groups_set_to_zero: (share_of_forbidden, np.linspace(0, 1, 25)),
}
curves = {}  # of each mistake: where, the right curve, the wrong one
for mistake, (measure, where) in measures.items():
    both = right_and_wrong(lambda m=measure, w=where: [m(x) for x in w], mistake)
    curves[mistake] = where, *both
for mistake, (where, right, wrong) in curves.items():
    print(f"{mistake.__name__:<29} at {where[-1]:g}: {right[-1]:.2f} right, {wrong[-1]:.2f} wrong")

# %% tags=["picture"]
figure, axes = notebook.picture(1, 3, width=8.6, height=2.7)
labels = [
    ("bias of the best expert", "its gate"),
    ("another expert's logit grows by", "score of expert 0"),
    ("all biases lowered by", "choices in forbidden groups"),
]
for axis, (mistake, (where, right, wrong)), (x, y) in zip(
    axes, curves.items(), labels, strict=True
):
    axis.plot(where, right, color=BLUE, label="right")
    axis.plot(where, wrong, color=ORANGE, ls="--", label="mistake")
    axis.set(xlabel=x, ylabel=y, ylim=(0, None) if axis is not axes[2] else (-0.05, 1.05))
    axis.set_title(mistake.__name__.replace("_", " "), fontsize=10)
axes[0].legend()
notebook.show(
    figure,
    "Three plots: the right curves are flat, the wrong ones move with the bias, with a bystander's "
    "logit, and with lowered biases",
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
    """MaxVio (the busiest expert's excess over the mean) while the bias works on an uneven router."""
    source, bias, found = np.random.default_rng(3), np.zeros(16, np.float32), []
    favour = np.linspace(-1, 1, 16)  # (E,): some experts are simply liked better
    for _ in range(steps):
        routing, _ = router.forward(source.normal(0, 1, (256, 16)) + favour, bias, 4)
        counts = np.bincount(routing.chosen.reshape(-1), minlength=16)
        found.append(max_violation(counts[None])[0])
        bias = bias_update.updated(bias, counts, speed)
    return np.array(found)


def bias_after(calls, what):
    """Largest routing bias after calling a method of the model again and again, with no step."""
    model, (tokens, targets) = build(lively=False), text()
    found = []
    for _ in range(calls):
        getattr(model, what)(tokens, targets)
        found.append(max(np.abs(b).max() for b in model.parameters.buffers.values()))
    return found


balanced, runaway = right_and_wrong(balance_over_time, mistakes.bias_moved_the_wrong_way)
print(f"MaxVio, last 20 steps: {balanced[-20:].mean():.2f} right, {runaway[-20:].mean():.2f} wrong")
resting, in_evaluation = right_and_wrong(
    lambda: bias_after(40, "losses"), mistakes.bias_updated_in_evaluation
)
_, in_micro_batches = right_and_wrong(
    lambda: bias_after(40, "forward_backward"), mistakes.bias_updated_in_every_backward_pass
)

# %% tags=["picture"]
figure, (left, right) = notebook.picture(1, 2, width=8.4, height=2.7)
left.plot(balanced, color=BLUE, label="right")
left.plot(runaway, color=ORANGE, ls="--", label="bias moved the wrong way")
left.set(xlabel="step", ylabel="MaxVio (0 is balanced)", ylim=(0, None))
left.legend()
right.plot(resting, color=BLUE, label="right: no step, no change")
right.plot(in_evaluation, color=ORANGE, ls="--", label="updated in evaluation")
right.plot(in_micro_batches, color=PINK, ls=":", lw=3, label="updated with every micro-batch")
right.set(xlabel="calls without an optimizer step", ylabel="largest |bias|", ylim=(-0.002, 0.055))
right.legend()
notebook.show(
    figure,
    "Left: imbalance falls with the right rule and rises with the wrong sign. "
    "Right: the bias creeps where it should rest",
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
uneven = np.random.default_rng(4).normal(0, 1, (32, 8)) + np.linspace(1, -1, 8)  # (N, E)
scores = 1 / (1 + np.exp(-uneven))
chosen = router.choose(scores, 2)
counts = np.bincount(chosen.reshape(-1), minlength=8)


def push_on_each_expert():
    """Gradient of the balance loss by the scores, mean over tokens, (E,): positive pushes down."""
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


pushed, detached = right_and_wrong(push_on_each_expert, mistakes.balance_loss_from_detached_scores)
once, twice = right_and_wrong(size_through_the_blocks, mistakes.residual_inside_the_moe_layer)
print(
    "balance loss, largest gradient:",
    f"{abs(pushed).max():.4f} right, {abs(detached).max():g} wrong",
)
print(f"rms of the stream after ten blocks: {once[-1]:.2f} right, {twice[-1]:.2f} wrong")

# %% tags=["picture"]
figure, (left, right) = notebook.picture(1, 2, width=8.4, height=2.7)
left.bar(np.arange(8) - 0.2, pushed, 0.4, color=BLUE, label="right")
left.bar(np.arange(8) + 0.2, detached, 0.4, color=ORANGE, label="detached: 0 everywhere")
left.set(xlabel="expert (the first ones are chosen more often)", ylabel="gradient on its score")
left.legend()
right.semilogy(range(1, 11), once, color=BLUE, marker="o", label="right")
right.semilogy(range(1, 11), twice, color=ORANGE, ls="--", marker="o", label="residual added twice")
right.set(xlabel="block", ylabel="rms of the stream")
right.legend()
notebook.show(
    figure,
    "Left: the right gradient pushes loaded experts down, the detached one is zero. "
    "Right: with the doubled residual the stream grows",
)

# %% [markdown]
# **Symptoms.** Left: loaded experts should be pushed down (positive gradient) and idle ones up; the detached loss is *printed* like the right one and pushes nobody. Right: every block with experts adds its input once more, so the stream grows from block to block; the norm in front of
# each block hides it, and the loss falls all the same.
#
# **Caught by** "every score, chosen or not, gets a gradient from the balance loss alone", and by comparing one MoE layer with the paper's sum written out.
#
# ## 4. Room three: latent attention
#
# [`layers/mla.py`](minids/layers/mla.py), V3 eqs 1–5. One rotary key $k^R_t = \mathrm{RoPE}(W^{KR} h_t)$ is shared by *all* heads and comes from the hidden state. Its gradient is
# therefore a **sum over the heads**. Three mistakes: a key per head; a key made from the latent; the gradient of one head only. And a fourth, which changes
# no number that the model computes: caching the expanded keys and values.

# %%
v3 = ModelConfig.preset("deepseek-v3")
cached = {
    "MLA: latent + one rotary key": kv_cache.mla_elements(v3),
    "a rotary key per head": v3.kv_lora_rank + v3.num_attention_heads * v3.qk_rope_head_dim,
    '"MLA" that caches keys and values': kv_cache.full_elements(v3),
}


def numbers_in_a_cache():
    """What the package's cache of our small model holds, in numbers per token and layer."""
    cache = LatentCache(stamp, batch=1, dtype=np.float32)
    cache.advance(16)
    return cache.nbytes / 16 / stamp.num_hidden_layers / 4


lean, full = right_and_wrong(numbers_in_a_cache, mistakes.mla_that_caches_full_keys_and_values)
print(
    f"numbers a token and layer, our small model: {lean:.0f} right, {full:.0f} with full keys and values"
)


def gradient_of_rotary_rows():
    """Gradient of the rows of kv_a_proj that make the rotary key, first block, (d_r, d)."""
    model = build()
    gradients = model.loss_and_grads(*text())[1]
    return gradients["model.layers.0.self_attn.kv_a_proj_with_mqa.weight"][stamp.kv_lora_rank :]


styles = {
    mistakes.rope_key_gradient_of_one_head: (ORANGE, "x"),
    mistakes.rope_key_per_head: (PINK, "s"),
    mistakes.rope_key_from_the_latent: (GREEN, "^"),
}
gradients = {m: right_and_wrong(gradient_of_rotary_rows, m) for m in styles}
for mistake, (right, wrong) in gradients.items():
    norms = np.linalg.norm(right), np.linalg.norm(wrong)
    print(f"{mistake.__name__:<29} norm of the gradient {norms[1]:.2f} instead of {norms[0]:.2f}")

# %% tags=["picture"]
figure, (left, right) = notebook.picture(1, 2, width=8.4, height=2.9)
left.barh(list(cached)[::-1], list(cached.values())[::-1], color=[ORANGE, ORANGE, BLUE], log=True)
for y, value in enumerate(list(cached.values())[::-1]):
    left.text(value, y, f" {value:,}", va="center")
left.set(xlabel="cached per token and layer, V3's sizes", xlim=(100, 1_000_000))
right.plot([-1, 1], [-1, 1], color="0.8", zorder=0)
for mistake, (colour, marker) in styles.items():
    name, pair = mistake.__name__.replace("_", " "), gradients[mistake]
    right.scatter(*pair, color=colour, marker=marker, s=18, label=name)
limit = 1.15 * np.abs(pair[0]).max()
right.set(xlim=(-limit, limit), ylim=(-limit, 1.9 * limit))
right.set(xlabel="right gradient of the key's rows", ylabel="with the mistake")
right.legend(fontsize=8, loc="upper left")
notebook.show(
    figure,
    "Left: 576 numbers cached, 8,704 with a key per head, 40,960 with keys and values. "
    "Right: wrong gradients off the diagonal",
)

# %% [markdown]
# **Symptoms.** Left: the point of MLA is gone. Right: with one head's gradient the points scatter off the diagonal; with the other two mistakes the rows of
# `kv_a_proj_with_mqa` that should make the key get exactly zero gradient. "Gradients not zero" still passes, because the *same matrix* also holds the
# latent's rows: **look at parts, not at tensors**.
#
# **Caught by** counting bytes (left), by central differences (one head's gradient), and by a test that moves the hidden state where the latent does not see it and asks the key to move. **Not caught by** any comparison of outputs for the cache: what a full cache answers is right, only too dear.
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
heads = {"n_heads": H}
notebook.caught(check.gradient(scores_with_a_shared_key, backward_averaged, arrays, hints=heads))

# %% [markdown]
# ## 5. Room four: positions
#
# [`ops/rope.py`](minids/ops/rope.py), [`ops/yarn.py`](minids/ops/yarn.py), V3 section 4.3. All these are right at position 0 and wrong later, which is exactly where nobody looks.

# %%
pairs = np.arange(32)
arguments = 64, 10000.0, 40.0, 4096, 32.0, 1.0  # d_r, base, factor, length before, β_fast, β_slow
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


def v3_frequencies():
    """Of V3 with YaRN, radians per token, (d_r / 2,)."""
    return yarn.yarn_frequencies(*arguments)


lengths = [128, 512, 2048, 8192]
frequencies, linear = right_and_wrong(v3_frequencies, mistakes.linear_interpolation_as_yarn)
_, reversed_ramp = right_and_wrong(v3_frequencies, mistakes.yarn_with_a_reversed_ramp)
layouts = right_and_wrong(logit_by_distance, mistakes.rope_in_the_other_layout)
spread = right_and_wrong(
    lambda: [keys_that_count(n) for n in lengths], mistakes.yarn_without_mscale
)
print(
    f"θ' of pair 16: {frequencies[16]:.4f} right, {linear[16]:.5f} linear, {reversed_ramp[16]:.4f} reversed"
)
print(f"keys that count, of 8192: {spread[0][-1]:.0f} with mscale, {spread[1][-1]:.0f} without")

# %% tags=["picture"]
figure, (left, middle, right) = notebook.picture(1, 3, width=8.6, height=2.8)
left.semilogy(pairs, yarn.plain_frequencies(64, 10000.0), color="0.7", label="no YaRN")
left.semilogy(pairs, frequencies, color=BLUE, label="YaRN")
left.semilogy(pairs, linear, color=ORANGE, ls="--", label="linear")
left.semilogy(pairs, reversed_ramp, color=PINK, ls="--", label="reversed ramp")
left.set(xlabel="pair i of 32", ylabel="radians per token")
left.legend(fontsize=8)
middle.plot(distance, layouts[0], color=BLUE, label="right layout")
middle.plot(distance, layouts[1], color=ORANGE, ls="--", label="the other layout")
middle.set(xlabel="distance", ylabel="query · key")
middle.legend(fontsize=8)
right.loglog(lengths, spread[0], color=BLUE, marker="o", label="with mscale")
right.loglog(lengths, spread[1], color=ORANGE, ls="--", marker="o", label="without")
right.set(xlabel="keys in the context", ylabel="keys that count")
right.legend(fontsize=8)
notebook.show(
    figure,
    "Frequencies under four rules; the logit against distance in two layouts; how widely attention "
    "spreads with and without mscale",
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
    """How much the logits of depth 1 and 2 move when module 1 or module 2 is disturbed, (2, 2)."""
    model, tokens = build(), text()[0]
    before, moved = model.mtp_logits(tokens), np.zeros((2, 2))
    for module in range(2):
        layer = stamp.num_hidden_layers + module
        weight = model.parameters[f"model.layers.{layer}.self_attn.o_proj.weight"].value
        weight += 0.3
        after = model.mtp_logits(tokens)
        moved[module] = [np.abs(a - b).max() for a, b in zip(after, before, strict=True)]
        weight -= 0.3
    return moved


chain, without_block = right_and_wrong(dependence, mistakes.mtp_head_without_the_block)
_, parallel = right_and_wrong(dependence, mistakes.parallel_mtp_heads)

# %% tags=["picture"]
figure, axes = notebook.picture(1, 3, width=8.6, height=2.3, sharey=True)
tables = {
    "right: a chain": chain,
    "head without the block": without_block,
    "parallel heads": parallel,
}
for axis, (title, moved) in zip(axes, tables.items(), strict=True):
    axis.imshow(moved > 1e-12, cmap="Blues", vmin=0, vmax=1.5)
    for (row, column), value in np.ndenumerate(moved):
        axis.text(column, row, f"{value:.1f}" if value > 1e-12 else "0", ha="center", va="center")
    axis.set_xticks([0, 1], ["depth 1", "depth 2"])
    axis.set_yticks([0, 1], ["module 1's block", "module 2's block"])
    axis.set_title(title, fontsize=10)
    axis.grid(False)
notebook.show(
    figure,
    "Three tables: in the right chain module 1 moves both depths; without the block nothing moves; "
    "parallel heads lose the corner",
)

# %% [markdown]
# **What to notice.** In the chain the upper right corner is not zero: depth 2 stands on depth 1. And the most seductive of all mistakes: *showing the module the token it has to predict*. On
# **random text**, which nobody can predict, no loss can honestly fall below that of guessing, $\ln V$ a token:

# %%
noise = stamp.replace(aux_loss_alpha=0.0, num_nextn_predict_layers=1)


def mtp_losses():
    """MTP loss of every step, each on fresh random text."""
    model = build(noise, lively=False, dtype=np.float32)
    history = train(model, *text(noise, 16, 12), 150, 0.01, np.random.default_rng(8))
    return [losses.mtp[0] for losses in history]


honest, peeking = right_and_wrong(mtp_losses, mistakes.mtp_shown_its_target)
guessing = np.log(19) * 11 / 12  # eq. 24 divides the T − 1 terms of depth 1 by T = 12
print(
    f"MTP loss of the last step: {honest[-1]:.2f} right, {peeking[-1]:.2f} wrong; guessing {guessing:.2f}"
)

# %% tags=["picture"]
figure, axis = notebook.picture(width=7, height=2.7)
axis.plot(honest, color=BLUE, label="MTP loss, right")
axis.plot(peeking, color=ORANGE, label="MTP loss, shown its target")
axis.axhline(guessing, color="0.5", ls=":")
axis.text(90, guessing + 0.08, "11/12 · ln 19: guessing", color="0.4")
axis.set(xlabel="step, each on fresh random text", ylabel="nats per token", ylim=(0, None))
axis.legend()
notebook.show(
    figure,
    "On random text the right MTP loss stays at that of guessing, the wrong one falls far below it",
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
    """Largest difference of logits from the full pass, by position, when text is read in chunks."""
    model, tokens = build(), text(size=2, length=16)[0]
    decoder = Decoder(model, batch=2)
    pieces = np.split(tokens, cuts, axis=1)
    parts = [model.head.forward(decoder.read(piece))[0] for piece in pieces]
    return np.abs(np.concatenate(parts, axis=1) - full_logits).max(axis=(0, 2))


full_logits = build().logits(text(size=2, length=16)[0])  # (B, T, V), before any mistake is made
stream = TokenStream(np.arange(400, dtype=np.uint16), np.array([0, 100, 200, 300, 400]))


def windows_read():
    """First token of every window of a run that is stopped after 5 steps and continued for 15: two epochs."""
    batches = Batches(stream, 1, 40, np.random.default_rng(0))
    firsts = [int(batches.next()[0][0, 0]) for _ in range(5)]
    again = Batches(stream, 1, 40, np.random.default_rng(99))
    again.restore(batches.state())
    return firsts + [int(again.next()[0][0, 0]) for _ in range(15)]


in_chunks = right_and_wrong(lambda: error_by_position([6, 11]), mistakes.cache_offset_forgotten)
windows, from_the_beginning = right_and_wrong(
    windows_read, mistakes.resumed_from_the_beginning_of_the_data
)
_, without_generator = right_and_wrong(windows_read, mistakes.resumed_without_the_generator)

# %% tags=["picture"]
figure, (left, right) = notebook.picture(1, 2, width=8.4, height=2.7)
marked = {"marker": "o", "markersize": 4}
left.semilogy(in_chunks[0] + 1e-17, color=BLUE, label="right", **marked)
left.semilogy(in_chunks[1] + 1e-17, color=ORANGE, ls="--", label="offset forgotten", **marked)
for cut in (5.5, 10.5):
    left.axvline(cut, color="0.8")
left.set(xlabel="position (chunks of 6, 5 and 5)", ylabel="error of the logits", ylim=(1e-18, 1e4))
left.legend()
right.plot(windows, "o", color=BLUE, ms=9, label="right")
right.plot(from_the_beginning, "x", color=ORANGE, ms=8, mew=2, label="from the beginning")
right.plot(without_generator, "+", color=PINK, ms=10, mew=2, label="without the generator")
for border in (4.5, 9.5):
    right.axvline(border, ymax=0.75, color="0.8")
right.set(
    xlabel="step (resumed after 5, epochs of 10)", ylabel="where the window begins",
    ylim=(-20, 620),
)  # fmt: skip
right.legend(fontsize=8, ncols=2, loc="upper left")
notebook.show(
    figure,
    "Left: rounding errors, until the second chunk, where the mistake makes them large. "
    "Right: one resumed run repeats its windows, another reads the second epoch in an order of its own",
)

# %% [markdown]
# **Symptoms.** Left: position 0 to 5 are right to the last bit; then the newcomers look at the wrong keys. Every test that reads its prompt in *one* piece passes. Right: text is read twice, and the run is no
# longer the run that was interrupted. Without the state of the random generator all goes well to the end of the epoch; then another order follows, and no test shorter than that notices. A resumed run can also forget the routing bias, which is a buffer and no parameter:


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
    counts = [m.losses(tokens, targets).counts[0] for m in (model, again)]  # (E,) each
    return [np.sort(c)[::-1] / c.mean() for c in counts]


(before, after), (_, forgotten) = right_and_wrong(
    loads_before_and_after, mistakes.resumed_without_the_routing_bias
)
print("the right way, the same load before and after:", bool(np.array_equal(before, after)))

# %% tags=["picture"]
figure, axis = notebook.picture(width=7, height=2.4)
for offset, loads, colour, label in (
    (-0.2, after, BLUE, "right"), (0.2, forgotten, ORANGE, "bias forgotten")
):  # fmt: skip
    name = f"{label}: MaxVio {loads.max() - 1:.2f}"
    axis.bar(np.arange(16) + offset, loads, 0.4, color=colour, label=name)
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


def spoken(draws=20_000):
    """Distribution of what the package's judge lets through when drafts come from q, (V,)."""
    source, said = np.random.default_rng(9), np.zeros(5)
    for guess in source.choice(5, draws, p=q):
        stood, after = judge(Draft([int(guess)], [q]), np.stack([p, p]), source)
        said[guess if stood else after] += 1
    return said / draws


lossless, heuristic = right_and_wrong(spoken, mistakes.speculation_by_a_ratio_heuristic)
print("the model alone ", p)
print("lossless rule   ", lossless.round(3))
print("ratio heuristic ", heuristic.round(3))

# %% tags=["picture"]
figure, axis = notebook.picture(width=7, height=2.4)
for offset, values, colour, label in (
    (-0.27, p, "0.7", "the model alone"),
    (0, lossless, BLUE, "lossless rule, 20,000 drafts"),
    (0.27, heuristic, ORANGE, "ratio heuristic"),
):
    axis.bar(np.arange(5) + offset, values, 0.27, color=colour, label=label)
axis.set(xlabel="token", ylabel="probability")
axis.legend()
notebook.show(
    figure,
    "Bars of five tokens: the lossless rule gives the model's distribution, the heuristic another",
)

# %% [markdown]
# The heuristic accepts more, so it is *faster*, and it writes another language model's text: here every ratio is at least one half, so every draft passes, and what is written is the *guesser's* text, word for word. **Caught by** comparing the distribution over many draws with the model's own. **Not caught by** greedy decoding, where both rules agree.
#
# ## 8. Room seven: eight bits
#
# [`mistakes_in_fp8.py`](minids/lab/mistakes/fp8.py), V3 section 3.3; the right way is [notebook 10](notebooks/10_fp8.ipynb). FP8 is a paradise for mistakes, because *everything* is a few percent off anyway: who would notice a few percent more? First the usual test. Train the stamp for 25 steps with each of the
# eleven mistakes in:

# %%
small = stamp.replace(precision="fp8", fp8_tile=4, num_nextn_predict_layers=0)


def last_loss():
    """Loss after 25 steps on one batch, in nats per token."""
    return train(build(small, lively=False, dtype=np.float32), *text(small))[-1].main


right_loss, trained = last_loss(), {}
for mistake in IN_FP8:
    with made(mistake):
        trained[mistake] = last_loss()
print(f"untrained {np.log(19):.2f}; after 25 steps {right_loss:.2f} right,", end=" ")
print(f"{min(trained.values()):.2f} to {max(trained.values()):.2f} with a mistake in")

# %% [markdown]
# All learn. So it takes eleven measurements, each made for its mistake. Three of the *formats*: what do halves, large and tiny numbers become?


# %%
def halves():
    """Whole numbers from 16, where E4M3 has every second one: what each becomes, minus what it was."""
    y = np.arange(16.0, 34.0)
    return y, float8.rounded(y) - y


def large():
    """Numbers around the largest, 448."""
    y = np.linspace(300, 620, 120)
    return y, float8.rounded(y)


def tiny():
    """Numbers around the smallest normal one, 2⁻⁶."""
    y = np.geomspace(2.0**-11, 2.0**-4, 200)
    return y, float8.rounded(y)


# %% [markdown]
# Two of the *scales*: what does one outlier do to the others, and what happens to the largest number of a tile?


# %%
def outlier():
    """Error of all other numbers of a matrix when one number grows."""
    sizes = 10.0 ** np.arange(0, 7)
    x, off = np.random.default_rng(1).normal(size=(8, 256)).astype(np.float32), []
    for size in sizes:
        x[0, 0] = size
        off.append(np.abs(quantise.rounded(x, (1, 32)) - x)[1:].mean() / np.abs(x[1:]).mean())
    return sizes, off


def largest_of_a_tile():
    """A tile's largest number after quantisation with a power-of-two scale, over what it was."""
    sizes = np.geomspace(1, 16, 200)
    tiles = np.zeros((len(sizes), 4), np.float32)
    tiles[:, 0] = sizes
    return sizes, quantise.rounded(tiles, (1, 4), power_of_two=True)[:, 0] / sizes


# %% [markdown]
# Three of the *products*: the gradient of the weights (two mistakes), sums of growing length, and what the linear behind attention is given. Tokens differ in size, as they do in a network:

# %%
source = np.random.default_rng(2)
loud = np.exp(source.normal(size=(256, 1)))  # (N, 1): tokens of different size
x8 = (loud * source.normal(size=(256, 128))).astype(np.float32)  # (N, in)
w8 = (0.05 * source.normal(size=(64, 128))).astype(np.float32)  # (out, in)
dy8 = (1e-3 * source.normal(size=(256, 64))).astype(np.float32)  # (N, out)


def weight_gradient():
    """Some entries of dW in FP8 against the exact ones."""
    _, d_weight, _ = fp8_linear.backward(dy8, fp8_linear.forward(x8, w8)[1])
    return (dy8.T @ x8).ravel()[::90], d_weight.ravel()[::90]


def long_sums():
    """Largest relative error of products of positive numbers, K long."""
    lengths = 2 ** np.arange(7, 13)
    off = []
    for K in lengths:
        a, b = np.random.default_rng(3).random((2, 8, K)).astype(np.float32)
        truth = a.astype(np.float64) @ b.T.astype(np.float64)
        product = fp8_accumulation.matmul(a, b.T, fp8_accumulation.PROMOTED)
        off.append(np.abs(product / truth - 1).max())
    return lengths, off


def after_attention():
    """Errors of the input of the linear behind attention, sorted."""
    recipe = fp8_linear.FINE.after_attention()
    left = quantise.rounded(x8, recipe.row, recipe.inputs, recipe.round_inputs)
    off = np.sort(np.abs(left / x8 - 1).ravel())[::64]
    return np.linspace(0, 1, len(off)), off


# %% [markdown]
# And two of what has to stay *out* of FP8: the router, and the weights that are kept.


# %%
def ties():
    """How often the better of two experts loses, when its logit is larger by a gap."""
    gaps = np.geomspace(1e-4, 1, 9)
    model = build(small.replace(fp8_tile=16), dtype=np.float32)
    gate, lost = model.moe_layers[0].gate, []
    states = np.random.default_rng(4).normal(size=(200, 12)).astype(np.float32)
    weight = gate.weight.value
    direction = states / (states**2).sum(axis=1, keepdims=True)
    for gap in gaps:
        weight[1] = weight[0] = weight[2]
        wins = 0
        for state, step in zip(states, direction, strict=True):
            weight[1] = weight[0] + gap * step  # logit of expert 1 = that of expert 0 + gap
            logits = gate.forward(state[None])[0]
            wins += logits[0, 1] > logits[0, 0]
        lost.append(1 - wins / len(states))
    return gaps, lost


def small_updates(steps=60):
    """A weight that is made larger by a thousandth of its first value, again and again."""
    model = build(small, dtype=np.float32)
    layer = model.blocks[0].attention.q_a_proj
    weight, grown = layer.weight.value, [1.0]
    start, state = weight[0, 0], np.ones((1, 12), np.float32)
    for _ in range(steps):
        layer.forward(state)
        weight[0, 0] += start / 1000
        grown.append(weight[0, 0] / start)
    return range(steps + 1), grown


# %%
in_fp8 = mistakes_in_fp8
MEASURED = {  # mistake: what is measured, and over what
    in_fp8.halves_rounded_away_from_zero: (halves, "number", "rounding error"),
    in_fp8.overflow_instead_of_saturation: (large, "number", "becomes"),
    in_fp8.subnormals_flushed_to_zero: (tiny, "number", "becomes"),
    in_fp8.scale_of_the_tensor_in_every_tile: (outlier, "outlier", "error of the others"),
    in_fp8.power_of_two_scales_rounded_down: (largest_of_a_tile, "largest of a tile", "left of it"),
    in_fp8.scales_forgotten_in_the_weight_gradient: (weight_gradient, "exact dW", "dW"),
    in_fp8.weight_gradient_in_the_tiles_of_the_forward_pass: (weight_gradient, "exact dW", "dW"),
    in_fp8.promotion_forgotten: (long_sums, "products in a sum", "largest error"),
    in_fp8.attention_output_in_e4m3: (after_attention, "share of numbers", "relative error"),
    in_fp8.router_in_fp8: (ties, "lead of the better expert", "how often it loses"),
    in_fp8.master_weights_in_fp8: (small_updates, "updates", "weight / start"),
}
assert set(MEASURED) == set(IN_FP8)  # no exhibit without its symptom
symptoms = {m: right_and_wrong(measure, m) for m, (measure, _, _) in MEASURED.items()}

# %% tags=["picture"]
figure, axes = notebook.picture(4, 3, width=9.2, height=8.8)
dotted = {halves: ("o", "x"), weight_gradient: (".", ".")}
for axis, (mistake, (measure, x, y)) in zip(axes.flat, MEASURED.items(), strict=False):
    right, wrong = symptoms[mistake]
    one, other = dotted.get(measure, ("-", "--"))
    axis.plot(*right, one, color=BLUE, label="right")
    axis.plot(*wrong, other, color=ORANGE, label="mistake")
    axis.set(xlabel=x, ylabel=y)
    words = mistake.__name__.split("_")
    lines = [" ".join(words[:5]), " ".join(words[5:])] if len(words) > 5 else [" ".join(words)]
    axis.set_title("\n".join(lines), fontsize=9)
for axis in (axes[0, 2], axes[1, 0], axes[2, 1]):
    axis.loglog()
for axis in (axes[1, 1], axes[3, 0]):
    axis.set_xscale("log")
axes[1, 2].set_yscale("symlog", linthresh=0.1)
for axis in axes.flat:
    axis.minorticks_off()
axes[2, 1].set_xticks([128, 512, 2048], [128, 512, 2048])
last = axes[3, 2]
last.barh([1, 0], [right_loss, max(trained.values())], color=[BLUE, ORANGE])
last.axvline(np.log(19), color="0.5", ls=":")
last.set_yticks([1, 0], ["right", "worst mistake"])
last.set(xlabel="nats (dotted: untrained)", ylim=(-0.8, 1.8))
last.set_title("and the loss after 25 steps", fontsize=9)
axes[0, 0].legend(fontsize=8)
notebook.show(
    figure,
    "Eleven small plots, right in blue and with the mistake in orange: each shows a clear difference "
    "but for the weight gradient in the wrong tiles. The twelfth: all losses fall alike",
)

# %% [markdown]
# **Symptoms**, row by row.
#
# 1. *Formats.* Halves that always go up make every sum too large, where to-even errs in both directions. A cast that does not saturate turns one large number into NaN, and the next product into all NaN. Without subnormal numbers the range ends three powers of two earlier.
# 2. *Scales.* With one scale one outlier spoils all others. A power of two that is rounded *down* cuts the largest number of a tile to as little as half. Without the scales of $x$, dW is wrong by factors of ten to a hundred, another one in every tile, signs included, and **Adam divides most of it out again**.
# 3. The product that sums over tokens in tiles of the forward pass: *the points lie on top of each other*. As a number it is as good as the right one. But no tensor core can compute it, since a scale per token cannot be pulled out of a sum over tokens; what such a simulation says about hardware is fiction. Next, the
#    short sum without promotion: percents, growing with $K$. And attention's output in E4M3: an error of up to 6 % where E5M6 has less than 1 %, in a number that is used twice.
# 4. *Exceptions.* A router in FP8 cannot tell two experts apart whose logits differ by less than a few thousandths; which of them is chosen is then an accident of rounding. Master weights in FP8 lose every update that is smaller than half a step of the format: the weight stands still, and nothing complains. Last, the loss: it falls with every one of them.
#
# **Caught by** comparing with an independent implementation of the formats *to the bit* (`ml_dtypes`, all 256 codes), and with the three products written out tile by tile. **Not caught by** "close to float32": a tolerance of a few percent, which FP8 needs, lets most of them in.

# %% [markdown]
# ## 9. Room eight: learning from rewards
#
# [`mistakes_in_policy.py`](minids/lab/mistakes/policy.py), V3 section 5.2, eqs 26–28: a model answers, a reward says what the answers are worth, and the better ones of a group become likelier. Nothing here is wrong on *given* text. It is wrong on answers that the policy drew itself, and there no loss tells: in GRPO's first step
# after the draw the ratio is 1, the loss is 0, and its gradient is not. What people look at instead is the **reward**: does it rise? Teach the stamp to say as many sevens as it can:

# %%
asked = [[3, 1, 4], [1, 5], [9]]  # three prompts
one_module = stamp.replace(num_nextn_predict_layers=1)


def sevens(prompt, answer):
    """The share of an answer's tokens that are 7."""
    return float(np.mean(np.array(answer) == 7))


def learn(reward=sevens, steps=30):
    """Mean rewards of the steps, eight answers of four tokens to each prompt."""
    model = build(one_module, lively=False, dtype=np.float32)
    how = dict(questions=3, group=8, max_new_tokens=4, warmup_steps=0, learning_rate=0.03)
    history = minids.grpo(model, asked, reward, steps=steps, say=lambda line: None, **how)
    return [line["reward"] for line in history]


rewards = {"right": learn()}
of_grpo = IN_POLICY[:5]  # the sixth is a reward model's
for mistake in of_grpo:
    with made(mistake):
        rewards[mistake.__name__] = learn()
for name, found in rewards.items():
    print(
        f"{name.replace('_', ' '):<38} reward {found[0]:.2f} at first, {found[-1]:.2f} after 30 steps"
    )

# %% [markdown]
# The reward is the falling loss of this chapter: it rises with four mistakes of five. One measurement for each, again.


# %%
def expected_pull():
    """Length of the divergence's gradient, averaged over what the policy itself would draw, at some distances of the reference."""
    distances = np.linspace(0, 2, 11)
    logits, towards = np.array([[0.3, -0.2, 1.1, 0.0]]), np.array([-0.7, 0.7, -0.9, 0.9])
    lengths = []
    for distance in distances:
        total = 0.0
        for token in range(4):
            one = np.array([token])
            pi, ref = (
                policy_loss.log_probabilities(x, one) for x in (logits, logits + distance * towards)
            )
            terms = (logits, one, np.zeros(1, int), np.zeros(1), pi, ref)
            saved = policy_loss.forward(*terms, beta=1.0)[1]
            total = total + np.exp(pi[0]) * policy_loss.backward(1.0, saved)[0]
        lengths.append(np.sqrt(np.sum(total**2)))
    return distances, lengths


def slope_of_a_bad_answer():
    """Derivative of the clipped term by ln ρ, for an answer of advantage −1."""
    rho = np.linspace(0.4, 1.6, 121)
    return rho, policy_loss.surrogate(rho, np.full(121, -1.0), 0.2)[1]


def advantages_of_a_group():
    """Of nine answers to one question, whose rewards go from 0 to 1."""
    found = np.linspace(0, 1, 9)
    return found, policy_loss.advantages(found, np.zeros(9, int))


def first_push():
    """How the drawn token's logit is pushed in the first step after the draw, by its answer's advantage."""
    logits, pushes, heights = np.array([[0.3, -0.2, 1.1, 0.0]]), [], np.linspace(-2, 2, 9)
    one, answer = np.array([0]), np.zeros(1, int)
    old = policy_loss.log_probabilities(logits, one)
    for height in heights:
        saved = policy_loss.forward(logits, one, answer, np.array([height]), old)[1]
        pushes.append(-policy_loss.backward(1.0, saved)[0, 0])
    return heights, pushes


def biases_while_learning():
    """The largest routing bias, looked at whenever an answer is judged."""
    model, largest = build(one_module, lively=False, dtype=np.float32), []

    def reward(prompt, answer):
        largest.append(max(np.abs(bias).max() for bias in model.parameters.buffers.values()))
        return sevens(prompt, answer)

    how = dict(questions=3, group=8, max_new_tokens=4, steps=8)
    minids.grpo(model, asked, reward, say=lambda line: None, **how)
    return np.arange(len(largest)) / 24, largest


def reward_beside_others():
    """What one answer is worth to a reward model when a longer text is judged beside it."""
    reward = minids.RewardModel.copy_of(build(one_module))
    head = reward.model.head.weight.value
    head[...] = np.random.default_rng(0).normal(size=head.shape)
    lengths = np.arange(1, 13)
    beside = [reward.scores([([3, 1, 4], [1, 5]), ([2] * n, [9])])[0] for n in lengths]
    return lengths + 1, beside


# %%
in_policy = mistakes_in_policy
ON_POLICY = {  # mistake: what is measured, and over what
    in_policy.divergence_as_a_difference_of_logs: (
        expected_pull,
        "distance of the reference",
        "expected gradient",
    ),
    in_policy.larger_term_in_the_clip: (slope_of_a_bad_answer, "ratio ρ, bad answer", "slope"),
    in_policy.group_numbers_lost: (advantages_of_a_group, "reward", "advantage"),
    in_policy.old_log_probabilities_with_gradient: (
        first_push,
        "advantage",
        "push on the token's logit",
    ),
    in_policy.balancing_bias_moved_by_rollouts: (
        biases_while_learning,
        "steps",
        "largest routing bias",
    ),
    in_policy.reward_read_behind_the_padding: (
        reward_beside_others,
        "tokens of the text beside it",
        "reward of one answer",
    ),
}
assert list(ON_POLICY) == IN_POLICY  # no exhibit without its symptom
on_policy = {m: right_and_wrong(measure, m) for m, (measure, _, _) in ON_POLICY.items()}
for mistake, (right, wrong) in on_policy.items():
    off = np.abs(np.subtract(right[1], wrong[1])).max()
    print(f"{mistake.__name__.replace('_', ' '):<38} largest difference {off:.3g}")

# %% tags=["picture"]
figure, axes = notebook.picture(2, 3, width=8.8, height=4.2)
for axis, (mistake, (_, x, y)) in zip(axes.flat, ON_POLICY.items(), strict=True):
    right, wrong = on_policy[mistake]
    axis.plot(*right, "-", color=BLUE, label="right")
    axis.plot(*wrong, "--", color=ORANGE, label="mistake")
    axis.set(xlabel=x, ylabel=y)
    words = mistake.__name__.split("_")
    axis.set_title(" ".join(words[:3]) + "\n" + " ".join(words[3:]), fontsize=9)
axes[0, 0].legend(fontsize=8)
notebook.show(
    figure,
    "Six small plots, right in blue and with the mistake in orange: a pull that is zero, a slope on the wrong side of the clip, "
    "advantages that are never negative, no push at all, routing biases that move, and a reward that depends on its neighbour",
)

# %% [markdown]
# **Symptoms**, from left to right and row by row.
#
# 1. $\ln\pi - \ln\pi_\text{ref}$ inside the loss has the right *value* on average and a gradient that is zero on average, however far the reference is: what should hold the policy back is noise. D of eq. 27 pulls the harder the farther it is.
# 2. With max for min a bad answer that has become likelier ($\rho > 1.2$) is let go, and one that was given up long ago ($\rho < 0.8$) is pushed on: the clip holds the wrong side.
# 3. Without groups there is no mean to take off. No answer is ever made *rarer*; rewards of 0 and 1 still teach, from right answers alone, which is why the reward above rises.
# 4. $\pi_\text{old}$ with gradient: $\rho = \pi/\pi$ does not depend on anything. This is the one mistake of the five at which the reward stands still.
# 5. Rollouts move the balancing bias, though a few answers are no sample of the text that experts have to be balanced for. The reward does not mind; the next evaluation of the base model's text does.
# 6. A reward read behind the padding: *what an answer is worth depends on its neighbour in the batch*. With rows of equal length, as in a test with one pair, it is right.
#
# **Caught by** expectations over the policy's own draws, by both signs of the advantage on both sides of the clip, by sums over a group that must be zero, by comparing biases before and after, and by judging side by side what was judged alone. **Not caught by** a rising reward, and not by a gradient check: the loss differentiated is another loss.

# %% [markdown]
# ## Exercises: be the test
#
# In these exercises you write the *check*. Yours is run on the right code and with the mistake in; it has to return True for the first and False for the second.


# %%
def judged(test, mistake):
    """A report on a test: does it accept the right code and notice the mistake?"""
    when = "on the right code"
    try:
        accepts = test()
        when = f"with {mistake.__name__} made"
        with made(mistake):
            notices = not test()
    except Exception as error:
        hint = "return False rather than raise." if isinstance(error, AssertionError) else ""
        finding = check.Finding(
            test.__name__, f"raised {type(error).__name__} {when}: {error}", hint
        )
        return check.Report(test.__name__, {test.__name__: 1.0}, (finding,), 0.0)
    findings = []
    if not isinstance(accepts, (bool, np.bool_)):
        says = f"returned {accepts!r} on the right code; it has to return True or False."
        findings.append(check.Finding(test.__name__, says))
    elif not accepts:
        findings.append(check.Finding(test.__name__, "rejects the right code."))
    elif not notices:
        says, hint = (
            f"does not notice {mistake.__name__}.",
            "would anything you look at change with it?",
        )
        findings.append(check.Finding(test.__name__, says, hint))
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
    same_choice = np.array_equal(without.chosen, with_bias.chosen)
    return bool(same_choice and np.allclose(without.gates, with_bias.gates))


# %% tags=["check"]
check.ok(judged(gates_do_not_know_the_bias, mistakes.gates_from_biased_scores))

# %% [markdown]
# ### 2. No peeking
#
# Write a test that the MTP module at depth 1 does not see the token it has to predict. `build()` makes a model and `text()[0]` tokens; `model.mtp_logits(tokens)[0]` is
# (B, T − 1, V), and entry $i$ predicts token $i + 2$ (positions from 0).


# %% tags=["solution"]
def mtp_does_not_peek():
    """True if a changed token moves no MTP logit that has to predict it or an earlier one."""
    # Change one token and compare the logits before and after.
    model, tokens = build(), text()[0]
    changed = tokens.copy()
    changed[:, 5] = (changed[:, 5] + 1) % stamp.vocab_size
    before, after = model.mtp_logits(tokens)[0], model.mtp_logits(changed)[0]
    # Positions 0 to 3 predict tokens 2 to 5.
    return bool(np.allclose(before[:, :4], after[:, :4]))


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
check.ok(check.gradient(scores_with_a_shared_key, backward, arrays, hints=heads))

# %% [markdown]
# ### A wrong answer is noticed
#
# A test for exercise 1 that compares shapes, and a backward pass that takes one head:


# %%
def gates_have_the_right_shape():
    """Looks like a test."""
    return router.forward(np.zeros((5, 8)), np.zeros(8), 3)[0].gates.shape == (5, 3)


notebook.caught(judged(gates_have_the_right_shape, mistakes.gates_from_biased_scores))
notebook.caught(check.gradient(scores_with_a_shared_key, backward_of_one_head, arrays, hints=heads))

# %% [markdown]
# ## The guards
#
# Every exhibit in its own words. Which test notices it says the [table of guards](tests/lab/guards/guard_table.py); `make test` proves each pair, by putting the mistake in and watching the test fail.

# %%
rows = ["| mistake | what is wrong |", "|---|---|"]
for mistake in (*MISTAKES, *IN_GENERATION, *IN_FP8, *IN_POLICY):
    rows.append(f"| {mistake.__name__.replace('_', ' ')} | {mistake.__doc__} |")
Markdown("\n".join(rows))
