# %% [markdown]
# # 6. Experts: fine-grained, shared, gated
#
# DeepSeek-V3 has 671 billion parameters and uses 37 billion of them for a token. **Who decides which ones, how do the tokens get
# there and back, and how can a decision, which has no slope, be learned by following slopes?**
#
# %% [markdown]
# Nearly all of the model's parameters are in feed-forward networks, the experts, and only a few of those see a given token. In this notebook a sentence
# meets the experts of a trained model. You route its tokens by hand, merge shared experts into one, and derive the one backward pass of the
# model that has a choice in it.
#
# Code used here: [router](minids/ops/router.py), [dispatch](minids/ops/dispatch.py),
# [grouped_feed_forward](minids/ops/grouped_feed_forward.py), [combine](minids/ops/combine.py), [swiglu](minids/ops/swiglu.py),
# [linear](minids/ops/linear.py), the whole layer, [moe](minids/layers/moe.py), and the walk through a model's
# blocks, [through](minids/lab/figures/trained.py). The checks of the exercises are in [lessons/experts](minids/lab/lessons/experts.py). Papers: section 2.1.2 of the
# [V3 report](https://arxiv.org/abs/2412.19437), equations 12 to 16, and section 3 of
# [DeepSeekMoE](https://arxiv.org/abs/2401.06066), where the ideas come from.

# %%
from math import comb

import numpy as np

import minids
from minids import check
from minids.lab import notebook
from minids.lab.figures.trained import through
from minids.lab.lessons import experts as lesson
from minids.lab.plots import experts as draw
from minids.ops import combine, dispatch, grouped_feed_forward, linear, router, swiglu

notebook.set_up(dots=120)
rng = np.random.default_rng(0)
notebook.here("experts", "router")

# %% [markdown]
# ## 1. A sentence among the experts
#
# The small DeepSeek-V3 of these notebooks ([how it was trained](notebooks/model/README.md)) has three blocks with 16 experts each, and of those 4 work on a token. Its sentence has
# words, numbers and a piece of code.
#
# **Write your guess; then run.** Nobody told the experts what to be good at. Which tokens of "The sum of 17 and 25 is 42, so return self.value." will share an expert?

# %%
model = notebook.model()
tokens, pieces = notebook.read(model)
routers = draw.Router(model, tokens, pieces)

routers.sentence(block=2)
notebook.explore(routers.sentence, block=[1, 2, 3], bias=[True, False])

# %% [markdown]
# **What to notice.** All six digits have expert 12 as their strongest, and the spaces before the numbers expert 1. "return" and "self" share
# expert 5, and "The", "of" and "and" expert 4. Shades of one colour are one group: there are four groups of four experts, and no token uses more than two of them. (With a
# running kernel: choose another block, and switch the bias off. Sections 3 and 4 explain what changes.)
#
# ### How it came to be so
#
# The model was trained for 1,750 steps. Here are rows from the first 200 steps of [a run with the same settings](notebooks/model/README.md). The last
# row is the trained model itself.
#
# **Write your guess; then run.** Before training every expert is random. After how many steps do most of the six digits share their strongest expert: 25,
# 200, or more?

# %%
training = draw.Training(routers)
training.strips()

# %%
training.sentence(step=0)
steps = np.array(training.steps)
notebook.explore(training.sentence, step=steps, block=[1, 2, 3], bias=[True, False])

