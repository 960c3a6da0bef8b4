# %% [markdown]
# # 5. MLA inside
#
# Latent attention remembers 576 numbers of a token where its 128 heads attend with 40,960. **How can it attend without ever making the
# 40,960 again, and what does it pay for that?**
#
# %% [markdown]
# [Notebook 4](notebooks/04_mha_to_mla.ipynb) ended with a small cache. Here you build the whole of DeepSeek-V3's attention from eleven
# equations, compare it with the package number by number, and then move one bracket. After that step the small cache is also fast.
# Three questions come up on the way. Why is the rotary key kept apart, and shared by all heads? Two matrices stand side by side: why does
# nobody multiply them beforehand? And what does training do to the rotary part?
#
# Equations are those of section 2.1.1 of the [V3 report](https://arxiv.org/abs/2412.19437); the moved bracket is described in section
# 2.1.2 of [V2's](https://arxiv.org/abs/2405.04434). Used here: [the layer](minids/layers/mla.py),
# [attention](minids/ops/attention.py), [linear](minids/ops/linear.py),
# [rmsnorm](minids/ops/rmsnorm.py), [rope](minids/ops/rope.py), [yarn](minids/ops/yarn.py), the walk through a model's
# blocks, [through](minids/lab/figures/trained.py), the two forms of [decode](minids/inference/decoder.py) with their
# [cache](minids/inference/cache.py), the counts of [flops](minids/lab/analysis/flops.py), and the study of [QK-Clip](minids/lab/studies/qk_clip.py).
# The checks of the exercises are in [lessons/latent](minids/lab/lessons/latent.py).

# %%
import numpy as np

import minids
from minids import check
from minids.inference.decoder import Decoder
from minids.lab import notebook
from minids.lab.analysis import flops
from minids.lab.figures.trained import through
from minids.lab.lessons import latent as lesson
from minids.lab.plots import latent as draw
from minids.ops import attention, linear, rmsnorm, rope, yarn

notebook.set_up()
rng = np.random.default_rng(0)
notebook.here("attention")

# %% [markdown]
# ## 1. A layer small enough to print
#
# Take the attention of the second block of [the trained model](notebooks/model/README.md). It reads the sentence of these notebooks, "The sum of 17 and 25 is 42,
# so return self.value."
#
# | | letter | V3 | here |
# |---|---|---|---|
# | hidden state | $d$ | 7168 | 96 |
# | heads | $n_h$, H | 128 | 4 |
# | latent of keys and values | $d_c$ | 512 | 32 |
# | latent of queries | $d_c'$ | 1536 | 48 |
# | a head's query and key: content | $d_h$ | 128 | 24 |
# | a head's query and key: position | $d_r$ | 64 | 16 |
# | a head's value | $d_v$ | 128 | 24 |
#
# (Some sizes of this model are equal, and the shapes below say so: $d_v = d_h$, as in V3, $d = n_h d_v$ and $d_c' = d_c + d_r$.)

# %%
model = notebook.model(np.float64)
tokens, pieces = notebook.read(model)
at = list(through(model, tokens))[1]
layer, h, rotary = at.block.attention, at.normed, at.rotary  # (B, T, d) goes in

B, T, H, d_c, d_h, d_r, d_v = 1, 23, 4, 32, 24, 16, 24
letters = lesson.letters(model.config, T)
matrices = ("q_a_proj", "q_b_proj", "kv_a_proj", "kv_b_proj", "o_proj")
notebook.shapes(letters, **{name: getattr(layer, name).weight.value for name in matrices})

# %% [markdown]
# Five matrices, though the equations have eight: the program keeps those together that read the same thing, one above the other.
# `kv_a_proj` is $W^{DKV}$ on top of $W^{KR}$ (32 + 16 rows), `kv_b_proj` has $W^{UK}_i$ and $W^{UV}_i$ of head after head, `q_b_proj`
# $W^{UQ}_i$ and $W^{QR}_i$. Apart:

# %%
w_dkv, w_kr = np.split(layer.kv_a_proj.weight.value, [d_c])  # W^DKV, W^KR
kv_up = layer.kv_b_proj.weight.value.reshape(H, d_h + d_v, d_c)
w_uk, w_uv = kv_up[:, :d_h], kv_up[:, d_h:]  # W^UK_i, W^UV_i of all heads
w_dq = layer.q_a_proj.weight.value  # W^DQ
q_up = layer.q_b_proj.weight.value.reshape(H, d_h + d_r, -1)
w_uq, w_qr = q_up[:, :d_h], q_up[:, d_h:]  # W^UQ_i, W^QR_i
w_o = layer.o_proj.weight.value  # W^O
gain_c, gain_q = layer.kv_a_layernorm.gain.value, layer.q_a_layernorm.gain.value
notebook.shapes(letters, w_dkv=w_dkv, w_kr=w_kr, w_uk=w_uk, w_uv=w_uv, w_uq=w_uq, w_qr=w_qr)

# %% [markdown]
# ## 2. Keys and values: down, and up again
#
# The hidden state $h_t$ of a token is squeezed to a latent, and all heads' keys and values are made from that:
#
# $$ c^{KV}_t = W^{DKV} h_t \;\;(1), \qquad
# k^C_{t,i} = W^{UK}_i c^{KV}_t \;\;(2), \qquad
# k^R_t = \mathrm{RoPE}(W^{KR} h_t) \;\;(3), $$
#
# $$ k_{t,i} = [\,k^C_{t,i}\,;\, k^R_t\,] \;\;(4), \qquad
# v^C_{t,i} = W^{UV}_i c^{KV}_t \;\;(5). $$
#
# The program has one more step, which the equations leave out: an RMSNorm on the latent before it is used. The cache keeps the *normed*
# latent, so the norm is never repeated.


# %%
def heads(c, weights):
    """c (B, T, n), weights (H, m, n) → (B, T, H, m): a matrix of its own for every head."""
    return np.einsum("btn,hmn->bthm", c, weights)


c_kv, _ = linear.forward(h, w_dkv)  # (1)
c_kv, _ = rmsnorm.forward(c_kv, gain_c)
k_content = heads(c_kv, w_uk)  # (2)
k_rope, _ = linear.forward(h, w_kr)
k_rope, _ = rope.forward(k_rope[:, :, None], *rotary)  # (3), one head; cos and sin of all angles
k = np.concatenate([k_content, np.broadcast_to(k_rope, (B, T, H, d_r))], axis=-1)  # (4)
v = heads(c_kv, w_uv)  # (5)
notebook.shapes(letters, h=h, c_kv=c_kv, k_content=k_content, k_rope=k_rope, k=k, v=v)

# %% [markdown]
# ### Queries: the same, and for another reason
#
# $$ c^Q_t = W^{DQ} h_t \;\;(6), \qquad q^C_{t,i} = W^{UQ}_i c^Q_t \;\;(7), \qquad
# q^R_{t,i} = \mathrm{RoPE}(W^{QR}_i c^Q_t) \;\;(8), \qquad q_{t,i} = [\,q^C_{t,i}\,;\,q^R_{t,i}\,] \;\;(9). $$
#
# Nobody caches a query, so this latent saves nothing when the model writes. It saves when the model *learns*: of a token the backward pass needs
# to keep 1,536 numbers instead of 24,576. It makes the rest again.
#
# ### Attention
#
# $$ o_{t,i} = \sum_{j \le t} \mathrm{softmax}_j\!\left(\frac{q_{t,i} \cdot k_{j,i}}{\sqrt{d_h + d_r}}\right) v^C_{j,i} \;\;(10), \qquad
# u_t = W^O\,[\,o_{t,1};\, \dots;\, o_{t,n_h}\,] \;\;(11). $$

# %%
c_q, _ = rmsnorm.forward(linear.forward(h, w_dq)[0], gain_q)  # (6), and a norm here too
q_content = heads(c_q, w_uq)  # (7)
q_rope, _ = rope.forward(heads(c_q, w_qr), *rotary)  # (8)
q = np.concatenate([q_content, q_rope], axis=-1)  # (9)
scale = (d_h + d_r) ** -0.5
o, _ = attention.forward(q, k, v, scale)  # (10)
u, _ = linear.forward(o.reshape(B, T, H * d_v), w_o)  # (11)
notebook.shapes(letters, c_q=c_q, q_content=q_content, q_rope=q_rope, q=q, o=o, u=u)

