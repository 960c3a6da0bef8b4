# %% [markdown]
# # 10. FP8: multiplying with eight bits
#
# DeepSeek-V3 is the first model of its size whose matrix products were trained in 8-bit numbers; in its authors' tests, with 16 and 230 billion parameters, the loss stayed within 0.25 % of 16-bit training. An 8-bit float has *three* bits of mantissa: it cannot tell 17 from 16. **How can a network learn with numbers
# that coarse?**

# %% [markdown]
# By three ideas, each of which you will switch off and see fail (V3 sections 3.3 and 3.5.2, appendix B):
#
# 1. **Small tiles.** A scale for every 128 numbers instead of one for a whole matrix, so that an outlier ruins only its own tile.
# 2. **Promotion.** The tensor core adds with 14 bits; every 128 products the sum moves to a real float32 register.
# 3. **Exceptions.** Embedding, head, router, norms and attention itself stay in high precision; so do master weights and gradients.
#
# Everything is simulated to the bit in NumPy. Code used here: [`ops/float8.py`](minids/ops/float8.py) (formats), [`ops/quantise.py`](minids/ops/quantise.py) (tiles), [`ops/fp8_accumulation.py`](minids/ops/fp8_accumulation.py) (the short sum),
# [`ops/fp8_linear.py`](minids/ops/fp8_linear.py) (the linear map), [`ops/linear.py`](minids/ops/linear.py) (the one it replaces), [`ops/delayed.py`](minids/ops/delayed.py);
# what a trained model multiplies is read by [`analysis/operands.py`](minids/lab/analysis/operands.py). Paper: [DeepSeek-V3 report](https://arxiv.org/abs/2412.19437).

# %%
import numpy as np

import minids
from minids import ModelConfig, check
from minids.lab import notebook
from minids.lab.analysis.operands import operands
from minids.lab.plots import fp8 as plots
from minids.ops import delayed, float8, fp8_accumulation, fp8_linear, linear, quantise
from minids.ops.fp8_accumulation import NEVER_PROMOTED, PROMOTED

notebook.set_up()
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK = notebook.COLOURS
notebook.here("attention", "experts")
rng = np.random.default_rng(0)

# %% [markdown]
# ## 1. A number in eight bits
#
# E4M3 has a sign, four bits of exponent and three of mantissa, bias 7:
#
# $$ x = (-1)^s\,2^{e-7}\,\big(1+\tfrac m8\big), \qquad \text{largest } 448 = 2^8\cdot 1.75,\quad \text{smallest } 2^{-9} $$
#
# (the $1$ in front of the fraction is not stored; for $e = 0$ it is absent, and the numbers thin out evenly down to zero). To round a real number $y$, find the spacing of the format around it, $u = 2^{\lfloor\log_2|y|\rfloor - 3}$ (but at least $2^{-9}$), and take the nearest multiple; halfway, the even one; beyond 448, 448.

# %%
y = np.array([16.0, 16.9, 17.0, 17.1, 0.3, 1000.0, 0.0005])
u = np.maximum(2.0 ** (np.floor(np.log2(np.abs(y))) - 3), 2.0**-9)  # spacing
by_hand = np.minimum(np.rint(y / u) * u, 448)
for value, step, near, code in zip(y, u, by_hand, float8.encode(y), strict=True):
    print(f"{value:>9} lies on a grid of {step:<10g} and becomes {near:<10g} code {code:08b}")
print("as the package does:", np.array_equal(by_hand, float8.rounded(y)))

# %% tags=["picture"]
plots.staircase()

# %% [markdown]
# **What to notice.** The error is *relative*: 6 % at most, 2 % on average, over a range of $2^{15}$, and then it ends abruptly at either side. So the whole art is to bring every number into that range. That is what scales are for.

# %% [markdown]
# ### Exercise 1: round to E4M3
#
# Write `to_e4m3(y)`: the nearest E4M3 number of every entry, ties to even, saturating at ±448, small numbers on the subnormal grid of $2^{-9}$. Zero stays zero.


