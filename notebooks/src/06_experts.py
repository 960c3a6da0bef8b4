# %% [markdown]
# # 6. Experts: fine-grained, shared, gated
#
# DeepSeek-V3 has 671 billion parameters and uses 37 billion of them for a token. Who decides which ones, how do the tokens get there and
# back, and how can a decision, which has no slope, be learned by following slopes?
#
# %% [markdown]
# Almost everything large in the model is a feed-forward network, and only a few of those see a given token. In this notebook you route
# five tokens to six experts on arrays that fit on the page, glue shared experts together, and derive the one backward pass of the
# model that has a choice in it.
#
# Used here: [router](minids/ops/router.py), [dispatch](minids/ops/dispatch.py),
# [grouped_feed_forward](minids/ops/grouped_feed_forward.py), [combine](minids/ops/combine.py), [swiglu](minids/ops/swiglu.py),
# [linear](minids/ops/linear.py), and the whole layer, [moe](minids/layers/moe.py). Papers: section 2.1.2 of the
# [V3 report](https://arxiv.org/abs/2412.19437), equations 12 to 16, and section 3 of
# [DeepSeekMoE](https://arxiv.org/abs/2401.06066), where the ideas come from.

# %%
from math import comb

import numpy as np

import minids
from minids import check
from minids.lab import notebook
from minids.ops import combine, dispatch, grouped_feed_forward, linear, router, swiglu

notebook.set_up()
rng = np.random.default_rng(0)

# %% [markdown]
# ## The five equations
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
# Now do it, one equation at a time.

# %%
N, d, E, K, width = 5, 4, 6, 2, 3  # tokens, hidden size, routed experts, chosen ones, their width
letters = {"N": N, "d": d, "E": E, "K": K, "I": width, "N·K": N * K}
u = rng.standard_normal((N, d))
centroids = rng.standard_normal((E, d))

logits, _ = linear.forward(u, centroids)  # (N, E)  u · e
routing, _ = router.forward(logits, None, K)  # no bias yet
notebook.shapes(letters, u=u, centroids=centroids, logits=logits, **routing._asdict())
print("\nscores, eq. 15\n", routing.scores)
print("chosen, best first\n", routing.chosen)
print("gates, eq. 13: every row sums to one\n", routing.gates)

# %% [markdown]
# A sigmoid asks about every expert by itself: several may score near one, or none. The softmax of older routers makes the scores of all
# 256 experts compete, chosen or not. Here only the chosen ones are compared, by the division of equation 13.
#
# ## The bias chooses, the score weighs
#
# If an expert gets too few tokens, V3 raises its $b_i$ ([notebook 7](notebooks/07_balance.ipynb) shows how). Raise that of expert 5 so much
# that everybody goes there, and look at what becomes of its gate:

# %%
bias = np.zeros(E)
bias[5] = 1.0  # more than any score can be apart
pushed, _ = router.forward(logits, bias, K)
for n in range(N):
    place = list(pushed.chosen[n]).index(5)
    print(
        f"token {n}: experts {pushed.chosen[n]}, score of expert 5 {pushed.scores[n, 5]:.3f}, "
        f"with bias {pushed.scores[n, 5] + 1:.3f}, gate {pushed.gates[n, place]:.3f}"
    )

# %% [markdown]
# **What to notice.** The bias sends the token; it does not raise the expert's voice. A token that was pushed to an expert with a low
# score listens to it with a low weight. Were the gate made from $s + b$, every step of
# balancing would change the weights of the sum in equation 12, for tokens as well that go where they went before.
#
# ## Exercise 1: gates
#
# Write equations 13, 15 and 16 for a matrix of logits. The chosen experts come in the order of $s_i + b_i$, largest first.


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


check.ok(check.against(right_gates, gates_of, [(logits, bias, 3), (logits, bias, K)]))

# %% [markdown]
# The mistake to make here is to carry the biased score into the gate. As long as all biases are zero, as in the first step of training
# and in most tests, nobody can see it:


# %%
def gates_from_biased_scores(logits, bias, top_k):
    biased = 1 / (1 + np.exp(-logits)) + bias
    picked = -np.sort(-biased, axis=-1)[:, :top_k]
    return picked / picked.sum(axis=-1, keepdims=True)


