# %% [markdown]
# # 15. Pipelines: sixteen stages in a row
#
# V3 was trained on 2,048 GPUs, and no GPU holds the model: sixteen stages hold a few layers each, and a batch passes through all of
# them and back. The first stage must wait for the last. **How little can it wait?**

# %% [markdown]
# A batch is cut into $M$ *micro-batches*, which follow each other through the $PP = 16$ stages. The time in which a device has nothing to
# do is the **bubble**. Write F, B and W for the time of a forward chunk, a full backward chunk, and the part of it that computes the
# weights' gradients. V3's [report](https://arxiv.org/abs/2412.19437), Table 2:
#
# $$
# \text{1F1B: } (PP-1)(F+B) \qquad \text{ZB1P: } (PP-1)(F+B-2W) \qquad \text{DualPipe: } (\tfrac{PP}{2}-1)(F\&B + B - 3W)
# $$
#
# - **1F1B** alternates one forward, one backward.
# - **ZB1P** notices that only the *input's* gradient is waited for; weight gradients fill the gaps.
# - **DualPipe** (V3 section 3.2.1) feeds micro-batches from *both ends*, and runs a forward and a backward together (F&B) so that
#   each hides the other's communication. It stores every weight twice.
#
# Code used here: [`analysis/pipeline.py`](minids/lab/analysis/pipeline.py) runs these schedules instruction by instruction,
# [`ops/linear.py`](minids/ops/linear.py) has the two products of a backward pass, [`plots/pipelines.py`](minids/lab/plots/pipelines.py)
# draws.

# %%
import numpy as np

from minids import check
from minids.lab import notebook
from minids.lab.analysis import pipeline
from minids.lab.plots import pipelines
from minids.ops import linear

notebook.set_up()
notebook.here("blocks")

# %% [markdown]
# ## 1. Why a backward pass can be cut in two
#
# A linear layer's backward pass has two products, [`ops/linear.py`](minids/ops/linear.py): $dx = dy\,W$, which the stage *before* waits
# for, and $dW = dy^\top x$, which nobody waits for until the optimizer's step. They take the same time, so $W = B/2$.
#
# ### Exercise 1: in two halves
#
# Write `input_part(dy, W)` and `weight_part(dy, x)`, for dy (N, out), W (out, in), x (N, in).


# %% tags=["solution"]
def input_part(dy, W):
    """What the stage before waits for: dx (N, in)."""
    return dy @ W


def weight_part(dy, x):
    """What can wait: dW (out, in)."""
    return dy.T @ x


# %% tags=["check"]
rng = np.random.default_rng(0)
x, W, dy = rng.normal(size=(7, 5)), rng.normal(size=(3, 5)), rng.normal(size=(7, 3))


def both_at_once(dy, x, W):
    """The package's backward pass."""
    dx, dW, _ = linear.backward(
        dy, linear.forward(x, W)[1]
    )  # the third is a bias's, which is not there
    return dx, dW


def one_after_the_other(dy, x, W):
    """Yours."""
    return input_part(dy, W), weight_part(dy, x)


check.ok(check.against(both_at_once, one_after_the_other, dy, x, W))


# %%
def swapped(dy, x, W):
    """The halves in the wrong order."""
    return weight_part(dy, x), input_part(dy, W)


notebook.caught(check.against(both_at_once, swapped, dy, x, W))

# %% [markdown]
# ## 2. Three schedules, to look at
#
# Four devices, ten micro-batches. **Write your guess; then run:** in which of the three does device 0 wait longest, and when?

# %%
pipelines.timelines()
notebook.explore(
    pipelines.timelines,
    stages=[2, 4, 6, 8],
    microbatches=[8, 10, 16, 20],
    overlapped=(2.0, 3.0, 0.1),
)

# %% [markdown]
# **What to notice.** White is waiting. In 1F1B device 0 waits for the first backward pass to come back through all others, and at the
# end everybody waits again. ZB1P keeps green boxes, work that nobody waits for, and fills the end with them. DualPipe starts at both
# ends, so the triangles in front are half as long; half-height boxes are pairs that run as one. (With a running kernel: more stages, more
# micro-batches, a cheaper pair.)
#
# ### Exercise 2: run 1F1B yourself
#
# Write `one_f_one_b(stages, microbatches, f, b)`: the total time of the schedule, and the most micro-batches that device 0 holds at a time (their forwards done, their backwards not). Device $s$ first runs $\min(PP - 1 - s, M)$ forwards, then
# alternates one forward and one backward, then finishes the backwards. A forward may start when the stage before has finished the same micro-batch; a
# backward when the stage behind has (and its own forward is done).


