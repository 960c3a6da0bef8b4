# %% [markdown]
# # 8. Multi-token prediction: looking two steps ahead
#
# A language model is asked one question per position: what comes next? That is one grade for a whole forward pass. **Could each position be asked
# about the token after next as well, without the model ever seeing an answer?**

# %% [markdown]
# DeepSeek-V3's answer (section 2.2 of the [report](https://arxiv.org/abs/2412.19437)) is a *chain*. Behind the main model stands a small module, one more Transformer
# block, which is told the next token and predicts the one after it. Another module could stand behind that one. V3 trains with one module (depth 1). Afterwards it is thrown away,
# or kept to draft tokens, which is the subject of [notebook 9](notebooks/09_speculative_decoding.ipynb).
#
# The module is simple. The **indices** are the hard part: what exactly may position $i$ see, and what must it predict? Off by one, the loss is very low and the
# model useless. So this notebook is mostly about indices, and draws them.
#
# Code used here: [`ops/mtp_combine.py`](minids/ops/mtp_combine.py),
# [`linear.py`](minids/ops/linear.py), [`rmsnorm.py`](minids/ops/rmsnorm.py), [`layers/mtp.py`](minids/layers/mtp.py),
# [`model.py`](minids/model.py), [`analysis/parameters.py`](minids/lab/analysis/parameters.py), [`analysis/flops.py`](minids/lab/analysis/flops.py),
# and the kept runs of `minids study mtp` ([`studies/mtp.py`](minids/lab/studies/mtp.py), read by
# [`studies/store.py`](minids/lab/studies/store.py)). The checks of the exercises are in [`lessons/mtp.py`](minids/lab/lessons/mtp.py).

# %%
import numpy as np

import minids
from minids import ModelConfig, check
from minids.lab import notebook
from minids.lab.analysis import flops, parameters
from minids.lab.lessons import mtp as lesson
from minids.lab.lessons import printed
from minids.lab.plots import mtp as draw
from minids.lab.studies.store import results
from minids.ops import linear, mtp_combine, rmsnorm

notebook.set_up()
notebook.here("mtp", "embedding", "head")

# %% [markdown]
# ## 1. The indices, drawn
#
# Take the first seven words of our sentence, a token each. The main model (depth 0) has read $t_1 \dots t_i$ and predicts $t_{i+1}$. The module of depth $k$ works at the *same position* $i$, but it is also
# shown the embedding of $t_{i+k}$, and predicts $t_{i+k+1}$:
#
# | depth | at position $i$ it has seen | embedding that enters | it predicts | positions |
# |---|---|---|---|---|
# | 0, the main model | $t_1 \dots t_i$ | $t_i$ | $t_{i+1}$ | $1 \dots T$ |
# | 1 | $t_1 \dots t_{i+1}$ | $t_{i+1}$ | $t_{i+2}$ | $1 \dots T-1$ |
# | 2 | $t_1 \dots t_{i+2}$ | $t_{i+2}$ | $t_{i+3}$ | $1 \dots T-2$ |
#
# In the drawing each box is one position of one depth: on top the word that enters, below it the word it has to predict. Position 2 is in colour.

# %%
draw.chain()
notebook.explore(draw.chain, depths=(1, 3), position=(1, 4))

# %% [markdown]
# (With a running kernel two sliders appear here: add a depth, move along the text.)
#
# **What to notice.** Green is the word that enters, orange the one that has to be predicted. It is always the *next* word, so no box is ever shown its answer. Down a column the words move on by one. The
# arrow carries what the depth above knows about position $i$. Each depth has one position fewer, because there is no further word to show at the end of the text.

# %% [markdown]
# ### Exercise 1: the targets of every depth
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
check.ok(lesson.check_shown_and_target(shown_and_target))

# %% [markdown]
# The usual error by one shows the module its target. The loss is then very low, because the answer has only to be copied. The check refuses it:


# %%
def off_by_one(whole, k):
    _, target = shown_and_target(whole, k)
    return target, target


notebook.caught(lesson.check_shown_and_target(off_by_one, depths=[1]))

# %% [markdown]
# ## 2. One step of the chain, in NumPy
#
# In words: take what the depth above knows about position $i$, and the next word, which it did not know. Normalise both, join them by one matrix, and give the result to one more
# Transformer block. V3 eqs 21–23, for $i = 1 \dots T-k$:
#
# $$
# h'^{\,k}_i = M_k\,\big[\,\mathrm{RMSNorm}(h^{k-1}_i)\,;\,\mathrm{RMSNorm}(\mathrm{Emb}(t_{i+k}))\,\big],\qquad
# h^k_{1:T-k} = \mathrm{TRM}_k\big(h'^{\,k}_{1:T-k}\big),\qquad
# P^k_{i+k+1} = \mathrm{OutHead}\big(h^k_i\big)
# $$
#
# $M_k \in \mathbb{R}^{d\times 2d}$ joins the two (in V3 $d = 7168$); $\mathrm{TRM}_k$ is a whole block with MLA and experts of its own; embedding and head are **the main model's own
# matrices**. V3 has one module, and so has the model that goes through these notebooks; the sentence is its text. All arrays are
# float64, so that comparisons are exact.