# %% [markdown]
# **What to notice.** Before training two of the six digits share an expert; after 25 steps four do, and after 50 steps five. *Which* expert it is, is chance, and can change: it
# was number 8 in these steps, and it is 12 in the trained model. So the colours mean nothing by themselves. What counts is which tokens share one: "The", "of" and "and" do
# at step 200, and at the end. (With a running kernel: pull the slider through the steps.)
#
# ## 2. The five equations
#
# Let $u_t$ be the normalised hidden state of token $t$, and $u'_t$ what the norm read, the residual stream. (The report writes $u_t$ for both.)
# The layer adds to $u'_t$ the outputs of all $N_s$ *shared* experts and of $K$ among $N_r$ *routed* ones:
#
# $$ h'_t = u'_t + \sum_{i=1}^{N_s} \text{FFN}^{(s)}_i(u_t) + \sum_{i=1}^{N_r} g_{i,t}\, \text{FFN}^{(r)}_i(u_t) \qquad (12) $$
#
# $$ g_{i,t} = \frac{g'_{i,t}}{\sum_{j} g'_{j,t}} \;\;(13), \qquad
# g'_{i,t} = \begin{cases} s_{i,t} & s_{i,t} + b_i \text{ among the } K \text{ largest} \\ 0 & \text{otherwise} \end{cases} \;\;(14, 16), \qquad
# s_{i,t} = \sigma(u_t \cdot e_i) \;\;(15) $$
#
# Every expert has a vector $e_i$, its *centroid*: a token goes where its dot product is large. (Equation 14 is the one without $b_i$;
# equation 16 adds it. The program multiplies the gates by $\rho = 2.5$ as well, `routed_scaling_factor`, which the report does not print.)
# Now do it with block 2 of the model, one equation at a time.

# %%
at = list(through(model, tokens))[2]  # block 2, and what passed through it
moe, u = at.block.moe, at.saved.ffn.logits.x  # (N, d)  what the router reads
centroids, bias = moe.gate.weight.value, moe.bias
N, d, E, K = 23, 96, 16, 4
letters = {"N": N, "d": d, "E": E, "K": K}

logits, _ = linear.forward(u, centroids)  # (N, E)  u · e
routing, _ = router.forward(logits, bias, K, n_group=4, topk_group=2, scale=2.5)
notebook.shapes(letters, u=u, centroids=centroids, logits=logits, **routing._asdict())
lesson.told_gates(pieces, routing, tokens=range(5, 9))
check.ok(check.close(routing.gates, at.routing.gates, name="gates of the model"))

# %% [markdown]
# A sigmoid scores every expert by itself: several may come near one, or none. With the softmax of older routers the scores of all
# experts compete, chosen or not. Here only the chosen ones do, by the division of equation 13.
#
# ## 3. The bias chooses, the score weighs
#
# If an expert gets too few tokens, V3 raises its $b_i$ ([notebook 7](notebooks/07_balance.ipynb) shows how). Raise the bias of expert 15 so much
# that every token chooses it.
#
# **Write your guess; then run.** Every token now chooses expert 15 first. Is its gate the largest of the four, too?

# %%
raised = bias.copy()
raised[15] += 1.0  # scores lie between 0 and 1
pushed, _ = router.forward(logits, raised, K, scale=2.5)
draw.pushed(pieces, pushed, raised, expert=15, tokens=range(5, 9))

# %% [markdown]
# **What to notice.** The bias sends the token there, and does not make the gate larger. An expert with a low score has a small gate, however it was
# chosen. If gates were made from $s + b$, every step of balancing would change the weights in equation 12, even for tokens whose experts stay the same.
#
# ### Exercise 1: gates
#
# Write equations 13, 15 and 16 for a matrix of logits, without the factor 2.5. The chosen experts come in the order of $s_i + b_i$, largest first.


# %% tags=["solution"]
def gates_of(logits, bias, top_k):
    """logits (N, E), bias (E,) → gates (N, K), that of the best choice first."""
    # np.argsort sorts upwards; np.take_along_axis picks from every row by index.
    scores = 1 / (1 + np.exp(-logits))
    chosen = np.argsort(-(scores + bias), axis=-1, kind="stable")[:, :top_k]
    picked = np.take_along_axis(scores, chosen, axis=-1)
    return picked / picked.sum(axis=-1, keepdims=True)


# %% tags=["check"]
check.ok(lesson.check_gates_of(gates_of, logits, raised, top_ks=(3, K)))

# %% [markdown]
# A tempting mistake is to make the gates from the biased score. As long as all biases are zero, as in the first step of training
# and in most tests, it does not show:

# %%
wrong = lesson.gates_from_biased_scores
check.ok(lesson.check_gates_of(wrong, logits, np.zeros_like(bias), top_ks=(3, K)))
notebook.caught(lesson.check_gates_of(wrong, logits, raised, top_ks=(3, K)))

# %% [markdown]
# ## 4. Groups: a choice in two rounds
#
# V3's 256 experts are on several machines, and it chooses in two rounds ([notebook 7](notebooks/07_balance.ipynb) says why). The experts are in groups. The value of a group is the
# sum of its two best biased scores. The best groups stay, and the best $K$ experts are taken from those alone. Here is the word "is", token 12, in block 2. The thin strip
# beside a bar is the expert's bias: black raises the score, orange lowers it.
#
# **Write your guess; then run.** Is the expert with the third highest score among the four that are chosen?

# %%
routers.choice(token=12, block=2)
controls = {"token": (0, N - 1), "block": [1, 2, 3], "bias": [True, False]}
notebook.explore(routers.choice, kept_groups=[1, 2, 3, 4], **controls)

# %% [markdown]
# **What to notice.** Expert 15 has the third highest score of all, and is not chosen: its bias is the lowest, and its group does not stay. Experts 8 and 11, with lower scores, are chosen. The gates, in bold, are made from the bars without the strips.
#
# Where HTML runs (JupyterLab, VS Code, nbviewer; not on GitHub), point at a token below to see its scores, biases, groups and gates. Choose a block or a step of the
# training, or switch the bias or the groups off: the colours of the whole sentence follow.

# %%
routers.page(training)

# %% [markdown]
# The same model also has [a page of its own](docs/page/index.html), which computes for any text that you type. With a running kernel
# it appears here:

# %%
notebook.live_page()

# %% [markdown]
# ## 5. There and back: dispatch, experts, combine
#
# A matrix product is fast if one matrix meets many rows. So the tokens are copied, once for each expert they chose, and *sorted by expert*.
# Then every expert is three ordinary products on a slice of the rows. On a cluster this sorting is the all-to-all between nodes (section 3.2.2). Take five tokens of the
# sentence.
#
# **Write your guess; then run.** Each chooses 4 of the 16 experts. How many experts get none of the five tokens?

# %%
five = slice(5, 10)
few = router.Routing(*(array[five] for array in routing))
plan = dispatch.plan(few.chosen, E)
rows, _ = dispatch.forward(u[five], plan)  # (N·K, d)
print("counts ", plan.counts, f" sum {plan.counts.sum()} = 5 · {K}")
print("starts ", plan.starts, " expert e owns rows starts[e] to starts[e + 1] − 1")

draw.there_and_back(pieces[five], few, plan, routers.colours)

# %% [markdown]
# The experts work on their slices, and `combine` brings the outputs back: token $n$ gets $\sum_k g_{nk} \cdot$ (the row where its $k$-th
# copy went). That is the second sum of equation 12.

# %%
w_gate, w_up, w_down = (weight.value for weight in (moe.w_gate, moe.w_up, moe.w_down))
outputs, _ = grouped_feed_forward.forward(rows, plan.starts, w_gate, w_up, w_down)  # (N·K, d)
y, _ = combine.forward(outputs, few.gates, plan)  # (N, d)
letters = {"N": 5, "d": d, "E": E, "I": w_gate.shape[1], "N·K": 5 * K}
notebook.shapes(letters, rows=rows, w_gate=w_gate, w_up=w_up, w_down=w_down, outputs=outputs, y=y)

# The token "7" by hand: its four experts, its four gates.
by_hand = np.zeros(d, u.dtype)
for gate, e in zip(few.gates[2], few.chosen[2], strict=True):
    inner, _ = swiglu.forward(w_gate[e] @ u[7], w_up[e] @ u[7])  # (I,)
    by_hand += gate * (w_down[e] @ inner)
check.ok(check.close(y[2], by_hand, name="token 7"))

# %% [markdown]
# ### Exercise 2: equation 12 without any sorting
#
# The equation says "sum over all $N_r$ experts", most of them with $g = 0$. Write it so: a matrix of gates (N, E) full of zeros, and every
# expert on every token. It is the reference that the sorted version must equal, at $N_r/K$ times its work.