# %% tags=["solution"]
def to_e4m3(y):
    """y (...) float64 → the nearest numbers of the format (...)."""
    # np.frexp gives the exponent without the trouble of log2(0); np.rint rounds ties to even.
    size = np.minimum(np.abs(y), 448)
    _, above = np.frexp(size)  # size = f · 2^above, f in [1/2, 1)
    step = 2.0 ** np.maximum(above - 1 - 3, -9)
    return np.sign(y) * np.rint(size / step) * step


# %% tags=["check"]
samples = np.concatenate(
    [
        rng.normal(size=500) * 10.0 ** rng.uniform(-4, 3, 500),
        [0.0, 17.0, 19.0, 448.0, 1e9, -500.0, 2.0**-10],
    ]
)
check.ok(check.against(float8.rounded, to_e4m3, samples))

# %% [markdown]
# Cutting off instead of rounding is half a step wrong on average, and to one side:


# %%
def truncates(y):
    """Rounds towards zero."""
    size = np.minimum(np.abs(y), 448)
    step = 2.0 ** np.maximum(np.frexp(size)[1] - 4, -9)
    return np.sign(y) * np.floor(size / step) * step


notebook.caught(check.against(float8.rounded, truncates, samples))

# %% [markdown]
# ## 2. One scale, or many?
#
# For a tile $t$ of a matrix (V3 section 3.3.2):
#
# $$ s_t = \max_{i\in t}|x_i| \,/\, 448, \qquad \text{code}_i = \mathrm{E4M3}(x_i/s_t), \qquad \hat x_i = s_t\cdot\text{code}_i $$
#
# Activations get tiles of 1 × 128 (one token, 128 channels), weights blocks of 128 × 128. The enemy is the outlier: a single number that is very much larger than the rest takes the range for itself. First one tile by hand:

# %%
activations = rng.normal(size=(64, 512)).astype(np.float32)  # (N, d)
tile = activations[:1, :128]  # (1, 128)
scale = np.abs(tile).max() / np.float32(448)  # the largest number becomes 448
codes = float8.encode(tile / scale)  # (1, 128) bytes
by_the_package = quantise.forward(tile, (1, 128))
notebook.shapes(tile=tile, codes=codes, scales=by_the_package.scales)
print("one tile by hand as in the package:", np.array_equal(codes, by_the_package.codes))

# %% [markdown]
# Now plant three outliers into the matrix, let them grow, and measure how well *all other* numbers survive:

# %%
TILES = {"1 × 128": (1, 128), "128 × 128": (128, 128), "whole matrix": None}
spots = (np.array([5, 30, 50]), np.array([40, 300, 450]))  # tokens, channels
ordinary = np.ones(activations.shape, bool)
ordinary[spots] = False


def with_outliers(size):
    """The activations with three outliers."""
    planted = activations.copy()
    planted[spots] = size
    return planted


def error_of_the_others(size, shape):
    """Relative error of all other numbers: rms of what is lost over rms of what was there."""
    planted = with_outliers(size)
    off = (quantise.rounded(planted, shape) - planted)[ordinary]
    return np.sqrt(np.sum(off**2) / np.sum(planted[ordinary] ** 2))


sizes = 10.0 ** np.arange(0, 7)
errors = {name: [error_of_the_others(s, shape) for s in sizes] for name, shape in TILES.items()}
for name, values in errors.items():
    print(f"{name:<13}", "  ".join(f"{value:6.1%}" for value in values))


# %% tags=["picture"]
def draw_outliers(size=1e6, coarse="128 × 128"):
    """Left: all sizes. Right: what is set to 0 by outliers of one size."""
    figure, (left, right) = notebook.picture(1, 2, width=9, height=3.0, width_ratios=[1.2, 1])
    for (name, values), colour in zip(errors.items(), (BLUE, GREEN, ORANGE), strict=True):
        left.loglog(sizes, values, "o-", color=colour, label=name)
    left.axvline(size, color="0.5", ls=":")
    left.set(
        xlabel="size of the three outliers", ylabel="error of all other numbers", ylim=(0.01, 1.3)
    )
    left.legend()
    planted = with_outliers(size)
    fine, rough = (quantise.rounded(planted, TILES[name]) == 0 for name in ("1 × 128", coarse))
    shown = ordinary * (fine + 0.35 * rough)  # (N, d)
    right.imshow(shown, cmap="Blues", aspect="auto", vmin=0, vmax=1.4)
    right.set(xlabel="channel", ylabel="token", xticks=[0, 128, 256, 384])
    right.set_title(f"set to 0 by outliers of {size:g}")
    right.grid(False)
    notebook.show(
        figure,
        "Left: with large tiles the error grows to 1 with the outliers, with small ones to a tenth. "
        "Right: numbers lost, dark within 1 by 128 tiles, pale with larger blocks",
    )


