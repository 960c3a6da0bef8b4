# %% [markdown]
# # 0. All of DeepSeek-V3 in one file
#
# DeepSeek-V3 has latent attention, routed experts, a balancing bias and a module that looks one token further. **How much code is that,
# with the backward pass written out by hand and the training loop included?** 550 lines of NumPy. This page walks through
# them once forward and once backward.
#
# %% [markdown]
# The file is [`minids/pico.py`](minids/pico.py). It imports nothing of this package, and the tests compare the package with it. Open it in a
# second window: this page calls its functions in the order in which they stand there, which is the order of the
# [V3 report](https://arxiv.org/abs/2412.19437). What only prepares or checks is in [lessons/one_page](minids/lab/lessons/one_page.py).
#
# You need NumPy and the chain rule. What each part is *for* is explained in the notebooks that follow; here you see that the parts fit together.
#
# **Write your guess; then run.** Which part takes the most lines? And which takes more, all of forward or all of backward?

# %%
import inspect
from types import SimpleNamespace

import numpy as np

from minids import check, pico
from minids.lab import notebook
from minids.lab.lessons import one_page as lesson
from minids.lab.plots import one_page as draw

notebook.set_up()
rng = np.random.default_rng(0)
notebook.here()
parts = lesson.lines_by_part()
draw.parts(parts)

# %% [markdown]
# **What to notice.** Router and experts take the most lines of all parts of the model. The functions of the forward pass have 195 lines, those of the
# backward pass 104, about half as many.
#
# ## 1. A model small enough to print
#
# One dense block, one block with experts, one module that looks a token further. All sizes are different, so that a shape says which
# array it is. A token is a byte, and the text is "all on one page of NumPy", cut in two.

# %%
sizes = dict(num_hidden_layers=2, hidden_size=28, intermediate_size=40, moe_intermediate_size=13)
heads = dict(num_attention_heads=3, qk_nope_head_dim=15, qk_rope_head_dim=8, v_head_dim=6)
latents = dict(q_lora_rank=20, kv_lora_rank=16)
experts = dict(n_routed_experts=12, num_experts_per_tok=4, n_group=3, topk_group=2)
small = dict(initializer_range=0.3, aux_loss_alpha=0.01)
c = SimpleNamespace(**vars(pico.CONFIG) | sizes | heads | latents | experts | small)

w = pico.init_weights(c, rng, np.float64)
text = np.frombuffer(b"all on one page of NumPy", np.uint8).reshape(2, 12).astype(int)
tokens, targets = text[:, :-1], text[:, 1:]

letters = lesson.letters(c, *tokens.shape)

print(f"{len(w)} arrays, {sum(a.size for a in w.values()):,} numbers; in the block with experts:\n")
notebook.shapes(letters, **{name: w[name] for name in w if ".layers.1.mlp." in name})

# %% [markdown]
# **What to notice.** The weights are a dict, and the names are those of the files that DeepSeek publishes. The experts of a layer are one
# array with the expert as its first axis. `e_score_correction_bias`, one number for each expert, is the only array without a gradient.
#
# ## 2. Forward: a block's attention
#
# Each function returns its result and what its backward pass will need again, `y, saved = f(...)`. For attention that is ten arrays, and
# the most important of them are printed here: $c_q$ and $c_{kv}$ are the two latents, $q$, $k$, $v$ what is made of them, $a$ the weights
# of the softmax, $o$ what the heads give back.

# %%
p = "model.layers.0."
x = w["model.embed_tokens.weight"][tokens]
h, _ = pico.rmsnorm(x, w, p + "input_layernorm", c.rms_norm_eps)
attended, saved_mla = pico.mla(h, w, p + "self_attn.", c)
_, c_q, _, c_kv, _, q, k, v, a, o = saved_mla
notebook.shapes(letters, x=x, h=h, c_q=c_q, c_kv=c_kv, q=q, k=k, v=v, a=a, o=o, attended=attended)

