# %% [markdown]
# # 7. Balance without an auxiliary loss
#
# A router that is left alone sends nearly everything to a few experts. **How can the load be kept even without a loss that pulls
# the router away from what the model needs?**
#
# %% [markdown]
# You will see a router collapse, and cure it with a bias that has no gradient. Then you derive the small sequence-wise loss that DeepSeek-V3 keeps
# beside the bias, see what evenness does to specialisation, and count what goes over the wires: why may a token go to four nodes and no more?
#
# Code used here: [router](minids/ops/router.py), [bias_update](minids/ops/bias_update.py), [balance_loss](minids/ops/balance_loss.py), the
# statistics of [routing](minids/lab/analysis/routing.py) and [metrics](minids/training/metrics.py), the costs of
# [traffic](minids/lab/analysis/traffic.py) and [network](minids/lab/analysis/network.py), and the kept runs of the
# [balance study](minids/lab/studies/balance.py), read by [results](minids/lab/studies/store.py). The checks of the exercises are in
# [lessons/balance](minids/lab/lessons/balance.py). Papers: section 2.1.2 (equations 16 to 20), 3.2.2
# and 4.5 of the [V3 report](https://arxiv.org/abs/2412.19437), and [Wang et al. 2024](https://arxiv.org/abs/2408.15664), where the bias
# comes from.

# %%
import numpy as np

import minids
from minids import check
from minids.lab import notebook
from minids.lab.analysis import network, traffic
from minids.lab.analysis.routing import specialisation
from minids.lab.lessons import balance as lesson
from minids.lab.lessons import printed
from minids.lab.plots import balance as draw
from minids.lab.studies.store import results
from minids.ops import balance_loss, bias_update, router
from minids.training.metrics import max_violation

notebook.set_up(dots=130)
rng = np.random.default_rng(0)
notebook.here("router")

# %% [markdown]
# ## 1. Left alone
#
# An expert that gets many tokens gets many gradients, so it becomes better, so it gets more tokens. An expert that gets none learns
# nothing, and stays bad. How far does it go? The measure is *MaxVio*, how much the busiest expert has above the mean:
#
# $$ \text{MaxVio} = \frac{\max_i c_i}{\bar c} - 1, \qquad c_i = \text{tokens that chose expert } i . $$
#
# Even is 0. The worst is $E/K - 1$: the same $K$ of $E$ experts take every token. The package keeps the runs of a study in which
# small DeepSeek-V3s (two MoE layers, $E = 16$, $K = 4$, two of four groups, 300 steps, three seeds) differ in nothing but their balancing.
# One of its arms has none.
#
# **Write your guess; then run.** After 300 steps without any balancing, how many of the 16 experts get less than a tenth of an even share?

# %%
study = results("balance")
arms, E, K = study["arms"], 16, 4
draw.left_alone(arms["none"])

# %% [markdown]
# **What to notice.** Four times the mean means *every token*. Those experts are nearly a dense layer, and the memory of the idle ones is wasted: 4 of 16 in
# the one layer and 7 of 16 in the other get less than a tenth of an even share. With one expert per GPU all would wait for the busiest.
#
# ## 2. A bias that only decides
#
# The old cure is a loss on the load. Its gradient competes with that of the language model for the same router weights. Wang et al. take a
# number per expert instead, $b_i$, that is added when experts are *chosen* (equation 16) and nowhere else:
#
# $$ \text{chosen} = \text{TopK}_i\,(s_i + b_i), \qquad g_i = \frac{s_i}{\sum_{j\,\in\,\text{chosen}} s_j} . $$
#
# The gate $g_i$ uses the score alone, so $b$ never appears in what the model computes. It is no parameter with a gradient; it works like a thermostat. After every step
#
# $$ e_i = \bar c - c_i, \qquad b_i \leftarrow b_i + \gamma\,\text{sign}(e_i) . $$

# %%
N = 2048
popularity = np.linspace(1.2, -1.2, E)  # what collapse has made of the logits


