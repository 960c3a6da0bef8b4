# %% [markdown]
# # 9. Speculative decoding: two tokens at a time, nothing lost
#
# Writing is slow because every token needs a pass through the whole model, and the next pass cannot begin before it is known. But the MTP module of notebook 8 already guesses the token after next. **Can guesses be used without changing a single word of what the model
# would have said?**

# %% [markdown]
# Yes, exactly: greedily the text is the same letter by letter, and with random sampling it has the *same distribution*. DeepSeek-V3 reports 85 to 90 % of guesses accepted and 1.8 times the tokens per second ([report](https://arxiv.org/abs/2412.19437), section 5.4.3). The rule is older than V3: Leviathan et al. 2023, Chen et al. 2023.
#
# Code used here: [`inference/speculative.py`](minids/inference/speculative.py), [`inference/generate.py`](minids/inference/generate.py), [`inference/sampling.py`](minids/inference/sampling.py), [`layers/mtp.py`](minids/layers/mtp.py), [`model.py`](minids/model.py).

# %%
import numpy as np

import minids
from minids import ModelConfig, check, notebook
from minids.inference.speculative import Counts, Draft, judge

notebook.set_up()
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK = notebook.COLOURS

# %% [markdown]
# ## 1. The rule
#
# A draft $x$ was drawn from the guesser's distribution $q$; the model, which reads it in its next pass, has $p$ at that place. Accept with probability
#
# $$ \min\!\big(1,\; p(x)/q(x)\big), \qquad\text{else draw from}\quad r(x) = \frac{\max(p(x)-q(x),\,0)}{\sum_{x'} \max(p(x')-q(x'),\,0)} $$
#
# Why is what comes out distributed as $p$? A token $x$ can arrive in two ways, as an accepted guess or as a replacement:
#
# $$ \underbrace{q(x)\min\!\big(1,\tfrac{p(x)}{q(x)}\big)}_{\min(p(x),\,q(x))} \;+\; \underbrace{\Big(1-\sum_{x'}\min(p,q)\Big)}_{\text{refused}} r(x) \;=\; \min(p,q) + \max(p-q,0) \;=\; p(x)$$
#
# because $\sum\max(p-q,0) = 1-\sum\min(p,q)$. The proof is one line; here it is in numbers:

# %%
p = np.array([0.30, 0.25, 0.20, 0.15, 0.10])  # the model
q = np.array([0.15, 0.45, 0.10, 0.10, 0.20])  # the guesser
accepted = q * np.minimum(1, p / q)  # = min(p, q), (V,)
rest = np.maximum(p - q, 0)
replaced = (1 - accepted.sum()) * rest / rest.sum()
print("accepted + replaced =", accepted + replaced, "= p:", np.allclose(accepted + replaced, p))
print(
    f"share of guesses that stand: {accepted.sum():.2f} = 1 − half the distance of p and q = {1 - np.abs(p - q).sum() / 2:.2f}"
)

rng = np.random.default_rng(0)
drawn = []
for _ in range(20_000):  # the package's judge, asked again and again
    guess = int(rng.choice(5, p=q))
    stood, after = judge(Draft([guess], [q]), np.stack([p, p]), rng)
    drawn.append(guess if stood else after)
frequency = np.bincount(drawn, minlength=5) / len(drawn)

# %% tags=["picture"]
figure, (left, right) = notebook.picture(1, 2, width=9, height=2.7)
place = np.arange(5)
left.bar(place, accepted, color=BLUE, label="accepted: min(p, q)")
left.bar(place, replaced, bottom=accepted, color=ORANGE, label="replaced")
left.plot(place, p, "_", color=BLACK, ms=30, mew=2, label="p")
left.plot(place, q, ".", color="0.5", ms=9, label="q")
left.set(xlabel="token", ylabel="probability", ylim=(0, 0.5))
left.legend(ncols=2)
right.bar(place - 0.2, p, 0.4, color="0.7", label="the model's p")
right.bar(place + 0.2, frequency, 0.4, color=BLUE, label="20,000 tokens by the rule")
right.set(xlabel="token")
right.legend()
notebook.show(
    figure,
    "Left: accepted and replaced parts stack up exactly to p. Right: frequencies of twenty thousand drawn tokens match p",
)

# %%
print(
    f"largest difference between frequency and p: {np.abs(frequency - p).max():.3f}; chance alone explains about {2 * np.sqrt(0.25 / 20000):.3f}"
)

