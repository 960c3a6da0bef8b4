# %% [markdown]
# # 18. The rest of the report: six habits, each with its finding
#
# Attention, experts, balance, MTP and FP8 have notebooks of their own. The report has more: documents with their middle last, tokens
# torn apart, a batch that grows, weights that are averaged, activations that are thrown away. **What do they do, and which of them can
# be seen to matter in a small model?**

# %% [markdown]
# All of it runs here, as an option of `minids train`, and each was measured: the kept runs of a study, with seeds and intervals. Most
# say "undecided". A null that is admitted is worth more than a gain that is not there.
#
# Code used here: [`training/fill_in_the_middle.py`](minids/training/fill_in_the_middle.py),
# [`token_boundaries.py`](minids/training/token_boundaries.py), [`batch_ramp.py`](minids/training/batch_ramp.py),
# [`average.py`](minids/training/average.py), [`config/training.py`](minids/config/training.py),
# [`analysis/memory.py`](minids/lab/analysis/memory.py), the kept results
# ([`studies/store.py`](minids/lab/studies/store.py)), pictures in [`plots/kept_studies.py`](minids/lab/plots/kept_studies.py). Paper:
# [DeepSeek-V3 technical report](https://arxiv.org/abs/2412.19437).

# %%
import numpy as np

from minids import ModelConfig, check
from minids.config import TrainConfig
from minids.lab import notebook
from minids.lab.analysis import memory
from minids.lab.plots import kept_studies
from minids.lab.studies.store import results
from minids.training import batch_ramp

notebook.set_up()
notebook.here("tokens")


def findings(study):
    """What a study found, in its own words."""
    kept = results(study)
    print(f"{kept['command']}   ({len(kept['seeds'])} seeds, {kept['steps']} steps)")
    for finding in kept["findings"]:
        verdict = {True: "yes", False: "no", None: "undecided"}[finding["holds"]]
        print(f"  {verdict:<10}{finding['claim']}\n            {finding['numbers']}")


def of_seeds(study, number, *arms):
    """arm → one number of all its runs."""
    held = results(study)["arms"]
    return {arm: held[arm]["summary"][number]["values"] for arm in arms or held}


# %% [markdown]
# ## 1. Fill-in-the-middle
#
# An editor wants text between what is before and what is behind. V3 lays out a tenth of its documents as (section 4.1)
#
# $$ \texttt{begin}\;\; \text{prefix}\;\; \texttt{hole}\;\; \text{suffix}\;\; \texttt{end}\;\; \text{middle} $$
#
# so that the model, which only ever reads from left to right, learns to write the middle *last*. **Write your guess; then run:** does it
# cost loss on plain text? After 600 steps, does a small model fill in?

# %%
findings("fim")

# %% tags=["picture"]
kept_studies.arms("loss from left to right, nats per byte", of_seeds("fim", "loss"))

# %% [markdown]
# **What to notice.** Nothing lost that shows, and nothing gained yet: at this length the text behind a hole makes it *more* of a surprise,
# because the model has not learned where the hole is. V3 had 14.8 trillion tokens to learn it.
#
# ### Exercise 1: lay it out
#
# Write `laid_out(text, a, b, begin, hole, end)`: the tokens (n,) with `text[a:b]` as the middle, and the three marks.


# %% tags=["solution"]
def laid_out(text, a, b, begin, hole, end):
    """text (n,) → (n + 3,)."""
    # Prefix, suffix, middle: the middle is what comes last.
    return np.concatenate([[begin], text[:a], [hole], text[b:], [end], text[a:b]])


# %% tags=["check"]
def by_hand(text, a, b, begin, hole, end):
    """The same, a token at a time."""
    out = [begin, *(text[i] for i in range(a)), hole]
    out += [*(text[i] for i in range(b, len(text))), end, *(text[i] for i in range(a, b))]
    return np.array(out)


words = np.arange(10, 20)
check.ok(
    check.against(
        by_hand, laid_out, [(words, 3, 6, 0, 1, 2), (words, 0, 4, 0, 1, 2), (words, 5, 5, 0, 1, 2)]
    )
)