package, _ = layer.forward(h, rotary)
check.ok(check.close(u, package, name="u"))

# %% [markdown]
# The eleven equations are the package's layer, to the last digits of float64.
#
# How wide is everything at V3's sizes? Bars to scale, in numbers per token:

# %%
draw.widths()

# %% [markdown]
# **What to notice.** The cached row is the thinnest of all: 576, against 24,576 + 16,384 = 40,960 of the two rows below it that are made
# from it. (40,960 is MHA's 32,768 and 128 copies of one rotary key.) Every other number on this page can be thrown away when the token is done.
#
# ## 3. One rotary key for all heads
#
# $k^R$ has no head index in equation 3. If every head had its own, the cache would hold $d_c + n_h d_r = 512 + 8192$ numbers of a token, fifteen times
# as many, nearly all of them for positions. So one key serves 128 heads. In (4) it is *copied*, and a copy on the way forward is a sum on the way back.
#
# ### Exercise 1: the gradient of a shared key
#
# Given the gradient of all heads' keys, what are the gradients of the content parts and of the one $k^R$?


# %% tags=["solution"]
def shared_key_backward(dk, saved):
    """dk (B, T, H, d_h + d_r) → d_content (B, T, H, d_h), d_k_rope (B, T, 1, d_r)."""
    # Notebook 2: where the forward pass reads an array many times, the backward pass adds.
    return dk[..., :d_h], dk[..., d_h:].sum(axis=2, keepdims=True)


# %% tags=["check"]
check.ok(lesson.check_shared_key_backward(shared_key_backward, k_content, k_rope))

# %% [markdown]
# Two wrong answers, made from yours. Their shapes are right. The check tries on the numbers what would repair them. For the first it finds the
# cause. The second is not off by a factor, so the check refuses it and names no cause:


# %%
def mean_over_heads(dk, saved):
    content, shared = shared_key_backward(dk, saved)
    return content, shared / H


def first_head_only(dk, saved):
    return shared_key_backward(dk, saved)[0], dk[..., :1, d_h:]


for wrong in (mean_over_heads, first_head_only):
    notebook.caught(lesson.check_shared_key_backward(wrong, k_content, k_rope))

# %% [markdown]
# ## 4. Moving a bracket
#
# Now the model writes. The cache holds $[\,c_j\,;\,k^R_j\,]$ of all earlier tokens, and a new query wants scores and values. The obvious way is to
# expand the cache by equations 2 and 5 and go on as before: at every new token, $T$ old keys and values for each of 128 heads. But what
# is done with an expanded key? It is multiplied by a query, and a product of three factors can be bracketed in two ways:
#
# $$ q^C_i \cdot \big(W^{UK}_i c_j\big) \;=\; \big(W^{UK\top}_i q^C_i\big) \cdot c_j . $$
#
# On the left there is a matrix product *for each cached token* $j$. On the right there is one for the query, and then dot products with the
# cache as it is. Likewise, values can be expanded after they are summed, instead of before:
#
# $$ \sum_j p_{ij}\, \big(W^{UV}_i c_j\big) \;=\; W^{UV}_i \Big(\sum_j p_{ij}\, c_j\Big) . $$
#
# One says that $W^{UK}$ is *absorbed* into the query and $W^{UV}$ into the output.
#
# ### Exercise 2: absorb the key matrix
#
# From content queries make the queries that meet the latents themselves: multiply each head's by the transposed $W^{UK}_i$.


# %% tags=["solution"]
def absorbed_queries(q_content, w_uk):
    """q_content (B, T, H, d_h), w_uk (H, d_h, d_c) → (B, T, H, d_c)."""
    # The transposed matrix: sum over the d_h that query and matrix have in common, head by head.
    return np.einsum("bthm,hmc->bthc", q_content, w_uk)


# %% tags=["check"]
check.ok(lesson.check_absorbed_queries(absorbed_queries, q_content, w_uk))

