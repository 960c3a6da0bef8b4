"""One safetensors file, read through a memory map and written atomically.

    8 bytes   N, the length of the header, little-endian
    N bytes   JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …, "__metadata__": {…}}
    the rest  the tensors, without gaps; offsets count from here

The format's own NumPy loader knows neither BF16 nor FP8 and copies whole tensors; here a tensor is a view of the map until it
is asked for as numbers, and those are converted piece by piece. Every statement of the header is checked before anything is
read, so a damaged file is refused when it is opened, and never half understood.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from minids.checkpoint.dtypes import FLOATS, STORED, decode
from minids.errors import MinidsError
from minids.files import file_size, parse_json, shortened, write
from minids.ops import bfloat16

Array = np.ndarray

HEADER_LIMIT = 100_000_000  # bytes; the reference implementation's limit
RANK_LIMIT = 32
PIECE = 1 << 18  # elements converted at a time: temporaries stay near 2 MB, and fit a cache
RELEASE = 1 << 20  # bytes of the map that may stay resident


class TensorInfo(NamedTuple):
    """What the header says about one tensor."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int


class TensorFile:
    """A safetensors file to read from. Opening reads the header only; the map is made when the first tensor is touched."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        size = file_size(self.path)
        try:
            with open(self.path, "rb") as file:
                header, self._data_start = _read_header(file, size, str(self.path))
        except OSError as error:
            raise MinidsError(f"{self.path}: cannot be read: {error.strerror}") from None
        self._size = size
        self._tensors, self._offsets = _check_header(header, size - self._data_start, str(self.path))
        self._map: mmap.mmap | None = None
        self._bytes: Array | None = None  # (file size,) uint8: the map as an array
        self._touched = 0  # bytes read since pages were last given back

    def names(self) -> list[str]:
        """Names of all tensors, sorted."""
        return sorted(self._tensors)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def info(self, name: str) -> TensorInfo:
        """Stored type, shape and bytes of a tensor."""
        if name not in self._tensors:
            raise MinidsError(f"{self.path}: holds no tensor {shortened(name)}")
        return self._tensors[name]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return self._size - self._data_start

    def raw(self, name: str) -> Array:
        """The stored numbers as a read-only view of the map: BF16 as uint16, FP8 and BOOL as uint8, the others as they are.

        Nothing is read until an element is; slicing the view touches only the pages of the slice.
        """
        dtype, shape, nbytes = self.info(name)
        if nbytes == 0:
            return np.empty(shape, STORED[dtype])
        start = self._data_start + self._offsets[name]
        return self._mapped()[start : start + nbytes].view(STORED[dtype]).reshape(shape)

    def read(self, name: str, *at: Any, dtype=np.float32, out: Array | None = None) -> Array:
        """Tensor ``name`` as a new array; with indices ``at``, applied one after the other, a part of it.

        Floating-point tensors come as ``dtype`` (float32 or float64), FP8 ones without any scale; integers as they are
        stored, BOOL as bool. ``out``, in C order, receives the result instead of a new array. Conversion goes in pieces and
        gives the map's pages back as it goes: the peak is the result itself.
        """
        kind = self.info(name).dtype
        view = self.raw(name)
        for index in at:
            view = view[index]
        if kind not in FLOATS:
            return view != 0 if kind == "BOOL" else view.copy()
        result = np.empty(view.shape, dtype) if out is None else out
        if result.shape != view.shape or not result.flags.c_contiguous:
            raise ValueError(f"out must be C-contiguous and of shape {view.shape}, not {result.shape}")
        source = np.ascontiguousarray(view).reshape(-1)
        target = result.reshape(-1)
        for start in range(0, source.size, PIECE):
            piece = source[start : start + PIECE]
            decode(piece, kind, target[start : start + PIECE])
            self._give_back(piece.nbytes)
        return result

    def equal(self, name: str, other: TensorFile, other_name: str) -> bool:
        """Whether two tensors stand for the same numbers, compared in pieces. NaN equals NaN where the bits agree."""
        mine, theirs = self.info(name), other.info(other_name)
        if mine.shape != theirs.shape:
            return False
        a, b = self.raw(name).reshape(-1), other.raw(other_name).reshape(-1)
        for start in range(0, a.size, PIECE):
            piece, its_piece = a[start : start + PIECE], b[start : start + PIECE]
            if mine.dtype == theirs.dtype:
                same = piece.tobytes() == its_piece.tobytes()
            else:
                left, right = np.empty(piece.shape), np.empty(piece.shape)
                decode(piece, mine.dtype, left)
                decode(its_piece, theirs.dtype, right)
                same = np.array_equal(left, right)
            self._give_back(piece.nbytes)
            other._give_back(its_piece.nbytes)
            if not same:
                return False
        return True

    def _mapped(self) -> Array:
        if self._bytes is None:
            if file_size(self.path) != self._size:  # a map beyond the end would be a crash, not an error
                raise MinidsError(f"{self.path}: changed its size since it was opened")
            with open(self.path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._bytes = np.frombuffer(self._map, np.uint8)
        return self._bytes

    def _give_back(self, nbytes: int) -> None:
        """Count bytes that were read; every so often tell the system that their pages need not stay in this process.

        They remain in the system's cache, and are mapped again where something still looks at them.
        """
        self._touched += nbytes
        if self._touched > RELEASE and self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
            self._touched = 0


def _read_header(file: BinaryIO, size: int, path: str) -> tuple[dict, int]:
    """(the JSON object, where the data starts)."""
    start = file.read(8)
    if start == b"version ":
        raise MinidsError(f"{path}: a Git LFS pointer, not the weights themselves; fetch them with `git lfs pull`")
    if len(start) < 8:
        raise MinidsError(f"{path}: truncated: {size} bytes is too short for a safetensors file")
    length = int.from_bytes(start, "little")
    if length > HEADER_LIMIT:
        raise MinidsError(f"{path}: not a safetensors file: it claims a header of {length:,} bytes")
    if length > size - 8:
        raise MinidsError(f"{path}: truncated: the header should have {length:,} bytes, the file has {size:,}")
    return parse_json(file.read(length), f"{path}: header"), 8 + length


def _check_header(header: dict, data_size: int, path: str) -> tuple[dict[str, TensorInfo], dict[str, int]]:
    """Every tensor's info and offset, once the header is known to describe exactly ``data_size`` bytes."""
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise MinidsError(f"{path}: __metadata__ must hold strings only")
    tensors, spans = {}, []
    for name, entry in header.items():
        tensors[name], begin = _check_tensor(name, entry, data_size, path)
        spans.append((begin, begin + tensors[name].nbytes, name))
    spans.sort()
    end = 0
    for begin, stop, name in spans:
        if begin != end:
            what = "overlaps the one before it" if begin < end else "leaves a gap before it"
            raise MinidsError(f"{path}: tensor {shortened(name)} {what} (offset {begin:,}, expected {end:,})")
        end = stop
    if end != data_size:
        raise MinidsError(f"{path}: the tensors have {end:,} bytes, the file holds {data_size:,}")
    return tensors, {name: begin for begin, _, name in spans}