# %% [markdown]
# Greedily, $p$ and $q$ are certainties, and the rule becomes: a guess stands if it *is* the model's own choice.
#
# ## 2. A model that guesses
#
# A guesser that has learned nothing guesses nothing. Train a toy with one MTP module for some seconds on a small text (notebook 8's, a little longer):

# %%
letters = "abcdefghijklmnopqrstuvwxyz .,\n"
story = (
    "the cat sat on the mat, and the dog sat on the cat. then the rat ate the hat, and the cat ate the rat.\n"
    "a man and a dog ran to the sea, and the dog sat in the sun. then the man ate a fig, and the dog ate the bun.\n"
)
ids = np.array([letters.index(c) for c in story * 6])
config = ModelConfig.preset("tiny").replace(
    vocab_size=len(letters), hidden_size=48, num_hidden_layers=2, intermediate_size=96, moe_intermediate_size=24, q_lora_rank=24,
    kv_lora_rank=16, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=12, n_routed_experts=8, num_experts_per_tok=2,
    bos_token_id=None, eos_token_id=None, max_position_embeddings=256,
)  # fmt: skip
model = minids.DeepSeekV3(config, seed=0)


def train(steps, rate=6e-3):
    """Adam on windows of the story."""
    draw, m, v = np.random.default_rng(1), 0.0, 0.0
    for step in range(1, steps + 1):
        windows = ids[draw.integers(0, len(ids) - 49, 6)[:, None] + np.arange(49)]
        model.parameters.zero_grads()
        losses = model.forward_backward(windows[:, :-1], windows[:, 1:])
        g = model.parameters.grads
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        model.parameters.values -= (
            rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.95**step)) + 1e-8)
        )
        model.update_biases(losses.counts, 0.002)
    return losses


losses = train(150)
print(f"after 150 steps: next token {losses.main:.2f}, token after next {losses.mtp[0]:.2f} nats")

# %% [markdown]
# ## 3. Draft, verify, accept, go back: by hand
#
# One round, with plain forward passes and no cache, so that every step can be seen. The model has read $t_0 \dots t_{T-1}$ and chosen $t_T$; the module, shown $t_T$, guesses $t_{T+1}$. Then *one* pass over $t_0\dots t_T, \text{guess}$ gives two answers: what follows $t_T$ (is it the guess?) and what follows the guess.


# %%
def text_of(tokens):
    return "".join(letters[t] for t in tokens)


known = ids[:24].tolist()
written, passes, rounds = [], 0, []
token = int(model.logits(np.array([known]))[0, -1].argmax())  # t_T, from the pass over the prompt
while len(written) < 40:
    shown = np.array([[*known, token]])  # (1, T + 1)
    guess = int(
        model.mtp_logits(shown)[0][0, -1].argmax()
    )  # the module at position T − 1 has been shown t_T
    logits = model.logits(np.array([[*known, token, guess]]))[
        0, -2:
    ]  # the one pass of the main model: after t_T, after the guess
    passes += 1
    right = int(logits[0].argmax())
    stood = guess == right
    rounds.append((token, guess, stood))
    known.append(token)
    written.append(token)
    if stood:  # two tokens for one pass
        known.append(guess)
        written.append(guess)
        token = int(logits[1].argmax())
    else:  # the guess is forgotten; the model's own choice takes its place
        token = right
alone = minids.generate(model, ids[:24], len(written))
print(f"{len(written)} tokens in {passes} passes")
print("the same text as without guesses:", written == alone.tolist())
print(repr(text_of(written)))

# %% tags=["picture"]
figure, axis = notebook.picture(width=9, height=1.6)
for column, (token, guess, stood) in enumerate(rounds):
    for height, (letter, colour) in enumerate(
        ((token, BLACK), (guess, GREEN if stood else ORANGE))
    ):
        mark = {" ": "␣", "\n": "⏎"}.get(letters[letter], letters[letter])
        axis.text(column, -height, mark, ha="center", va="center", color=colour, fontsize=12)
    if not stood:
        axis.text(column, -1, "╱", ha="center", va="center", color=ORANGE, fontsize=14)
axis.set(xlim=(-2.8, len(rounds)), ylim=(-1.6, 0.6))
axis.text(-2.7, 0, "chosen", fontsize=9, va="center")
axis.text(-2.7, -1, "guessed", fontsize=9, va="center")
axis.axis("off")
notebook.show(
    figure,
    "Two rows of letters, one column per pass: chosen tokens, and below them the guesses, green where they stood and struck out where not",
)

