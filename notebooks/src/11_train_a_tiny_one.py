# %% [markdown]
# # 11. Train a tiny DeepSeek-V3, on your own text
#
# The paper's training run took 2,788,000 GPU hours. Yours will take half a minute, in plain NumPy, on one core. **Does a DeepSeek-V3 that small still do what the paper says: balance its experts without a loss, let them specialise, and look two
# tokens ahead?**

# %% [markdown]
# Everything is written out: batches, schedule, optimizer, the bias. There is no trainer object to hide behind; the loop in section 3 is ten lines. Then we open the trained model and look at loads, attention and embeddings.
#
# *On your own text*: put paths of your files or folders into `DATA` below; each becomes a domain. For a longer run with progress, samples and checkpoints that resume, use the command line: `minids train --data my-notes my-code --out runs/mine`.
#
# Code used here: [`training/corpus.py`](minids/training/corpus.py), [`training/tokenizer.py`](minids/checkpoint/tokenizer.py), [`training/batches.py`](minids/training/batches.py), [`training/schedule.py`](minids/training/schedule.py),
# [`training/optimizer.py`](minids/training/optimizer.py), [`training/metrics.py`](minids/training/metrics.py), [`model.py`](minids/model.py), [`inference/generate.py`](minids/inference/generate.py), [`ops/adamw.py`](minids/ops/adamw.py).
# Paper: [DeepSeek-V3 report](https://arxiv.org/abs/2412.19437), sections 4.1 and 4.2 (recipe), 2.1.2 (balance), 4.5.3 and Figure 9 (specialisation).

# %%
import numpy as np

import minids
from minids import ModelConfig, TrainConfig, check
from minids.checkpoint.tokenizer import byte_tokenizer
from minids.lab import notebook
from minids.ops import adamw
from minids.training.batches import Batches, TokenStream, validation_windows
from minids.training.corpus import load_corpus
from minids.training.metrics import bits_per_byte, max_violation
from minids.training.optimizer import AdamW
from minids.training.schedule import learning_rate, settings

notebook.set_up()
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK = notebook.COLOURS
notebook.here()
DATA = "builtin"  # or your own: ["my-notes", "my-code/src"]

# %% [markdown]
# ## 1. Text in, batches out
#
# The built-in corpus is text that comes with every Python: the prose of its documentation, the code of its library, and generated arithmetic. Three domains as different as those of the paper's Figure 9. A byte is a token; 256 begins a document, 257 ends one.

# %%
corpus = load_corpus(DATA)
training, held_out = corpus.split(0.05)
tokenizer = byte_tokenizer()
stream = TokenStream.encode(training.documents, tokenizer)
for domain in corpus.domains:
    documents = corpus.of(domain)
    start = documents[1].text[:300].decode(errors="replace").split("\n", 1)[-1]
    print(f"{domain:<11} {len(documents):>4} documents, such as: {' '.join(start.split())[:60]} …")

# %%
train = TrainConfig(steps=320, batch_size=8, context_length=96, learning_rate=6e-3, warmup_steps=20)
batches = Batches(stream, train.batch_size, train.context_length, np.random.default_rng(0))
tokens, targets = batches.next()
notebook.shapes({"B": 8, "T": 96}, tokens=tokens, targets=targets)
print("tokens  40 to 80:", repr(tokenizer.decode(tokens[0, 40:80])))
print("targets 40 to 80:", repr(tokenizer.decode(targets[0, 40:80])))

# %% [markdown]
# The targets are the tokens one place on; the model is asked at every one of the 768 positions at once. Documents are packed one behind another, as V3 does it (section 4.1).
#
# ## 2. A model with everything on
#
# Every part of DeepSeek-V3 is in it: latent attention, fine-grained and shared experts, group-limited routing, a multi-token module. Only the sizes differ:
#
# | | V3 | here |
# |---|---|---|
# | blocks, of them dense | 61, 3 | 3, 1 |
# | width $d$, heads | 7168, 128 | 64, 4 |
# | latents $d_c'$, $d_c$; rotary $d_r$ | 1536, 512; 64 | 32, 16; 8 |
# | experts, chosen, shared | 256, 8, 1 | 16, 4, 1 |
# | groups, of which a token may use | 8, 4 | 4, 2 |
# | MTP modules | 1 | 1 |

