# %% [markdown]
# # 10. FP8: multiplying with eight bits
#
# DeepSeek-V3 is the first model of its size that was trained with 8-bit matrix products. In its authors' tests, with 16 and 230
# billion parameters, the loss stayed within 0.25 % of that of 16-bit training. An 8-bit float has *three* bits of mantissa: it cannot tell
# 17 from 16.
# **How can a network learn with numbers that coarse?**

# %% [markdown]
# By three ideas (V3 sections 3.3 and 3.5.2, appendix B). You will switch off the first two and see what fails:
#
# 1. **Small tiles.** A scale for every 128 numbers instead of one for a whole matrix: an outlier spoils only its own tile.
# 2. **Promotion.** The tensor core adds with 14 bits. Every 128 products the sum moves to a real float32 register.
# 3. **Exceptions.** Embedding, head, router, norms and attention itself stay in high precision; so do master weights and gradients.
#
# Everything is simulated to the bit, in NumPy. Code used here: [`ops/float8.py`](minids/ops/float8.py) (formats),
# [`ops/quantise.py`](minids/ops/quantise.py) (tiles), [`ops/fp8_accumulation.py`](minids/ops/fp8_accumulation.py) (the short sum),
# [`ops/fp8_linear.py`](minids/ops/fp8_linear.py) (the linear map), [`ops/linear.py`](minids/ops/linear.py) (the one it replaces),
# [`ops/delayed.py`](minids/ops/delayed.py); [`analysis/operands.py`](minids/lab/analysis/operands.py) reads what a trained model
# multiplies. The checks of the exercises, the planted outliers and the training runs are in
# [`lessons/fp8.py`](minids/lab/lessons/fp8.py). Paper: [DeepSeek-V3 report](https://arxiv.org/abs/2412.19437).

# %%
import numpy as np

from minids import check
from minids.lab import notebook
from minids.lab.lessons import fp8 as lesson
from minids.lab.plots import fp8 as draw
from minids.ops import delayed, float8, fp8_accumulation, fp8_linear, linear, quantise

notebook.set_up()
notebook.here("attention", "experts")
rng = np.random.default_rng(0)

# %% [markdown]
# ## 1. A number in eight bits
#
# E4M3 has a sign, four bits of exponent and three of mantissa, bias 7:
#
# $$ x = (-1)^s\,2^{e-7}\,\big(1+\tfrac m8\big), \qquad \text{largest } 448 = 2^8\cdot 1.75,\quad \text{smallest } 2^{-9} $$
#
# The $1$ in front of the fraction is not stored. For $e = 0$ it is absent, and the numbers lie evenly down to zero. To round a real number $y$,
# find the spacing of the format around it, $u = 2^{\lfloor\log_2|y|\rfloor - 3}$ (at least $2^{-9}$). Take the nearest multiple of it; of two
# that are equally near, the even one; beyond 448, 448.
#
# **Write your guess; then run.** What becomes of 17.0, what of 17.1, what of 0.0005?

# %%
y = np.array([16.0, 16.9, 17.0, 17.1, 0.3, 1000.0, 0.0005])
u = np.maximum(2.0 ** (np.floor(np.log2(np.abs(y))) - 3), 2.0**-9)  # spacing
by_hand = np.minimum(np.rint(y / u) * u, 448)
for value, step, near, code in zip(y, u, by_hand, float8.encode(y), strict=True):
    print(f"{value:>9} lies on a grid of {step:<10g} and becomes {near:<10g} code {code:08b}")
print("as the package does:", np.array_equal(by_hand, float8.rounded(y)))

draw.staircase()

# %% [markdown]
# **What to notice.** The error is *relative*: 6 % at most, about 2 % on average, over a range of $2^{15}$. Outside of it the format fails, at either
# end. Every number has to be brought into that range. That is what scales are for.

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
check.ok(lesson.check_to_e4m3(to_e4m3))

# %% [markdown]
# Cutting off in place of rounding is wrong by half a step on average, and always towards zero. The check tells it from other mistakes:

# %%
notebook.caught(lesson.check_to_e4m3(lesson.cut_off))

# %% [markdown]
# ## 2. One scale, or many?
#
# For a tile $t$ of a matrix (V3 section 3.3.2):
#
# $$ s_t = \max_{i\in t}|x_i| \,/\, 448, \qquad \text{code}_i = \mathrm{E4M3}(x_i/s_t), \qquad \hat x_i = s_t\cdot\text{code}_i $$
#
# Activations get tiles of 1 × 128 (one token, 128 channels), weights blocks of 128 × 128. The enemy is the outlier: a number much larger than
# the rest, which takes the range for itself. First one tile by hand:

