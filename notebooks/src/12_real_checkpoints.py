# %% [markdown]
# # 12. Opening real checkpoints
#
# DeepSeek-V3 is published as 163 files of together 688,574,839,360 bytes. No laptop holds it. **What exactly is in those bytes, and can you run a piece of it?**

# %% [markdown]
# You can run any single layer, and you can check every byte's place. In this notebook you read a checkpoint with nothing but `open()`, decode its BF16 and FP8 numbers by hand, account for all 684 billion
# numbers of the release, run one layer of a 671-billion-parameter model within two gigabytes of memory, and see that `transformers`, a different program, computes the same logits from the same folder.
#
# No file is downloaded: where real weights would be needed, a folder with *exactly* the released names, shapes and number types takes their place. If you have the real shards, the same lines open them.
#
# Code used here: [`checkpoint/folder.py`](minids/checkpoint/folder.py), [`checkpoint/dtypes.py`](minids/checkpoint/dtypes.py), [`checkpoint/names.py`](minids/checkpoint/names.py),
# [`checkpoint/streaming.py`](minids/checkpoint/streaming.py), [`checkpoint/config_json.py`](minids/checkpoint/config_json.py), [`analysis/parameters.py`](minids/lab/analysis/parameters.py),
# [`analysis/released_weights.py`](minids/lab/analysis/released_weights.py), [`layers/positions.py`](minids/layers/positions.py), [`ops/rope.py`](minids/ops/rope.py),
# [`ops/float8.py`](minids/ops/float8.py), [`ops/bfloat16.py`](minids/ops/bfloat16.py).
# Papers: [DeepSeek-V3 report](https://arxiv.org/abs/2412.19437), sections 2.1 and 3.3; the layout of the files is described in the release's `README_WEIGHTS.md`.

# %%
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import minids
from minids import ModelConfig, check
from minids.checkpoint.config_json import config_to_json
from minids.checkpoint.dtypes import dequantise
from minids.lab import notebook
from minids.lab.analysis import parameters, released_weights
from minids.layers.positions import rotary
from minids.ops import bfloat16, rope
from minids.ops.float8 import E4M3

notebook.set_up()
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK = notebook.COLOURS
v3 = ModelConfig.preset("deepseek-v3")
workshop = tempfile.TemporaryDirectory()  # everything below is written here, and removed at the end
room = Path(workshop.name)

# %% [markdown]
# ## 1. A folder, read by hand
#
# A model trained with minids is saved as a Hugging Face folder, like the released one. Here is a tiny one:

# %%
config = ModelConfig.preset("tiny").replace(
    vocab_size=61, hidden_size=32, num_hidden_layers=3, intermediate_size=44,
    q_lora_rank=20, kv_lora_rank=18, qk_nope_head_dim=10, qk_rope_head_dim=8, v_head_dim=6,
    moe_intermediate_size=14, bos_token_id=None, eos_token_id=None,
)  # fmt: skip
model = minids.DeepSeekV3(config, seed=0)
minids.save(model, room / "tiny")
for path in sorted((room / "tiny").iterdir()):
    print(f"{path.name:<32} {path.stat().st_size:>9,} bytes")

# %% [markdown]
# `config.json` says what the model is, `*.safetensors` hold the numbers, the index says which tensor lies in which file (the MTP module, layer 3 of this model, has a file of its own). A safetensors file is the simplest thing in the world:
#
# | bytes | what |
# |---|---|
# | 0 … 7 | length $n$ of the header, little-endian |
# | 8 … 7 + n | the header: JSON, name → type, shape, where |
# | from 8 + n | the numbers, nothing else |

# %%
raw = (room / "tiny" / "model.safetensors").read_bytes()
n = int.from_bytes(raw[:8], "little")
header = json.loads(raw[8 : 8 + n])
print(n, "bytes of header,", len(header) - 1, "tensors; some of them:")
name = "model.layers.1.self_attn.kv_a_proj_with_mqa.weight"
for shown in (name, "model.layers.1.mlp.gate.e_score_correction_bias"):
    print(f"  {shown}\n      {header[shown]}")

start, stop = header[name]["data_offsets"]
numbers = np.frombuffer(raw[8 + n + start : 8 + n + stop], np.float32)
by_hand = numbers.reshape(header[name]["shape"])  # (d_c + d_r, d)
print("read by hand, the same as in memory:", np.array_equal(by_hand, model.parameters[name].value))

