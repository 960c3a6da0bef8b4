# %% [markdown]
# # 1. A tour of DeepSeek-V3 in one sitting
#
# DeepSeek-V3 has 671 billion parameters, and its architecture fits on one page of NumPy. What happens to a sentence on its way through,
# and which of the parts are really new?
#
# %% [markdown]
# You will follow one batch from text to loss through a model that has every mechanism of V3's architecture and 92 thousand parameters: embedding, a block
# with latent attention and experts, the head, the module that looks two tokens ahead. Then you put V3's sizes in place of the small ones,
# and at the end you train the small model for a few seconds. Nothing is derived here; each stop names the notebook that does it.
#
# You need matrix products and a rough idea of what attention is. The paper is the [DeepSeek-V3 report](https://arxiv.org/abs/2412.19437),
# section 2; numbers in brackets are its equations. Code used: [model](minids/model.py), [block](minids/layers/block.py),
# [mla](minids/layers/mla.py), [moe](minids/layers/moe.py), [mtp](minids/layers/mtp.py), [rmsnorm](minids/ops/rmsnorm.py),
# [router](minids/ops/router.py), [cross_entropy](minids/ops/cross_entropy.py), [parameters](minids/lab/analysis/parameters.py),
# [kv_cache](minids/lab/analysis/kv_cache.py), [optimizer](minids/training/optimizer.py), [schedule](minids/training/schedule.py),
# [tokenizer](minids/checkpoint/tokenizer.py).

# %%
import numpy as np

import minids
from minids import ModelConfig, TrainConfig, check
from minids.checkpoint.tokenizer import byte_tokenizer
from minids.lab import notebook
from minids.lab.analysis import kv_cache, parameters
from minids.ops import cross_entropy, rmsnorm, router
from minids.training.optimizer import AdamW
from minids.training.schedule import settings

notebook.set_up()
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK = notebook.COLOURS

# %% [markdown]
# ## A model with everything on, and a text
#
# Sizes are all different, so that a letter names each of them:
#
# | | letter | V3 | here |
# |---|---|---|---|
# | blocks, of them without experts | $L$ | 61, 3 | 3, 1 |
# | width | $d$ | 7168 | 32 |
# | heads | $n_h$, H | 128 | 5 |
# | latent of queries; of keys and values | $d_c'$, $d_c$ | 1536; 512 | 22; 14 |
# | a head's content, position and value part | $d_h$, $d_r$, $d_v$ | 128, 64, 128 | 12, 6, 10 |
# | experts, chosen for a token, shared | E, K | 256, 8, 1 | 16, 4, 1 |
# | groups of experts, of which a token may use | | 8, 4 | 4, 2 |
# | vocabulary | V | 129,280 | 258 |
# | modules that look further ahead | | 1 | 1 |
#
# A token here is a byte: 256 of them, and two for the beginning and the end of a document.

# %%
config = ModelConfig.preset("tiny").replace(
    num_hidden_layers=3, hidden_size=32, intermediate_size=64, moe_intermediate_size=8,
    num_attention_heads=5, q_lora_rank=22, kv_lora_rank=14, qk_nope_head_dim=12,
    qk_rope_head_dim=6, v_head_dim=10, bias_update_speed=0.01,
)  # fmt: skip
model = minids.DeepSeekV3(config, seed=0, dtype=np.float64)  # round-off then changes no digit shown
tokenizer = byte_tokenizer()

