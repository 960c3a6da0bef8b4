# %% [markdown]
# # 16. Several processes: experts apart, a pipeline from both ends
#
# DeepSeek-V3 was trained by 2,048 GPUs that share no memory. **What do they say to each other, why do they sometimes wait for
# ever, and who is idle meanwhile?**

# %% [markdown]
# A process in such a group is called a *rank*. This page needs no cluster. First threads stand in for ranks; then you see what four real
# processes sent each other and when they worked, recorded once and kept with the package. Where `mpi4py` is installed
# (`pip install "minids[parallel]"`), the cells with a clock start processes on your machine.
#
# | you will see | [V3 report](https://arxiv.org/abs/2412.19437) | code |
# |---|---|---|
# | tokens that travel to their experts | section 3.2.2 | [`parallel/exchange.py`](minids/parallel/exchange.py) |
# | a rank that skips the exchange, and all others wait for ever | | [`parallel/hop.py`](minids/parallel/hop.py) |
# | DualPipe, executed and measured | section 3.2.1 | [`parallel/pipeline.py`](minids/parallel/pipeline.py) |
# | copies of busy experts | section 3.4 | [`parallel/eplb.py`](minids/parallel/eplb.py) |
#
# Code used here, besides: the recordings ([`analysis/recorded.py`](minids/lab/analysis/recorded.py),
# [`pipeline_measured.py`](minids/lab/analysis/pipeline_measured.py)); layers ([`basic.py`](minids/layers/basic.py),
# [`parameters.py`](minids/layers/parameters.py), [`put_off.py`](minids/layers/put_off.py)). Threads, processes and the checks of the
# exercises are in [`lessons/several_processes.py`](minids/lab/lessons/several_processes.py).

# %%
import threading

import numpy as np

from minids import check
from minids.lab import notebook
from minids.lab.analysis import pipeline_measured, recorded
from minids.lab.lessons import several_processes as lesson
from minids.lab.plots import several_processes as draw
from minids.layers.basic import Linear
from minids.layers.parameters import Parameters
from minids.layers.put_off import weights_put_off
from minids.parallel import eplb, pipeline

notebook.set_up()
notebook.here("blocks", "experts")
rng = np.random.default_rng(0)

# %% [markdown]
# ## 1. Tokens travel to their experts
#
# With *expert parallelism* every rank holds some experts of a layer and some tokens of the batch. A token's row goes to the ranks of its
# experts, and what they make of it comes back: an **all-to-all**. Each rank sends something to each other one, all at once, and none goes on
# before all are there. Four threads and a meeting place:


# %%
class Meeting:
    """Where ranks exchange arrays: each puts down a parcel for everybody, waits for all, and takes its own."""

    def __init__(self, ranks, patience=2.0):
        self.ranks, self.parcels, self.door = ranks, {}, threading.Barrier(ranks, timeout=patience)

    def all_to_all(self, rank, parcels):
        """parcels[s] goes to rank s; returned are those for this rank, in the order of the senders."""
        for s, parcel in enumerate(parcels):
            self.parcels[rank, s] = parcel
        self.door.wait()  # all have put down theirs
        mine = [self.parcels[s, rank] for s in range(self.ranks)]
        self.door.wait()  # all have taken theirs
        return mine


# %% [markdown]
# Eight experts on four ranks, two each; expert $e$ simply multiplies a row by $e + 1$, so that you can check by eye. Rank $r$ has three
# tokens, and each goes to two experts. `on_ranks` starts a thread for each rank.

# %%
RANKS, E, K, d = 4, 8, 2, 3