# %% [markdown]
# **What to notice.** For each token `k` holds 3 heads of 23 numbers and `v` 3 of 6: 87 numbers, all made of the 16 of `c_kv` and the 8 of a rotated key
# that the heads share. A model that writes text only has to keep those 24. In V3 they are 576, where ordinary attention would keep 32,768.
#
# ## 3. Forward: the experts
#
# In the second block a router and 12 small networks, the experts, stand in the place of one network. The router's scores come from a sigmoid. A bias
# is added to decide which experts are chosen, and the gates, with which their outputs are added, are made of the scores *without* it.

# %%
choices = {}
x1, _, saved_block_0 = pico.block(x, w, 0, c, choices)
p = "model.layers.1."
h, _ = pico.rmsnorm(x1, w, p + "input_layernorm", c.rms_norm_eps)
x_mid = x1 + pico.mla(h, w, p + "self_attn.", c)[0]
u, _ = pico.rmsnorm(x_mid, w, p + "post_attention_layernorm", c.rms_norm_eps)
s, chosen, gates = pico.route(pico.rows(u), w, p + "mlp.", c, choices)
y, balance, _ = pico.moe(u, w, p + "mlp.", c, choices)
notebook.shapes(letters, u=u, s=s, chosen=chosen, gates=gates, y=y)
for n in range(4):
    print(chr(tokens[0, n]), "experts", chosen[n], "gates", gates[n], f"sum {gates[n].sum():.1f}")

# %% [markdown]
# **What to notice.** The gates of every token add up to 2.5, `routed_scaling_factor`. The experts form three groups of four, and a token may use
# two groups: no row has experts of all three (0 to 3, 4 to 7, 8 to 11).
#
# ## 4. Forward: two predictions, one number
#
# `pico.forward` does all of it: both blocks, the head, the module for multi-token prediction (MTP), which is shown the next token and predicts the one
# after it, the same head again. Three losses come out, and their weighted sum is what training makes smaller.
#
# **Write your guess; then run.** What is the loss of a model that finds all 256 bytes equally likely?

# %%
losses, saved_depths = pico.forward(tokens, targets, w, c)
(saved_main, hidden, d_logits), (saved_mtp, hidden_1, d_logits_1) = saved_depths
notebook.shapes(letters, hidden=hidden, d_logits=d_logits, hidden_1=hidden_1, d_logits_1=d_logits_1)
print(f"\nnext token       {losses.main:.6f}   (guessing: ln 256 = {np.log(256):.6f})")
print(f"token after it   {losses.mtp[0]:.6f}   times {c.mtp_loss_weight}")
print(f"balance          {losses.balance:.6f}")
print(f"total            {losses.total:.6f}")

# %% [markdown]
# **What to notice.** A loss is the end of the chain, so `cross_entropy` returns its gradient at once: what was predicted minus what came. That is
# `d_logits`, and there the way back begins. (The loss is far above guessing because these random weights are large, 0.3 where training begins with 0.02.)
#
# ### Exercise 1: the matrix product
#
# Most of a backward pass is this one. For $y = x W^\top$ with $x$ (B, T, in) and $W$ (out, in), what are $dx$ and $dW$, given $dy$ (B, T, out)?


# %% tags=["solution"]
def my_linear_backward(dy, x, W):
    """dy (B, T, out), x (B, T, in), W (out, in) → dx (B, T, in), dW (out, in)."""
    # Look at which letter is summed: every token adds to dW, so B and T are.
    # dy.reshape(-1, dy.shape[-1]) makes one axis of B and T.
    dW = dy.reshape(-1, dy.shape[-1]).T @ x.reshape(-1, x.shape[-1])
    return dy @ W, dW


# %% tags=["check"]
check.ok(lesson.check_linear_backward(my_linear_backward))

# %% [markdown]
# ## 5. Backward: the same list upwards
#
# A gradient goes the way of the data in the other direction, and *adds up* wherever the data was used twice. The gradients of the
# weights are collected in a dict `g`. This is what `pico.loss_and_grads` does, written out:

# %%
g = {name: np.zeros_like(W) for name, W in w.items() if not name.endswith("correction_bias")}

# The MTP module, which comes last and so goes first.
dh_1 = pico.linear_backward(c.mtp_loss_weight * d_logits_1, hidden_1, w, g, "lm_head")
d_hidden = pico.mtp_module_backward(dh_1, tokens, saved_mtp, w, g, 1, c)

# The head of the main model, once more the same matrix. The module read all positions but the last.
dh = pico.linear_backward(d_logits, hidden, w, g, "lm_head")
dh[:, :-1] += d_hidden

# The final norm, the blocks, the embedding.
saved_blocks, saved_norm = saved_main
dx_2 = pico.rmsnorm_backward(dh, saved_norm, w, g, "model.norm")
dx_1 = pico.block_backward(dx_2, saved_blocks[1], w, g, 1, c)
dx_0 = pico.block_backward(dx_1, saved_blocks[0], w, g, 0, c)
pico.embedding_backward(dx_0, tokens, g)

notebook.shapes(letters, dh_1=dh_1, d_hidden=d_hidden, dh=dh, dx_2=dx_2, dx_1=dx_1, dx_0=dx_0)
_, at_once = pico.loss_and_grads(tokens, targets, w, c)
same = all(np.array_equal(g[name], at_once[name]) for name in at_once)
print(f"\n{len(g)} gradients, equal to those of loss_and_grads: {same}")

# %% [markdown]
# **What to notice.** The matrix `lm_head` was used twice, so two lines add into `g["lm_head.weight"]`. The embedding was used twice too, by the main
# model and by the MTP module.
#
# ### Exercise 2: where three heads share one key
#
# Here a mistake is easily made. The rotated part of the key is one vector for all heads: in the forward pass every head uses it. What does that mean
# for the backward pass? Given $dk$ (B, H, T, d_h + d_r), return what goes to the content part of each head, and what goes to the shared key.


# %% tags=["solution"]
def split_key_gradient(dk, d_h):
    """dk (B, H, T, d_h + d_r) → dk_nope (B, H, T, d_h), dk_rope (B, T, d_r), still rotated."""
    # The last axis is cut at d_h. The heads are axis 1.
    return dk[..., :d_h], dk[..., d_h:].sum(axis=1)


# %% tags=["check"]
check.ok(lesson.check_split_key_gradient(split_key_gradient))

# %% [markdown]
# Three heads' gradients must be added. Their mean has the right shape too, and is a third of the sum; in V3, with 128 heads, 1/128. The check knows that
# mistake. Here is your answer, divided:


# %%
def with_the_mean(dk, d_h):
    content, shared = split_key_gradient(dk, d_h)
    return content, shared / dk.shape[1]


notebook.caught(lesson.check_split_key_gradient(with_the_mean))

# %% [markdown]
# ## 6. Is it right? Measure
#
# A gradient is a slope: move one weight a little, and see how far the loss moves. Only the choice of experts must be held still, because it jumps
# and has no slope. `forward` takes the choices that it returned before.
#
# **Write your guess; then run.** With a step ten times smaller, how many times smaller is the difference between the slope and the gradient?

# %%
name = "model.layers.0.self_attn.kv_a_proj_with_mqa.weight"
entry = 19, 3  # in a row that makes the shared key


def loss_at(step):
    """The total loss with this one weight moved."""
    moved = w[name].copy()
    moved[entry] += step
    return pico.forward(tokens, targets, w | {name: moved}, c, losses.choices)[0].total


print(f"by hand               {g[name][entry]:+.12f}")
for h in (1e-2, 1e-3, 1e-4):
    slope = (loss_at(h) - loss_at(-h)) / (2 * h)
    print(f"measured, h = {h:<7} {slope:+.12f}   difference {abs(slope - g[name][entry]):.0e}")

