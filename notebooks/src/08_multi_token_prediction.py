# %% [markdown]
# # 8. Multi-token prediction: looking two steps ahead
#
# A language model is asked one question per position: what comes next? That is one grade for a whole forward pass. **Could each position be asked
# about the token after next as well, without the model ever seeing an answer?**

# %% [markdown]
# DeepSeek-V3's answer (section 2.2 of the [report](https://arxiv.org/abs/2412.19437)) is a *chain*: behind the main model stands a small module, one more Transformer
# block, which is told the next token and predicts the one after it. Behind that could stand another. V3 trains with one module (depth 1) and throws it away
# afterwards, or keeps it to draft tokens: that is the subject of [notebook 9](notebooks/09_speculative_decoding.ipynb).
#
# The hard part is not the module but the **indices**: what exactly may position $i$ see, and what must it predict? An error by one gives a wonderful loss and a useless
# model. So this notebook is mostly about indices, drawn.
#
# Code used here: [`ops/mtp_combine.py`](minids/ops/mtp_combine.py), [`ops/cross_entropy.py`](minids/ops/cross_entropy.py), [`ops/linear.py`](minids/ops/linear.py),
# [`ops/rmsnorm.py`](minids/ops/rmsnorm.py), [`layers/mtp.py`](minids/layers/mtp.py), [`model.py`](minids/model.py), [`analysis/parameters.py`](minids/lab/analysis/parameters.py),
# [`analysis/flops.py`](minids/lab/analysis/flops.py).

# %%
import numpy as np
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

import minids
from minids import ModelConfig, check
from minids.lab import notebook
from minids.lab.analysis import flops, parameters
from minids.ops import cross_entropy, linear, mtp_combine, rmsnorm

notebook.set_up()
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK = notebook.COLOURS

# %% [markdown]
# ## 1. The indices, drawn
#
# Take the first seven tokens of a sentence. The main model (depth 0) has read $t_1 \dots t_i$ and predicts $t_{i+1}$. The module of depth $k$ works at the *same position* $i$, but it is also
# shown the embedding of $t_{i+k}$, and predicts $t_{i+k+1}$:
#
# | depth | at position $i$ it has seen | embedding that enters | it predicts | positions |
# |---|---|---|---|---|
# | 0, the main model | $t_1 \dots t_i$ | $t_i$ | $t_{i+1}$ | $1 \dots T$ |
# | 1 | $t_1 \dots t_{i+1}$ | $t_{i+1}$ | $t_{i+2}$ | $1 \dots T-1$ |
# | 2 | $t_1 \dots t_{i+2}$ | $t_{i+2}$ | $t_{i+3}$ | $1 \dots T-2$ |
#
# In the drawing each box is one position of one depth: on top the word that enters, below it the word it has to predict. Position 2 is in colour.

# %% tags=["picture"]
words = ["the", "cat", "sat", "on", "the", "mat", "and"]
length = 6  # T: positions of the batch; the last of them predicts the word behind it


def draw_chain(depths=2, position=2):
    """Depth by depth: what enters and what is the target; ``position`` (from 1) in colour."""
    figure, axis = notebook.picture(width=9, height=1.1 + 1.05 * (depths + 1))
    middle = {"ha": "center", "va": "center"}
    for depth in range(depths + 1):
        y = -1.5 * depth
        for i in range(1, length - depth + 1):
            marked, plain = (GREEN, ORANGE, BLUE), ("0.5", "0.6", "0.75")
            enters, target, edge = marked if i == position else plain
            corner, form = (i - 0.33, y - 0.28), "round,pad=0.04"
            axis.add_patch(FancyBboxPatch(corner, 0.66, 0.56, form, fc="white", ec=edge))
            axis.text(i, y + 0.12, words[i + depth - 1], color=enters, **middle)
            axis.text(i, y - 0.13, f"→ {words[i + depth]}", color=target, **middle)
            if depth < depths and i <= length - depth - 1:
                arrow = {"arrowstyle": "-|>", "mutation_scale": 10, "color": edge}
                axis.add_patch(FancyArrowPatch((i, y - 0.34), (i, y - 1.16), **arrow))
                axis.text(i + 0.05, y - 0.78, f"$h^{depth}_{i}$", color=edge, fontsize=9)
        axis.text(0.1, y, "main" if depth == 0 else f"depth {depth}", weight="bold", **middle)
    for i in range(1, length + 1):
        axis.text(i, 0.62, f"i = {i}", color=BLUE if i == position else "0.5", **middle)
    axis.set(xlim=(-0.4, length + 0.5), ylim=(-1.5 * depths - 0.5, 0.9))
    axis.axis("off")
    notebook.show(
        figure,
        "One row of boxes per depth: the word that enters, the word to predict, states going down",
    )


