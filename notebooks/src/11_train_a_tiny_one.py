# %% [markdown]
# # 11. Train a tiny DeepSeek-V3, on your own text
#
# The paper's training run took 2,788,000 GPU hours. Yours will take half a minute, in plain NumPy, on one core. **Does a DeepSeek-V3
# that small still do what the paper says: balance its experts without a loss, let them specialise, and look two tokens ahead?**

# %% [markdown]
# Batches, schedule, optimizer and bias are in plain sight; the loop in section 3 is ten lines. Then we open the trained model: its loads,
# its attention, its embedding.
#
# *On your own text*: put paths of your files or folders into `DATA` below; each becomes a domain. For a longer run, with samples and checkpoints:
# `minids train --data my-notes my-code --out runs/mine`.
#
# Code used here: [`training/corpus.py`](minids/training/corpus.py), [`checkpoint/tokenizer.py`](minids/checkpoint/tokenizer.py),
# [`training/batches.py`](minids/training/batches.py), [`schedule.py`](minids/training/schedule.py),
# [`optimizer.py`](minids/training/optimizer.py), [`metrics.py`](minids/training/metrics.py), [`model.py`](minids/model.py),
# [`ops/adamw.py`](minids/ops/adamw.py). The checks of the exercises, and what reads the trained model, are in
# [`lessons/tiny_run.py`](minids/lab/lessons/tiny_run.py).
# Paper: [DeepSeek-V3 report](https://arxiv.org/abs/2412.19437), sections 4.1 and 4.2 (recipe), 2.1.2 (balance), 4.5.3 and Figure 9 (specialisation).

# %%
import numpy as np

import minids
from minids import ModelConfig, TrainConfig, check
from minids.checkpoint.tokenizer import byte_tokenizer
from minids.lab import notebook
from minids.lab.lessons import tiny_run as lesson
from minids.lab.plots import tiny_run as draw
from minids.training.batches import Batches, TokenStream
from minids.training.corpus import load_corpus
from minids.training.metrics import bits_per_byte, max_violation
from minids.training.optimizer import AdamW
from minids.training.schedule import settings

notebook.set_up()
notebook.here()
DATA = "builtin"  # or your own: ["my-notes", "my-code/src"]

# %% [markdown]
# ## 1. Text in, batches out
#
# The built-in corpus is text that comes with every Python: the prose of its documentation, the code of its library, and generated
# arithmetic. Every byte is a token; 256 begins a document, 257 ends one.

# %%
corpus = load_corpus(DATA)
training, held_out = corpus.split(0.05)
tokenizer = byte_tokenizer()
stream = TokenStream.encode(training.documents, tokenizer)
lesson.domains(corpus)

# %%
train = TrainConfig(steps=320, batch_size=8, context_length=96, learning_rate=6e-3, warmup_steps=20)
batches = Batches(stream, train.batch_size, train.context_length, np.random.default_rng(0))
tokens, targets = batches.next()
notebook.shapes({"B": 8, "T": 96}, tokens=tokens, targets=targets)
print("tokens  40 to 80:", repr(tokenizer.decode(tokens[0, 40:80])))
print("targets 40 to 80:", repr(tokenizer.decode(targets[0, 40:80])))

# %% [markdown]
# The targets are the tokens one place on. Every one of the 768 positions asks the model once. Documents are packed one behind
# another, as in V3 (section 4.1).
#
# ## 2. A model with everything on
#
# Every part of DeepSeek-V3 is in it: latent attention, fine-grained and shared experts, groups, a module for multi-token prediction
# (MTP). Only the sizes differ:
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
    bias_update_speed=0.005, initializer_range=0.02,
)  # fmt: skip
model = minids.DeepSeekV3(config, seed=0)
model.tokenizer = tokenizer
size = model.parameters.values.size
print(f"{size:,} parameters; V3 has {671_026_419_200 // size:,} times as many")
losses, guessing = model.losses(tokens, targets), np.log(config.vocab_size)
print(f"before training {losses.main:.3f} nats per token; ln {config.vocab_size} = {guessing:.3f}")

# %% [markdown]
# One setting differs on purpose: V3's bias moves by $\gamma = 0.001$ a step, over hundreds of thousands of steps. In 320 steps it could
# move by 0.32 at most, so here $\gamma = 0.005$.
#
# The recipe is V3's, squeezed (section 4.2). The learning rate goes up linearly, stays, and goes down along a cosine to a tenth, and lower
# still for the last percent. $\lambda$, the weight of the MTP loss, falls to a third where that decay begins. $\gamma$ goes to 0 near the end. AdamW has
# $\beta = (0.9, 0.95)$ and decay 0.1 (here on matrices only; the report does not say). The gradient is clipped to norm 1.

