"""What a decoder keeps of the tokens it has read, so that it need not read them again.

    LatentCache   c_kv after its norm, and k_rope after its turn: d_c + d_r numbers per token and layer. MLA's own cache.
    FullCache     keys and values of every head: what MHA, GQA and MQA keep, and what MLA would keep if it expanded its latent.

DeepSeek-V3 keeps 512 + 64 = 576 numbers per token and layer where its keys and values have 128 · (192 + 128) = 40,960.

Both have the same few methods. Memory grows in chunks; ``rewind`` forgets the newest tokens, which is all that taking back a
wrong guess needs. Entries do not depend on what follows them, so nothing else has to be undone.
"""

from __future__ import annotations

import numpy as np

from minids.config import ModelConfig
from minids.layers.parameters import Array

CHUNK = 256  # positions by which a cache grows


class _Cache:
    """Some arrays per layer, (B, capacity, …), of which the first ``length`` positions are in use."""

    def __init__(self, layers: int, batch: int, shapes: tuple[tuple[int, ...], ...], dtype):
        self.length = 0  # T: positions in use
        self._batch, self._shapes, self._dtype = batch, shapes, np.dtype(dtype)
        self._arrays = [[self._room(shape, 0) for shape in shapes] for _ in range(layers)]

    def append(self, layer: int, *new: Array) -> tuple[Array, ...]:
        """Store the entries of S new positions, each (B, S, …); returns all T + S positions of the layer as views.

        ``advance`` makes them part of the cache once every layer has stored its own.
        """
        stop = self.length + new[0].shape[1]
        held = self._arrays[layer]
        for i, values in enumerate(new):
            if held[i].shape[1] < stop:
                larger = self._room(self._shapes[i], -(-stop // CHUNK) * CHUNK)
                larger[:, : self.length] = held[i][:, : self.length]
                held[i] = larger
            held[i][:, self.length : stop] = values
        return tuple(array[:, :stop] for array in held)

    def advance(self, count: int) -> None:
        """``count`` new positions have been stored in every layer."""
        self.length += count

    def rewind(self, length: int) -> None:
        """Forget all positions from ``length`` on."""
        if not 0 <= length <= self.length:
            raise IndexError(f"cannot rewind a cache of {self.length} positions to {length}")
        self.length = length

    @property
    def nbytes(self) -> int:
        """Bytes of the positions in use, over all layers."""
        per_position = sum(int(np.prod(shape)) for shape in self._shapes)
        return len(self._arrays) * self._batch * self.length * per_position * self._dtype.itemsize

    def _room(self, shape: tuple[int, ...], capacity: int) -> Array:
        return np.empty((self._batch, capacity, *shape), dtype=self._dtype)


class LatentCache(_Cache):
    """Per layer and position [c_kv | k_rope], (B, T, d_c + d_r), for ``attention = mla``."""

    def __init__(self, config: ModelConfig, batch: int, dtype=np.float32):
        super().__init__(config.num_hidden_layers, batch, ((config.kv_lora_rank + config.qk_rope_head_dim,),), dtype)


class FullCache(_Cache):
    """Per layer and position keys (B, T, H_kv, d_qk) and values (B, T, H_kv, d_v), for any attention."""

    def __init__(self, config: ModelConfig, batch: int, dtype=np.float32):
        shapes = ((config.kv_heads, config.qk_head_dim), (config.kv_heads, config.v_head_dim))
        super().__init__(config.num_hidden_layers, batch, shapes, dtype)
