# %% [markdown]
# # 12. Opening real checkpoints
#
# DeepSeek-V3 is published as 163 files of together 688,574,839,360 bytes. No laptop holds it. **What exactly is in those bytes, and can
# you run a piece of it?**

# %% [markdown]
# You can run any single layer, and you can check every byte's place. First a small checkpoint in the same layout, read with nothing but
# `open()`: the model that goes through these notebooks, which has been *trained* and is stored as V3 is, in FP8. Then V3's own
# headers, every name, shape and type of them; then one of its layers, within two gigabytes of memory. No file is downloaded.
#
# Code used here: [`checkpoint/dtypes.py`](minids/checkpoint/dtypes.py), [`checkpoint/folder.py`](minids/checkpoint/folder.py),
# [`checkpoint/names.py`](minids/checkpoint/names.py), [`analysis/parameters.py`](minids/lab/analysis/parameters.py),
# [`analysis/released_weights.py`](minids/lab/analysis/released_weights.py) (V3's headers, and a folder that stands in for a shard),
# [`analysis/known_weights.py`](minids/lab/analysis/known_weights.py), [`layers/positions.py`](minids/layers/positions.py),
# [`ops/rope.py`](minids/ops/rope.py), [`ops/float8.py`](minids/ops/float8.py), [`ops/bfloat16.py`](minids/ops/bfloat16.py);
# pictures in [`plots/checkpoints.py`](minids/lab/plots/checkpoints.py), checks of the exercises in
# [`lessons/checkpoints.py`](minids/lab/lessons/checkpoints.py). Papers: [DeepSeek-V3 report](https://arxiv.org/abs/2412.19437), sections
# 2.1 and 3.3; the layout of the files is described in the release's `README_WEIGHTS.md`.

# %%
import json
import tempfile
from pathlib import Path

import numpy as np

import minids
from minids import ModelConfig, check
from minids.lab import notebook
from minids.lab.analysis import known_weights, parameters, released_weights
from minids.lab.lessons import checkpoints as lesson
from minids.lab.plots import checkpoints
from minids.layers.positions import rotary
from minids.ops import bfloat16, rope
from minids.ops.float8 import E4M3

notebook.set_up()
notebook.here()
v3 = ModelConfig.preset("deepseek-v3")
workshop = tempfile.TemporaryDirectory()  # what is written below goes here, and away at the end
room = Path(workshop.name)

# %% [markdown]
# ## 1. A folder, read by hand
#
# `config.json` says what the model is, `*.safetensors` hold the numbers, the index says which tensor lies in which file (the MTP module
# has a file of its own). A safetensors file is simple:
#
# | bytes | what |
# |---|---|
# | 0 … 7 | length $n$ of the header, little-endian |
# | 8 … 7 + n | the header: JSON, name → type, shape, where |
# | from 8 + n | the numbers, nothing else |

# %%
folder = Path("model") if Path("model/config.json").exists() else Path("notebooks/model")
raw = (folder / "model.safetensors").read_bytes()
n = int.from_bytes(raw[:8], "little")
header = json.loads(raw[8 : 8 + n])
print(n, "bytes of header,", len(header) - 1, "tensors; those of one attention layer:")
for name, entry in header.items():
    if name.startswith("model.layers.1.self_attn."):
        print(f"  {name:<62} {entry['dtype']:<8} {entry['shape']}")

# %% [markdown]
# Matrices are `(out, in)`: one row per output. Each FP8 matrix has a second tensor, `_scale_inv`, which we come to in section 3.
#
# ### Exercise 1: read a tensor with nothing but bytes
#
# Write `tensor_from(raw, name)` for a safetensors file in memory, for tensors whose type is F32.


# %% tags=["solution"]
def tensor_from(raw, name):
    """raw: the bytes of a safetensors file → the float32 array called name."""
    # Eight bytes of length, the header, the data; offsets count from the end of the header.
    n = int.from_bytes(raw[:8], "little")
    entry = json.loads(raw[8 : 8 + n])[name]
    start, stop = entry["data_offsets"]
    return np.frombuffer(raw[8 + n + start : 8 + n + stop], np.float32).reshape(entry["shape"])


# %% tags=["check"]
model = notebook.model()
held = {p.name: p.value for p in model.parameters} | model.parameters.buffers


def in_memory(raw, name):
    """What the package has read."""
    return held[name]


names = [name for name, entry in header.items() if name in held and entry["dtype"] == "F32"][:6]
check.ok(check.against(in_memory, tensor_from, [(raw, name) for name in names]))