# %% [markdown]
# Matrices are `(out, in)`: one row per output. The 26 rows here are the latent's 18 followed by the rotary key's 8.
#
# ## 2. From the paper's symbols to the names in the file
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
# The release stores big matrices as 8-bit E4M3, each $128 \times 128$ block with one float32 scale, and the rest in BF16 (routing bias: float32). Does that add up to what the hub counts?

# %%
census = released_weights.census(v3)
for dtype, count in census.elements.items():
    print(f"{dtype:<8} {count:>16,} numbers")
print(f'together {census.total:>16,}   the hub\'s "685B"')
print(f"         {census.bytes:>16,} bytes")
print(f"= {parameters.total(v3):,} main model + {parameters.mtp_total(v3):,} MTP module")
copies = v3.vocab_size * v3.hidden_size
print(f"  + 2 · {copies:,} copies of embedding and head + {census.scales:,} scales")
tensors = list(parameters.parameter_shapes(v3, copies=True))
of_layer_3 = sum(name.startswith("model.layers.3.") for name, _ in tensors)
print(f"{len(tensors):,} tensors without the scales, of which layer 3 has {of_layer_3:,}")

# %% [markdown]
# **The claim, checked.** To the last number: 684,531,386,000. This is more than bookkeeping: had we taken the router for FP8 or `eh_proj` for float32, the three counts would not come out. A parameter count is a *proof of types*.
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

# %% tags=["picture"]
positive = np.sort(mine[mine > 0])
figure, (left, right) = notebook.picture(2, 1, width=9, height=2.6)
for axis in (left, right):
    axis.plot(positive, np.zeros_like(positive), "|", color=BLUE, ms=16)
    axis.set(yticks=[])
    axis.spines["left"].set_visible(False)
    axis.grid(False)
left.set(xlim=(-8, 460), title="All positive E4M3 numbers: 126 of them, from 0.00195 to 448")
right.set_xscale("log", base=2)
right.set(
    xlabel="the same on a logarithmic axis: eight to every power of two, fewer at the left end"
)
notebook.show(
    figure,
    "Tick marks of all positive E4M3 numbers, dense near zero, 32 apart near 448; "
    "evenly spread on a logarithmic axis",
)

# %% [markdown]
# **What to notice.** Between 256 and 448 there are only seven numbers. Relative precision is the same everywhere, one part in 16 to one in 8 from number to number, except at the very left, where E4M3 runs out of exponents (the subnormal numbers).
#
# With one common scale a single entry, if it is a hundred thousand times as large as the rest, pushes all others to the left end, where the format runs out ([notebook 10](notebooks/10_fp8.ipynb)). With
# a scale for each block it spoils only its own. **The stored scale multiplies**, although the checkpoint calls it
# `weight_scale_inv`:
#
# $$ W_{ij} = \mathrm{E4M3}_{ij} \cdot S_{\lfloor i/128\rfloor,\,\lfloor j/128\rfloor} $$
#
# `kv_a_proj_with_mqa` has 576 rows, so its scales are $\lceil 576/128\rceil \times 56 = 5 \times 56$, the last row of blocks only half full. Here is a matrix with a ragged edge:

# %%
rng = np.random.default_rng(0)
codes = rng.integers(0, 0x7F, (200, 300), dtype=np.uint8)  # (M, N), no NaN
codes |= rng.integers(0, 2, (200, 300), dtype=np.uint8) << 7  # signs
scales = 2.0 ** rng.uniform(-14, -8, (2, 3)).astype(np.float32)  # (⌈200/128⌉, ⌈300/128⌉)

unpacked = mine[codes].astype(np.float32)  # (M, N) before scaling
everywhere = np.repeat(np.repeat(scales, 128, axis=0), 128, axis=1)  # (256, 384)
everywhere = everywhere[:200, :300]  # each scale over its block, cut at the ragged edge
weights = unpacked * everywhere
again = unpacked.copy()
dequantise(again, scales, (128, 128))
print("scaled by hand as in the package:", np.array_equal(weights, again))

