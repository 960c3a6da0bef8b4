# %% [markdown]
# # 3. Positions
#
# Attention sees a set of tokens, not a sequence. **How does a token learn where it stands, and how can a model that was trained on
# 4,096 tokens read 163,840?**
#
# %% [markdown]
# The answer has three parts: *turn* the vectors (RoPE), *know which coordinates form a pair* (the layout, where a ported
# checkpoint can break), and *slow the slow turns down* (YaRN).
#
# You need matrix products, sine and cosine, and a rough idea of what attention is.
#
# Code used here: [rope](minids/ops/rope.py), [yarn](minids/ops/yarn.py), [positions](minids/layers/positions.py), which makes the angles
# from a configuration, and the [long-context study](minids/lab/studies/long_context.py). What only prepares, prints or checks is in
# [lessons/positions](minids/lab/lessons/positions.py) and [lessons/printed](minids/lab/lessons/printed.py). In the
# [report](https://arxiv.org/abs/2412.19437): equations 3 and 8 of section 2.1.1, and section 4.3 for the long context.

# %%
import numpy as np

from minids import ModelConfig, check
from minids.lab import notebook
from minids.lab.lessons import positions as lesson
from minids.lab.lessons import printed
from minids.lab.plots import positions as draw
from minids.layers.positions import Rotary, softmax_scale
from minids.ops import rope, yarn

notebook.set_up()
rng = np.random.default_rng(0)
notebook.here("attention")

# %% [markdown]
# ## 1. Without positions, a layer knows no order
#
# Take the last token of a sequence and let it attend to all the others. Then shuffle the others. A sum does not depend on the order of its terms,
# and attention is a sum, $o = \sum_j \text{softmax}_j(q\cdot k_j)\,v_j$. Here is the sentence of these notebooks, in order and shuffled, read by
# [the trained model](notebooks/model/README.md): once with its rotations switched off (cosine 1, sine 0 for every angle), once with them.
#
# **Write your guess; then run.** Without rotations, how much does the shuffling change the last token: after one attention, and after four blocks?

# %%
model = notebook.model(np.float64)
tokens, pieces = notebook.read(model)
T = tokens.shape[1]
rotary = model.rotary(T)
unturned = Rotary(np.ones_like(rotary.cos), np.zeros_like(rotary.sin))

order = np.concatenate([[0], 1 + rng.permutation(T - 2), [T - 1]])  # the first and the last stay
print(" ".join(pieces), "\n" + " ".join(pieces[i] for i in order), "\n")

for blocks, name in {0: "one attention", 2: "two blocks", 4: "four blocks"}.items():
    off, on = (lesson.moved(model, tokens, order, r, blocks) for r in (unturned, rotary))
    print(f"{name:<14} changed by {off:.2f} without rotations, {on:.2f} with them")

# %% [markdown]
# **What to notice.** Without rotations one attention does not see the order at all: 0.00. Several causal layers see a little of it, because
# what a token collects in the first layer depends on which tokens stand before it. That is a tenth at most. So the position must get into $q\cdot k$.
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
cos, sin = yarn.rotation_table(yarn.plain_frequencies(d_r, 10000.0), np.arange(T))

q = np.broadcast_to(rng.standard_normal(d_r), (1, T, 1, d_r))  # the same query at every position,
k = np.broadcast_to(rng.standard_normal(d_r), (1, T, 1, d_r))  # and the same key
q_turned, _ = rope.forward(q, cos, sin)
k_turned, _ = rope.forward(k, cos, sin)
scores = q_turned[0, :, 0] @ k_turned[0, :, 0].T  # (T, T): query position by key position

notebook.shapes({"T": T, "d_r": 16, "d_r/2": 8}, q=q, cos=cos, q_turned=q_turned, scores=scores)
spread = max(np.ptp(np.diagonal(scores, offset)) for offset in range(-T + 1, T))
print(f"\nlargest difference along a diagonal of the scores: {spread:.0e}")

draw.turns_and_scores(keys=k_turned[0, :, 0], scores=scores)

# %% [markdown]
# **What to notice.** Left: pair 0 turns by one radian a token, each further pair more slowly, like the hands of a clock. Fast pairs tell
# neighbours apart, slow ones tell far from near. Middle and right: the same query and key give the same score at the same *distance*, wherever
# they stand. What each of V3's 32 pairs contributes to such a score, for a key that equals the query:

