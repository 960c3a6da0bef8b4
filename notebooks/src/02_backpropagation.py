# %% [markdown]
# # 2. Backpropagation by hand
#
# The backward pass of RMSNorm is four lines of NumPy. **Where do such lines come from, what must the forward pass keep for
# them, and how can you *know* that they are right?**
#
# %% [markdown]
# Frameworks record what you compute and differentiate the recording. This package does not: under every function stands its backward pass, and both can be read in a minute. In this notebook you derive those of
# [`pico.py`](minids/pico.py), the whole model in one file ([notebook 0](notebooks/00_one_page.ipynb) walks through it forward and back),
# see wrong ones caught, and end with a gradient of a trained DeepSeek-V3 that agrees with its slope to ten digits.
#
# You need the chain rule and matrix products, nothing else. `pico.py` keeps all weights in one dict; the package has the same operations a module each, with arrays for arguments, which is what the checks take:
# [rmsnorm](minids/ops/rmsnorm.py),
# [attention](minids/ops/attention.py);
# the checks are in [minids/check](minids/check/__init__.py), and what only prepares or prints in [lessons/gradients](minids/lab/lessons/gradients.py).

# %%
import numpy as np

from minids import ModelConfig, check, pico
from minids.lab import notebook
from minids.lab.lessons import gradients as lesson
from minids.lab.plots import gradients as draw
from minids.ops import attention, rmsnorm

notebook.set_up()
rng = np.random.default_rng(0)
notebook.here()

# %% [markdown]
# ## 1. One question, asked backwards
#
# Somewhere far ahead there is one number, the loss $L$. Take any array $y$ on the way to it. The *gradient* of $y$, written $dy$ in
# code and $\partial L/\partial y$ on paper, has the shape of $y$ and answers: *if this entry were a little larger, how much larger
# would the loss be?*
#
# An operation $y = f(x)$ only has to pass that answer on: **given $dy$, what is $dx$?** It need not know what the loss is. With
# indices, where every symbol is a plain number, the chain rule is
#
# $$ dx_i \;=\; \sum_j dy_j \, \frac{\partial y_j}{\partial x_i} , $$
#
# a sum over all the ways in which $x_i$ can reach the loss. Nothing more is needed for the rest of this notebook.
#
# ### A linear map
#
# $y = x W^\top$: one row of $W$ per output, as checkpoints store it. Written out, for token $n$ and output $o$,
#
# $$ y_{no} = \sum_i x_{ni} W_{oi}
# \qquad\Rightarrow\qquad
# dx_{ni} = \sum_o dy_{no} W_{oi}, \qquad dW_{oi} = \sum_n dy_{no}\, x_{ni} . $$
#
# Look at which letters are summed and the matrix products are there: $dx = dy\,W$ and $dW = dy^\top x$. The backward pass of one
# matrix product is two of them, which is why training costs three times the arithmetic of reading.
#
# What do the two formulas need from the forward pass? $W$ for the one, $x$ for the other. In `pico.py` the weights are in a dict `w`, and their gradients are *added* into a dict `g` of the same names:
#
# ```python
# def linear_backward(dy, x, w, g, name):
#     g[name + ".weight"] += rows(dy).T @ rows(x)  # (out, N) · (N, in)
#     return dy @ w[name + ".weight"]  # (..., out) -> (..., in)
# ```

# %%
N, d_in, d_out = 5, 4, 3
w = {"map.weight": rng.standard_normal((d_out, d_in))}
g = {"map.weight": np.zeros((d_out, d_in))}

x = rng.standard_normal((N, d_in))
y = pico.linear(x, w, "map")
dy = rng.standard_normal(y.shape)  # what the rest of the model would hand back
dx = pico.linear_backward(dy, x, w, g, "map")
notebook.shapes({"N": 5, "in": 4, "out": 3}, x=x, y=y, dy=dy, dx=dx, d_weight=g["map.weight"])

