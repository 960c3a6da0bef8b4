# %% [markdown]
# # 1. A tour of DeepSeek-V3 in one sitting
#
# DeepSeek-V3 has 671 billion parameters, and its architecture fits on one page of NumPy. **What happens to a sentence on its way
# through, and which of the parts are really new?**
#
# %% [markdown]
# You will follow one sentence from text to loss through a trained model that has every mechanism of V3's architecture and 1.3 million parameters: embedding, a block
# with latent attention and experts, the head, the module that looks two tokens ahead. Then you put V3's sizes in place of the small ones,
# and a picture shows how old each part is. Nothing is derived here; each stop names the notebook that does it. [Notebook 0](notebooks/00_one_page.ipynb) goes
# the same way through the code, one file from top to bottom.
#
# You need matrix products and a rough idea of what attention is. The paper is the [DeepSeek-V3 report](https://arxiv.org/abs/2412.19437),
# section 2; numbers in brackets are its equations. Code used: [model](minids/model.py), [block](minids/layers/block.py),
# [mla](minids/layers/mla.py), [moe](minids/layers/moe.py), [mtp](minids/layers/mtp.py), [rmsnorm](minids/ops/rmsnorm.py),
# [router](minids/ops/router.py), [cross_entropy](minids/ops/cross_entropy.py), [parameters](minids/lab/analysis/parameters.py),
# [kv_cache](minids/lab/analysis/kv_cache.py). The checks of the exercises are in [lessons/tour](minids/lab/lessons/tour.py).

# %%
import numpy as np

import minids
from minids import ModelConfig, check
from minids.lab import notebook
from minids.lab.analysis import kv_cache, parameters
from minids.lab.lessons import tour as lesson
from minids.lab.plots import tour as draw
from minids.ops import cross_entropy, rmsnorm

notebook.set_up()
rng = np.random.default_rng(0)
notebook.here()

# %% [markdown]
# That is the map, with V3's sizes. It stands at the head of every notebook, and the part that the notebook is about is in colour.
#
# ## 1. A model with everything on, and a sentence
#
# The model was trained on the prose, the code and the sums that come with this package, [in nine minutes on one core](notebooks/model/README.md).
#
# | | letter | V3 | here |
# |---|---|---|---|
# | blocks, of them without experts | $L$ | 61, 3 | 4, 1 |
# | width | $d$ | 7168 | 96 |
# | heads | $n_h$, H | 128 | 4 |
# | latent of queries; of keys and values | $d_c'$, $d_c$ | 1536; 512 | 48; 32 |
# | a head's content, position and value part | $d_h$, $d_r$, $d_v$ | 128, 64, 128 | 24, 16, 24 |
# | experts, chosen for a token, shared | E, K | 256, 8, 1 | 16, 4, 1 |
# | groups of experts, of which a token may use | | 8, 4 | 4, 2 |
# | vocabulary | V | 129,280 | 768 |
# | modules that look further ahead | | 1 | 1 |
#
# A token here is a piece of text of one to a few letters, "▸" is the one that begins a document, "␣" a space.

# %%
model = notebook.model(np.float64)
config = model.config
whole, pieces = notebook.read(model)  # (1, 23)
tokens, targets = whole[:, :-1], whole[:, 1:]  # targets: the token after each
B, T = tokens.shape
print(" ".join(pieces))
notebook.shapes({"T": T}, tokens=tokens, targets=targets)
print(f"\n{model.parameters.values.size:,} parameters")

# %% [markdown]
# ## 2. First stop: the embedding
#
# A table with one row of $d$ numbers per token. Looking up is all that happens, and position plays no part yet:

# %%
rotary = model.rotary(T)
x, _ = model.embed_tokens.forward(tokens)
notebook.shapes({"T": T, "d": 96, "V": 768}, table=model.embed_tokens.weight.value, x=x)

# %% [markdown]
# ## 3. Second stop: a block
#
# Sixty-one times V3 does the same two things (Figure 2 of the report):
#
# $$ x \leftarrow x + \mathrm{MLA}(\mathrm{RMSNorm}(x)), \qquad x \leftarrow x + \mathrm{experts}(\mathrm{RMSNorm}(x)) . $$
#
# (In V3's first three blocks one ordinary network stands in the place of the experts.) In the first half a token reads others; in the second each is worked on
# alone. The result of each half is *added* to what came in. The norm gives every token the same length before it is read. Here is the
# input of block 1, the first with experts, before and after the norm:

# %%
x, _ = model.blocks[0].forward(x, rotary)
block = model.blocks[1]
normed, _ = block.input_norm.forward(x)
notebook.shapes({"T": T, "d": 96}, x=x, normed=normed)

