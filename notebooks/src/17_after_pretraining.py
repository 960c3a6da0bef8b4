# %% [markdown]
# # 17. After pre-training: examples, then rewards
#
# A pre-trained model continues text; nobody has told it what an answer is. DeepSeek-V3 was told twice: by 1.5 million examples, and
# by rewards for its own attempts. **How can a model learn from a single number per answer, when that number has no gradient?**

# %% [markdown]
# By trying several answers to the same question and making those better than their rivals likelier: GRPO (V3
# [report](https://arxiv.org/abs/2412.19437), section 5.2.2, eqs 26–28; [DeepSeekMath](https://arxiv.org/abs/2402.03300)). There is
# no second network that predicts how good answers to a question will be (a critic): the group is its own measure.
#
# Code used here: [`ops/policy_loss.py`](minids/ops/policy_loss.py) is the loss and its backward pass,
# [`training/sft.py`](minids/training/sft.py) and [`training/grpo.py`](minids/training/grpo.py) the loops,
# [`training/rewards.py`](minids/training/rewards.py) questions and rewards,
# [`lessons/after_pretraining.py`](minids/lab/lessons/after_pretraining.py) a check,
# [`plots/after_pretraining.py`](minids/lab/plots/after_pretraining.py) the pictures, and
# [`errors.py`](minids/errors.py) says no.

# %%
import numpy as np

import minids
from minids import check
from minids.errors import MinidsError
from minids.lab import notebook
from minids.lab.lessons import after_pretraining as lesson
from minids.lab.plots import after_pretraining
from minids.ops import policy_loss
from minids.training.rewards import sums

notebook.set_up()
notebook.here("head", "tokens")
model = notebook.model()
task = sums(model.tokenizer)  # two-digit sums, worded as in the text that the model was trained on


def answers(model, questions):
    """The model's greedy answers, a line each."""
    said = [minids.generate(model, q, 32, stop=["\n"]) for q in questions]
    return [model.tokenizer.decode(tokens) for tokens in said]


asked = task.held_out[:6]
for question, answer in zip(asked, answers(model, asked), strict=True):
    print(repr(model.tokenizer.decode(question[-10:])), "→", repr(answer))

# %% [markdown]
# The model has seen worked sums, and imitates them: it breaks a sum up, and gets it wrong. We want *brief* answers: one equals sign.
#
# ## 1. Examples
#
# Supervised fine-tuning (SFT) is training as ever, with one difference: the question is read and not graded. Its tokens are context;
# only the answer's count in the loss, V3's section 5.1.

# %% tags=["picture"]
example = notebook.read(model, "What is 17 + 25?\n17 + 25 = 42.\n").pieces
first = example.index("⏎") + 1
after_pretraining.learned_from(example, [i >= first for i in range(len(example))])

# %% [markdown]
# ### Exercise 1: grade the answer alone
#
# Write `graded(log_p, counts)`: the mean of −ln p over the tokens that count. `log_p` (B, T) are the logarithms of the right tokens'
# probabilities, `counts` (B, T) is True for the answer's. One mean over all of them, not one per row.


# %% tags=["solution"]
def graded(log_p, counts):
    """log_p (B, T), counts (B, T) bool → the loss, one number."""
    # A long answer has more to say than a short one: every token counts the same.
    return -np.sum(log_p * counts) / np.sum(counts)


# %% tags=["check"]
rng = np.random.default_rng(0)
log_p, counts = -rng.exponential(size=(3, 7)), rng.random((3, 7)) < [[0.2], [0.5], [0.9]]
check.ok(lesson.check_graded(graded, log_p, counts))

# %% [markdown]
# Two hundred examples of brief answers, two epochs, some seconds. **Write your guess; then run:** will the answers be brief? Will they
# be *right*?

# %%
examples = [(a, b) for a in range(10, 30) for b in range(11, 21)]
pairs = [(f"Problems\n\nWhat is {a} + {b}?\n", f"{a} + {b} = {a + b}.\n") for a, b in examples]
tuned = notebook.model()
minids.sft(tuned, pairs, epochs=2, learning_rate=1e-3, say=lambda line: None)
for before, after in zip(answers(model, asked), answers(tuned, asked), strict=True):
    print(f"{before!r:<32} → {after!r}")

# %% [markdown]
# **What to notice.** Form is learned from few examples, arithmetic is not: an example says what an answer looks like. (To break
# a sum up is a way to get it right; V3's own examples of reasoning come from a model that thinks at length.)
#
# ## 2. A group is its own measure
#
# Now without examples. A question gets $G$ answers $o_1 \dots o_G$ from the model as it is, $\pi_\text{old}$, and a program gives each a
# reward $r_i$. What counts is how much better an answer is than its rivals (eq. 28):
#
# $$ A_i = \frac{r_i - \mathrm{mean}(r_1 \dots r_G)}{\mathrm{std}(r_1 \dots r_G)} $$

