"""A Hugging Face checkpoint folder as one collection of named tensors, read lazily; and how such a folder is written.

    config.json                        what the model is                      (config_json.py)
    model.safetensors                  all tensors, or
    model.safetensors.index.json       which tensor lies in which shard, and
    model-00001-of-00002.safetensors … the shards

The reader hides how tensors are stored. BF16, F16 and FP8 become float32 when asked for; an FP8 matrix and its
``weight_scale_inv``, perhaps of another shard, are one tensor; experts fused as ``transformers`` keeps them in memory,
``mlp.experts.gate_up_proj`` (E, 2I, d) with gate rows first and ``mlp.experts.down_proj`` (E, d, I), appear under the names of
the released checkpoints, ``mlp.experts.{e}.gate_proj.weight`` and so on. Of a relative that sees pictures the text model's
tensors appear, under the names that they have without pictures. What is not asked for is not read.

A number that is not finite is refused with the name of its tensor, wherever it is read: a NaN in one weight is in all logits.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from minids.checkpoint.checksums import NAME as CHECKSUMS_NAME
from minids.checkpoint.config_json import CONFIG_NAME, check_folder, fp8_block_size, read_config_json, sees_pictures
from minids.checkpoint.dtypes import FLOATS, FP8, dequantise
from minids.checkpoint.foreign import packed, without_weights
from minids.checkpoint.tensor_file import PIECE, TensorFile, write_tensors
from minids.errors import MinidsError
from minids.files import inside, read_json, shortened, staged, sync_folder
from minids.ops.quantise import grid

Array = np.ndarray

SINGLE_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
INDEX_LIMIT = 100_000_000  # bytes; DeepSeek-V3's has 9 million
SCALE_SUFFIX = "_scale_inv"
BIAS_SUFFIX = "e_score_correction_bias"  # float32 in every release, whatever the other tensors are

_TEXT = re.compile(r"(?:model\.)?language(?:_model)?\.(?:model\.)?(.+)")  # a text model's tensor beside those of pictures
_FUSED = re.compile(r"(.+\.mlp\.experts)\.(gate_up_proj|down_proj)")


class _Place(NamedTuple):
    """Where a tensor lies: ``file[name][at]``, and its scales likewise."""

    file: TensorFile
    name: str
    at: tuple
    shape: tuple[int, ...]
    scale: _Place | None = None

    @property
    def dtype(self) -> str:
        return self.file.info(self.name).dtype

    def half(self, expert: int, index: int, halves: int) -> _Place:
        """Of a fused stack (E, halves · n, m) one expert, and of its rows the half ``index``: shape (n, m)."""
        rows = self.shape[1] // halves
        return self._replace(at=((expert, slice(index * rows, (index + 1) * rows)),), shape=(rows, self.shape[2]))


class CheckpointFolder:
    """The tensors of a checkpoint folder. Opening reads and checks all headers, and no tensor. ``partial=True`` tolerates
    missing shards, for looking at a few layers of a large model. ``allow_nonfinite=True`` reads NaN and infinities too.
    ``cache_bytes`` bounds what ``cached`` keeps."""

    def __init__(self, path: str | Path, partial: bool = False, allow_nonfinite: bool = False, cache_bytes: int = 256 << 20):
        self.path, self.allow_nonfinite = Path(path), allow_nonfinite
        check_folder(self.path)
        has_config = (self.path / CONFIG_NAME).exists()
        config_json = read_config_json(self.path) if has_config else {}
        self.block_size, self._pictures = fp8_block_size(config_json), sees_pictures(config_json)
        self.absent: dict[str, str] = {}  # tensor → shard that is missing
        self._files = self._open(partial)
        self._places = self._arrange()
        self._cache: OrderedDict[str, Array] = OrderedDict()
        self._cache_limit, self._cache_held = cache_bytes, 0
        self._lock = threading.Lock()  # two threads may generate with one model

    def names(self) -> tuple[str, ...]:
        """Names of all tensors, sorted. Scales are part of their matrix and have no name of their own."""
        return tuple(self._places)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def shape(self, name: str) -> tuple[int, ...]:
        return self._place(name).shape

    def dtype(self, name: str) -> str:
        return self._place(name).dtype

    def tensor(
        self, name: str, rows: slice | Array | None = None, dtype: DTypeLike = np.float32, out: Array | None = None
    ) -> Array:
        """The real numbers of a tensor, FP8 multiplied by its scales, as a new array of ``dtype`` (float32 or float64), or in
        ``out``. ``rows``, a slice or an array of indices, takes some of the first axis without touching the others."""
        place = self._place(name)
        if place.dtype not in FLOATS:
            raise MinidsError(f"{self.path}: tensor {shortened(name)} is of type {place.dtype}; weights are real numbers")
        part = () if rows is None else (rows,)
        result = place.file.read(place.name, *place.at, *part, dtype=dtype, out=out)
        if place.scale is not None:
            scales = place.scale.file.read(place.scale.name, *place.scale.at)
            self._check_finite(name + SCALE_SUFFIX, scales)
            dequantise(result, scales, self.block_size, None if rows is None else np.arange(place.shape[0])[rows])
        self._check_finite(name, result)
        return result

    def _check_finite(self, name: str, numbers: Array) -> None:
        if self.allow_nonfinite or not numbers.size or (np.isfinite(numbers.min()) and np.isfinite(numbers.max())):
            return  # a NaN among them is the smallest and the largest, and nothing as large as the tensor was allocated
        wrong = ~np.isfinite(numbers)
        at = np.unravel_index(wrong.argmax(), wrong.shape)
        what = f"tensor {shortened(name)} holds {numbers[at]} at {[int(i) for i in at]}, {int(wrong.sum()):,} of {wrong.size:,}"
        how = "take another checkpoint; to study this one say allow_nonfinite=True, or --allow-nonfinite"
        raise MinidsError(f"{self.path}: {what} numbers are not finite; {how}")

    def cached(self, name: str) -> Array:
        """The tensor as float32, read-only; the most recently used stay converted, up to ``cache_bytes`` in all."""
        with self._lock:
            if name in self._cache:
                self._cache.move_to_end(name)
                return self._cache[name]
            array = self._cache[name] = self.tensor(name)
            array.flags.writeable = False
            self._cache_held += array.nbytes
            while self._cache_held > self._cache_limit:
                self._cache_held -= self._cache.popitem(last=False)[1].nbytes
            return array

    def equal(self, name: str, other: str) -> bool:
        """Whether two matrices hold the same numbers, compared a few rows at a time. NaN equals NaN."""
        shape = self.shape(name)
        step = max(PIECE // max(math.prod(shape[1:]), 1), 1)
        for rows in (slice(start, start + step) for start in range(0, shape[0], step)):
            mine, theirs = self.tensor(name, rows, np.float64), self.tensor(other, rows, np.float64)
            if not np.array_equal(mine, theirs, equal_nan=True):
                return False
        return shape == self.shape(other)

    def _place(self, name: str) -> _Place:
        if name in self.absent:
            raise MinidsError(f"{self.path}: tensor {shortened(name)} lies in {self.absent[name]}, which is missing")
        if name not in self._places:
            raise MinidsError(f"{self.path}: holds no tensor {shortened(name)}")
        return self._places[name]

    def _open(self, partial: bool) -> dict[str, TensorFile]:
        """The shards by file name, each checked against the index where there is one."""
        single, index = self.path / SINGLE_NAME, self.path / INDEX_NAME
        if not index.exists():
            if not single.exists():
                raise MinidsError(f"{self.path}: no weights: {self._instead()}")
            return {SINGLE_NAME: TensorFile(inside(self.path, SINGLE_NAME, str(self.path)))}
        shards = _read_index(inside(self.path, INDEX_NAME, str(self.path)))
        if single.exists() and SINGLE_NAME not in shards:
            raise MinidsError(f"{self.path}: holds two models, {SINGLE_NAME} and {INDEX_NAME}; remove the one out of date")
        files = {}
        for shard, listed in sorted(shards.items()):
            path = inside(self.path, shard, str(index))
            if not path.exists():
                if not partial:
                    raise MinidsError(f"{index}: shard {shard} is missing from the folder ({len(listed)} tensors)")
                self.absent.update(dict.fromkeys(listed, shard))
                continue
            files[shard] = TensorFile(path)
            if differing := listed ^ set(files[shard].names()):
                raise MinidsError(f"{path}: {few(differing, 'tensor')} only in the index or only in the file")
        if not files:
            raise MinidsError(f"{index}: none of its {len(shards)} shards is in the folder")
        return files

    def _instead(self) -> str:
        for path in sorted(self.path.iterdir(), key=lambda path: (path.suffix != ".safetensors", path.name)):
            if path.suffix == ".safetensors" and not path.name.startswith("adapter_model."):
                return f"{INDEX_NAME} is missing, which says what lies in {shortened(path.name)}"
        return without_weights(self.path) or f"neither {SINGLE_NAME} nor {INDEX_NAME}"

    def _arrange(self) -> dict[str, _Place]:
        """Name → place, sorted by name, with scales attached to their matrices and fused experts taken apart."""
        plain: dict[str, _Place] = {}
        scales: dict[str, _Place] = {}
        if what := packed(itertools.chain.from_iterable(file.names() for file in self._files.values())):
            raise MinidsError(f"{self.path}: {what}")
        self.absent = {name: shard for stored, shard in self.absent.items() if (name := self._text_name(stored))}
        for file in self._files.values():
            for stored in file.names():
                if name := self._text_name(stored):
                    (scales if name.endswith(SCALE_SUFFIX) else plain)[name] = _Place(file, stored, (), file.info(stored).shape)
        places: dict[str, _Place] = {}
        for name, place in plain.items():
            scale = scales.pop(name + SCALE_SUFFIX, None)
            if scale is None and name + SCALE_SUFFIX in self.absent:
                self.absent[name] = self.absent[name + SCALE_SUFFIX]
                continue
            for part, its_place in self._parts(name, place, scale):
                if part in places:
                    raise MinidsError(f"{self.path}: tensor {shortened(part)} is there twice, fused and by itself")
                self._check_scale(part, its_place)
                places[part] = its_place
        if alone := [name for name in scales if name.removesuffix(SCALE_SUFFIX) not in self.absent]:
            raise MinidsError(f"{self.path}: {few(alone, 'scale')} without the matrix it belongs to")
        return dict(sorted(places.items()))

    def _text_name(self, stored: str) -> str | None:
        """A tensor's name in the text model; None for one that is of pictures."""
        found = _TEXT.fullmatch(stored)
        if not self._pictures or stored.startswith("lm_head."):
            return stored
        return found and (found[1] if found[1].startswith("lm_head.") else f"model.{found[1]}")

    def _parts(self, name: str, place: _Place, scale: _Place | None) -> list[tuple[str, _Place]]:
        """The tensor itself, or the experts that are fused in it. Scales of a fused gate_up_proj are those of gate and up one
        below the other, each half with its own ragged edge."""
        fused = _FUSED.fullmatch(name)
        if not fused:
            return [(name, place._replace(scale=scale))]
        halves = ("gate_proj", "up_proj") if fused[2] == "gate_up_proj" else ("down_proj",)
        for stack in (place, scale or place):
            if len(stack.shape) != 3 or 0 in stack.shape or stack.shape[1] % len(halves):
                raise MinidsError(f"{self.path}: fused tensor {shortened(stack.name)} has shape {list(stack.shape)}")
        if scale is not None and scale.shape[0] != place.shape[0]:
            raise MinidsError(f"{self.path}: scale {shortened(scale.name)} is for {scale.shape[0]} experts of {place.shape[0]}")
        parts = []
        for expert, (i, half) in itertools.product(range(place.shape[0]), enumerate(halves)):
            its_scale = scale and scale.half(expert, i, len(halves))
            its_place = place.half(expert, i, len(halves))._replace(scale=its_scale)
            parts.append((f"{fused[1]}.{expert}.{half}.weight", its_place))
        return parts

    def _check_scale(self, name: str, place: _Place) -> None:
        """An FP8 matrix has scales of exactly the right shape and type, and nothing else has any."""
        has, needs = "none", "none"
        if place.scale is not None:
            has = f"{'float' if place.scale.dtype in FLOATS - FP8.keys() else place.scale.dtype} {list(place.scale.shape)}"
        if place.dtype in FP8:
            needs = f"float {list(grid(place.shape, self.block_size))}" if len(place.shape) == 2 else "to be a matrix"
        if has != needs:
            what = f"tensor {shortened(name)}, {place.dtype} {list(place.shape)}"
            raise MinidsError(f"{self.path}: {what}: has scales {has}, needs {needs} (FP8 in blocks of {self.block_size})")


