"""Sequences of unequal length side by side: each is what it would be alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import TINY, build

from minids.backend import use_backend
from minids.inference.cache import FullCache, LatentCache
from minids.inference.decode import read_ragged
from minids.inference.generate import generate, generate_batch
from minids.lab.analysis.kv_cache import bytes_of, cache_bytes, full_elements

MODEL = build(TINY)
TEXTS = [np.random.default_rng(i).integers(0, 19, n) for i, n in enumerate((17, 5, 23))]
FULL = [MODEL.logits(text[None])[0] for text in TEXTS]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize(("kind", "absorb"), [(LatentCache, True), (LatentCache, False), (FullCache, False)])
@given(data=st.data())
@settings(max_examples=6)
def test_any_chunking_of_each_sequence_gives_its_own_full_pass(backend, kind, absorb, data):
    """Chunks differ from sequence to sequence, and may be empty."""
    cache, got = kind(TINY, 3, MODEL.dtype), [[] for _ in TEXTS]
    rest = [list(text) for text in TEXTS]
    with use_backend(backend):
        while any(rest):
            counts = [data.draw(st.integers(0, min(9, len(r)))) for r in rest]
            if not any(counts):
                counts = [min(1, len(r)) for r in rest]
            for i, hidden in enumerate(read_ragged(MODEL, [r[:n] for r, n in zip(rest, counts, strict=True)], cache, absorb)):
                got[i].append(MODEL.head.forward(hidden)[0])
            rest = [r[n:] for r, n in zip(rest, counts, strict=True)]
    for parts, full in zip(got, FULL, strict=True):
        assert np.abs(np.concatenate(parts) - full).max() < 1e-10
    assert cache.lengths.tolist() == [17, 5, 23]


def test_a_step_without_tokens_changes_nothing():
    cache = LatentCache(TINY, 2)
    assert [h.shape for h in read_ragged(MODEL, [[], []], cache)] == [(0, 12), (0, 12)]
    assert cache.lengths.tolist() == [0, 0]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_bytes_are_those_of_minids_info(precision):
    """Unequal lengths count each for itself: no padding is kept."""
    dtype = {"fp32": np.float32, "bf16": np.float16}[precision]  # NumPy's own type of two bytes
    for kind in (LatentCache, FullCache):
        cache = kind(TINY, 3, dtype)
        cache.reserve(300)
        cache.advance(np.array([300, 4, 20]))
        per_token = bytes_of(TINY.num_hidden_layers * full_elements(TINY), precision)
        wanted = cache_bytes(TINY, 324, 1, precision) if kind is LatentCache else 324 * per_token
        assert cache.nbytes == wanted


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("cache", ["latent", "full"])
def test_a_batch_gives_each_prompt_its_own_text(temperature, cache):
    """Through the end of the context, where sequences start again at different times."""
    prompts = [[1, 2, 3], [5] * 40, [7], list(range(19))]
    together = generate_batch(MODEL, prompts, 70, temperature, seed=4, cache=cache)
    for i, prompt in enumerate(prompts):
        assert together[i].tolist() == generate(MODEL, prompt, 70, temperature, seed=4 + i, cache=cache).tolist()


def test_in_a_batch_each_stops_for_itself():
    prompts = [[1, 2], [3], [4, 5, 6]]
    free = generate_batch(MODEL, prompts, 30, 1.0, seed=1)
    stop = int(free[1][4])
    stopped = generate_batch(MODEL, prompts, 30, 1.0, seed=1, stop=[stop])
    for whole, cut in zip(free, stopped, strict=True):
        ids = whole.tolist()
        assert cut.tolist() == (ids[: ids.index(stop) + 1] if stop in ids else ids)
    assert generate_batch(MODEL, [], 5) == []