# %%
config = ModelConfig.preset("tiny").replace(
    hidden_size=64, num_hidden_layers=3, intermediate_size=192, moe_intermediate_size=32,
    q_lora_rank=32, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16,
    bias_update_speed=0.005,
)  # fmt: skip
model = minids.DeepSeekV3(config, seed=0)
model.tokenizer = tokenizer
size = model.parameters.values.size
print(f"{size:,} parameters; V3 has {671_026_419_200 // size:,} times as many")
losses = model.losses(tokens, targets)
guessing = np.log(config.vocab_size)
print(
    f"before training {losses.main:.3f} nats per token; guessing among 258 is ln 258 = {guessing:.3f}"
)

# %% [markdown]
# One setting differs on purpose. V3's bias moves by $\gamma = 0.001$ a step, over hundreds of thousands of steps; in 320 steps it could move by 0.32 at most. Here $\gamma = 0.005$.
#
# The recipe is V3's, squeezed (section 4.2): learning rate up linearly, constant, down along a cosine to a tenth, and lower still for the last percent; $\lambda$ of the MTP loss falls to a third where the decay begins; $\gamma$ goes to 0 near the end. AdamW has
# $\beta = (0.9, 0.95)$, decay 0.1 (here on matrices only; the report does not say), and the gradient is clipped to norm 1.

# %% tags=["picture"]
steps = np.arange(train.steps)
along = [settings(int(s), config, train) for s in steps]
figure, axes = notebook.picture(1, 3, width=9, height=2.2)
shown = {
    "learning rate": [a.learning_rate for a in along],
    "λ, weight of the MTP loss": [a.mtp_loss_weight for a in along],
    "γ, speed of the bias": [a.bias_update_speed for a in along],
}
for axis, (title, values) in zip(axes, shown.items(), strict=True):
    axis.plot(steps, values, color=BLUE)
    axis.set(title=title, xlabel="step", ylim=(0, None))
notebook.show(figure, "Three schedules: learning rate up, flat, down; lambda and gamma as steps")

# %% [markdown]
# ## 3. The loop
#
# One step: gradients of all losses, AdamW, then, *after* the step and from the loads of the whole batch, the bias. That is all of it. Before it begins, let the model write something; what it cannot print is shown as a dot.


# %%
def sample(prompt, length=70):
    """What the model writes, on one line."""
    new = minids.generate(model, prompt, length, temperature=0.5, seed=4)
    text = tokenizer.decode(new).replace("\n", "⏎")
    text = "".join(c if c.isprintable() and c != "\ufffd" else "·" for c in text)
    return f"{prompt.strip()!r} → {text}"


PROMPTS = ("    def __init__(self", "What is 3 + 4?\n", "This function returns ")
before = [sample(prompt) for prompt in PROMPTS]

optimizer = AdamW(model.parameters, train)
history, bias_history = [], []
for step in range(train.steps):
    now = settings(step, config, train)
    model.parameters.zero_grads()
    losses = model.forward_backward(*batches.next(), mtp_loss_weight=now.mtp_loss_weight)
    norm = optimizer.step(now.learning_rate)
    model.update_biases(losses.counts, now.bias_update_speed)
    history.append((losses.main, losses.mtp[0], norm, *max_violation(losses.counts)))
    bias_history.append(model.moe_layers[0].bias.copy())
history, bias_history = np.array(history), np.array(bias_history)  # (steps, 6), (steps, E)
print(f"{train.steps} steps, {train.steps * tokens.size:,} tokens")
main, mtp = history[-30:, :2].mean(axis=0)
print(f"mean of the last 30 steps: next token {main:.2f}, token after next {mtp:.2f} nats")


# %% tags=["picture"]
def smooth(values, width=15):
    """Centred running mean, shorter at the ends."""
    return np.array([values[max(i - width, 0) : i + width + 1].mean() for i in range(len(values))])


figure, (left, right) = notebook.picture(1, 2, width=9, height=2.9)
left.plot(steps, history[:, 0], color=BLUE, alpha=0.2)
left.plot(steps, smooth(history[:, 0]), color=BLUE, label="next token")
left.plot(steps, smooth(history[:, 1]), color=ORANGE, label="token after next (MTP)")
left.axhline(np.log(258), color="0.5", ls=":")
left.text(200, np.log(258) + 0.07, "guessing", color="0.4")
left.set(xlabel="step", ylabel="nats per token", ylim=(0, 6), title="Training loss")
left.legend()
right.semilogy(steps, history[:, 2], color=GREEN, alpha=0.7)
right.axhline(1, color="0.4", ls=":")
right.set(xlabel="step", title="Norm of the gradient, clipped at 1")
notebook.show(
    figure,
    "Left: both losses fall from ln 258, fast and then slowly. Right: the gradient's norm, near "
    "the clipping line",
)

