"""One safetensors file, read through a memory map and written atomically.

    8 bytes   N, the length of the header, little-endian
    N bytes   JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …, "__metadata__": {…}}
    the rest  the tensors, without gaps; offsets count from here

The format's own NumPy loader knows neither BF16 nor FP8 and copies whole tensors; here a tensor is a view of the map until it
is asked for as numbers, and those are converted piece by piece. A damaged file is refused when it is opened.
"""

import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from minids.checkpoint.dtypes import FLOATS, STORED, decode
from minids.errors import MinidsError
from minids.files import file_size, parse_json, shortened, write
from minids.ops import bfloat16

Array = np.ndarray

HEADER_LIMIT = 100_000_000  # bytes; the reference implementation's limit
RANK_LIMIT = 32
PIECE = 1 << 18  # elements converted at a time: temporaries stay near 2 MB, and fit a cache


class TensorInfo(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    start: int  # in the data, from 0


class TensorFile:
    """A safetensors file to read from. Opening reads the header only; a tensor is mapped when it is asked for."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._size = file_size(self.path)
        try:
            with open(self.path, "rb") as file:
                header, self._data_start = _read_header(file, self._size, str(self.path))
        except OSError as error:
            raise MinidsError(f"{self.path}: cannot be read: {error.strerror}") from None
        self._tensors = _check_header(header, self._size - self._data_start, str(self.path))

    def names(self) -> list[str]:
        return sorted(self._tensors)

    def info(self, name: str) -> TensorInfo:
        if name not in self._tensors:
            raise MinidsError(f"{self.path}: holds no tensor {shortened(name)}")
        return self._tensors[name]

    def raw(self, name: str) -> Array:
        """The stored numbers as a read-only view of the map: BF16 as uint16, FP8 and BOOL as uint8, the others as they are."""
        dtype, shape, nbytes, start = self.info(name)
        if nbytes == 0:
            return np.empty(shape, STORED[dtype])
        if file_size(self.path) != self._size:  # a map beyond the end would be a crash, not an error
            raise MinidsError(f"{self.path}: changed its size since it was opened")
        return np.memmap(self.path, STORED[dtype], "r", self._data_start + start, shape)

    def read(self, name: str, *at: Any, dtype: DTypeLike = np.float32, out: Array | None = None) -> Array:
        """Tensor ``name`` as a new array, or in ``out`` (C order); with indices ``at``, applied one after the other, a part of
        it. Real numbers come as ``dtype`` (float32 or float64), FP8 without any scale; integers as stored, BOOL as bool."""
        kind, view = self.info(name).dtype, self.raw(name)
        for index in at:
            view = view[index]
        if kind not in FLOATS:
            return np.array(view, bool if kind == "BOOL" else view.dtype)
        result = np.empty(view.shape, dtype) if out is None else out
        if result.shape != view.shape or not result.flags.c_contiguous:
            raise ValueError(f"out must be C-contiguous and of shape {view.shape}, not {result.shape}")
        source, target = view.reshape(-1), result.reshape(-1)
        for start in range(0, source.size, PIECE):
            decode(source[start : start + PIECE], kind, target[start : start + PIECE])
            if isinstance(view, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
                view._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]  # read pages stay in the system's cache, not in this process
        return result


def _read_header(file: BinaryIO, size: int, path: str) -> tuple[dict, int]:
    """(the JSON object, where the data starts)."""
    start = file.read(8)
    if start == b"version ":
        raise MinidsError(f"{path}: a Git LFS pointer, not the weights themselves; fetch them with `git lfs pull`")
    length = int.from_bytes(start, "little")
    if len(start) == 8 and length > HEADER_LIMIT:
        raise MinidsError(f"{path}: not a safetensors file: it claims a header of {length:,} bytes")
    if len(start) < 8 or length > size - 8:
        raise MinidsError(f"{path}: truncated: the file has {size:,} bytes, too few for its header")
    return parse_json(file.read(length), f"{path}: header"), 8 + length


def _check_header(header: dict, data_size: int, path: str) -> dict[str, TensorInfo]:
    """Every tensor's info, once the header is known to describe exactly ``data_size`` bytes."""
    tensors: dict[str, TensorInfo] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        where = f"{path}: tensor {shortened(name)}"
        match entry:
            case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]} if len(
                shape
            ) <= RANK_LIMIT and all(type(n) is int and 0 <= n < 1 << 48 for n in shape):
                pass
            case _:
                raise MinidsError(f"{where}: must have dtype, shape and data_offsets, not {shortened(entry)}")
        if dtype not in STORED:
            raise MinidsError(f"{where}: unknown dtype {shortened(dtype)}; known are {', '.join(STORED)}")
        nbytes = math.prod(shape) * STORED[dtype].itemsize
        if end - begin != nbytes:
            raise MinidsError(f"{where}: {dtype} {shape} is {nbytes:,} bytes, but data_offsets span {end - begin:,}")
        tensors[name] = TensorInfo(dtype, tuple(shape), nbytes, begin)
    covered = 0
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        if info.start != covered:
            raise MinidsError(f"{path}: tensor {shortened(name)} begins at byte {info.start:,}, expected {covered:,}")
        covered += info.nbytes
    if covered != data_size:
        raise MinidsError(f"{path}: truncated or damaged: the tensors have {covered:,} bytes, the file holds {data_size:,}")
    return tensors