draw_outliers()

# %%
notebook.explore(draw_outliers, size=[1e3, 1e4, 1e5, 1e6], coarse=["128 × 128", "whole matrix"])

# %% [markdown]
# **What to notice.** The error of well-scaled E4M3 is about 2.6 %, whatever the size of the numbers, and planted outliers up to $10^4$ do
# no harm: that is the virtue of a *floating* point. Then the range of $2^{15}$ is used up. With one scale for the matrix, outliers of
# $10^5$ push all others into the subnormal numbers, and at $10^6$ *nearly everything else is zero*. With 1 × 128 tiles the loss is
# confined to three short stripes (dark, right). So the finer the tile, the fewer numbers share the outlier's fate.
#
# Is $10^5$ far-fetched? Look at what a model really multiplies: the one that goes through these notebooks, forward and backward on its
# sentence. **Write your guess; then run:** which have the outliers, the activations or their gradients?

# %%
model = notebook.model()
read = notebook.read(model, notebook.SENTENCE * 6).tokens
found = [
    o for o in operands(model, read[:, :-1], read[:, 1:]) if not o.layer.endswith("head.weight")
]
routers = [o for o in found if o.layer.endswith("gate.weight")]
others = sorted((o for o in found if not o.layer.endswith("gate.weight")), key=lambda o: -o.outlier)
outlying = [*others[:3], max(routers, key=lambda o: o.outlier)]
print("largest / median   set to 0 by one scale   by 1 × 128")
for o in outlying:
    print(
        f"{o.outlier:16,.0f}   {o.lost(None):21.1%}   {o.lost((1, 128)):10.1%}   {o.kind} of {o.layer}"
    )

# %% tags=["picture"]
plots.lost(found)

# %% [markdown]
# **What to notice.** Activations of a model this small are tame. *Gradients* are not: tokens differ by orders of magnitude in how much they
# still have to teach. One scale for the matrix sets whole tokens to zero; a tile per token does not. (The routers' gradients, the
# points furthest out, lose a tenth or more even with tiles: the router stays in high precision, one of the exceptions.) The price of tiles: one float32 per
# 128 bytes, 8.25 bits a number instead of 8.

# %%
for name, shape in TILES.items():
    q = quantise.forward(activations, shape)
    print(f"{name:<13} {q.scales.size:>4} scales, {q.bits / activations.size:.2f} bits a number")

# %% [markdown]
# ### Exercise 2: quantise in tiles
#
# Write `in_tiles(x, width)`: $\hat x$ for tiles of 1 × width, where `width` divides the number of columns. Use `float8.rounded`, keep $|x|_{\max}$ of a tile at least $10^{-4}$, and compute scales in float32.


# %% tags=["solution"]
def in_tiles(x, width):
    """x (N, d) float32 → what is left of it after quantisation in tiles 1 × width."""
    # (N, d) → (N, tiles, width): then one scale per tile is a maximum over the last axis.
    tiles = x.reshape(len(x), -1, width)
    largest = np.maximum(np.abs(tiles).max(axis=-1, keepdims=True), np.float32(1e-4))
    scale = largest / np.float32(448)  # (N, tiles, 1)
    return (float8.rounded(tiles / scale) * scale).reshape(x.shape)


# %% tags=["check"]
def by_the_package(x, width):
    """The same from ops/quantise.py."""
    return quantise.rounded(x, (1, width))


tiny = activations * np.float32(1e-6)  # every tile is below the least maximum
cases = [(activations, 128), (activations, 32), (tiny, 32), (np.zeros((2, 8), np.float32), 4)]
check.ok(check.against(by_the_package, in_tiles, cases))


