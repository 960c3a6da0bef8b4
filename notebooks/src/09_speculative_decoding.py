# %% [markdown]
# # 9. Speculative decoding: two tokens at a time, nothing lost
#
# Writing is slow because every token needs a pass through the whole model, and the next pass cannot begin before it is known. But the
# MTP module of notebook 8 already guesses the token after next. **Can guesses be used without changing a single word of what the model
# would have said?**

# %% [markdown]
# Yes, exactly: greedily the text is the same letter by letter, and with random sampling it has the *same distribution*. DeepSeek-V3
# reports 85 to 90 % of guesses accepted and 1.8 times the tokens per second ([report](https://arxiv.org/abs/2412.19437), section 5.4.3).
# The rule is older than V3: Leviathan et al. 2023, Chen et al. 2023.
#
# Code used here: [`inference/speculative.py`](minids/inference/speculative.py) and [`generate.py`](minids/inference/generate.py),
# [`model.py`](minids/model.py), [`analysis/flops.py`](minids/lab/analysis/flops.py) and
# [`parameters.py`](minids/lab/analysis/parameters.py). The pictures are in [`plots/speculation.py`](minids/lab/plots/speculation.py),
# the checks of the exercises in [`lessons/speculation.py`](minids/lab/lessons/speculation.py).

# %%
import numpy as np

import minids
from minids import ModelConfig, check
from minids.inference.speculative import Counts, Draft, judge
from minids.lab import notebook
from minids.lab.analysis.flops import weights_read
from minids.lab.lessons import speculation as lesson
from minids.lab.plots import speculation as draw

notebook.set_up()
notebook.here("mtp", "head")

# %% [markdown]
# ## 1. The rule
#
# Somebody quick but unreliable, the *guesser*, proposes the next token; somebody slow but authoritative, the *model*, then says how
# probable it finds the proposal. When the guesser was more eager than the model, its proposal is sometimes refused, just often enough
# to make up for the eagerness; and what is then said instead comes from the tokens it had neglected.
#
# A draft $x$ was drawn from the guesser's distribution $q$; the model, which reads it in its next pass, has $p$ at that place. Accept
# with probability
#
# $$ \min\!\big(1,\; p(x)/q(x)\big), \qquad\text{else draw from}\quad r(x) = \frac{\max(p(x)-q(x),\,0)}{\sum_{x'} \max(p(x')-q(x'),\,0)} $$
#
# Why is what comes out distributed as $p$? A token $x$ can arrive in two ways, as an accepted guess or as a replacement:
#
# $$ \underbrace{q(x)\min\!\big(1,\tfrac{p(x)}{q(x)}\big)}_{\min(p(x),\,q(x))} \;+\; \underbrace{\Big(1-\sum_{x'}\min(p,q)\Big)}_{\text{refused}} r(x) \;=\; \min(p,q) + \max(p-q,0) \;=\; p(x)$$
#
# because $\sum\max(p-q,0) = 1-\sum\min(p,q)$. The proof is one line. **Write your guess; then run:** the guesser below puts 0.45 on
# token 1, to which the model gives 0.25. How many of a hundred guesses stand?

# %%
p = np.array([0.30, 0.25, 0.20, 0.15, 0.10])  # the model
q = np.array([0.15, 0.45, 0.10, 0.10, 0.20])  # the guesser
accepted = q * np.minimum(1, p / q)  # = min(p, q), (V,)
rest = np.maximum(p - q, 0)
replaced = (1 - accepted.sum()) * rest / rest.sum()
print("accepted + replaced =", accepted + replaced, "= p:", np.allclose(accepted + replaced, p))
distance = np.abs(p - q).sum() / 2  # the total variation distance of the two
print(f"guesses that stand: {accepted.sum():.2f} = 1 − {distance:.2f}, the distance of p and q")

rng = np.random.default_rng(0)
drawn = []
for _ in range(20_000):  # the package's judge, asked again and again
    guess = int(rng.choice(5, p=q))
    stood, after = judge(Draft([guess], [q]), np.stack([p, p]), rng)
    drawn.append(guess if stood else after)
frequency = np.bincount(drawn, minlength=5) / len(drawn)
off, chance = np.abs(frequency - p).max(), 2 * np.sqrt(0.25 / 20_000)
print(f"largest difference between frequency and p: {off:.3f}; chance alone explains {chance:.3f}")

# %% tags=["picture"]
draw.accepted_and_replaced(p=p, q=q, accepted=accepted, replaced=replaced, frequency=frequency)

