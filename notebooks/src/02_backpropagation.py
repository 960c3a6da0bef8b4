# %% [markdown]
# # 2. Backpropagation by hand
#
# The backward pass of RMSNorm is four lines of NumPy. Where do such lines come from, what must the forward pass keep for them,
# and how can you *know* that they are right?
#
# %% [markdown]
# Frameworks record what you compute and differentiate the recording. This package does neither: every operation is a module with
# a function `forward` and a function `backward`, and both can be read in a minute. In this notebook you derive four of them,
# catch wrong ones red-handed, and end with a gradient of a whole DeepSeek-V3 that agrees with its slope to ten digits.
#
# You need the chain rule and matrix products, nothing else. Every operation used here:
# [linear](minids/ops/linear.py), [rmsnorm](minids/ops/rmsnorm.py), [swiglu](minids/ops/swiglu.py),
# [attention](minids/ops/attention.py), [embedding](minids/ops/embedding.py), [cross_entropy](minids/ops/cross_entropy.py);
# the checks are in [minids/check](minids/check/__init__.py).

# %%
import numpy as np

import minids
from minids import check
from minids.lab import notebook
from minids.model import routing_fixed
from minids.ops import attention, cross_entropy, embedding, linear, rmsnorm, swiglu

notebook.set_up()
rng = np.random.default_rng(0)

# %% [markdown]
# ## One question, asked backwards
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
# ## A linear map
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
# What do the two formulas need from the forward pass? $W$ for the one, $x$ for the other. So these are what `forward` returns
# beside its result, in a named tuple called `Saved`:

# %%
N, d_in, d_out = 5, 4, 3
letters = {"N": N, "in": d_in, "out": d_out}

x = rng.standard_normal((N, d_in))
weight = rng.standard_normal((d_out, d_in))
y, saved = linear.forward(x, weight)

dy = rng.standard_normal(y.shape)  # what the rest of the model would hand back
dx, d_weight, _ = linear.backward(dy, saved)  # the third is a bias's, which DeepSeek-V3 has not

print("forward saves", ", ".join(saved._fields), "\n")
notebook.shapes(letters, x=x, weight=weight, y=y, dy=dy, dx=dx, d_weight=d_weight)

# %% [markdown]
# **What to notice.** Every gradient has the shape of what it is the gradient of. That alone settles most doubts about which factor
# is transposed, and it catches no other mistake at all: a gradient of the right shape can be wrong by a factor, by a sign, by a
# forgotten term. For those one needs a measurement.
#
# ## A gradient is a slope, so measure it
#
# Choose the loss $L = \sum dy \cdot y$ with a fixed random $dy$; then $\partial L/\partial y$ is $dy$, and the whole operation is
# tested at once. Move one entry of the input by a little $h$, up and down, and look how far the loss moves:
#
# $$ \frac{L(x + h) - L(x - h)}{2h} \;=\; \frac{\partial L}{\partial x} \;+\; \underbrace{c\,h^2}_{\text{curvature}} \;+\;
# \underbrace{\frac{\varepsilon}{h}}_{\text{round-off}} . $$
#
# How small should $h$ be? Try all of them, on every entry of the input of RMSNorm:

# %%
d = 8
token = rng.standard_normal((1, d))
gain = 1 + 0.2 * rng.standard_normal(d)
d_token = rng.standard_normal((1, d))


def central_differences(h, dtype=np.float64):
    """Slopes of sum(dy · rmsnorm(x)) by every entry of x, two evaluations each."""
    slopes = []
    for i in range(d):
        up, down = token.astype(dtype), token.astype(dtype)
        up[0, i] += dtype(h)
        down[0, i] -= dtype(h)
        y_up, _ = rmsnorm.forward(up, gain.astype(dtype))
        y_down, _ = rmsnorm.forward(down, gain.astype(dtype))
        slopes.append(np.sum(d_token * (y_up - y_down)) / (2 * h))
    return np.array(slopes)


def both_steps(h):
    """Two step sizes, combined so that the term with h² cancels."""
    return (4 * central_differences(h / 2) - central_differences(h)) / 3


exact = rmsnorm.backward(d_token, rmsnorm.forward(token, gain)[1])[0][0]
steps = np.logspace(-9, 0, 73)
methods = {
    "float32": lambda h: central_differences(h, np.float32),
    "float64": central_differences,
    "float64, two steps combined": both_steps,
}
error = {
    name: np.array([np.abs(slopes(h) - exact).max() / np.abs(exact).max() for h in steps])
    for name, slopes in methods.items()
}
for name, errors in error.items():
    print(f"{name:<28} at best {errors.min():.0e}, with h = {steps[errors.argmin()]:.0e}")

