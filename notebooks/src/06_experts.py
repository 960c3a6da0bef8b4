# %% [markdown]
# # 6. Experts: fine-grained, shared, gated
#
# DeepSeek-V3 has 671 billion parameters and uses 37 billion of them for a token. **Who decides which ones, how do the tokens get
# there and back, and how can a decision, which has no slope, be learned by following slopes?**
#
# %% [markdown]
# Almost everything large in the model is a feed-forward network, and only a few of those see a given token. In this notebook a sentence meets the
# experts of a trained model; you route its tokens by hand, glue shared experts together, and derive the one backward pass of the
# model that has a choice in it.
#
# Code used here: [router](minids/ops/router.py), [dispatch](minids/ops/dispatch.py),
# [grouped_feed_forward](minids/ops/grouped_feed_forward.py), [combine](minids/ops/combine.py), [swiglu](minids/ops/swiglu.py),
# [linear](minids/ops/linear.py), the whole layer, [moe](minids/layers/moe.py), and the walk through a model's
# blocks, [through](minids/lab/figures/trained.py). Papers: section 2.1.2 of the
# [V3 report](https://arxiv.org/abs/2412.19437), equations 12 to 16, and section 3 of
# [DeepSeekMoE](https://arxiv.org/abs/2401.06066), where the ideas come from.

# %%
from math import comb

import numpy as np

import minids
from minids import check
from minids.lab import notebook
from minids.lab.figures.trained import through
from minids.lab.plots import experts as draw
from minids.ops import combine, dispatch, grouped_feed_forward, linear, router, swiglu

notebook.set_up()
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
# **What to notice.** All six digits go to expert 12, and the spaces before the numbers to expert 1. "return" and "self" share
# expert 5, and "The", "of" and "and" expert 4. Colours of one kind are one group: there are four groups of four, and no token uses more than two of them. (With a
# running kernel: choose another block, and switch the bias off. By section 4 you will know what changed, and why.)
#
# ### How it came to be so
#
# The model was trained for 1,750 steps. Here are the first 200 steps of [a run with the same settings](notebooks/model/README.md), with a look at the
# routers at every 25th. The last row is the trained model itself.
#
# **Write your guess; then run.** Before training every expert is random. After how many steps do most of the six digits share their strongest expert: 25,
# 200, or more?

# %%
training = draw.Training(routers)
training.strips()

# %%
training.sentence(step=0)
notebook.explore(
    training.sentence, step=np.array(training.steps), block=[1, 2, 3], bias=[True, False]
)

# %% [markdown]
# **What to notice.** Before training two of the six digits share an expert; after 50 steps five do. *Which* expert it is, is chance, and can change: it
# was number 8 in these steps, and is 12 in the trained model. So look at which tokens share a colour, not at the colours: "The", "of" and "and" are
# together at step 200, and at the end. (With a running kernel: pull the slider through the steps.)
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
moe = at.block.moe
u = at.saved.ffn.logits.x  # (N, d)  what the router reads
centroids, bias = moe.gate.weight.value, moe.bias
(N, d), E, K = u.shape, len(centroids), model.config.num_experts_per_tok
letters = {"N": N, "d": d, "E": E, "K": K}

logits, _ = linear.forward(u, centroids)  # (N, E)  u · e
routing, _ = router.forward(logits, bias, K, n_group=4, topk_group=2, scale=2.5)
notebook.shapes(letters, u=u, centroids=centroids, logits=logits, **routing._asdict())
print("\ntoken     experts, best first      gates, eq. 13 times 2.5")
for n in range(5, 9):
    gates = " ".join(f"{gate:.2f}" for gate in routing.gates[n])
    print(f"{pieces[n]!r:<9} {routing.chosen[n]!s:<24} {gates}   sum {routing.gates[n].sum():.1f}")
check.ok(check.close(routing.gates, at.routing.gates, name="gates of the model"))