# %% [markdown]
# **What to notice.** Token 1 is the guesser's favourite: its grey dot stands far above the model's mark, so nearly half of the
# proposals are refused, and none is ever a replacement. Tokens 0, 2 and 3 were proposed too rarely; orange fills them up, to the mark
# exactly.
#
# Greedily, $p$ and $q$ are certainties, and the rule becomes: a guess stands if it *is* the model's own choice.
#
# ### Exercise 1: the acceptance of two distributions
#
# Write `acceptance(p, q)`: the probability that a guess drawn from $q$ stands, for distributions (N, V).


# %% tags=["solution"]
def acceptance(p, q):
    """p and q (N, V) → (N,)."""
    return np.minimum(p, q).sum(axis=-1)


# %% tags=["check"]
check.ok(lesson.check_acceptance(acceptance))

# %% [markdown]
# ### Exercise 2: what comes out
#
# Write `spoken(p, q, accept)`: the distribution of the token that comes out if a guess $x$ is accepted with probability `accept[x]` and
# replaced from $r$ otherwise. (V,) each.


# %% tags=["solution"]
def spoken(p, q, accept):
    """Distribution of what is written, (V,)."""
    # Two ways to arrive: accepted, or replaced after any refusal.
    rest = np.maximum(p - q, 0)
    kept = q * accept
    return kept + (1 - kept.sum()) * rest / rest.sum()


# %% tags=["check"]
check.ok(lesson.check_spoken(spoken))

# %% [markdown]
# The ratio heuristic of [notebook 14](notebooks/14_museum_of_mistakes.ipynb), "accept if $p$ is at least half of $q$", is not lossless,
# and the check says so:


# %%
def heuristic(p, q, accept):
    """Accepts whenever p is at least half of q, whatever it was told."""
    return lesson.by_cases(p, q, (p >= 0.5 * q).astype(float))


notebook.caught(lesson.check_spoken(heuristic))

# %% [markdown]
# ## 2. The model that guesses
#
# The model that goes through these notebooks has learned with one MTP module, so it can guess. It begins with the sentence that goes
# through them too:

# %%
model = notebook.model()
ids = notebook.read(model).tokens[0]  # (T,)


def text_of(*tokens):
    """What token numbers stand for."""
    return model.tokenizer.decode(tokens)


print(len(ids), "tokens:", repr(text_of(*ids[1:])))

# %% [markdown]
# ## 3. Draft, verify, accept, go back: by hand
#
# One round, with plain forward passes and no cache, so that every step can be seen. The model has read $t_0 \dots t_{T-1}$ and chosen
# $t_T$; the module, shown $t_T$, guesses $t_{T+1}$. Then *one* pass over $t_0\dots t_T, \text{guess}$ gives two answers: what follows
# $t_T$ (is it the guess?) and what follows the guess.

# %%
known = ids.tolist()
written, rounds = [], []
token = int(model.logits(np.array([known]))[0, -1].argmax())  # t_T, from the pass over the prompt
while len(written) < 40:
    # Draft: the module at position T − 1 has been shown t_T.
    shown = np.array([[*known, token]])  # (1, T + 1)
    guess = int(model.mtp_logits(shown)[0][0, -1].argmax())
    # Verify: the one pass of the main model. Rows: after t_T, after the guess.
    logits = model.logits(np.array([[*known, token, guess]]))[0, -2:]  # (2, V)
    # Accept, or go back.
    right = int(logits[0].argmax())
    stood = guess == right
    rounds.append(draw.Round(text_of(token), text_of(guess), stood))
    new = [token, guess] if stood else [token]  # two tokens for one pass, or one
    known += new
    written += new
    token = int(logits[1].argmax()) if stood else right
alone = minids.generate(model, ids, len(written))  # one token a pass, no module
print(f"{sum(r.stood for r in rounds)} of {len(rounds)} guesses stood")
print(f"{len(written)} tokens in {len(rounds)} passes")
print("the same text as without guesses:", written == alone.tolist())
print(repr(text_of(*written)))

# %% tags=["picture"]
draw.passes(rounds)

# %% [markdown]
# **What to notice.** Between two grey lines lies one pass of the main model. Black is what it had chosen before; where the guess is green,
# the pass wrote two tokens; where it is struck out, the next pass begins with the token that the model preferred, and nothing is lost
# but the guess. Read black and green from left to right: that is the text.
#
# ### Exercise 3: judge greedily
#
# Write `stands(guesses, choices)`: `guesses` (n,) and the model's own choices at each place and after, (n + 1,) → how many guesses stand
# (from the front), and the token after them.