# %% [markdown]
# **What to notice.** Each column is one pass of the main model. Where the guess (lower row) is green, the pass wrote two tokens.
#
# ## 4. With caches, and with chance
#
# The package does the same with latent caches that forget refused guesses (`cache.rewind`), several guesses, and temperature. Is it lossless with sampling too? Draw the first tokens of many texts both ways, and compare distributions:

# %%
counts = Counts()
fast = minids.generate(model, ids[:24], 200, speculative=True, counts=counts)
print("greedy, 200 tokens, the same:", np.array_equal(fast, minids.generate(model, ids[:24], 200)))
print(
    f"guesses that stood: {counts.acceptance[0]:.0%}; tokens per pass: {counts.tokens_per_pass:.2f}"
)

# %%
prompt, pairs = ids[:9], {}
for speculative in (False, True):
    table = np.zeros((len(letters), len(letters)))
    for seed in range(400):
        _, second, third = minids.generate(
            model, prompt, 3, temperature=1.5, seed=seed, speculative=speculative
        )
        table[second, third] += 1
    pairs[speculative] = table / table.sum()
difference = np.abs(pairs[True] - pairs[False]).sum() / 2
shuffled = np.random.default_rng(2)
mean = (pairs[True] + pairs[False]) / 2
by_chance = [
    np.abs(np.subtract(*(shuffled.multinomial(400, mean.ravel()) / 400 for _ in range(2)))).sum()
    / 2
    for _ in range(200)
]
print(f"distance of the two distributions of a pair of tokens: {difference:.3f}")
print(
    f"two samples of one distribution are as far apart as {np.quantile(by_chance, 0.05):.3f} to {np.quantile(by_chance, 0.95):.3f}"
)

# %% [markdown]
# Within what chance does: with 400 texts each way one cannot tell them apart. (The tests of this repository do it with more.)
#
# ## 5. What is it worth?
#
# With one guess a pass, accepted with probability $\alpha$, a pass gives $1 + \alpha$ tokens: V3's 0.85 to 0.90 make 1.85 to 1.90. It reports 1.8 times the speed: the module and the second token to verify cost the difference, 3 to 6 %.
#
# With $n$ guesses each accepted like the first, $1 + \alpha + \dots + \alpha^n = (1-\alpha^{n+1})/(1-\alpha)$ tokens; if a guess costs a share $c$ of a pass, the speed-up is that over $1 + nc$.


# %%
def tokens_per_pass(alpha, n):
    """Expected tokens of one pass that checks n guesses."""
    return (1 - alpha ** (n + 1)) / (1 - alpha)


def draw_speed(cost=0.03):
    """Speed-up against the number of guesses, for several acceptance rates."""
    figure, axis = notebook.picture(width=7.5, height=2.9)
    guesses = np.arange(0, 9)
    for alpha, colour in ((0.95, BLACK), (0.875, BLUE), (0.7, GREEN), (0.5, ORANGE)):
        axis.plot(
            guesses,
            tokens_per_pass(alpha, guesses) / (1 + guesses * cost),
            "o-",
            color=colour,
            label=f"acceptance {alpha}",
        )
    axis.axhline(1, color="0.5", lw=1)
    axis.set(
        xlabel="guesses a pass", ylabel="speed-up", title=f"if a guess costs {cost:.0%} of a pass"
    )
    axis.legend()
    notebook.show(
        figure,
        "Speed-up against guesses per pass: it rises and flattens, later for higher acceptance",
    )


draw_speed()
for alpha in (0.85, 0.90):
    print(
        f"acceptance {alpha:.2f}: {tokens_per_pass(alpha, 1):.2f} tokens a pass; 1.8 times the speed leaves {tokens_per_pass(alpha, 1) / 1.8 - 1:.1%} for overhead"
    )

# %%
notebook.explore(draw_speed, cost=(0.0, 0.5, 0.01))

# %% [markdown]
# **The claim, checked.** Why is verifying two tokens nearly free? A decoding pass is limited by *reading weights* (notebook 13), and they are read once for both. On a laptop, which computes more slowly than it reads, it is not as free.
#
# ### Does randomness cost acceptance?
#
# One might expect that random text is harder to guess. But temperature flattens *both* distributions, and what counts is only their overlap, $\sum\min(p,q)$. The toy at several temperatures (240 tokens each, so a few percent either way are chance):