# %% [markdown]
# ### Exercise 3: the value matrix, after the sum
#
# Now attend with these queries. The keys are the cache itself, $[\,c\,;\,k^R\,]$, and the values are the first $d_c$ entries of the same
# cache. That is ordinary `attention` with *one* key-value head:

# %%
cached = np.concatenate([c_kv[:, :, None], k_rope], axis=-1)  # (B, T, 1, d_c + d_r)
absorbed = lesson.head_by_head(q_content, w_uk)  # what exercise 2 asks for, by a loop
latent_queries = np.concatenate([absorbed, q_rope], axis=-1)  # (B, T, H, d_c + d_r)
mixed, _ = attention.forward(latent_queries, cached, cached[..., :d_c], scale)  # (B, T, H, d_c)

# %% [markdown]
# `mixed` holds $\sum_j p_{ij}\, c_j$ for every head. Make the outputs of it.


# %% tags=["solution"]
def values_after(mixed, w_uv):
    """Weighted sums of latents (B, T, H, d_c), w_uv (H, d_v, d_c) → o (B, T, H, d_v)."""
    return np.einsum("bthc,hvc->bthv", mixed, w_uv)


# %% tags=["check"]
check.ok(lesson.check_values_after(values_after, mixed, w_uv, o))

# %% [markdown]
# The same output $o$, and no key or value of any head was made. The two forms beside each other:

# %%
print("expanded, as in training: H heads with keys and values of their own")
notebook.shapes(letters, q=q, k=k, v=v)
print("\nabsorbed: H heads that read the same key and value, the cache")
notebook.shapes(letters, q=latent_queries, k=cached, v=cached[..., :d_c])

# %% [markdown]
# **What to notice.** Absorbed, MLA *is* multi-query attention ([notebook 4](notebooks/04_mha_to_mla.ipynb)), the form with the smallest cache of all, but with heads of
# $512 + 64 = 576$ instead of 128 numbers. It has the memory of one head, and still 128 different heads, because each looks at
# the cache through its own $W^{UK}_i$.
#
# ## 5. Proof, on a whole model
#
# The two forms are equal in exact arithmetic. In floating point sums are taken in another order, so the last digits differ. The
# package has both; here they read the sentence in pieces of 12, 1, 1 and 9 tokens, each from its own cache, through all four blocks:

# %%
out = {}
for absorb in (False, True):
    decoder = Decoder(model, "latent", batch=B, absorb=absorb)
    parts = [decoder.read(tokens[:, a:b]) for a, b in ((0, 12), (12, 13), (13, 14), (14, 23))]
    out[absorb] = np.concatenate(parts, axis=1)  # logits of all positions
difference = np.abs(out[True] - out[False]).max() / np.abs(out[False]).max()
print(f"float64: the forms differ by less than 1e-12: {difference < 1e-12}")

# %% [markdown]
# A wrong form is off in the first digit. One mistake is so natural that it deserves a look. Absorbed heads have $d_c + d_r$ entries. Should the
# softmax not be scaled by $1/\sqrt{d_c + d_r}$?


# %%
def by_absorption(q_content, q_rope, c_kv, k_rope, scale):
    """Equation 10 without any key or value: → o (B, T, H, d_v)."""
    q = np.concatenate([absorbed_queries(q_content, w_uk), q_rope], axis=-1)
    k = np.concatenate([c_kv[:, :, None], k_rope], axis=-1)
    return values_after(attention.forward(q, k, k[..., :d_c], scale)[0], w_uv)


def scaled_by_its_own_size(q_content, q_rope, c_kv, k_rope, scale):
    return by_absorption(q_content, q_rope, c_kv, k_rope, (d_c + d_r) ** -0.5)


everything = (q_content, q_rope, c_kv, k_rope, scale)
check.ok(lesson.check_absorbed(by_absorption, o, *everything))
notebook.caught(lesson.check_absorbed(scaled_by_its_own_size, o, *everything))