# %%
rewards = np.array(
    [[0, 0, 0, 1, 0, 0], [1, 1, 0, 1, 0, 1], [1, 1, 1, 1, 1, 1]], float
)  # (groups, G)
number = np.repeat(np.arange(3), 6)
advantages = policy_loss.advantages(rewards.ravel(), number).reshape(3, 6)
print(advantages)

# %% tags=["picture"]
after_pretraining.groups(rewards, advantages)

# %% [markdown]
# **What to notice.** One right answer among wrong ones is worth much; the wrong ones share the cost. Where all answers are right (or
# all are wrong) there is **no contrast**, and nothing to learn: such groups cost their rollouts for nothing.
#
# ### Exercise 2: advantages
#
# Write `my_advantages(r)` for one group (G,). Mind the group without contrast: 0/0 must not happen.


# %% tags=["solution"]
def my_advantages(r):
    """r (G,) → A (G,), whose sum is 0; all 0 where all rewards are equal."""
    # np.std divides by G, as the report does.
    centred = r - r.mean()
    return centred / r.std() if r.std() > 0 else np.zeros(len(r))


# %% tags=["check"]
def by_the_package(r):
    """One group of them."""
    return policy_loss.advantages(r, np.zeros(len(r), int))


check.ok(
    check.against(by_the_package, my_advantages, [(r,) for r in (*rewards, rng.normal(size=5))])
)


# %%
def without_baseline(r):
    """The reward itself: no answer is ever made rarer."""
    return r / r.std()


notebook.caught(check.against(by_the_package, without_baseline, rewards[1]))

# %% [markdown]
# ## 3. The loss is zero and its gradient is not
#
# What is maximised (eq. 26; $\rho_i = \pi(o_i)/\pi_\text{old}(o_i)$):
#
# $$ J = \frac1G \sum_i \Big[\min\big(\rho_i A_i,\ \mathrm{clip}(\rho_i, 1-\varepsilon, 1+\varepsilon)\, A_i\big) - \beta D_i\Big] $$
#
# Right after the answers were drawn, $\pi = \pi_\text{old}$: every $\rho_i$ is 1, and $J$ is the mean of the advantages. **Write your
# guess; then run:** what is the loss in that step? What does it say about learning?

# %%
V = 6
logits = rng.normal(size=(12, V))  # (N, V): one group of 6 answers, 2 tokens each
answer = np.repeat(np.arange(6), 2)  # (N,) which answer a token belongs to
tokens = rng.integers(0, V, 12)  # (N,) what was drawn
log_old = policy_loss.log_probabilities(logits, tokens)
loss, saved = policy_loss.forward(logits, tokens, answer, advantages[1], log_old)
d_logits = policy_loss.backward(1.0, saved)
print(f"loss {abs(loss):.1e}, largest gradient {np.abs(d_logits).max():.3f}")

# %% [markdown]
# **What to notice.** The loss is 0 by construction, in the first step of a run and in its last: a curve of it shows nothing. The gradient is not, for
# $d\rho/d\ln\pi = \rho = 1$: every token of a good answer is pushed up, every token of a bad one down. It is cross-entropy with one weight
# for each token, $-A_i$ shared among the answer's tokens. (So what does one watch? The reward.)
#
# ### Exercise 3: that gradient
#
# Write `first_gradient(logits, tokens, weight)` for $\rho = 1$: the gradient of $-\sum_t w_t \ln p_t[o_t]$ by the logits, (N, V).