# %% [markdown]
# **What to notice.** Every gradient has the shape of what it is the gradient of. That helps to see which factor is transposed. But a gradient of the
# right shape can still be wrong by a factor, by a sign, by a forgotten term. To find those one has to measure.
#
# ## 2. A gradient is a slope, so measure it
#
# Choose the loss $L = \sum dy \cdot y$ with a fixed random $dy$; then $\partial L/\partial y$ is $dy$, and the whole operation is
# tested at once. Move one entry of the input by a little $h$, up and down, and look how far the loss moves:
#
# $$ \frac{L(x + h) - L(x - h)}{2h} \;=\; \frac{\partial L}{\partial x} \;+\; \underbrace{c\,h^2}_{\text{curvature}} \;+\;
# \underbrace{\frac{\varepsilon}{h}}_{\text{round-off}} . $$
#
# (The two last terms are the error: $c$ depends on the function, and $\varepsilon$ is the precision of the numbers.)
#
# **Write your guess; then run.** How small should $h$ be? The cell tries 73 of them, on every entry of the input of RMSNorm:

# %%
d, steps = 8, np.logspace(-9, 0, 73)
token, d_token = rng.standard_normal((2, 1, d))
gain = 1 + 0.2 * rng.standard_normal(d)


def central_differences(h, dtype=np.float64):
    """Slopes of sum(dy · rmsnorm(x)) by every entry of x, two evaluations each."""
    x, step = token.astype(dtype), dtype(h) * np.eye(d, dtype=dtype)  # row i moves entry i
    up, _ = rmsnorm.forward(x + step, gain.astype(dtype))
    down, _ = rmsnorm.forward(x - step, gain.astype(dtype))
    return np.sum(d_token * (up - down), axis=1) / (2 * h)


def both_steps(h):
    """Two step sizes, combined so that the term with h² cancels."""
    return (4 * central_differences(h / 2) - central_differences(h)) / 3


exact = rmsnorm.backward(d_token, rmsnorm.forward(token, gain)[1])[0][0]
error = lesson.errors(central_differences, both_steps, steps, exact)
draw.steps(steps, error)

# %% [markdown]
# **What to notice.** Neither the smallest step is best nor the largest. In float32 no step gives more than about five digits: too few to tell a right
# gradient from one that lacks a small term. In float64 there are ten or eleven, and combining two steps (Richardson extrapolation) gives one or two more.
# Hence the rule of this package: *train in float32, prove in float64*. [`check.gradient`](minids/check/gradients.py) measures like this and takes a
# relative error above $10^{-7}$ for a mistake.

# %%
check.ok(check.gradient(rmsnorm.forward, rmsnorm.backward, {"x": token, "gain": gain}))

# %% [markdown]
# ## 3. RMSNorm: an input that changes its own norm
#
# DeepSeek-V3 normalises every token before every sub-layer, and both latents of its attention:
#
# $$ y = g \odot n, \qquad n = \frac{x}{r}, \qquad r = \sqrt{\tfrac1d \textstyle\sum_i x_i^2 + \varepsilon} . $$
#
# An entry $x_i$ reaches the output in two ways: through its own $n_i$, and through $r$, which all entries share. Each way gives a
# term. With $u = dy \odot g$, and since $\partial r/\partial x_i = x_i/(d\,r) = n_i/d$,
#
# $$ dx_i \;=\; \frac{u_i}{r} \;-\; \frac{1}{r^2}\Big(\sum_j u_j x_j\Big)\frac{n_i}{d}
# \;=\; \frac1r\Big(u_i - n_i \cdot \underbrace{\tfrac1d \textstyle\sum_j u_j n_j}_{\text{mean of } u\,\odot\, n}\Big) . $$
#
# In `pico.py`, where `r` is $1/r$, that is
#
# ```python
# def rmsnorm_backward(dy, saved, w, g, name):
#     n, r = saved
#     g[name + ".weight"] += rows(dy * n).sum(axis=0)
#     dn = dy * w[name + ".weight"]
#     return r * (dn - n * np.mean(dn * n, axis=-1, keepdims=True))
# ```
#
# What is the second term for? Making $x$ longer does not change $y$: the norm divides by the length. So the gradient must not have any part along $x$,
# and the second term removes that part. (Apart from $\varepsilon$, which is tiny.) Here are 2,000 random tokens, and one in two dimensions:

# %%
many, wishes = rng.standard_normal((2, 2000, d))
_, saved = rmsnorm.forward(many, np.ones(d))
dx, _ = rmsnorm.backward(wishes, saved)
print(f"2,000 tokens: largest cosine between x and dx {np.abs(lesson.cosines(many, dx)).max():.0e}")

draw.perpendicular()
notebook.explore(draw.perpendicular, direction=(0, 360, 6))