def batch(rng):
    """Logits of N new tokens (N, E): each has a taste of its own, and popularity is the same for all."""
    return popularity + rng.standard_normal((N, E))


bias = np.repeat([-0.2, 0.2], E // 2)
routing, _ = router.forward(batch(rng), bias, K)
sizes = {"N": N, "E": E, "K": K}
notebook.shapes(sizes, bias=bias, scores=routing.scores, chosen=routing.chosen, gates=routing.gates)
by_hand = np.take_along_axis(routing.scores, routing.chosen, axis=1)  # unbiased
check.ok(check.close(routing.gates, by_hand / by_hand.sum(axis=1, keepdims=True), name="gates"))

# %% [markdown]
# ### Exercise 1: the thermostat
#
# Write one update of the bias from the choices of one step. An expert that nobody chose must be counted too: its count is 0.


# %% tags=["solution"]
def turn(bias, chosen, speed):
    """bias (E,), chosen (N, K) → the bias of the next step (E,)."""
    # np.bincount counts; its minlength keeps the idle experts at the end.
    counts = np.bincount(chosen.reshape(-1), minlength=len(bias))
    return bias + speed * np.sign(counts.mean() - counts)


# %% tags=["check"]
check.ok(lesson.check_turn(turn))

# %% [markdown]
# With the wrong sign the thermostat heats a room that is too hot. It runs, and all shapes are right. The check finds it. Here is your answer with the sign flipped:


# %%
def wrong_way(bias, chosen, speed):
    return 2 * bias - turn(bias, chosen, speed)


notebook.caught(lesson.check_turn(wrong_way))

# %% [markdown]
# ## 3. Three speeds
#
# Scores lie between 0 and 1, so it matters how large $\gamma$ is. Keep the unequal popularity from above as it is, and let the thermostat take 300
# steps, with a small $\gamma$, with V3's 0.001, and with a large one.
#
# **Write your guess; then run.** Which of 0.0001, 0.001 and 0.03 is the most even after 300 steps?


# %%
def run(speed, steps=300):
    """MaxVio of every step, and the bias at the end."""
    rng, bias, seen = np.random.default_rng(1), np.zeros(E, dtype=np.float32), []
    for _ in range(steps):
        routing, _ = router.forward(batch(rng), bias, K)  # the same tokens for every speed
        counts = np.bincount(routing.chosen.reshape(-1), minlength=E)
        seen.append(max_violation(counts))
        bias = bias_update.updated(bias, counts, speed)
    return seen, bias


draw.speeds({speed: run(speed) for speed in (0.0001, 0.001, 0.03)}, floor=lesson.by_lot(N, E, K))

# %% [markdown]
# **What to notice.** With 0.0001 a bias can move by 0.03 in 300 steps, and the popular experts need several times as much. With 0.03 it arrives
# at once, and then jumps by 0.03 past the goal and back. With V3's 0.001 it arrives and stays at 0.08, hardly above choices by lot. The report
# has 0.001 for 14.3 trillion tokens and 0 for the last 500 billion (section 4.2): at the end the thermostat is switched off.
#
# How long will it take? A bias moves by $\gamma$ a step, and the extreme experts need about 0.25, so 250 steps at 0.001 and 83 at 0.003:


# %%
draw.thermostat()
gammas, spreads = [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1], (0.0, 2.4, 0.2)
controls = {"gamma": gammas, "popularity_spread": spreads, "tokens": [128, 1024, 2048]}
notebook.explore(draw.thermostat, steps=(50, 600, 50), **controls)

# %% [markdown]
# (With a running kernel there are controls for $\gamma$, the steps, the spread of the popularity and the size of the batch. With a spread of 0 there is nothing to balance. Which MaxVio is
# left, and how does it depend on the number of tokens?)
#
# The rule looks at *finished* steps only. A bias computed from the load of the tokens at hand would tell early tokens about later ones.
#
# ### The biases of a trained model
#
# [The small model](notebooks/model/README.md) of these notebooks was balanced in this way for 1,750 steps. Let it continue the sentence eight times by 230 tokens, and count how many of these tokens each expert
# gets, once with the biases and once without.
#
# **Write your guess; then run.** Its biases lie between −0.06 and 0.12, its scores between 0 and 1. Does it make a difference to switch them off?

# %%
model = notebook.model()
tokens, _ = notebook.read(model)
texts = [minids.generate(model, tokens[0], 230, temperature=1.0, seed=seed) for seed in range(8)]
draw.on_and_off(model, texts)

# %% [markdown]
# **What to notice.** The biases are small, but many scores are small too, and there they decide. Without the biases the busiest experts have more tokens, and the idlest have fewer. The gates never
# contain the biases.
#
# ## 4. The loss that stays: one sequence at a time
#
# The bias evens out the whole batch. One single sequence, say 4096 tokens of the same proof, may still fall on a few experts. Against that
# extreme V3 keeps a loss with a tiny weight $\alpha = 10^{-4}$, over the $T$ tokens of each sequence (equations 17 to 20):
#
# $$ \mathcal L_\text{Bal} = \alpha \sum_{i} f_i P_i, \qquad
# f_i = \frac{E}{K T} \sum_{t} \mathbb 1[\,i \text{ chosen by } t\,], \qquad
# s'_{it} = \frac{s_{it}}{\sum_j s_{jt}}, \qquad
# P_i = \frac1T \sum_t s'_{it} . $$
#
# $f$ is what experts got, $P$ what the router wanted to give. As $\sum_i P_i = 1$, an even load ($f_i = 1$) gives exactly $\alpha$, **whatever the
# scores are**. Here that is checked, beside two extremes.
#
# **Write your guess; then run.** All tokens choose the same $K$ experts, but the router wanted others. Is the loss above $\alpha$ or below?

# %%
T = 64
in_turn = (np.arange(T)[:, None] * K + np.arange(K)) % E  # every expert equally often
same = np.tile(np.arange(K), (T, 1))  # the first K take everything
sharp = np.where(np.arange(E) < K, 0.98, 1e-3) * np.ones((T, 1))
for name, scores, chosen in (
    ("even load, any scores", rng.uniform(0.05, 0.95, (T, E)), in_turn),
    ("K experts chosen and wanted", sharp, same),
    ("K experts chosen, others wanted", sharp[:, ::-1], same),
):
    print(f"{name:<32} loss / α = {balance_loss.forward(scores, chosen, T)[0]:.4f}")

# %% [markdown]
# **What to notice.** $\alpha$ is the value of an even load, and it is *not the smallest*: the third line is nearly 0. (The second is nearly $E/K = 4$.) A router that
# chooses what it wants most does not get there, but with a bias, what is chosen and what is wanted differ. So a loss below $\alpha$ is no bug. Evenness has to be read from the
# counts, not from this loss.
#
# ### Exercise 2: equations 17 to 20
#
# One sequence, without $\alpha$. (The check has 14 experts, 3 of them chosen, and 45 tokens, so that every number is another.)


# %% tags=["solution"]
def sequence_loss(scores, chosen):
    """scores (T, E), chosen (T, K) → the sum of f_i P_i."""
    experts = scores.shape[1]
    f = np.bincount(chosen.reshape(-1), minlength=experts) * experts / chosen.size
    wanted = (scores / scores.sum(axis=1, keepdims=True)).mean(axis=0)
    return np.sum(f * wanted)


# %% tags=["check"]
check.ok(lesson.check_sequence_loss(sequence_loss))

# %% [markdown]
# ### Exercise 3: its gradient
#
# $f$ counts choices, which are steps: no gradient. All of it goes through $P$. With $S_t = \sum_j s_{jt}$ the quotient rule gives, for
# *all* experts, chosen or not,
#
# $$ \frac{\partial L}{\partial s_{jt}} = \frac1T\Big(\frac{f_j}{S_t} - \frac{\sum_i f_i s_{it}}{S_t^2}\Big) . $$
#
# `saved` holds `share` (G, T, E), which is $s'$, `total` (G, T, 1), which is $S$, and `load` (G, 1, E), which is $f$, for $G$ sequences;
# the loss is their mean.


# %% tags=["solution"]
def loss_backward(d_loss, saved):
    """d_loss () → d_scores (G · T, E)."""
    share, total, load = saved
    groups, length, experts = share.shape
    mean_load = np.sum(load * share, axis=-1, keepdims=True)
    return ((load - mean_load) / total * d_loss / (groups * length)).reshape(-1, experts)


# %% tags=["check"]
check.ok(lesson.check_loss_backward(loss_backward))

# %% [markdown]
# Two wrong answers. The first takes the normaliser $S_t$ for a constant. The second *detaches* $P$, because "balance is only counted". That mistake does not show
# in training: the loss is reported as always, and it balances nothing.

# %%
for wrong in (lesson.constant_normaliser, lesson.detached):
    notebook.caught(lesson.check_loss_backward(wrong))

# %% [markdown]
# ## 5. Even over what? Scope and specialisation
#
# Take two sequences, one of prose and one of arithmetic. Each has half of the experts to itself. Over the batch the load is even; within a
# sequence half of the experts get nothing. The loss is the same function in two scopes: over both sequences, or within each.
#
# **Write your guess; then run.** Which of the two losses is larger than $\alpha$?

# %%
prose = np.where(np.arange(E) < E // 2, 0.9, 0.1) * np.ones((T, 1))
scores = np.concatenate([prose, prose[:, ::-1]])  # (2T, E): prose, then arithmetic
first = (np.arange(T)[:, None] * K + np.arange(K)) % (E // 2)
chosen = np.concatenate([first, first + E // 2])
for name, scope in (("over the batch", 2 * T), ("within sequences", T)):
    loss, saved = balance_loss.forward(scores, chosen, scope)
    steepest = np.abs(balance_loss.backward(1.0, saved)).max()
    print(f"{name:<17} loss / α = {loss:.2f}, largest gradient {steepest:.1e}")
halves = np.array([np.bincount(c.reshape(-1), minlength=E) for c in np.split(chosen, 2)])
print(f"the choice of an expert tells {specialisation(halves):.2f} bit about the domain")

# %% [markdown]
# **What to notice.** Perfect specialisation costs nothing over the batch, and is *punished* within sequences: the gradient lowers the
# scores of exactly the experts that know the subject. So its weight has to be tiny. The report's section 4.5.3 has numbers: the validation
# loss of a 1B model was 2.258 with a sequence-wise loss, 2.253 with a batch-wise one, 2.253 with the bias. The scope matters, not the loss.
#
# ## 6. Fourteen ways, trained
#
# Here are all arms of the study. *Specialisation* is the mutual information of domain and expert in bits, of $\log_2 3 = 1.58$ possible; the spread is the standard
# deviation over three seeds. Loss is validation loss in nats per byte.
#
# **Write your guess; then run.** Does the bias, or an auxiliary loss, end with the lower loss at the same evenness: or can three seeds not tell?

# %%
lesson.told_arms(arms)
draw.loss_and_evenness(arms)

# %% [markdown]
# How much of what the papers say can be seen in runs of 300 steps? The study judges its claims itself:

# %%
printed.findings("balance")

# %% [markdown]
# **What to notice.** This is the answer to the question at the top. Without balancing MaxVio ends near its worst, 2.75; with the bias at 0.14, and no loss was added. $\gamma = 0.001$, right for a run of trillions of
# tokens, is too slow for one of 300 steps: 0.003 is the pace here. "Undecided" means that the 95 % interval of the difference, seed by seed,
# holds zero. So it is with the price of the batch-wise loss: three seeds leave room for 0.2 nats on either side of 0.005. On the scope there is
# a hint: with the best weight of each, the loss over the batch ends 0.05 below the one within sequences, which is the report's sign; the
# interval, from 0.14 below to 0.04 above, does not decide it. What every seed shows is in the last line: specialisation.
#
# ## 7. What the experts know
#
# The report's Figure 9 shows the load by domain. Here is that of the study, for the bias and for the loss within sequences.
#
# **Write your guess; then run.** Both are nearly even over all text. Which of the two has experts that one domain uses more than the others?

# %%
draw.by_domain(arms, ("bias 0.003", "sequence loss 0.1"))

# %% [markdown]
# **What to notice.** With the bias, experts have domains, and the choice of an expert tells twelve times as many bits about the domain. With the loss within sequences, each expert serves all domains alike. Two rows of the table confirm that the scope
# matters: a light loss over the batch (0.01) specialises nearly as much as the bias. And without any balancing there is *less* specialisation, because experts that
# take every token cannot tell domains apart. (The weight of the loss here is a thousand times V3's, so that its effect shows. The arm with V3's $10^{-4}$ beside the bias
# is in the table: it keeps its specialisation.)
#
# ## 8. At most four nodes
#
# V3's 256 experts sit on 8 nodes, 32 on each, one group of the router per node. A token crosses InfiniBand *once for each node* that has one
# of its experts, whatever their number. So the router first ranks the nodes, by the sum of the two best biased scores in each
# ($K/M = 8/4 = 2$), keeps $M = 4$, and chooses its 8 experts within them. The others are ruled out by setting their biased scores to
# $-\infty$.
#
# ### Exercise 4: the limit
#
# `biased` is $s + b$. Rank the groups, forbid the others, choose.


# %% tags=["solution"]
def limited(biased, top_k, n_group, topk_group):
    """biased (N, E) → chosen (N, K), best first, in at most topk_group groups."""
    # np.argsort(-x, axis=1, kind="stable") ranks, best first.
    tokens, experts = biased.shape
    grouped = biased.reshape(tokens, n_group, -1)
    ranks = np.argsort(-np.sort(grouped, axis=-1)[..., -2:].sum(axis=-1), axis=1, kind="stable")
    masked = np.full_like(grouped, -np.inf)
    kept = ranks[:, :topk_group, None]
    np.put_along_axis(masked, kept, np.take_along_axis(grouped, kept, axis=1), axis=1)
    return np.argsort(-masked.reshape(tokens, experts), axis=1, kind="stable")[:, :top_k]


# %% tags=["check"]
check.ok(lesson.check_limited(limited))

# %% [markdown]
# ### Why $-\infty$ and not 0
#
# Scores are positive, so 0 seems to be below all of them. In V2, which has no bias, it is. V3's official code had it too at first, and others
# [took it over](https://github.com/vllm-project/vllm/pull/13474).
# But $b$ may be negative, and then a *forbidden* expert with 0 beats an allowed one. Here all biases are 0, and then all are −1, which changes no order:


# %%
def masked_with_zero(biased, top_k, n_group, topk_group):
    """The right groups, but 0 for what is forbidden."""
    allowed = router.choose(biased, E // n_group * topk_group, n_group, topk_group)
    kept = (np.arange(E) == allowed[..., None]).any(axis=1)  # (N, E)
    return router.choose(np.where(kept, biased, 0), top_k)


check.ok(lesson.check_limited(masked_with_zero, shifts=(0,)))
notebook.caught(lesson.check_limited(masked_with_zero, shifts=(-1,)))

# %% [markdown]
# A shift common to all biases changes no order, so the choice of a right router stays the same. That makes a test which needs no reference: choose, shift
# all biases, choose again, and compare the *sets* of experts.
#
# **Write your guess; then run.** How far must the biases go down before the mask of 0 is noticed?

# %%
draw.shifted({"−∞": router.choose, "0": masked_with_zero})

# %% [markdown]
# **What to notice.** Small shifts do no harm, so the mistake does not show until training has moved the biases. At the right end every allowed expert
# is below 0, and every token goes to forbidden experts only. Does it matter for V3? The smallest of all biases in the released weights is
# [reported](https://github.com/huggingface/transformers/pull/45441) to be +2.02, so every allowed expert beats 0, and the mistake has no effect there. (The thermostat fixes no level: only differences between biases
# matter.) In a model whose biases lie around 0, like that of these notebooks, it can have one.
#
# ## 9. What the limit saves
#
# Count it at V3's sizes ($E = 256$, $K = 8$, 8 nodes, $d = 7168$). A token goes out in FP8 with a scale for every 128 numbers, and comes back in
# BF16. Inside a node NVLink hands it on, 160 GB/s against InfiniBand's 50 (section 3.2.2). The scores here are drawn
# independently for each expert. A trained router's are not, so the right picture is an illustration; the left one is arithmetic.
#
# **Write your guess; then run.** Without a limit, on how many of the 8 nodes are the 8 experts of a token, on average?

# %%
v3_scores = rng.uniform(size=(4000, 256))
table = traffic.against_limit(v3_scores, top_k=8, nodes=8, hidden_size=7168)
draw.wires(table, kept=lesson.score_kept(v3_scores, top_k=8, nodes=8))
by_lot = 8 * (1 - np.prod([(224 - i) / (256 - i) for i in range(8)]))
print(f"no limit, by combinatorics: {by_lot:.2f} nodes")
print(f"experts per node that NVLink keeps up with: {network.experts_per_node():.1f};", end=" ")
print(f"four nodes: {network.experts_at_no_extra_cost():.1f}, the report's 'up to 13'")

# %% [markdown]
# **What to notice.** Without a limit a token uses 5.3 of 8 nodes by chance; the limit of 4 takes a quarter of that traffic away and costs almost
# nothing of the score. And it is a *guarantee*: no token ever needs more, so the communication kernels can be planned for it. InfiniBand is still
# the slower wire at $M = 4$, because eight experts are fewer than the 12.8 that NVLink could serve meanwhile. Below $M = 3$ the choice begins to
# suffer; V2 found too that three devices are nearly as good as a free choice (section 2.2 of its [report](https://arxiv.org/abs/2405.04434)).
#
# ### Exercise 5: bytes on InfiniBand
#
# Count the mean bytes per token yourself: to each touched node $d$ bytes of FP8 and 4 bytes of scale per 128 numbers, and from each $2d$ back.


# %% tags=["solution"]
def crossing(chosen, experts, nodes, d):
    """chosen (N, K), experts in blocks on nodes → mean bytes per token."""
    touched = np.array([len(set(row // (experts // nodes))) for row in chosen])
    return touched.mean() * (d + 4 * d / 128 + 2 * d)


# %% tags=["check"]
check.ok(lesson.check_crossing(crossing))

# %% [markdown]
# ## Where to go from here
#
# - [minids/lab/studies/balance.py](minids/lab/studies/balance.py): `minids study balance` trains all arms again.
# - [minids/lab/analysis/routing.py](minids/lab/analysis/routing.py): `specialisation_test` asks whether domains differ by more than chance would have it.
# - [Notebook 11](notebooks/11_train_a_tiny_one.ipynb) trains a model and watches its load; [notebook 14](notebooks/14_museum_of_mistakes.ipynb) switches these mistakes on.

# %% tags=["picture"]
notebook.card(
    """
    - Left alone a router collapses: what is chosen learns, and what learns is chosen.
    - A bias, moved by a small step against the load, has a say in who is chosen, never in the gates.
    - A loss within each sequence punishes experts that know a subject; over the batch, or by the bias,
      they may. So V3 keeps it at a weight of 0.0001.
    """,
    "MaxVio 0.14",
    "in our study with the bias, against 2.75 without any balancing",
    {"none": 2.75, "bias": 0.14},
)