def experts_apart(meeting, rank, x, chosen):
    """x (N, d), chosen (N, K) → Σ_k expert_k(x) (N, d), though the experts are elsewhere."""
    here = E // RANKS
    token, choice = np.nonzero(chosen >= 0)  # every (token, choice) pair
    expert = chosen[token, choice]
    where = [np.flatnonzero(expert // here == s) for s in range(RANKS)]
    rows = meeting.all_to_all(rank, [x[token[at]] for at in where])  # there
    whose = meeting.all_to_all(rank, [expert[at] for at in where])
    done = [r * (e[:, None] + 1) for r, e in zip(rows, whose, strict=True)]
    back = meeting.all_to_all(rank, done)  # and back
    y = np.zeros_like(x)
    for at, part in zip(where, back, strict=True):
        np.add.at(y, token[at], part)
    return y


xs = [rng.normal(size=(3, d)) for _ in range(RANKS)]
choices = [np.array([rng.choice(E, K, replace=False) for _ in range(3)]) for _ in range(RANKS)]
apart = lesson.on_ranks(experts_apart, Meeting(RANKS), xs, choices)
alone = [x * (chosen + 1).sum(axis=1, keepdims=True) for x, chosen in zip(xs, choices, strict=True)]
check.ok(check.close(np.array(apart), np.array(alone), name="experts apart"))

# %% [markdown]
# ### Exercise 1: who gets how much?
#
# Before rows travel, their numbers do. Write `rows_to_ranks(chosen, experts, ranks)`: chosen (N, K), experts dealt to ranks in blocks of
# neighbours → (ranks,) how many *different tokens* go to each rank. A token with two experts on one rank goes there once.


# %% tags=["solution"]
def rows_to_ranks(chosen, experts, ranks):
    """(N, K) → (ranks,) int."""
    holder = chosen // (experts // ranks)
    return np.array([np.count_nonzero(np.any(holder == r, axis=1)) for r in range(ranks)])


# %% tags=["check"]
check.ok(lesson.check_rows_to_ranks(rows_to_ranks))

# %% [markdown]
# ## 2. What four real processes sent
#
# The same with `tiny` on four processes over MPI: the bytes that each rank sent to each other one in one training step, forward and backward.
# Left, every rank is a machine of its own. Middle and right, two machines of two ranks: a token first goes *once* to each machine that has an expert for it,
# over the slow wire, and from there to the ranks inside. That is section 3.2.2.
#
# **Write your guess; then run.** How many bytes does the second hop save between the machines: a tenth, a fifth, a half?

# %%
kept = recorded.exchanges()
one = kept["one hop"]["across dispatch"]
across, inside = (kept["two hops"][f"{where} dispatch"] for where in ("across", "inside"))
machine = np.arange(4) // 2
between = machine[:, None] != machine  # rank pairs on different machines
for hops, sent in (("one hop", one), ("two hops", across)):
    print(f"between the machines, {hops}: {sent[between].sum() / 1e6:.1f} MB")

draw.sent({"one hop": one, "two hops, across": across, "then inside a machine": inside})

# %% [markdown]
# **What to notice.** No rank sends to all others equally: routers are not even. In two hops the first table has zeros, since rank 0 of
# one machine only talks to rank 0 of the other, and nearly a fifth fewer bytes cross between the machines: a token with experts on both ranks of
# the other machine went there twice, now once. (What comes back is as much as what went out.) Your own numbers, if `mpi4py` is here:

# %% tags=["timing"]
lesson.mpiexec(4, "-m minids bench exchange --sizes A-12x64 --expert-parallel 4 --ranks-per-node 2")

# %% [markdown]
# ## 3. A dead-lock, provoked
#
# A router may send *no* token to the experts of some rank. Suppose that this rank skips the layer, since it has nothing to do.
#
# **Write your guess; then run.** Nobody sends a row to rank 2, and it returns at once. What becomes of ranks 0 and 1?


# %%
def skips(meeting, rank, rows):
    """rows[s]: the rows for rank s. Wrong: whoever gets none does not come to the exchange."""
    counts = meeting.all_to_all(rank, [len(r) for r in rows])
    if sum(counts) == 0:
        return np.zeros((0, d))
    return np.concatenate(meeting.all_to_all(rank, rows))


nobody_for_2 = lesson.rows_for(np.array([[1, 2, 0], [3, 1, 0], [1, 1, 0]]), width=d)
for rank, got in enumerate(lesson.on_ranks(skips, Meeting(3), nobody_for_2)):
    print(f"rank {rank}: {got if isinstance(got, str) else f'returned with {len(got)} rows'}")

# %% [markdown]
# Rank 2 has left; ranks 0 and 1 wait for it. On a cluster they wait for hours: nothing failed, so nothing is reported. **The cure:** every rank
# takes part in every exchange. A rank that has nothing sends an empty parcel.


# %%
def takes_part(meeting, rank, rows):
    """Right: counts say what comes, and an empty parcel is a parcel."""
    meeting.all_to_all(rank, [len(r) for r in rows])
    return np.concatenate(meeting.all_to_all(rank, rows))


for rank, got in enumerate(lesson.on_ranks(takes_part, Meeting(3), nobody_for_2)):
    print(f"rank {rank}: returned with {len(got)} rows")

# %% [markdown]
# The same with real processes ([`lessons/deadlock.py`](minids/lab/lessons/deadlock.py)): rank 1 skips the second exchange, and `mpiexec`
# ends them after ten seconds, since nobody else would. Then without the mistake:

# %% tags=["timing"]
lesson.mpiexec(2, "-m minids.lab.lessons.deadlock skip", seconds=10)
lesson.mpiexec(2, "-m minids.lab.lessons.deadlock", seconds=30)

# %% [markdown]
# ### Exercise 2: nobody waits for ever
#
# Write `total(meeting, rank, numbers)`: the sum over all ranks of all their numbers, on every rank, with `meeting.all_to_all`. `numbers`
# is an array, on some ranks an empty one. A rank that leaves before the exchange leaves the others waiting, and the check sees it.


# %% tags=["solution"]
def total(meeting, rank, numbers):
    """The same sum on every rank."""
    mine = numbers.sum()  # 0 of nothing, and 0 is sent
    return sum(meeting.all_to_all(rank, [mine] * meeting.ranks))


# %% tags=["check"]
check.ok(lesson.check_total(total, Meeting))

# %% [markdown]
# ## 4. A pipeline from both ends
#
# *Pipeline parallelism* gives every device some neighbouring blocks. Activations go up the line, gradients come back, and a device waits
# for both. Only the gradient of a stage's **input** is waited for by somebody; that of its **weights** is not. So the backward pass is
# split. In minids a layer does both at once, unless it is told to leave the weights for later:

# %%
parameters = Parameters()
layer = Linear(parameters, "layer", 4, 3)
parameters.allocate(np.float64)
layer.weight.value[...] = rng.normal(size=(4, 3))
y, saved = layer.forward(rng.normal(size=(5, 3)))
with weights_put_off() as later:
    dx = layer.backward(np.ones((5, 4)), saved)  # I: goes to the stage before, which waits for it
before = np.abs(layer.weight.grad).max()
print(f"dx is there: {dx.shape}; the weight's gradient is not: {before:.0f}")
for add in later:
    add()  # W: whenever there is a gap
print(f"now it is: {np.abs(layer.weight.grad).max():.2f}")

# %% [markdown]
# Four devices in one process, each going on as far as it can; all of DeepSeek-V3, MTP module included. Are the gradients those of one device?

# %%
model = lesson.small_model()
text = rng.integers(0, 32, (8, 1, 13))  # micro-batches, sequences, tokens
lesson.on_one_device(model, text)  # its gradients stay in the model

for schedule in ("1F1B", "ZB1P", "DualPipe"):
    line = pipeline.Together(model, schedule, stages=4)
    line.forward_backward(text[..., :-1], text[..., 1:])
    worst = lesson.apart_from_one_device(line, model)
    held = [device.parameters.values.size for device in line.devices]
    print(f"{schedule:<9} gradients differ by {worst:.0e}; parameters on each device: {held}")

# %% [markdown]
# **What to notice.** DualPipe's devices together hold about twice as much: it feeds micro-batches from both ends, so device $r$ holds stage $r$
# for one direction and stage $PP - 1 - r$ for the other, and the two copies of each stage add their gradients.
#
# And who worked when? Four processes made a step of `tiny`, and every chunk was timed. They shared **one** core, so the clock shows mostly
# how they took turns. The second timeline *replays* the same order with each chunk's own processor time, as with a core for every
# device; the third is the textbook's, with all stages alike.
#
# **Write your guess; then run.** With a core for every device, what share of the time would a device wait?

# %%
found = pipeline_measured.compared(recorded.dualpipe())
draw.timelines(found._asdict())

# %% [markdown]
# **What to notice.** In *replayed* the stages are unequal: the last one has head and MTP module, and DualPipe gives each device one from
# either end, which evens it out. Half-height boxes are pairs that on a GPU would hide each other's communication; here the forward is made
# first, then the backward. On your machine:

# %% tags=["timing"]
lesson.mpiexec(4, "-m minids pipeline --execute --schedule DualPipe --stages 4 --microbatches 8")

# %% [markdown]
# ## 5. Copies of busy experts
#
# To serve a model, each GPU holds a few experts, and all wait for the busiest. V3 keeps *redundant* experts: copies of the busy ones
# (section 3.4), planned from the load of the minutes before. The EPLB repository's example has two layers of 12 experts in 4 groups, and
# 16 places on 2 nodes of 4 GPUs. **Write your guess; then run:** four places are left over, a third more. How busy is the busiest GPU,
# over the mean?

# %%
load = lesson.EPLB_EXAMPLE  # (layers, experts)
plan = eplb.place(load, places=16, gpus=8, nodes=2, groups=4)
print(plan.policy)
print(plan.experts)  # the same numbers as in their README
blocks = load.reshape(2, 4, 3).sum(axis=2)  # three experts on each of four GPUs, no copies
print(f"busiest over mean, dealt out on 4 GPUs: {(blocks.max(1) / blocks.mean(1)).round(2)}")
print(f"with copies on 8:                       {plan.imbalance.round(2)}")
anywhere = eplb.place(load, places=16, gpus=8, nodes=2, groups=4, policy="global")
print(f"global policy, copies go anywhere:      {anywhere.imbalance.round(2)}")

# %% [markdown]
# **What to notice.** Copies even out the second layer, where a few experts had most to do. The policy that keeps a group on one node does
# less than the global one, but a token then visits fewer nodes.
#
# Three greedy steps make the plan: groups of experts go to nodes, spare places of a node go to the expert with the largest load per copy,
# copies go to GPUs.
#
# ### Exercise 3: which expert gets the next copy?
#
# Write `copies(loads, places)`: how many copies each expert has, if every expert has one, and each further place goes to the expert whose
# copies have most to do, load / copies (the first of equals).


# %% tags=["solution"]
def copies(loads, places):
    """(E,) loads → (E,) int, together ``places``."""
    count = np.ones(len(loads), int)
    for _ in range(places - len(loads)):
        count[np.argmax(loads / count)] += 1
    return count


# %% tags=["check"]
check.ok(lesson.check_copies(copies))

# %% [markdown]
# A tempting mistake is to look at the load alone, and to give *all* spare places to the favourite:

# %%
notebook.caught(lesson.check_copies(lesson.all_to_the_favourite))

# %% [markdown]
# Now at work: sixteen experts of which a few are busy, and what each GPU has to compute.

# %%
draw.redundant(1000 / np.arange(1, 17))  # the load of 16 experts

# %% [markdown]
# A token's row goes to one of its expert's copies, each in turn. Nothing else changes, so the outputs stay what they are. A layer of the small model above:

# %%
layer = model.moe_layers[0]
layer.bias[5] = 0.2  # a favourite: nearly every token chooses expert 5
x = rng.normal(size=(4, 64, 16))
y, saved = layer.forward(x)
plan = eplb.place(saved.plan.counts[None], 20, gpus=4)
served = eplb.served(layer, x, plan.experts[0], gpus=4)
check.ok(check.close(served.y, y, name="with copies"))
dealt = eplb.rows_per_gpu(saved.routing.chosen, eplb.dealt_out(16, 4), 4, 16)
print(f"rows on each GPU, dealt out: {dealt}, with copies: {served.rows}")

# %% [markdown]
# **What to notice.** One copy a GPU makes four GPUs nearly equal, and the outputs are the same numbers.
# `minids experts --run runs/mine --gpus 4` does that for a run of yours that was trained with `--trace-every`, and judges the plan on the
# run's later steps.
#
# ## Where to go from here
#
# - [docs/parallel.md](docs/parallel.md): every option, what was measured, and when to leave for torchtitan or Megatron (`minids export`).
# - [Notebook 15](notebooks/15_pipelines.ipynb): the bubbles of V3's Table 2 by simulation.
# - [Notebook 7](notebooks/07_balance.ipynb): how a router is kept even in training, so that copies are needed less.

# %% tags=["picture"]
hops = {"one hop": one[between].sum() / 1e6, "two hops": across[between].sum() / 1e6}  # MB
notebook.card(
    """
    - A token's row goes to the ranks of its experts and comes back: an all-to-all, in which every rank takes part, also one that
      has nothing to send.
    - Across machines first, then inside: a token crosses the slow wire once for each machine.
    - A copy of a busy expert on each GPU evens out what the router does not.
    """,
    number=" → ".join(f"{sent:.1f}" for sent in hops.values()) + " MB",
    meaning="between two machines in one step of the tiny model, by one hop and by two",
    bars=hops,
)