# %% [markdown]
# **What to notice.** Whatever direction the rest of the model asks for (orange), what arrives at $x$ (blue) is at a right angle to $x$; on the right, for all of
# 2,000 tokens (blue line). The first term alone has any angle.
# (With a running kernel a slider turns the orange arrow.)
#
# ### Exercise 1: the sigmoid-weighted unit
#
# Every expert of DeepSeek-V3 contains $\text{silu}(p) = p\,\sigma(p)$ with $\sigma(p) = 1/(1 + e^{-p})$. Use
# $\sigma' = \sigma(1-\sigma)$ and the product rule to write its backward pass. `forward` saves what you need.


# %%
def silu_forward(p):
    s = 1 / (1 + np.exp(-p))
    return p * s, (p, s)


# %% tags=["solution"]
def silu_backward(dy, saved):
    """dy (...) → dp (...)."""
    p, s = saved
    return dy * s * (1 + p * (1 - s))


# %% tags=["check"]
check.ok(lesson.check_silu_backward(silu_forward, silu_backward))

# %% [markdown]
# The check does not guess from the size of an error; it *tries* the usual repairs on the numbers and names the one that makes
# them right, as you will see in the next exercise. Here is a wrong solution for which it knows no repair, the
# derivative of the sigmoid alone. That it is wrong, where, and by how much, it says in any case:


# %%
def only_the_second_factor(dy, saved):
    _, s = saved
    return dy * s * (1 - s)


notebook.caught(lesson.check_silu_backward(silu_forward, only_the_second_factor))

# %% [markdown]
# ### Exercise 2: RMSNorm that saves less
#
# DeepSeek-V3 does not keep the outputs of its norms for the backward pass; it computes them again when they are needed
# ([section 3.2.3](https://arxiv.org/abs/2412.19437)). Write RMSNorm so that it saves its two inputs, `(x, gain)`, and nothing that it
# computed. The input is in memory anyway, so this saves memory for a little more arithmetic.


# %% tags=["solution"]
def thrifty_forward(x, gain):
    """x (..., d), gain (d,) → y (..., d), saved."""
    # Save x and gain, nothing else. ε is 1e-6.
    rstd = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-6)
    return x * rstd * gain, (x, gain)


def thrifty_backward(dy, saved):
    """dy (..., d) → dx (..., d), d_gain (d,)."""
    x, gain = saved
    rstd = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-6)
    normed = x * rstd
    u = dy * gain
    dx = rstd * (u - normed * np.mean(u * normed, axis=-1, keepdims=True))
    return dx, np.sum((dy * normed).reshape(-1, gain.size), axis=0)


# %% tags=["check"]
check.ok(*lesson.check_thrifty(thrifty_forward, thrifty_backward))

# %% [markdown]
# A usual mistake is to forget that $r$ depends on $x$. The gradient then has the right shape and is not zero, so a test of these two does not find it:


# %%
def r_held_constant(dy, saved):
    normed, rstd, gain = saved
    return dy * gain * rstd, np.sum((dy * normed).reshape(-1, gain.size), axis=0)


notebook.caught(lesson.check_rmsnorm_backward(r_held_constant))

# %% [markdown]
# ## 4. Softmax, whose gradient rows sum to zero
#
# Attention turns a row of scores $z$ into weights $p = \text{softmax}(z)$. Raise one score and its weight grows, all others shrink:
#
# $$ \frac{\partial p_m}{\partial z_j} = p_m(\delta_{mj} - p_j)
# \qquad\Rightarrow\qquad
# dz_j = p_j\Big(dp_j - \sum_m p_m\, dp_m\Big) . $$
#
# In words: *a score should rise if its weight is wanted more than the average weight is*, where the average is taken with the weights
# themselves. Adding the same number to all scores changes nothing, so the gradient of every row sums to zero.
#
# ### Exercise 3: the softmax, backwards
#
# From the gradient of the weights, `dp`, and the weights themselves make that of the scores. It is one line of `pico.py`.


# %%
def softmax_forward(z):
    p = pico.softmax(z)
    return p, p


# %% tags=["solution"]
def softmax_backward(dp, p):
    """dp and p (..., n) → dz (..., n)."""
    return p * (dp - np.sum(p * dp, axis=-1, keepdims=True))


# %% tags=["check"]
check.ok(*lesson.check_softmax_backward(softmax_forward, softmax_backward))