# %% [markdown]
# A sigmoid asks about every expert by itself: several may score near one, or none. The softmax of older routers makes the scores of all
# 256 experts compete, chosen or not. Here only the chosen ones are compared, by the division of equation 13.
#
# ## 3. The bias chooses, the score weighs
#
# If an expert gets too few tokens, V3 raises its $b_i$ ([notebook 7](notebooks/07_balance.ipynb) shows how). Raise that of expert 15 so much
# that everybody goes there.
#
# **Write your guess; then run.** What becomes of the gate of expert 15: is it now the largest of a token's gates, or what else?

# %%
raised = bias.copy()
raised[15] += 1.0  # more than any score can be apart
pushed, _ = router.forward(logits, raised, K, scale=2.5)
for n in range(5, 9):
    place = list(pushed.chosen[n]).index(15)
    print(
        f"{pieces[n]!r:<9} score of expert 15 {pushed.scores[n, 15]:.3f}, with bias "
        f"{pushed.scores[n, 15] + raised[15]:.3f}, its gate {pushed.gates[n, place]:.3f}"
    )

# %% [markdown]
# **What to notice.** The bias sends the token; it does not raise the expert's voice. A token that was pushed to an expert with a low
# score listens to it with a low weight. Were the gate made from $s + b$, every step of
# balancing would change the weights of the sum in equation 12, for tokens as well that go where they went before.
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
def right_gates(logits, bias, top_k):
    return router.forward(logits, bias, top_k)[0].gates


check.ok(check.against(right_gates, gates_of, [(logits, raised, 3), (logits, raised, K)]))

# %% [markdown]
# The mistake to make here is to carry the biased score into the gate. As long as all biases are zero, as in the first step of training
# and in most tests, nobody can see it:


# %%
def gates_from_biased_scores(logits, bias, top_k):
    routing, _ = router.forward(logits, bias, top_k)  # the right experts
    biased = routing.scores + bias
    picked = np.array([biased[n, chosen] for n, chosen in enumerate(routing.chosen)])
    return picked / picked.sum(axis=-1, keepdims=True)


no_bias = np.zeros_like(bias)
check.ok(check.against(right_gates, gates_from_biased_scores, logits, no_bias, K))
notebook.caught(check.against(right_gates, gates_from_biased_scores, logits, raised, K))

# %% [markdown]
# ## 4. Groups: a choice in two rounds
#
# With 256 experts on many machines V3 chooses in two rounds ([notebook 7](notebooks/07_balance.ipynb) says why). Experts stand in groups. A group is as good as its
# two best biased scores together; the best groups stay, and the best $K$ experts are taken from those alone. Here is the word "is", token 12, in block 2. The thin strip
# beside a bar is the expert's bias: black raises it, orange lowers it.

# %%
routers.choice(token=12, block=2)
notebook.explore(
    routers.choice,
    token=(0, N - 1),
    block=[1, 2, 3],
    bias=[True, False],
    kept_groups=[1, 2, 3, 4],
)

# %% [markdown]
# **What to notice.** Expert 15 has the third highest score of all, and goes away empty-handed: its bias is the lowest, and its group is weak. Experts 8 and 11, with lower scores, are chosen. The gates in bold are made of the bars, not of the strips.
#
# Where HTML runs (JupyterLab, VS Code, nbviewer; not on GitHub), point at any token below: scores, biases, groups and gates of each block, with the bias or the groups
# switched off, and at any of some steps of the training. The whole sentence changes its colours with them.

# %%
routers.page(training)

# %% [markdown]
# The same model also lives in [a page of its own](docs/page/index.html), in which you type the text and it computes. With a running kernel
# it stands here:

# %%
notebook.live_page()

# %% [markdown]
# ## 5. There and back: dispatch, experts, combine
#
# A matrix product wants many rows for one matrix. So the tokens are copied, once for each expert they chose, and *sorted by expert*:
# then every expert is three ordinary products on a slice. On a cluster this sorting is the all-to-all between nodes (section 3.2.2). Five tokens of the
# sentence:

# %%
five = slice(5, 10)
few = router.Routing(*(array[five] for array in routing))
plan = dispatch.plan(few.chosen, E)
rows, _ = dispatch.forward(u[five], plan)  # (N·K, d)
print("counts ", plan.counts, f" sum {plan.counts.sum()} = 5 · {K}")
print("starts ", plan.starts, " expert e owns rows starts[e] to starts[e + 1] − 1")

draw.there_and_back(pieces[five], few, plan, routers.colours)

# %% [markdown]
# The experts work on their slices, and `combine` brings the outputs home: token $n$ gets $\sum_k g_{nk} \cdot$ (the row where its $k$-th
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
# Small weights in float64: here they are easier to compare.
N, d, E, K, width = 7, 4, 6, 2, 3
u = rng.standard_normal((N, d))
w_gate, w_up = 0.7 * rng.standard_normal((2, E, width, d))
w_down = 0.7 * rng.standard_normal((E, d, width))
centroids, bias = rng.standard_normal((E, d)), 0.2 * rng.standard_normal(E)
logits, _ = linear.forward(u, centroids)
routing, _ = router.forward(logits, bias, K)


def sorted_experts(u, gates, chosen, w_gate, w_up, w_down):
    plan = dispatch.plan(chosen, len(w_gate))
    rows, _ = dispatch.forward(u, plan)
    outputs, _ = grouped_feed_forward.forward(rows, plan.starts, w_gate, w_up, w_down)
    return combine.forward(outputs, gates, plan)[0]


arguments = (u, routing.gates, routing.chosen, w_gate, w_up, w_down)
check.ok(check.against(sorted_experts, all_experts, *arguments))

# %% [markdown]
# ## 6. Why no token is dropped
#
# Many systems give every expert a buffer of fixed size, its *capacity* $c\,NK/E$ with a factor $c$ near one, so that all arrays
# have known shapes. What does not fit is dropped: the token passes the layer with less than its $K$ experts. The report says
# that V3 drops none, in training or inference. Look at the shapes and you see why this package needs no rule for it: there are *always*
# $N \cdot K$ rows, however they are divided. What an uneven division costs is waiting, not tokens.
#
# **Write your guess; then run.** All experts are equally popular, and $c = 1$: what share of the copies is dropped, none, a hundredth, a tenth?

# %%
tokens, experts, top_k = 4096, 64, 8
capacity = tokens * top_k // experts
print("spread of popularity   largest load   dropped at c = 1   rows kept here")
for spread in (0.0, 0.5, 1.0, 2.0):
    popularity = spread * rng.standard_normal(experts)
    skewed = rng.standard_normal((tokens, experts)) + popularity
    load = dispatch.plan(router.choose(skewed, top_k), experts).counts
    lost = np.maximum(load - capacity, 0).sum() / (tokens * top_k)
    print(f"{spread:>12.1f} {load.max() / capacity:>20.2f} {lost:>16.1%} {load.sum():>19,}")

# %% [markdown]
# **What to notice.** Even with experts of equal popularity chance alone drops a percent or two at $c = 1$; with uneven ones it is
# up to seven tenths of the work. Dropping makes the output of a token depend on the *other tokens* of its batch, on those of the future even. Without it
# each token is computed as if it were alone:

# %%
alone = [sorted_experts(*(a[n : n + 1] for a in arguments[:3]), *arguments[3:]) for n in range(N)]
check.ok(check.close(np.concatenate(alone), sorted_experts(*arguments), name="every token alone"))

# %% [markdown]
# ## 7. A claim of the paper: four billion instead of 120
#
# DeepSeekMoE's first idea: cut each of $N$ experts into $m$ of a $m$-th of the width, and choose $mK$ instead of $K$. Nothing gets
# larger, neither the parameters nor the work. But how many *sets* of experts can a token be sent to?