def _read_index(path: Path) -> dict[str, set[str]]:
    """Shard → the tensors that the index says it holds."""
    weight_map = read_json(path, INDEX_LIMIT).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise MinidsError(f"{path}: must have a weight_map from tensor to shard")
    shards: dict[str, set[str]] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not shard.endswith(".safetensors"):
            raise MinidsError(f"{path}: tensor {shortened(name)} lies in {shortened(shard)}, which is no safetensors file")
        shards.setdefault(shard, set()).add(name)
    return shards


def few(names: set[str] | list[str], what: str) -> str:
    """Some names for an error line: "tensor 'a'", or "5 tensors 'a', 'b', 'c' and 2 more"."""
    first = ", ".join(shortened(name) for name in sorted(names)[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{what} {first}" if len(names) == 1 else f"{len(names)} {what}s {first}{more}"


def write_folder(
    path: str | Path,
    config_json: dict,
    shards: Mapping[str, Mapping[str, Array]],
    floats: str = "F32",
    others: Mapping[str, bytes | None] | None = None,
    config_name: str = CONFIG_NAME,
    types: Mapping[str, str] | None = None,
) -> None:
    """Write a checkpoint folder: ``config_json`` and ``shards``, file name → name → array, real numbers as ``floats`` ("F32" or
    "BF16") but for the routing bias and those of ``types`` (see ``write_tensors``). A single shard is model.safetensors;
    several get an index. ``others`` are small files of the same checkpoint, file name → content, or None to remove it. Further
    files of the folder are left alone.

    All files are written completely under other names first. Only then do they replace the old ones: config.json goes first and
    comes back last, so a kill at any moment leaves the old checkpoint, the new one, or a folder that no reader opens; never a
    mixture. To have a good one at every moment, write each checkpoint to a folder of its own.
    """
    folder, others = Path(path), others or {}
    if len(shards) == 1:
        shards = {SINGLE_NAME: next(iter(shards.values()))}
    weight_map = {name: shard for shard, tensors in shards.items() for name in tensors}
    if not weight_map:
        raise MinidsError(f"{folder}: nothing to write: there are no tensors")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MinidsError(f"{folder}: cannot be made: {error.strerror}") from None
    with staged() as files:
        total = 0
        for shard, tensors in shards.items():
            with files.create(inside(folder, shard, str(folder))) as file:
                total += write_tensors(file, tensors, floats, keep_f32=(BIAS_SUFFIX,), types=types)
        index = {INDEX_NAME: _json({"metadata": {"total_size": total}, "weight_map": weight_map})} if len(shards) > 1 else {}
        for name, content in {**index, **others, config_name: _json(config_json)}.items():
            if content is not None:
                with files.create(inside(folder, name, str(folder))) as file:
                    file.write(content)
        _retire(folder, keep=set(shards), gone={name for name, content in others.items() if content is None})
        files.publish()


def _retire(folder: Path, keep: set[str], gone: set[str]) -> None:
    """Make the folder's old checkpoint unreadable, then remove the files of it that the new one does not replace."""
    (folder / CONFIG_NAME).unlink(missing_ok=True)
    sync_folder(folder)
    stale = {SINGLE_NAME, CHECKSUMS_NAME, *gone}
    with suppress(MinidsError):  # of an index that is missing or unreadable nothing can be removed with confidence
        stale |= {inside(folder, shard, INDEX_NAME).name for shard in _read_index(folder / INDEX_NAME)}
    (folder / INDEX_NAME).unlink(missing_ok=True)
    for name in stale - keep:
        (folder / name).unlink(missing_ok=True)


def _json(value: dict) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