# %% [markdown]
# **What to notice.** Within twenty steps the model has learned *which* bytes are frequent; then, slowly, what follows what. The MTP loss runs below the main one: the module is shown the next token, and hangs one block deeper in a model of three ([notebook 8](notebooks/08_multi_token_prediction.ipynb) explains). The gradient is clipped (dotted line) mostly
# in the first fifty steps, where the loss falls by half; the spike is the end of the warm-up, when the learning rate is at its largest for the first time.

# %%
for prompt_before, prompt_after in zip(before, map(sample, PROMPTS), strict=True):
    print("before:", prompt_before)
    print("after: ", prompt_after, "\n")

# %% [markdown]
# Half a minute does not make a writer: few of these words exist, and no sum is right. But the model knows how long words are and which short ones are frequent, and that numbers and signs follow a question about numbers. A loss in nats per *byte* becomes comparable across tokenizers as **bits per byte**, measured on text that was held out:

# %%
windows = {}  # of each domain: a few batches of tokens and targets, (8, 96) each
for domain in held_out.domains:
    tokens_of_it = TokenStream.encode(held_out.of(domain), tokenizer).tokens
    windows[domain] = list(validation_windows(tokens_of_it, 8, 96, 768 * 4))

for domain, pieces in windows.items():
    # Targets below 0 are padding and count for nothing.
    nats = sum(model.losses(x, y, mtp=False).main * (y >= 0).sum() for x, y in pieces)
    n_bytes = sum(tokenizer.count_bytes(y) for _, y in pieces)
    print(f"{domain:<11} {bits_per_byte(nats, n_bytes):.2f} bits per byte   (8 for guessing)")

# %% [markdown]
# (Bits per byte are nats divided by $\ln 2$ and by the bytes that a token stands for.) Arithmetic is the easiest: most of it is form. Two bits for a byte of it means that the model hesitates between four characters where an untrained one hesitates between 258.

# %% [markdown]
# ### Exercise 1: the learning rate
#
# Write `rate(step, steps, peak)` with V3's shape: linear warm-up over 20 steps, $\text{peak}\cdot(\text{step}+1)/20$; then constant until a share $\text{step}/\text{steps} = 10/14.8$ of the run; then a cosine from the peak to a tenth of it until $14.3/14.8$; a tenth until $14.633/14.8$; then $7.3/220$ of the peak.


# %% tags=["solution"]
def rate(step, steps, peak):
    """Learning rate of a step, counted from 0."""
    # The cosine: along runs from 0 to 1 between the two shares.
    if step < 20:
        return peak * (step + 1) / 20
    done = step / steps
    if done < 10 / 14.8:
        return peak
    if done < 14.3 / 14.8:
        along = (done - 10 / 14.8) / (4.3 / 14.8)
        return peak * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * along)))
    return peak * (0.1 if done < 14.633 / 14.8 else 7.3 / 220)


# %% tags=["check"]
def by_the_package(step, steps, peak):
    """The same from training/schedule.py."""
    return learning_rate(step, train.replace(steps=steps, learning_rate=peak))


some_steps = [(s, 1000, 2.2e-4) for s in (0, 19, 20, 500, 700, 900, 970, 995)]
some_steps += [(s, 400, 6e-3) for s in (10, 300, 350, 390, 398)]
check.ok(check.against(by_the_package, rate, some_steps))

# %% [markdown]
# ### Exercise 2: AdamW
#
# Write `adamw_step(theta, g, m, v, t, lr)`, which returns new `theta, m, v` (and changes nothing in place): $\beta_1 = 0.9$, $\beta_2 = 0.95$, $\varepsilon = 10^{-8}$, decay $w = 0.1$, step $t = 1, 2, \dots$


