# %% [markdown]
# # 9. Speculative decoding: two tokens at a time, nothing lost
#
# Writing is slow because every token needs a pass through the whole model, and the next pass cannot begin before it is known. But the MTP module of notebook 8 already guesses the token after next. **Can guesses be used without changing a single word of what the model
# would have said?**

# %% [markdown]
# Yes, exactly: greedily the text is the same letter by letter, and with random sampling it has the *same distribution*. DeepSeek-V3 reports 85 to 90 % of guesses accepted and 1.8 times the tokens per second ([report](https://arxiv.org/abs/2412.19437), section 5.4.3). The rule is older than V3: Leviathan et al. 2023, Chen et al. 2023.
#
# Code used here: [`inference/speculative.py`](minids/inference/speculative.py), [`inference/generate.py`](minids/inference/generate.py), [`inference/sampling.py`](minids/inference/sampling.py), [`layers/mtp.py`](minids/layers/mtp.py), [`model.py`](minids/model.py),
# [`analysis/flops.py`](minids/lab/analysis/flops.py), [`analysis/parameters.py`](minids/lab/analysis/parameters.py).

# %%
import numpy as np

import minids
from minids import ModelConfig, check
from minids.inference.speculative import Counts, Draft, judge
from minids.lab import notebook
from minids.lab.analysis import flops, parameters

notebook.set_up()
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK = notebook.COLOURS