# %%
def one_scale_per_row(x, width):
    """Forgets the tiles."""
    return quantise.rounded(x, (1, x.shape[1]))


notebook.caught(check.against(by_the_package, one_scale_per_row, activations, 32))

# %% [markdown]
# ## 3. Three products, three ways to tile
#
# A linear map $y = xW^\top$ needs three products in training, and each sums over another axis. A scale can be pulled out of a sum only if it is constant *along* it, so the tiles must lie along the axis that is summed:
#
# | product | formula | summed over | tiles |
# |---|---|---|---|
# | Fprop | $y_{no} = \sum_i \hat x_{ni}\hat W_{oi}$ | channels $i$ | $x$: 1 × 128, $W$: 128 × 128 |
# | Dgrad | $dx_{ni} = \sum_o \widehat{dy}_{no}\hat W_{oi}$ | outputs $o$ | $dy$: 1 × 128, the same $\hat W$ |
# | Wgrad | $dW_{oi} = \sum_n \widehat{dy}_{no}\hat x_{ni}$ | **tokens** $n$ | $dy$ and $x$: 128 × 1 |
#
# So $x$ is tiled twice, once along channels and once along tokens. Only codes of $x$ and $W$ are kept for the backward pass, one byte each.

# %%
x = rng.normal(size=(256, 384)).astype(np.float32)  # (N, in)
weight = (rng.normal(size=(320, 384)) * 0.05).astype(np.float32)  # (out, in)
dy = (rng.normal(size=(256, 320)) * 1e-3).astype(np.float32)  # (N, out)

y, saved = fp8_linear.forward(x, weight)
dx, d_weight, _ = fp8_linear.backward(dy, saved)
exact_y, exact_saved = linear.forward(x, weight)
exact_dx, exact_dw, _ = linear.backward(dy, exact_saved)
x_hat, w_hat = quantise.rounded(x, (1, 128)), quantise.rounded(weight, (128, 128))
print("Fprop by hand:", np.allclose(y, x_hat @ w_hat.T, atol=1e-5))
dy_turned, x_turned = quantise.rounded(dy, (128, 1)), quantise.rounded(x_hat, (128, 1))
print("Wgrad by hand:", np.allclose(d_weight, dy_turned.T @ x_turned, atol=1e-7))
for name, got, want in (("y", y, exact_y), ("dx", dx, exact_dx), ("dW", d_weight, exact_dw)):
    off = np.linalg.norm(got - want) / np.linalg.norm(want)
    print(f"{name:<3} {got.shape}  {off:.1%} from the exact product")
kept = (saved.x.bits + saved.weight.bits) / 8  # bytes
print(
    f"kept for the backward pass: {kept / (x.nbytes + weight.nbytes):.0%} of the bytes of float32"
)

# %% [markdown]
# **What to notice.** Each product is off by 3 to 5 %, and training works nonetheless: the errors are random and independent from entry to entry, like the noise that comes from small batches anyway.
#
# ### Turning tiles without loss
#
# For the inputs of the linear after attention V3 uses two refinements: twelve-bit E5M6, and scales that are **powers of two**. Why powers of two? Turning 1 × 128 tiles into 128 × 1 means quantising what is already quantised. A scale $2^k$ only shifts exponents, so the second
# rounding has nothing to round:

# %%
for power_of_two in (False, True):
    once = quantise.rounded(x, (1, 128), power_of_two=power_of_two)
    twice = quantise.rounded(once, (128, 1), power_of_two=power_of_two)
    changed = np.mean(twice != once)
    print(
        f"powers of two: {power_of_two!s:<5}  numbers changed by turning the tiles: {changed:.1%}"
    )

# %% [markdown]
# ### Exercise 3: scales in blocks, applied late
#
# V3's kernel multiplies *codes* and applies the scales to the sum of each 128 products: $y_{no} = \sum_b s^x_{nb}\,s^W_{ob}\,\big(\sum_{i\in b} c^x_{ni} c^W_{oi}\big)$. Write `scaled_product(cx, sx, cw, sw, width)` from numbers `cx` (N, d), `cw` (O, d) and scales `sx` (N, d / width), `sw` (O, d / width).