# %%
def middle_first(text, a, b, begin, hole, end):
    """In the order of the text: nothing is learned about holes."""
    return np.concatenate([[begin], text[:a], [hole], text[a:b], [end], text[b:]])


notebook.caught(check.against(by_hand, middle_first, words, 3, 6, 0, 1, 2))

# %% [markdown]
# ## 2. Tokens torn apart
#
# V3's tokenizer has tokens that join punctuation and line break, as `:⏎`. A model trained with them has never seen a line break *behind*
# a `:`, and a prompt that ends in `:` goes on as if the line did. V3 splits some of them at random while training (section 4.1).
# **Write your guess; then run:** how likely is a line break behind a prompt's last mark, where the text has one?

# %%
findings("token-boundary")

# %% tags=["picture"]
breaks = of_seeds("token-boundary", "break")
names = {"apart": "no such tokens", "joined": "joined", "joined, 10 % split": "joined, 10 % split"}
kept_studies.arms(
    "line break where the text has one, %",
    {name: 100 * np.array(breaks[arm]) for arm, name in names.items()},
)

# %% [markdown]
# **What to notice.** The one clear yes of this page: eight tokens of 512 spoil prompts. Splitting a tenth of them takes two thirds of the extra
# surprise away (2.6 of 3.9 nats), and costs nothing.
#
# ## 3. A batch that grows
#
# V3 starts with 3,072 sequences a step and has 15,360 after 469 of 14,800 billion tokens (section 4.2): a fifth, for 3.2 % of the run. Early
# gradients agree with each other, so a small batch wastes less.

# %%
kept_studies.ramp()
notebook.explore(
    kept_studies.ramp, most=[8, 16, 32], from_share=(0.1, 1.0, 0.1), until_share=(0.1, 0.9, 0.1)
)

# %%
findings("batch-ramp")

# %% tags=["picture"]
kept_studies.arms("loss at equal tokens, nats per byte", of_seeds("batch-ramp", "loss"))

# %% [markdown]
# **What to notice.** No difference that shows.
#
# ### Exercise 2: the batch of a moment
#
# Write `batch_at(share, most, start, until)`: sequences, not yet rounded, after a share of the run's tokens: a straight line from
# `start · most` at 0 to `most` at `until`, then constant.


# %% tags=["solution"]
def batch_at(share, most, start, until):
    """B(t) of the whole run's share t."""
    return most * min(1.0, start + (1 - start) * share / until)


# %% tags=["check"]
train = TrainConfig(batch_size=64, steps=200, batch_ramp_from=0.2, batch_ramp_until=0.5)
middles = [
    (batch_ramp.share_done(s, train) + batch_ramp.share_done(s + 1, train)) / 2 for s in range(199)
]


def in_whole_sequences(share, most, start, until):
    """The package's plan: rounded, in the middle of its step."""
    return batch_ramp.sequences(int(np.argmin(np.abs(np.array(middles) - share))), train)


def rounded(share, most, start, until):
    """Yours, as a step has it."""
    yours = batch_at(share, most, start, until)
    return yours if yours is Ellipsis or yours is None else round(yours)


check.ok(
    check.against(
        in_whole_sequences, rounded, [(middles[s], 64, 0.2, 0.5) for s in (0, 30, 60, 120, 190)]
    )
)

# %% [markdown]
# ## 4. An average of the weights
#
# V3 keeps an exponential moving average of its weights beside them, for an early look at how the model will do once the learning rate has
# decayed (section 3.2.3). **Write your guess; then run:** at the end of the plateau, how much of the decay's gain does the average show?

# %%
findings("average")

# %% tags=["picture"]
looks = {"plateau": "the weights", "average 0.9": "their average", "decayed": "after the decay"}
for name in ("adamw", "muon"):
    kept = results("average")["arms"][name]["summary"]
    seen = {f"{name}: {words}": kept[number]["values"] for number, words in looks.items()}
    kept_studies.arms("loss, nats per byte", seen)

