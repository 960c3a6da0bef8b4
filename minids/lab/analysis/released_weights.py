"""Which type every tensor of the released DeepSeek-V3 has, and what that makes in bytes.

The release stores the matrices of attention, dense networks and experts as E4M3 with one float32 scale per 128 × 128 block
(``weight_scale_inv``), everything else in BF16, and the routing bias in float32 (DeepSeek-V3 repository, README_WEIGHTS.md).
That the count of each type comes out at the number the model hub shows is what proves the types of the small tensors: router,
``eh_proj`` and norms BF16, bias float32.
"""

import json
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minids.checkpoint.config_json import config_to_json
from minids.checkpoint.folder import SCALE_SUFFIX
from minids.checkpoint.released import QUANTISATION, type_of
from minids.config import ModelConfig
from minids.lab.analysis.parameters import ROUTER, ROUTING_BIAS, Tensor, mtp_copies, parameter_shapes, tensors
from minids.ops import bfloat16
from minids.ops.quantise import grid

BLOCK = 128  # rows and columns that share one scale
BYTES = {"BF16": 2, "F8_E4M3": 1, "F32": 4}


class Census(NamedTuple):
    """Elements of a release by type."""

    elements: dict[str, int]
    scales: int  # of the float32 elements, the block scales

    @property
    def total(self) -> int:
        return sum(self.elements.values())

    @property
    def bytes(self) -> int:
        return sum(BYTES[dtype] * count for dtype, count in self.elements.items())


def scale_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Scales of an FP8 matrix: ceil(out / 128) × ceil(in / 128). kv_a_proj_with_mqa (576 × 7168) has 5 × 56."""
    *stacked, rows, columns = shape
    return *stacked, *grid((rows, columns), (BLOCK, BLOCK))


def dtype(tensor: Tensor) -> str:
    """Type of a tensor in the release, from the part it belongs to."""
    if tensor.part == ROUTING_BIAS:
        return "F32"
    if len(tensor.shape) == 1 or tensor.part in ("embedding", "head", ROUTER, "MTP eh_proj", "MTP copies"):
        return "BF16"
    return "F8_E4M3"


def census(config: ModelConfig) -> Census:
    """Elements by type of a release in V3's format, MTP modules and their copies of embedding and head included.

    V3: BF16 3,918,786,560; E4M3 680,571,043,840; float32 41,555,600; together 684,531,386,000, the hub's "685B".
    """
    elements, scales = dict.fromkeys(BYTES, 0), 0
    for tensor in (*tensors(config), *mtp_copies(config)):
        kind = dtype(tensor)
        elements[kind] += tensor.size
        if kind == "F8_E4M3":
            scales += prod(scale_shape(tensor.shape))
    elements["F32"] += scales
    return Census(elements, scales)


class Entry(NamedTuple):
    """One tensor of the release, as the header of its file has it."""

    name: str
    dtype: str  # "BF16", "F8_E4M3" or "F32"
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return prod(self.shape) * BYTES[self.dtype]


def entries(config: ModelConfig) -> Iterator[Entry]:
    """Every tensor of a release in V3's format, name, type and shape, its scale after it. V3: 91,991 of them."""
    for name, shape in parameter_shapes(config, copies=True):
        vector = "F32" if name.endswith("e_score_correction_bias") else "BF16"
        kind = type_of(name, len(shape)) if len(shape) > 1 else vector
        yield Entry(name, kind, tuple(shape))
        if kind == "F8_E4M3":
            yield Entry(name + SCALE_SUFFIX, "F32", scale_shape(tuple(shape)))


def stand_in(folder: Path, config: ModelConfig, layer: int, seed: int = 0) -> int:
    """Write a folder that holds one layer with the released names, shapes and types, and return the bytes of its file.

    Attention, router, norms and shared expert have plausible numbers. The routed experts are a hole in the file, which reads as
    zeros and occupies no disk: V3's layer 3 has 11.5 GB and takes 0.3.
    """
    rng = np.random.default_rng(seed)
    codes = rng.integers(0x18, 0x40, 1 << 20, dtype=np.uint8) | rng.integers(0, 2, 1 << 20, dtype=np.uint8) << 7  # ±2⁻⁴ to 2
    held = [e for e in entries(config) if e.name.startswith(f"model.layers.{layer}.")]
    held.sort(key=lambda e: (".experts." in e.name, e.dtype == "F8_E4M3"))  # the hole last, and among equals the bytes
    header, end = {}, 0
    for entry in held:
        header[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [end, end + entry.bytes]}
        end += entry.bytes
    folder.mkdir(parents=True)
    shard = "model-00005-of-000163.safetensors"
    with open(folder / shard, "wb") as file:
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8
        file.write(len(text).to_bytes(8, "little") + text)
        for entry in held:
            numbers = None if ".experts." in entry.name else _plausible(entry, codes, rng)
            if numbers is not None:
                file.seek(8 + len(text) + header[entry.name]["data_offsets"][0])
                file.write(numbers)
        file.truncate(8 + len(text) + end)
    (folder / "config.json").write_text(json.dumps(config_to_json(config) | {"quantization_config": QUANTISATION}), "utf-8")
    index = {"metadata": {}, "weight_map": dict.fromkeys(header, shard)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    return end


def _plausible(entry: Entry, codes: np.ndarray, rng: np.random.Generator) -> bytes | None:
    """Bytes of a tensor; None for zeros."""
    if entry.dtype == "F8_E4M3":
        return np.resize(codes, entry.shape).tobytes()
    if entry.name.endswith(SCALE_SUFFIX):
        return np.full(entry.shape, 0.02, np.float32).tobytes()
    if entry.name.endswith("gate.weight"):
        return bfloat16.encode(rng.normal(0, 0.02, entry.shape).astype(np.float32)).tobytes()
    if entry.name.endswith("norm.weight"):
        return bfloat16.encode(np.ones(entry.shape, np.float32)).tobytes()
    return None