# %% [markdown]
# ## 2. V3's own headers
#
# | paper | name in the checkpoint, below `model.layers.{l}.` | shape in V3 |
# |---|---|---|
# | $W^{DQ}$ | `self_attn.q_a_proj` | 1536 × 7168 |
# | $W^{UQ}$ and $W^{QR}$ | `self_attn.q_b_proj`, per head 128 content rows, then 64 rotary ones | 24576 × 1536 |
# | $W^{DKV}$ and $W^{KR}$ | `self_attn.kv_a_proj_with_mqa`, 512 latent rows, then 64 rotary ones | 576 × 7168 |
# | $W^{UK}$ and $W^{UV}$ | `self_attn.kv_b_proj`, per head 128 key rows, then 128 value rows | 32768 × 512 |
# | $W^O$ | `self_attn.o_proj` | 7168 × 16384 |
# | $e_i$ (all of them) | `mlp.gate.weight` | 256 × 7168 |
# | $b_i$ | `mlp.gate.e_score_correction_bias` | 256 |
# | $W_1, W_3, W_2$ of expert $e$ | `mlp.experts.{e}.gate_proj`, `up_proj`, `down_proj` | 2048 × 7168, …, 7168 × 2048 |
# | $M_1$ | `eh_proj`, in layer 61 | 7168 × 14336 |
#
# Layer 3 is the first with experts. **Write your guess; then run:** how many tensors does it have?

# %%
checkpoints.layer()
notebook.explore(checkpoints.layer, number=(0, 61))

# %% [markdown]
# (With a running kernel the slider goes through all layers: 0 to 2 are dense, 61 is the MTP module with its own copies of embedding and head.)
#
# Does all that add up to what the hub counts?

# %%
census = released_weights.census(v3)
for dtype, count in census.elements.items():
    print(f"{dtype:<8} {count:>16,} numbers")
print(f'together {census.total:>16,}   the hub\'s "685B"')
print(
    f"         {census.bytes:>16,} bytes, in {sum(1 for _ in released_weights.entries(v3)):,} tensors"
)
print(f"= {parameters.total(v3):,} main model + {parameters.mtp_total(v3):,} MTP module")
copies = v3.vocab_size * v3.hidden_size
print(f"  + 2 · {copies:,} copies of embedding and head + {census.scales:,} scales")

# %% tags=["picture"]
checkpoints.bytes_by_kind()

# %% [markdown]
# **The claim, checked.** To the last number: 684,531,386,000. This is more than bookkeeping: had we taken the router for FP8 or `eh_proj`
# for float32, the three counts would not come out. A parameter count is a *proof of types*.
#
# ## 3. Two ways to write a number
#
# BF16 is the upper half of a float32. E4M3 has one byte: a sign, four bits of exponent, three of mantissa:
#
# $$ x = (-1)^s \cdot 2^{e-7}\,(1 + m/8) \quad (e > 0), \qquad x = (-1)^s\cdot 2^{-6}\, m/8 \quad (e = 0) $$
#
# with no infinity, and NaN only for all ones. The largest value is $448 = 1.75 \cdot 2^8$.


# %%
def e4m3(code):
    """The number that a byte stands for."""
    s, e, m = code >> 7, (code >> 3) & 15, code & 7
    if (code & 0x7F) == 0x7F:
        return np.nan
    return (-1.0) ** s * (2.0 ** (e - 7) * (1 + m / 8) if e else 2.0**-6 * m / 8)


mine = np.array([e4m3(code) for code in range(256)])
print("all 256 codes as in the package:", np.array_equal(mine, E4M3.values, equal_nan=True))
for bits in (0x3F80, 0xC049, 0x7F80):
    upper_half = np.array([bits], np.uint16)
    value = (upper_half.astype(np.uint32) << 16).view(np.float32)  # the lower half is zero
    same = np.array_equal(bfloat16.decode(upper_half), value)
    print(f"BF16 {bits:04X} is {value[0]:<9.6g} the package agrees: {same}")

# %% [markdown]
# A matrix has one float32 scale for each block of 128 × 128. **The stored scale multiplies**, although the checkpoint calls it
# `weight_scale_inv`:
#
# $$ W_{ij} = \mathrm{E4M3}_{ij} \cdot S_{\lfloor i/128\rfloor,\,\lfloor j/128\rfloor} $$
#
# Here are the codes and scales of a trained matrix, from the bytes. **Write your guess; then run:** the largest E4M3 number is 448;
# what is the largest one in use?


# %%
def bytes_of(name):
    """A tensor's bytes and shape."""
    start, stop = header[name]["data_offsets"]
    return raw[8 + n + start : 8 + n + stop], header[name]["shape"]