check.ok(check.against(right_gates, gates_from_biased_scores, logits, np.zeros(E), K))
notebook.caught(check.against(right_gates, gates_from_biased_scores, logits, bias, K))

# %% [markdown]
# ## Groups: a choice in two rounds
#
# With 256 experts on many machines V3 chooses in two rounds ([notebook 7](notebooks/07_balance.ipynb) says why). Experts stand in groups. A group is as good as its
# two best biased scores together; the best groups stay, and the best $K$ experts are taken from those alone. One token, 16 experts, 4 groups of which 2 stay, $K = 4$:

# %% tags=["picture"]
one_token = np.random.default_rng(5).standard_normal((1, 16))  # logits


def draw_choice(top_k=4, kept_groups=2, push=0.0):
    """Scores of one token for 16 experts in 4 groups; ``push`` is added to the bias of expert 13."""
    bias = np.zeros(16)
    bias[13] = push
    routed, _ = router.forward(one_token, bias, top_k, 4, kept_groups)
    biased = routed.scores[0] + bias
    strength = np.sort(biased.reshape(4, 4), axis=1)[:, -2:].sum(axis=1)
    figure, axes = notebook.picture(height=3.1)
    chosen = set(routed.chosen[0].tolist())
    axes.bar(range(16), biased, color=["C0" if e in chosen else "#CCCCCC" for e in range(16)])
    if push:
        axes.bar(13, push, bottom=routed.scores[0, 13], color="C1", width=0.4, label="bias")
        axes.legend(loc="upper left")
    for place, e in enumerate(routed.chosen[0]):
        gate = f"{routed.gates[0, place]:.2f}"
        axes.text(e, biased[e] + 0.03, gate, ha="center", fontsize=9, color="C0")
    stay = set(np.argsort(-strength, kind="stable")[:kept_groups].tolist())
    for g in range(4):
        axes.axvspan(4 * g - 0.5, 4 * g + 3.5, color="C2", alpha=0.12 if g in stay else 0)
        axes.text(4 * g + 1.5, 2.08, f"two best: {strength[g]:.2f}", ha="center", fontsize=9)
    axes.set(xlim=(-0.6, 15.6), ylim=(0, 2.3), xticks=range(16), xlabel="expert")
    axes.set_ylabel("score + bias")
    axes.grid(axis="x", visible=False)
    axes.set_title("Shaded: groups that stay. Blue: chosen, with their gates")
    notebook.show(
        figure, "Scores of 16 experts in four groups; four experts chosen from two groups."
    )


draw_choice()
notebook.explore(draw_choice, top_k=(1, 8), kept_groups=[2, 3, 4], push=(-0.5, 1.0, 0.1))

# %% [markdown]
# **What to notice.** A good expert in a weak group goes away empty-handed (4, the third best of all), and a middling one in a strong group is chosen (10). (With a running kernel three controls
# appear: how many experts, how many groups, and the bias of expert 13. Pull it down until its group
# falls out, push it up, and watch its gate: as long as the choice is the same, it does not move.)
#
# ## There and back: dispatch, experts, combine
#
# A matrix product wants many rows for one matrix. So the tokens are copied, once for each expert they chose, and *sorted by expert*:
# then every expert is three ordinary products on a slice. On a cluster this sorting is the all-to-all between nodes (section 3.2.2).