# %% [markdown]
# **What to notice.** With a step ten times smaller the difference is a hundred times smaller. So it comes from the curvature of the loss, not from
# the gradient. The [tests](tests/test_pico.py) do this for every array, and compare all gradients with those of the package.
#
# ### Exercise 3: one matrix in two places
#
# Small models often use one matrix for both embedding and head, `tie_word_embeddings`. You have the gradients of a model that keeps the two apart,
# with the same numbers in both. What is the gradient of the one matrix that replaces them?


# %% tags=["solution"]
def tied_gradient(g):
    """Gradients by name, of the untied model → gradient (V, d) of the tied matrix."""
    return g["model.embed_tokens.weight"] + g["lm_head.weight"]


# %% tags=["check"]
check.ok(lesson.check_tied_gradient(tied_gradient, w, tokens, targets, c))

# %% [markdown]
# ## 7. It learns
#
# 120 steps of AdamW; the text is the file itself. `update_biases` uses no gradient: after each step it looks at which experts were chosen, and makes
# busy ones a little less likely.
#
# **Write your guess; then run.** It begins near 5.5 nats a byte, which is guessing. Where does it end?

# %%
source = np.frombuffer(inspect.getsource(pico).encode(), np.uint8).astype(int)
tiny = dict(hidden_size=64, num_hidden_layers=3, intermediate_size=128, moe_intermediate_size=32)
c2 = SimpleNamespace(**vars(pico.CONFIG) | tiny)
w2, moments, T = pico.init_weights(c2, np.random.default_rng(1)), {}, 96
history = []
for step in range(1, 121):
    starts = rng.integers(0, len(source) - T - 1, 8)
    batch = source[starts[:, None] + np.arange(T + 1)]
    losses, grads = pico.loss_and_grads(batch[:, :-1], batch[:, 1:], w2, c2)
    pico.adamw(w2, grads, moments, step, lr=4e-3 * min(step / 10, 1))
    pico.update_biases(w2, losses.choices, c2)
    history.append(losses)

curve, busiest = lesson.curves(history)
print(f"first step {curve[0, 0]:.1f} nats a byte, last ten {curve[-10:, 0].mean():.1f}")
draw.learning(curve, busiest, guessing=np.log(256))

# %%
prompt = np.frombuffer(b"def rmsnorm_", np.uint8).astype(int)[None]
written = pico.generate(prompt, w2, c2, 100)[0]
print(bytes(written.tolist()).decode(errors="replace"))

# %% [markdown]
# **What to notice.** Both losses fall together. That of the MTP module is the lower one: it has been shown the byte between, and has one block more. At first
# the busiest expert gets up to four times the mean, the most that is possible; then the biases spread the tokens. The text is not Python yet. A longer
# training takes two minutes:
#
# ```
# python -m minids.pico some.txt
# ```
#
# with a text of your own.
#
# ## Where to go from here
#
# - [minids/pico.py](minids/pico.py), from top to bottom.
# - [Notebook 1](notebooks/01_tour.ipynb) looks at the forward pass with pictures, [notebook 2](notebooks/02_backpropagation.ipynb) derives backward passes and measures them.
# - [Notebook 4](notebooks/04_mha_to_mla.ipynb) is about the latents, [6](notebooks/06_experts.ipynb) about experts, [7](notebooks/07_balance.ipynb) about the bias,
#   [8](notebooks/08_multi_token_prediction.ipynb) about the token after next.

# %% tags=["picture"]
notebook.card(
    """
    - All of DeepSeek-V3 is 43 functions; right below a function stands its backward pass.
    - What the forward pass uses twice (head, embedding, the shared key) gets the sum of its gradients.
    - The bias that balances the experts has no gradient; it is moved after each step.
    """,
    "550 lines",
    "of NumPy, training included; lines of functions by what they do:",
    {way: sum(getattr(n, way) for n in parts.values()) for way in ("forward", "backward", "use")},
)