# %% [markdown]
# ### Attention with two latents
#
# Multi-head Latent Attention (MLA, section 2.1.1) does not make queries, keys and values from $x$ directly. It first compresses $x$ into two
# small vectors, the *latents*, and makes all heads from those:
#
# $$ \underbrace{c^Q = W^{DQ} x}_{(6)} \;\to\; q_i, \qquad\qquad
# \underbrace{c^{KV} = W^{DKV} x}_{(1)} \;\to\; k_i,\, v_i, \qquad\qquad
# \underbrace{k^R = \mathrm{RoPE}(W^{KR} x)}_{(3)} . $$
#
# The last, a key of $d_r$ numbers that carries the position, is one for all heads. (Both latents are normalised on the way.)

# %%
mla = block.attention
c_q, _ = mla.query_latent(normed)  # (6)
q, _ = mla.queries(normed, rotary)  # content and position part side by side (9)
c_kv, k_rope, _ = mla.latent(normed, rotary)
k, v, _ = mla.keys_values(c_kv, k_rope)  # (2), (4), (5)
attended, _ = mla.forward(normed, rotary)

letters = {"T": T, "H": 4, "d": 96, "d_c'": 48, "d_c": 32, "d_r": 16, "d_h+d_r": 40, "d_v": 24}
notebook.shapes(letters, c_q=c_q, q=q, c_kv=c_kv, k_rope=k_rope, k=k, v=v, attended=attended)
print("\nkept of each token: ", c_kv[0, 0].size + k_rope[0, 0].size, "numbers")
print("made of them:       ", k[0, 0].size + v[0, 0].size)
x = x + attended

# %% [markdown]
# **What to notice.** To write the next token a model needs keys and values of all earlier ones. MLA has to remember only $c^{KV}$ and $k^R$:
# here 48 numbers, in V3 576, where ordinary attention with V3's heads would keep 32,768. This is DeepSeek's first idea (it came with V2).
# [Notebook 4](notebooks/04_mha_to_mla.ipynb) leads there, [notebook 5](notebooks/05_mla_inside.ipynb) shows why keys and values need not even
# be made when the model writes, and [notebook 3](notebooks/03_positions.ipynb) explains the rotation.
#
# ### A few experts of many
#
# The second half (section 2.1.2) has $E$ small networks and one *router*. The router gives each expert a score between 0 and 1 (15),
# the best $K$ are chosen (14), and their scores, scaled to a fixed sum, are the *gates* with which their outputs are added (13). One more expert
# is *shared*: every token visits it.
#
# **Write your guess; then run.** The upper picture is a fresh model, the lower the trained one. In which of them will the gates of a token differ more from each other?

# %%
normed, _ = block.ffn_norm.forward(x)
out, saved = block.moe.forward(normed)
routing = saved.routing
notebook.shapes(
    {"T": T, "E": 16, "K": 4, "d": 96},
    scores=routing.scores, chosen=routing.chosen, gates=routing.gates, out=out,
)  # fmt: skip
x = x + out

fresh = minids.DeepSeekV3(config, seed=0, dtype=np.float64)
_, before = fresh.forward(tokens, targets)
panels = {
    "Gates before any training": lesson.gates_of(before.blocks[1].ffn.routing),
    "and after it": lesson.gates_of(routing),
}
draw.gates(panels, pieces[:-1], groups=4)

# %% [markdown]
# **What to notice.** Each column has four coloured cells, and they lie in two of the four groups between the lines: V3 keeps a group
# on one node of its cluster, and a token that visits few nodes is cheap to send (node-limited routing). Before training the gates are nearly equal;
# afterwards they differ, and equal tokens choose alike: look at the columns of "␣", or at the digits. The gates of a token sum to 2.5, V3's scaling
# factor. In V3 a token uses 9 experts of 257. That is why so large a model computes so little.
#
# Which experts are chosen depends on the scores *plus a bias*, which is there to balance the load; the gates do not contain the bias (16). That is
# "auxiliary-loss-free" balancing, the second idea. [Notebook 6](notebooks/06_experts.ipynb) is about the experts,
# [notebook 7](notebooks/07_balance.ipynb) about their balance.
#
# ### Exercise 1: gates
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
check.ok(lesson.check_gates(gates))

# %% [markdown]
# A natural mistake is to use the biased scores for the gates as well. Then the bias, which is meant to balance the load, changes what the model computes:


# %%
def biased_gates(scores, bias, chosen):
    return gates(scores + bias, bias, chosen)  # yours, given the wrong scores