# %% [markdown]
# ## 1. The rule
#
# Somebody quick but unreliable, the *guesser*, proposes the next token; somebody slow but authoritative, the *model*, then says how probable it finds the proposal. When the guesser was more eager than the model, its proposal is
# sometimes refused, just often enough to make up for the eagerness; and what is then said instead comes from the tokens it had neglected.
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
distance = np.abs(p - q).sum() / 2  # the total variation distance of the two
print(
    f"guesses that stand: {accepted.sum():.2f} = 1 − the distance of p and q = {1 - distance:.2f}"
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
left.set(xlabel="token", ylabel="probability", ylim=(0, 0.65))
left.legend(ncols=2)
right.bar(place - 0.2, p, 0.4, color="0.7", label="the model's p")
right.bar(place + 0.2, frequency, 0.4, color=BLUE, label="20,000 tokens by the rule")
right.set(xlabel="token")
right.legend()
notebook.show(
    figure,
    "Left: accepted and replaced parts stack up exactly to p. Right: frequencies of twenty "
    "thousand drawn tokens match p",
)

# %%
off, chance = np.abs(frequency - p).max(), 2 * np.sqrt(0.25 / 20_000)
print(f"largest difference between frequency and p: {off:.3f}; chance alone explains {chance:.3f}")

# %% [markdown]
# **What to notice.** Token 1 is the guesser's favourite: its grey dot stands far above the model's mark, so nearly half of the proposals are refused, and none is ever a replacement. Tokens 0, 2 and 3 were proposed too
# rarely; orange fills them up, to the mark exactly.
#
# Greedily, $p$ and $q$ are certainties, and the rule becomes: a guess stands if it *is* the model's own choice.
#
# ## 2. A model that guesses
#
# A guesser that has learned nothing guesses nothing. Train a toy with one MTP module for some seconds on a small text (notebook 8's, a little longer):

# %%
letters = "abcdefghijklmnopqrstuvwxyz .,\n"
story = (
    "the cat sat on the mat, and the dog sat on the cat. then the rat ate the hat, and the cat "
    "ate the rat.\n"
    "a man and a dog ran to the sea, and the dog sat in the sun. then the man ate a fig, and the "
    "dog ate the bun.\n"
)
ids = np.array([letters.index(c) for c in story * 6])
config = ModelConfig.preset("tiny").replace(
    vocab_size=len(letters), hidden_size=48, num_hidden_layers=2, intermediate_size=96,
    q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=12,
    n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=24,
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
        m_hat, v_hat = m / (1 - 0.9**step), v / (1 - 0.95**step)
        model.parameters.values -= rate * m_hat / (np.sqrt(v_hat) + 1e-8)
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
    """Letters for numbers."""
    return "".join(letters[t] for t in tokens)


known = ids[:24].tolist()
written, passes, rounds = [], 0, []
token = int(model.logits(np.array([known]))[0, -1].argmax())  # t_T, from the pass over the prompt
while len(written) < 40:
    # Draft: the module at position T − 1 has been shown t_T.
    shown = np.array([[*known, token]])  # (1, T + 1)
    guess = int(model.mtp_logits(shown)[0][0, -1].argmax())
    # Verify: the one pass of the main model. Rows: after t_T, after the guess.
    logits = model.logits(np.array([[*known, token, guess]]))[0, -2:]  # (2, V)
    passes += 1
    # Accept, or go back.
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
alone = minids.generate(model, ids[:24], len(written))  # one token a pass, no module
stood = sum(stood for _, _, stood in rounds)
print(f"{stood} of {passes} guesses stood")
print(f"{len(written)} tokens in {passes} passes")
print("the same text as without guesses:", written == alone.tolist())
print(repr(text_of(written)))

# %% tags=["picture"]
marks = {" ": "␣", "\n": "⏎"}
figure, axis = notebook.picture(width=9, height=1.9)
for column, (token, guess, stood) in enumerate(rounds):
    chosen, guessed = (marks.get(letters[i], letters[i]) for i in (token, guess))
    colour = GREEN if stood else ORANGE
    style = {"ha": "center", "va": "center", "fontsize": 12}
    axis.text(column, 0, chosen, color=BLACK, **style)
    axis.text(column, -1, guessed, color=colour, **style)
    if not stood:
        axis.plot([column - 0.3, column + 0.3], [-1, -1], color=ORANGE, lw=1.5)
    axis.text(column, -2.1, chosen + guessed if stood else chosen, color=BLUE, **style)
axis.set(xlim=(-2.8, len(rounds)), ylim=(-2.7, 0.6))
for height, name in ((0, "chosen"), (-1, "guessed"), (-2.1, "written")):
    axis.text(-2.7, height, name, fontsize=9, va="center")
axis.axhline(-1.55, color="0.8", lw=0.8)
axis.axis("off")
notebook.show(
    figure,
    "Three rows of letters, one column per pass: chosen tokens; the guesses, green where they stood "
    "and struck through in orange where not; and the one or two letters that the pass wrote",
)

# %% [markdown]
# **What to notice.** Each column is one pass of the main model. Where the guess is green, the pass wrote two tokens; where it is struck through, the next column begins with the token that the model preferred, and nothing is lost but the
# guess. The last row, read from left to right, is the text.
#
# ## 4. With caches, and with chance
#
# The package does the same with latent caches, which after a refusal forget the entries of the guess (`cache.rewind`), with several guesses at a time, and with temperature:

# %%
counts = Counts()
fast = minids.generate(model, ids[:24], 200, speculative=True, counts=counts)
slow = minids.generate(model, ids[:24], 200)
print("greedy, 200 tokens, the same:", np.array_equal(fast, slow))
print(
    f"guesses that stood: {counts.acceptance[0]:.0%}; tokens per pass: {counts.tokens_per_pass:.2f}"
)

# %% [markdown]
# (Fewer stood than among the 40 tokens by hand: the toy has only seen windows of 48 tokens, and beyond them neither the model nor its guesser knows the text.)
#
# Is it lossless with sampling too? Two random texts cannot be compared letter by letter, only their *distributions* can. Draw three tokens 400 times each way, and count pairs. Two finite samples always differ a little, even of the same
# distribution; so the question is whether they differ more than that:

# %%
prompt, pairs = ids[:9], {}
for speculative in (False, True):
    table = np.zeros((len(letters), len(letters)))
    for seed in range(400):
        settings = {"temperature": 1.5, "seed": seed, "speculative": speculative}
        _, second, third = minids.generate(model, prompt, 3, **settings)
        table[second, third] += 1
    pairs[speculative] = table / table.sum()  # (V, V)
difference = np.abs(pairs[True] - pairs[False]).sum() / 2

shuffled, mean = np.random.default_rng(2), (pairs[True] + pairs[False]).ravel() / 2
by_chance = []
for _ in range(200):  # two samples of 400 from one and the same distribution
    one, other = (shuffled.multinomial(400, mean) / 400 for _ in range(2))
    by_chance.append(np.abs(one - other).sum() / 2)
low, high = np.quantile(by_chance, (0.05, 0.95))
print(f"distance of the two distributions of a pair of tokens: {difference:.3f}")
print(f"nine of ten pairs of samples of one distribution are {low:.3f} to {high:.3f} apart")

# %% [markdown]
# Within what chance does: with 400 texts each way one cannot tell them apart. (The tests of this repository do it with more.)
#
# ## 5. What is it worth?
#
# Tokens per pass are not yet speed. Let a guess stand with probability $\alpha$, let a guess cost a share $c$ of a plain pass, and let checking $n$ guesses make the pass $v_n$ times as expensive. With guesses that each stand like the first,
#
# $$ \text{tokens per pass} = 1 + \alpha + \dots + \alpha^n = \frac{1-\alpha^{n+1}}{1-\alpha}, \qquad
# \text{speed-up} = \frac{1 + \alpha + \dots + \alpha^n}{v_n + n\,c} $$
#
# V3 has $n = 1$ and reports $\alpha$ of 0.85 to 0.90, hence 1.85 to 1.90 tokens a pass, and 1.8 times the speed. So what do $v$ and $c$ have to be?


# %%
def tokens_per_pass(alpha, n):
    """Expected tokens of one pass that checks n guesses."""
    return (1 - alpha ** (n + 1)) / (1 - alpha)


for alpha in (0.85, 0.90):
    tokens = tokens_per_pass(alpha, 1)
    print(
        f"acceptance {alpha:.2f}: {tokens:.2f} tokens a pass; 1.8 times leaves v + c = {tokens / 1.8:.3f}"
    )

# %% [markdown]
# Three to six percent for guessing *and* checking. Is that possible? **What a pass costs depends on what the machine waits for.**
#
# - A machine that waits for its *arithmetic* does twice the work for two tokens: $v = 2$, and speculation can only lose.
# - A machine that waits for *memory* reads each weight once, for however many tokens. Then $v$ is the growth of what has to be read. Attention, shared experts and head are the same for both tokens; but the second token chooses
#   *experts of its own*, and they have to be read too, unless some other user's token wanted them anyway.
#
# So count the weights that are read. A pass over $n$ tokens of a mixture of experts touches $256\,(1-(1-\tfrac{8}{256})^n)$ experts a layer on average, if tokens choose evenly:

# %%
v3 = ModelConfig.preset("deepseek-v3")


def weights_read(config, tokens):
    """Weights that a pass of the main model over so many tokens reads, and one that guesses for as many."""
    expert = 3 * config.hidden_size * config.moe_intermediate_size
    chosen = config.num_experts_per_tok * expert  # of one layer, by one token
    touched = flops.distinct_experts(config, tokens) * expert  # of one layer, by all of them
    layers = sum(config.is_moe(layer) for layer in range(config.num_hidden_layers))
    head = config.vocab_size * config.hidden_size
    main = parameters.activated(config) + layers * (touched - chosen)
    # The module has one layer of experts of its own, and uses the model's head.
    guess = parameters.mtp_activated(config) + head + touched - chosen
    return main, guess


def factors(users, config=v3):
    """v and c of a machine that waits for memory, one guess each for so many users."""
    main, guess = weights_read(config, users)
    return weights_read(config, 2 * users)[0] / main, guess / main


print("users      v      c   speed-up at 0.875")
for users in (1, 4, 16, 64, 128, 256):
    v, c = factors(users)
    print(f"{users:>5}  {v:.3f}  {c:.3f}   {1.875 / (v + c):.2f}")

# %% [markdown]
# **The claim, checked.** A single user would gain 18 %: the second token's experts cost half a pass. With a hundred users or more nearly all experts are read in any case, the second token comes almost for free, and arithmetic
# arrives at **1.81**: the 1.8 that V3 reports, of a system that serves crowds. (Caches, which are left out here, are read once for both tokens and would help a little.)
#
# The bound on the other side is arithmetic. Give the machine a *balance*, the FLOPs it can do while it reads one byte (an H800 about 295 in BF16, a laptop's processor about 10), and let a pass take the longer of the two:


# %% tags=["picture"]
def seconds(users, balance, tokens, config=v3):
    """Time of a pass of ``tokens`` tokens per user, and of a guess, in bytes read (a weight: one byte)."""
    read, read_by_guess = weights_read(config, users * tokens)[0], weights_read(config, users)[1]
    per_token = 2 * parameters.activated(config)  # FLOPs
    head = config.vocab_size * config.hidden_size
    per_guess = 2 * (parameters.mtp_activated(config) + head)
    main = max(read, users * tokens * per_token / balance)
    return main, max(read_by_guess, users * per_guess / balance)


def draw_speed(acceptance=0.875, balance=295):
    """Left: guesses a pass at the cost of V3 with 128 users. Right: one guess, against the number of users."""
    figure, (left, right) = notebook.picture(1, 2, width=9.5, height=3.1)
    guesses, c = np.arange(0, 9), factors(128)[1]
    colours = {acceptance: BLUE, 0.95: BLACK, 0.7: GREEN, 0.5: ORANGE}
    for alpha, colour in colours.items():
        checked = [weights_read(v3, 128 * (n + 1))[0] / weights_read(v3, 128)[0] for n in guesses]
        speed = tokens_per_pass(alpha, guesses) / (np.array(checked) + guesses * c)
        left.plot(guesses, speed, "o-", color=colour, label=f"acceptance {alpha:g}")
    left.set(xlabel="guesses a pass", ylabel="speed-up", title="Memory-bound, 128 users")
    left.legend()
    users = np.unique(np.geomspace(1, 8192, 60).astype(int))
    for at, colour, style in ((10, ORANGE, "--"), (balance, BLUE, "-")):
        speed = []
        for n in users:
            plain, _ = seconds(n, at, 1)
            checking, guess = seconds(n, at, 2)
            speed.append((1 + acceptance) * plain / (checking + guess))
        right.semilogx(users, speed, style, color=colour, base=2, label=f"{at} FLOPs a byte")
    for axis in (left, right):
        axis.axhline(1, color="0.5", lw=1)
    right.set(xlabel="users", title=f"One guess, accepted with {acceptance:g}", ylim=(0.7, 2))
    right.legend()
    notebook.show(
        figure,
        "Left: speed-up against guesses per pass rises and flattens, later for higher acceptance. "
        "Right: against users it rises to 1.8 while experts fill up, "
        "and drops below 1 once arithmetic is the limit",
    )


draw_speed()

# %%
notebook.explore(draw_speed, acceptance=(0.3, 0.94, 0.02), balance=[20, 50, 100, 295, 590])

# %% [markdown]
# (In a live session the sliders change the acceptance and the machine.)
#
# **What to notice.** Right: speculation lives in a window. With few users the second token pays for its own experts; with too many, arithmetic is the limit and every token that is checked costs full price. On a machine with 10 FLOPs a byte (dashed)
# the window closes at some 75 users, before they have filled up the experts, and nobody gains more than 45 %. Left: a second and third guess would add something if they stood as often as the first, and less and less; a module that is fed its own guesses, however, stands less often each time.
#
# **And on your laptop?** There one user waits, as in the first row of the table, and the module is one block beside six, not beside 61. Count what the
# preset `laptop` reads; the acceptances are those of its module on prose, code and arithmetic that the trained model writes (see the README):

# %%
laptop = ModelConfig.preset("laptop")
plain, after_one = weights_read(laptop, 1)
checking, after_two = weights_read(laptop, 2)
print(f"million weights for a token {plain / 1e6:.2f}, for two {checking / 1e6:.2f},")
print(f"for a guess after one {after_one / 1e6:.2f}, after two {after_two / 1e6:.2f}\n")
for text, alpha in (("prose", 0.69), ("code", 0.78), ("arithmetic", 0.90), ("all stand", 1.00)):
    guessing = alpha * after_two + (1 - alpha) * after_one  # two new tokens where a guess stood
    limit = (1 + alpha) * plain / (checking + guessing)
    print(f"{text:<11} acceptance {alpha:.2f}: at most {limit:.2f} times as fast")

# %% [markdown]
# **What to notice.** A guess costs a third of a token here, and the second token a third more in experts: even a guesser that never errs would gain only a fifth.
# Measured, prose, code and arithmetic run at 0.91, 0.92 and 1.00 times the plain speed: a small model has to guess well to lose nothing. A second core can take the
# second token of a check, close behind the first, whose keys it needs in every layer; but then each core reads for itself what both tokens need, and one waits for
# the other. `minids bench speculation --checkpoint runs/NAME` measures both ways on your machine.
#
# ### Does randomness cost acceptance?
#
# One might expect that random text is harder to guess. But temperature flattens *both* distributions, and what counts is only their overlap, $\sum\min(p,q)$. The toy at several temperatures (80 tokens a text and 24 texts each; greedily there is only one text):

# %%
for temperature in (0.0, 0.5, 1.0, 1.5, 2.0):
    counts = Counts()
    for seed in range(24 if temperature else 1):
        settings = {"temperature": temperature, "seed": seed}
        minids.generate(model, ids[:24], 80, speculative=True, counts=counts, **settings)
    share, speed = counts.acceptance[0], counts.tokens_per_pass
    print(f"temperature {temperature}: {share:.0%} stood, {speed:.2f} tokens a pass")

# %% [markdown]
# **What to notice.** Less than one might fear: from temperature 0.5 to 2 only some seven guesses in a hundred more are refused, because both distributions flatten together.
#
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


rules = [(a, b, np.minimum(1, a / b)) for a, b in zip(many_p, many_q, strict=True)]
rules.append((p, q, np.full(5, 0.5)))  # a rule that is not lossless, too
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
    certain = np.eye(10)  # row i: token i for sure
    draft = Draft(list(guesses), [certain[g] for g in guesses])
    stood, after = judge(draft, certain[choices], np.random.default_rng(0))
    return np.array([stood, after])


cases = [([1, 2, 3], [1, 2, 3, 4]), ([1, 9, 3], [1, 2, 3, 4]), ([9, 2, 3], [1, 2, 3, 4]), ([], [7])]


def two_numbers(guesses, choices):
    """Yours, as an array."""
    found = stands(guesses, choices)
    return None if found is None else np.array(found)


two_numbers.__name__ = "stands"
check.ok(
    check.against(by_the_package, two_numbers, [(np.array(g, int), np.array(c)) for g, c in cases])
)

# %% [markdown]
# ### A wrong answer is noticed
#
# Counting *all* guesses that agree, and the ratio heuristic of [notebook 14](notebooks/14_museum_of_mistakes.ipynb), which is not lossless:


# %%
def counts_all(guesses, choices):
    """Forgets that a guess behind a refused one is void."""
    return np.array([int(np.sum(guesses == choices[:-1])), choices[-1]])


def heuristic(p, q, accept):
    """Accepts whenever p is at least half of q, whatever it was told."""
    return lossless(p, q, (p >= 0.5 * q).astype(float))


one_refused = np.array([1, 9, 3]), np.array([1, 2, 3, 5])
notebook.caught(check.against(by_the_package, counts_all, *one_refused))
notebook.caught(check.against(lossless, heuristic, p, q, np.minimum(1, p / q)))

# %% [markdown]
# ## Where to read on
#
# - [`inference/speculative.py`](minids/inference/speculative.py): drafts of several modules, their caches, and how they forget.
# - V3 report, section 5.4.3 (acceptance and speed) and 3.4 (how it is served); Leviathan et al. 2023, Theorem 3.5, and Chen et al. 2023, Theorem 1, prove the rule.
# - `minids generate --checkpoint runs/NAME --speculative` uses it; [notebook 8](notebooks/08_multi_token_prediction.ipynb) builds the module, [notebook 14](notebooks/14_museum_of_mistakes.ipynb) shows what goes wrong with a heuristic.