# %% [markdown]
# No: the scores are unchanged, so is their scale, $1/\sqrt{d_h + d_r}$. With the other scale a
# model attends too evenly: here $d_c + d_r = 48$ is more than $d_h + d_r = 40$, in V3 576 is three times 192. No shape shows it. (The first position is right all the same: it has one key, whose weight is 1 at any scale.)
#
# ## 6. Why the position had to stay outside
#
# Suppose content keys were turned as well: $k_j = R_j W^{UK} c_j$, where $R_j$ turns by the angle of position $j$. A score at distance $t - j$ is
#
# $$ (R_t\, q)^\top R_j W^{UK} c_j = q^\top R_{j-t}\, W^{UK} c_j , $$
#
# and what would have to be absorbed, $W^{UK\top} R_{t-j}\, q$, is *another vector for every distance*. A turn and $W^{UK}$ do not commute, so the turn
# cannot be moved to the other side of it.
#
# **Write your guess; then run.** Take 2,000 random pairs of a query and a key with V3's 128 content coordinates, and use for all distances the vector that is right for distance 0. At a distance of 32
# tokens, how well do the scores agree with the right ones: nearly, half, or not at all?

# %%
theta = yarn.plain_frequencies(128, 10000.0)
queries, some_keys = rng.standard_normal((2, 2000, 1, 1, 128))
scores = {}
for distance in (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024):
    turned, _ = rope.forward(queries, *yarn.rotation_table(theta, np.array([distance])))
    scores[distance] = np.sum(turned * some_keys, axis=-1).ravel()
draw.one_query_for_all(fixed=scores.pop(0), right=scores)

# %% [markdown]
# **What to notice.** One absorbed query would be nearly right for a neighbour (0.97), half right at 32 tokens and hardly at a thousand; the keys of all old tokens
# would have to be made again, with their turns, for every new token. So MLA turns 64 extra numbers, and leaves 128 alone (V2 report, section
# 2.1.3, "decoupled" RoPE). That is why (4) and (9) are concatenations.
#
# ## 7. Why not multiply the matrices beforehand?
#
# The absorbed query is $W^{UK\top}_i W^{UQ}_i c^Q$: two matrices side by side, both constant when training is over. Why not replace them by their product
# once and for all? Likewise $W^O_i W^{UV}_i$ at the other end. "Absorbed" sounds as if that were done.
#
# **Write your guess; then run.** Has the product of one head, 512 × 1536, fewer numbers than its two factors together, as many, or more?

# %%
apart_k, merged_k = 128 * (1536 + 512), 512 * 1536  # per head: W^UQ and W^UK, their product
apart_v, merged_v = 128 * (512 + 7168), 7168 * 512  # W^UV and W^O
print(f"per head: {merged_k / apart_k:.2f} times as many; for values {merged_v / apart_v:.2f}")
more = 61 * 128 * (merged_k + merged_v - apart_k - apart_v)
print(f"in all {more / 1e9:.1f} billion more; V3 uses 37 billion numbers for a token")

product = np.einsum("hmc,hmq->hcq", w_uk, w_uq)  # (H, d_c, d_c')
rank = np.linalg.matrix_rank(product[0])
print(f"here: the product {product[0].shape} of one head has rank {rank}, which is d_h")
draw.product(counts=(apart_k, merged_k))

# %% [markdown]
# **What to notice.** The product says nothing that its two factors do not say: its rank is $d_h = 128$, though it is $512 \times 1536$. But it has three
# times as many numbers to read from memory, and to multiply by, at *every* token. (And the product of two matrices in 8 bits would have to be
# rounded once more.) So $W^{UK}$ is absorbed by the *order* of multiplication, not into a new matrix: the thin
# factors are applied one after the other. That is what DeepSeek's code does, and [decoder.py](minids/inference/decoder.py) here.
#
# ### Exercise 4: when would it pay?
#
# There are shapes for which the product is the smaller one. From which head size on? Solve $d_c d_c' = d_h (d_c + d_c')$ for $d_h$.


# %% tags=["solution"]
def break_even(d_c, d_q):
    """The head size d_h at which the product has as many entries as its two factors."""
    return d_c * d_q / (d_c + d_q)


# %% tags=["check"]
check.ok(lesson.check_break_even(break_even))