TEXT = """A token comes in as a number and leaves as a guess. The number picks a row of a table, and the
row walks through the blocks. In every block it first looks back at the tokens before it, and
then it visits its experts. To look back it needs the keys and the values of the tokens before
it, and the block makes them from one small latent. To visit its experts it asks the router, and
the router names four of sixteen. One more expert sees every token. What the token learns in a
block is added to what it knew before the block. After the last block the row meets the table of
the head, and the head says how likely every next token is. The module behind the head looks one
token further ahead. If the guess is wrong, the loss is large, and the gradient walks back
through the blocks, from the head to the first table.
"""
stream = tokenizer.encode(TEXT)  # (length,) int
B, T = 2, 24
whole = np.stack([stream[:25], stream[105:130]])  # (B, T + 1)
tokens, targets = whole[:, :-1], whole[:, 1:]  # targets: the token after each
letters = {
    "B": B, "T": T, "d": 32, "H": 5, "d_c'": 22, "d_c": 14, "d_h": 12, "d_r": 6, "d_v": 10,
    "d_h+d_r": 18, "d_c+d_r": 20, "E": 16, "K": 4, "V": 258, "N": B * T, "2d": 64, "T−1": T - 1,
}  # fmt: skip
for row in range(B):
    print(repr(tokenizer.decode(tokens[row])), "→", repr(tokenizer.decode(targets[row])))
notebook.shapes(letters, tokens=tokens, targets=targets)
print(f"\n{model.parameters.values.size:,} parameters, {len(stream)} tokens of text")

# %% [markdown]
# ## First stop: the embedding
#
# A table with one row of $d$ numbers per token. Looking up is all that happens, and position plays no part yet:

# %%
rotary = model.rotary(T)
x, _ = model.embed_tokens.forward(tokens)
notebook.shapes(letters, table=model.embed_tokens.weight.value, x=x)

# %% [markdown]
# ## Second stop: a block
#
# Sixty-one times V3 does the same two things (Figure 2 of the report):
#
# $$ x \leftarrow x + \mathrm{MLA}(\mathrm{RMSNorm}(x)), \qquad x \leftarrow x + \mathrm{experts}(\mathrm{RMSNorm}(x)) . $$
#
# (In V3's first three blocks one ordinary network stands in the place of the experts.) Tokens talk to each other in the first half and only there; in the second each is worked on alone. What a half finds out is *added*.
# The norm gives every token length $\sqrt d$ before it is looked at ($\mathrm{rms} = 1$). Here is the first half of block 1, the first with
# experts, after block 0 has done its work:

# %%
x, _ = model.blocks[0].forward(x, rotary)
block = model.blocks[1]
normed, _ = block.input_norm.forward(x)
notebook.shapes(letters, x=x, normed=normed)

# %% [markdown]
# ### Attention with two latents
#
# Multi-head Latent Attention (MLA, section 2.1.1) makes no query, key or value from $x$ directly. It first squeezes $x$ into two
# small vectors, the *latents*, and makes all heads from those:
#
# $$ \underbrace{c^Q = W^{DQ} x}_{(6)} \;\to\; q_i, \qquad\qquad
# \underbrace{c^{KV} = W^{DKV} x}_{(1)} \;\to\; k_i,\, v_i, \qquad\qquad
# \underbrace{k^R = \mathrm{RoPE}(W^{KR} x)}_{(3)} . $$
#
# The last, a key of $d_r$ numbers that carries the position, is one for all heads. (Both latents are normalised on the way.)

# %%
mla = block.attention
c_q, _ = mla.q_a_proj.forward(normed)  # the latent of the queries
q, _ = mla.queries(normed, rotary)  # content and position part side by side (9)
c_kv, k_rope, _ = mla.latent(normed, rotary)
k, v, _ = mla.keys_values(c_kv, k_rope)  # (2), (4), (5)
attended, _ = mla.forward(normed, rotary)
notebook.shapes(letters, c_q=c_q, q=q, c_kv=c_kv, k_rope=k_rope, k=k, v=v, attended=attended)
made, kept = k[0, 0].size + v[0, 0].size, c_kv[0, 0].size + k_rope[0, 0].size
print(f"\nper token: keys and values {made} numbers, made from {kept}")
x = x + attended