# %% tags=["solution"]
def scaled_product(cx, sx, cw, sw, width):
    """(N, O): the sum over blocks of scale · scale · (product of codes)."""
    y = np.zeros((len(cx), len(cw)))
    for b in range(sx.shape[1]):
        part = slice(b * width, (b + 1) * width)
        y += sx[:, b, None] * sw[None, :, b] * (cx[:, part] @ cw[:, part].T)
    return y


# %% tags=["check"]
def scaled_before(cx, sx, cw, sw, width):
    """Scales applied to every number before multiplying."""
    return (cx * np.repeat(sx, width, axis=1)) @ (cw * np.repeat(sw, width, axis=1)).T


numbers = [
    float8.rounded(rng.normal(size=(5, 48)) * 100),
    rng.uniform(0.1, 2, (5, 3)),
    float8.rounded(rng.normal(size=(4, 48)) * 100),
    rng.uniform(0.1, 2, (4, 3)),
]
check.ok(check.against(scaled_before, scaled_product, *numbers, 16, tolerance=1e-8))

# %% [markdown]
# ## 4. Fourteen bits to add with
#
# The multiplication is not the only weak spot. Hopper's tensor cores align every 32 products with the running sum, keep about **14 bits** and cut off the rest (V3 sections 3.3.2 and 3.5.2). The longer the sum, the larger it grows, and the more of each new product falls off the end. Promotion starts a fresh
# sum every $N_C = 128$ products and adds the pieces in float32.


# %%
def short_sum(values, bits=14, promote=None):
    """Running sum of positive numbers that keeps ``bits`` bits, 32 numbers at a time.

    Every ``promote`` numbers it moves to a sum in full precision and starts again from 0.
    """
    total, running, history = 0.0, 0.0, []
    for start in range(0, len(values), 32):
        piece = values[start : start + 32]
        # What the last bit that is kept is worth: it is aligned to the largest number.
        unit = np.ldexp(1.0, np.frexp(max(piece.max(), running))[1] - bits)
        running = (np.trunc(running / unit) + np.trunc(piece / unit).sum()) * unit
        unit = np.ldexp(1.0, np.frexp(running)[1] - bits)
        running = np.trunc(running / unit) * unit  # and the sum itself is cut
        if promote and (start + 32) % promote == 0:
            total, running = total + running, 0.0
        history.append(total + running)
    return np.array(history)


terms = rng.random(8192) * rng.random(8192)
exact = np.cumsum(terms)[31::32]  # after every 32 numbers
plain, promoted = short_sum(terms), short_sum(terms, promote=128)
for name, sums in (("14 bits, never promoted", plain), ("promoted every 128", promoted)):
    print(f"{name:<24} {sums[-1]:8.2f} instead of {exact[-1]:.2f}: {sums[-1] / exact[-1] - 1:+.2%}")

# %% [markdown]
# A seventh of the sum is gone. The same through the package, whole matrix products of numbers between 0 and 1, of growing length $K$:

# %%
lengths = 2 ** np.arange(7, 13)
measured = {"never promoted": [], "promoted every 128": []}
for K in lengths:
    random = [rng.random((16, K)).astype(np.float32) for _ in range(2)]
    a, b = (quantise.rounded(x, (1, 128), power_of_two=True) for x in random)  # (16, K) each
    truth = a.astype(np.float64) @ b.T.astype(np.float64)
    for name, accumulator in zip(measured, (NEVER_PROMOTED, PROMOTED), strict=True):
        off = np.abs(fp8_accumulation.matmul(a, b.T, accumulator) - truth) / truth
        measured[name].append(off.max())