name = "model.layers.0.mlp.down_proj.weight"
data, shape = bytes_of(name)
codes = np.frombuffer(data, np.uint8).reshape(shape)  # (out, in)
data, shape = bytes_of(name + "_scale_inv")
scales = np.frombuffer(data, np.float32).reshape(shape)  # (⌈out/128⌉, ⌈in/128⌉)
print(f"codes {codes.shape}, scales {scales.shape}, largest code {np.abs(mine[codes]).max():g}")
i, j = 10, 200
by_hand = np.float32(mine[codes[i, j]]) * scales[i // 128, j // 128]
print(f"W[{i}, {j}] by hand {by_hand:.6f}, in the package {held[name][i, j]:.6f}")

# %% tags=["picture"]
checkpoints.numbers_and_codes(mine, codes)
checkpoints.blocks(held[name], scales)

# %% [markdown]
# **What to notice.** Each block is stretched until its largest entry is 448, so the codes crowd at the upper end: from 2⁻⁹ to 448 the
# format has more range than a trained block needs, and what it lacks is steps. One outlier spoils only its own block
# ([notebook 10](notebooks/10_fp8.ipynb)).
#
# ### Exercise 2: undo FP8
#
# Write `undo_fp8(codes, scales, block)` for any matrix, its last blocks cut at the edge. `mine` has the 256 values.


# %% tags=["solution"]
def undo_fp8(codes, scales, block):
    """codes (M, N) uint8, scales (⌈M/block⌉, ⌈N/block⌉) → real numbers (M, N) float32."""
    rows, columns = codes.shape
    spread = np.repeat(np.repeat(scales, block, axis=0), block, axis=1)[:rows, :columns]
    return (mine[codes] * spread).astype(np.float32)


# %% tags=["check"]
check.ok(lesson.check_undo_fp8(undo_fp8, codes, scales))

# %% [markdown]
# The name `weight_scale_inv` invites dividing:

# %%
notebook.caught(lesson.check_undo_fp8(lesson.divided, codes, scales))

# %% [markdown]
# ## 4. One layer of a 671B model
#
# Layer 3 has 11.5 billion numbers. If you have the real shards, `minids.load_layer("path/to/DeepSeek-V3", 3)` opens it. Here a folder
# stands in for it, with exactly the released names, shapes and types: its attention, router and shared expert have plausible numbers,
# and the experts' 11.3 GB are a *hole* in the file, which reads as zeros and occupies no disk.
#
# **Write your guess; then run.** Three tokens pass through the layer. How much of its 11.5 GB is read?

# %%
size = released_weights.stand_in(room / "DeepSeek-V3", v3, layer=3)
block = minids.load_layer(room / "DeepSeek-V3", 3)
x = np.random.default_rng(1).normal(size=(1, 3, v3.hidden_size)).astype(np.float32)  # (B, T, d)
y, saved = block.forward(x, rotary(v3, np.arange(3), np.float32))
chosen = saved.ffn.routing.chosen  # (N, K)
inside = saved.attention
notebook.shapes(
    {"T": 3, "d": 7168, "d_c": 512, "H": 128, "d_nope+d_r": 192},
    x=x, y=y, c_kv=inside.latent.norm.normed, q=inside.attention.q[:, :, 0],
)  # fmt: skip
touched = np.unique(chosen)
expert = 3 * v3.hidden_size * v3.moe_intermediate_size / 1e6  # million bytes of E4M3
attention = sum(tensor.size for tensor in parameters.attention_tensors(v3)) / 1e6
print(f"read: {len(touched)} · {expert:.0f} MB of experts and {attention:.0f} MB of attention,")
print(f"      of the layer's {size / 1e9:.1f} GB")

# %% tags=["picture"]
checkpoints.experts_read(chosen)

# %% [markdown]
# **What to notice.** The layer is V3's in every size: 576 numbers of latent and rotary key per token, 128 heads of 192, 8 of 256 experts on
# at most 4 of 8 nodes. And only what was needed was read. A whole model runs the same way, layer after layer, with
# `minids.load_streamed(folder)` or `minids generate --checkpoint FOLDER --stream`; 16-billion-parameter folders (DeepSeek-V2-Lite,
# Moonlight) need less than 2 GB. Our small model, streamed, and from memory:

# %%
streamed = minids.load_streamed(folder)
ids = notebook.read(model).tokens[0]
from_disk, from_memory = (minids.generate(m, ids, 12) for m in (streamed, model))
print("streamed:   ", repr(model.tokenizer.decode(from_disk)))
print("from memory:", repr(model.tokenizer.decode(from_memory)))

# %% [markdown]
# ## 5. The same numbers as transformers
#
# How do you know that a reader of checkpoints reads *rightly*? Two programs that were written apart and agree on random weights are hardly
# both wrong. So that anybody can repeat it, these weights come from a formula:

# %%
exact = known_weights.model()
ours = exact.logits(known_weights.tokens())[-1, -1, :8]
print("ours        ", np.round(ours, 6))
print("transformers", np.round(known_weights.TRANSFORMERS, 6))
print(f"largest difference below 1e-9: {np.abs(ours - known_weights.TRANSFORMERS).max() < 1e-9}")

minids.save(known_weights.model(np.float32), room / "parity")
theirs = known_weights.asked_of_transformers(room / "parity")  # another process opens our folder
if theirs is None:
    print("transformers is not installed here: the comparison above is the one that counts")
else:
    print("our folder, opened by transformers, equal to 1e-4:", np.abs(theirs - ours).max() < 1e-4)

# %% [markdown]
# The tests of this repository do this for 27 configurations in both precisions, and compare every gradient too.
#
# ## 6. A trap in the layout: rotary rows
#
# RoPE turns *pairs* of coordinates. DeepSeek's weights put the two of a pair side by side, $(2i, 2i+1)$; other programs expect them half a
# head apart, $(i, i + d_r/2)$. A checkpoint for one, read by the other, gives a model that is plausible and wrong
# ([notebook 14](notebooks/14_museum_of_mistakes.ipynb), room four). Nothing is lost, though: re-order the rows that produce rotary
# coordinates, and the two agree. For queries *and* keys the same permutation, so their dot product does not change:

# %%
d_r, rng = 8, np.random.default_rng(0)
cos, sin = rotary(known_weights.CONFIG, np.arange(5), np.float64)
weight = rng.normal(size=(d_r, 16))  # rows that make a rotary key, interleaved
inputs = rng.normal(size=(1, 5, 16))
# Half-split rows: first the even ones of the interleaved rows, then the odd ones.
order = np.concatenate([np.arange(0, d_r, 2), np.arange(1, d_r, 2)])

interleaved, _ = rope.forward((inputs @ weight.T)[:, :, None], cos, sin, interleave=True)
half_split, _ = rope.forward((inputs @ weight[order].T)[:, :, None], cos, sin, interleave=False)
unchanged, _ = rope.forward((inputs @ weight.T)[:, :, None], cos, sin, interleave=False)
print("order of the rows:", order)
print("rows re-ordered, the same numbers: ", np.allclose(interleaved[..., order], half_split))
print("rows left as they are, the same:   ", np.allclose(interleaved[..., order], unchanged))

# %% [markdown]
# ### Exercise 3: from one layout to the other
#
# `q_b_proj` has, for every head, `d_nope` content rows and then `d_r` rotary rows. Write `to_half_split(weight, heads, d_nope, d_r)`: the
# same matrix with every head's rotary rows re-ordered from interleaved to half-split, content rows untouched.


# %% tags=["solution"]
def to_half_split(weight, heads, d_nope, d_r):
    """weight (heads · (d_nope + d_r), in), interleaved → half-split."""
    # View it as (heads, d_nope + d_r, in): then one index array re-orders every head.
    by_head = weight.reshape(heads, d_nope + d_r, -1)
    order = [*range(d_nope), *range(d_nope, d_nope + d_r, 2), *range(d_nope + 1, d_nope + d_r, 2)]
    return by_head[:, order].reshape(weight.shape)


# %% tags=["check"]
check.ok(lesson.check_to_half_split(to_half_split))

# %% [markdown]
# ## Where to go from here
#
# - [`checkpoint/folder.py`](minids/checkpoint/folder.py) opens folders lazily and refuses damaged ones;
#   [`checkpoint/names.py`](minids/checkpoint/names.py) is the one list of names and shapes.
# - `minids info --checkpoint FOLDER` accounts for any folder; `minids generate --checkpoint FOLDER --stream` runs one that is larger than
#   memory.
# - [Notebook 10](notebooks/10_fp8.ipynb) shows where FP8 comes from; [notebook 13](notebooks/13_what_it_costs.ipynb) counts what it costs.

# %%
workshop.cleanup()

# %% tags=["picture"]
notebook.card(
    """
    - A safetensors file: a length, a JSON header, and the numbers.
    - A matrix is E4M3 codes times one float32 scale per 128 × 128, which multiplies, whatever its name says.
    - One token needs 8 of a layer's 256 experts: a layer runs where the model does not fit.
    """,
    number="685B",
    meaning="numbers in the release; billions of each type:",
    bars={kind: count / 1e9 for kind, count in census.elements.items()},
)