# %% tags=["solution"]
def stands(guesses, choices):
    """How many guesses stand, and the model's token after them: array of two numbers."""
    # A guess behind a refused one was made for another text: it falls with it.
    n = 0
    while n < len(guesses) and guesses[n] == choices[n]:
        n += 1
    return np.array([n, choices[n]])


# %% tags=["check"]
check.ok(lesson.check_stands(stands))

# %% [markdown]
# A tempting slip is to count *all* guesses that agree. A guess behind a refused one is void, even if it agrees by chance:

# %%
notebook.caught(lesson.check_stands(lesson.all_that_agree))

# %% [markdown]
# ## 4. With caches, and with chance
#
# The package does the same with latent caches, which after a refusal forget the entries of the guess (`cache.rewind`), with several
# guesses at a time, and with temperature:

# %%
counts = Counts()
fast = minids.generate(model, ids, 150, speculative=True, counts=counts)
slow = minids.generate(model, ids, 150)
print("greedy, 150 tokens, the same:", np.array_equal(fast, slow))
print(
    f"guesses that stood: {counts.acceptance[0]:.0%}; tokens per pass: {counts.tokens_per_pass:.2f}"
)

# %% [markdown]
# Is it lossless with sampling too? Two random texts cannot be compared letter by letter, only their *distributions* can. Draw two
# tokens 400 times each way, and count the second, the one that may have been guessed. Two finite samples always differ a little, even
# of the same distribution; so the question is whether they differ more than that. **Write your guess; then run:** how far apart are two
# samples of 400 from one and the same distribution?

# %%
prompt, found = ids[:12], {}
for speculative in (False, True):
    settings = {"temperature": 0.8, "speculative": speculative}
    found[speculative] = [
        minids.generate(model, prompt, 2, seed=seed, **settings)[1] for seed in range(400)
    ]
print(f"distance of the two ways: {lesson.apart(found[False], found[True]):.3f}")
# Forgotten which 400 of the 800 were written in which way:
low, high = lesson.apart_by_chance(found[False], found[True])
print(f"after shuffling, in nine of ten cases: {low:.3f} to {high:.3f}")

# %% [markdown]
# No further apart than chance explains: with 400 texts each way one cannot tell them apart. (The tests of this repository do it with more.)
#
# One might expect that random text is harder to guess. But temperature flattens *both* distributions, and what counts is only their
# overlap, $\sum\min(p,q)$. **Write your guess; then run:** of the guesses at temperature 1.5, how many stand?

# %%
for temperature in (0.0, 0.5, 1.0, 1.5):
    counts = Counts()
    for seed in range(6 if temperature else 1):
        settings = {"temperature": temperature, "seed": seed}
        minids.generate(model, ids, 60, speculative=True, counts=counts, **settings)
    share, speed = counts.acceptance[0], counts.tokens_per_pass
    print(f"temperature {temperature}: {share:.0%} stood, {speed:.2f} tokens a pass")

# %% [markdown]
# **What to notice.** The share goes up and down, and follows no trend. (The first line has 34 guesses, the others some 200: a
# difference of a few per cent is chance.)
#
# ## 5. What is it worth?
#
# Tokens per pass are not yet speed. Let a guess stand with probability $\alpha$, let a guess cost a share $c$ of a plain pass, and let
# checking $n$ guesses make the pass $v_n$ times as expensive. With guesses that each stand like the first,
#
# $$ \text{tokens per pass} = 1 + \alpha + \dots + \alpha^n = \frac{1-\alpha^{n+1}}{1-\alpha}, \qquad
# \text{speed-up} = \frac{1 + \alpha + \dots + \alpha^n}{v_n + n\,c} $$
#
# V3 has $n = 1$ and reports $\alpha$ of 0.85 to 0.90, hence 1.85 to 1.90 tokens a pass, and 1.8 times the speed. So $v + c$ can be
# no more than $1.85/1.8 = 1.03$ to $1.90/1.8 = 1.06$: three to six per cent for guessing *and* checking. Is that possible?
# **What a pass costs depends on what the machine waits for.**
#
# - A machine that waits for its *arithmetic* does twice the work for two tokens: $v = 2$, and speculation can only lose.
# - A machine that waits for *memory* reads each weight once, for however many tokens. Then $v$ is the growth of what has to be read.
#   Attention, shared experts and head are the same for both tokens; but the second token chooses *experts of its own*, and they have to
#   be read too, unless some other user's token wanted them anyway.
#
# So count the weights that are read. A pass over $n$ tokens of a mixture of experts touches $256\,(1-(1-\tfrac{8}{256})^n)$ experts a
# layer on average, if tokens choose evenly. **Write your guess; then run:** with how many users does V3 reach its 1.8?