# %% tags=["picture"]
def draw_sums(bits=14, promote=128):
    """Left: one sum, as it grows. Right: products of matrices."""
    figure, (left, right) = notebook.picture(1, 2, width=9, height=3.0)
    count = np.arange(32, 8193, 32)
    for every, colour, label in (
        (None, ORANGE, f"{bits} bits"),
        (promote, BLUE, f"{bits} bits, promoted every {promote}"),
    ):
        error = 100 * (short_sum(terms, bits, every) / exact - 1)
        left.plot(count, error, color=colour, label=label)
    left.set(xlabel="products added", ylabel="error of the sum, %", title="one sum, as it grows")
    left.legend()
    for (name, values), colour in zip(measured.items(), (ORANGE, BLUE), strict=True):
        right.loglog(lengths, 100 * np.array(values), "o-", color=colour, label=name)
    right.set_xticks(lengths, lengths)
    right.minorticks_off()
    right.set_yticks([0.1, 1, 10], ["0.1", "1", "10"])
    right.set(xlabel="K", ylabel="largest relative error, %", title="products of matrices, 14 bits")
    right.legend()
    notebook.show(
        figure,
        "Left: the 14-bit sum falls behind by percents, the promoted one hardly. "
        "Right: error against K, growing without promotion, flat with it",
    )


draw_sums()

# %%
notebook.explore(draw_sums, bits=(8, 24), promote=[32, 64, 128, 256, 512, 1024])

# %%
both_signs = [rng.normal(size=(16, 4096)).astype(np.float32) for _ in range(2)]
a, b = (quantise.rounded(x, (1, 128), power_of_two=True) for x in both_signs)
truth = a.astype(np.float64) @ b.T.astype(np.float64)
off = fp8_accumulation.matmul(a, b.T, NEVER_PROMOTED) - truth
never, every = (values[-1] for values in measured.values())
print(f"K = 4096, numbers between 0 and 1: {never:.1%} never promoted, {every:.2%} promoted")
worst = np.abs(off).max() / np.abs(truth).max()
print(f"K = 4096, normal numbers: {worst:.2%} of the largest result, never promoted")

# %% [markdown]
# **The claim, checked.** "For K = 4096 … the limited accumulation precision results in a maximum relative error of nearly 2 %" (V3 section 3.3.2). How much it is depends on what is added: with positive numbers, whose sum grows like $K$, it is even more; with numbers of both signs the sum stays small, and so does the error. The cure works for all. **What to notice, left:** cutting off always errs to the *same side*, so
# the error does not average out, it accumulates. (In a live session you can choose the bits and how often to promote: at 24 bits, a real float32, the orange line lies on zero.)
#
# ## 5. Does a network still learn?
#
# With `precision="fp8"` every projection, dense network and expert of the model multiplies quantised numbers, forward and backward; embedding, head, router, norms and attention do not. A toy model (tiles of 16 instead of 128, because its matrices are small), trained four times on the same batches; the second run is float32 again, from a start that differs by a thousandth, and shows how much a difference means:

# %%
words = "the cat sat on the mat and the dog sat on the cat then the rat ate the hat "
text = np.frombuffer((words * 40).encode(), np.uint8).astype(np.int64) % 128
toy = ModelConfig.preset("tiny").replace(
    vocab_size=128, hidden_size=32, num_hidden_layers=2, intermediate_size=64,
    q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16,
    n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=32,
    num_nextn_predict_layers=0, bos_token_id=None, eos_token_id=None,
)  # fmt: skip


def trained(config, nudge=0.0, steps=90, rate=6e-3):
    """Loss of every step; plain Adam on float32 master weights, whatever the products are done in.

    ``nudge`` makes all weights larger by that share: as good a start as any other.
    """
    model, draw = minids.DeepSeekV3(config, seed=0), np.random.default_rng(1)
    m, v, losses = 0.0, 0.0, []
    model.parameters.values *= 1 + nudge
    for step in range(1, steps + 1):
        windows = text[draw.integers(0, len(text) - 49, 4)[:, None] + np.arange(49)]
        model.parameters.zero_grads()
        losses.append(model.forward_backward(windows[:, :-1], windows[:, 1:]).main)
        g = model.parameters.grads
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        m_hat, v_hat = m / (1 - 0.9**step), v / (1 - 0.95**step)
        model.parameters.values -= rate * m_hat / (np.sqrt(v_hat) + 1e-8)
    return np.array(losses)