# %%
plan = dispatch.plan(routing.chosen, E)
rows, _ = dispatch.forward(u, plan)  # (N·K, d)
print("row    ", np.arange(N * K))
print("token  ", plan.order // K)
print("expert ", routing.chosen.reshape(-1)[plan.order])
print("starts ", plan.starts, " expert e owns rows starts[e] to starts[e + 1] − 1")
print("counts ", plan.counts, f" sum {plan.counts.sum()} = N·K")

# %% tags=["picture"]
figure, axes = notebook.picture(height=3.7)
ink = ["white"] * 4 + ["black"] * 2  # on light colours
row_of_pair = plan.place.reshape(N, K)
token_x = (np.arange(N) + 0.5) * N * K / N
for n in range(N):
    for choice in range(K):
        r, e = row_of_pair[n, choice], routing.chosen[n, choice]
        strength = routing.gates[n, choice]
        axes.plot([token_x[n], r + 0.5], [2, 1.12], color=f"C{e}", lw=0.8 + 4 * strength, alpha=0.8)
        axes.text(r + 0.5, 0.98, str(n), ha="center", va="center", color=ink[e], zorder=4)
        axes.scatter(r + 0.5, 0.98, marker="s", s=330, color=f"C{e}", zorder=3)
for n in range(N):
    axes.scatter(token_x[n], 2.1, marker="s", s=420, color="#555555", zorder=3)
    axes.text(token_x[n], 2.1, f"{n}", ha="center", va="center", color="white", zorder=4)
for e in range(E):
    first, last = plan.starts[e], plan.starts[e + 1]
    if last > first:
        axes.barh(0.35, last - first - 0.12, left=first + 0.06, height=0.42, color=f"C{e}")
        axes.text((first + last) / 2, 0.35, f"expert {e}", ha="center", va="center", color=ink[e])
idle = [str(e) for e in range(E) if plan.counts[e] == 0]
axes.set(xlim=(0, N * K), ylim=(0, 2.45), xticks=[], yticks=[0.35, 0.98, 2.1])
axes.set_yticklabels(["experts", "rows, sorted", "tokens"])
axes.tick_params(length=0)
axes.grid(False)
for side in ("left", "bottom"):
    axes.spines[side].set_visible(False)
without = f"; nobody chose {' or '.join(idle)}" if idle else ""
axes.set_title(f"Ten copies of five tokens; thicker lines are larger gates{without}")
notebook.show(figure, "Five tokens, each with two lines to rows that are sorted by expert.")

# %% [markdown]
# The experts work on their slices, and `combine` brings the outputs home: token $n$ gets $\sum_k g_{nk} \cdot$ (the row where its $k$-th
# copy went). That is the second sum of equation 12.

# %%
w_gate, w_up = 0.7 * rng.standard_normal((2, E, width, d))
w_down = 0.7 * rng.standard_normal((E, d, width))
outputs, _ = grouped_feed_forward.forward(rows, plan.starts, w_gate, w_up, w_down)  # (N·K, d)
y, _ = combine.forward(outputs, routing.gates, plan)  # (N, d)
notebook.shapes(letters, rows=rows, w_gate=w_gate, w_up=w_up, w_down=w_down, outputs=outputs, y=y)

# Token 3 by hand: its two experts, its two gates.
by_hand = np.zeros(d)
for gate, e in zip(routing.gates[3], routing.chosen[3], strict=True):
    inner, _ = swiglu.forward(w_gate[e] @ u[3], w_up[e] @ u[3])  # (I,)
    by_hand += gate * (w_down[e] @ inner)
print("\ntoken 3 by hand  ", by_hand)
print("token 3 in y     ", y[3])

# %% [markdown]
# ## Exercise 2: equation 12 without any sorting
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
    inner, _ = swiglu.forward(
        np.einsum("nd,eid->nei", u, w_gate), np.einsum("nd,eid->nei", u, w_up)
    )
    return np.einsum("ne,nei,edi->nd", matrix, inner, w_down)


# %% tags=["check"]
def sorted_experts(u, gates, chosen, w_gate, w_up, w_down):
    plan = dispatch.plan(chosen, len(w_gate))
    rows, _ = dispatch.forward(u, plan)
    outputs, _ = grouped_feed_forward.forward(rows, plan.starts, w_gate, w_up, w_down)
    return combine.forward(outputs, gates, plan)[0]


arguments = (u, routing.gates, routing.chosen, w_gate, w_up, w_down)
check.ok(check.against(sorted_experts, all_experts, *arguments))

# %% [markdown]
# ## Why no token is dropped
#
# Many systems give every expert a buffer of fixed size, its *capacity* $c\,NK/E$ with a factor $c$ near one, so that all arrays
# have known shapes. What does not fit is dropped: the token passes the layer with less than its $K$ experts. The report says
# that V3 drops none, in training or inference. Look at the shapes and you see why this package needs no rule for it: there are *always*
# $N \cdot K$ rows, however they are divided. What an uneven division costs is waiting, not tokens. How many would a capacity of
# $c = 1$ lose?

# %%
tokens, experts, top_k = 4096, 64, 8
print("spread of popularity   largest load   dropped at c = 1   rows kept here")
for spread in (0.0, 0.5, 1.0, 2.0):
    popularity = spread * rng.standard_normal(experts)
    skewed = rng.standard_normal((tokens, experts)) + popularity
    load = dispatch.plan(router.choose(skewed, top_k), experts).counts
    capacity = tokens * top_k // experts
    dropped = np.maximum(load - capacity, 0).sum()
    print(
        f"{spread:>12.1f} {load.max() / capacity:>20.2f} {dropped / (tokens * top_k):>16.1%}"
        f" {load.sum():>19,}"
    )

# %% [markdown]
# **What to notice.** Even with experts of equal popularity chance alone drops a percent or two at $c = 1$; with uneven ones it is
# up to two thirds of the work. Dropping makes the output of a token depend on the *other tokens* of its batch, on those of the future even. Without it
# each token is computed as if it were alone:

# %%
alone = np.concatenate(
    [
        sorted_experts(
            u[n : n + 1], routing.gates[n : n + 1], routing.chosen[n : n + 1], *arguments[3:]
        )
        for n in range(N)
    ]
)
check.ok(check.close(alone, y, name="every token alone"))

# %% [markdown]
# ## A claim of the paper: four billion instead of 120
#
# DeepSeekMoE's first idea: cut each of $N$ experts into $m$ of a $m$-th of the width, and choose $mK$ instead of $K$. Nothing gets
# larger, neither the parameters nor the work. But how many *sets* of experts can a token be sent to?

# %%
hidden, coarse_width = 1024, 4096
print("experts  chosen   width      parameters   multiplications per token   sets of experts")
for m in (1, 2, 4):
    count, chosen_count, size = 16 * m, 2 * m, coarse_width // m
    weights = count * 3 * hidden * size
    work = chosen_count * 3 * hidden * size
    print(
        f"{count:>7} {chosen_count:>7} {size:>7} {weights:>15,} {work:>27,} {comb(count, chosen_count):>17,}"
    )
assert comb(16, 2) == 120 and comb(64, 8) == 4_426_165_368

v3 = minids.ModelConfig.preset("deepseek-v3")
sets = comb(v3.n_routed_experts, v3.num_experts_per_tok)
print(f"\nV3: {v3.num_experts_per_tok} of {v3.n_routed_experts}: {sets:.2e} sets")
active = (v3.num_experts_per_tok + v3.n_shared_experts) * v3.moe_intermediate_size
print(
    f"({v3.num_experts_per_tok} + {v3.n_shared_experts}) · {v3.moe_intermediate_size:,} = {active:,};"
)
print(f"width of V3's dense layers: {v3.intermediate_size:,}")

# %% [markdown]
# The numbers of section 3.1 of DeepSeekMoE, 120 and 4,426,165,368, are right. And a small discovery in V3's configuration: what a token
# passes in a layer of experts is exactly as wide as the first three layers, which have none. (More sets is more freedom, not a promise: what
# it is worth has to be measured. And a set may share seven of its eight experts with another.)
#
# ## Experts dividing a plane
#
# With two dimensions a router can be drawn. Every point is a token; it is coloured by the set of experts that it chooses.

# %%
side = 240
axis = np.linspace(-3, 3, side)
points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)  # (side², 2)