# %% [markdown]
# **What to notice.** To write the next token a model needs keys and values of all earlier ones. MLA has to remember only $c^{KV}$ and $k^R$:
# here 20 numbers instead of 140, in V3 576 instead of 40,960. This is the first of V3's ideas (it came with V2).
# [Notebook 4](notebooks/04_mha_to_mla.ipynb) leads there, [notebook 5](notebooks/05_mla_inside.ipynb) shows why the 40,960 need not even
# be made when the model writes, and [notebook 3](notebooks/03_positions.ipynb) explains the rotation.
#
# ### A few experts of many
#
# The second half (section 2.1.2) has $E$ small networks and one *router*. The router gives each expert a score between 0 and 1 (15),
# the best $K$ are chosen (14), and their scores, scaled to a fixed sum, are the *gates* with which their outputs are added (13). One more expert
# is *shared*: every token visits it.

# %%
normed, _ = block.ffn_norm.forward(x)
out, saved = block.moe.forward(normed)
routing = saved.routing
notebook.shapes(letters, scores=routing.scores, chosen=routing.chosen, gates=routing.gates, out=out)
x = x + out

print("\ntoken  chosen experts       their gates")
for n in (2, 3, 4, 8):
    token = tokenizer.decode(tokens[0, n : n + 1])
    shown = "  ".join(f"{e:>2}" for e in routing.chosen[n])
    gates = "  ".join(f"{g:.2f}" for g in routing.gates[n])
    print(f"{token!r:<6} {shown}       {gates}   sum {routing.gates[n].sum():.2f}")


# %% tags=["picture"]
def gates_of(routing, sequence=0):
    """(T, E): the gates of one sequence, 0 where an expert was not chosen."""
    rows = slice(sequence * T, (sequence + 1) * T)
    grid = np.zeros((T, config.n_routed_experts))
    np.put_along_axis(grid, routing.chosen[rows], routing.gates[rows], axis=1)
    return grid