draw_chain()

# %%
notebook.explore(draw_chain, depths=(1, 3), position=(1, 4))

# %% [markdown]
# (In a live session two sliders appear here: add a depth, move along the text.)
#
# **What to notice.** Green is what enters, orange what has to be predicted: always the *next* word, so nobody is ever shown an answer. Going down a column the words move on by one; the
# arrow carries what the depth above knows about position $i$. Each depth has one position fewer, because at the end of the text there is nothing left to be shown.
#
# ## 2. One step of the chain, in NumPy
#
# In words: take what the depth above knows about position $i$, take the next word that it did not know, normalise both, join them by one matrix, and let one more
# Transformer block think about it. V3 eqs 21–23, for $i = 1 \dots T-k$:
#
# $$
# h'^{\,k}_i = M_k\,\big[\,\mathrm{RMSNorm}(h^{k-1}_i)\,;\,\mathrm{RMSNorm}(\mathrm{Emb}(t_{i+k}))\,\big],\qquad
# h^k_{1:T-k} = \mathrm{TRM}_k\big(h'^{\,k}_{1:T-k}\big),\qquad
# P^k_{i+k+1} = \mathrm{OutHead}\big(h^k_i\big)
# $$
#
# $M_k \in \mathbb{R}^{d\times 2d}$ joins the two (in V3 $d = 7168$); $\mathrm{TRM}_k$ is a whole block with MLA and experts of its own; embedding and head are **the main model's own matrices**. Here is a small model with
# two modules; all arrays are float64 so that comparisons are exact.

# %%
config = ModelConfig.preset("tiny").replace(
    vocab_size=40, num_hidden_layers=2, hidden_size=32, intermediate_size=48,
    q_lora_rank=16, kv_lora_rank=12, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=8,
    n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=16,
    num_nextn_predict_layers=2, bos_token_id=None, eos_token_id=None, initializer_range=0.15,
)  # fmt: skip
model = minids.DeepSeekV3(config, seed=1, dtype=np.float64)
whole = np.random.default_rng(2).integers(0, 40, (3, 11))  # (B, T + 1): random text, T = 10
tokens, targets = whole[:, :-1], whole[:, 1:]  # (B, T) each: a target is the token after
T = tokens.shape[1]

# (B, T, d): h⁰, the main model's state after its final norm
x, _ = model.embed_tokens.forward(tokens)
for block in model.blocks:
    x, _ = block.forward(x, model.rotary(T))
hidden, _ = model.norm.forward(x)
embedding = model.embed_tokens.weight.value  # (V, d), shared
letters = {"B": 3, "T": 10, "T-1": 9, "d": 32, "2d": 64, "V": 40}
notebook.shapes(letters, tokens=tokens, hidden=hidden, embedding=embedding)

# %% [markdown]
# Depth 1, line by line. In Python positions count from 0: position $i$ is shown `tokens[:, i + 1]`, so the embeddings that enter are those of `tokens[:, 1:]`, and the states that have a partner are
# `hidden[:, :-1]`.

# %%
module = model.mtp[0]
shown = embedding[tokens[:, 1:]]  # (B, T−1, d)  Emb(t_{i+1})
known = hidden[:, :-1]  # (B, T−1, d)  h⁰_i, whose successor exists

# Each half gets a norm of its own: the two come from different worlds.
e, _ = rmsnorm.forward(shown, module.enorm.value)
h, _ = rmsnorm.forward(known, module.hnorm.value)
both = np.concatenate([e, h], axis=-1)  # (B, T−1, 2d)
joined, _ = linear.forward(both, module.eh_proj.value)  # (B, T−1, d)
notebook.shapes(letters, shown=shown, known=known, both=both, joined=joined)


def weights_of(module):
    """What joins the two halves: the gains of the two norms, and M."""
    return module.enorm.value, module.hnorm.value, module.eh_proj.value


by_the_package, _ = mtp_combine.forward(shown, known, *weights_of(module))
print("equal to ops/mtp_combine:", np.array_equal(joined, by_the_package))