def around(count):
    """Centroids on a circle, not quite even: (count, 2)."""
    turn = 2 * np.pi * (np.arange(count) + 0.5 * np.sin(3 * np.arange(count))) / count
    return 1.5 * np.stack([np.cos(turn), np.sin(turn)], axis=-1)


def regions(directions, top_k, bias=None):
    """A number for the chosen set of every point, (side, side), and how many sets there are."""
    routing, _ = router.forward(points @ directions.T, bias, top_k)
    _, which = np.unique(np.sort(routing.chosen, axis=-1), axis=0, return_inverse=True)
    return which.reshape(side, side), int(which.max()) + 1


helped = np.zeros(4)
helped[2] = 0.25
panels = {
    "1 of 4": (around(4), 1, None),
    "4 of 16": (around(16), 4, None),
    "1 of 4, bias 0.25 for one": (around(4), 1, helped),
}
drawn = {name: regions(*how) for name, how in panels.items()}
for name, (_, count) in drawn.items():
    print(f"{name:<26} {count:>3} sets of experts")

# %% tags=["picture"]
figure, axes = notebook.picture(1, 3, width=9.4, height=3.5, sharey=True)
palette = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in notebook.COLOURS[:6]])
for ax, (name, (which, count)) in zip(axes, drawn.items(), strict=True):
    # Neighbours around the circle get different colours: number the sets by their angle.
    angle = [
        np.angle(np.exp(1j * np.arctan2(*points[which.ravel() == s].T[::-1])).mean())
        for s in range(count)
    ]
    by_angle = np.argsort(np.argsort(angle))
    colour = palette[by_angle % min(len(palette), count)] * 0.55 + 0.45
    ax.imshow(colour[which], origin="lower", extent=(-3, 3, -3, 3), interpolation="nearest")
    for e, (x, y_of) in enumerate(panels[name][0]):
        ax.annotate(
            "", (x, y_of), (0, 0), arrowprops={"arrowstyle": "-|>", "color": "black", "lw": 1}
        )
        if len(panels[name][0]) == 4:
            ax.text(1.25 * x, 1.25 * y_of, str(e), ha="center", va="center", weight="bold")
    ax.set(xticks=[-2, 0, 2], yticks=[-2, 0, 2])
    ax.grid(False)
    ax.set_title(f"{name}: {count} sets")