# %%
temperatures, stood = (0.0, 0.5, 1.0, 1.5, 2.0), []
for temperature in temperatures:
    counts = Counts()
    for seed in range(3):
        one = Counts()
        minids.generate(
            model, ids[:24], 80, temperature=temperature, seed=seed, speculative=True, counts=one
        )
        counts.merge(one)
    stood.append(counts.acceptance[0])
    print(
        f"temperature {temperature}: {counts.acceptance[0]:.0%} stood, {counts.tokens_per_pass:.2f} tokens a pass"
    )

# %% [markdown]
# ## Exercises
#
# ### 1. The acceptance of two distributions
#
# Write `acceptance(p, q)`: the probability that a guess drawn from $q$ stands, for distributions (N, V).


# %% tags=["solution"]
def acceptance(p, q):
    """p and q (N, V) → (N,)."""
    return np.minimum(p, q).sum(axis=-1)


# %% tags=["check"]
def by_the_distance(p, q):
    """One minus the total variation distance."""
    return 1 - np.abs(p - q).sum(axis=-1) / 2


many_p, many_q = rng.dirichlet(np.ones(7), (2, 5))
check.ok(check.against(by_the_distance, acceptance, many_p, many_q))

# %% [markdown]
# ### 2. What comes out
#
# Write `spoken(p, q, accept)`: the distribution of the token that comes out if a guess $x$ is accepted with probability `accept[x]` and replaced from $r$ otherwise. (V,) each.


# %% tags=["solution"]
def spoken(p, q, accept):
    """Distribution of what is written, (V,)."""
    # Two ways to arrive: accepted, or replaced after any refusal.
    rest = np.maximum(p - q, 0)
    kept = q * accept
    return kept + (1 - kept.sum()) * rest / rest.sum()


# %% tags=["check"]
def lossless(p, q, accept):
    """With the right rule it is p, whatever q is; otherwise by adding up all cases."""
    out = np.zeros(len(p))
    rest = np.maximum(p - q, 0) / np.maximum(p - q, 0).sum()
    for x in range(len(p)):
        out[x] += q[x] * accept[x]
        out += q[x] * (1 - accept[x]) * rest
    return out


rules = [(a, b, np.minimum(1, a / b)) for a, b in zip(many_p, many_q, strict=True)] + [
    (p, q, np.full(5, 0.5))
]
check.ok(check.against(lossless, spoken, rules))

# %% [markdown]
# ### 3. Judge greedily
#
# Write `stands(guesses, choices)`: `guesses` (n,) and the model's own choices at each place and after, (n + 1,) → how many guesses stand (from the front), and the token after them.


# %% tags=["solution"]
def stands(guesses, choices):
    """How many guesses stand, and the model's token after them: array of two numbers."""
    # A guess behind a refused one was made for another text: it falls with it.
    n = 0
    while n < len(guesses) and guesses[n] == choices[n]:
        n += 1
    return np.array([n, choices[n]])


# %% tags=["check"]
def by_the_package(guesses, choices):
    """The package's judge, from logits that make these choices certain."""
    certain = np.eye(10)[choices]
    stood, after = judge(
        Draft(list(guesses), [np.eye(10)[g] for g in guesses]), certain, np.random.default_rng(0)
    )
    return np.array([stood, after])


cases = [([1, 2, 3], [1, 2, 3, 4]), ([1, 9, 3], [1, 2, 3, 4]), ([9, 2, 3], [1, 2, 3, 4]), ([], [7])]
check.ok(check.against(by_the_package, stands, [(np.array(g, int), np.array(c)) for g, c in cases]))

# %% [markdown]
# ### A wrong answer is noticed
#
# Counting *all* guesses that agree, and the ratio heuristic of notebook 14, which is not lossless:


# %%
def counts_all(guesses, choices):
    """Forgets that a guess behind a refused one is void."""
    return np.array([int(np.sum(guesses == choices[:-1])), choices[-1]])


def heuristic(p, q, accept):
    """Accepts whenever p is at least half of q, whatever it was told."""
    return spoken(p, q, (p >= 0.5 * q).astype(float))


notebook.caught(
    check.against(by_the_package, counts_all, np.array([1, 9, 3]), np.array([1, 2, 3, 4]))
)
notebook.caught(check.against(lossless, heuristic, p, q, np.minimum(1, p / q)))

# %% [markdown]
# ## Where to read on
#
# - [`inference/speculative.py`](minids/inference/speculative.py): drafts of several modules, their caches, and how they forget.
# - `minids generate --checkpoint runs/NAME --speculative` uses it; notebook 8 builds the module, notebook 14 shows what goes wrong with a heuristic.