# %% tags=["solution"]
def all_experts(u, gates, chosen, w_gate, w_up, w_down):
    """u (N, d), gates and chosen (N, K), weights (E, I, d), (E, I, d), (E, d, I) → y (N, d)."""
    # np.put_along_axis(matrix, chosen, gates, axis=-1) writes the gates to their places.
    # The pre-activations of all experts at once: np.einsum("nd,eid->nei", u, w_gate).
    matrix = np.zeros((len(u), len(w_gate)))
    np.put_along_axis(matrix, chosen, gates, axis=-1)
    before = np.einsum("nd,eid->nei", u, w_gate)
    inner, _ = swiglu.forward(before, np.einsum("nd,eid->nei", u, w_up))
    return np.einsum("ne,nei,edi->nd", matrix, inner, w_down)


# %% tags=["check"]
check.ok(lesson.check_all_experts(all_experts))

# %% [markdown]
# ## 6. Why no token is dropped
#
# Many systems give every expert a buffer of fixed size, its *capacity* $c\,NK/E$ with a factor $c$ near one, so that all arrays
# have known shapes. What does not fit is dropped: the token passes the layer with fewer than its $K$ experts. The report says
# that V3 drops none, in training or inference. The shapes show why this package needs no rule for it: there are *always*
# $N \cdot K$ rows, however they are divided. An uneven division costs waiting, not tokens.
#
# What would be dropped at $c = 1$? Take 4,096 random tokens, 8 of 64 experts each. To every expert's logits a popularity is added, the same for all tokens; its spread grows from
# panel to panel.
#
# **Write your guess; then run.** With a spread of 0 all experts are equally popular. What share of the copies is dropped: none, a hundredth, a tenth?

# %%
draw.overflow(spreads=(0.0, 0.5, 1.0, 2.0))

# %% [markdown]
# **What to notice.** Even among equally popular experts, chance alone drops 2 %. With the most uneven ones it is 69 %,
# more than two thirds of the work. Dropping makes the output of a token depend on the *other tokens* of its batch, even on later ones. Without it
# each token is computed as if it were alone. Here is block 2 of the model, with the whole sentence, and with one token at a time:

# %%
together, _ = moe.forward(u[None])  # (1, N, d)
alone = [moe.forward(u[None, n : n + 1])[0] for n in range(N)]
check.ok(check.close(np.concatenate(alone, axis=1), together, name="every token alone"))

# %% [markdown]
# ## 7. A claim of the paper: four billion instead of 120
#
# DeepSeekMoE's first idea: cut each of $N$ experts into $m$ experts of an $m$-th of the width, and choose $mK$ instead of $K$. Neither the parameters
# nor the work grow. But how many *sets* of experts can a token be sent to?