# %%
draw.pairs()
notebook.explore(draw.pairs, distance=(0, 2000, 1), base=[100, 10000, 50000, 1000000])

# %% [markdown]
# (With a running kernel, two sliders appear here. Move the distance: the fast pairs on the left change at every token, the slow ones on the right
# hardly at all.)
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
check.ok(lesson.check_turn(turn))

# %% [markdown]
# ### Exercise 2: the backward pass of a turn
#
# $y = Rx$ with a rotation $R$ gives $dx = R^\top dy$, and the transpose of a rotation is its inverse: it turns back. RoPE has no weights, so $dx$ is
# all. Use your `turn`.


# %% tags=["solution"]
def turn_backward(dy, saved):
    """dy (B, T, H, d_r) → dx; ``saved`` holds x, cos and sin."""
    _, cos, sin = saved
    return turn(dy, cos, -sin)


# %% tags=["check"]
check.ok(lesson.check_turn_backward(turn, turn_backward))

# %% [markdown]
# ## 3. Which coordinates are a pair? The layout
#
# The formula does not say which two coordinates form pair $i$, and there are two conventions. DeepSeek's released weights are
# **interleaved**: $(x_{2i}, x_{2i+1})$. Many other programs are **half-split**: $(x_i, x_{i + d_r/2})$. Neither is better. But weights
# that were trained with one are wrong with the other, and the mistake is hard to see: shapes fit, norms are kept, scores still depend on the
# distance alone. Only they are other scores than those that were trained.
#
# **Write your guess; then run.** The same vectors, turned in both layouts: how far apart are the results at position 0, and at position 9?

# %%
x = rng.standard_normal((2, T, 3, d_r))
halves, _ = rope.forward(x, cos, sin, interleave=False)
pairs, _ = rope.forward(x, cos, sin, interleave=True)
for t in (0, 9):
    print(f"position {t}, largest difference: {np.abs(pairs[:, t] - halves[:, t]).max():.2f}")
longer = np.linalg.norm(pairs, axis=-1) - np.linalg.norm(halves, axis=-1)
print(f"norms, largest difference:      {np.abs(longer).max():.2f}")

draw.layouts()

# %% [markdown]
# To carry weights from one layout to the other, re-order the *rows* that make the rotary coordinates, once: put the row that
# makes coordinate $2i$ at place $i$, and that of $2i + 1$ at place $i + d_r/2$. Queries and keys then hold the same numbers at other
# places, the same in both, so their dot product is the same.
#
# ### Exercise 3: port a checkpoint
#
# Re-order the rows of a projection that was trained interleaved, so that half-split RoPE gives the same scores.


# %% tags=["solution"]
def to_half_split(weight):
    """Rows of a projection (d_r, d) for interleaved RoPE → the same projection for half-split RoPE."""
    return np.concatenate([weight[0::2], weight[1::2]])


# %% tags=["check"]
check.ok(lesson.check_to_half_split(to_half_split))

# %% [markdown]
# And what if the weights are not ported? Position 0 is right, because nothing is turned there, and the check says so:

# %%
notebook.caught(check.close(halves, pairs, name="turned"))
print(f"\nscores with the wrong sign: {lesson.wrong_signs():.0%}")