notebook.caught(lesson.check_gates(biased_gates))

# %% [markdown]
# ### Exercise 2: a block from its parts
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
check.ok(lesson.check_my_block(my_block, block, rotary))

# %% [markdown]
# ## 4. Third stop: the head, and the loss
#
# After the last block comes one more norm, and a table like the first: each of its $V$ rows is compared with the token's state, and the products
# (the *logits*) become probabilities by a softmax. The loss is the mean surprise at what really came, $-\ln p(\text{target})$.
#
# **Write your guess; then run.** The model has read text much like this, but never this sentence. Which token surprises it least: `2` after `4`, `.` after
# `self`, or `value` after the dot?

# %%
for later in model.blocks[2:]:
    x, _ = later.forward(x, rotary)
hidden, _ = model.norm.forward(x)
logits, _ = model.head.forward(hidden)  # (B, T, V)
loss, _ = cross_entropy.forward(logits.reshape(T, -1), targets.reshape(-1))

each = [cross_entropy.forward(logits[0, t : t + 1], targets[0, t : t + 1])[0] for t in range(T)]
guesses = notebook.pieces_of(model, logits[0].argmax(axis=-1))
draw.surprise(pieces[1:], np.array(each), guesses)
print(f"loss {loss:.3f} nats per token; in one call {model.losses(tokens, targets).main:.3f}")
print(f"untrained {fresh.losses(tokens, targets).main:.3f}; ln 768 = {np.log(768):.3f}")

# %% [markdown]
# **What to notice.** After `self` it expects the dot, because that is how Python is written; the name that follows it does not expect. It
# knows where digits stand, but it does not add. And an untrained model should not know anything: all 768 tokens about equally likely, so a loss of about $\ln V$. This is a
# cheap test of any language model, and for V3 it would be $\ln 129{,}280 = 11.77$. A first loss far above means that the logits are too large;
# one far *below* means that the model sees what it has to predict. This can be tested directly, too: change one token, and see where the logits change.

# %%
changed = tokens.copy()
changed[0, 10] = ord("9")  # instead of the 2 of 25
moved = np.abs(model.logits(changed) - model.logits(tokens)).max(axis=-1)[0]  # (T,)
print("positions whose logits moved:", np.flatnonzero(moved > 1e-6).tolist())

# %% [markdown]
# Position 10 and those after it: no token sees its future.
#
# ## 5. Fourth stop: one token further
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
    {"T−1": T - 1, "d": 96, "2d": 192, "V": 768},
    next_embedding=next_embedding, joins=module.eh_proj.value, deeper=deeper, further=further,
)  # fmt: skip

i = 7
ahead = notebook.pieces_of(model, further[0].argmax(axis=-1))
print(f"\nposition {i} has read {' '.join(pieces[: i + 1])}")
print(f"the main model is asked for {pieces[i + 1]!r} and says {guesses[i]!r}")
print(f"the module is shown {pieces[i + 1]!r}, is asked for {pieces[i + 2]!r}, says {ahead[i]!r}")
losses = model.losses(tokens, targets)
print(f"\nMTP loss {losses.mtp[0]:.3f}, main loss {losses.main:.3f}, total {losses.total:.3f}")

# %% [markdown]
# The total is $L_\text{main} + \lambda L_\text{MTP}$ with $\lambda = 0.3$ (25), and a balance term with weight 0.0001. In training every token is now a
# target twice; and when the model writes, the module can guess ahead: [notebook 8](notebooks/08_multi_token_prediction.ipynb) and
# [notebook 9](notebooks/09_speculative_decoding.ipynb).
#
# ### Exercise 3: the right indices
#
# An index is easily off by one here. From the tokens and targets of a batch, what is shown to the module, and what must it predict?


# %% tags=["solution"]
def shown_and_asked(tokens, targets):
    """tokens, targets (B, T) → shown (B, T − 1), asked (B, T − 1): at position i, t_{i+1} and t_{i+2}."""
    # targets[:, i] is already t_{i+1}. Position T − 1 has no t_{i+2} in the batch.
    return tokens[:, 1:], targets[:, 1:]


# %% tags=["check"]
check.ok(lesson.check_shown_and_asked(shown_and_asked, tokens, targets))

# %% [markdown]
# ## 6. The same with V3's sizes
#
# Only the sizes change. To count parameters no weights are needed, a configuration is enough.
#
# **Write your guess; then run.** How much of the 671 billion lies in routed experts: half, four fifths, or nearly all?