# %% [markdown]
# **What to notice.** `shown` has the small rms of an embedding, `known` that of a normalised state; after the two norms both halves arrive at the same size, 1, so neither drowns the other.
#
# The paper writes the state first and the embedding second; the released weights (`eh_proj`, fed by `enorm` and `hnorm`) and every program that runs them have the embedding first. From scratch the order is a
# matter of taste, for a checkpoint it is not: swap the halves and a released module predicts noise.
#
# Next the block, the module's own final norm, and the **shared** head:

# %%
# (B, T−1, d): attention over positions 1 … i, then experts
state, _ = module.block.forward(joined, model.rotary(T - 1))
h1, _ = module.norm.forward(state)  # (B, T−1, d)  h¹
logits1 = h1 @ model.head.weight.value.T  # (B, T−1, V): the main model's head

# Depth 2: the same, one token further, and h¹ in place of h⁰.
second = model.mtp[1]
shown2, known2 = embedding[tokens[:, 2:]], h1[:, :-1]  # (B, T−2, d) each
joined2, _ = mtp_combine.forward(shown2, known2, *weights_of(second))
state2, _ = second.block.forward(joined2, model.rotary(T - 2))
h2, _ = second.norm.forward(state2)
logits2 = h2 @ model.head.weight.value.T  # (B, T−2, V)

for depth, logits in enumerate((logits1, logits2), start=1):
    same = np.allclose(logits, model.mtp_logits(tokens)[depth - 1], atol=1e-12)
    print(f"depth {depth}: logits {logits.shape}, equal to the model's: {same}")

# %% [markdown]
# ## 3. Who sees what? Ask the network itself
#
# Instead of trusting the derivation, *measure* it: change one token $t_j$ and record which logits move. A logit that moves has seen the token; one that stays where it was has not.


# %%
def influence(run, count):
    """How far the logits at position i move when token j changes: (count, T).

    run(tokens) gives logits (B, count, V).
    """
    before, moved = run(tokens[:1]), np.zeros((count, T))
    for j in range(T):
        changed = tokens[:1].copy()
        changed[0, j] = (changed[0, j] + 1) % config.vocab_size
        moved[:, j] = np.abs(run(changed) - before).max(axis=(0, 2))
    return moved


maps = [
    influence(model.logits, T),
    influence(lambda x: model.mtp_logits(x)[0], T - 1),
    influence(lambda x: model.mtp_logits(x)[1], T - 2),
]
for depth, moved in enumerate(maps):
    sees = [int(np.flatnonzero(row > 1e-12).max()) + 1 for row in moved]
    right = all(s == i + depth for i, s in enumerate(sees, start=1))
    print(
        f"depth {depth}: positions 1, 2, 3 … see tokens up to {sees[:3]} …; never a target: {right}"
    )

# %% tags=["picture"]
figure, axes = notebook.picture(1, 3, width=9, height=3.1)
for depth, (axis, moved) in enumerate(zip(axes, maps, strict=True)):
    axis.imshow(moved > 1e-12, cmap="Blues", vmin=0, vmax=1.6)
    target = np.arange(len(moved)) + depth + 1
    keep = target < T
    axis.plot(target[keep], np.arange(len(moved))[keep], "o", color=ORANGE, ms=6)
    axis.set(
        xticks=range(T),
        xticklabels=range(1, T + 1),
        yticks=range(len(moved)),
        yticklabels=range(1, len(moved) + 1),
    )
    axis.set(xlabel="token $t_j$ that is changed", ylabel="position i" if depth == 0 else "")
    axis.set_title("main model" if depth == 0 else f"depth {depth}")
    axis.grid(False)
notebook.show(
    figure,
    "Three staircases: depth k sees tokens up to i plus k; the token to predict, marked by a "
    "dot, lies just outside each",
)

# %% [markdown]
# **The claim, checked.** The paper keeps "the complete causal chain at each prediction depth". Blue is what a position depends on; the orange dot is the token it has to predict. In every map the dot sits exactly one step outside the
# staircase: everything up to it is used, and it is not.
#
# ## 4. The loss, and what it divides by
#
# Every depth has an ordinary cross-entropy. They are averaged over the $D$ depths, weighted by $\lambda$ and added to the main loss:
#
# $$
# \mathcal{L}^k = -\frac{1}{T}\sum_{i=2+k}^{T+1}\ln P^k_i[t_i], \qquad
# \mathcal{L} = \mathcal{L}_{\text{main}} + \frac{\lambda}{D}\sum_{k=1}^{D}\mathcal{L}^k
# $$
#
# (V3 eqs 24, 25; $\lambda = 0.3$ for the first 10T tokens, then 0.1.) The sum has $T-k$ terms and is divided by $T$: with $T = 4096$ a matter of 0.02 %, in our little batch of 10 %. The targets of depth $k$ are those of the main model without the first $k$.