# %% [markdown]
# ## 4. Why DeepSeek turns only a part
#
# In [latent attention](minids/layers/mla.py) keys are made from a small cached latent, $k = W^{UK} c$, and when the model writes,
# $W^{UK}$ is merged into the query. A rotation in between, $q^\top R_{t-s} W^{UK} c$, is another one for every distance, so it cannot be merged
# once and for all. V3 therefore gives every head 128 coordinates without and 64 with a position, and keys take those 64 directly from the
# hidden state. All that follows concerns these $d_r = 64$: 32 pairs.
#
# ## 5. From 4 thousand tokens to 160 thousand
#
# V3 is pre-trained on sequences of 4,096 tokens. In that window pair 0 turns 652 times, and the slowest pair makes less than a tenth of
# a turn. In a longer text the slow pairs reach angles that never occurred in training. What can be done?
#
# - *Interpolation*: divide every frequency by $s$, as if all positions were squeezed together. Slow pairs stay in their range, but the fast pairs
#   no longer tell neighbours apart.
# - **YaRN** ([Peng et al. 2023](https://arxiv.org/abs/2309.00071)): leave alone the pairs that turn often, divide by $s$ the pairs that
#   have not finished one turn, and blend in between:
#
# $$ \theta'_i = \theta_i\Big((1 - r_i) + \frac{r_i}{s}\Big), \qquad
# r_i = \text{clip}\Big(\frac{i - \text{low}}{\text{high} - \text{low}},\, 0,\, 1\Big), \qquad
# \text{low} = \big\lfloor D(32) \big\rfloor,\;\; \text{high} = \big\lceil D(1) \big\rceil , $$
#
# where $D(n) = \dfrac{d_r \ln\big(L_0 / (2\pi n)\big)}{2 \ln b}$, with the base $b$ (10,000 in V3), is the index of the pair that turns $n$ times within $L_0 = 4096$ tokens.

# %%
v3 = ModelConfig.preset("deepseek-v3")
d_r, base, s = v3.qk_rope_head_dim, v3.rope_theta, v3.rope_scaling.factor
L_0 = v3.rope_scaling.original_max_position_embeddings
print(f"d_r {d_r}, base {base:.0f}, factor s {s:.0f}, trained {L_0} tokens, to {s * L_0:,.0f}")

theta = yarn.plain_frequencies(d_r, base)
low, high = yarn.cut_offs(d_r, base, L_0)
stretched = yarn.yarn_frequencies(d_r, base, s, L_0)
print(f"pairs 0 … {low} kept, {low + 1} … {high - 1} blended, {high} … 31 divided by {s:.0f}\n")
lesson.print_pairs(theta, stretched, window=L_0)

# %%
draw.slowed()
notebook.explore(draw.slowed, **draw.SLOWED)

# %% [markdown]
# **What to notice.** Left, in the grey band the orange curve leaves the blue one and joins the dotted one: fast pairs keep their speed, slow
# ones are slowed. Right, thin lines mark the largest angle seen in training; with YaRN (dashed) position 163,840 just reaches it. (With a running kernel
# there are controls for the factor $s$, the base and the trained length. Kimi K2 has a base of 50,000: what happens to the grey band?)
#
# And the neighbours that fast pairs tell apart? Move a vector one position further and measure how far it moves, on average over all directions,
# in percent of its length.
#
# **Write your guess; then run.** Does YaRN make that step smaller? And how much smaller does interpolation make it?

# %%
for name, frequencies in (("plain", theta), ("YaRN", stretched), ("all divided by 40", theta / s)):
    moved = np.sqrt(np.mean(2 - 2 * np.cos(frequencies)))  # of the 32 pairs, root mean square
    print(f"{name:<18} one position further moves a vector by {100 * moved:4.1f} %")

# %% [markdown]
# With YaRN two neighbours are as far apart as before. With all frequencies divided by 40 they nearly coincide.
#
# ### Exercise 4: YaRN in five lines
#
# Write the formula above: from $d_r$, base, $s$ and $L_0$ to the stretched frequencies $\theta'$, with 32 and 1 as the two numbers of turns.


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
check.ok(lesson.check_yarn(my_yarn))

# %% [markdown]
# Two wrong versions: linear interpolation under the name of YaRN, and a ramp the other way round, which slows the fast pairs and keeps the slow ones.
# In both, vectors keep their lengths, position 0 is right, and scores depend on the distance alone, so tests of these properties pass:


# %%
def everything_divided(d_r, base, factor, original_length):
    return yarn.plain_frequencies(d_r, base) / factor


def ramp_reversed(d_r, base, factor, original_length):
    both = yarn.plain_frequencies(d_r, base) * (1 + 1 / factor)  # with the ramp r, and with 1 − r
    return both - my_yarn(d_r, base, factor, original_length)


for wrong in (everything_divided, ramp_reversed):
    notebook.caught(lesson.check_yarn(wrong))

