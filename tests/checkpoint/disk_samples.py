"""Synthetic checkpoint folders for the tests, written without the code under test: header by hand, numbers by ml_dtypes."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np

from minids.config import ModelConfig

Array = np.ndarray

TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "I64": np.int64,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}

CONFIG = ModelConfig(
    vocab_size=23,
    hidden_size=20,
    num_hidden_layers=2,
    first_k_dense_replace=1,
    intermediate_size=26,
    moe_intermediate_size=14,
    num_attention_heads=2,
    q_lora_rank=10,
    kv_lora_rank=12,
    qk_nope_head_dim=6,
    qk_rope_head_dim=4,
    v_head_dim=8,
    n_routed_experts=8,
    num_experts_per_tok=3,
    n_group=4,
    topk_group=2,
    max_position_embeddings=64,
)
"""Every mechanism on, and sizes that differ from each other."""


PEAK = """
import resource, sys

def peak():
    # The process's own peak of resident memory, VmHWM, where there is one: a parent's peak is mixed into ru_maxrss.
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except FileNotFoundError:
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used * 1024
"""
"""Code for a process that measures its own memory: ``peak()`` in bytes."""


def header(tensors: dict[str, tuple[str, tuple, bytes]], metadata: dict | None = None) -> dict:
    """The header of a file that holds ``tensors``: name → (type, shape, bytes), in this order."""
    entries, offset = {"__metadata__": metadata} if metadata else {}, 0
    for name, (dtype, shape, data) in tensors.items():
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    return entries


def file_bytes(head: dict | bytes, data: bytes = b"") -> bytes:
    head = head if isinstance(head, bytes) else json.dumps(head).encode()
    return struct.pack("<Q", len(head)) + head + data


def write_raw(path: Path, tensors: dict[str, tuple[str, tuple, bytes]]) -> Path:
    data = b"".join(data for _, _, data in tensors.values())
    path.write_bytes(file_bytes(header(tensors, {"format": "pt"}), data))
    return path


def encoded(array: Array, dtype: str) -> tuple[str, tuple, bytes]:
    """An array as the raw bytes of type ``dtype``."""
    return dtype, array.shape, np.ascontiguousarray(array).astype(TYPES[dtype]).tobytes()


def quantised(array: Array, block: tuple[int, int]) -> tuple[Array, Array, Array]:
    """(E4M3 codes, scales, what the two stand for), each block scaled so that its largest element becomes 448."""
    rows, columns = block
    scales = np.empty((-(-array.shape[0] // rows), -(-array.shape[1] // columns)), np.float32)
    codes, meant = np.empty(array.shape, ml_dtypes.float8_e4m3fn), np.empty(array.shape, np.float32)
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            at = slice(i * rows, (i + 1) * rows), slice(j * columns, (j + 1) * columns)
            scales[i, j] = np.abs(array[at]).max() / 448
            codes[at] = np.clip(array[at] / scales[i, j], -448, 448).astype(ml_dtypes.float8_e4m3fn)
            meant[at] = codes[at].astype(np.float32) * scales[i, j]
    return codes, scales, meant


def fp8_entries(name: str, array: Array, block: tuple[int, int]) -> tuple[dict, Array]:
    """The matrix and its scales as raw tensors, and what they stand for."""
    codes, scales, meant = quantised(array, block)
    return {name: ("F8_E4M3", array.shape, codes.tobytes()), f"{name}_scale_inv": encoded(scales, "F32")}, meant


def random_tensors(shapes: dict[str, tuple], seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}


def write_sharded(folder: Path, shards: dict[str, dict[str, tuple[str, tuple, bytes]]]) -> None:
    """Shards of raw tensors and their index."""
    folder.mkdir(exist_ok=True)
    for shard, tensors in shards.items():
        write_raw(folder / shard, tensors)
    weight_map = {name: shard for shard, tensors in shards.items() for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