# %%
activations = rng.normal(size=(64, 512)).astype(np.float32)  # (N, d)
tile = activations[:1, :128]  # (1, 128)
scale = np.abs(tile).max() / np.float32(448)  # the largest number becomes 448
codes = float8.encode(tile / scale)  # (1, 128) bytes
by_the_package = quantise.forward(tile, (1, 128))
notebook.shapes(tile=tile, codes=codes, scales=by_the_package.scales)
print("one tile by hand as in the package:", np.array_equal(codes, by_the_package.codes))

# %% [markdown]
# Now put three outliers into the matrix, let them grow, and measure the error of *all other* numbers.
#
# **Write your guess; then run.** How large must an outlier be to do harm to the numbers that share its scale: 10, 1,000 or 100,000 times their size?

# %%
TILES = {"1 × 128": (1, 128), "128 × 128": (128, 128), "whole matrix": None}
planted = lesson.Planted(activations)  # planted.of(size): with three outliers of this size
sizes = 10.0 ** np.arange(0, 7)
errors = {name: [planted.error(size, shape) for size in sizes] for name, shape in TILES.items()}
print("outliers of  ", "  ".join(f"{size:6,.0f}" for size in sizes))
for name, values in errors.items():
    print(f"{name:<13}", "  ".join(f"{value:6.1%}" for value in values))

outliers = draw.Outliers(planted.of, sizes, errors, TILES)
outliers.of(size=1e6)
notebook.explore(outliers.of, size=[1e3, 1e4, 1e5, 1e6], coarse=["128 × 128", "whole matrix"])

# %% [markdown]
# **What to notice.** The error is 2.6 % (the root of the mean square), whatever the size of the numbers, and outliers up to $10^4$ do no harm: that is
# the virtue of a *floating* point. Then the range of $2^{15}$ is used up. With one scale for the matrix, outliers of $10^5$ push all others into the
# subnormal numbers; at $10^6$ *nearly all others are 0*. With tiles of 1 × 128 the loss stays in three short stripes (dark, right).
#
# Are there such outliers? Look at what a model really multiplies, the one of these notebooks, forward and backward on its sentence.
#
# **Write your guess; then run.** Which have the larger outliers, the inputs of its linear layers or the gradients of their outputs?

# %%
model = notebook.model()
found = lesson.linears(model, notebook.read(model, notebook.SENTENCE * 6).tokens)
outlying = lesson.outlying(found)  # three that stand out most, and the router's
print("largest / median   set to 0 by one scale   by 1 × 128")
for o in outlying:
    lost = f"{o.lost(None):21.1%}   {o.lost((1, 128)):10.1%}"
    print(f"{o.outlier:16,.0f}   {lost}   {o.kind} of {o.layer}")

draw.lost(found)

# %% [markdown]
# **What to notice.** The inputs of a model this small have no outliers to speak of. Its *gradients* have: tokens differ by orders of magnitude in
# how much they still have to teach. One scale for the matrix sets whole tokens to zero; a tile for each token does not. The routers' gradients,
# the points furthest to the right, lose up to 28 % even with tiles: the router stays in high precision, one of the exceptions.
#
# What tiles cost: one float32 for 128 bytes, 8.25 bits a number in place of 8.

# %%
for name, shape in TILES.items():
    q = quantise.forward(activations, shape)
    print(f"{name:<13} {q.scales.size:>4} scales, {q.bits / activations.size:.2f} bits a number")

# %% [markdown]
# ### Exercise 2: quantise in tiles
#
# Write `in_tiles(x, width)`: $\hat x$ for tiles of 1 × width, where `width` divides the number of columns. Use `float8.rounded`. Let the largest
# $|x|$ of a tile count as at least $10^{-4}$, and compute scales in float32.


# %% tags=["solution"]
def in_tiles(x, width):
    """x (N, d) float32 → what is left of it after quantisation in tiles 1 × width."""
    # (N, d) → (N, tiles, width): then one scale per tile is a maximum over the last axis.
    tiles = x.reshape(len(x), -1, width)
    largest = np.maximum(np.abs(tiles).max(axis=-1, keepdims=True), np.float32(1e-4))
    scale = largest / np.float32(448)  # (N, tiles, 1)
    return (float8.rounded(tiles / scale) * scale).reshape(x.shape)


# %% tags=["check"]
check.ok(lesson.check_in_tiles(in_tiles))

# %% [markdown]
# And one scale for a whole row, without tiles:

# %%
notebook.caught(lesson.check_in_tiles(lesson.row_by_row))

