"""Caches grow without losing anything, rewind, and hold exactly the bytes that the paper counts."""

import numpy as np
import pytest
from support import TINY

from minids.config import ModelConfig
from minids.inference.cache import CHUNK, FullCache, LatentCache


@pytest.mark.parametrize("chunks", [[1] * 5, [CHUNK - 1, 1, 1], [CHUNK + 1], [3, 2 * CHUNK, 7]])
def test_growing_keeps_what_was_stored(chunks):
    cache, rng = LatentCache(TINY, 2, np.float64), np.random.default_rng(0)
    whole = [np.zeros((2, 0, 9)) for _ in range(2)]
    for size in chunks:
        for layer in range(2):
            new = rng.normal(size=(2, size, 9))
            whole[layer] = np.concatenate([whole[layer], new], axis=1)
            for sequence in range(2):
                (held,) = cache.append(layer, sequence, new[sequence])
                assert np.array_equal(held, whole[layer][sequence : sequence + 1])
        cache.advance(size)
    assert cache.lengths.tolist() == [sum(chunks)] * 2


def test_capacity_at_least_doubles_so_that_a_long_text_is_copied_a_few_times_only():
    cache, capacities = LatentCache(TINY, 1), []
    for _ in range(20 * CHUNK):
        cache.reserve(1)
        cache.advance(1)
        if not capacities or cache.capacity != capacities[-1]:
            capacities.append(cache.capacity)
    assert capacities == [CHUNK, 2 * CHUNK, 4 * CHUNK, 8 * CHUNK, 16 * CHUNK, 32 * CHUNK]
    cache.reserve(100 * CHUNK)
    assert cache.capacity == 120 * CHUNK, "what is asked for is made at once"


def test_rewinding_forgets_the_newest_only():
    cache = FullCache(TINY, 1)
    k, v = np.ones((4, 4, 10), np.float32), np.ones((4, 4, 3), np.float32)
    for layer in range(2):
        cache.append(layer, 0, k, v)
    cache.advance(4)
    cache.rewind(2)
    held, _ = cache.append(0, 0, 5 * k[:1], 5 * v[:1])
    assert held[0, :, 0, 0].tolist() == [1, 1, 5]
    with pytest.raises(IndexError):
        cache.rewind(3)


def test_bytes_are_those_of_v2_table_1():
    """V3's sizes without V3's weights: 576 numbers per token and layer against 40,960."""
    v3 = ModelConfig.preset("deepseek-v3")
    for kind, elements in ((LatentCache, 576), (FullCache, 128 * (192 + 128))):
        cache = kind(v3, batch=2, dtype=np.float16)
        cache.advance(10)
        assert cache.nbytes == 61 * 2 * 10 * elements * 2