# %%
for m in (1, 2, 4):
    work = 2 * m * 3 * 1024 * (4096 // m)  # products for a token
    chosen = f"{2 * m} of {16 * m} experts of width {4096 // m}"
    print(f"{chosen:<31} {work:,} products, {comb(16 * m, 2 * m):>13,} sets")
v3 = minids.ModelConfig.preset("deepseek-v3")
print(f"V3, 8 of 256: {comb(256, 8):.2e} sets. (8 + 1) · 2,048 = {9 * 2048:,},")
print(f"and its layers without experts have a width of {v3.intermediate_size:,}")

# %% [markdown]
# The numbers of section 3.1 of DeepSeekMoE, 120 and 4,426,165,368, are right. And V3's configuration has a pattern: the experts that a token passes in a layer are together
# exactly as wide as the feed-forward network of the first three layers, which have no experts. (More sets allow more, and promise nothing. What
# they are worth has to be measured, and [at our size](docs/findings.md) finer experts make no difference that shows.)
#
# On its way through V3's 58 layers of experts a token meets 464 of 14,848: [the wall](figures/12_wall_of_experts.png) shows all of them.
#
# In two dimensions a router can be drawn. Every point is a token; it is coloured by the set of experts that it chooses. In the third picture expert 2 has a bias.

# %%
draw.planes(bias=0.25)
notebook.explore(draw.planes, bias=(-0.5, 0.5, 0.05))

# %% [markdown]
# **What to notice.** Without a bias only the *direction* of a token matters, because $\sigma$ keeps the order: the regions are sectors.
# Finer experts cut finer ones, and neighbours differ in a single expert. (Of the 1,820 sets that 4 of 16 allow a plane has room for 16: how
# many sets are ever used depends on the dimensions as well, and V3 has 7,168.) A bias bends the borders. Around the origin
# all scores are close to a half, and there expert 2 now takes everything. Further out $\sigma$ is flat, so the same 0.25 makes up for a larger and
# larger difference of logits.
#
# ## 8. Shared experts
#
# The second idea: what every token needs should not be learned again by every expert. $N_s$ experts see all tokens, without a gate. Two
# SwiGLU networks that read the same input and whose outputs are added *are one network of twice the width*. Proof: stack the first matrices of the
# two, and the pre-activations stand one below the other. SwiGLU acts on each entry by itself. The last product is a sum over both halves,
#
# $$ \big[\,W^\text{down}_1 \;\; W^\text{down}_2\,\big] \begin{bmatrix} a_1 \\ a_2 \end{bmatrix} = W^\text{down}_1 a_1 + W^\text{down}_2 a_2 . $$
#
# ### Exercise 3: merge them
#
# This is how checkpoints store shared experts: one network, `shared_experts`. Build its three matrices.


# %% tags=["solution"]
def merged(w_gate, w_up, w_down):
    """Shared experts (N_s, I, d), (N_s, I, d), (N_s, d, I) → (N_s·I, d), (N_s·I, d), (d, N_s·I)."""
    # Two of the three are a reshape. The third is not: which axes have to be neighbours?
    size = w_gate.shape[-1]
    wide_down = w_down.transpose(1, 0, 2).reshape(size, -1)
    return w_gate.reshape(-1, size), w_up.reshape(-1, size), wide_down


# %% tags=["check"]
check.ok(lesson.check_merged(merged))


# %%
def merged_by_reshape(w_gate, w_up, w_down):
    gate, up, _ = merged(w_gate, w_up, w_down)
    return gate, up, w_down.reshape(w_down.shape[1], -1)  # looks like the other two


notebook.caught(lesson.check_merged(merged_by_reshape))

# %% [markdown]
# The shapes fit, the numbers do not. A reshape reads one expert to its end before the next begins, but in the wide matrix a row has entries of all experts.
#
# ## 9. Learning to choose
#
# Now backwards. The loss depends on the router's logits in two ways. One is the choice, which is a step: move a logit a little, and either
# nothing changes or an expert is exchanged. The other is the gates, which are smooth. Let a token walk around the plane on a circle, and watch the gates:

# %%
draw.gates_around(top_k=2)

# %% [markdown]
# At a border the two experts have the same score, so the new one gets the gate that the old one had. What jumps is *whose output* it
# multiplies. The gradient is that of the smooth pieces. The borders are ignored: practically no token is ever exactly on one. So *within* the chosen set differentiate
# $g_i = \rho\, s_i / S$ with $S = \sum_j s_j$, all sums over the chosen. The quotient rule gives
#
# $$ \frac{\partial g_i}{\partial s_j} = \frac{\rho}{S}\Big(\delta_{ij} - \frac{s_i}{S}\Big)
# \qquad\Rightarrow\qquad
# ds_j = \sum_i G_i \frac{\partial g_i}{\partial s_j} = \frac{\rho}{S}\Big(G_j - \frac1S\sum_i G_i s_i\Big), \qquad G_i = \frac{\partial L}{\partial g_i} , $$
#
# and the sigmoid adds its factor $s_j(1 - s_j)$. What is $G_i$? From $y = \sum_i g_i f_i$, with $f_i$ the output of expert $i$, it is
# $dy \cdot f_i$. With that the formula reads
#
# $$ ds_j = \frac{\rho}{S}\; dy \cdot \Big(f_j - \sum_i \frac{s_i}{S} f_i\Big) . $$
#
# *A score rises if its expert is better than the mixture.* Multiply by $s_j$ and sum: $\sum_j s_j G_j - \sum_i G_i s_i = 0$, so
#
# $$ \sum_j s_j \, ds_j = 0 . $$
#
# There is a reason: double all scores, and the gates stay as they are, so the gradient has no part along $s$. (You met this in
# [notebook 2](notebooks/02_backpropagation.ipynb): RMSNorm ignores the length of its input, softmax a constant added to it.)
#
# ### Exercise 4: the router, backwards
#
# `router_forward` keeps scores and choices. From the gradient of the gates make that of the logits, by the formula for $ds_j$ and the
# sigmoid's factor. What was not chosen gets zero.


# %%
RHO = 2.5


def router_forward(logits, *, chosen):
    """logits (N, E), chosen (N, K) → gates (N, K), saved."""
    routing, _ = router.forward(logits, None, chosen.shape[1], scale=RHO, chosen=chosen)
    return routing.gates, (routing.scores, routing.chosen)


# %% tags=["solution"]
def router_backward(d_gates, saved):
    """d_gates (N, K) → d_logits (N, E)."""
    # First the gradient of s, (N, K); then through the sigmoid; then to its places among zeros.
    scores, chosen = saved
    s = np.take_along_axis(scores, chosen, axis=-1)  # (N, K), of the chosen
    total = s.sum(axis=-1, keepdims=True)
    mean = np.sum(d_gates * s, axis=-1, keepdims=True) / total
    ds = RHO / total * (d_gates - mean)
    d_logits = np.zeros_like(scores)
    np.put_along_axis(d_logits, chosen, ds * s * (1 - s), axis=-1)
    return d_logits


# %% tags=["check"]
check.ok(lesson.check_router_backward(router_forward, router_backward))

# %% [markdown]
# `chosen` is an argument here, so that central differences, which move each logit a little, cannot tip the choice. That is what
# "frozen" means in the tests of this package; without it a token close to a border would be reported as a wrong gradient. And the choice
# here was made *with* a bias: an expert that its score alone would not have brought in gets a gradient like the others.
#
# Another tempting mistake is to differentiate the numerator alone, as if $S$ were a constant. Shape and zeros are right; the numbers are
# not, and some have the wrong sign:

# %%
notebook.caught(lesson.check_router_backward(router_forward, lesson.without_the_sum))

# %% [markdown]
# The law $\sum_j s_j\,ds_j = 0$ is a test that needs no differences. Undo the sigmoid and sum, for 1,000 random tokens and eight of 64 experts:

# %%
many = rng.standard_normal((1000, 64))
routed, saved = router.forward(many, None, 8, scale=RHO)
d_logits = router.backward(rng.standard_normal(routed.gates.shape), None, saved)
s_ds = d_logits / (1 - routed.scores)  # (N, E), because d_logits is ds · s (1 − s)
print(f"Σ |s ds| is {np.abs(s_ds).sum(axis=1).mean():.2f} on average;", end=" ")
print("|Σ s ds| is at most 1e-13:", np.abs(s_ds.sum(axis=1)).max() < 1e-13)

# %% [markdown]
# ### A router that learns
#
# Does such a gradient find the right experts, though it never looks beyond those that were chosen? A test in the plane: there are four experts, which do not change, and in each
# quarter of the plane another one has the right answer. The centroids begin at random and move by the gradient alone, 400 steps, with $K = 1$, 2 and 4 of the four experts.
#
# **Write your guess; then run.** Which $K$ learns nothing?

# %%
runs = {"K = 1": (1, 0), "K = 2": (2, 0), "K = 2, again": (2, 2), "K = 4": (4, 0)}
draw.learned({name: lesson.learn(top_k, seed) for name, (top_k, seed) in runs.items()})

# %% [markdown]
# **What to notice.** The colour of a point is the expert with the largest gate, and the number is the expert that is right in the quarter. The percentages say for how many tokens the two are the same, before the training and after. With all four experts at work, the slopes find
# every quarter: 99 % of the tokens give their largest gate to the right expert, 26 % did at the beginning. So a decision can be learned by following slopes, through the
# gates. With two of four it depends on the start. One run finds everything. In the other no token of quarter 1 chooses expert 1, so it gets no gradient there, and the quarter is never learned.
#
# With *one* expert a token, normalised gates are constant, all gradients are zero, and the router *never learns* from the loss:
# there is no other expert to be better than. Routers of one expert, such as that of [Switch](https://arxiv.org/abs/2101.03961), multiply by the
# score as it is, unnormalised.
# Something else than this gradient has to keep all experts in use, and [notebook 7](notebooks/07_balance.ipynb) is about that.
#
# ## 10. The whole layer, backwards
#
# Every step has a `backward`; call them in reverse. The token was read twice, by the router and by the experts, so two gradients
# are added (three with shared experts).


# %%
def layer_forward(u, centroids, w_gate, w_up, w_down, *, chosen):
    logits, saved_logits = linear.forward(u, centroids)  # (N, E)
    routing, saved_router = router.forward(logits, None, chosen.shape[1], scale=RHO, chosen=chosen)
    plan = dispatch.plan(chosen, len(w_gate))
    rows, _ = dispatch.forward(u, plan)  # (N·K, d)
    rows, saved_experts = grouped_feed_forward.forward(rows, plan.starts, w_gate, w_up, w_down)
    y, saved_combine = combine.forward(rows, routing.gates, plan)  # (N, d)
    return y, (saved_logits, saved_router, plan, saved_experts, saved_combine)


def layer_backward(dy, saved):
    saved_logits, saved_router, plan, saved_experts, saved_combine = saved
    d_rows, d_gates = combine.backward(dy, saved_combine)
    d_rows, *d_weights = grouped_feed_forward.backward(d_rows, saved_experts)
    du_experts = dispatch.backward(d_rows, plan)
    d_logits = router.backward(d_gates, None, saved_router)
    du_router, d_centroids, _ = linear.backward(d_logits, saved_logits)
    return du_experts + du_router, d_centroids, *d_weights


check.ok(check.gradient(layer_forward, layer_backward, lesson.small_layer()))

# %% [markdown]
# Leave out the router's part, as if the gates came from outside, and the gradient of the token lacks a term:


# %%
def deaf_to_the_router(dy, saved):
    du, *others = layer_backward(dy, saved)
    saved_logits, saved_router, *_, saved_combine = saved
    _, d_gates = combine.backward(dy, saved_combine)
    d_logits = router.backward(d_gates, None, saved_router)
    return du - linear.backward(d_logits, saved_logits)[0], *others


notebook.caught(check.gradient(layer_forward, deaf_to_the_router, lesson.small_layer()))

# %% [markdown]
# ## Where to go from here
#
# - [Notebook 7](notebooks/07_balance.ipynb): how the bias learns its values, the balance loss, and groups of experts that keep a
#   token on few nodes.
# - `minids route --checkpoint notebooks/model --text "your own sentence" --html experts.html`: the colours of any text.
# - [minids/layers/moe.py](minids/layers/moe.py): this layer with shared experts and balance loss, as the model has it.
# - [Notebook 14](notebooks/14_museum_of_mistakes.ipynb): what the biased gate looks like, and which tests catch it.

# %% tags=["picture"]
notebook.card(
    """
    - A router scores every expert by a sigmoid; the bias has a say in who is chosen, never in the
      gates.
    - Tokens are copied for each of their experts, sorted, computed, and added with their gates. None
      is dropped.
    - A score rises if its expert is better than the mixture. With a single expert there is nothing
      to be better than, and the router learns nothing from the loss.
    """,
    "9 of 257",
    "experts of a layer work on a token: 8 routed, 1 shared",
    {"all experts": 257, "at work": 9},
)