# %% tags=["solution"]
def first_gradient(logits, tokens, weight):
    """logits (N, V), tokens (N,) int, weight (N,) → d_logits (N, V)."""
    # −ln p of the token: its gradient is p − onehot, as in notebook 2.
    p = np.exp(logits - logits.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    p[np.arange(len(tokens)), tokens] -= 1
    return weight[:, None] * p


# %% tags=["check"]
share = advantages[1][answer] / (6 * 2)  # mean over 6 answers of a mean over 2 tokens


def of_the_package(logits, tokens, weight):
    """Eq. 26 where nothing has moved yet."""
    return d_logits


check.ok(check.against(of_the_package, first_gradient, logits, tokens, share))

# %% [markdown]
# The clip comes into play when the same answers are used for a second step. A good answer that has become likelier by $\varepsilon$, and a
# bad one that has become rarer by $\varepsilon$, are let go; what went the wrong way is pulled back at full strength:

# %%
after_pretraining.clip()
notebook.explore(after_pretraining.clip, epsilon=(0.05, 0.5, 0.05))

# %% [markdown]
# ## 4. Not too far from where it began
#
# A reward can be gamed, and a model that only chases it forgets how to write. $D_i$ measures how far it has run from the model it was,
# $\pi_\text{ref}$ (eq. 27): with $q = \pi_\text{ref}/\pi$ of the drawn answer, $D = q - \ln q - 1$. Why not simply $\ln(\pi/\pi_\text{ref})$,
# whose mean is the KL divergence by definition?

# %%
p = np.array([0.35, 0.30, 0.20, 0.10, 0.05])  # π
q = np.array([0.20, 0.25, 0.25, 0.15, 0.15])  # π_ref
draws = rng.choice(5, 20_000, p=p)

# %% tags=["picture"]
after_pretraining.divergence(p, q, draws)

# %% [markdown]
# **What to notice.** Both have the right mean; $D$ is never negative and spreads less. And one trap: the *gradient* of
# $\ln(\pi/\pi_\text{ref})$, averaged over the policy's own answers, is zero: it holds nothing
# ([notebook 14](notebooks/14_museum_of_mistakes.ipynb), room seven, with a public case of 2026).
#
# ## 5. Forty steps
#
# The reward: 1 for an answer of one line with one equals sign and a full stop, else 0. Four questions a step, eight answers each, from the
# model as it was *before* section 1. **Write your guess; then run:** it almost never gives such an answer. Can it learn to?

# %%
questions = [model.tokenizer.decode(q[1:]) for q in task.questions[::37]]
settings = dict(
    steps=40, questions=4, group=8, learning_rate=5e-4, warmup_steps=4,
    max_new_tokens=24, stop=["\n"], say=lambda line: None,
)  # fmt: skip


def brief(question, answer):
    """1 for one line with one equals sign and a full stop."""
    return float(answer.endswith(".\n") and answer.count("=") == 1)


chased = notebook.model()
runs = {"brief": minids.grpo(chased, questions, brief, **settings)}
print("reward of the first five steps:", [round(h["reward"], 2) for h in runs["brief"][:5]])
print("and of the last five:          ", [round(h["reward"], 2) for h in runs["brief"][-5:]])

# %% [markdown]
# From nearly nothing to nearly always. Now look at the answers:

# %%
for question, answer in zip(asked, answers(chased, asked), strict=True):
    print(repr(model.tokenizer.decode(question[-10:])), "→", repr(answer))

# %% [markdown]
# **What to notice.** It *is* brief: it answers another, easier question. Nobody said that the sum has to be the one that was asked. That
# is called reward hacking: what is rewarded becomes likelier, and nothing else.
#
# So say it: 1 only for an answer that is brief *and* about the question. **Write your guess; then run:** from the pre-trained model, and
# from the one that has seen examples, which of the two learns it?


# %%
def to_the_point(question, answer):
    """1 for a brief answer that begins with the question's own sum."""
    sum_asked = question.split("What is ")[1].split("?")[0]
    return brief(question, answer) * answer.startswith(f"{sum_asked} = ")


try:
    minids.grpo(notebook.model(), questions, to_the_point, **settings)
except MinidsError as refused:
    print("from the pre-trained model:", refused)

runs["to the point, after examples"] = minids.grpo(tuned, questions, to_the_point, **settings)
for question, answer in zip(asked, answers(tuned, asked), strict=True):
    print(repr(model.tokenizer.decode(question[-10:])), "→", repr(answer))

# %% tags=["picture"]
after_pretraining.rising(runs)

# %% [markdown]
# **What to notice.** A reward that is never met teaches nothing, and `grpo` says so after ten steps: this is why examples come first,
# in the report's order. With them there is little left to do. Right: as long as all answers of a group fail there is no contrast, and
# the same once all succeed; learning happens in between. The results are still wrong, because no reward asked for right ones;
# `minids grpo --task sums` does, with some minutes of patience.
#
# ## Where to go from here
#
# - `minids sft` and `minids grpo` do this with any checkpoint ([docs/use.md](docs/use.md)); a reward is a Python function.
# - What V3.2 and Dr. GRPO repaired is in [`ops/policy_loss.py`](minids/ops/policy_loss.py) as options: the ratio of each token, $D$
#   times $\rho$, no division by the standard deviation or by the length.
# - [Notebook 14](notebooks/14_museum_of_mistakes.ipynb), room seven: six ways to get it wrong.

# %% tags=["picture"]
first, last = (
    np.mean([h["reward"] for h in part]) for part in (runs["brief"][:5], runs["brief"][-5:])
)
notebook.card(
    """
    - Examples teach the form: the question is read, the answer is graded.
    - A reward needs no gradient: an answer better than its group's mean becomes likelier, token by token.
    - What is rewarded becomes likelier, and nothing else.
    """,
    number="0",
    meaning="is GRPO's loss in every first step, and its gradient is not. What rises is the reward, here in 40 steps:",
    bars={"first five steps": float(first), "last five steps": float(last)},
)