# %% [markdown]
# That line is the main part of the backward pass of [attention](minids/ops/attention.py) (equation 10 of the report). The rest
# is linear maps: $o = p\,v$ gives $dv = p^\top do$ and $dp = do\,v^\top$; $z = \sigma\,q k^\top$ gives $dq = \sigma\,dz\,k$ and
# $dk = \sigma\,dz^\top q$.

# %%
B, T, H, d_h = 2, 5, 3, 4
q, k, v, do = rng.standard_normal((4, B, T, H, d_h))
o, saved = attention.forward(q, k, v, d_h**-0.5)
dq, dk, dv = attention.backward(do, saved)
notebook.shapes({"B": B, "T": T, "H": H, "d_h": d_h}, q=q, k=k, v=v, o=o, dq=dq, dk=dk, dv=dv)
inputs = {"q": q, "k": k, "v": v, "scale": d_h**-0.5}
check.ok(check.gradient(attention.forward, attention.backward, inputs, wrt=["q", "k", "v"]))

# %% [markdown]
# ## 5. The same parameter in many places
#
# The chain rule sums over *all* ways. A row of the embedding table is used wherever its token stands; its gradient is the sum over
# those places. In NumPy this is easily written wrong.
#
# ### Exercise 4: the gradient of a lookup
#
# Write the backward pass of $x_t = W[t]$: a matrix like $W$, to whose rows the gradients of all places of a token are added. The check reads the tokens
# 3, 1, 3 and 0, 3, 1.


# %% tags=["solution"]
def lookup_backward(dx, saved):
    """dx (B, T, d) → d_weight (V, d)."""
    ids, weight = saved
    d_weight = np.zeros(weight.shape)
    np.add.at(d_weight, ids, dx)
    return d_weight


# %% tags=["check"]
check.ok(lesson.check_lookup_backward(lookup_backward))

# %% [markdown]
# The usual mistake is to index with the tokens and write `+=`. NumPy reads the rows, adds, and writes them back, so of equal tokens only the last one stays. It is
# as if your answer were given no other gradients:


# %%
def the_trap(dx, saved):
    return lookup_backward(dx * lesson.last_of_its_kind(saved[0])[..., None], saved)


notebook.caught(lesson.check_lookup_backward(the_trap))

# %% [markdown]
# ## 6. What was predicted minus what came
#
# At the end stands the loss, the mean surprise $-\ln p[\text{target}]$ over the tokens that really came. A logarithm on top of a softmax
# makes a simple gradient: the predicted distribution, minus one at the target, divided by the number of tokens. Here for one token of the sentence of
# these notebooks, the dot after `self`, as [the trained model](notebooks/model/README.md) expects it. `pico.py` takes its weights as they are: the names are the same.
#
# **Write your guess; then run.** At how many of the vocabulary's 768 tokens is the gradient negative?

# %%
model = notebook.model(np.float64)
w, c = lesson.for_pico(model)  # the main loss alone
whole, pieces = notebook.read(model)
tokens, targets = whole[:, :-1], whole[:, 1:]

logits = pico.linear(pico.hidden_states(tokens, w, c), w, "lm_head")  # (B, T, V)
position = pieces.index("␣self")
loss, d_logits = pico.cross_entropy(logits[:, position], targets[:, position], 1)
print(f"loss {loss:.2f}; negative at {np.sum(d_logits < 0)} token; sum {abs(d_logits.sum()):.0e}")
probabilities = pico.softmax(logits[0, position])
likely = np.argsort(-probabilities)[:6]
words, came = notebook.pieces_of(model, likely), pieces[position + 1]
draw.predicted(words, probabilities[likely], d_logits[0, likely], came=came)

# %% [markdown]
# **What to notice.** The gradient is negative at one token only, the one that came: its logit should rise, all others should fall. Training goes against
# the gradient.
#
# ## 7. The same list, read upwards
#
# A model is a list of operations. Its forward pass goes down the list and keeps what each one saved; its backward pass goes up and
# passes the gradient from one to the next. This is a block of `pico.py`, both ways (without the loss that balances):
#
# ```python
# def block(x, w, layer, c, choices):
#     h, saved_1 = rmsnorm(x, ...)
#     y, saved_mla = mla(h, ...)
#     x = x + y
#     u, saved_2 = rmsnorm(x, ...)
#     y, saved_ffn = moe(u, ...)
#     return x + y
#
#
# def block_backward(dx, saved, w, g, layer, c):
#     du = moe_backward(dx, saved_ffn, ...)
#     dx = dx + rmsnorm_backward(du, saved_2, ...)
#     dh = mla_backward(dx, saved_mla, ...)
#     return dx + rmsnorm_backward(dh, saved_1, ...)
# ```
#
# **What to notice.** Where the forward pass *reads an array twice*, as the residual does with $x$, the backward pass *adds two gradients*. This addition is
# easily forgotten, and the shapes do not show it.
#
# Now run it through the whole trained model, back to the rows of the embedding: what arrives at a token's row says how much the loss at *one* position depends on that token.
#
# **Write your guess; then run.** On which tokens does the prediction of the dot after `self` depend? On which that of the `5` after `2`?

