"""Weights as bytes for a web page, and back.

``fp8`` keeps them as DeepSeek-V3 is released (its section 3.3.2; README_WEIGHTS.md of its repository): every matrix of
attention and of feed-forward networks as E4M3 codes with one float32 scale per 128 × 128, each expert by itself; embedding,
head, router and ``eh_proj`` as BF16; gains, biases and routing biases as float32. ``float16`` keeps all matrices as float16.
"""

from typing import Any, Literal

import numpy as np

from minids.checkpoint.released import TILE, type_of
from minids.errors import MinidsError
from minids.model import DeepSeekV3
from minids.ops import bfloat16, quantise

Array = np.ndarray
Form = Literal["fp8", "float16"]

_FORMS: dict[str, str] = {"F32": "f32", "BF16": "bf16", "F8_E4M3": "fp8"}
_LARGEST_FLOAT16 = 65504.0
_BYTES = {"fp8": 1, "bf16": 2, "f16": 2, "f32": 4}


def arrays_of(model: DeepSeekV3) -> dict[str, Array]:
    """Every array of the model by its checkpoint name, experts stacked (E, out, in), routing biases among them."""
    return {p.name: p.value for p in model.parameters} | model.parameters.buffers


def form_of(name: str, dimensions: int, weights: Form) -> str:
    """How an array is stored."""
    form = _FORMS[type_of(name, dimensions)]
    return "f16" if weights == "float16" and form != "f32" else form


def pack(arrays: dict[str, Array], weights: Form = "fp8") -> tuple[list[dict[str, Any]], bytes]:
    """A list of what lies where, and the bytes. Raises ``MinidsError`` for what is no number or does not fit the form."""
    listed, chunks, at = [], [], 0
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise MinidsError(f"tensor {name}: holds NaN or infinity; a page of it would write nonsense")
        form = form_of(name, array.ndim, weights)
        entry = {"name": name, "shape": list(array.shape), "form": form, "at": at}
        parts = _encoded(name, np.asarray(array, np.float32), form)
        for part in parts:
            chunks.append(part.tobytes())
            at += len(chunks[-1])
        if len(parts) == 2:
            entry["scales_at"] = at - len(chunks[-1])
        listed.append(entry)
        if at % 4:  # whatever comes next may hold numbers of four bytes
            chunks.append(bytes(-at % 4))
            at += -at % 4
    return listed, b"".join(chunks)


def _encoded(name: str, array: Array, form: str) -> list[Array]:
    """The codes, and the scales where there are any; little-endian."""
    if form == "fp8":
        matrices = [quantise.forward(matrix, TILE) for matrix in array.reshape(-1, *array.shape[-2:])]
        codes = np.stack([q.codes for q in matrices])
        padding = np.zeros(-codes.size % 4, np.uint8)  # scales begin at a multiple of four
        return [np.concatenate([codes.ravel(), padding]), np.stack([q.scales for q in matrices]).astype("<f4")]
    if form == "bf16":
        return [bfloat16.encode(array).astype("<u2")]
    if form == "f16":
        if np.abs(array).max(initial=0) > _LARGEST_FLOAT16:
            raise MinidsError(f"tensor {name}: holds {np.abs(array).max():g}, beyond float16; use --weights fp8")
        return [array.astype("<f2")]
    return [array.astype("<f4")]


def unpack(listed: list[dict[str, Any]], data: bytes) -> dict[str, Array]:
    """What the page reads: name → float32 array."""
    found = {}
    for entry in listed:
        shape, form, at = tuple(entry["shape"]), entry["form"], entry["at"]
        count = int(np.prod(shape))
        raw = data[at : at + count * _BYTES[form]]
        if form == "fp8":
            codes = np.frombuffer(raw, np.uint8).reshape(-1, *shape[-2:])
            grid = quantise.grid(shape[-2:], TILE)
            scales = np.frombuffer(data, "<f4", len(codes) * grid[0] * grid[1], entry["scales_at"])
            pairs = zip(codes, scales.reshape(-1, *grid), strict=True)
            found[entry["name"]] = np.stack([quantise.dequantise(quantise.Quantised(*p, TILE)) for p in pairs]).reshape(shape)
        elif form == "bf16":
            found[entry["name"]] = bfloat16.decode(np.frombuffer(raw, "<u2")).reshape(shape)
        else:
            found[entry["name"]] = np.frombuffer(raw, "<f2" if form == "f16" else "<f4").astype(np.float32).reshape(shape)
    return found


def bytes_needed(shapes: dict[str, tuple[int, ...]], weights: Form) -> int:
    """Bytes of a packed model, scales left out, from its shapes alone."""
    return sum(int(np.prod(shape)) * _BYTES[form_of(name, len(shape), weights)] for name, shape in shapes.items())