# %% [markdown]
# ## 3. Three products, three ways to tile
#
# A linear map $y = xW^\top$ needs three products in training, and each sums over another axis. A scale can be taken out of a sum only if it is
# constant *along* it. So the tiles must lie along the axis that is summed:
#
# | product | formula | summed over | tiles |
# |---|---|---|---|
# | Fprop | $y_{no} = \sum_i \hat x_{ni}\hat W_{oi}$ | channels $i$ | $x$: 1 × 128, $W$: 128 × 128 |
# | Dgrad | $dx_{ni} = \sum_o \widehat{dy}_{no}\hat W_{oi}$ | outputs $o$ | $dy$: 1 × 128, the same $\hat W$ |
# | Wgrad | $dW_{oi} = \sum_n \widehat{dy}_{no}\hat x_{ni}$ | **tokens** $n$ | $dy$ and $x$: 128 × 1 |
#
# So $x$ is tiled twice, along channels and along tokens. For the backward pass only the codes of $x$ and $W$ are kept, one byte each.
#
# **Write your guess; then run.** A number in E4M3 is off by 2.6 %. How far off is a product of two such matrices?

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
share = (saved.x.bits + saved.weight.bits) / 8 / (x.nbytes + weight.nbytes)
print(f"kept for the backward pass: {share:.0%} of the bytes of float32")

# %% [markdown]
# **What to notice.** Each product is off by 3 to 5 %. Training works nonetheless: the errors are independent from entry to entry, like the noise of
# a small batch.
#
# ### Turning tiles without loss
#
# For the inputs of the linear after attention V3 has two refinements: E5M6 with twelve bits, and scales that are **powers of two**. Turning tiles
# of 1 × 128 into 128 × 1 means rounding once more what is rounded already. A scale $2^k$ only shifts exponents, so the second rounding has nothing
# to do:

# %%
for power_of_two in (False, True):
    once = quantise.rounded(x, (1, 128), power_of_two=power_of_two)
    twice = quantise.rounded(once, (128, 1), power_of_two=power_of_two)
    share = np.mean(twice != once)
    print(f"powers of two: {power_of_two!s:<5}  numbers changed by turning the tiles: {share:.1%}")

# %% [markdown]
# ### Exercise 3: scales in blocks, applied late
#
# V3's kernel multiplies *codes*, and applies the scales to the sum of each 128 products:
#
# $$ y_{no} = \sum_b s^x_{nb}\,s^W_{ob}\,\Big(\sum_{i\in b} c^x_{ni} c^W_{oi}\Big) $$
#
# Write `scaled_product(cx, sx, cw, sw, width)` from numbers `cx` (N, d), `cw` (O, d) and scales `sx` (N, d / width), `sw` (O, d / width).


# %% tags=["solution"]
def scaled_product(cx, sx, cw, sw, width):
    """(N, O): the sum over blocks of scale · scale · (product of codes)."""
    y = np.zeros((len(cx), len(cw)))
    for b in range(sx.shape[1]):
        part = slice(b * width, (b + 1) * width)
        y += sx[:, b, None] * sw[None, :, b] * (cx[:, part] @ cw[:, part].T)
    return y


# %% tags=["check"]
check.ok(lesson.check_scaled_product(scaled_product))

# %% [markdown]
# ## 4. Fourteen bits to add with
#
# The other weak spot is the sum. Hopper's tensor cores align every 32 products with the running sum, keep about **14 bits** of each, and cut off the rest
# (V3 sections 3.3.2 and 3.5.2). A product of 0.1, when the sum has reached some size:

# %%
for total in (1.0, 300.0, 900.0, 2000.0):
    unit = 2.0 ** (np.floor(np.log2(total)) - 13)  # what the last of 14 bits is worth
    added = np.trunc(0.1 / unit) * unit
    print(f"sum {total:6g}: kept in steps of {unit:<12g} 0.1 is added as {added:.4f}")

# %% [markdown]
# The longer the sum, the larger it grows, and the more of each new product is cut off. *Promotion* starts a fresh sum every $N_C = 128$ products,
# and adds the pieces in float32.
#
# **Write your guess; then run.** A sum of 4,096 positive products: how much of it does a 14-bit sum lose?

# %%
short = fp8_accumulation.NEVER_PROMOTED, fp8_accumulation.PROMOTED
for signs, numbers in lesson.NUMBERS.items():
    never, promoted = (lesson.error_of_sums(numbers, 4096, accumulator) for accumulator in short)
    print(f"{signs:<24} off by {never:.2%} never promoted, {promoted:.2%} promoted")