# %% tags=["picture"]
figure, axes = notebook.picture(height=3.9)
for (name, errors), colour, line in zip(
    error.items(), ("C1", "C0", "C2"), ("-", "-", "--"), strict=True
):
    axes.loglog(steps, errors, label=name, color=colour, linestyle=line)
axes.set(xlabel="step h", ylabel="largest relative error", ylim=(1e-14, 3))
axes.set_title("Too small a step drowns in round-off, too large a one in curvature")
axes.legend(loc="lower left")
notebook.show(
    figure, "Error of central differences against the step: a V for float32, float64 and two steps."
)

# %% [markdown]
# **What to notice.** In float32 no step gives more than four or five digits: too few to tell a right gradient from one that lacks
# a small term. In float64 there are ten, and combining two steps (Richardson's trick) buys two more. Hence the rule of this
# package: *train in float32, prove in float64*. [`check.gradient`](minids/check/gradients.py) does all of this and takes any
# relative error above $10^{-7}$ for a mistake.

# %%
check.ok(check.gradient(rmsnorm.forward, rmsnorm.backward, {"x": token, "gain": gain}))

# %% [markdown]
# ## RMSNorm: an input that moves the yardstick
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
# In code $dx$ is one line, and the three things that it needs, $n$, $1/r$ and $g$, are what `forward` saved:
#
# ```python
# def backward(dy, saved):
#     normed, rstd, gain = saved
#     d_gain = np.sum((dy * normed).reshape(-1, gain.size), axis=0)
#     u = dy * gain
#     dx = rstd * (u - normed * np.mean(u * normed, axis=-1, keepdims=True))
#     return dx, d_gain
# ```
#
# The second term has a meaning that a picture shows best. Making $x$ longer does not change $y$ at all: the norm divides it away.
# So the gradient must not have any part along $x$, and the second term is exactly what removes it. In two dimensions:

# %%
plane = np.array([[1.6, 0.9]])
many, wishes = rng.standard_normal((2000, d)), rng.standard_normal((2000, d))
_, saved = rmsnorm.forward(many, np.ones(d))
dx, _ = rmsnorm.backward(wishes, saved)