# %% tags=["solution"]
def one_f_one_b(stages, microbatches, f, b):
    """Time from the first forward to the last backward; most micro-batches that device 0 holds."""
    programmes = []
    for s in range(stages):
        ahead = min(stages - 1 - s, microbatches)
        order = [("F", m) for m in range(ahead)]
        for m in range(microbatches):
            order += [("F", m + ahead)] if m + ahead < microbatches else []
            order.append(("B", m))
        programmes.append(order)
    end, clock, held, most = {}, [0.0] * stages, 0, 0
    while any(programmes):
        for s, order in enumerate(programmes):
            while order:
                kind, m = order[0]
                if kind == "F":
                    needs = [("F", s - 1, m)] if s else []
                else:
                    needs = [("F", s, m)] + ([("B", s + 1, m)] if s + 1 < stages else [])
                if any(need not in end for need in needs):
                    break
                start = max([clock[s], *(end[need] for need in needs)])
                clock[s] = start + (f if kind == "F" else b)
                end[kind, s, m] = clock[s]
                if s == 0:
                    held += 1 if kind == "F" else -1
                    most = max(most, held)
                order.pop(0)
    return max(clock), most


# %% tags=["check"]
def simulated(stages, microbatches, f, b):
    """The package's simulator."""
    times = pipeline.Times(f, b, b / 2, f + b)
    run = pipeline.simulate("1F1B", stages, microbatches, times)
    return run.makespan, run.peak_activations[0]


cases = [(4, 10, 1.0, 2.0), (16, 64, 1.0, 2.0), (5, 2, 1.5, 2.5)]
check.ok(check.against(simulated, one_f_one_b, cases))

# %% [markdown]
# ## 3. V3's size
#
# Sixteen stages, 64 micro-batches, with F = W = 1 and B = 2: simulated, and by the formulas of Table 2.
#
# **Write your guess; then run.** In 1F1B, what share of the time does a device wait?

# %%
print("schedule   bubble  formula  idle share  micro-batches held  copies of the model")
for schedule in pipelines.SCHEDULES:
    line, form = pipeline.simulate(schedule, 16, 64), pipeline.closed_form(schedule, 16)
    held, copies = max(line.peak_activations), form.parameters
    print(f"{schedule:<9} {line.bubble:>7g}  {form.bubble:>7g}  {line.bubble_share:>10.1%}", end="")
    print(f"  {held:>18}  {copies:>19}")

# %% [markdown]
# **The claim, checked.** Table 2's three formulas give 45, 15 and 14, and so do the simulations. With these times DualPipe saves just one
# unit over ZB1P; its point is the communication *inside* F&B, which no bubble formula shows. **Write your guess; then run:** if a pair
# took 2 where its halves take 3, because each hides the other's waiting for the network, how large would the bubble be?

# %% tags=["picture"]
pipelines.bubbles()

# %% [markdown]
# **What to notice.** If everything can be hidden in the pair (F&B = 2, the time of the backward pass alone), DualPipe's bubble is half of
# ZB1P's; and the pairs themselves, which are most of the run, are shorter too:

# %%
for overlapped in (3.0, 2.6, 2.2):
    times = pipeline.Times(overlapped=overlapped)
    run = pipeline.simulate("DualPipe", 16, 64, times)
    print(f"F&B = {overlapped}: {run.makespan:6.1f} units in all, bubble {run.bubble:4.1f}")

# %% [markdown]
# ### Exercise 3: Table 2
#
# Write `bubble(schedule, PP, F, B, W, FB)` for "1F1B", "ZB1P" and "DualPipe".


# %% tags=["solution"]
def bubble(schedule, PP, F, B, W, FB):
    """Idle time of a device, V3's Table 2."""
    # DualPipe starts at both ends: half as many stages to fill.
    if schedule == "1F1B":
        return (PP - 1) * (F + B)
    if schedule == "ZB1P":
        return (PP - 1) * (F + B - 2 * W)
    return (PP / 2 - 1) * (FB + B - 3 * W)


# %% tags=["check"]
def of_the_table(schedule, PP, F, B, W, FB):
    """The package's closed form."""
    return pipeline.closed_form(schedule, PP, pipeline.Times(F, B, W, FB)).bubble


sizes = [(16, 1.0, 2.0, 1.0, 3.0), (8, 1.5, 2.5, 1.0, 3.5)]
check.ok(check.against(of_the_table, bubble, [(s, *n) for s in pipelines.SCHEDULES for n in sizes]))

# %% [markdown]
# ## Where to go from here
#
# - V3 report, section 3.2: DualPipe, and what it hides; [notebook 13](notebooks/13_what_it_costs.ipynb) has the bill.
# - `minids pipeline` prints any schedule for any sizes.

# %% tags=["picture"]
notebook.card(
    """
    - A stage waits for the input's gradient only; the weight's gradient can fill gaps.
    - From both ends the pipeline fills in half the time, for a second copy of the weights.
    - What DualPipe hides is communication, inside a pair of forward and backward.
    """,
    number="45 → 14",
    meaning="units of waiting, of 16 stages (Table 2, F = W = 1, B = 2, F&B = 3).",
    bars={s: pipeline.closed_form(s, 16).bubble for s in pipelines.SCHEDULES},
)