fp8 = toy.replace(precision="fp8", fp8_tile=16)
runs = {
    "float32": trained(toy),
    "float32, weights larger by 0.1 %": trained(toy, nudge=1e-3),
    "FP8, tiles of 16": trained(fp8),
    "FP8, one scale per matrix": trained(fp8.replace(fp8_scaling="tensor")),
}

# %% tags=["picture"]
figure, (left, right) = notebook.picture(1, 2, width=9, height=2.9)
reference = runs["float32"]
for (name, losses), colour in zip(runs.items(), (BLACK, "0.6", BLUE, ORANGE), strict=True):
    left.plot(losses, color=colour, label=name, lw=1.3)
    if name != "float32":
        right.plot(
            np.convolve(100 * (losses / reference - 1), np.ones(7) / 7, "valid"), color=colour
        )
left.set(xlabel="step", ylabel="nats per token", ylim=(0, None))
left.legend()
right.axhline(0, color="0.5", lw=1)
right.set(xlabel="step", ylabel="relative difference to float32, %")
notebook.show(
    figure,
    "Left: four loss curves nearly on top of each other. Right: relative differences to "
    "float32, scattering around zero",
)

# %%
for name, losses in runs.items():
    late = losses[30:].mean()
    change = late / reference[30:].mean() - 1
    print(f"{name:<33} mean of steps 30 to 90: {late:.4f} ({change:+.2%})")

# %% [markdown]
# **What to notice.** FP8 learns as float32 does; at this size even one scale per matrix does, because a toy grows no outliers. Do not read the percentages as a ranking: the grey run is float32 with *all weights larger by a thousandth*, and it too drifts away by about a percent. Training a small network amplifies any difference, and which of the four ends
# lowest changes from one processor to the next. V3 reports less than 0.25 % of loss at 16B and 230B parameters over a trillion tokens (appendix B.1); ninety steps cannot resolve a quarter of a percent. `minids study fp8` can, with 2,000 steps of three seeds at a lower rate: there FP8 ends a third of a percent above float32, and most of the error of its
# gradient comes from the 3 % of expert choices that rounding tips over (`docs/fp8.md` has what was tried). What V3 found to be *harmful* at scale is
# worth remembering too: 128 × 128 blocks for activation gradients made a 16B model diverge (appendix B.2).
#
# **Delayed scaling** (section 3.3.2) is what others do: the scale of a whole tensor comes from its maxima in earlier steps, so that nothing has to be looked at before it is rounded. What grows past all of them is cut off. `fp8_scaling="delayed"` trains so; `minids study fp8-scaling` compares.

# %%
history = delayed.Amaxes()
for step, size in enumerate((1.0, 1.2, 3.0, 1.0)):
    x = np.full((1, 4), size, np.float32)
    rounded = quantise.rounded(x, None, amax=history.of("x", x))
    history.end_step([history.seen])
    print(f"step {step}: largest number {size}, after rounding {rounded.max():.3f}")

# %% [markdown]
# ## 6. Where to go from here
#
# - [Notebook 12](notebooks/12_real_checkpoints.ipynb) reads FP8 weights as they are released: codes and `weight_scale_inv`.
# - `minids train --model.precision fp8` trains with it; [`ops/fp8_feed_forward.py`](minids/ops/fp8_feed_forward.py) is what the experts use.
# - V3 report: sections 3.3 (the scheme), 3.5.2 (what the hardware should do), appendix B (ablations).
# - Delayed scales and BF16 beside FP8, measured: [notebook 18](notebooks/18_the_rest_of_the_report.ipynb), section 6.

# %% tags=["picture"]
notebook.card(
    """
    - Three bits of mantissa: 6 % off at most, 2.6 % on average, over a range of 2¹⁵.
    - A scale for every 128 numbers keeps an outlier to its own tile.
    - The sum matters as much as the product: 14 bits, promoted every 128 products.
    """,
    number=f"{outlying[0].lost(None):.0%}",
    meaning="of a trained model's gradient (first row of section 2's table) are set to 0 by one scale for the matrix, in %:",
    bars={
        "one scale": 100 * outlying[0].lost(None),
        "1 × 128 tiles": 100 * outlying[0].lost((1, 128)),
    },
)