# %% tags=["solution"]
def adamw_step(theta, g, m, v, t, lr):
    """θ ← θ − lr ( m̂ / (√v̂ + ε) + w θ )."""
    # The decay acts on θ itself: it does not pass through m and v.
    m = 0.9 * m + 0.1 * g
    v = 0.95 * v + 0.05 * g * g
    m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.95**t)
    return theta - lr * (m_hat / (np.sqrt(v_hat) + 1e-8) + 0.1 * theta), m, v


# %% tags=["check"]
def updated_copy(theta, g, m, v, t, lr):
    """ops/adamw.py works in place; here on copies."""
    theta, m, v = theta.copy(), m.copy(), v.copy()
    adamw.update(theta, g, m, v, lr, 0.9, 0.95, 1e-8, 0.1, t)
    return np.stack([theta, m, v])


def stacked(theta, g, m, v, t, lr):
    """Your three arrays as one."""
    three = adamw_step(theta, g, m, v, t, lr)
    return None if three is None else np.stack(three)


rng = np.random.default_rng(7)
arrays = [rng.normal(size=50) for _ in range(3)] + [rng.uniform(0, 1, 50)]
weak = [arrays[0], 1e-8 * arrays[1], 1e-8 * arrays[2], 1e-16 * arrays[3]]  # so weak that ε counts
cases = [(*arrays, 1, 1e-2), (*arrays, 30, 1e-3), (*weak, 1, 1e-2), (*weak, 30, 1e-2)]
check.ok(check.against(updated_copy, stacked, cases, tolerance=1e-8))

# %% [markdown]
# ## 4. Balance without a loss
#
# At the start a router sends most tokens to a few experts. The usual remedy is an auxiliary loss, which fights the main one. V3 instead adds a bias $b_i$ to the scores *for choosing only* and moves it by $\gamma$ after each step, up for the idle and down for the
# busy (section 2.1.2). The measure is $\text{MaxVio} = \max_i \text{load}_i / \overline{\text{load}} - 1$: 0 is perfect, $16/4 - 1 = 3$ the worst. **Write your guess; then look:** how many steps does the bias need to bring it below 1?

# %% tags=["picture"]
figure, (left, right) = notebook.picture(1, 2, width=9, height=3.0)
layers = ((BLUE, "block 1"), (GREEN, "block 2"), (ORANGE, "MTP block"))
for column, (colour, label) in enumerate(layers, start=3):
    left.plot(steps, smooth(history[:, column], 4), color=colour, label=label)
left.set(xlabel="step", ylabel="MaxVio", ylim=(0, 3.1), title="Imbalance")
left.legend()
most = np.abs(bias_history).max()
colours = {"cmap": "RdBu_r", "vmin": -most, "vmax": most}
image = right.imshow(bias_history.T, aspect="auto", **colours)
right.set(xlabel="step", ylabel="expert", title="The bias of block 1")
right.grid(False)
figure.colorbar(image, ax=right)
notebook.show(
    figure,
    "Left: imbalance of three layers falls from above 2 to about a half. Right: biases of "
    "sixteen experts fan out, some up, some down",
)

# %% [markdown]
# **What to notice.** In the first twenty steps it gets *worse*: the experts that are chosen learn, and are chosen more. Then the biases catch up. On the right every row is an expert: red ones had to be helped, blue ones held back, and the colours settle when the
# loads do.

# %%
first, last = history[:10, 3:].mean(), history[-60:, 3:].mean()
print(f"MaxVio, mean over layers: first 10 steps {first:.2f}, last 60 steps {last:.2f}")

# %% [markdown]
# **The claim, checked.** "Auxiliary-loss-free" works at this size too: the imbalance falls from nearly 3 to below 1 within the first hundred steps and ends near 0.4 (a block that loses its balance for a while, a spike of the curve, is brought back), by sixteen numbers a layer that no gradient touches (and a balance loss of weight $10^{-4}$, as in V3: `aux_loss_alpha`). It does not reach the 0.04 of Wang et al. 2024, Table 2: a batch of 768 tokens is a noisy ruler (loads are counted
# per batch, of 192 tokens an expert), and the network itself changes fast in so short a run.

# %% [markdown]
# ### Exercise 3: MaxVio
#
# Write `max_vio(chosen, experts)` from the choices of a layer, (N, K).


# %% tags=["solution"]
def max_vio(chosen, experts):
    """Largest load over the mean load, minus 1; experts that nobody chose count in the mean."""
    loads = np.bincount(chosen.reshape(-1), minlength=experts)
    return loads.max() / loads.mean() - 1


