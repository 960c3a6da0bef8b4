"""Cached decoding equals the full forward pass, in every chunking, by every way of attending."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SHORT_YARN, TINY, build

from minids.inference.cache import FullCache, LatentCache
from minids.inference.decode import read

LENGTH = 23
CONFIGS = {
    "mla": TINY,
    "mla without query latent, half-split RoPE, YaRN": TINY.replace(
        q_lora_rank=None, rope_interleave=False, rope_scaling=SHORT_YARN
    ),
    "mla with biases, tied embedding": TINY.replace(attention_bias=True, tie_word_embeddings=True),
    "mha": TINY.replace(attention="mha"),
    "gqa": TINY.replace(attention="gqa", num_key_value_heads=2),
    "mqa": TINY.replace(attention="mqa"),
}
MODELS = {name: build(config) for name, config in CONFIGS.items()}
TOKENS = np.random.default_rng(0).integers(0, TINY.vocab_size, (3, LENGTH))
FULL = {name: model.logits(TOKENS) for name, model in MODELS.items()}
WAYS = [
    (name, kind, absorb) for name in CONFIGS for kind, absorb in ((LatentCache, True), (LatentCache, False), (FullCache, False))
]
WAYS = [way for way in WAYS if way[0].startswith("mla") or way[1] is FullCache]


def decoded(name, kind, absorb, cuts):
    model = MODELS[name]
    cache = kind(model.config, len(TOKENS), model.dtype)
    parts = np.split(TOKENS, cuts, axis=1)
    return np.concatenate([model.head.forward(read(model, part, cache, absorb))[0] for part in parts if part.size], axis=1)


@pytest.mark.parametrize(("name", "kind", "absorb"), WAYS)
@given(cuts=st.lists(st.integers(1, LENGTH - 1), unique=True, max_size=8).map(sorted))
@settings(max_examples=8)
def test_any_chunking_gives_the_full_forward_pass(name, kind, absorb, cuts):
    assert np.abs(decoded(name, kind, absorb, cuts) - FULL[name]).max() < 1e-10


@pytest.mark.parametrize(("name", "kind", "absorb"), WAYS)
def test_one_token_at_a_time_too(name, kind, absorb):
    assert np.abs(decoded(name, kind, absorb, range(1, LENGTH)) - FULL[name]).max() < 1e-10


@pytest.mark.parametrize("kind", [LatentCache, FullCache])
def test_after_a_rewind_another_continuation_is_read_correctly(kind):
    model = MODELS["mla"]
    cache = kind(model.config, 3, model.dtype)
    read(model, TOKENS[:, :10], cache)
    wrong = (TOKENS[:, 10:14] + 1) % TINY.vocab_size
    read(model, wrong, cache)
    cache.rewind(10)
    after = model.head.forward(read(model, TOKENS[:, 10:], cache))[0]
    assert np.abs(after - FULL["mla"][:, 10:]).max() < 1e-10
