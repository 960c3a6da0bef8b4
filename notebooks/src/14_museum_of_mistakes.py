# %% [markdown]
# # 14. The museum of mistakes
#
# You have written DeepSeek-V3 from the paper. The shapes are right, every gradient is non-zero, and the loss falls. **Is it right?**

# %% [markdown]
# Probably not, and this notebook shows why. Its exhibits keep the shapes, let the loss fall, and most of them even pass a
# gradient check, because their backward pass is the correct derivative of a *wrong forward pass*. Many were found in public
# implementations, in serious ones: a label says where and when. "A relative" is nearly the same mistake; "not a mistake there" means
# that somebody wants it so; and "a question" is a reader's, about the same line.
#
# Every label has the same parts: **where it was seen**, **the lines** (right in red, wrong in green: the diff that somebody
# committed), **one picture** measured in this page, and **what notices it**.
#
# Code used here: the mistakes are a few wrong lines each, in [`lab/mistakes`](minids/lab/mistakes/__init__.py),
# [`mistakes/fp8.py`](minids/lab/mistakes/fp8.py) and [`mistakes/policy.py`](minids/lab/mistakes/policy.py); `with made(mistake):`
# puts one in and takes it out again. [`labels.py`](minids/lab/mistakes/labels.py) has the labels,
# [`symptoms.py`](minids/lab/mistakes/symptoms.py) the measurements, [`stamp.py`](minids/lab/mistakes/stamp.py) a whole model with
# 8 experts and a hidden size of 12, and the checks of section 1; [`router.py`](minids/ops/router.py) is what the first exercise
# tests. The test suite puts every mistake in and demands that a
# [named test fails](tests/lab/guards/guard_table.py): that is how a test suite is itself tested. Paper:
# [DeepSeek-V3 technical report](https://arxiv.org/abs/2412.19437).

# %%
import numpy as np

from minids import check
from minids.lab import mistakes, notebook
from minids.lab.lessons import museum as lesson
from minids.lab.mistakes import IN_GENERATION, MISTAKES, fp8, policy, stamp
from minids.lab.plots import museum
from minids.ops import router

notebook.set_up(dots=76)  # many pictures: each a little coarser than elsewhere
notebook.here()

# %% [markdown]
# ## 1. What everybody checks
#
# Three checks that every repository has: shapes, gradients that are not zero, a loss that falls. And two that careful people
# have: central differences of the total loss, and an *independent* implementation to compare with
# ([`pico.py`](minids/pico.py), the whole model in one file). On the right model all five pass:

# %%
for name, looks_well in stamp.CHECKS.items():
    print(f"{name:<24} {looks_well()}    {looks_well.__doc__.splitlines()[0]}")

# %% [markdown]
# Now put in each of 24 mistakes of building, training and generating, and ask all five. **Write your guess; then run:** how many of
# the 24 does a falling loss notice? How many does another implementation notice, which computes every logit anew?

# %%
exhibits = [*MISTAKES, *IN_GENERATION]
noticed = stamp.noticed(exhibits)  # (mistakes, checks)
for name, count in zip(stamp.CHECKS, noticed.sum(axis=0), strict=True):
    print(f"{name:<24} notices {count:2d} of {len(exhibits)}")
print("noticed by none of them:", int((~noticed.any(axis=1)).sum()))

# %% tags=["picture"]
museum.who_notices(exhibits, noticed)

# %% [markdown]
# **What to notice.** The first three columns are almost empty. A falling loss notices *nothing*: a wrong network is a network
# too, and learns. Central differences find those whose two halves disagree; where the backward pass is the true derivative of a
# wrong forward pass, they are content. Another implementation finds what changes a logit of *one forward pass*, and nothing
# about balance, training, caches or resuming. For the mistakes that pass all five, somebody has to have thought of the mistake:
# that is what the exhibits are for.