# %%
print("experts  chosen   width   parameters, and products a token   sets of experts")
for m in (1, 2, 4):
    count, chosen_count, size = 16 * m, 2 * m, 4096 // m
    weights, work = (n * 3 * 1024 * size for n in (count, chosen_count))
    sets = comb(count, chosen_count)
    print(f"{count:>7} {chosen_count:>7} {size:>7} {weights:>15,} {work:>18,} {sets:>17,}")

v3 = minids.ModelConfig.preset("deepseek-v3")
routed, shared = v3.num_experts_per_tok, v3.n_shared_experts
print(f"\nV3: {routed} of {v3.n_routed_experts}: {comb(v3.n_routed_experts, routed):.2e} sets")
print(f"({routed} + {shared}) · {v3.moe_intermediate_size:,} = {(routed + shared) * 2048:,};")
print(f"width of V3's dense layers: {v3.intermediate_size:,}")

# %% [markdown]
# The numbers of section 3.1 of DeepSeekMoE, 120 and 4,426,165,368, are right. And a small discovery in V3's configuration: what a token
# passes in a layer of experts is exactly as wide as the first three layers, which have none. (More sets is more freedom, not a promise: what
# it is worth has to be measured, and [at our size](docs/findings.md) finer experts make no difference that shows.)
#
# On its way through V3's 58 layers of experts a token meets 464 of 14,848: [the wall](figures/12_wall_of_experts.png) shows all of them.
#
# With two dimensions a router can be drawn. Every point is a token; it is coloured by the set of experts that it chooses.


# %%
def around(count):
    """Centroids on a circle, not quite even: (count, 2)."""
    turn = 2 * np.pi * (np.arange(count) + 0.5 * np.sin(3 * np.arange(count))) / count
    return 1.5 * np.stack([np.cos(turn), np.sin(turn)], axis=-1)


helped = np.array([0, 0, 0.25, 0])
draw.planes(
    {
        "1 of 4": (around(4), 1, None),
        "4 of 16": (around(16), 4, None),
        "1 of 4, bias 0.25 for one": (around(4), 1, helped),
    }
)

# %% [markdown]
# **What to notice.** Without a bias only the *direction* of a token matters, because $\sigma$ keeps the order: the regions are sectors.
# Finer experts cut finer ones, and neighbours differ in a single expert. (Of the 1,820 sets that 4 of 16 allow a plane has room for 16: how
# many sets are ever used depends on the dimensions as well, and V3 has 7,168.) A bias bends the borders. Around the origin, where
# all scores are close to a half, expert 2 now takes everything; and further out the same 0.25 is worth more and more logit, since
# $\sigma$ grows flat.
#
# ## 8. Shared experts
#
# The second idea: what every token needs should not be learned again by every expert. $N_s$ experts see all tokens, without a gate. Two
# SwiGLU networks that read the same input and whose outputs are added *are one network of twice the width*. Proof, with the matrices of the
# two stacked: the pre-activations of both stand one below the other; SwiGLU acts on each entry by itself; and the product with
# $[\,W_1 \; W_2\,]$ is a sum over both halves,
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
N_s = 3
shared = w_gate[:N_s], w_up[:N_s], w_down[:N_s]


def one_by_one(u):
    return sum(
        swiglu.forward(u @ gate.T, u @ up.T)[0] @ down.T
        for gate, up, down in zip(*shared, strict=True)
    )


def as_one(u):
    gate, up, down = merged(*shared)
    return swiglu.forward(u @ gate.T, u @ up.T)[0] @ down.T


check.ok(check.against(one_by_one, as_one, u))


# %%
def merged_by_reshape(u):
    gate, up = (w.reshape(-1, d) for w in shared[:2])
    down = shared[2].reshape(d, -1)  # looks like the other two
    return swiglu.forward(u @ gate.T, u @ up.T)[0] @ down.T