notebook.show(
    figure,
    "Three planes cut into sectors by the experts chosen; with a bias one region swells around the origin.",
)

# %% [markdown]
# **What to notice.** Without a bias only the *direction* of a token matters, because $\sigma$ keeps the order: the regions are sectors.
# Finer experts cut finer ones, and neighbours differ in a single expert. (Of the 1,820 sets that 4 of 16 allow a plane has room for 16: how
# many sets are ever used depends on the dimensions as well, and V3 has 7,168.) A bias bends the borders. Around the origin, where
# all scores are close to a half, expert 2 now takes everything; and further out the same 0.25 is worth more and more logit, since
# $\sigma$ grows flat.
#
# ## Shared experts
#
# The second idea: what every token needs should not be learned again by every expert. $N_s$ experts see all tokens, without a gate. Two
# SwiGLU networks that read the same input and whose outputs are added *are one network of twice the width*. Proof, with the matrices of the
# two stacked: the pre-activations of both stand one below the other; SwiGLU acts on each entry by itself; and the product with
# $[\,W_1 \; W_2\,]$ is a sum over both halves,
#
# $$ \big[\,W^\text{down}_1 \;\; W^\text{down}_2\,\big] \begin{bmatrix} a_1 \\ a_2 \end{bmatrix} = W^\text{down}_1 a_1 + W^\text{down}_2 a_2 . $$
#
# ## Exercise 3: merge them
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
# ## Learning to choose
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

# %% tags=["picture"]
figure, axes = notebook.picture(height=3.0)
for e in range(4):
    axes.plot(np.degrees(turn), of_each[:, e], color=f"C{e}", label=f"expert {e}")
for where in exchanged:
    axes.axvline(np.degrees(turn[where]), color="#999999", lw=0.8, ls="--")
axes.set(xlabel="direction of the token, degrees", ylabel="gate", xlim=(0, 360), ylim=(-0.03, 0.95))
axes.set(xticks=range(0, 361, 45))
axes.legend(ncol=4, loc="upper center")
axes.set_title(
    "Two of four experts: smooth between the dashed lines, at each one leaves and another comes"
)
notebook.show(
    figure, "Gates of four experts around a circle, smooth pieces with jumps between them."
)

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
# ## Exercise 4: the router, backwards


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
    s = np.take_along_axis(scores, chosen, axis=-1)
    d_logits = np.zeros_like(scores)
    ds = RHO / s.sum(axis=-1, keepdims=True) * d_gates
    np.put_along_axis(d_logits, chosen, ds * s * (1 - s), axis=-1)
    return d_logits


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
# ## The whole layer, backwards
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
# - [minids/layers/moe.py](minids/layers/moe.py): this layer with shared experts and balance loss, as the model has it.
# - [Notebook 14](notebooks/14_museum_of_mistakes.ipynb): what the biased gate looks like, and which tests catch it.
