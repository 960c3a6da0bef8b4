# %% [markdown]
# # 3. Positions
#
# Attention sees a set of tokens, not a sequence. **How does a token learn where it stands, and how can a model that was trained on
# 4,096 tokens read 163,840?**
#
# %% [markdown]
# Three answers in three parts: *turn* the vectors (RoPE), *know which coordinates form a pair* (the layout, where most ported
# checkpoints break), and *slow the slow turns down* (YaRN).
#
# Code used here: [rope](minids/ops/rope.py), [yarn](minids/ops/yarn.py), [attention](minids/ops/attention.py),
# [positions](minids/layers/positions.py), which makes the angles from a configuration, and the
# [long-context study](minids/lab/studies/long_context.py). In the
# [report](https://arxiv.org/abs/2412.19437): equations 3 and 8 of section 2.1.1, and section 4.3 for the long context.

# %%
import numpy as np

import minids
from minids import check
from minids.lab import notebook
from minids.lab.plots import positions as draw
from minids.layers.positions import Rotary, softmax_scale
from minids.ops import rope, yarn

notebook.set_up()
rng = np.random.default_rng(0)
notebook.here("attention")

# %% [markdown]
# ## 1. Without positions, a layer knows no order
#
# Take the last token of a sequence and let it attend to all the others. Then shuffle the others. Nothing in
# $o = \sum_j \text{softmax}_j(q\cdot k_j)\,v_j$ knows about the order of the sum. Here with the sentence of these notebooks, in the first block of
# [the trained model](notebooks/model/README.md), whose rotations are switched off (cosine 1, sine 0 for every angle):
#
# **Write your guess; then run.** By how much does the output at the last token change: of one attention, and behind four blocks?

# %%
model = notebook.model(np.float64)
tokens, pieces = notebook.read(model)
T = tokens.shape[1]
rotary = model.rotary(T)
unturned = Rotary(np.ones_like(rotary.cos), np.zeros_like(rotary.sin))

order = np.concatenate([[0], 1 + rng.permutation(T - 2), [T - 1]])  # the first and the last stay
print(" ".join(pieces))
print(" ".join(pieces[i] for i in order), "\n")


def after(blocks, tokens, rotary):
    """What the attention of block 0 (blocks = 0), or so many blocks, make of the last token."""
    x, _ = model.embed_tokens.forward(tokens)
    if blocks == 0:
        normed, _ = model.blocks[0].input_norm.forward(x)
        return model.blocks[0].attention.forward(normed, rotary)[0][0, -1]
    for block in model.blocks[:blocks]:
        x, _ = block.forward(x, rotary)
    return x[0, -1]


for name, blocks in {"one attention": 0, "two blocks": 2, "four blocks": 4}.items():
    changes = []
    for angles in (unturned, rotary):
        straight, shuffled = (after(blocks, t, angles) for t in (tokens, tokens[:, order]))
        changes.append(np.linalg.norm(straight - shuffled) / np.linalg.norm(straight))
    print(f"{name:<14} changed by {changes[0]:.2f} without rotations, {changes[1]:.2f} with them")

# %% [markdown]
# **What to notice.** To a single layer "dog bites man" and "man bites dog" are the same: 0.00. Several causal layers know a little of the order even so, because
# what a token saw in the first depends on how many stood before it. It is a poor knowledge. So the position must get into $q\cdot k$.
#
# ## 2. Turn every pair of coordinates
#
# RoPE ([Su et al. 2021](https://arxiv.org/abs/2104.09864)) takes the coordinates of a query or a key two by two, and turns pair $i$ of the
# vector at position $t$ by the angle $\varphi = t\,\theta_i$:
#
# $$ \begin{pmatrix} a \\ b \end{pmatrix} \;\mapsto\;
# \begin{pmatrix} \cos\varphi & -\sin\varphi \\ \sin\varphi & \cos\varphi \end{pmatrix}
# \begin{pmatrix} a \\ b \end{pmatrix}, \qquad \theta_i = 10000^{-2i/d_r}, \quad i = 0 \dots \tfrac{d_r}{2} - 1 . $$
#
# Turning both vectors by the same angle leaves their dot product alone. So turning $q$ by $t\theta$ and $k$ by $s\theta$ is the same as
# turning $q$ alone by $(t-s)\theta$: **absolute turns, relative scores**.