notebook.caught(check.against(one_by_one, merged_by_reshape, u))

# %% [markdown]
# The shapes fit, the numbers do not: a reshape walks through an expert before it comes to the next, but here the outputs are the rows.
#
# ## 9. Learning to choose
#
# Now backwards. How does the loss depend on the router's logits? Through the choice, which is a step: move a logit a little and either
# nothing changes or an expert is exchanged. And through the gates, which are smooth. Walk around the plane on a circle and watch the gates:

# %%
turn = np.linspace(0, 2 * np.pi, 1441)
on_circle = 1.5 * np.stack([np.cos(turn), np.sin(turn)], axis=-1)
walk, _ = router.forward(on_circle @ around(4).T, None, 2)
of_each = np.zeros((len(turn), 4))
np.put_along_axis(of_each, walk.chosen, walk.gates, axis=-1)
exchanged = np.flatnonzero((np.diff(of_each > 0, axis=0)).any(axis=1))
print("an expert is exchanged at", np.degrees(turn[exchanged]).round().astype(int), "degrees")

draw.gates_around(np.degrees(turn), of_each, exchanged)

# %% [markdown]
# At a border the two experts have the same score, so the new one inherits the gate of the old one; what jumps is *whose output* it is
# multiplied with. The gradient is that of the smooth pieces, and the borders, which no token ever hits exactly, are ignored. So *within* the chosen set differentiate
# $g_i = \rho\, s_i / S$ with $S = \sum_j s_j$, all sums over the chosen. The quotient rule gives
#
# $$ \frac{\partial g_i}{\partial s_j} = \frac{\rho}{S}\Big(\delta_{ij} - \frac{s_i}{S}\Big)
# \qquad\Rightarrow\qquad
# ds_j = \sum_i G_i \frac{\partial g_i}{\partial s_j} = \frac{\rho}{S}\Big(G_j - \frac1S\sum_i G_i s_i\Big), \qquad G_i = \frac{\partial L}{\partial g_i} , $$
#
# and the sigmoid adds its factor $s_j(1 - s_j)$. What is $G_i$? From $y = \sum_i g_i f_i$, with $f_i$ the output of expert $i$, it is
# $dy \cdot f_i$. Put it in, and the formula speaks:
#
# $$ ds_j = \frac{\rho}{S}\; dy \cdot \Big(f_j - \sum_i \frac{s_i}{S} f_i\Big) . $$
#
# *A score rises if its expert is better than the mixture.* Multiply by $s_j$ and sum: $\sum_j s_j G_j - \sum_i G_i s_i = 0$, so
#
# $$ \sum_j s_j \, ds_j = 0 . $$
#
# It had to be: double all scores and the gates stay as they are, so the gradient has no part along $s$. (You met this in
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
    scores, chosen = saved
    s = np.take_along_axis(scores, chosen, axis=-1)  # (N, K), of the chosen
    # First the gradient of s, (N, K); then through the sigmoid; then to its places among zeros.
    total = s.sum(axis=-1, keepdims=True)
    mean = np.sum(d_gates * s, axis=-1, keepdims=True) / total
    ds = RHO / total * (d_gates - mean)
    d_logits = np.zeros_like(scores)
    np.put_along_axis(d_logits, chosen, ds * s * (1 - s), axis=-1)
    return d_logits


# %% tags=["check"]
held = {"logits": logits, "chosen": router.forward(logits, bias, 3)[0].chosen}
check.ok(check.gradient(router_forward, router_backward, held))

# %% [markdown]
# `chosen` is an argument here, so that central differences, which move each logit a little, cannot tip the choice. That is what
# "frozen" means in the tests of this package; without it a token close to a border would be reported as a wrong gradient. And the choice
# is the one *with* the bias: experts that would not have been chosen by score get a gradient like the others.
#
# The tempting mistake is to differentiate the numerator alone, as if $S$ were a constant. Shape and zeros are right; the numbers are
# not, and some have the wrong sign:


# %%
def without_the_sum(d_gates, saved):
    scores, chosen = saved
    rows = []
    for n, its in enumerate(chosen):  # the package's, told that the sum is a constant
        factor = RHO / scores[n, its].sum()
        constant = router.Saved(scores[n : n + 1], chosen[n : n + 1], "sigmoid", False, factor)
        rows.append(router.backward(d_gates[n : n + 1], None, constant))
    return np.concatenate(rows)


notebook.caught(check.gradient(router_forward, without_the_sum, held))

# %% [markdown]
# The law $\sum_j s_j\,ds_j = 0$ is a test that needs no differences. Undo the sigmoid and sum, for 1000 tokens and eight of 64 experts:

# %%
many = rng.standard_normal((1000, 64))
routed, saved = router.forward(many, None, 8, scale=RHO)
d_gates = rng.standard_normal(routed.gates.shape)
ds = router.backward(d_gates, None, saved) / (routed.scores * (1 - routed.scores))  # (N, E)
along = np.abs(np.sum(routed.scores * ds, axis=-1)).max()
size = np.sum(np.abs(routed.scores * ds), axis=-1).mean()
print(f"Σ |s ds| is {size:.2f} on average; |Σ s ds| is at most 1e-13: {along < 1e-13}")

single, saved = router.forward(many, None, 1, scale=RHO)
d_logits = router.backward(rng.standard_normal((1000, 1)), None, saved)
largest = np.abs(d_logits).max()
print(
    f"with K = 1: all gates are {single.gates.min()}, all gradients below 1e-13: {largest < 1e-13}"
)

# %% [markdown]
# **What to notice.** With one expert a token, normalised gates are constant and the router would *never learn* from the loss:
# there is no other to be better than. Routers of one expert, such as that of [Switch](https://arxiv.org/abs/2101.03961), multiply by the
# score as it is, unnormalised. And experts that were not chosen get no gradient at all: that an expert would have been
# better is never found out. Something else has to keep all of them in play, which is what [notebook 7](notebooks/07_balance.ipynb) is about.
#
# ## 10. The whole layer, backwards
#
# Every step has a `backward`; call them in reverse. The token was read twice, by the router and by the experts, so two gradients
# are added (three with shared experts).


# %%
def layer_forward(u, centroids, w_gate, w_up, w_down, *, chosen):
    logits, saved_logits = linear.forward(u, centroids)  # (N, E)
    routing, saved_router = router.forward(logits, None, K, scale=RHO, chosen=chosen)
    plan = dispatch.plan(routing.chosen, E)
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


arrays = {
    "u": u,
    "centroids": centroids,
    "w_gate": w_gate,
    "w_up": w_up,
    "w_down": w_down,
    "chosen": routing.chosen,
}
check.ok(check.gradient(layer_forward, layer_backward, arrays))

# %% [markdown]
# Forget the router's part, as if the gates were given from outside, and the gradient of the token lacks a term:


# %%
def deaf_to_the_router(dy, saved):
    du, *others = layer_backward(dy, saved)
    saved_logits, saved_router, _, _, saved_combine = saved
    _, d_gates = combine.backward(dy, saved_combine)
    d_logits = router.backward(d_gates, None, saved_router)
    return du - linear.backward(d_logits, saved_logits)[0], *others


notebook.caught(check.gradient(layer_forward, deaf_to_the_router, arrays))

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
    - A router scores every expert by a sigmoid; the bias has a say in who is chosen, never in how
      much is listened to.
    - Tokens are copied for each of their experts, sorted, computed, and added with their gates. None
      is dropped.
    - A score rises if its expert is better than the mixture. With a single expert there is nothing
      to be better than, and the router learns nothing from the loss.
    """,
    "9 of 257",
    "experts of a layer work on a token: 8 routed, 1 shared",
    {"all experts": 257, "at work": 9},
)
