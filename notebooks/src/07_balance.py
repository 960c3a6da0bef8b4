# %% [markdown]
# # 7. Balance without an auxiliary loss
#
# A router that is left alone sends nearly everything to a few experts. **How can the load be kept even without a loss that pulls
# the router away from what the model needs?**
#
# %% [markdown]
# You will see a router collapse, cure it with a bias that has no gradient, derive the small sequence-wise loss that DeepSeek-V3 keeps
# beside it, ask what evenness does to specialisation, and end on the wires: why a token may go to four nodes and no more.
#
# Code used here: [router](minids/ops/router.py), [bias_update](minids/ops/bias_update.py), [balance_loss](minids/ops/balance_loss.py), the
# statistics of [routing](minids/lab/analysis/routing.py) and [metrics](minids/training/metrics.py), the costs of
# [traffic](minids/lab/analysis/traffic.py) and [network](minids/lab/analysis/network.py), and the kept runs of the
# [balance study](minids/lab/studies/balance.py), read by [results](minids/lab/studies/store.py). Papers: section 2.1.2 (equations 16 to 20), 3.2.2
# and 4.5 of the [V3 report](https://arxiv.org/abs/2412.19437), and [Wang et al. 2024](https://arxiv.org/abs/2408.15664), where the bias
# comes from.

# %%
import numpy as np

import minids
from minids import check
from minids.lab import notebook
from minids.lab.analysis import network, traffic
from minids.lab.analysis.routing import nodes_touched, specialisation
from minids.lab.plots import balance as draw
from minids.lab.plots.experts import Router
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
arms = study["arms"]
E, K = 16, 4
domains = list(arms["none"]["details"]["relative_load"])


def loads(arm):
    """Relative load by domain, layer and expert, (D, layers, E), of an arm's first seed."""
    return np.array(list(arms[arm]["details"]["relative_load"].values()))


left_alone = loads("none")
share = left_alone.mean(axis=0)  # (layers, E), the domains counted alike
notebook.shapes({"D": len(domains), "E": E}, left_alone=left_alone, share=share)
print()
for layer, load in enumerate(share):
    print(
        f"MoE layer {layer}: busiest expert {load.max():.1f} times the mean,",
        f"{np.sum(load < 0.1)} of {E} experts below a tenth of it",
    )
summary = arms["none"]["summary"]["max_vio"]
print(
    f"MaxVio {summary['mean']:.2f} ± {summary['spread']:.2f}; the worst possible is {E / K - 1:.0f}"
)

draw.left_alone(share)

# %% [markdown]
# **What to notice.** Four times the mean means *every token*: those experts have all but become a dense layer, and the idle ones are memory paid
# for nothing. With one expert per GPU the whole machine would wait for the busiest.
#
# ## 2. A bias that only decides
#
# The old cure is a loss on the load. Its gradient competes with that of the language model for the same router weights. Wang et al. take a
# number per expert instead, $b_i$, that is added when experts are *chosen* (equation 16) and nowhere else:
#
# $$ \text{chosen} = \text{TopK}_i\,(s_i + b_i), \qquad g_i = \frac{s_i}{\sum_{j\,\in\,\text{chosen}} s_j} . $$
#
# The gate $g_i$ uses the score alone, so $b$ never appears in what the model computes. It is a thermostat, not a parameter. After every step
#
# $$ e_i = \bar c - c_i, \qquad b_i \leftarrow b_i + \gamma\,\text{sign}(e_i) . $$

# %%
N = 2048
popularity = np.linspace(1.2, -1.2, E)  # what collapse has made of the logits


def batch():
    """Logits of N fresh tokens (N, E): taste differs by token, popularity does not."""
    return popularity + rng.standard_normal((N, E))