# %% tags=["check"]
def from_counts(chosen, experts):
    """The package's, from the loads."""
    return max_violation(np.bincount(chosen.reshape(-1), minlength=experts))


cases = [
    (rng.integers(0, 12, (40, 4)), 16),
    (np.zeros((5, 1), int), 8),
    (rng.integers(0, 15, (400, 4)), 16),
]
check.ok(check.against(from_counts, max_vio, cases))

# %% [markdown]
# The decay added to the gradient (that is Adam with L2 regularisation, not AdamW), and a MaxVio that forgets the idle experts:


# %%
def l2_instead(theta, g, m, v, t, lr):
    """The decay passes through the moments."""
    g = g + 0.1 * theta
    m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
    m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.95**t)
    return np.stack([theta - lr * m_hat / (np.sqrt(v_hat) + 1e-8), m, v])


def forgets_the_idle(chosen, experts):
    """bincount without minlength."""
    loads = np.bincount(chosen.reshape(-1))
    return loads.max() / loads.mean() - 1


notebook.caught(check.against(updated_copy, l2_instead, *arrays, 30, 1e-3, tolerance=1e-8))
notebook.caught(check.against(from_counts, forgets_the_idle, rng.integers(0, 12, (40, 4)), 16))

# %% [markdown]
# ## 5. Do experts specialise?
#
# The paper's Figure 9: a model balanced this way may be balanced *overall* and still let experts specialise by domain, which an auxiliary loss per sequence suppresses. Loads of held-out text, each domain alone, as multiples of the mean:


# %%
def loads(pieces):
    """Load of every expert of every layer on some text, as multiples of the mean: (layers, E)."""
    counts = sum(model.losses(x, np.where(y < 0, 0, y)).counts for x, y in pieces)
    return counts / counts.mean(axis=1, keepdims=True)


by_domain = {domain: loads(pieces) for domain, pieces in windows.items()}
together = sum(by_domain.values()) / len(by_domain)

# %% tags=["picture"]
rows = [*by_domain.items(), ("all together", together)]
figure, axes = notebook.picture(2, 1, width=8.6, height=3.6, sharex=True)
for layer, axis in enumerate(axes):
    image = axis.imshow(
        [values[layer] for _, values in rows], cmap="cividis", vmin=0, vmax=2, aspect="auto"
    )
    axis.set(
        yticks=range(len(rows)), yticklabels=[name for name, _ in rows], title=f"block {layer + 1}"
    )
    axis.grid(False)
axes[1].set(xticks=range(16), xlabel="expert (four groups of four)")
figure.colorbar(image, ax=axes, label="load / mean")
notebook.show(
    figure,
    "Two heat maps, domains by experts: each domain has its own bright experts, the row of all "
    "domains together is even",
)

# %%
for layer in range(2):
    spread = [f"{name} {values[layer].std():.2f}" for name, values in rows]
    print(f"block {layer + 1}, standard deviation of the loads:", ", ".join(spread))

# %% [markdown]
# **The claim, checked.** Every single domain is spread unevenly, all together more evenly: experts that are busy in one domain rest in another. After 320 steps it is a tendency, in V3 a pattern through all layers.
#
# ## 6. What does attention look at?
#
# `model.forward` returns what the backward pass needs, and that includes the attention probabilities of every block. Here they are for a line of arithmetic; a row is a query, a column a key it looks at, and ▷ is the token that begins a document:

# %%
line = "Eva has 7 coins. 7 + 5 = 12."
ids = np.concatenate([[tokenizer.bos_id], tokenizer.encode(line)])[None]  # (1, T)
_, saved = model.forward(ids, np.roll(ids, -1, axis=1), mtp=False)
T = ids.shape[1]
attentions = [b.attention.attention.probs[0].reshape(4, T, T) for b in saved.blocks]  # (H, T, T)


# %% tags=["picture"]
def draw_heads(layer=1):
    """All four heads of a block, query by key."""
    marks = ["▷", *line]
    figure, axes = notebook.picture(2, 2, width=8.6, height=8.4)
    for head, axis in enumerate(axes.flat):
        axis.imshow(attentions[layer][head], cmap="Blues", vmin=0, vmax=0.6)
        axis.set_title(f"block {layer}, head {head}")
        axis.set_xticks(range(T), marks, fontsize=9)
        axis.set_yticks(range(T), marks, fontsize=9)
        axis.tick_params(length=0)
        axis.grid(False)
    notebook.show(
        figure,
        f"Attention of the four heads of block {layer}: lower triangles, some with a bright "
        "diagonal just behind the query",
    )