# %%
sizes = {}
for position in (pieces.index("5") - 1, pieces.index("␣self")):
    name = f"The prediction of “{pieces[position + 1]}” after “{pieces[position]}”"
    sizes[name] = lesson.reach(w, c, tokens, targets, position)
draw.reach(pieces[:-1], sizes)

# %% [markdown]
# **What to notice.** Nothing arrives from the future, and about half comes from the last three tokens. For the dot the comma counts too, where the clause began. For the `5` the digits of 17 count for little: this
# model does not add, it knows what usually follows.
#
# ## 8. A whole DeepSeek-V3, measured
#
# Is all of it right? Move *all* parameters a little along a random direction $v$ and compare
# the slope of the loss with $\sum \text{gradient} \cdot v$. Now with everything: latent attention, experts and their router, balance
# loss, multi-token prediction. The choice of experts is a step and has no slope, so it is held still. The slope comes from two steps, as above.
#
# **Write your guess; then run.** To how many digits do the two slopes agree?

# %%
c = model.config
losses, grads = pico.loss_and_grads(tokens, targets, w, c)
direction = lesson.random_direction(grads, rng)
predicted = sum(np.sum(grads[name] * v) for name, v in direction.items())


def loss_at(step):
    """The total loss with all parameters moved by ``step`` along the direction."""
    moved = {name: w[name] + step * v for name, v in direction.items()}
    return pico.forward(tokens, targets, w | moved, c, losses.choices)[0].total


measured = lesson.slope(loss_at, 0.01)
print(f"by the backward pass   {predicted:.12f}   ({model.parameters.values.size:,} parameters)")
print(f"by four evaluations    {measured:.12f}")
print(f"relative difference    {abs(measured / predicted - 1):.0e}")

# %% [markdown]
# Every parameter takes part in that one number. The [tests](tests/test_pico.py) of this package do it array by array, and against
# PyTorch as well.
#
# ## 9. A claim of the paper: what recomputation frees
#
# Section 3.2.3 of the [report](https://arxiv.org/abs/2412.19437) says that all RMSNorms and the up-projections of the latent
# attention are computed again during the backward pass, so that their outputs need not be stored. How much is that, of what a block
# keeps? Count the numbers that one dense block keeps per token at V3's sizes:
#
# **Write your guess; then run.** What share of those numbers are outputs of norms and of up-projections: a tenth, a quarter, a half?

# %%
lesson.print_kept(ModelConfig.preset("deepseek-v3"))

# %% [markdown]
# Half of it. Measured with this package, `--recompute` keeps 136 MB where 311 were kept, and a pass takes 1.15 times as long ([findings](docs/findings.md)). (Attention's probabilities are not in the list: kernels such as FlashAttention never write them down. The report also
# recomputes SwiGLU's output, which is why only its two inputs are listed.)
#
# ## Where to go from here
#
# - [Notebook 3](notebooks/03_positions.ipynb) begins with attention; the builder goes on with [FP8](notebooks/10_fp8.ipynb) and [training](notebooks/11_train_a_tiny_one.ipynb).
# - [minids/ops](minids/ops/__init__.py): ten more of these modules, each with its derivation in the docstring, and what trains and rounds.

# %% tags=["picture"]
notebook.card(
    """
    - A gradient has the shape of its array; an operation only passes it on.
    - What the forward pass reads twice gets the sum of two gradients.
    - Measure it, a step up and a step down: float64 gives ten digits, float32 four or five.
    """,
    "10⁻⁷",
    "relative error above which a gradient is taken for wrong; digits that can be measured:",
    {"float32": 4, "float64": 10, "two steps": 12},
)