# %% tags=["picture"]
figure, (left, right) = notebook.picture(1, 2, width=9.4, height=2.9, width_ratios=[1, 1.25])
left.imshow(np.log2(everywhere), cmap="cividis", aspect="auto")
low, high = np.log2(everywhere).min(), np.log2(everywhere).max()
for (i, j), scale in np.ndenumerate(scales):
    middle = 128 * j + (64 if j < 2 else 22), 128 * i + (64 if i < 1 else 36)
    colour = "white" if np.log2(scale) < (low + high) / 2 else "black"
    powers = f"$2^{{{np.log2(scale):.1f}}}$"
    left.text(*middle, powers, ha="center", va="center", color=colour)
left.set(xticks=[0, 128, 256, 300], yticks=[0, 128, 200], title="one scale per block")
left.set(xlabel="column", ylabel="row")
left.grid(False)
right.semilogy(np.abs(weights[10]) + 1e-9, ".", color=BLUE, ms=3)
for edge in (128, 256):
    right.axvline(edge, color="0.6", lw=1)
for first, last, scale in (
    (0, 128, scales[0, 0]),
    (128, 256, scales[0, 1]),
    (256, 300, scales[0, 2]),
):
    right.plot([first, last], [448 * scale] * 2, color=ORANGE)
right.set(xlabel="column of row 10", ylabel="|W|", ylim=(1e-7, 10))
right.set_title("each block reaches to 448 times its scale (orange)")
notebook.show(
    figure,
    "Left: a 200 by 300 matrix in six blocks, each with its scale. "
    "Right: the entries of one row, whose ceiling jumps at the block edges",
)

# %% [markdown]
# ## 4. One layer of a 671B model
#
# Layer 3 is V3's first with experts: 11.5 billion numbers. A *file with holes* can have its exact size and form: we write the header, and real numbers for attention, router and shared expert; the routed experts' 11.3 GB are a hole,
# which reads as zeros and occupies no disk. (If you have the real shards, put their folder in place of ours: `minids.load_layer("path/to/DeepSeek-V3", 3)` needs only the shards that hold layer 3.)

# %%
layer = 3
prefix = f"model.layers.{layer}."
form = {}  # name → (type, shape), as in the release
for tensor in parameters.block_tensors(v3, moe=True):
    dtype = released_weights.dtype(tensor)
    form[prefix + tensor.name] = dtype, tensor.shape
    if dtype == "F8_E4M3":
        scales_of = released_weights.scale_shape(tensor.shape)
        form[prefix + tensor.name + "_scale_inv"] = "F32", scales_of


def late(name):
    """Routed experts come last in our file, and among equals the bytes do: numbers stay aligned."""
    return ".experts." in name, form[name][0] == "F8_E4M3"


header, offset = {}, 0
for name in sorted(form, key=late):
    dtype, shape = form[name]
    size = int(np.prod(shape)) * released_weights.BYTES[dtype]
    header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
    offset += size
print(f"{len(header):,} tensors, {offset:,} bytes")

# %% [markdown]
# That is the header. Now the numbers: something plausible for every kind of tensor, in the type that the release has it in.

# %%
a_million_codes = rng.integers(0x18, 0x40, 1 << 20, dtype=np.uint8)  # 2⁻⁴ to 2, as E4M3
a_million_codes |= rng.integers(0, 2, 1 << 20, dtype=np.uint8) << 7  # signs