# %% [markdown]
# ## 2. Room one: the router
#
# [`ops/router.py`](minids/ops/router.py), V3 eqs 13–16. The bias $b_i$ decides *who is chosen* and has no say in *how much they
# count*:
#
# $$ \mathcal{T} = \text{top-}K_r(s_i + b_i), \qquad g_i = 2.5\, s_i \big/ \textstyle\sum_{j\in\mathcal{T}} s_j , \qquad s_i = \sigma(u^\top e_i)$$

# %%
museum.exhibit(mistakes.gates_from_biased_scores)

# %%
museum.exhibit(mistakes.softmax_gate)

# %%
museum.exhibit(mistakes.forbidden_groups_set_to_zero)

# %%
museum.exhibit(mistakes.residual_inside_the_moe_layer)

# %% [markdown]
# ### Exercise 1: be the test
#
# Write the *check* for the first exhibit. It is run on the right code, where it has to return True, and with the mistake in, where
# it has to return False. Use `router.forward(logits, bias, top_k)`, whose first result has `.gates` and `.chosen`, both (N, K).
# Mind that a bias may change the *choice*; then the gates differ rightly.


# %% tags=["solution"]
def gates_do_not_know_the_bias():
    """True if the bias has no influence on the gates of unchanged choices."""
    # One token and clear favourites: the choice stays the same under a small bias.
    logits = np.array([[2.0, 1.0, -1.0, -2.0]])
    bias = np.array([0.05, -0.05, 0.0, 0.0])
    without, _ = router.forward(logits, None, top_k=2)
    with_bias, _ = router.forward(logits, bias, top_k=2)
    same_choice = np.array_equal(without.chosen, with_bias.chosen)
    return bool(same_choice and np.allclose(without.gates, with_bias.gates))


# %% tags=["check"]
check.ok(stamp.judged(gates_do_not_know_the_bias, mistakes.gates_from_biased_scores))

# %% [markdown]
# A test that compares shapes is not one:


# %%
def gates_have_the_right_shape():
    """Looks like a test."""
    return router.forward(np.zeros((5, 8)), np.zeros(8), top_k=3)[0].gates.shape == (5, 3)


notebook.caught(stamp.judged(gates_have_the_right_shape, mistakes.gates_from_biased_scores))

# %% [markdown]
# ## 3. Room two: balance
#
# [`ops/bias_update.py`](minids/ops/bias_update.py), V3 section 2.1.2: after an optimizer step
# $b_i \leftarrow b_i + \gamma\,\mathrm{sign}(\bar c - c_i)$. An overloaded expert goes *down*, once per step, and never in evaluation.

# %%
museum.exhibit(mistakes.bias_moved_the_wrong_way)

# %%
museum.exhibit(mistakes.bias_updated_in_evaluation)

# %%
museum.exhibit(mistakes.bias_updated_in_every_backward_pass)

# %%
museum.exhibit(mistakes.balance_loss_from_detached_scores)

# %% [markdown]
# ## 4. Room three: latent attention
#
# [`layers/mla.py`](minids/layers/mla.py), V3 eqs 1–5. One rotary key $k^R_t = \mathrm{RoPE}(W^{KR} h_t)$ is shared by *all* heads
# and comes from the hidden state. Its gradient is therefore a **sum over the heads**.
#
# **Write your guess; then run.** V3 caches 576 numbers for each token and layer. How many if every head has a rotary key of its own?

# %%
museum.exhibit(mistakes.rope_key_per_head)

# %%
museum.exhibit(mistakes.mla_that_caches_full_keys_and_values)

# %%
museum.exhibit(mistakes.rope_key_from_the_latent)

# %%
museum.exhibit(mistakes.rope_key_gradient_of_one_head)

# %% [markdown]
# ### Exercise 2: the gradient of a shared key
#
# Every head's query `q` (T, H, d_r) meets the same key `k` (T, d_r). Write the backward pass: `dy` is (H, T, T), `saved` is `(q, k)`.
# Return `dq` (T, H, d_r) and `dk` (T, d_r).