# %% [markdown]
# For V3 that is 384. Its heads of 128 are a third of it, so the product does not pay.
#
# ### Exercise 5: a decoder that never makes a key
#
# Put it together: one step of decoding. `x` is the hidden state of one new token at position $t$, `cache` a list with one array
# (B, 1, 1, d_c + d_r) per earlier token. Append the new entry, attend absorbed, return $o$. (The check looks at the numbers, and at
# how many heads the keys have that `attention.forward` is given: one.)


# %% tags=["solution"]
def step(x, t, cache):
    """x (B, 1, d) at position t, cache: a list of (B, 1, 1, d_c + d_r) → o (B, 1, H, d_v)."""
    # Which of the two is cached, c_kv before or after its norm, k_rope before or after its turn?
    # Angles of position t alone: rotary.cos[t : t + 1], rotary.sin[t : t + 1].
    # With queries, latents and rotary keys in hand, by_absorption does the rest.
    angle = rotary.cos[t : t + 1], rotary.sin[t : t + 1]
    c, _ = rmsnorm.forward(x @ w_dkv.T, gain_c)
    key, _ = rope.forward((x @ w_kr.T)[:, :, None], *angle)
    cache.append(np.concatenate([c[:, :, None], key], axis=-1))
    held = np.concatenate(cache, axis=1)  # (B, t + 1, 1, d_c + d_r)
    c_q, _ = rmsnorm.forward(x @ w_dq.T, gain_q)
    turned, _ = rope.forward(heads(c_q, w_qr), *angle)
    return by_absorption(heads(c_q, w_uq), turned, held[:, :, 0, :d_c], held[..., d_c:], scale)


# %% tags=["check"]
check.ok(lesson.check_step(step, h, o))

# %% [markdown]
# A cache allows mistakes of its own kind. If your step is told that every token stands at position 0, it is right for the first token
# only:


# %%
def always_position_zero(x, t, cache):
    return step(x, 0, cache)


notebook.caught(lesson.check_step(always_position_zero, h, o))

# %% [markdown]
# ## 8. What a step costs: arithmetic and memory
#
# Per pair of query and key the absorbed form does *more* arithmetic, $2 n_h (576 + 512)$ operations against $2 n_h (192 + 128)$, 3.4 times as
# many. It saves the expansion. There are three ways to write one token with V3: absorbed, from the latents; expanded again from the latents at each
# token; or with a full cache of all keys and values. Counted for all 61 layers, in BF16 where bytes are meant, the work with the weights included:
#
# **Write your guess; then run.** After 65,536 tokens, which of the three does the most arithmetic, and how many times that of the absorbed one?

# %%
v3 = minids.ModelConfig.preset("deepseek-v3")
contexts = 2 ** np.arange(8, 18)
ways = ("absorbed", "re-expand", "full cache")
costs = {way: [flops.decode(v3, int(context), way) for context in contexts] for way in ways}
draw.decoding(contexts, costs, at=65_536)

# %% [markdown]
# **What to notice.** This is the answer to the question at the top. Against re-expanding, absorbing saves *arithmetic*: at 65,536 tokens it needs 113 times less. Against
# a full cache it saves *traffic*: 71 times fewer bytes, 4.6 GB instead of 327. It pays with arithmetic, three times that of the full cache. A
# processor that can do hundreds of operations while it fetches one byte gains by that. (On the right, re-expanding moves most of all, because the
# expanded keys and values are written and read again.)
#
# ## 9. A claim checked: one form to write, another to read
#
# DeepSeek's code has both, and so have its papers: attention as in training for reading the prompt, the absorbed form for writing. Where is the border?
# Expanding a latent costs $2 n_h d_c (d_h + d_v)$ once, for all queries that come in one call; absorbing costs
# $2 n_h (2 d_c - d_h - d_v)$ more for each pair. So absorbing pays while the number of new tokens is below
#
# $$ S^* = \frac{d_c (d_h + d_v)}{2 d_c - d_h - d_v} , $$
#
# whatever the context is.
#
# **Write your guess; then run.** The cache holds 4,096 tokens, and one of them is new. How many times the work of the absorbed form does the expanded form do?