bias = np.array([-0.2] * (E // 2) + [0.2] * (E // 2), dtype=np.float32)
routing, _ = router.forward(batch(), bias, K)
notebook.shapes(
    {"N": N, "E": E, "K": K},
    bias=bias,
    scores=routing.scores,
    chosen=routing.chosen,
    gates=routing.gates,
)
by_hand = np.take_along_axis(routing.scores, routing.chosen, axis=1)  # unbiased
by_hand /= by_hand.sum(axis=1, keepdims=True)
print("\ngates from unbiased scores:")
check.ok(check.close(routing.gates, by_hand, name="gates"))

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
def right_turn(bias, chosen, speed):
    counts = np.bincount(chosen.reshape(-1), minlength=len(bias))
    return bias_update.updated(bias, counts, speed)


def turn_by_the_median(bias, chosen, speed):
    counts = np.bincount(chosen.reshape(-1), minlength=len(bias))
    return bias + speed * np.sign(np.median(counts) - counts)


# Expert 5 is idle; experts 1, 3 and 4 have exactly the mean.
few = np.array([[0, 4], [0, 3], [1, 0], [2, 0], [4, 3], [0, 1]])
skewed = np.array([[0, 1], [0, 2], [0, 3], [0, 4], [0, 5], [0, 1], [0, 2], [0, 3], [0, 4]])
zero, start = np.zeros(6, np.float32), np.linspace(-0.05, 0.05, 6, dtype=np.float32)
questions = [(zero, few, 0.01), (start, few, 0.01), (start, skewed, 0.01)]
usual = {"this compares each count with the median; c̄ is the mean.": turn_by_the_median}
check.ok(check.against(right_turn, turn, questions, tolerance=1e-5, usual=usual))

# %% [markdown]
# With the wrong sign the thermostat heats a room that is too hot. It runs, all shapes are right, and the check says what it is. Here is yours, turned round:


# %%
def wrong_way(bias, chosen, speed):
    return 2 * bias - turn(bias, chosen, speed)


notebook.caught(check.against(right_turn, wrong_way, questions, tolerance=1e-5))

# %% [markdown]
# ## 3. Three speeds
#
# Scores lie between 0 and 1, and so $\gamma$ has a scale. Let the unequal popularity from above stand still, and turn the thermostat 300
# times, slowly, at V3's pace ($\gamma = 0.001$), and fast:

# %%
speeds = (0.0001, 0.001, 0.03)
history, biases = {}, {}
for speed in speeds:
    rng = np.random.default_rng(1)  # the same tokens for each
    bias, seen = np.zeros(E, dtype=np.float32), []
    for _ in range(300):
        routing, _ = router.forward(batch(), bias, K)
        counts = np.bincount(routing.chosen.reshape(-1), minlength=E)
        seen.append(max_violation(counts))
        bias = bias_update.updated(bias, counts, speed)
    history[speed], biases[speed] = np.array(seen), bias
    print(
        f"γ = {speed:<7g} MaxVio at first {seen[0]:.2f}, mean of the last 50 steps {np.mean(seen[-50:]):.2f}"
    )
even = [
    max_violation(np.bincount(np.argsort(rng.random((N, E)))[:, :K].reshape(-1))) for _ in range(50)
]
floor = np.mean(even)
print(f"choices by lot:   {floor:.2f}, the chance of a finite batch")

draw.speeds(history, biases, floor)

# %% [markdown]
# **What to notice.** The slow one can move $b$ by 0.03 in 300 steps, and the popular experts need several times as much. The fast one arrives
# at once and then jumps by 0.03 for ever, past the goal and back. V3's pace arrives, and stays at what chance alone does to a batch. The report
# has 0.001 for 14.3 trillion tokens and 0 for the last 500 billion (section 4.2): at the end the thermostat is switched off.
#
# How long will it take? A bias moves by $\gamma$ a step, and the extreme experts need about 0.25, so 250 steps at 0.001 and 83 at 0.003:


# %%
draw.thermostat()
notebook.explore(
    draw.thermostat,
    gamma=[0.0003, 0.001, 0.003, 0.01, 0.03, 0.1],
    steps=(50, 600, 50),
    popularity_spread=(0.0, 2.4, 0.2),
    tokens=[128, 1024, 2048],
)

# %% [markdown]
# (With a running kernel there are controls for $\gamma$, the steps, the spread of the popularity and the size of the batch. With a spread of 0 nothing has to be balanced: what MaxVio is
# left, and how does it depend on the number of tokens?)
#
# The rule looks at *finished* steps only. A bias computed from the load of the tokens at hand would tell early tokens about later ones.
#
# ### The biases of a trained model
#
# [The small model](notebooks/model/README.md) of these notebooks was balanced in this way for 1,750 steps. Let it go on from the sentence, eight texts of 230 tokens, and count who serves them, once with its
# biases and once without.
#
# **Write your guess; then run.** Its biases lie between −0.06 and 0.12, its scores between 0 and 1. Does it make a difference to switch them off?

# %%
model = notebook.model()
tokens, _ = notebook.read(model)
texts = [minids.generate(model, tokens[0], 230, temperature=1.0, seed=seed) for seed in range(8)]
load = {}
for name, with_bias in (("with its biases", True), ("without them", False)):
    counts = 0
    for text in texts:
        routers = Router(model, text[None], [""] * len(text))
        chosen = [routers.routed(block, bias=with_bias).chosen for block in routers.scores]
        counts = counts + np.array([np.bincount(c.ravel(), minlength=E) for c in chosen])
    load[name] = counts / counts.mean(axis=1, keepdims=True)  # (blocks, E)
draw.on_and_off(load)

# %% [markdown]
# **What to notice.** Small numbers, but where many scores are small too they decide. Without the biases the busiest experts have more, and the idlest less; the gates, and so the weights of what is
# computed, never saw them.
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
# scores are**. Checked, and two extremes beside it:

# %%
T = 64
alpha = 1e-4
scores = rng.uniform(0.05, 0.95, (T, E))
in_turn = (np.arange(T)[:, None] * K + np.arange(K)) % E  # every expert equally often
same = np.tile(np.arange(K), (T, 1))  # the first K take everything
sharp = np.where(np.arange(E) < K, 0.98, 1e-3) * np.ones((T, 1))

notebook.shapes({"T": T, "E": E, "K": K}, scores=scores, chosen=in_turn)
print()
for name, s, chosen in (
    ("even load, any scores", scores, in_turn),
    ("K experts chosen and wanted", sharp, same),
    ("K experts chosen, others wanted", sharp[:, ::-1], same),
):
    value, _ = balance_loss.forward(s, chosen, T)
    print(f"{name:<32} loss / α = {value:.4f}    loss = {alpha * value:.2e}")
print(f"E / K = {E / K:.0f}")

# %% [markdown]
# **What to notice.** $\alpha$ is the value of an even load, and it is *not the smallest*: the third line is nearly 0. A router that
# chooses what it wants most does not get there, but with a bias choice and wish do differ. So a loss below $\alpha$ is no bug; a MaxVio of 0 is read
# off the counts, never off this loss.
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
def right_loss(scores, chosen):
    return balance_loss.forward(scores, chosen, len(scores))[0]


some = rng.uniform(0.05, 0.95, (45, 14))
other = rng.uniform(0.05, 0.95, (33, 10))
uneven = router.choose(some + np.linspace(0.3, 0, 14), 3)
questions = [(some, uneven), (other, router.choose(other, 7))]
check.ok(check.against(right_loss, sequence_loss, questions))

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
two = {"scores": some[:10], "chosen": uneven[:10], "tokens_per_group": 5}
check.ok(check.gradient(balance_loss.forward, loss_backward, two))

# %% [markdown]
# Two wrong ones. The first takes the normaliser $S_t$ for a constant; the second *detaches* $P$, because "balance is only counted". It is
# silent in training: the loss is reported as ever, and nothing is ever balanced by it.


# %%
def constant_normaliser(d_loss, saved):
    # Were S constant, an expert that nobody chose would get no gradient: yours, with that one's taken off.
    ds = loss_backward(d_loss, saved).reshape(saved.share.shape)  # (G, T, E)
    idle = np.broadcast_to(saved.load.argmin(axis=-1)[..., None], (*ds.shape[:2], 1))
    return (ds - np.take_along_axis(ds, idle, axis=-1)).reshape(-1, ds.shape[-1])


def detached(d_loss, saved):
    return np.zeros(saved.share.shape).reshape(-1, saved.share.shape[-1])


for wrong in (constant_normaliser, detached):
    notebook.caught(check.gradient(balance_loss.forward, wrong, two))

# %% [markdown]
# ## 5. Even over what? Scope and specialisation
#
# Two sequences, one of prose, one of arithmetic; each has half of the experts to itself. Over the batch the load is even. Within each
# sequence it could not be less so. The same function, two scopes:

# %%
half = np.arange(E) < E // 2
prose = np.where(half, 0.9, 0.1) * np.ones((T, 1))
arithmetic = prose[:, ::-1]
both = np.concatenate([prose, arithmetic])  # (2T, E)
chosen = (np.arange(T)[:, None] * K + np.arange(K)) % (E // 2)
chosen = np.concatenate([chosen, chosen + E // 2])

d_scores = {}
for name, scope in (("over the batch", 2 * T), ("within sequences", T)):
    value, saved = balance_loss.forward(both, chosen, scope)
    d_scores[name] = balance_loss.backward(1.0, saved)
    print(f"{name:<17} loss / α = {value:.2f}, largest gradient {np.abs(d_scores[name]).max():.1e}")
halves = np.array([np.bincount(c.reshape(-1), minlength=E) for c in np.split(chosen, 2)])
print(f"MaxVio of the batch {max_violation(halves.sum(axis=0)):.2f}")
print(f"the choice of an expert tells {specialisation(halves):.2f} bit about the domain")

# %% [markdown]
# **What to notice.** Perfect specialisation costs nothing over the batch, and is *punished* within sequences: the gradient lowers the
# scores of exactly the experts that know the subject. This is why the weight is tiny, and the report's section 4.5.3 says so in numbers: validation
# loss of a 1B model 2.258 with a sequence-wise loss, 2.253 with a batch-wise one, 2.253 with the bias. The scope matters, not the loss.
#
# ## 6. Fourteen ways, trained
#
# Here are all arms of the study. *Specialisation* is the mutual information of domain and expert in bits, of $\log_2 3 = 1.58$ possible; the spread is the standard
# deviation over three seeds. Loss is validation loss in nats per byte.
#
# **Write your guess; then run.** Does the bias, or an auxiliary loss, end with the lower loss at the same evenness: or can three seeds not tell?

# %%
print(f"{'':<34}{'loss':>16}{'MaxVio':>16}{'bits':>16}")
for name, arm in arms.items():
    values = [arm["summary"][key] for key in ("loss", "max_vio", "specialisation")]
    texts = (
        f"{v['mean']:.{n}f} ± {v['spread']:.{n}f}" for v, n in zip(values, (3, 2, 3), strict=True)
    )
    print(f"{name:<34}" + "".join(f"{text:>16}" for text in texts))

draw.loss_and_evenness(arms)

# %% [markdown]
# How much of the papers' story do runs of 300 steps carry? The study draws its conclusions itself:

# %%
for finding in study["findings"]:
    verdict = {True: "yes", False: "no", None: "undecided"}[finding["holds"]]
    print(f"{verdict:<11}{finding['claim']}\n{'':<11}{finding['numbers']}")

# %% [markdown]
# **What to notice.** Without balancing MaxVio ends near its worst; with the bias at 0.14. $\gamma = 0.001$, right for a run of trillions of
# tokens, is too slow for one of 300 steps: 0.003 is the pace here. "Undecided" means that the 95 % interval of the difference, seed by seed,
# holds zero. So it is with the price of the batch-wise loss: three seeds leave room for 0.2 nats on either side of 0.005. On the scope there is
# a hint: with the best weight of each, the loss over the batch ends 0.05 below the one within sequences, which is the report's sign; the
# interval, from 0.14 below to 0.04 above, does not decide it. What every seed shows is the last line, specialisation.
#
# ## 7. What the experts know
#
# The report's Figure 9 draws the load by domain. Here is ours, for the bias and for the loss within sequences:

# %%
pair = ("bias 0.003", "sequence loss 0.1")
bits = {name: arms[name]["summary"]["specialisation"] for name in pair}
draw.by_domain({name: loads(name)[:, -1] for name in pair}, bits, domains)  # the last layer

# %%
for name in pair:
    load = loads(name)
    print(
        f"{name:<18} busiest expert of a domain: {load.max(axis=-1).mean():.2f} times the mean;",
        f"of the domains together: {load.mean(axis=0).max(axis=-1).mean():.2f}",
    )
ratio = bits[pair[0]]["mean"] / bits[pair[1]]["mean"]
print(f"specialisation: {ratio:.0f} times as much with the bias")

# %% [markdown]
# Both are nearly even over all text; the one has experts for subjects, the other has experts for everything. Two rows of the table confirm this: a light
# loss over the batch (0.01) specialises nearly as much as the bias, so again it is the scope; and without any balancing there is *less* of it,
# because experts that take every token cannot tell subjects apart. (The weight of the loss here is a thousand
# times V3's, which is what makes it visible. The arm with V3's $10^{-4}$ beside the bias is in the table: it keeps its specialisation.)
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
positive = rng.uniform(0.05, 0.95, (200, E))
negative = positive - 1  # the same choice: a common shift changes no order
arguments = [(positive, K, 4, 2), (negative, K, 4, 2)]
check.ok(check.against(router.choose, limited, arguments))

# %% [markdown]
# ### Why $-\infty$ and not 0
#
# Scores are positive, so 0 looks like "less than all of them", and in V2, which has no bias, it is. V3's official code had it too at first, and others
# [took it over](https://github.com/vllm-project/vllm/pull/13474).
# But $b$ may be negative, and then a *forbidden* expert with 0 beats an allowed one:


# %%
def masked_with_zero(biased, top_k, n_group, topk_group):
    """The right groups, but 0 for what is forbidden."""
    experts = biased.shape[1]
    allowed = router.choose(biased, experts // n_group * topk_group, n_group, topk_group)
    masked = np.zeros_like(biased)
    np.put_along_axis(masked, allowed, np.take_along_axis(biased, allowed, axis=1), axis=1)
    return router.choose(masked, top_k)


print("positive scores:")
check.ok(check.against(router.choose, masked_with_zero, positive, K, 4, 2))
print("\nwith negative biases:")
notebook.caught(check.against(router.choose, masked_with_zero, negative, K, 4, 2))

# %% [markdown]
# A shift common to all biases changes no order, so a right router must not notice it. That makes a test which needs no reference: choose, shift
# all biases, choose again, and compare the *sets* of experts.

# %%
shifts = np.linspace(0, -1, 21)
changed = {}
for name, function in (("−∞", router.choose), ("0", masked_with_zero)):
    unshifted = np.sort(function(positive, K, 4, 2), axis=1)
    again = [np.sort(function(positive + b, K, 4, 2), axis=1) for b in shifts]
    changed[name] = np.array([np.mean(np.any(a != unshifted, axis=1)) for a in again])
    print(f"masked with {name:<3} tokens with other experts, at most {changed[name].max():.0%}")
nodes = nodes_touched(masked_with_zero(positive - 0.75, K, 4, 2), E, 4)
print(
    f"masked with 0, shifted by −0.75: {np.mean(nodes > 2):.0%} of tokens go to more than 2 nodes"
)

draw.shifted(shifts, changed)

# %% [markdown]
# **What to notice.** Small shifts do no harm, so the mistake sleeps until training has moved the biases. At the right end every allowed expert
# is below 0, and every token goes to forbidden experts only. Could it bite V3? Somebody looked at the released weights: the smallest of all its biases is
# [reported](https://github.com/huggingface/transformers/pull/45441) to be +2.02, so every allowed expert beats 0, and the mistake stays without effect there. (The thermostat knows no level: only differences between biases
# matter.) In a model whose biases hover around 0, as that of these notebooks, it would not.
#
# ## 9. What the limit saves
#
# Count it at V3's sizes ($E = 256$, $K = 8$, 8 nodes, $d = 7168$). A token goes out in FP8 with a scale for every 128 numbers, and comes back in
# BF16. Inside a node NVLink hands it on, 160 GB/s against InfiniBand's 50 (section 3.2.2). The scores here are drawn
# independently for each expert; a trained router's are not, so the last column is an illustration, the others are arithmetic.

# %%
v3_scores = rng.uniform(size=(4000, 256))
free = np.take_along_axis(v3_scores, router.choose(v3_scores, 8), axis=1).sum()
table = traffic.against_limit(v3_scores, 8, 8, 7168)
kept_share = []
print(" M   nodes   kB a token   InfiniBand      NVLink   score kept")
for row in table:
    chosen = router.choose(v3_scores, 8, 8, row.limit)
    kept_share.append(np.take_along_axis(v3_scores, chosen, axis=1).sum() / free)
    t = row.traffic
    print(
        f"{row.limit:>2}{t.nodes:>8.2f}{t.bytes / 1000:>13.1f}{1e6 * t.infiniband_seconds:>10.2f} µs"
        f"{1e6 * t.nvlink_seconds:>9.2f} µs{kept_share[-1]:>13.1%}"
    )

by_lot = 8 * (1 - np.prod([(224 - i) / (256 - i) for i in range(8)]))
print(f"\nno limit, by combinatorics: {by_lot:.2f} nodes")
print(f"experts per node that NVLink keeps up with: {network.experts_per_node():.1f}")
print(f"four nodes: {network.experts_at_no_extra_cost():.1f}, the report's 'up to 13'; V3 uses 8")

infiniband, nvlink = (
    np.array([1e6 * getattr(row.traffic, wire) for row in table])
    for wire in ("infiniband_seconds", "nvlink_seconds")
)
draw.wires([row.limit for row in table], infiniband, nvlink[0], kept_share)

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
def right_crossing(chosen, experts, nodes, d):
    return traffic.meter(chosen, experts, nodes, d).bytes


picks = router.choose(v3_scores[:500], 8, 8, 4)
check.ok(check.against(right_crossing, crossing, picks, 256, 8, 7168))

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
    - A bias, moved by a small step against the load, decides who is chosen and never what is computed.
    - A loss within each sequence punishes experts that know a subject; over the batch, or by the bias,
      they may. So V3 keeps it at a weight of 0.0001.
    """,
    "MaxVio 0.14",
    "in our study with the bias, against 2.75 without any balancing",
    {"none": 2.75, "bias": 0.14},
)