# %%
model = notebook.model(np.float64)
read = notebook.read(model)
tokens, targets = read.tokens[:, :-1], read.tokens[:, 1:]  # (B, T) each
(B, T), V = tokens.shape, model.config.vocab_size

# (B, T, d): h⁰, the main model's state after its final norm
x, _ = model.embed_tokens.forward(tokens)
for block in model.blocks:
    x, _ = block.forward(x, model.rotary(T))
hidden, _ = model.norm.forward(x)
embedding = model.embed_tokens.weight.value  # (V, d), shared
letters = {"T": T, "T-1": T - 1, "d": 96, "2d": 192, "V": V}
notebook.shapes(letters, tokens=tokens, hidden=hidden, embedding=embedding)

# %% [markdown]
# Depth 1, line by line. In Python positions count from 0: position $i$ is shown `tokens[:, i + 1]`, so the embeddings that enter are those of `tokens[:, 1:]`, and the states that have a partner are
# `hidden[:, :-1]`.

# %%
module = model.mtp[0]
shown = embedding[tokens[:, 1:]]  # (B, T−1, d)  Emb(t_{i+1})
known = hidden[:, :-1]  # (B, T−1, d)  h⁰_i, whose successor exists

# Each half gets a norm of its own, for their sizes differ.
e, _ = rmsnorm.forward(shown, module.enorm.value)
h, _ = rmsnorm.forward(known, module.hnorm.value)
both = np.concatenate([e, h], axis=-1)  # (B, T−1, 2d)
joined, _ = linear.forward(both, module.eh_proj.value)  # (B, T−1, d)
notebook.shapes(letters, shown=shown, known=known, both=both, joined=joined)
weights = module.enorm.value, module.hnorm.value, module.eh_proj.value
check.ok(check.close(joined, mtp_combine.forward(shown, known, *weights)[0], name="joined"))

# %% [markdown]
# **What to notice.** `shown` has the small rms of an embedding, `known` that of a normalised state. After the two norms both halves have about the same size (1, times trained gains), so neither hides the other.
#
# The paper writes the state first and the embedding second. The released weights (`eh_proj`, fed by `enorm` and `hnorm`) have the embedding first. A model trained from scratch can have
# either order; a checkpoint cannot: with the halves swapped, `eh_proj` multiplies each half by the other's columns.
#
# Next the block, the module's own final norm, and the **shared** head.
#
# **Write your guess; then run.** After "The sum of 17", shown "␣and", which token does the module say comes next?

# %%
# (B, T−1, d): attention over positions 1 … i, then experts
state, _ = module.block.forward(joined, model.rotary(T - 1))
h1, _ = module.norm.forward(state)  # (B, T−1, d)  h¹
logits1 = h1 @ model.head.weight.value.T  # (B, T−1, V): the main model's head

check.ok(check.close(logits1, model.mtp_logits(tokens)[0], name="logits of the module"))
print("position shown     asked for  module says")
for i in range(4, 10):
    says = model.tokenizer.decode([int(logits1[0, i].argmax())]).replace(" ", "␣")
    print(f"{i:>8} {read.pieces[i + 1]:<9} {read.pieces[i + 2]:<10} {says}")

# %% [markdown]
# **What to notice.** After "The sum of 17" the module, shown "␣and", says "␣", and that is right: a space token begins the next number. It cannot know the digits of a number, and guesses others.
#
# ### Exercise 2: join, and the way back
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
check.ok(lesson.check_combine(combine))
check.ok(lesson.check_combine_backward(combine, combine_backward))

# %% [markdown]
# ## 3. Who sees what? Ask the network itself
#
# For a chain of two modules we need a model with two: the same sizes, untrained.
# Instead of trusting the derivation, *measure* it: change one token $t_j$ and record which logits move. A position whose logits move has seen the token; one whose logits stay has not.
#
# **Write your guess; then run.** Position 3 of depth 2 must predict token 6. What is the last token that it sees?

# %%
two = minids.DeepSeekV3(model.config.replace(num_nextn_predict_layers=2), seed=1, dtype=np.float64)
ten = tokens[:, :10]  # (B, T) of this section


def influence(logits):
    """How far the logits at position i move when token j changes: (positions, T)."""
    before, moved = logits(ten), []  # (B, positions, V)
    for j in range(10):
        changed = ten.copy()
        changed[0, j] = (changed[0, j] + 1) % V
        moved.append(np.abs(logits(changed) - before).max(axis=(0, 2)))
    return np.stack(moved, axis=1)


chain = (two.logits, lambda x: two.mtp_logits(x)[0], lambda x: two.mtp_logits(x)[1])
draw.staircases([influence(logits) for logits in chain])