# %%
T, d_r = 48, 16
letters = {"B": 1, "T": T, "d_r": d_r, "d_r/2": d_r // 2}
frequencies = yarn.plain_frequencies(d_r, 10000.0)
cos, sin = yarn.rotation_table(frequencies, np.arange(T))

q = np.broadcast_to(rng.standard_normal(d_r), (1, T, 1, d_r))  # the same query at every position,
k = np.broadcast_to(rng.standard_normal(d_r), (1, T, 1, d_r))  # and the same key
q_turned, _ = rope.forward(q, cos, sin)
k_turned, saved = rope.forward(k, cos, sin)
scores = q_turned[0, :, 0] @ k_turned[0, :, 0].T  # (T, T): query position by key position

notebook.shapes(letters, q=q, cos=cos, sin=sin, q_turned=q_turned, scores=scores)
spread = max(np.ptp(np.diagonal(scores, offset)) for offset in range(-T + 1, T))
print(f"\nlargest difference along a diagonal of the scores: {spread:.0e}")

draw.turns_and_scores(keys=k_turned[0, :, 0], scores=scores)

# %% [markdown]
# **What to notice.** Left: pair 0 turns by one radian a token, the next ones ever more slowly, like the hands of a clock. Fast pairs tell
# neighbours apart, slow ones tell far from near. Middle: the same query and key give the same score at the same *distance*, wherever
# they stand.

# %%
draw.pairs()
notebook.explore(draw.pairs, distance=(0, 2000, 1), base=[100, 10000, 50000, 1000000])

# %% [markdown]
# (With a running kernel, two sliders appear here. Watch the fast pairs on the left flicker while the slow ones on the right hardly move.)
#
# ### Exercise 1: turn it yourself
#
# Write RoPE for the *interleaved* layout, in which pair $i$ is $(x_{2i}, x_{2i+1})$.


# %% tags=["solution"]
def turn(x, cos, sin):
    """x (B, T, H, d_r), cos and sin (T, d_r/2) → turned x, same shape."""
    # x[..., 0::2] are the first coordinates of all pairs; cos[:, None, :] is the same for every head.
    a, b = x[..., 0::2], x[..., 1::2]
    cos, sin = cos[:, None, :], sin[:, None, :]
    y = np.empty_like(x)
    y[..., 0::2] = a * cos - b * sin
    y[..., 1::2] = a * sin + b * cos
    return y


# %% tags=["check"]
x = rng.standard_normal((2, len(cos), 3, 2 * cos.shape[1]))
check.ok(check.against(rope.forward, turn, x, cos, sin))

# %% [markdown]
# ### Exercise 2: the backward pass of a turn
#
# $y = Rx$ with a rotation $R$ gives $dx = R^\top dy$, and the transpose of a rotation is its inverse. Nothing is learned here. Use your
# `turn`.


# %% tags=["solution"]
def turn_backward(dy, saved):
    """dy (B, T, H, d_r) → dx; ``saved`` holds x, cos and sin."""
    _, cos, sin = saved
    return turn(dy, cos, -sin)


# %% tags=["check"]
few = {"x": rng.standard_normal((1, 3, 2, 4)), "cos": cos[:3, :2], "sin": sin[:3, :2]}
check.ok(check.gradient(turn, turn_backward, few, wrt=["x"]))

# %% [markdown]
# ## 3. Which coordinates are a pair? The layout
#
# The formula does not say which two coordinates form pair $i$, and there are two habits. DeepSeek's released weights are
# **interleaved**: $(x_{2i}, x_{2i+1})$. Many other programs are **half-split**: $(x_i, x_{i + d_r/2})$. Neither is better. But weights
# that were trained for one are wrong in the other, and the mistake is a quiet one: shapes fit, norms are kept, scores still depend on the
# distance alone. Only the *right distances* are gone.
#
# **Write your guess; then run.** How far apart are the two layouts at position 0, and how far at position 9?

# %%
halves, _ = rope.forward(x, cos, sin, interleave=False)
pairs, _ = rope.forward(x, cos, sin, interleave=True)
print("position 0, largest difference:", np.abs(pairs[:, :1] - halves[:, :1]).max())
print("position 9, largest difference:", np.abs(pairs[:, 9] - halves[:, 9]).max().round(2))
print(
    "norms, largest difference:     ",
    np.abs(np.linalg.norm(pairs, axis=-1) - np.linalg.norm(halves, axis=-1)).max().round(12),
)

draw.layouts()

# %% [markdown]
# Weights can be carried from one layout to the other by re-ordering the *rows* that make the rotary coordinates, once: put the row that
# made coordinate $2i$ at place $i$, and that of $2i + 1$ at place $i + d_r/2$. Queries and keys then hold the same numbers at other
# places, and their dot product does not care about places.
#
# ### Exercise 3: port a checkpoint
#
# Re-order the rows of a projection that was trained interleaved, so that half-split RoPE gives the same scores.


# %% tags=["solution"]
def to_half_split(weight):
    """Rows of a projection (d_r, d) for interleaved RoPE → the same projection for half-split RoPE."""
    return np.concatenate([weight[0::2], weight[1::2]])


# %% tags=["check"]
d = 10
w_q, w_k = rng.standard_normal((2, 2 * cos.shape[1], d))
hidden = rng.standard_normal((1, len(cos), d))


def rotary_scores(w_q, w_k, interleave):
    """Scores (T, T) of rotary queries and keys made from the hidden states."""
    q, k = (
        rope.forward((hidden @ w.T)[:, :, None], cos, sin, interleave)[0][0, :, 0]
        for w in (w_q, w_k)
    )
    return q @ k.T


def right_scores(w_q, w_k):
    return rotary_scores(w_q, w_k, interleave=True)


def ported_scores(w_q, w_k):
    ported = [np.asarray(to_half_split(w)) for w in (w_q, w_k)]
    if any(w.shape != w_q.shape for w in ported):
        raise ValueError(f"to_half_split returns shape {ported[0].shape}, expected {w_q.shape}")
    return rotary_scores(*ported, interleave=False)


right = right_scores(w_q, w_k)
check.ok(check.against(right_scores, ported_scores, w_q, w_k))

# %% [markdown]
# And what if one forgets to port? Position 0 is right, because nothing is turned there, and the check says so:

# %%
turned, _ = rope.forward(x, cos, sin)
mistaken, _ = rope.forward(x, cos, sin, interleave=False)
notebook.caught(check.close(mistaken, turned, name="turned"))

unported = rotary_scores(w_q, w_k, interleave=False)
print("\nscores with the wrong sign:", f"{np.mean(np.sign(unported) != np.sign(right)):.0%}")

# %% [markdown]
# ## 4. Why DeepSeek turns only a part
#
# In [latent attention](minids/layers/mla.py) keys are made from a small cached latent, $k = W^{UK} c$, and at inference
# $W^{UK}$ is merged into the query. A rotation in between, $q^\top R_{t-s} W^{UK} c$, depends on the distance, so it can be merged into
# neither. V3 therefore gives every head 128 coordinates without and 64 with a position, and the 64 come from the hidden state directly.
# All that follows concerns these $d_r = 64$: 32 pairs.
#
# ## 5. From 4 thousand tokens to 160 thousand
#
# V3 is pre-trained on sequences of 4,096 tokens. In that window pair 0 turns 652 times, while the slowest pair covers less than a tenth of
# a turn. Feed it a longer text and the slow pairs reach angles that they have never shown in training. What can be done?
#
# - *Squeeze all positions*: divide every frequency by $s$. Slow pairs stay in their range, but neighbours, which fast pairs tell apart,
#   become a blur.
# - **YaRN** ([Peng et al. 2023](https://arxiv.org/abs/2309.00071)): leave alone the pairs that turn often, divide by $s$ the pairs that
#   have not finished one turn, and blend in between:
#
# $$ \theta'_i = \theta_i\Big((1 - r_i) + \frac{r_i}{s}\Big), \qquad
# r_i = \text{clip}\Big(\frac{i - \text{low}}{\text{high} - \text{low}},\, 0,\, 1\Big), \qquad
# \text{low} = \big\lfloor D(32) \big\rfloor,\;\; \text{high} = \big\lceil D(1) \big\rceil , $$
#
# where $D(n) = \dfrac{d_r \ln\big(L_0 / (2\pi n)\big)}{2 \ln b}$, with the base $b$ (10,000 in V3), is the index of the pair that turns $n$ times within $L_0 = 4096$ tokens.

# %%
v3 = minids.ModelConfig.preset("deepseek-v3")
d_r, base, s = v3.qk_rope_head_dim, v3.rope_theta, v3.rope_scaling.factor
L_0 = v3.rope_scaling.original_max_position_embeddings
print(f"d_r {d_r}, base {base:.0f}, factor s {s:.0f}, trained {L_0} tokens, to {s * L_0:,.0f}")

theta = yarn.plain_frequencies(d_r, base)
low, high = yarn.cut_offs(d_r, base, L_0)
stretched = yarn.yarn_frequencies(d_r, base, s, L_0)
turns = L_0 * theta / (2 * np.pi)
print(
    f"pairs 0 … {low} kept, {low + 1} … {high - 1} blended, {high} … {d_r // 2 - 1} divided by {s:.0f}\n"
)
print("pair   turns in 4096   θ            θ'           θ/θ'")
for i in (0, 10, 11, 16, 22, 23, 31):
    print(
        f"{i:>4}   {turns[i]:>13.3f}   {theta[i]:.5e}  {stretched[i]:.5e}  {theta[i] / stretched[i]:>5.2f}"
    )


# %%
draw.slowed()
notebook.explore(
    draw.slowed, factor=(1, 64), base=[10000, 50000, 500000], trained=[2048, 4096, 8192]
)

# %% [markdown]
# **What to notice.** Left, in the grey band the orange curve leaves the blue one and joins the dotted one: fast pairs keep their speed, slow
# ones are slowed. Right, thin lines mark the largest angle seen in training; under YaRN (dashed) position 163,840 just reaches it. (With a running kernel there are controls for the factor $s$, the base and the trained length. Kimi K2 has a base of
# 50,000: what happens to the grey band?)
#
# And the neighbours that fast pairs tell apart? Take one step and measure how far a vector is moved by it, on average over all directions,
# in percent of its length.
#
# **Write your guess; then run.** How much of it is left with YaRN, and how much with all frequencies divided by 40?

# %%
for name, frequencies in (("plain", theta), ("YaRN", stretched), ("all divided by 40", theta / s)):
    moved = np.sqrt(np.mean(2 - 2 * np.cos(frequencies)))  # of the 32 pairs, root mean square
    print(f"{name:<18} one position further: {100 * moved:5.1f} %")

# %% [markdown]
# Under YaRN two neighbours are as far apart as ever; divided by 40 they nearly coincide.
#
# ### Exercise 4: YaRN in five lines
#
# From $d_r$, base, $s$ and $L_0$, the stretched frequencies $\theta'$, with 32 and 1 as the two numbers of turns.


# %% tags=["solution"]
def my_yarn(d_r, base, factor, original_length):
    """Stretched frequencies θ', (d_r/2,), with β_fast = 32 and β_slow = 1."""
    # The ramp runs over the index i, not over the wavelength.
    theta = base ** (-np.arange(0, d_r, 2) / d_r)

    def index_of(n):
        return d_r * np.log(original_length / (2 * np.pi * n)) / (2 * np.log(base))

    low, high = max(np.floor(index_of(32)), 0), min(np.ceil(index_of(1)), d_r - 1)
    ramp = np.clip((np.arange(d_r // 2) - low) / (high - low), 0, 1)
    return theta * (1 - ramp + ramp / factor)


# %% tags=["check"]
check.ok(
    check.against(
        yarn.yarn_frequencies,
        my_yarn,
        [(64, 1e4, 40.0, 4096), (64, 1e4, 8.0, 4096), (128, 5e5, 4.0, 8192)],
    )
)

# %% [markdown]
# Two wrong versions that circulate. Both agree with the right one at position 0, and only there. But under both, vectors keep their lengths and scores depend on the distance alone, so tests of
# these two properties pass:


# %%
def everything_divided(d_r, base, factor, original_length):
    # Linear interpolation, called YaRN.
    return yarn.plain_frequencies(d_r, base) / factor


def ramp_reversed(d_r, base, factor, original_length):
    # The fast pairs are slowed down and the slow ones kept.
    ramp = yarn.ramp(d_r, *yarn.cut_offs(d_r, base, original_length))
    return yarn.plain_frequencies(d_r, base) * (ramp + (1 - ramp) / factor)


for wrong in (everything_divided, ramp_reversed):
    notebook.caught(check.against(yarn.yarn_frequencies, wrong, 64, 1e4, 40.0, 4096))

# %% [markdown]
# ## 6. Does it work? Four times as long, measured
#
# Three small models (three seeds) were trained on 128 tokens and are read at up to 512, without any further training: as they are, with all positions squeezed, and with YaRN.
# Perplexity says how many tokens the model hesitates between; a needle is a fact that was said somewhere in the text and is asked for at its end ([the
# study](minids/lab/studies/long_context.py), `minids study long-context`).
#
# **Write your guess; then run.** Which is worse at the end of 512 tokens: doing nothing, or squeezing?

# %%
draw.four_times_as_long()

# %% [markdown]
# **What to notice.** Doing nothing is best within the trained length, and fails beyond it: perplexity 12.8. Squeezing all positions is the worst, 13.8, at every position even at the
# first, because neighbours have become a blur; but it finds needles. YaRN has both: 9.1 at the end. It costs a little where nothing had to be stretched (7.9 → 8.7 at 128), and 36 further steps of training take that
# back ([findings](docs/findings.md)). What three seeds do not show is that the *ramp* is better than a step: 9.15 against 9.11, undecided.
#
# ## 7. The other half of YaRN: a sharper softmax
#
# A softmax over forty times as many keys spreads thinner. YaRN answers by making all scores larger, by $m^2$ with
# $m = 0.1 \ln s + 1$:
#
# $$ \sigma = \frac{m^2}{\sqrt{d_h + d_r}}, \qquad m = 0.1 \ln 40 + 1 = 1.3689, \qquad
# \sigma = 0.0722 \;\rightarrow\; 0.1352 . $$
#
# How sharp is an attention? Count the keys that it effectively looks at: $e^{\text{entropy}}$ is $n$ for a uniform weight over $n$ keys
# and 1 for a single key. On random scores of unit variance, measured:

# %%
plain_scale = softmax_scale(v3.replace(rope_scaling=None))
long_scale = softmax_scale(v3)
m_squared = long_scale / plain_scale
print(f"scale {plain_scale:.10f} → {long_scale:.10f}, m² = {m_squared:.10f}\n")


def keys_looked_at(keys, sharpness, rows=200):
    """exp(entropy) of the softmax over random scores, mean over some rows."""
    z = sharpness * np.random.default_rng(1).standard_normal((rows, keys))
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    return np.exp(-np.sum(p * np.log(p), axis=-1)).mean()


lengths = np.array([256, 1024, 4096, 16384])
spread = {m: np.array([keys_looked_at(n, m) / n for n in lengths]) for m in (1.0, m_squared)}
for n, one, two in zip(lengths, *spread.values(), strict=True):
    print(f"{n:>6} keys: looks at {one:.0%} of them, with m² at {two:.0%}")

# %% [markdown]
# **What to notice.** Without $m^2$ a fixed *share* of the keys is looked at, so a longer text means proportionally more of them. With it,
# the share falls by a factor of about 3.5. (Real scores have more structure than random ones; the direction is what counts.) In DeepSeek's
# code the factor acts on the whole score, on the 128 coordinates without position as well.
#
# ## 8. Claims checked
#
# The report gives $s = 40$, $\beta_\text{fast} = 32$, $\beta_\text{slow} = 1$ and the factor $0.1\ln s + 1$ (section 4.3), and says that the
# window grows from 4K to 32K and then to 128K, a thousand steps each. The rest is arithmetic, done here in front of you:

# %%
print("4096 · 40 =", f"{4096 * 40:,}; max_position_embeddings", f"{v3.max_position_embeddings:,}")
print("tokens of the first stage  1000 · 1920 · 32768 =", f"{1000 * 1920 * 32768:,}")
print("tokens of the second stage 1000 · 480 · 131072 =", f"{1000 * 480 * 131072:,}")
share = 2 * 1000 * 1920 * 32768 / 14.8e12
print(f"both together: {share:.2%} of the 14.8 trillion tokens of pre-training")

# %% [markdown]
# Less than one percent of training buys a window thirty-two times as long: the model does not learn a new skill, it learns that its
# slow pairs now turn more slowly.
#
# ## Where to go from here
#
# - [Notebook 4](notebooks/04_mha_to_mla.ipynb): what all these keys cost in memory.
# - [Notebook 5](notebooks/05_mla_inside.ipynb): the one rotary key that all heads share.
# - [tests/ops/test_yarn.py](tests/ops/test_yarn.py): the constants above, held fixed.

# %% tags=["picture"]
notebook.card(
    """
    - RoPE turns pairs of coordinates by the position; the score of a query and a key then depends on
      their distance alone.
    - Interleaved or half-split is a matter of habit. Weights of the one are wrong in the other, and no
      shape says so.
    - YaRN keeps the fast pairs and slows the slow ones, so that no angle is new; and it sharpens the
      softmax.
    """,
    "9.1, not 12.8",
    "perplexity at four times the trained length, with and without YaRN",
    {"nothing": 12.8, "squeezed": 13.8, "YaRN": 9.1},
)