# %%
losses = model.losses(tokens, targets)
count = targets.size  # B · T
for depth, logits in enumerate([model.logits(tokens), logits1, logits2]):
    flat, right = logits.reshape(-1, 40), targets[:, depth:].reshape(-1)  # (N, V), (N,)
    loss, _ = cross_entropy.forward(flat, right, count)  # summed and divided by B · T
    mean, _ = cross_entropy.forward(flat, right)  # divided by its own number of terms
    model_says = (losses.main, *losses.mtp)[depth]
    print(f"depth {depth}: by eq. 24 {loss:.6f}, the model {model_says:.6f}; own mean {mean:.6f}")
total = losses.main + config.mtp_loss_weight * np.mean(losses.mtp) + losses.balance
print("total = main + λ · mean of the depths + balance:", bool(np.isclose(total, losses.total)))

# %% [markdown]
# **What to notice.** An untrained model guesses: about $\ln 40 = 3.7$ nats a token, and a little more because its guesses are uneven. The right column divides by the terms that are really there, and shows
# that all depths guess alike; eq. 24 divides by $T$, so in this short batch the deeper losses look smaller than they are.
#
# ## 5. Two uses, two gradients
#
# Embedding and head serve every depth, so their gradients are **sums** over all uses; and $h^0$ gets a gradient from the head *and* from module 1. That is where the extra training signal enters the main model. How large is it?


# %%
def gradients(weight, which):
    """Gradient of the loss by one parameter, with λ = weight."""
    model.parameters.zero_grads()
    model.forward_backward(tokens, targets, mtp_loss_weight=weight)
    return model.parameters[which].grad.copy()


names = [
    "model.embed_tokens.weight",
    "lm_head.weight",
    "model.layers.1.mlp.gate.weight",
    "model.layers.0.self_attn.o_proj.weight",
]
shares = []
for name in names:
    main, with_mtp = gradients(0.0, name), gradients(0.3, name)
    shares.append(np.linalg.norm(with_mtp - main) / np.linalg.norm(main))

# %% tags=["picture"]
figure, axis = notebook.picture(width=8, height=2.2)
axis.barh(names[::-1], np.array(shares[::-1]), color=BLUE)
for y, share in enumerate(shares[::-1]):
    axis.text(share, y, f" {share:.0%}", va="center")
axis.set(
    xlabel="gradient through the MTP modules, as a share of the main one (λ = 0.3)",
    xlim=(0, max(shares) * 1.2),
)
notebook.show(
    figure,
    "Bars: the gradient that reaches embedding, head, router and attention through the MTP "
    "modules, relative to the main gradient",
)

# %% [markdown]
# **What to notice.** Between 7 and 19 % of an untrained toy's gradient comes from the second question. Nothing is detached: every parameter of the main model hears, through $h^0$, whether its state was useful for predicting *two* tokens ahead. V3's Table 4 reports what this buys: with the module dropped again at
# test time, HumanEval rises from 20.7 to 26.8 (small model) and from 44.5 to 53.7 (large), while the plain language-model loss does not move (0.729 bits per byte in both small models).
#
# ## 6. What does a module cost?

# %%
v3 = ModelConfig.preset("deepseek-v3")
print(f"parameters only the module has   {parameters.mtp_total(v3):>16,}")
print(f"of these at work on one token    {parameters.mtp_activated(v3):>16,}")
main, extra = flops.training(v3, 4096), flops.mtp_training(v3, 4096)
print(
    f"training work per token: {main / 1e9:.1f} + {extra / 1e9:.1f} GFLOP: {extra / main:.1%} more"
)

# %% [markdown]
# (The README of the released weights says 11.5B: it leaves out `eh_proj`'s 0.1B.) Four percent more work for a second question at every position; more than half of it is not the block but the second use of the head, a $129{,}280 \times 7168$ matrix.
#
# ## 7. In a small model the module is the better half
#
# At depth 1 the module is shown $t_{i+1}$ and asked for $t_{i+2}$: exactly what the main model is asked one position later, and it stands on one block more. Whether its loss is *higher* (it inherits a state that was made for another question) or *lower* (one
# block more) depends on how much one block in $L$ counts: little in V3's 61, a lot in a toy. Train a toy for a few seconds on a text with structure, and see:

# %%
alphabet = "abcdefghijklmnopqrstuvwxyz .,"
story = (
    "the cat sat on the mat, and the dog sat on the cat. then the rat ate the hat, and the cat "
    "ate the rat. " * 8
)
ids = np.array([alphabet.index(c) for c in story])


def trained(steps=120, seed=3):
    """Main and MTP losses of a toy model, step by step, on windows of the story."""
    toy_config = config.replace(
        vocab_size=len(alphabet), num_nextn_predict_layers=1, initializer_range=0.05, aux_loss_alpha=1e-4
    )  # fmt: skip
    toy, rng = minids.DeepSeekV3(toy_config, seed), np.random.default_rng(seed)
    m = v = 0.0  # Adam's two moments
    history = []
    for step in range(1, steps + 1):
        starts = rng.integers(0, len(ids) - 33, 8)
        windows = ids[starts[:, None] + np.arange(33)]  # (B, T + 1)
        toy.parameters.zero_grads()
        losses = toy.forward_backward(windows[:, :-1], windows[:, 1:])
        history.append((losses.main, losses.mtp[0] * 32 / 31))  # per predicted token, to be fair
        g = toy.parameters.grads
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        m_hat, v_hat = m / (1 - 0.9**step), v / (1 - 0.95**step)
        toy.parameters.values -= 0.01 * m_hat / (np.sqrt(v_hat) + 1e-8)
        toy.update_biases(losses.counts, 0.001)
    return np.array(history)


history = trained()  # (steps, 2)
for first, last in ((15, 45), (100, 120)):
    main, depth1 = history[first:last].mean(axis=0)
    print(f"steps {first:>3} to {last:>3}: main {main:.2f}, depth 1 {depth1:.2f} nats a token")

# %% tags=["picture"]
figure, axis = notebook.picture(width=8, height=2.9)
for column, (colour, label) in enumerate(
    ((BLUE, "main: next token"), (ORANGE, "depth 1: the token after next"))
):
    smooth = np.convolve(history[:, column], np.ones(5) / 5, "valid")
    axis.plot(np.arange(len(smooth)) + 3, smooth, color=colour, label=label)
axis.axhline(np.log(len(alphabet)), color="0.6", ls=":")
axis.text(60, np.log(len(alphabet)) - 0.22, "ln 29: guessing", color="0.4")
axis.set(xlabel="step", ylabel="nats per predicted token", ylim=(0, None))
axis.legend()
notebook.show(
    figure,
    "Two loss curves that fall from ln 29; the module of depth 1 ends at about the main model's "
    "loss or below",
)

# %% [markdown]
# **What to notice.** Both start at guessing, and while there is something to learn the module is ahead, by more than a quarter: three blocks have read what two have read for the main model. In the end both know the little story
# by heart, and the difference is gone.
#
# Do not read this as "predicting further is easier". It is not: without being *shown* $t_{i+1}$, nobody could do it. It means that in a shallow model one more block counts for much. In a deep one it is a small addition, and cheap, which is the idea behind drafting with it.
#
# ## Exercises
#
# ### 1. The targets of every depth
#
# Given the text as one array `whole` (B, T + 1), return for depth $k$ what the module is shown and what it must predict, both (B, T − k).


# %% tags=["solution"]
def shown_and_target(whole, k):
    """whole (B, T + 1) → tokens that enter at depth k, and targets; (B, T − k) each.

    k = 0 is the main model.
    """
    # Position i is shown token i + k and predicts token i + k + 1.
    return whole[:, k:-1], whole[:, k + 1 :]


# %% tags=["check"]
def reference(whole, k):
    """The same from the table of section 1, place by place."""
    T = whole.shape[1] - 1
    place = np.arange(T - k)
    shown = np.stack([whole[:, i + k] for i in place], axis=1)
    target = np.stack([whole[:, i + k + 1] for i in place], axis=1)
    return shown, target


def as_one(function):
    """The same function with its two arrays in one, so that both are compared."""

    def stacked(whole, k):
        pair = function(whole, k)
        return None if pair is None else np.stack(pair)

    stacked.__name__ = function.__name__
    return stacked


depths = [(whole, 0), (whole, 1), (whole, 2)]
check.ok(check.against(as_one(reference), as_one(shown_and_target), depths))

# %% [markdown]
# ### 2. Join, and the way back
#
# Write `combine(embedding, state, enorm, hnorm, eh_proj)` as in section 2, and its backward pass. `rmsnorm.forward` and `rmsnorm.backward` may be used. Return gradients in the order of the arguments.