# %% [markdown]
# **What to notice.** The average is better than the weights with Muon, undecided with AdamW, and far from the decayed model: it has 8 and
# 15 % of the gain. In 300 steps the weights still travel; V3's no longer did.
#
# ### Exercise 3: one step of the average
#
# Write `averaged(e, theta, t, d)`: the average after step t (from 1), whose divisor is Adam's, so that after one step it is that
# step's weights: $e \leftarrow e + \frac{1-d}{1-d^t}(\theta - e)$.


# %% tags=["solution"]
def averaged(e, theta, t, d):
    """e, theta (P,), step t, decay d → the new average (P,)."""
    return e + (1 - d) / (1 - d**t) * (theta - e)


# %% tags=["check"]
path = np.random.default_rng(0).normal(size=(6, 4)).cumsum(axis=0)  # (steps, P) of some weights


def from_the_sum(steps, d):
    """Σ (1 − d) d^(t − i) θ_i / (1 − d^t), all at once."""
    weight = (1 - d) * d ** np.arange(steps - 1, -1, -1) / (1 - d**steps)
    return weight @ path[:steps]


def step_by_step(steps, d):
    """Yours, from zeros."""
    e = np.zeros(4)
    for t in range(1, steps + 1):
        e = averaged(e, path[t - 1], t, d)
    return e


check.ok(check.against(from_the_sum, step_by_step, [(1, 0.9), (3, 0.9), (6, 0.5)]))

# %% [markdown]
# ## 5. What is thrown away and made again
#
# Between forward and backward pass a step keeps its activations. V3 forms the cheap ones again (section 3.2.3): norms, MLA's
# up-projections, the SwiGLU product. By arithmetic:

# %%
v3 = ModelConfig.preset("deepseek-v3")
for name, config, tokens in (("tiny", ModelConfig.preset("tiny"), 256), ("V3", v3, 4096)):
    kept = [memory.activation_elements(config, 1, tokens, how) for how in ("stored", "recompute")]
    print(
        f"{name:<5}{kept[0]:>15,} numbers kept for {tokens} tokens, {kept[1]:>14,} with recomputation ({kept[1] / kept[0]:.0%})"
    )

# %% [markdown]
# **What to notice.** Less than half. Measured by `minids bench recompute` on one small model: 135.6 MB instead of 311.0, a pass takes 1.15
# times as long, and every gradient has the same bits ([docs/findings.md](docs/findings.md)).
#
# ## 6. Coarser scales, and 16 bits
#
# V3 scales every tile when it is multiplied (online). Earlier recipes take a scale per matrix from the maxima of past steps (delayed),
# and BF16 needs none. **Write your guess; then run:** which of them ends furthest from float32?

# %%
findings("fp8-scaling")

# %% tags=["picture"]
losses = of_seeds("fp8-scaling", "loss", "fp32", "bf16", "fp8", "fp8 per tensor", "fp8 delayed")
base = np.array(losses["fp32"])
kept_studies.arms(
    "loss above float32's of the same seed, %",
    {arm: 100 * (np.array(seeds) / base - 1) for arm, seeds in losses.items() if arm != "fp32"},
    guide=0.25,
)

# %% [markdown]
# **What to notice.** All stay below the paper's 0.25 % (dotted) on average, over 200 steps of a small model, and none is told from the others. What
# harms a delayed scale, a tensor that suddenly grows, did not happen. (Kimi-K2's QK-Clip, which holds attention's logits, is in
# [notebook 5](notebooks/05_mla_inside.ipynb).)
#
# ## Where to go from here
#
# - [docs/findings.md](docs/findings.md) has every finding with its numbers, these and the others; [docs/recipe.md](docs/recipe.md) the options.
# - `minids study NAME` repeats any of them; `--seeds` and `--steps` make it longer.

# %% tags=["picture"]
notebook.card(
    """
    - Tokens that join a mark and a line break spoil prompts; splitting a tenth of them takes two thirds of that away.
    - Fill-in-the-middle, a growing batch and delayed scales make no difference that three seeds show.
    - An average of the weights foretells the decay only where the weights no longer travel.
    """,
    number="60 → 4 → 27 %",
    meaning="line breaks where the text has one: no joined tokens, joined, a tenth of them split.",
    bars={name: 100 * float(np.mean(breaks[arm])) for arm, name in names.items()},
)
