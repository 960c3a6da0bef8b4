"""What a decoder keeps of the tokens it has read, so that it need not read them again.

    LatentCache   c_kv after its norm, and k_rope after its turn: d_c + d_r numbers per token and layer. MLA's own cache.
    FullCache     keys and values of every head: what MHA, GQA and MQA keep, and what MLA would keep if it expanded its latent.

DeepSeek-V3 keeps 512 + 64 = 576 numbers per token and layer where its keys and values have 128 · (192 + 128) = 40,960.
The sequences of a batch may have different lengths. Entries do not depend on what follows them: ``rewind`` forgets the newest.
"""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import DTypeLike

from minids.config import ModelConfig
from minids.layers.parameters import Array

CHUNK = 256  # positions; capacities are multiples of it


class Cache(ABC):
    """Arrays (L, B, capacity, …); of sequence b the first ``lengths[b]`` positions are in use."""

    def __init__(self, config: ModelConfig, batch: int, dtype: DTypeLike = np.float32, layers: int | None = None):
        """``layers``: how many, where it is not for the main model's L."""
        layers = config.num_hidden_layers if layers is None else layers
        self.lengths = np.zeros(batch, np.int64)  # (B,) positions in use
        self.arrays = [np.empty((layers, batch, 0, *shape), dtype) for shape in self.shapes(config)]

    @staticmethod
    @abstractmethod
    def shapes(config: ModelConfig) -> tuple[tuple[int, ...], ...]:
        """Of each array, the shape of one position's entry."""

    @property
    def capacity(self) -> int:  # positions of a sequence that there is room for
        return self.arrays[0].shape[2]

    def reserve(self, counts: int | Array) -> int:
        """Make room for ``counts`` further positions, of every sequence alike or of each its own, (B,) → the longest length."""
        needed = int((self.lengths + counts).max())
        if needed > self.capacity:
            # At least twice as much, so that a text of T tokens is copied log T times and not once per chunk.
            capacity = -(-max(needed, 2 * self.capacity) // CHUNK) * CHUNK
            used = int(self.lengths.max())
            for i, array in enumerate(self.arrays):
                larger = np.empty((*array.shape[:2], capacity, *array.shape[3:]), array.dtype)
                larger[:, :, :used] = array[:, :, :used]
                self.arrays[i] = larger
        return needed

    def append(self, layer: int, sequence: int, *new: Array) -> tuple[Array, ...]:
        """Store the entries of S new positions of a sequence of T, each (S, …) → views of all of them, (1, T + S, …).
        ``advance`` makes them part of the cache once every layer has stored its own."""
        start = int(self.lengths[sequence])
        stop = start + len(new[0])
        if stop > self.capacity:
            self.reserve(stop - start)
        for array, values in zip(self.arrays, new, strict=True):
            array[layer, sequence, start:stop] = values
        return tuple(array[layer, sequence : sequence + 1, :stop] for array in self.arrays)

    def advance(self, counts: int | Array) -> None:
        """``counts`` new positions, of every sequence alike or of each its own, (B,), have been stored in every layer."""
        self.lengths += counts

    def rewind(self, lengths: int | Array) -> None:
        """Forget all positions from ``lengths`` on, of every sequence alike or of each its own, (B,)."""
        lengths = np.broadcast_to(np.asarray(lengths), self.lengths.shape)
        if (lengths < 0).any() or (lengths > self.lengths).any():
            raise IndexError(f"cannot rewind a cache of {self.lengths.tolist()} positions to {lengths.tolist()}")
        self.lengths[...] = lengths

    @property
    def nbytes(self) -> int:
        """Bytes of the positions in use, over all layers: the arithmetic of ``minids info``, found by counting."""
        per_position = sum(len(array) * int(np.prod(array.shape[3:])) * array.itemsize for array in self.arrays)
        return int(self.lengths.sum()) * per_position


class LatentCache(Cache):
    """Per layer and position [c_kv | k_rope], (B, T, d_c + d_r), for ``attention = mla``."""

    @staticmethod
    def shapes(config: ModelConfig) -> tuple[tuple[int, ...], ...]:
        return ((config.kv_lora_rank + config.qk_rope_head_dim,),)


class FullCache(Cache):
    """Per layer and position keys (B, T, H_kv, d_qk) and values (B, T, H_kv, d_v), for any attention."""

    @staticmethod
    def shapes(config: ModelConfig) -> tuple[tuple[int, ...], ...]:
        return (config.kv_heads, config.qk_head_dim), (config.kv_heads, config.v_head_dim)
