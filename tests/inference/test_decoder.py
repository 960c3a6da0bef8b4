"""Cached decoding equals the full forward pass, in every chunking, by every way of attending."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import SHORT_YARN, TINY, build

from minids.errors import MinidsError
from minids.inference.decoder import Decoder

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
    (name, cache, absorb)
    for name in CONFIGS
    for cache, absorb in (("latent", True), ("latent", False), ("full", False), ("none", False))
]
WAYS = [way for way in WAYS if way[0].startswith("mla") or way[1] != "latent"]


def decoded(name, cache, absorb, cuts):
    model = MODELS[name]
    decoder = Decoder(model, cache, len(TOKENS), absorb, compiled=False)
    parts = np.split(TOKENS, cuts, axis=1)
    return np.concatenate([model.head.forward(decoder.read(part))[0] for part in parts if part.size], axis=1)


@pytest.mark.parametrize(("name", "cache", "absorb"), WAYS)
@given(cuts=st.lists(st.integers(1, LENGTH - 1), unique=True, max_size=8).map(sorted))
@settings(max_examples=8)
def test_any_chunking_gives_the_full_forward_pass(name, cache, absorb, cuts):
    assert np.abs(decoded(name, cache, absorb, cuts) - FULL[name]).max() < 1e-10


@pytest.mark.parametrize(("name", "cache", "absorb"), WAYS)
def test_one_token_at_a_time_too(name, cache, absorb):
    assert np.abs(decoded(name, cache, absorb, range(1, LENGTH)) - FULL[name]).max() < 1e-10


@pytest.mark.parametrize("cache", ["latent", "full", "none"])
def test_after_a_rewind_another_continuation_is_read_correctly(cache):
    decoder = Decoder(MODELS["mla"], cache, batch=3)
    decoder.read(TOKENS[:, :10])
    wrong = (TOKENS[:, 10:14] + 1) % TINY.vocab_size
    decoder.read(wrong)
    assert decoder.lengths.tolist() == [14] * 3
    decoder.rewind(10)
    after = decoder.model.head.forward(decoder.read(TOKENS[:, 10:]))[0]
    assert np.abs(after - FULL["mla"][:, 10:]).max() < 1e-10


def test_logits_need_no_cache():
    decoder = Decoder(MODELS["mla"], "none", batch=3)
    hidden = decoder.read(TOKENS)
    assert decoder.cache is None
    assert np.abs(decoder.logits(hidden[:, -1]) - FULL["mla"][:, -1]).max() < 1e-10


@pytest.mark.parametrize("change", ["by a step of training", "in place", "by another array"])
@pytest.mark.parametrize("compiled", [None, True, False])
def test_a_routing_bias_that_has_changed_is_used_by_a_decoder_that_was_made_before(change, compiled):
    model = build(TINY)
    decoder = Decoder(model, compiled=compiled)
    tokens = TOKENS[:1, :12]
    before = decoder.logits(decoder.read(tokens)[0])
    if change == "by a step of training":
        for layer in model.moe_layers:
            layer.bias[...] = 0
        model.update_biases(np.tile(np.arange(TINY.n_routed_experts), (len(model.moe_layers), 1)), 5.0)
    for name, bias in list(model.parameters.buffers.items()):
        if change == "in place":
            bias[...] = bias[::-1].copy()
        elif change == "by another array":
            model.parameters.buffers[name] = bias[::-1].copy()
    decoder.rewind(0)
    after = decoder.logits(decoder.read(tokens)[0])
    layers = Decoder(model, compiled=False)
    assert np.abs(after - layers.logits(layers.read(tokens)[0])).max() < 1e-10
    assert np.abs(after - model.logits(tokens)[0]).max() < 1e-10
    assert np.abs(after - before).max() > 1e-3, "the bias that was changed does not matter here: nothing is tested"


def test_what_a_decoder_cannot_do_is_said_in_a_line():
    for options, message in (
        (dict(cache="paged"), "cache = 'paged': must be one of latent, full, none"),
        (dict(cache="full", compiled=True), "compiled = True: needs MLA in fp32"),
        (dict(absorb=False, compiled=True), "compiled = True"),
    ):
        with pytest.raises(MinidsError, match=message):
            Decoder(MODELS["mla"], **options)
    with pytest.raises(MinidsError, match="attention = 'mha' has no latent to cache"):
        Decoder(MODELS["mha"], "latent")