def draw_gates(axes, routing, title, sequence=0):
    """Tokens from left to right, experts from top to bottom."""
    image = axes.imshow(gates_of(routing, sequence).T, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(
        range(T), [tokenizer.decode(t[None]).replace(" ", "·") for t in tokens[sequence]]
    )
    axes.set(ylabel="expert", yticks=[0, 4, 8, 12])
    for edge in (3.5, 7.5, 11.5):
        axes.axhline(edge, color="#999999", lw=1)
    axes.grid(False)
    axes.set_title(title)
    return image


figure, axes = notebook.picture(height=3.4)
image = draw_gates(axes, routing, "Who serves whom, before any training")
figure.colorbar(image, ax=axes, label="gate")
notebook.show(
    figure,
    "Tokens across, experts down: four cells in every column, in two of the four groups.",
)

# %% [markdown]
# **What to notice.** Each column has four coloured cells, and they lie in two of the four groups between the lines: V3 keeps a group
# on one node of its cluster, and a token that visits few nodes is cheap to send (node-limited routing). The gates are nearly equal because nobody has
# taught the router anything. Their sum is 2.5, V3's scaling factor. With its sizes a token pays for 9 experts of 257: the reason why so large a model
# computes so little.
#
# Which experts are chosen depends on the scores *plus a bias* that only looks after the load; the gates do not see the bias (16). That is
# "auxiliary-loss-free" balancing, the second idea. [Notebook 6](notebooks/06_experts.ipynb) is about the experts,
# [notebook 7](notebooks/07_balance.ipynb) about their balance.
#
# ## Exercise 1: gates
#
# From the scores $s$ and the chosen experts, compute the gates: the chosen scores, divided by their sum, times 2.5.


# %% tags=["solution"]
def gates(scores, bias, chosen):
    """scores (N, E), bias (E,), chosen (N, K) int → gates (N, K)."""
    # np.take_along_axis(scores, chosen, axis=1) picks K entries of every row.
    # Which of the arguments is of no use?
    picked = np.take_along_axis(scores, chosen, axis=1)
    return 2.5 * picked / picked.sum(axis=1, keepdims=True)


# %% tags=["check"]
rng = np.random.default_rng(0)
router_logits = rng.standard_normal((6, 16))
router_bias = 0.3 * rng.standard_normal(16)
right, _ = router.forward(router_logits, router_bias, 4, 4, 2, "sigmoid", "noaux_tc", True, 2.5)


def right_gates(scores, bias, chosen):
    return right.gates


check.ok(check.against(right_gates, gates, right.scores, router_bias, right.chosen))

# %% [markdown]
# A natural mistake is to let the bias into the gates as well. Then what was meant to even out the load changes what the model computes. The check knows many
# usual causes, tries each on the numbers, and here says honestly that none repairs them; that the numbers are wrong it sees in any case:


# %%
def biased_gates(scores, bias, chosen):
    picked = np.take_along_axis(scores + bias, chosen, axis=1)
    return 2.5 * picked / picked.sum(axis=1, keepdims=True)


notebook.caught(check.against(right_gates, biased_gates, right.scores, router_bias, right.chosen))

# %% [markdown]
# ## Exercise 2: a block from its parts
#
# You have seen all the parts. Put block 1 together: `block.input_norm`, `block.attention`, `block.ffn_norm` and `block.moe` each have
# a `forward` that returns a result and what it saved.


# %% tags=["solution"]
def my_block(x):
    """x (B, T, d) → x (B, T, d)."""
    # Two halves. In each: norm, then the sub-layer, then add to what came in *before* the norm.
    attended, _ = block.attention.forward(block.input_norm.forward(x)[0], rotary)
    x = x + attended
    served, _ = block.moe.forward(block.ffn_norm.forward(x)[0])
    return x + served


# %% tags=["check"]
def right_block(x):
    return block.forward(x, rotary)[0]


some = rng.standard_normal((B, T, 32))
block.ffn_norm.gain.value[...] = rng.uniform(
    0.5, 1.5, 32
)  # fresh gains are all 1: no norm could be told from another
check.ok(check.against(right_block, my_block, some))
block.ffn_norm.gain.value[...] = 1


# %% [markdown]
# ## Third stop: the head, and the loss
#
# After the last block comes one more norm, and a table like the first: each of its $V$ rows is compared with the token's state, and the products
# (the *logits*) become probabilities by a softmax. The loss is the mean surprise at what really came, $-\ln p(\text{target})$.

# %%
x, _ = model.blocks[2].forward(x, rotary)
hidden, _ = model.norm.forward(x)
logits, _ = model.head.forward(hidden)
loss, _ = cross_entropy.forward(logits.reshape(B * T, -1), targets.reshape(-1))
notebook.shapes(letters, hidden=hidden, logits=logits)
print(f"\nloss {loss:.3f} nats per token; ln 258 = {np.log(258):.3f}")
print("the model in one call:", f"{model.losses(tokens, targets).main:.3f}")

# %% [markdown]
# **What to notice.** An untrained model should not know anything: all 258 tokens about equally likely, so a loss of about $\ln V$. This is the
# cheapest test of any language model, and for V3 it would say $\ln 129{,}280 = 11.77$. A first loss far above means that the logits are too large;
# one far *below* means that the answer leaks into the input. The second can be tested too: change one token, and look where the logits move.

# %%
changed = tokens.copy()
changed[0, 10] = ord("#")
moved = np.abs(model.logits(changed) - model.logits(tokens)).max(axis=-1)  # (B, T)
print("first sequence, positions whose logits moved:", np.flatnonzero(moved[0] > 1e-6).tolist())
print("second sequence:", np.flatnonzero(moved[1] > 1e-6).tolist())

# %% [markdown]
# Position 10 and those after it: no token sees its future, and no sequence another.
#
# ## Fourth stop: one token further
#
# The third idea is multi-token prediction (MTP, section 2.2). Behind the main model stands one more block. At position $i$ it is given the state
# $h_i$ of the main model *and* the embedding of the next token $t_{i+1}$, joined by a matrix (21), and must predict the token after next, with the same
# head (23):

# %%
module = model.mtp[0]
next_embedding, _ = model.embed_tokens.forward(tokens[:, 1:])
deeper, _ = module.forward(next_embedding, hidden[:, :-1], model.rotary(T - 1))
further, _ = model.head.forward(deeper)
notebook.shapes(
    letters,
    next_embedding=next_embedding,
    joins=module.eh_proj.value,
    deeper=deeper,
    further=further,
)

i = 4
read, shown, asked = (
    tokenizer.decode(piece)
    for piece in (tokens[0, : i + 1], whole[0, i + 1 : i + 2], whole[0, i + 2 : i + 3])
)
print(f"\nposition {i}: has read {read!r}, is shown {shown!r}, must predict {asked!r}")
losses = model.losses(tokens, targets)
print(f"MTP loss {losses.mtp[0]:.3f}, main loss {losses.main:.3f}, total {losses.total:.3f}")

# %% [markdown]
# The total is $L_\text{main} + \lambda L_\text{MTP}$ with $\lambda = 0.3$ (25), and a balance term with weight 0.0001. The MTP loss is a little lower than $\ln V$
# for a dull reason: its last position has no answer in the batch, yet the sum over 23 positions is divided by 24 (24). The module makes training
# signals denser, and when the model writes it can guess ahead: [notebook 8](notebooks/08_multi_token_prediction.ipynb) and
# [notebook 9](notebooks/09_speculative_decoding.ipynb).
#
# ## Exercise 3: the right indices
#
# Most mistakes in MTP are made here. From the tokens and targets of a batch, what is shown to the module, and what must it predict?


# %% tags=["solution"]
def shown_and_asked(tokens, targets):
    """tokens, targets (B, T) → shown (B, T − 1), asked (B, T − 1): at position i, t_{i+1} and t_{i+2}."""
    # targets[:, i] is already t_{i+1}. Position T − 1 has no t_{i+2} in the batch.
    return tokens[:, 1:], targets[:, 1:]


# %% tags=["check"]
def right_pair(tokens, targets):
    together = np.concatenate([tokens, targets[:, -1:]], axis=1)  # (B, T + 1)
    return together[:, 1:-1], together[:, 2:]


check.ok(check.against(right_pair, shown_and_asked, tokens, targets))

# %% [markdown]
# ## The same with V3's sizes
#
# Nothing that you have seen changes but the numbers. Count them: no weight is needed for that, a configuration is enough.

# %%
v3 = ModelConfig.preset("deepseek-v3")
everything, at_work = parameters.total(v3), parameters.activated(v3)
print(f"parameters              {everything:>15,}   the paper: 671B")
print(f"at work on one token    {at_work:>15,}   the paper: 37B, or {at_work / everything:.1%}")
print(f"MTP module, in addition {parameters.mtp_total(v3):>15,}")
print(f"cache per token, bytes  {kv_cache.bytes_per_token(v3):>15,}   the paper: 70.272 kB")
pieces = {}
names = {
    "routed experts": "routed experts",
    "shared experts": "shared expert",
    "dense FFN": "3 dense blocks",
}
names |= {"embedding": "embedding, head", "head": "embedding, head"}
for part in parameters.parts(v3):
    if part.name.startswith("MTP"):
        continue
    name = names.get(part.name, "attention" if "_proj" in part.name else "norms, routers")
    old = pieces.get(name, (0, 0))
    pieces[name] = (
        old[0] + part.total,
        old[1] + (part.activated if part.name != "embedding" else 0),
    )
assert sum(t for t, _ in pieces.values()) == everything
assert sum(a for _, a in pieces.values()) == at_work

# %% tags=["picture"]
figure, axes = notebook.picture(1, 2, width=9.4, height=3.0, sharey=True)
for ax, column, title in zip(axes, (0, 1), ("All parameters", "At work on one token"), strict=True):
    sizes = [pair[column] / 1e9 for pair in pieces.values()]
    bars = ax.barh(list(pieces), sizes, color=[BLUE, ORANGE][column])
    ax.bar_label(bars, labels=[f"{s:.1f}" for s in sizes], padding=4)
    ax.set(xlabel="billions", xlim=(0, max(sizes) * 1.17))
    ax.grid(axis="y", visible=False)
    ax.set_title(title)
axes[0].invert_yaxis()
notebook.show(
    figure,
    "Left: nearly all parameters are routed experts. Right: at work, attention is a third.",
)

# %% [markdown]
# **What to notice.** The left picture is one bar. V3 is a model of ordinary cost (right) with an enormous cupboard of experts (left), of which a token
# opens 8 drawers in each of 58 blocks. (Looking up one row of the embedding is not counted as work; counted in full it would be 37.6B. The ISCA paper on
# V3's hardware, [Table 1](https://arxiv.org/abs/2505.09343), has the 70.272 kB.) All of it, and the dollars: [notebook 13](notebooks/13_what_it_costs.ipynb);
# the files themselves: [notebook 12](notebooks/12_real_checkpoints.ipynb).
#
# ## Exercise 4: 70,272 bytes
#
# What does one token leave behind in memory, in BF16 (2 bytes a number)? Only what MLA has to remember, in every block.


# %% tags=["solution"]
def cache_bytes(config):
    """Bytes per token of all blocks."""
    # config.num_hidden_layers, config.kv_lora_rank (d_c) and config.qk_rope_head_dim (d_r) help.
    return config.num_hidden_layers * (config.kv_lora_rank + config.qk_rope_head_dim) * 2


# %% tags=["check"]
presets = {name: ModelConfig.preset(name) for name in ("deepseek-v3", "deepseek-v2", "kimi-k2")}
for name, c in (presets | {"ours": config}).items():
    check.ok(check.close(cache_bytes(c), kv_cache.bytes_per_token(c), name=name))

# %% [markdown]
# ## Last stop: learning
#
# A step of training: forward, backward, AdamW, and after it the biases of the routers, up for experts with little to do and down for busy ones. The text is
# the one above, in random pieces.

# %%
train = TrainConfig(steps=120, batch_size=8, context_length=48, learning_rate=1e-2, warmup_steps=10)
optimizer = AdamW(model.parameters, train)
draw = np.random.default_rng(1)
history = []
for step in range(train.steps):
    starts = draw.integers(0, len(stream) - train.context_length, train.batch_size)
    batch = np.stack([stream[s : s + train.context_length + 1] for s in starts])
    now = settings(step, config, train)
    model.parameters.zero_grads()
    losses = model.forward_backward(
        batch[:, :-1], batch[:, 1:], mtp_loss_weight=now.mtp_loss_weight
    )
    optimizer.step(now.learning_rate)
    model.update_biases(losses.counts, now.bias_update_speed)
    history.append((losses.main, losses.mtp[0]))
history = np.array(history)  # (steps, 2)

frequency = np.bincount(stream) / len(stream)
counting = -np.sum(frequency[frequency > 0] * np.log(frequency[frequency > 0]))
print(f"guessing            {np.log(258):.2f} nats per token")
print(f"first step          {history[0, 0]:.2f}")
print(f"letter frequencies  {counting:.2f}")
print(f"last ten steps      {history[-10:, 0].mean():.2f}")
assert history[-10:, 0].mean() < counting < history[0, 0]

# %% tags=["picture"]
figure, axes = notebook.picture(height=3.4)
axes.plot(history[:, 0], color=BLUE, label="next token")
axes.plot(history[:, 1], color=ORANGE, label="token after next (MTP)")
axes.axhline(np.log(258), color="0.4", ls=":")
axes.text(train.steps, np.log(258) + 0.08, "ln 258: guessing", ha="right", color="0.3")
axes.axhline(counting, color="0.4", ls=":")
axes.text(train.steps, counting + 0.08, "letter frequencies", ha="right", color="0.3")
axes.set(xlabel="step", ylabel="nats per token", ylim=(0, 6.2), title="A tiny DeepSeek-V3 learns")
axes.legend(loc="lower left")
notebook.show(
    figure,
    "Both losses begin at ln 258, fall fast to the line of letter frequencies, and then slowly below it.",
)

# %% [markdown]
# **What to notice.** First it learns which letters are frequent, a matter of a few steps; only then, below the second line (after about 15 steps), what follows what, for which it needs
# attention and the blocks. The MTP loss runs a little below the main one although its question is harder: the module has been shown one token more, and is one block
# deeper. The model sees a short text again and again, so the end of the curve says nothing about new text: [notebook 11](notebooks/11_train_a_tiny_one.ipynb) trains on more
# and measures on what was held out. And the router?

# %%
_, trained = model.forward(tokens, targets)
after = trained.blocks[1].ffn.routing
print(f"largest gate: {routing.gates.max():.2f} before training, {after.gates.max():.2f} after")
spaces = np.flatnonzero(tokens[0] == ord(" "))
for name, r in (("before", routing), ("after", after)):
    mean = gates_of(r)[spaces].mean(axis=0)  # (E,)
    order = np.argsort(-mean, kind="stable")[:4]
    print(
        f"{name:<7} mean gates of the {len(spaces)} spaces:",
        ", ".join(f"expert {e} {mean[e]:.2f}" for e in order),
    )


# %% tags=["picture"]
def draw_trained(block=1, sequence=0):
    """The gates of a block of the trained model."""
    figure, axes = notebook.picture(height=3.4)
    served = trained.blocks[block].ffn.routing
    title = f"Who serves whom, after {train.steps} steps, block {block}"
    image = draw_gates(axes, served, title, sequence)
    figure.colorbar(image, ax=axes, label="gate")
    notebook.show(figure, "The same after training: gates differ more from each other than before.")


draw_trained()
notebook.explore(draw_trained, block=[1, 2], sequence=[0, 1])

# %% [markdown]
# **What to notice.** Compare the columns of the spaces (·). Before training they already shared experts, for a simple reason: equal bytes enter with equal
# embeddings, and an untrained attention adds little to them. After training it is mostly others
# who serve them, and all gates differ more: the router has begun to prefer. Whether experts *specialise* takes more text to say. (The model computes in float64 here,
# because a router turns a round-off into another choice now and then, and 120 steps later into other digits.)
#
# (With a running kernel, controls above let you choose the other block and the other sequence.)
#
# ## And backwards
#
# Where do the gradients of all this come from? From the backward passes in `minids/ops`, each beside its forward pass, and a rule of arithmetic decides whether
# they are right. For the norm of the second stop:

# %%
check.ok(
    check.gradient(
        rmsnorm.forward, rmsnorm.backward, {"x": rng.standard_normal((2, 8)), "gain": np.ones(8)}
    )
)

# %% [markdown]
# ## Where to go from here
#
# - How gradients are made and proved: [notebook 2](notebooks/02_backpropagation.ipynb).
# - Attention: [positions](notebooks/03_positions.ipynb), [from MHA to MLA](notebooks/04_mha_to_mla.ipynb), [MLA inside](notebooks/05_mla_inside.ipynb).
# - [Experts](notebooks/06_experts.ipynb) and [their balance](notebooks/07_balance.ipynb).
# - Two tokens at a time: [MTP](notebooks/08_multi_token_prediction.ipynb), [speculative decoding](notebooks/09_speculative_decoding.ipynb).
# - Eight bits: [FP8](notebooks/10_fp8.ipynb), which this tour left out.
# - What goes wrong although the shapes are right: [the museum of mistakes](notebooks/14_museum_of_mistakes.ipynb).
# - The whole forward pass on one page: [minids/pico.py](minids/pico.py); `minids tour --preset deepseek-v3` lists every array of V3 on the way.