# %%
H = 4


def scores_with_a_shared_key(q, k):
    """q (T, H, d_r), one key for all heads k (T, d_r) → (H, T, T)."""
    return np.einsum("thr,sr->hts", q, k)


rng = np.random.default_rng(0)
arrays = {"q": rng.normal(size=(5, H, 6)), "k": rng.normal(size=(5, 6))}
heads = {"n_heads": H}


# %% tags=["solution"]
def backward(dy, saved):
    """Gradients of q (T, H, d_r) and of the one key that all heads read, k (T, d_r)."""
    q, k = saved
    dq = np.einsum("hts,sr->thr", dy, k)
    dk = np.einsum("hts,thr->sr", dy, q)  # h is summed: every head read this key
    return dq, dk


# %% tags=["check"]
check.ok(check.gradient(scores_with_a_shared_key, backward, arrays, hints=heads))

# %% [markdown]
# And what the check says of two wrong answers ([`lessons/museum.py`](minids/lab/lessons/museum.py)), the gradient of one head and the mean
# over heads:

# %%
for wrong in (lesson.gradient_of_one_head, lesson.gradient_averaged):
    notebook.caught(check.gradient(scores_with_a_shared_key, wrong, arrays, hints=heads))

# %% [markdown]
# ## 5. Room four: positions
#
# [`ops/rope.py`](minids/ops/rope.py), [`ops/yarn.py`](minids/ops/yarn.py), V3 section 4.3. All these are right at position 0 and
# wrong later, which is where nobody looks.

# %%
museum.exhibit(mistakes.rope_in_the_other_layout)

# %%
museum.exhibit(mistakes.linear_interpolation_as_yarn)

# %%
museum.exhibit(mistakes.yarn_with_a_reversed_ramp)

# %%
museum.exhibit(mistakes.yarn_without_mscale)

# %% [markdown]
# ## 6. Room five: multi-token prediction
#
# [`layers/mtp.py`](minids/layers/mtp.py), V3 eqs 21–25. Module $k$ takes $h^{k-1}_i$ and the embedding of $t_{i+k}$, runs **a block of
# its own**, and predicts $t_{i+k+1}$.
#
# **Write your guess; then run.** A module that is shown its target is trained on random text, which nobody can predict. What becomes of its loss?
# (The third exhibit.)

# %%
museum.exhibit(mistakes.mtp_head_without_the_block)

# %%
museum.exhibit(mistakes.parallel_mtp_heads)

# %%
museum.exhibit(mistakes.mtp_shown_its_target)

# %% [markdown]
# ### Exercise 3: no peeking
#
# Write a test that the MTP module at depth 1 does not see the token it has to predict. `stamp.build()` makes a model and
# `stamp.text()[0]` tokens (B, T); `model.mtp_logits(tokens)[0]` is (B, T − 1, V), and entry $i$ predicts token $i + 2$ (positions from 0).


# %% tags=["solution"]
def mtp_does_not_peek():
    """True if a changed token moves no MTP logit that has to predict it or an earlier one."""
    # Change one token and compare the logits before and after.
    model, tokens = stamp.build(), stamp.text()[0]
    changed = tokens.copy()
    changed[:, 5] = (changed[:, 5] + 1) % stamp.STAMP.vocab_size
    before, after = model.mtp_logits(tokens)[0], model.mtp_logits(changed)[0]
    # Positions 0 to 3 predict tokens 2 to 5.
    return bool(np.allclose(before[:, :4], after[:, :4]))


# %% tags=["check"]
check.ok(stamp.judged(mtp_does_not_peek, mistakes.mtp_shown_its_target))

