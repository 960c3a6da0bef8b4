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
# [`average.py`](minids/training/average.py),
# [`analysis/memory.py`](minids/lab/analysis/memory.py), the kept results
# ([`studies/store.py`](minids/lab/studies/store.py)), pictures in [`plots/kept_studies.py`](minids/lab/plots/kept_studies.py), checks of
# the exercises in [`lessons/kept_studies.py`](minids/lab/lessons/kept_studies.py). Paper:
# [DeepSeek-V3 technical report](https://arxiv.org/abs/2412.19437).

# %%
import numpy as np

from minids import ModelConfig, check
from minids.lab import notebook
from minids.lab.analysis import memory
from minids.lab.lessons import kept_studies as lesson
from minids.lab.lessons import printed
from minids.lab.plots import kept_studies
from minids.lab.studies.store import results

notebook.set_up()
notebook.here("tokens")


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
printed.findings("fim")

# %% tags=["picture"]
kept_studies.arms("loss from left to right, nats per byte", of_seeds("fim", "loss"))

# %% [markdown]
# **What to notice.** No loss that shows, and no gain yet: after so few steps the text behind a hole makes it *more* of a surprise. V3 had 14.8 trillion tokens to learn it.
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
check.ok(lesson.check_laid_out(laid_out))

# %% [markdown]
# In the order of the text, nothing is learned about holes:

# %%
notebook.caught(lesson.check_laid_out(lesson.middle_in_the_middle))

# %% [markdown]
# ## 2. Tokens torn apart
#
# V3's tokenizer has tokens that join punctuation and line break, as `:⏎`. A model trained with them has never seen a line break *behind*
# a `:`, and a prompt that ends in `:` goes on as if the line did. V3 splits some of them at random while training (section 4.1).
# **Write your guess; then run:** how likely is a line break behind a prompt's last mark, where the text has one?

# %%
printed.findings("token-boundary")

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
# V3 starts with 3,072 sequences a step and has 15,360 after 469 of 14,800 billion tokens (section 4.2): a fifth, for 3.2 % of the run. The
# idea: early gradients agree with each other, so a small batch wastes less.

# %%
kept_studies.ramp()
notebook.explore(
    kept_studies.ramp, most=[8, 16, 32], from_share=(0.1, 1.0, 0.1), until_share=(0.1, 0.9, 0.1)
)

# %%
printed.findings("batch-ramp")

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
check.ok(lesson.check_batch_at(batch_at))

# %% [markdown]
# ## 4. An average of the weights
#
# V3 keeps an exponential moving average of its weights beside them, for an early look at how the model will do once the learning rate has
# decayed (section 3.2.3). **Write your guess; then run:** at the end of the plateau, how much of the decay's gain does the average show?

# %%
printed.findings("average")

# %% tags=["picture"]
looks = {"plateau": "the weights", "average 0.9": "their average", "decayed": "after the decay"}
for name in ("adamw", "muon"):
    kept = results("average")["arms"][name]["summary"]
    seen = {f"{name}: {words}": kept[number]["values"] for number, words in looks.items()}
    kept_studies.arms("loss, nats per byte", seen)

# %% [markdown]
# **What to notice.** The average is better than the weights with Muon, undecided with AdamW, and far from the decayed model: it has 8 and
# 15 % of the gain. A reason may be that over 300 steps the weights still travel far.
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
check.ok(lesson.check_averaged(averaged))

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
printed.findings("fp8-scaling")

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
# would harm a delayed scale is a tensor that suddenly grows ([notebook 10](notebooks/10_fp8.ipynb)). (Kimi-K2's QK-Clip, which holds attention's logits, is in
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
    - An average of the weights shows 8 and 15 % of the gain that the decay brings here, far from all of it.
    """,
    number="60 → 4 → 27 %",
    meaning="line breaks where the text has one: no joined tokens, joined, a tenth of them split.",
    bars={name: 100 * float(np.mean(breaks[arm])) for arm, name in names.items()},
)