# %%
by_hand = 512 * (128 + 128) / (2 * 512 - 128 - 128)
print(f"S* = {by_hand:.1f} new tokens; the package: {flops.absorption_pays_until(v3):.1f}")
draw.border(context=4096)
notebook.explore(draw.border, context=[1024, 4096, 32768, 131072], latent=(160, 1024, 32))

# %% [markdown]
# **What to notice.** For one new token the absorbed form does a 117th of the arithmetic, for two a 59th. A prompt of 4,096 costs three times as much absorbed
# as expanded. Writing brings one token a step, two with speculation ([notebook 9](notebooks/09_speculative_decoding.ipynb)), both far left of the border. (The
# curves cross a little left of the dotted line, because it costs something to absorb a query as well, and the formula leaves that out. With a running kernel there are
# two controls here. A smaller latent moves the border to the right.)
#
# ### And the clock
#
# Operations are not seconds, so measure them on your machine. The next cell takes one layer with V3's head sizes and 8 of its heads. The two forms take
# turns on one thread, and the fastest of five counts, which other programs have disturbed least. On the left, the expanded line should climb with the context, and the
# absorbed one should lie far below it. On the right, the lines should cross near the dotted line, but not exactly on it: a count of operations does not know how
# well a matrix product uses a processor. This is the only cell of the page whose output depends on the machine, so its output is not kept.

# %% tags=["timing"]
draw.clock()

# %% [markdown]
# ## 10. What training does to the rotary part
#
# A score has two terms, $q^C \cdot k^C$ and $q^R \cdot k^R$, of 24 and of 16 coordinates here. The term that varies more from key to key decides
# which keys get the weight.
#
# **Write your guess; then run.** Which of the two decides where the trained model looks?

# %%
shares = lesson.rotary_shares(model, tokens)  # (blocks, H), of the variance of all scores
print(f"the rotary part has {shares.min():.0%} to {shares.max():.0%} of the variance")
draw.rotary_part(shares)

# %% [markdown]
# **What to notice.** The sixteen rotary coordinates decide in every head. They are made from the hidden state, so they can carry more than the position. And scores grow in training: on the right is
# the largest score (before the softmax) of whole training runs, with two optimizers and [three seeds](minids/lab/studies/qk_clip.py). The softmax of such large scores is nearly all or nothing. The authors of Kimi-K2, an MLA model of a trillion parameters, saw scores beyond 1,000 in a smaller run and answered with
# **QK-Clip**: after a step, each head whose largest score is above $\tau$ has its weights made smaller, $\gamma = \tau / \text{largest}$,
#
# $$ W^{UQ}_i,\, W^{UK}_i \leftarrow \sqrt\gamma\, W, \qquad W^{QR}_i \leftarrow \gamma\, W^{QR}_i, \qquad W^{KR} \text{ as it is.} $$
#
# Why does the content's $\gamma$ go to two matrices in equal parts, and the position's to one? Because $W^{KR}$ is *one for all heads*. One head's scores are no reason to change the keys of the others. Here QK-Clip holds the
# largest score at 10. With three seeds no difference in loss can be told: +0.010 nats [−0.013, +0.033] (`minids study qk-clip`, `minids train --qk-clip 10`).
#
# ## Where to go from here
#
# - [minids/inference/decoder.py](minids/inference/decoder.py): both forms, chunks of any size, batches of different lengths.
# - [minids/layers/mla.py](minids/layers/mla.py): the layer with its backward pass.
# - `minids generate --cache latent` and `--cache full` write the same text from the two caches, and `minids info --preset deepseek-v3` has the numbers above.
# - [Notebook 6](notebooks/06_experts.ipynb) turns to the other half of a block.

# %% tags=["picture"]
notebook.card(
    """
    - Keys and values of all heads are linear in one latent. Moving a bracket, the query takes the
      key's matrix, and the cache is attended as it lies: MLA is then MQA with heads of 576.
    - A turn between latent and key would stand in the way, so 64 extra coordinates turn, with one key
      for all heads; its gradient is the sum over them.
    - Expanded to read many tokens, absorbed to write few.
    """,
    "171 new tokens",
    "in one call: with fewer the absorbed form is less work, with more the expanded",
    {"writing": 1, "border": 171, "a prompt": 1024},
)