def angle(a, b):
    """Degrees between the rows of two arrays."""
    cosine = np.sum(a * b, axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return np.degrees(np.arccos(cosine))


first_term = angle(many, wishes * saved.rstd)
right_angles = angle(many, dx)
print(f"first term alone: from {first_term.min():.0f} to {first_term.max():.0f} degrees")
print(f"the gradient: 90 degrees, to within {np.abs(right_angles - 90).max():.0e}")


# %% tags=["picture"]
def draw_gradient(direction=42):
    """x, and what comes back for an upstream gradient in some direction (degrees)."""
    wish = 1.2 * np.array([[np.cos(np.radians(direction)), np.sin(np.radians(direction))]])
    _, saved = rmsnorm.forward(plane, np.ones(2), eps=0.0)
    gradient, _ = rmsnorm.backward(wish, saved)
    figure, (left, right) = notebook.picture(1, 2, height=3.6)
    circle = np.linspace(0, 2 * np.pi, 200)
    left.plot(np.sqrt(2) * np.cos(circle), np.sqrt(2) * np.sin(circle), color="#BBBBBB")
    for vector, start, colour in (
        (plane[0], np.zeros(2), "black"),
        (wish[0] * saved.rstd[0], plane[0], "C1"),
        (gradient[0], plane[0], "C0"),
    ):
        arrow = {"arrowstyle": "-|>", "color": colour, "lw": 2, "shrinkA": 0, "shrinkB": 0}
        left.annotate("", start + vector, start, arrowprops=arrow)
    left.text(0.75, 0.24, "x", fontsize=13)
    left.plot([], [], color="C1", label="first term alone")
    left.plot([], [], color="C0", label="the gradient")
    left.plot([], [], color="#BBBBBB", label="all outputs lie here")
    left.legend(loc="upper left", fontsize=8.5)
    left.set(xlim=(0, 2.9), ylim=(0, 2.2), aspect="equal")
    left.set_title("Two dimensions")
    right.hist(first_term, bins=np.arange(0, 181, 5), color="C1", alpha=0.7)
    right.axvline(90, color="C0")
    right.set(xlabel="angle between x and dx, degrees", ylabel="tokens", ylim=(0, 230))
    right.set(xticks=range(0, 181, 45))
    right.set_title(f"2000 random tokens of {d} numbers")
    notebook.show(figure, "The gradient of RMSNorm is perpendicular to its input.")


draw_gradient()
notebook.explore(draw_gradient, direction=(0, 360, 6))

# %% [markdown]
# **What to notice.** Whatever direction the rest of the model asks for (orange), what arrives at $x$ (blue) is at a right angle to $x$; on the right, for all of
# 2,000 tokens (blue line), while the first term alone points anywhere. A learner that forgets the second term makes $x$ longer and longer, to no effect.
# (With a running kernel a slider turns the orange arrow.)
#
# ## Exercise 1: the sigmoid-weighted unit
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
check.ok(check.gradient(silu_forward, silu_backward, {"p": rng.standard_normal((3, 4))}))

# %% [markdown]
# Not by guessing from the size of an error does the check find causes: it *tries* the usual mistakes on the numbers and reports the one
# whose repair makes them right, as you will see in the next exercise. Here is a wrong solution for which it knows no repair, the
# derivative of the sigmoid alone. That it is wrong, where, and by how much, it says in any case:


# %%
def only_the_second_factor(dy, saved):
    _, s = saved
    return dy * s * (1 - s)


notebook.caught(
    check.gradient(silu_forward, only_the_second_factor, {"p": rng.standard_normal((3, 4))})
)

# %% [markdown]
# ## Exercise 2: RMSNorm that saves less
#
# DeepSeek-V3 does not keep the outputs of its norms for the backward pass; it computes them again when they are needed
# ([section 3.2.3](https://arxiv.org/abs/2412.19437)). Write RMSNorm so that it saves its two inputs, `(x, gain)`, and nothing that it
# computed. The input is kept by somebody anyway, so this is free memory for a little arithmetic.


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
tokens = rng.standard_normal((2, 3, gain.size))
check.ok(check.against(rmsnorm.forward, thrifty_forward, tokens, gain))
check.ok(check.gradient(thrifty_forward, thrifty_backward, {"x": tokens, "gain": gain}))


def both_inputs(x, gain):
    return x, gain


def what_is_saved(x, gain):
    return thrifty_forward(x, gain)[1]


check.ok(check.against(both_inputs, what_is_saved, tokens, gain))

# %% [markdown]
# The mistake that nearly everybody makes first is to forget that $r$ moves. Its gradient has the right shape, is never zero, and trains
# a model to a falling loss:


# %%
def a_fixed_yardstick(dy, saved):
    normed, rstd, gain = saved
    return dy * gain * rstd, np.sum((dy * normed).reshape(-1, gain.size), axis=0)


notebook.caught(check.gradient(rmsnorm.forward, a_fixed_yardstick, {"x": tokens, "gain": gain}))

# %% [markdown]
# ## Softmax, where every row sums to nothing
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
# ## Exercise 3: the softmax, backwards


# %%
def softmax_forward(z):
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    return p, p


# %% tags=["solution"]
def softmax_backward(dp, p):
    """dp and p (..., n) → dz (..., n)."""
    return p * (dp - np.sum(p * dp, axis=-1, keepdims=True))


# %% tags=["check"]
check.ok(check.gradient(softmax_forward, softmax_backward, {"z": 3 * rng.standard_normal((4, 6))}))

# %% [markdown]
# With that line you hold the heart of the backward pass of [attention](minids/ops/attention.py) (equation 10 of the report). The rest
# is linear maps: $o = p\,v$ gives $dv = p^\top do$ and $dp = do\,v^\top$; $z = \sigma\,q k^\top$ gives $dq = \sigma\,dz\,k$ and
# $dk = \sigma\,dz^\top q$.

# %%
B, T, H, d_h = 2, 5, 3, 4
q, k, v = (rng.standard_normal((B, T, H, d_h)) for _ in range(3))
o, saved = attention.forward(q, k, v, d_h**-0.5)
do = rng.standard_normal(o.shape)
dq, dk, dv = attention.backward(do, saved)
notebook.shapes(
    {"B": B, "T": T, "H": H, "d_h": d_h}, q=q, k=k, v=v, o=o, do=do, dq=dq, dk=dk, dv=dv
)
check.ok(
    check.gradient(
        attention.forward,
        attention.backward,
        {"q": q, "k": k, "v": v, "scale": d_h**-0.5},
        wrt=["q", "k", "v"],
    )
)

# %% [markdown]
# ## The same parameter in many places
#
# The chain rule sums over *all* ways. A row of the embedding table is used wherever its token stands; its gradient is the sum over
# those places. In NumPy there is a trap on the way, worth stepping into once:
#
# ## Exercise 4: the gradient of a lookup
#
# Write the backward pass of $x_t = W[t]$. Beware: `d_weight[tokens] += dx` looks right and is not.


# %% tags=["solution"]
def lookup_backward(dx, saved):
    """dx (B, T, d) → d_weight (V, d)."""
    ids, weight = saved
    d_weight = np.zeros(weight.shape)
    np.add.at(d_weight, ids, dx)
    return d_weight


# %% tags=["check"]
# Token 3 stands in three places, token 1 in two, tokens 2 and 4 in none.
ids = np.array([[3, 1, 3], [0, 3, 1]])
table = rng.standard_normal((5, 2))
check.ok(check.gradient(embedding.forward, lookup_backward, {"tokens": ids, "weight": table}))


# %%
def the_trap(dx, saved):
    ids, weight = saved
    d_weight = np.zeros(weight.shape)
    # NumPy reads the rows, adds, writes them back: of equal tokens only the last one stays.
    d_weight[ids] += dx
    return d_weight


notebook.caught(check.gradient(embedding.forward, the_trap, {"tokens": ids, "weight": table}))

# %% [markdown]
# ## What was predicted minus what came
#
# At the end stands the loss, the mean surprise $-\ln p[\text{target}]$ over the tokens that really came. A logarithm on top of a softmax
# makes the simplest gradient of all: the predicted distribution, minus one at the target, divided by the number of tokens.

# %%
words = ["the", "cat", "sat", "on", "mat"]
logits = np.array([[2.0, 1.1, 0.3, -0.5, 0.9]])
loss, saved = cross_entropy.forward(logits, np.array([1]))
d_logits = cross_entropy.backward(1.0, saved)

print("predicted  ", saved.probs[0].round(3))
print("gradient   ", d_logits[0].round(3))

# %% tags=["picture"]
figure, (left, right) = notebook.picture(1, 2, height=3.0, sharey=True)
left.bar(words, saved.probs[0], color="C0")
left.set(ylim=(-0.9, 0.9), ylabel="per token of the vocabulary")
left.set_title(f"Predicted; 'cat' came: loss {loss:.2f} nats")
right.bar(words, d_logits[0], color=["C1" if value < 0 else "C0" for value in d_logits[0]])
right.axhline(0, color="black", linewidth=0.8)
right.set_title("Gradient of the logits: they sum to zero")
notebook.show(
    figure,
    "Left: a predicted distribution over five words. Right: the gradient, negative at the word that came.",
)

# %% [markdown]
# ## The same list, read upwards
#
# A model is a list of operations. Its forward pass walks down the list and keeps what each one saved; its backward pass walks up and
# hands the gradient from one to the next. Here is the feed-forward network that every expert of DeepSeek-V3 is, between a norm and a
# residual connection, $x + W_\text{down}\big(\text{silu}(W_\text{gate} n) \odot W_\text{up} n\big)$ with $n = \text{RMSNorm}(x)$:


# %%
def block_forward(x, gain, w_gate, w_up, w_down):
    n, saved_norm = rmsnorm.forward(x, gain)  # (N, d)
    p, saved_gate = linear.forward(n, w_gate)  # (N, I)
    q, saved_up = linear.forward(n, w_up)  # (N, I)
    a, saved_act = swiglu.forward(p, q)  # (N, I)
    y, saved_down = linear.forward(a, w_down)  # (N, d)
    return x + y, (saved_norm, saved_gate, saved_up, saved_act, saved_down)


def block_backward(dy, saved):
    saved_norm, saved_gate, saved_up, saved_act, saved_down = saved
    da, d_w_down, _ = linear.backward(dy, saved_down)
    dp, dq = swiglu.backward(da, saved_act)
    dn_up, d_w_up, _ = linear.backward(dq, saved_up)
    dn_gate, d_w_gate, _ = linear.backward(dp, saved_gate)
    # n was read twice, so its two gradients add up; and so was x: the residual hands dy through.
    dx, d_gain = rmsnorm.backward(dn_gate + dn_up, saved_norm)
    return dy + dx, d_gain, d_w_gate, d_w_up, d_w_down


N, d, width = 3, 5, 7
arrays = {
    "x": rng.standard_normal((N, d)),
    "gain": 1 + 0.2 * rng.standard_normal(d),
    "w_gate": rng.standard_normal((width, d)),
    "w_up": rng.standard_normal((width, d)),
    "w_down": rng.standard_normal((d, width)),
}
check.ok(check.gradient(block_forward, block_backward, arrays))

# %% [markdown]
# **What to notice.** Where the forward pass *reads an array twice*, the backward pass *adds two gradients*. That is the whole of the
# book-keeping, and most wrong backward passes are a forgotten addition.
#
# ## A whole DeepSeek-V3
#
# The model of [minids/model.py](minids/model.py) is such a list, only longer: latent attention, sixteen experts with their router, balance
# loss, multi-token prediction. Check its gradient as a whole: move *all* parameters a little along a random direction $w$ and compare
# the slope of the loss with $\sum \text{gradient} \cdot w$. The choice of experts is a step and has no slope, so it is held still.

# %%
config = minids.ModelConfig.preset(
    "tiny", hidden_size=32, num_hidden_layers=2, intermediate_size=64, moe_intermediate_size=16
)
model = minids.DeepSeekV3(config, seed=0, dtype=np.float64)
text = np.frombuffer(b"every gradient is a slope", dtype=np.uint8)[None].astype(int)  # (1, T + 1)
inputs, targets = text[:, :-1], text[:, 1:]

chosen = model.choices(inputs, targets)
with routing_fixed(model, chosen):
    losses, grads = model.loss_and_grads(inputs, targets)

parameters = model.parameters
direction = rng.standard_normal(parameters.values.shape)
direction /= np.linalg.norm(direction)
predicted = parameters.grads @ direction
start = parameters.values.copy()


def loss_at(step):
    """The total loss with all parameters moved by ``step`` along the direction."""
    parameters.values[...] = start + step * direction
    with routing_fixed(model, chosen):
        total = model.losses(inputs, targets).total
    parameters.values[...] = start
    return total


def slope(h):
    return (loss_at(h) - loss_at(-h)) / (2 * h)


measured = (4 * slope(0.005) - slope(0.01)) / 3
print(f"{parameters.values.size:,} parameters in {len(grads)} arrays, loss {losses.total:.4f}")
print(f"slope by the backward pass    {predicted:.12f}")
print(f"slope by four evaluations     {measured:.12f}")
print(f"relative difference           {abs(measured / predicted - 1):.0e}")

# %% [markdown]
# Every parameter takes part in that one number. The [tests](tests/model/test_model_gradient.py) of this package do it array by array, and against
# PyTorch as well.
#
# ## A claim of the paper: what recomputation frees
#
# Section 3.2.3 of the [report](https://arxiv.org/abs/2412.19437) says that all RMSNorms and the up-projections of the latent
# attention are computed again during the backward pass, so that their outputs need not be stored. How much is that, of what a block
# keeps? Count the numbers that one dense block keeps per token at the true sizes, an array a line:

# %%
v3 = minids.ModelConfig.preset("deepseek-v3")
H, d = v3.num_attention_heads, v3.hidden_size
kept = {  # array: (numbers per token, whether V3 computes it again)
    "residual stream, twice": (2 * d, False),
    "outputs of the two norms": (2 * d, True),
    "the two latents and k_rope": (
        v3.q_lora_rank + v3.kv_lora_rank + v3.qk_rope_head_dim,
        False,
    ),
    "the two latents, normalised": (v3.q_lora_rank + v3.kv_lora_rank, True),
    "queries of all heads": (H * v3.qk_head_dim, True),
    "keys and values of all heads": (H * (v3.qk_nope_head_dim + v3.v_head_dim), True),
    "output of attention": (H * v3.v_head_dim, False),
    "gate and up of SwiGLU": (2 * v3.intermediate_size, False),
}
everything = sum(count for count, _ in kept.values())
again = sum(count for count, recomputed in kept.values() if recomputed)
for name, (count, recomputed) in kept.items():
    print(f"{name:<32} {count:>7,}  {'computed again' if recomputed else ''}")
print(f"{'all':<32} {everything:>7,}  of which {again / everything:.0%} need not be kept")

# %% [markdown]
# Half of it. (Attention's probabilities are not in the list: kernels such as FlashAttention never write them down. The report also
# recomputes SwiGLU's output, which is why only its two inputs are listed.)
#
# ## Where to go from here
#
# - [minids/ops](minids/ops/__init__.py): ten more of these modules, each with its derivation in the docstring, and what trains and rounds.