# %%
along = [settings(step, config, train) for step in range(train.steps)]
draw.schedules(along)

# %% [markdown]
# ## 3. The loop
#
# One step: gradients of all losses; AdamW; then the bias, from the loads of the whole batch. Before the loop the model writes something
# (a dot stands for what cannot be printed).
#
# **Write your guess; then run.** After training, which loss is lower: that of the next token, or that of the token after next?

# %%
PROMPTS = ("    def __init__(self", "What is 3 + 4?\n", "This function returns ")
before = [lesson.written(model, prompt) for prompt in PROMPTS]

optimizer = AdamW(model.parameters, train)
history = []
for now in along:
    model.parameters.zero_grads()
    losses = model.forward_backward(*batches.next(), mtp_loss_weight=now.mtp_loss_weight)
    norm = optimizer.step(now.learning_rate)
    model.update_biases(losses.counts, now.bias_update_speed)
    biases = [layer.bias.copy() for layer in model.moe_layers]
    history.append((losses.main, losses.mtp[0], norm, max_violation(losses.counts), biases))
main, mtp, norms, max_vio, biases = map(np.array, zip(*history, strict=True))  # (steps, …) each
print(f"{train.steps} steps, {train.steps * tokens.size:,} tokens; means of the last 30 steps:")
print(f"next token {main[-30:].mean():.2f} nats, token after next {mtp[-30:].mean():.2f} nats")
draw.losses(main, mtp, norms, guessing)

# %% [markdown]
# **What to notice.** Within twenty steps the model knows *which* bytes are frequent; then, slowly, it learns what follows what. The MTP loss
# ends below the main one: the module is shown the next token, and it is one block more in a model of three
# ([notebook 8](notebooks/08_multi_token_prediction.ipynb) explains). The gradient is clipped (dotted line) mostly in the first fifty steps. The spike
# is the end of the warm-up, where the learning rate is at its largest for the first time.

# %%
for prompt, said in zip(PROMPTS, before, strict=True):
    print(f"before: {said}\nafter:  {lesson.written(model, prompt)}\n")

# %% [markdown]
# Half a minute does not make a writer: few of these words exist, and no sum is right. But the model knows how long words are, which short ones
# are frequent, and that numbers and signs follow a question about numbers.
#
# **Bits per byte** make losses comparable across tokenizers: nats divided by $\ln 2$ and by the bytes that a token stands for. Here they are for
# text that the model has not seen. **Write your guess; then run:** which of the three domains is the easiest?

# %%
windows = lesson.windows(held_out, tokenizer)  # of each domain: tokens and targets, (8, 96) each
for domain, pieces in windows.items():
    # Targets below 0 are padding and count for nothing.
    nats = sum(model.losses(x, y, mtp=False).main * (y >= 0).sum() for x, y in pieces)
    n_bytes = sum(tokenizer.count_bytes(y) for _, y in pieces)
    bits = bits_per_byte(nats, n_bytes)
    print(f"{domain:<11} {bits:.2f} bits per byte, a choice among {2**bits:.1f} characters")

# %% [markdown]
# **What to notice.** Arithmetic is the easiest: most of it is form. Before training it was 8 bits, a choice among 258.

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
check.ok(lesson.check_rate(rate))

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
check.ok(lesson.check_adamw_step(adamw_step))

# %% [markdown]
# ## 4. Balance without a loss
#
# At the start a router sends most tokens to a few experts. The usual cure is an auxiliary loss, which works against the main one. V3 adds a bias $b_i$
# to the scores *for choosing only*, and after each step moves it by $\gamma$: up for idle experts, down for busy ones (section 2.1.2). The measure is
# $\text{MaxVio} = \max_i \text{load}_i / \overline{\text{load}} - 1$: 0 is perfect, $16/4 - 1 = 3$ the worst.
#
# **Write your guess; then run.** How many steps does the bias need to bring MaxVio below 1, the dotted line?

# %%
first, last = max_vio[:10].mean(), max_vio[-60:].mean()
print(f"MaxVio, mean over layers: first 10 steps {first:.2f}, last 60 steps {last:.2f}")
draw.balance(max_vio, bias=biases[:, 0])

# %% [markdown]
# **What to notice.** In the first twenty steps it gets *worse*: experts that are chosen learn, and are chosen more. Then the biases catch up. Right,
# every row is an expert: red ones had to be helped, blue ones held back, and the colours settle when the loads do.
#
# **The claim, checked.** Balance without an auxiliary loss works at this size too: MaxVio falls from nearly 3 to below 1 in about a hundred
# steps, and ends near 0.4. Sixteen numbers a layer do it, which no gradient touches. (As in V3 there is a balance loss of weight $10^{-4}$ as
# well, `aux_loss_alpha`.) A block may lose its balance for a while, a spike of the curve, and is brought back. Wang et al. 2024 reach 0.04
# (Table 2). Here a batch has only 192 tokens for an expert, so chance alone makes loads uneven, and the network changes fast.

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
check.ok(lesson.check_max_vio(max_vio))