def _check_tensor(name: str, entry: object, data_size: int, path: str) -> tuple[TensorInfo, int]:
    where = f"{path}: tensor {shortened(name)}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise MinidsError(f"{where}: must have dtype, shape and data_offsets, and nothing else")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in STORED:
        raise MinidsError(f"{where}: unknown dtype {shortened(dtype)}; known are {', '.join(STORED)}")
    if not _whole_numbers(shape) or len(shape) > RANK_LIMIT or any(n >= 1 << 48 for n in shape):
        raise MinidsError(f"{where}: shape {shortened(shape)} must be a list of whole numbers")
    if not _whole_numbers(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= data_size:
        raise MinidsError(f"{where}: data_offsets {shortened(offsets)} do not lie in the file's {data_size:,} bytes of data")
    nbytes = math.prod(shape) * STORED[dtype].itemsize
    if offsets[1] - offsets[0] != nbytes:
        raise MinidsError(f"{where}: {dtype} {shape} is {nbytes:,} bytes, but data_offsets span {offsets[1] - offsets[0]:,}")
    return TensorInfo(dtype, tuple(shape), nbytes), offsets[0]


def _whole_numbers(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


# Writing.

_NAMES = {np.dtype(code): name for name, code in STORED.items() if name not in ("BF16", "F8_E4M3", "F8_E5M2", "BOOL")}
_NAMES[np.dtype(bool)] = "BOOL"


def stored_dtype(array: Array, floats: str = "F32") -> str:
    """The type an array is written as: ``floats`` ("F32", "BF16", "F16" or "F64") for real numbers, its own for integers."""
    if floats not in FLOATS or floats.startswith("F8"):
        raise ValueError(f"floats must be F32, BF16, F16 or F64, not {floats}")
    if array.dtype.kind == "f":
        return floats
    name = _NAMES.get(array.dtype.newbyteorder("<"))
    if name is None:
        raise MinidsError(f"arrays of type {array.dtype} cannot be stored in a safetensors file")
    return name


def write_tensor_file(path: str | Path, tensors: Mapping[str, Array], floats: str = "F32") -> None:
    """Write ``tensors`` to a safetensors file that appears whole or not at all.

    Real numbers are stored as ``floats`` ("BF16" rounds to nearest even), integers and booleans as they are. The same tensors
    always give the same bytes.
    """
    write(Path(path), lambda file: write_tensors(file, tensors, floats))


def write_tensors(file: BinaryIO, tensors: Mapping[str, Array], floats: str = "F32", keep_f32: tuple[str, ...] = ()) -> int:
    """Write the bytes of a safetensors file; returns those of its data. Names ending in one of ``keep_f32`` stay float32.

    Wide types come first, then names in order, so every tensor is aligned. The only metadata is {"format": "pt"}, which
    ``transformers`` insists on; a second key would make files differ from one save to the next.
    """
    kinds = {name: stored_dtype(array, "F32" if name.endswith(keep_f32) else floats) for name, array in tensors.items()}
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
        for piece in _pieces(tensors[name], kinds[name]):
            file.write(piece.data)
    return offset


def _pieces(array: Array, dtype: str) -> Iterator[Array]:
    """The array in C order, as the bytes of type ``dtype``, a piece at a time."""
    flat = np.ascontiguousarray(array).reshape(-1)
    for start in range(0, flat.size, PIECE):
        piece = flat[start : start + PIECE]
        if dtype == "BF16":
            yield bfloat16.encode(piece)
        else:
            with np.errstate(over="ignore"):
                yield np.ascontiguousarray(piece, dtype=STORED[dtype])
