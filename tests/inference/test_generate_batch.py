"""Sequences of unequal length side by side: each is what it would be alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import TINY, build

import minids
from minids.backend import use_backend
from minids.inference.cache import FullCache, LatentCache
from minids.inference.decoder import Decoder
from minids.inference.generate import generate, generate_batch
from minids.lab.analysis.kv_cache import bytes_of, cache_bytes, full_elements

MODEL = build(TINY)
TEXTS = [np.random.default_rng(i).integers(0, 19, n) for i, n in enumerate((17, 5, 23))]
FULL = [MODEL.logits(text[None])[0] for text in TEXTS]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize(("kind", "absorb"), [("latent", True), ("latent", False), ("full", False), ("none", False)])
@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=6)
def test_any_chunking_of_each_sequence_gives_its_own_full_pass(backend, kind, absorb, seed):
    """Chunks differ from sequence to sequence, and may be empty, of one or of all."""
    rng = np.random.default_rng(seed)
    got, unread = [[] for _ in TEXTS], [list(text) for text in TEXTS]
    with use_backend(backend):
        decoder = Decoder(MODEL, kind, 3, absorb)
        while any(unread):
            counts = [int(rng.integers(0, 1 + min(9, len(text)))) for text in unread]
            packed = np.array([token for text, n in zip(unread, counts, strict=True) for token in text[:n]], np.int64)
            hidden = decoder.read_packed(packed, np.array(counts))
            for i, part in enumerate(np.split(hidden, np.cumsum(counts)[:-1])):
                got[i].append(MODEL.head.forward(part)[0])
            unread = [text[n:] for text, n in zip(unread, counts, strict=True)]
    for parts, full in zip(got, FULL, strict=True):
        assert np.abs(np.concatenate(parts) - full).max() < 1e-10
    assert decoder.lengths.tolist() == [17, 5, 23]


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


@pytest.mark.parametrize(
    "options",
    [dict(), dict(temperature=1.0), dict(temperature=1.3, top_k=5), dict(temperature=1.5, min_p=0.1), dict(top_p=0.7)],
    ids=str,
)
@pytest.mark.parametrize("cache", ["latent", "full", "none"])
def test_a_batch_gives_each_prompt_its_own_text(options, cache):
    """Through the end of the context, where sequences start again at different times."""
    prompts = [[1, 2, 3], [5] * 40, [7], list(range(19))]
    together = minids.generate_batch(MODEL, prompts, 70, seed=4, cache=cache, **options)
    for i, prompt in enumerate(prompts):
        assert together[i].tolist() == generate(MODEL, prompt, 70, seed=4 + i, cache=cache, **options).tolist()


def test_a_generator_that_is_given_serves_all():
    rng = np.random.default_rng(0)
    first, second = (generate_batch(MODEL, [[1], [1]], 20, 1.0, seed=rng) for _ in range(2))
    texts = {tuple(text) for text in (*first, *second)}
    assert len(texts) == 4, "two of four draws are the same text"


def test_in_a_batch_each_stops_for_itself():
    prompts = [[1, 2], [3], [4, 5, 6]]
    free = generate_batch(MODEL, prompts, 30, 1.0, seed=1)
    stop = int(free[1][4])
    stopped = generate_batch(MODEL, prompts, 30, 1.0, seed=1, stop=[stop])
    for whole, cut in zip(free, stopped, strict=True):
        ids = whole.tolist()
        assert cut.tolist() == (ids[: ids.index(stop) + 1] if stop in ids else ids)
    assert generate_batch(MODEL, [], 5) == []