# %%
v3 = ModelConfig.preset("deepseek-v3")
everything, at_work = parameters.total(v3), parameters.activated(v3)
print(f"parameters              {everything:>15,}   the paper: 671B")
print(f"at work on one token    {at_work:>15,}   the paper: 37B, or {at_work / everything:.1%}")
print(f"MTP module, in addition {parameters.mtp_total(v3):>15,}")
print(f"cache per token, bytes  {kv_cache.bytes_per_token(v3):>15,}   the paper: 70.272 kB")
notebook.slide("where_parameters_sit", height=4.0)

# %% [markdown]
# **What to notice.** A token is multiplied with as many parameters as in a dense model of 37 billion. Nearly all of the 671 billion
# lie in experts, of which a token uses 8 of 256 in each of 58 blocks. (Looking up one row of the embedding is not counted as work; counted in full it would be 37.6B. The ISCA paper on
# V3's hardware, [Table 1](https://arxiv.org/abs/2505.09343), has the 70.272 kB.) More of this, and the dollars: [notebook 13](notebooks/13_what_it_costs.ipynb);
# the files themselves: [notebook 12](notebooks/12_real_checkpoints.ipynb).
#
# ### Exercise 4: 70,272 bytes
#
# What does one token leave behind in memory, in BF16 (2 bytes a number)? Only what MLA has to remember, in every block.


# %% tags=["solution"]
def cache_bytes(config):
    """Bytes per token of all blocks."""
    # config.num_hidden_layers, config.kv_lora_rank (d_c) and config.qk_rope_head_dim (d_r) help.
    return config.num_hidden_layers * (config.kv_lora_rank + config.qk_rope_head_dim) * 2


# %% tags=["check"]
check.ok(lesson.check_cache_bytes(cache_bytes, config))

# %% [markdown]
# ## 7. Which of the parts are really new?
#
# **Write your guess; then run.** You have met about ten parts: many heads, latents, rotations, norms, gated networks, experts, groups, biases, a look ahead.
# How many of them appear for the first time in DeepSeek-V3, in December 2024?

# %%
draw.parts_by_year()

# %% [markdown]
# **What to notice.** Of what you have seen today one thing is first in V3, and it is a change to an idea of the same year: the look ahead as a chain, in
# which every prediction sees the one before it. Latents, fine-grained experts and the bias are DeepSeek's too, but from papers of the eleven months before. The rest is
# older and from others. What the report adds beyond the architecture is how to *train* it: eight-bit numbers in tiles ([notebook 10](notebooks/10_fp8.ipynb)) and a pipeline
# with less waiting ([notebook 15](notebooks/15_pipelines.ipynb)). So the model is a choice of parts more than an invention.
# (Years are those of the papers on arXiv.)
#
# ## 8. And backwards
#
# Where do the gradients of all this come from? From the backward passes in `minids/ops`, each beside its forward pass, and finite differences tell whether
# they are right. For the norm of the second stop:

# %%
inputs = {"x": rng.standard_normal((2, 8)), "gain": np.ones(8)}
check.ok(check.gradient(rmsnorm.forward, rmsnorm.backward, inputs))

# %% [markdown]
# ## Where to go from here
#
# Three ways on, for three kinds of reader:
#
# - **to understand it**: attention, from [positions](notebooks/03_positions.ipynb) over [MHA and MLA](notebooks/04_mha_to_mla.ipynb) to [MLA inside](notebooks/05_mla_inside.ipynb);
#   [experts](notebooks/06_experts.ipynb) and [their balance](notebooks/07_balance.ipynb); two tokens at a time, [MTP](notebooks/08_multi_token_prediction.ipynb) and
#   [speculative decoding](notebooks/09_speculative_decoding.ipynb).
# - **to build it**: [gradients by hand](notebooks/02_backpropagation.ipynb), [FP8](notebooks/10_fp8.ipynb), [training](notebooks/11_train_a_tiny_one.ipynb),
#   [real checkpoints](notebooks/12_real_checkpoints.ipynb), and what goes wrong although the shapes are right, [the museum of mistakes](notebooks/14_museum_of_mistakes.ipynb).
# - **to reckon with it**: [what it costs](notebooks/13_what_it_costs.ipynb); `minids tour --preset deepseek-v3` lists every array of V3 on the way.

# %% tags=["picture"]
notebook.card(
    """
    - A block looks back (attention with two latents), asks a few of many experts, and adds the results.
    - The router chooses by score plus bias and weighs by score alone; one shared expert is always on.
    - Behind the last block a module is shown the next token and predicts the one after it.
    """,
    "37 of 671 billion",
    "parameters work on a token, 5.5 %",
    {"all": 671, "at work": 37},
)