draw.sums()
notebook.explore(draw.sums, bits=(8, 24), promoted_every=[32, 64, 128, 256, 512, 1024])

# %% [markdown]
# **The claim, checked.** "For K = 4096 … the limited accumulation precision results in a maximum relative error of nearly 2 %" (V3 section
# 3.3.2). It depends on what is added. A sum of positive numbers grows like $K$, and loses more; a sum of both signs stays small, and so does its
# error. Promotion cures both. Cutting off always errs towards *zero*: such errors do not average out, they add up. (With a running kernel, choose
# the bits and how often to promote. With 24 bits, a real float32, the orange line lies near zero.)
#
# ## 5. Does a network still learn?
#
# With `precision="fp8"` every projection, dense network and expert of the model multiplies quantised numbers, forward and backward. Embedding,
# head, router, norms and attention do not. Here is a toy model, with tiles of 16 because its matrices are small, trained four times on the same batches.
# The second run is float32 again, from a start that differs by a thousandth: it shows how much a difference means.
#
# **Write your guess; then run.** Which of the four ends with the highest loss?

# %%
fp8 = lesson.TOY.replace(precision="fp8", fp8_tile=16)
runs = {
    "float32": lesson.trained(lesson.TOY),
    "float32, weights larger by 0.1 %": lesson.trained(lesson.TOY, nudge=1e-3),
    "FP8, tiles of 16": lesson.trained(fp8),
    "FP8, one scale per matrix": lesson.trained(fp8.replace(fp8_scaling="tensor")),
}
for name, losses in runs.items():
    late = losses[-30:].mean()
    above = late / runs["float32"][-30:].mean() - 1
    print(f"{name:<33} mean of the last 30 steps: {late:.4f} ({above:+.2%})")

draw.runs(runs)

# %% [markdown]
# **What to notice.** For fifty steps FP8 stays within two per cent of float32 (right). Then the loss is small, and the curves part by some per cent. So
# does the grey one, which is float32 with *all weights larger by a thousandth*. Training amplifies any difference: on another processor,
# whose sums are rounded in another order, the two FP8 runs change places. So one run of each cannot say how much is FP8's.
#
# V3 reports less than 0.25 % of loss, at 16B and 230B parameters over a trillion tokens (appendix B.1). Ninety steps cannot resolve that. `minids study
# fp8` has 2,000 steps of three seeds: there FP8 ends a third of a percent above float32, and most of the error of its gradient comes from
# the 3 % of expert choices that rounding changes ([docs/fp8.md](docs/fp8.md)). What V3 found *harmful* at scale: blocks of 128 × 128 for the
# gradients of activations made a 16B model diverge (appendix B.2).
#
# **Delayed scaling** (section 3.3.2) is what others do: the scale of a whole tensor comes from its maxima in earlier steps, so that nothing has to
# be looked at before it is rounded. What grows past all of them is cut off: watch step 1 and step 2. `fp8_scaling="delayed"` trains so;
# `minids study fp8-scaling` compares.

# %%
history = delayed.Amaxes()
for step, size in enumerate((1.0, 1.2, 3.0, 1.0)):
    x = np.full((1, 4), size, np.float32)
    rounded = quantise.rounded(x, None, amax=history.of("x", x))
    history.end_step([history.seen])
    print(f"step {step}: largest number {size}, after rounding {rounded.max():.3f}")

# %% [markdown]
# ## Where to go from here
#
# - [Notebook 12](notebooks/12_real_checkpoints.ipynb) reads FP8 weights as they are released: codes and `weight_scale_inv`.
# - `minids train --model.precision fp8` trains with it; [`ops/fp8_feed_forward.py`](minids/ops/fp8_feed_forward.py) is what the experts use.
# - V3 report: sections 3.3 (the scheme), 3.5.2 (what the hardware should do), appendix B (ablations).
# - Delayed scales and BF16 beside FP8, measured: [notebook 18](notebooks/18_the_rest_of_the_report.ipynb), section 6.

# %% tags=["picture"]
one_scale, tiles = (outlying[0].lost(shape) for shape in (None, (1, 128)))
notebook.card(
    """
    - Three bits of mantissa: 6 % off at most, about 2 % on average, over a range of 2¹⁵.
    - A scale for every 128 numbers keeps an outlier to its own tile.
    - The sum matters as much as the product: 14 bits, promoted every 128 products.
    """,
    number=f"{one_scale:.0%}",
    meaning="of a gradient's numbers become 0 by one scale for the matrix, in the model of these notebooks (section 2). In %:",
    bars={"one scale": 100 * one_scale, "1 × 128 tiles": 100 * tiles},
)