# %% [markdown]
# **What to notice.** Blue is what a position depends on; the orange dot is the token that it has to predict. In every map the dot lies exactly one step outside the
# staircase. Everything before the target is used, and the target is not. So the answer to the question at the top is yes: each position is asked for the token after next, and none sees an answer. The paper calls this
# "the complete causal chain at each prediction depth".
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
# (V3 eqs 24, 25; $\lambda = 0.3$ for the first 10T tokens, then 0.1.) The sum has $T-k$ terms and is divided by $T$: with $T = 4096$ a
# matter of 0.02 %, in our sentence of 5 % and 9 %. The targets of depth $k$ are those of the main model without the first $k$. Here
# are the losses of the model with two modules, divided in both ways:

# %%
lesson.told_losses(two, tokens, targets)

# %% [markdown]
# **What to notice.** This model is untrained, and guesses: $\ln 768 = 6.64$ nats a token. The right column divides by the number of terms that
# there are, and shows that all depths guess alike. Eq. 24 divides by $T$, so in a short text the deeper losses look smaller than
# they are.

# %% [markdown]
# ### Exercise 3: the whole loss
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
check.ok(lesson.check_mtp_loss(mtp_loss, two, tokens, targets))

# %% [markdown]
# Another way divides each depth's loss by its own number of terms. That is not eq. 24:

# %%
notebook.caught(lesson.check_mtp_loss(lesson.its_own_mean, two, tokens, targets))

# %% [markdown]
# ## 5. Two uses, two gradients
#
# Embedding and head serve every depth, so their gradients are **sums** over all uses; and $h^0$ gets a gradient from the head *and* from
# module 1. Through these the second question trains the main model. Here it is measured in the trained model, on the sentence.
#
# **Write your guess; then run.** With $\lambda = 0.3$, how large is the second question's gradient beside the first's?

# %%
names = (
    "model.embed_tokens.weight",
    "lm_head.weight",
    "model.layers.1.mlp.gate.weight",
    "model.layers.0.self_attn.o_proj.weight",
)
draw.second_gradient(lesson.second_gradients(model, tokens, targets, names, weight=0.3))

# %% [markdown]
# **What to notice.** Nothing is detached. Through $h^0$ every parameter of the main model gets a gradient that tells whether its state was useful for
# predicting *two* tokens ahead; for the embedding it is half as large as that of the main loss. V3's Table 4 reports
# what this buys: with the module dropped again at test time, HumanEval rises from 20.7 to 26.8 (small model) and from 44.5 to 53.7
# (large), while the plain language-model loss does not move (0.729 bits per byte in both small models).
#
# And here? `minids study mtp` trained five small models of each kind on the same text.
#
# **Write your guess; then run.** Is the main loss lower with a module?

# %%
study = results("mtp")
printed.findings("mtp")
draw.study(study)

# %% [markdown]
# **What to notice.** Five seeds show no change of the main loss, as in V3's table. (Benchmarks like HumanEval are too hard for
# models of this size.) And the second token is not *harder* than the first: at depth 1 the module is shown $t_{i+1}$ and asked for
# $t_{i+2}$, which is what the main model is asked one position later. And the module stands on one block more, which counts in a shallow model. It can do so only because it is *shown* $t_{i+1}$.
#
# ## 6. What does a module cost?

# %%
v3 = ModelConfig.preset("deepseek-v3")
print(f"parameters of the module alone: {parameters.mtp_total(v3):,}")
print(f"of these at work on one token:  {parameters.mtp_activated(v3):,}")
main, extra = flops.training(v3, 4096) / 1e9, flops.mtp_training(v3, 4096) / 1e9
print(f"training, GFLOP per token: {main:.1f} + {extra:.1f}, {extra / main:.1%} more")

# %% [markdown]
# **What to notice.** A second question at every position costs four percent more work. More than half of that is not the block but the second use of the head, a $129{,}280 \times 7168$ matrix. (The README of the released weights says 11.5B: it leaves out `eh_proj`'s 0.1B.)

# %% [markdown]
# ## Where to go from here
#
# - [`layers/mtp.py`](minids/layers/mtp.py) is the module, forward and backward; the chain itself, backward included, is in [`model.py`](minids/model.py) (`backward`: from the deepest module up).
# - [Notebook 9](notebooks/09_speculative_decoding.ipynb) uses the module to write two tokens at a time; [notebook 14](notebooks/14_museum_of_mistakes.ipynb) shows three ways to get MTP wrong.
# - V3 report: section 2.2 (MTP), 4.5.1 and Table 4 (ablation), 5.4.3 (acceptance).

# %% tags=["picture"]
notebook.card(
    """
    - Depth k, at position i, is shown token i + k and asked for token i + k + 1. It never sees an answer.
    - It is a chain: depth 2 stands on depth 1. Embedding and head are the main model's own.
    - The loss sums T − k terms and divides by T; λ / D of it is added.
    """,
    number="+4 %",
    meaning="work per token for a second question at every position, in V3. GFLOP of training per token:",
    bars={"main model": main, "module": extra},
)