# %% [markdown]
# ## 6. Does it work? Four times as long, measured
#
# A small model (three seeds) was trained on sequences of 128 tokens. It then reads 512 without any further training: as it is, with interpolation, and
# with YaRN. Perplexity says between how many tokens the model hesitates. A needle is a fact that stands somewhere in the text and is asked for at its
# end ([the study](minids/lab/studies/long_context.py), `minids study long-context`).
#
# **Write your guess; then run.** Which predicts the end of 512 tokens worse: no extension, or interpolation?

# %%
draw.four_times_as_long()

# %% [markdown]
# **What to notice.** Without extension the model is best within the trained length, and fails beyond it: perplexity 12.8. Interpolation predicts text
# worst at every position, 13.8 at the end, because it can no longer tell neighbours apart; but it finds 90 % of the needles. YaRN is good at both: 9.1
# and 96 %. It costs a little where nothing had to be stretched (7.9 → 8.7 at 128), and 36 further steps of training take that
# back ([findings](docs/findings.md)). Whether the *ramp* is better than a step, three seeds do not decide: 9.15 against 9.11.
#
# ## 7. The other half of YaRN: a sharper softmax
#
# Over forty times as many keys, a softmax spreads its weight more thinly. YaRN therefore makes all scores larger, by $m^2$ with
# $m = 0.1 \ln s + 1$:
#
# $$ \sigma = \frac{m^2}{\sqrt{d_h + d_r}}, \qquad m = 0.1 \ln 40 + 1 = 1.3689, \qquad
# \sigma = 0.0722 \;\rightarrow\; 0.1352 . $$
#
# How sharp is an attention? Count the keys that it effectively looks at: $e^{\text{entropy}}$ is $n$ for equal weights on $n$ keys
# and 1 for a single key. On random scores of variance 1, measured:

# %%
plain_scale, long_scale = softmax_scale(v3.replace(rope_scaling=None)), softmax_scale(v3)
m_squared = long_scale / plain_scale
print(f"scale {plain_scale:.10f} → {long_scale:.10f}, m² = {m_squared:.10f}\n")
for keys in (256, 1024, 4096, 16384):
    one, two = (lesson.share_looked_at(keys, sharpness) for sharpness in (1.0, m_squared))
    print(f"{keys:>6} keys: looks at {one:.0%} of them, with m² at {two:.0%}")

# %% [markdown]
# **What to notice.** Without $m^2$ a fixed *share* of the keys is looked at, so a longer text means proportionally more of them. With it,
# the share is a third or less. (Real scores are not random; only the direction carries over.) In DeepSeek's
# code the factor acts on the whole score, on the 128 coordinates without position as well. In the study of section 6, YaRN without $m^2$ finds
# fewer needles, 91 % instead of 96 %; for text the difference is undecided.
#
# ## 8. Claims checked
#
# The report gives $s = 40$, $\beta_\text{fast} = 32$, $\beta_\text{slow} = 1$ and the factor $0.1\ln s + 1$ (section 4.3), and says that the
# window grows from 4K to 32K and then to 128K, a thousand steps each. What follows from these numbers is not printed there:

# %%
printed.claims("v3_yarn_cut_offs", "v3_softmax_scales", "context_extension_tokens")
share = 2 * 62_914_560_000 / 14.8e12
print(f"both stages together: {share:.2%} of the 14.8 trillion tokens of pre-training")

# %% [markdown]
# So the window becomes thirty-two times as long for less than one percent of the training tokens.
#
# ## Where to go from here
#
# - [Notebook 4](notebooks/04_mha_to_mla.ipynb): what all these keys cost in memory.
# - [Notebook 5](notebooks/05_mla_inside.ipynb): the one rotary key that all heads share.
# - [tests/ops/test_yarn.py](tests/ops/test_yarn.py): tests that hold the constants above.

# %% tags=["picture"]
notebook.card(
    """
    - RoPE turns pairs of coordinates by the position; scores then depend on the distance alone.
    - Interleaved or half-split: weights of the one are wrong in the other, and no shape says so.
    - YaRN keeps the fast pairs and slows the slow ones, so that no angle is new; and it sharpens
      the softmax.
    """,
    "9.1, not 12.8",
    "perplexity at four times the trained length, with and without YaRN",
    {"none": 12.8, "interpolation": 13.8, "YaRN": 9.1},
)