draw_heads()

# %%
notebook.explore(draw_heads, layer=(0, 2))

# %%
distance = np.arange(T)[:, None] - np.arange(T)  # (T, T): query minus key
for layer, probs in enumerate(attentions):
    mean = (probs * distance).sum(axis=-1)[:, 8:].mean(axis=-1)  # over later queries, (H,)
    print(f"block {layer}: mean distance of what the heads look at", np.round(mean, 1))

# %% [markdown]
# **What to notice.** Dark stripes near the diagonal are heads that look at the last few characters, all that spelling needs; others spread over the line. All four share *one* rotary key, so what differs between them comes from their queries and from the latent.
#
# ## 7. What does it know about bytes?
#
# Rows of the embedding, squeezed into a plane (the two directions in which they differ most). Nobody told the model what a digit is:

# %% tags=["picture"]
kinds = {
    "digits": "0123456789",
    "small letters": "abcdefghijklmnopqrstuvwxyz",
    "capitals": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "signs": ".,:;()=+-*/_\"'",
}
characters = "".join(kinds.values())
vectors = model.embed_tokens.weight.value[[ord(c) for c in characters]].astype(np.float64)  # (n, d)
vectors = vectors - vectors.mean(axis=0)
_, _, directions = np.linalg.svd(vectors, full_matrices=False)
directions = directions * np.sign(directions[:, :1])  # an arbitrary sign, fixed
plane = vectors @ directions[:2].T  # (n, 2)
figure, axis = notebook.picture(width=8, height=4.2)
start = 0
for (kind, members), colour in zip(kinds.items(), (ORANGE, BLUE, GREEN, BLACK), strict=True):
    for character, (x, y) in zip(members, plane[start : start + len(members)], strict=True):
        axis.text(x, y, character, color=colour, ha="center", va="center", fontsize=11)
    axis.plot([], [], "s", color=colour, label=kind)
    start += len(members)
axis.set(
    xlim=1.1 * np.array([plane[:, 0].min(), plane[:, 0].max()]),
    ylim=1.1 * np.array([plane[:, 1].min(), plane[:, 1].max()]),
)
axis.legend()
notebook.show(
    figure, "Characters in a plane: digits form a cluster of their own, small letters another"
)

# %% [markdown]
# **What to notice.** Digits have found each other, because they occur in the same places. The rest of the alphabet needs more than half a minute.
#
# ## 8. What the paper's run had besides
#
# A tenth of V3's documents are laid out with their *middle last* ([fill_in_the_middle](minids/training/fill_in_the_middle.py)), so that the model also learns to fill in (section 4.1). The batch grows ([batch_ramp](minids/training/batch_ramp.py)) from 3,072 sequences to 15,360 during the first 3.2 % of the tokens (4.2). An average of the weights ([average](minids/training/average.py)) is kept beside them, an early look at the loss after the decay (3.2.3). In `minids train` these are `--fim-rate`, `--batch-ramp-until` and `--ema-decay`; [notebook 18](notebooks/18_the_rest_of_the_report.ipynb) measures what each is worth here.

# %% [markdown]
# ## 9. Where to go from here
#
# - `minids.save(model, "folder")` writes what you have just trained as a Hugging Face folder that `transformers` opens too ([notebook 12](notebooks/12_real_checkpoints.ipynb)).
# - `minids train` does the same with compiled kernels, several times faster, resumes to the same bits after Ctrl-C, and draws these curves.
# - Change one thing and run again: `balance="none"` and look at MaxVio; `num_nextn_predict_layers=0`; `attention="mqa"`; four times the steps.

# %% tags=["picture"]
notebook.card(
    """
    - Half a minute of NumPy trains every part of V3: latent attention, routed experts, the bias, a second look ahead.
    - The bias balances the experts without a gradient of its own, and lets them specialise.
    - In a shallow model the MTP module does as well as the main one: it is shown one token more.
    """,
    number=f"{first:.1f} → {last:.1f}",
    meaning="MaxVio, the busiest expert's excess over the mean: the first 10 steps and the last 60.",
    bars={"first 10 steps": float(first), "last 60 steps": float(last)},
)