# %% tags=["solution"]
def combine(embedding, state, enorm, hnorm, eh_proj):
    """embedding and state (..., d), gains (d,), eh_proj (d, 2d) → (joined (..., d), saved)."""
    e, saved_e = rmsnorm.forward(embedding, enorm)
    h, saved_h = rmsnorm.forward(state, hnorm)
    both = np.concatenate([e, h], axis=-1)
    return both @ eh_proj.T, (saved_e, saved_h, both, eh_proj)


def combine_backward(dy, saved):
    """dy (..., d) → d_embedding, d_state, d_enorm, d_hnorm, d_eh_proj."""
    # The joined vector is cut at the seam; each half goes back through its own norm.
    saved_e, saved_h, both, eh_proj = saved
    d = dy.shape[-1]
    d_both = dy @ eh_proj
    d_eh_proj = dy.reshape(-1, d).T @ both.reshape(-1, 2 * d)
    d_embedding, d_enorm = rmsnorm.backward(d_both[..., :d], saved_e)
    d_state, d_hnorm = rmsnorm.backward(d_both[..., d:], saved_h)
    return d_embedding, d_state, d_enorm, d_hnorm, d_eh_proj


# %% tags=["check"]
rng = np.random.default_rng(5)
inputs = {
    "embedding": rng.normal(size=(2, 3, 4)), "state": rng.normal(size=(2, 3, 4)),
    "enorm": rng.uniform(0.5, 1.5, 4), "hnorm": rng.uniform(0.5, 1.5, 4), "eh_proj": rng.normal(size=(4, 8)),
}  # fmt: skip
check.ok(check.against(mtp_combine.forward, combine, *inputs.values()))
check.ok(check.gradient(combine, combine_backward, inputs))

# %% [markdown]
# ### 3. The whole loss
#
# Write `mtp_loss(all_logits, targets, weight)`: from the logits of depths $0 \dots D$, (B, T − k, V) each, and targets (B, T), the total of eq. 25 without the balance loss.


# %% tags=["solution"]
def mtp_loss(all_logits, targets, weight):
    """Main loss plus weight / D times the sum of the depths' losses.

    Each is a sum over its own terms, divided by all B · T targets.
    """
    # Depth k has no target for its first k: they are cut off.
    losses = []
    for k, logits in enumerate(all_logits):
        logits = logits - logits.max(axis=-1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        right = np.take_along_axis(log_p, targets[:, k:, None], axis=-1)
        losses.append(-right.sum() / targets.size)
    return losses[0] + weight / (len(losses) - 1) * sum(losses[1:])


# %% tags=["check"]
def by_the_model(all_logits, targets, weight):
    """The package's losses of the same batch."""
    found = model.losses(tokens, targets)
    return found.main + weight * np.mean(found.mtp)


all_logits = [model.logits(tokens), *model.mtp_logits(tokens)]
check.ok(
    check.against(by_the_model, mtp_loss, [(all_logits, targets, 0.3), (all_logits, targets, 0.1)])
)

# %% [markdown]
# ### A wrong answer is noticed
#
# Dividing each depth's loss by its own number of terms is what some training codes do; it is not eq. 24. And an error by one, the classic:


# %%
def its_own_mean(all_logits, targets, weight):
    """Divides depth k by B · (T − k)."""
    mean = []
    for k, x in enumerate(all_logits):
        mean.append(cross_entropy.forward(x.reshape(-1, 40), targets[:, k:].reshape(-1))[0])
    return mean[0] + weight * np.mean(mean[1:])


def off_by_one(whole, k):
    """Shows the module its target."""
    return whole[:, k + 1 :], whole[:, k + 1 :]


notebook.caught(check.against(by_the_model, its_own_mean, all_logits, targets, 0.3))
notebook.caught(check.against(as_one(reference), as_one(off_by_one), [(whole, 1)]))

# %% [markdown]
# ## Where to read on
#
# - [`layers/mtp.py`](minids/layers/mtp.py) is the module, forward and backward; the chain itself, backward included, is in [`model.py`](minids/model.py) (`backward`: from the deepest module up).
# - [Notebook 9](notebooks/09_speculative_decoding.ipynb) uses the module to write two tokens at a time; [notebook 14](notebooks/14_museum_of_mistakes.ipynb) shows three ways to get MTP wrong.
# - V3 report: section 2.2 (MTP), 4.5.1 and Table 4 (ablation), 5.4.3 (acceptance).