_NAMES = {
    np.dtype(code): name for name, code in STORED.items() if name not in ("BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "BOOL")
}
_NAMES[np.dtype(bool)] = "BOOL"


def _stored_dtype(array: Array, floats: str) -> str:
    """The type an array is written as: ``floats`` ("F32", "BF16", "F16" or "F64") for real numbers, its own for integers."""
    if array.dtype.kind == "f":
        return floats
    name = _NAMES.get(array.dtype.newbyteorder("<"))
    if name is None:
        raise MinidsError(f"arrays of type {array.dtype} cannot be stored in a safetensors file")
    return name


def write_tensor_file(path: str | Path, tensors: Mapping[str, Array], floats: str = "F32") -> None:
    """Write ``tensors`` to a safetensors file that appears whole or not at all; the same ones always give the same bytes."""
    write(Path(path), lambda file: write_tensors(file, tensors, floats))


def write_tensors(
    file: BinaryIO,
    tensors: Mapping[str, Array],
    floats: str = "F32",
    keep_f32: tuple[str, ...] = (),
    types: Mapping[str, str] | None = None,
) -> int:
    """Write the bytes of a safetensors file; returns those of its data. Real numbers are stored as ``floats`` ("BF16" rounds to
    nearest even), those of names ending in one of ``keep_f32`` as float32; integers and booleans as they are. Wide types come
    first, then names in order, so every tensor is aligned. ``types``: name → the type it gets instead; "F8_E4M3" is for codes
    (uint8). ``transformers`` insists on {"format": "pt"}."""
    kinds = {name: _stored_dtype(array, "F32" if name.endswith(keep_f32) else floats) for name, array in tensors.items()}
    kinds |= {name: kind for name, kind in (types or {}).items() if name in kinds}
    ordered = sorted(kinds, key=lambda name: (-STORED[kinds[name]].itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in ordered:
        stop = offset + tensors[name].size * STORED[kinds[name]].itemsize
        header[name] = {"dtype": kinds[name], "shape": list(tensors[name].shape), "data_offsets": [offset, stop]}
        offset = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in ordered:
        flat = np.ascontiguousarray(tensors[name]).reshape(-1)
        for piece in (flat[start : start + PIECE] for start in range(0, flat.size, PIECE)):
            with np.errstate(over="ignore"):
                encoded = bfloat16.encode(piece) if kinds[name] == "BF16" else piece.astype(STORED[kinds[name]], copy=False)
            file.write(encoded.data)
    return offset