def some_numbers(name, dtype, shape):
    """Bytes of a tensor, or None where the file keeps its zeros."""
    if dtype == "F8_E4M3":
        return np.resize(a_million_codes, shape).tobytes()
    if name.endswith("_scale_inv"):
        return np.full(shape, 0.02, np.float32).tobytes()
    if name.endswith("gate.weight"):  # the router, BF16: the upper halves of float32
        float32 = rng.normal(0, 0.02, shape).astype(np.float32)
        return (float32.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    if name.endswith("norm.weight"):
        return np.full(shape, 0x3F80, np.uint16).tobytes()  # BF16 for 1
    return None


folder, shard = room / "DeepSeek-V3", "model-00005-of-000163.safetensors"
folder.mkdir()
with open(folder / shard, "wb") as file:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8
    file.write(len(text).to_bytes(8, "little") + text)
    for name, entry in header.items():
        if ".experts." not in name and (numbers := some_numbers(name, *form[name])) is not None:
            file.seek(8 + len(text) + entry["data_offsets"][0])
            file.write(numbers)
    file.truncate(8 + len(text) + offset)  # the experts: a hole

quantised = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
description = config_to_json(v3) | {"quantization_config": quantised}
(folder / "config.json").write_text(json.dumps(description))
index = {"metadata": {}, "weight_map": dict.fromkeys(header, shard)}
(folder / "model.safetensors.index.json").write_text(json.dumps(index))
print("written:", sorted(path.name for path in folder.iterdir()))

# %% [markdown]
# And now the layer, as if it were the real one. Attention, router and norms are converted to float32 when the layer is opened; experts stay on disk until a token asks for them:

# %%
block = minids.load_layer(folder, layer)
x = np.random.default_rng(1).normal(size=(1, 3, v3.hidden_size)).astype(np.float32)  # (B, T, d)
y, saved = block.forward(x, rotary(v3, np.arange(3), np.float32))
chosen = saved.ffn.routing.chosen  # (N, K)
inside = saved.attention
notebook.shapes(
    {"T": 3, "d": 7168, "d_c": 512, "H": 128, "d_nope+d_r": 192},
    x=x, y=y, c_kv=inside.latent.norm.normed, q=inside.attention.q[:, :, 0],
)  # fmt: skip
for token, experts in enumerate(np.sort(chosen)):
    nodes = sorted({int(e) // 32 for e in experts})  # 32 experts a node
    print(f"token {token} went to experts {experts.tolist()}, on nodes {nodes}")

# %%
touched = np.unique(chosen)
expert = 3 * v3.hidden_size * v3.moe_intermediate_size / 1e6  # million bytes of E4M3
attention = parameters.attention_tensors(v3)
attention = sum(tensor.size for tensor in attention) / 1e6
print(f"read: {len(touched)} · {expert:.0f} MB of experts and {attention:.0f} MB of attention,")
print(f"      of the layer's {offset / 1e9:.1f} GB")
few = all(len({int(e) // 32 for e in row}) <= 4 for row in chosen)
print("every token on at most four nodes:", few)

# %% tags=["picture"]
grid = np.zeros(256)
grid[touched] = 1
figure, axis = notebook.picture(width=8.6, height=2.2)
axis.imshow(grid.reshape(8, 32), cmap="Blues", vmin=0, vmax=1.3, aspect="auto")
for node in range(1, 8):
    axis.axhline(node - 0.5, color="white", lw=3)
axis.set_yticks(range(8), [f"node {n}" for n in range(8)])
axis.set_xticks([0, 31], ["first expert", "last of 32"])
axis.set_title(f"{len(touched)} of 256 experts were read from disk for 3 tokens")
axis.grid(False)
notebook.show(
    figure,
    "Eight rows of 32 experts: the few that three tokens chose are dark; each token touches at most "
    "four rows",
)

# %% [markdown]
# **What to notice.** The layer is V3's in every size: 576 numbers of latent and rotary key per token, 128 heads of 192, 8 of 256 experts on at most 4 of 8 nodes. And only what was needed was read. A whole model runs the same way, layer after layer, with
# `minids.load_streamed(folder)` or `minids generate --checkpoint FOLDER --stream`; 16-billion-parameter folders (DeepSeek-V2-Lite, Moonlight) need less than 2 GB. The tiny model, streamed:

# %%
streamed = minids.load_streamed(room / "tiny")
prompt = [3, 1, 4, 1, 5]
from_disk, from_memory = (minids.generate(m, prompt, 12) for m in (streamed, model))
print("streamed:   ", from_disk.tolist())
print("from memory:", from_memory.tolist())

# %% [markdown]
# ## 5. The same numbers as transformers
#
# How do you know that a reader of checkpoints reads *rightly*? Two programs that were written apart and agree on random weights are hardly both wrong. To make the comparison one that anybody can repeat, the weights come from a *formula* (64-bit integer arithmetic, splitmix64), not from a generator that may change:


# %%
def uniform(stream, shape):
    """Numbers in [0, 1), float64, the same on every machine."""
    with np.errstate(over="ignore"):
        counter = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64)
        z = (counter + np.uint64(stream << 32)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(11)) * 2.0**-53).reshape(shape)


def fill(model):
    """Weights from the formula, one stream per name in alphabetical order."""
    arrays = {p.name: p.value for p in model.parameters} | model.parameters.buffers
    for stream, name in enumerate(sorted(arrays), start=1):
        u = uniform(stream, arrays[name].shape)
        if name.endswith("norm.weight"):
            arrays[name][...] = 0.8 + 0.4 * u
        else:
            arrays[name][...] = (u - 0.6) * 0.5 if name.endswith("bias") else (u - 0.5) * 0.8


parity_config = config.replace(max_position_embeddings=512, bos_token_id=0, eos_token_id=1)
exact = minids.DeepSeekV3(parity_config, seed=None, dtype=np.float64)
fill(exact)
tokens = (uniform(0, (2, 14)) * parity_config.vocab_size).astype(np.int64)[:, :-1]  # (B, T)
ours = exact.logits(tokens)  # (B, T, V)

# Logits that transformers 5 gave for these weights in float64: last position of the second text, first eight words.
TRANSFORMERS = np.array([
    -0.8556715300162623, 0.8564147298099045, -0.458425215001784, 1.9265606389608858,
    -0.3033163878260335, 0.012592690828812758, -0.5420451413539711, -1.3853672578324185,
])  # fmt: skip
print("ours        ", np.round(ours[-1, -1, :8], 6))
print("transformers", np.round(TRANSFORMERS, 6))
print(f"largest difference below 1e-9: {np.abs(ours[-1, -1, :8] - TRANSFORMERS).max() < 1e-9}")

# %% [markdown]
# And live: save a float32 folder and let another process open it with `transformers`. (This needs `pip install torch transformers`; without them the cell says so, and the comparison above is the one that counts.)

# %%
QUESTION = """
import json, sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32, experts_implementation="eager")
with torch.no_grad():
    print(json.dumps(model(torch.tensor(json.loads(sys.argv[2]))).logits[-1, -1, :8].tolist()))
"""


def asked_of_transformers(folder, tokens):
    """The eight logits from another process, or None where transformers is missing."""
    command = [sys.executable, "-c", QUESTION, str(folder), json.dumps(tokens.tolist())]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode and "ModuleNotFoundError" in answer.stderr:
        return None
    answer.check_returncode()
    return np.array(json.loads(answer.stdout.strip().splitlines()[-1]))


single = minids.DeepSeekV3(parity_config, seed=None, dtype=np.float32)
fill(single)
minids.save(single, room / "parity")
theirs = asked_of_transformers(room / "parity", tokens)
if theirs is None:
    print("transformers is not installed here")
else:
    close = np.abs(theirs - ours[-1, -1, :8]).max() < 1e-4
    print("our folder, opened by transformers in float32: equal to 1e-4:", close)

# %% [markdown]
# The tests of this repository do this for 27 configurations in both precisions, and compare every gradient too.
#
# ## 6. A trap in the layout: rotary rows
#
# RoPE turns *pairs* of coordinates. DeepSeek's weights put the two of a pair side by side, $(2i, 2i+1)$; other programs expect them half a head apart, $(i, i + d_r/2)$. A checkpoint for one, read by the other, gives a model that is plausible and wrong ([notebook 14](notebooks/14_museum_of_mistakes.ipynb)). Nothing is lost, though: re-order the
# rows that produce rotary coordinates, and the two agree. For queries *and* keys the same permutation, so their dot product does not change:

# %%
d_r = 8
positions = np.arange(5)
cos, sin = rotary(parity_config, positions, np.float64)
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

# %%
workshop.cleanup()

# %% [markdown]
# ## Exercises
#
# ### 1. Read a tensor with nothing but bytes
#
# Write `tensor_from(raw, name)` for a safetensors file in memory whose tensors are float32. (`raw` of section 1 is one.)


# %% tags=["solution"]
def tensor_from(raw, name):
    """raw: the bytes of a safetensors file → the float32 array called name."""
    # Eight bytes of length, the header, the data; offsets count from the end of the header.
    n = int.from_bytes(raw[:8], "little")
    entry = json.loads(raw[8 : 8 + n])[name]
    start, stop = entry["data_offsets"]
    return np.frombuffer(raw[8 + n + start : 8 + n + stop], np.float32).reshape(entry["shape"])


# %% tags=["check"]
def in_memory(raw, name):
    """What was saved."""
    return model.parameters[name].value


names = ("lm_head.weight", "model.layers.2.self_attn.o_proj.weight", "model.norm.weight")
check.ok(check.against(in_memory, tensor_from, [(raw, name) for name in names]))

# %% [markdown]
# ### 2. Undo FP8
#
# Write `undo_fp8(codes, scales, block)`: uint8 codes (M, N) and scales (⌈M/block⌉, ⌈N/block⌉) → float32 (M, N). Use the table `mine` of section 3, and mind the ragged edges.


# %% tags=["solution"]
def undo_fp8(codes, scales, block):
    """codes (M, N) uint8, scales (⌈M/block⌉, ⌈N/block⌉) → real numbers (M, N) float32."""
    rows, columns = codes.shape
    spread = np.repeat(np.repeat(scales, block, axis=0), block, axis=1)[:rows, :columns]
    return (mine[codes] * spread).astype(np.float32)


# %% tags=["check"]
def by_the_package(codes, scales, block):
    """The same by checkpoint/dtypes.py."""
    values = E4M3.values[codes]
    dequantise(values, scales, (block, block))
    return values


small = np.float32(2) ** rng.integers(-8, 0, (3, 3)).astype(np.float32)
cases = [(codes, scales, 128), (codes[:40, :33], small, 16)]
check.ok(check.against(by_the_package, undo_fp8, cases))

# %% [markdown]
# ### 3. From one layout to the other
#
# `q_b_proj` has, for every head, `d_nope` content rows and then `d_r` rotary rows. Write `to_half_split(weight, heads, d_nope, d_r)`: the same matrix with every head's rotary rows re-ordered from interleaved to half-split, content rows untouched.


# %% tags=["solution"]
def to_half_split(weight, heads, d_nope, d_r):
    """weight (heads · (d_nope + d_r), in), interleaved → half-split."""
    # View it as (heads, d_nope + d_r, in): then one index array re-orders every head.
    by_head = weight.reshape(heads, d_nope + d_r, -1)
    order = [*range(d_nope), *range(d_nope, d_nope + d_r, 2), *range(d_nope + 1, d_nope + d_r, 2)]
    return by_head[:, order].reshape(weight.shape)


# %% tags=["check"]
def row_by_row(weight, heads, d_nope, d_r):
    """The same, slowly."""
    out = weight.copy()
    for head in range(heads):
        start = head * (d_nope + d_r) + d_nope
        for i in range(d_r // 2):
            out[start + i] = weight[start + 2 * i]
            out[start + d_r // 2 + i] = weight[start + 2 * i + 1]
    return out


cases = [(rng.normal(size=(3 * 14, 5)), 3, 6, 8), (rng.normal(size=(2 * 4, 3)), 2, 0, 4)]
check.ok(check.against(row_by_row, to_half_split, cases))

# %% [markdown]
# ### A wrong answer is noticed
#
# `weight_scale_inv` invites dividing, and the inverse permutation invites confusion:


# %%
def divides(codes, scales, block):
    """Takes the name weight_scale_inv at its word."""
    rows, columns = codes.shape
    spread = np.repeat(np.repeat(scales, block, axis=0), block, axis=1)[:rows, :columns]
    return (mine[codes] / spread).astype(np.float32)


def to_interleaved(weight, heads, d_nope, d_r):
    """The permutation the other way round."""
    by_head = weight.reshape(heads, d_nope + d_r, -1)
    pairs = [d_nope + i + half for i in range(d_r // 2) for half in (0, d_r // 2)]
    return by_head[:, [*range(d_nope), *pairs]].reshape(weight.shape)


notebook.caught(check.against(by_the_package, divides, codes[:40, :33], small, 16))
notebook.caught(check.against(row_by_row, to_interleaved, rng.normal(size=(2 * 14, 5)), 2, 6, 8))

# %% [markdown]
# ## Where to read on
#
# - [`checkpoint/folder.py`](minids/checkpoint/folder.py) opens folders lazily and refuses damaged ones; [`checkpoint/names.py`](minids/checkpoint/names.py) is the one list of names and shapes.
# - `minids info --checkpoint FOLDER` accounts for any folder; `minids generate --checkpoint FOLDER --stream` runs one that is larger than memory.
# - [Notebook 10](notebooks/10_fp8.ipynb) shows where FP8 comes from; [notebook 13](notebooks/13_what_it_costs.ipynb) counts what all this costs.