# %%
v3 = ModelConfig.preset("deepseek-v3")
print("users      v      c   speed-up at 0.875")
speed_up = {}
for users in (1, 4, 16, 64, 128, 256):
    main = weights_read(v3, users)
    v, c = weights_read(v3, 2 * users) / main, weights_read(v3, users, mtp=True) / main
    speed_up[users] = 1.875 / (v + c)
    print(f"{users:>5}  {v:.3f}  {c:.3f}   {speed_up[users]:.2f}")

# %% [markdown]
# **The claim, checked.** A single user would gain 18 %: the second token's experts cost half a pass. Four users gain even less, for each brings a
# second token with experts of its own. With a hundred users or more nearly
# all experts are read in any case, the second token comes almost for free, and arithmetic arrives at **1.81**: the 1.8 that V3 reports,
# of a system that serves crowds. (Caches, which are left out here, are read once for both tokens and would help a little.)
#
# The bound on the other side is arithmetic. Give the machine a *balance*, the FLOPs it can do while it reads one byte (an H800 about 295
# in BF16, a laptop's processor about 10), and let a pass take the longer of the two:

# %%
draw.worth()
notebook.explore(draw.worth, acceptance=(0.3, 0.925, 0.025), balance=[20, 50, 100, 295, 590])

# %% [markdown]
# (With a running kernel the sliders change the acceptance and the machine.)
#
# **What to notice.** Right: speculation lives in a window. With few users the second token pays for its own experts; with too many,
# arithmetic is the limit and every token that is checked costs full price. On a machine with 10 FLOPs a byte (dashed) the window closes
# at some 75 users, before they have filled up the experts, and nobody gains more than 45 %. Left: a second and third guess would add
# something if they stood as often as the first, and less and less; a module that is fed its own guesses, however, stands less often
# each time.
#
# **And on your laptop?** There one user waits, as in the first row of the table, and the module is one block beside six, not beside 61.
# Count what a model of 12.7 million parameters reads; the acceptances were measured with one that was trained, on held-out prose, code and
# arithmetic ([docs/decoding.md](docs/decoding.md)):

# %%
sizes = dict(vocab_size=2048, hidden_size=256, num_attention_heads=8)
sizes |= dict(intermediate_size=704, moe_intermediate_size=128, q_lora_rank=128, kv_lora_rank=64)
mine = ModelConfig.preset("small").replace(**sizes)
plain, checking = (weights_read(mine, tokens) for tokens in (1, 2))
after_one, after_two = (weights_read(mine, tokens, mtp=True) for tokens in (1, 2))  # a guess
for text, alpha in (("prose", 0.69), ("code", 0.78), ("arithmetic", 0.90), ("all stand", 1.00)):
    guessing = alpha * after_two + (1 - alpha) * after_one  # two new tokens where a guess stood
    limit = (1 + alpha) * plain / (checking + guessing)
    print(f"{text:<11} acceptance {alpha:.2f}: at most {limit:.2f} times as fast")

# %% [markdown]
# **What to notice.** A guess costs a third of a token here, and the second token a third more in experts: even a guesser that never errs
# would gain only a fifth. A small model has to guess well to lose nothing. `minids bench speculation --checkpoint runs/NAME` measures it
# on your machine.
#
# ## Where to go from here
#
# - [`inference/speculative.py`](minids/inference/speculative.py): drafts of several modules, their caches, and how they forget.
# - V3 report, section 5.4.3 (acceptance and speed) and 3.4 (how it is served). Leviathan et al. 2023 prove the rule in Appendix A.1; their
#   Theorem 3.5 is "one minus the distance" of section 1. Chen et al. 2023, Theorem 1, is the same proof.
# - `minids generate --checkpoint runs/NAME --speculative` uses it; [notebook 8](notebooks/08_multi_token_prediction.ipynb) builds the module,
#   [notebook 14](notebooks/14_museum_of_mistakes.ipynb) shows what goes wrong with a heuristic.

# %% tags=["picture"]
notebook.card(
    """
    - Accept a guess with min(1, p/q), else draw from what the guesser left out: the text has the model's own distribution.
    - A guess stands as often as p and q overlap: 1 minus their distance.
    - It pays where many users share the reading of experts, until arithmetic is the limit.
    """,
    number="1.8×",
    meaning="the tokens per second V3 reports, with 85 to 90 % of guesses accepted. Counting weights, by users:",
    bars={f"{users} users": speed_up[users] for users in (4, 16, 64, 128)},
)