# %% [markdown]
# Two mistakes that are easily made: the decay added to the gradient (that is Adam with L2 regularisation, not AdamW), and a MaxVio that
# forgets the experts nobody chose:

# %%
notebook.caught(lesson.check_adamw_step(lesson.decay_in_the_gradient))
notebook.caught(lesson.check_max_vio(lesson.without_the_idle))

# %% [markdown]
# ## 5. Do experts specialise?
#
# The paper's Figure 9: with the bias the load is even over *all* text, and experts may still specialise on a domain. A loss per sequence
# suppresses that. Here are the loads of held-out text, each domain alone, as multiples of the mean.
#
# **Write your guess; then run.** Which domain is spread most unevenly over the experts?

# %%
by_domain = {domain: lesson.loads(model, pieces) for domain, pieces in windows.items()}
by_domain["all together"] = sum(by_domain.values()) / len(by_domain)
for layer, block in enumerate(("block 1", "block 2", "MTP block")):
    spread = [f"{name} {values[layer].std():.2f}" for name, values in by_domain.items()]
    print(f"{block}, standard deviation of the loads:", ", ".join(spread))
draw.loads(by_domain)

# %% [markdown]
# **The claim, checked.** Each domain alone is uneven, arithmetic most; all together are nearly even. Experts that are busy in one domain rest in
# another. After 320 steps this is a tendency; in V3 it is a pattern through all layers.
#
# ## 6. What does attention look at?
#
# `model.forward` returns what the backward pass needs, also the attention probabilities of every block. Here they are for a line of
# arithmetic: a row is a query, a column a key that it looks at, and ▷ is the token that begins a document.
#
# **Write your guess; then run.** A head that helps with spelling: how many characters back does it look?

# %%
line = "Eva has 7 coins. 7 + 5 = 12."
ids = np.concatenate([[tokenizer.bos_id], tokenizer.encode(line)])[None]  # (1, T)
_, saved = model.forward(ids, np.roll(ids, -1, axis=1), mtp=False)
H, T = config.num_attention_heads, ids.shape[1]
attentions = [b.attention.attention.probs.reshape(H, T, T) for b in saved.blocks]
for block, probs in enumerate(attentions):
    back = lesson.characters_back(probs)  # (H,)
    print(f"block {block}, characters back, mean of each head:", back.round(1))

heads = draw.Heads(attentions, ["▷", *line])
heads.of(block=1)
notebook.explore(heads.of, block=(0, 2))

# %% [markdown]
# **What to notice.** In block 1 the heads look one or two characters back, which is what spelling needs: the dark stripes beside the diagonal. In
# block 0 they look over the line. The four heads of a block share *one* rotary key; what differs comes from their queries and from the latent.
#
# ## 7. What does it know about bytes?
#
# The embedding has a row for each byte. Here they are in a plane, that of the two directions in which they differ most.
#
# **Write your guess; then run.** Nobody told the model what a digit or a letter is. Which characters will lie close together?

# %%
draw.characters(model.embed_tokens.weight.value)

# %% [markdown]
# **What to notice.** Digits lie together, and so do capitals, because each kind occurs in the same places. Small letters, which occur
# everywhere, are spread.
#
# ## 8. What the paper's run had besides
#
# - A tenth of V3's documents have their *middle last* ([fill_in_the_middle](minids/training/fill_in_the_middle.py), section 4.1), so that the
#   model also learns to fill in: `--fim-rate`.
# - The batch grows from 3,072 sequences to 15,360 during the first 3.2 % of the tokens ([batch_ramp](minids/training/batch_ramp.py), section 4.2):
#   `--batch-ramp-until`.
# - An average of the weights is kept beside them ([average](minids/training/average.py), section 3.2.3), an early look at the loss after the
#   decay: `--ema-decay`.
#
# These are options of `minids train`; [notebook 18](notebooks/18_the_rest_of_the_report.ipynb) measures what each is worth here.

# %% [markdown]
# ## Where to go from here
#
# - `minids.save(model, "folder")` writes what you have just trained as a Hugging Face folder, which `transformers` opens too
#   ([notebook 12](notebooks/12_real_checkpoints.ipynb)).
# - `minids train` does the same with compiled kernels, several times faster, and goes on after Ctrl-C to the same bits.
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