# %% [markdown]
# ## 7. Room six: serving and resuming
#
# [`inference/decoder.py`](minids/inference/decoder.py), [`training/batches.py`](minids/training/batches.py),
# [`inference/speculative.py`](minids/inference/speculative.py): what training on one batch never sees.

# %%
museum.exhibit(mistakes.cache_offset_forgotten)

# %%
museum.exhibit(mistakes.resumed_from_the_beginning_of_the_data)

# %%
museum.exhibit(mistakes.resumed_without_the_generator)

# %%
museum.exhibit(mistakes.resumed_without_the_routing_bias)

# %%
museum.exhibit(mistakes.speculation_by_a_ratio_heuristic)

# %% [markdown]
# ## 8. Room seven: learning from rewards
#
# [`ops/policy_loss.py`](minids/ops/policy_loss.py) and [notebook 17](notebooks/17_after_pretraining.ipynb): GRPO has mistakes of its own. Its loss does
# not fall even when all is well, so it cannot tell.

# %%
museum.exhibit(policy.divergence_as_a_difference_of_logs)

# %%
museum.exhibit(policy.larger_term_in_the_clip)

# %%
museum.exhibit(policy.group_numbers_lost)

# %%
museum.exhibit(policy.old_log_probabilities_with_gradient)

# %%
museum.exhibit(policy.balancing_bias_moved_by_rollouts)

# %%
museum.exhibit(policy.reward_read_behind_the_padding)

# %% [markdown]
# ## 9. The wing of eight bits
#
# V3 section 3.3; the right way is [notebook 10](notebooks/10_fp8.ipynb). FP8 has rooms apart, because in them everything is a few per
# cent off *anyway*: who would notice a few per cent more? A tolerance that FP8 needs lets most of these in. What notices them is
# another implementation of the formats **to the bit**, and the products written out tile by tile.
#
# ### Formats

# %%
museum.exhibit(fp8.halves_rounded_away_from_zero)

# %%
museum.exhibit(fp8.overflow_instead_of_saturation)

# %%
museum.exhibit(fp8.subnormals_flushed_to_zero)

# %% [markdown]
# ### Scales

# %%
museum.exhibit(fp8.scale_of_the_tensor_in_every_tile)

# %%
museum.exhibit(fp8.power_of_two_scales_rounded_down)

# %% [markdown]
# ### Products

# %%
museum.exhibit(fp8.scales_forgotten_in_the_weight_gradient)

# %%
museum.exhibit(fp8.weight_gradient_in_the_tiles_of_the_forward_pass)

# %%
museum.exhibit(fp8.promotion_forgotten)

# %% [markdown]
# ### What stays out of FP8

# %%
museum.exhibit(fp8.attention_output_in_e4m3)

# %%
museum.exhibit(fp8.router_in_fp8)

# %%
museum.exhibit(fp8.master_weights_in_fp8)

# %% [markdown]
# ## 10. Any picture again
#
# With a running kernel: choose.

# %%
museum.again()
notebook.explore(museum.again, exhibit=museum.PICTURES)

# %% [markdown]
# ## Where to go from here
#
# - Take your own implementation and the table of section 1. Each label's last line is a test that you can write in ten minutes; the
#   [table of guards](tests/lab/guards/guard_table.py) has ours, one for every exhibit.
# - Found a mistake that is missing? It is a function of five lines in [`lab/mistakes`](minids/lab/mistakes/__init__.py), and a label.

# %% tags=["picture"]
by = dict(zip(stamp.CHECKS, noticed.sum(axis=0), strict=True))
notebook.card(
    """
    - A wrong network is a network too: its loss falls.
    - A gradient check proves that backward fits forward, not that forward is right.
    - A mistake is noticed by a test that was written for it. Put the mistake in, and see the test fail.
    """,
    number=f"{int((~noticed.any(axis=1)).sum())} of {len(exhibits)}",
    meaning="mistakes pass all five of the usual checks. How many each of them notices:",
    bars={name: int(count) for name, count in by.items()},
)
