"""The compiled step computes what the layers do, for every model that it says it covers, whatever the company."""

import numpy as np
import pytest
from support import SHORT_YARN, TINY, V2_ROUTER, build

from minids.backend import use_backend
from minids.inference import compiled
from minids.inference.cache import FullCache, LatentCache
from minids.inference.decode import logits_of, read, read_mtp

COVERED = {
    "V3": TINY,
    "V2's router": TINY.replace(**V2_ROUTER),
    "no groups": TINY.replace(n_group=1, topk_group=1),
    "no groups, no bias, raw gates": TINY.replace(
        n_group=1, topk_group=1, topk_method="greedy", balance="none", norm_topk_prob=False
    ),
    "no query latent, half-split RoPE, YaRN": TINY.replace(q_lora_rank=None, rope_interleave=False, rope_scaling=SHORT_YARN),
    "biases, tied embedding": TINY.replace(attention_bias=True, tie_word_embeddings=True),
    "no shared expert, all layers with experts": TINY.replace(n_shared_experts=0, first_k_dense_replace=0),
    "more shared experts than chosen ones": TINY.replace(n_shared_experts=4, num_experts_per_tok=2),
    "two shared experts, all layers dense": TINY.replace(n_shared_experts=2, first_k_dense_replace=2),
}
TOKENS = np.random.default_rng(0).integers(0, 19, 24)


@pytest.mark.parametrize("name", COVERED)
def test_the_step_equals_the_full_forward_pass(name):
    model = build(COVERED[name])
    assert compiled.covers(model)
    cache, got = LatentCache(model.config, 1, model.dtype), []
    for chunk in np.split(TOKENS, [1, 2, 5, 6, 12]):
        hidden = read(model, chunk[None], cache)[0]
        assert cache.step is not None, "the compiled step was not taken"
        got.append(logits_of(model, hidden, cache))
    assert np.abs(np.concatenate(got) - model.logits(TOKENS[None])[0]).max() < 1e-10


def test_mtp_modules_too():
    model = build(TINY)
    h = model._hidden(TOKENS[None])[0][0]
    for depth, want in enumerate(model.mtp_logits(TOKENS[None]), start=1):
        cache, parts, n = LatentCache(TINY, 1, model.dtype, layers=1), [], len(TOKENS) - depth
        for rows in np.split(np.arange(n), [3, 4, 12]):
            parts.append(read_mtp(model, depth, TOKENS[rows + depth], h[rows], cache))
        h = np.concatenate(parts)
        assert np.abs(logits_of(model, h[:10], cache) - want[0, :10]).max() < 1e-10, f"depth {depth}"


def test_a_token_gets_the_same_bits_alone_and_in_company():
    """What makes checked guesses and single steps agree to the last bit, so that a near tie cannot fall two ways."""
    model = build(TINY, dtype=np.float32)
    alone, together = LatentCache(TINY, 1), LatentCache(TINY, 1)
    one_by_one = np.concatenate([read(model, TOKENS[None, i : i + 1], alone)[0] for i in range(12)])
    at_once = np.concatenate([read(model, TOKENS[None, i : i + 4], together)[0] for i in range(0, 12, 4)])
    assert np.array_equal(one_by_one, at_once)
    assert np.array_equal(
        logits_of(model, one_by_one[:4], alone), np.concatenate([logits_of(model, h[None], alone) for h in at_once[:4]])
    )


def test_what_is_not_covered_goes_through_the_layers():
    model = build(TINY)
    latent, full = LatentCache(TINY, 1, model.dtype), FullCache(TINY, 1, model.dtype)
    assert compiled.step_for(model, latent, compiled.MOST_ROWS, True) is not None
    assert compiled.step_for(model, latent, compiled.MOST_ROWS + 1, True) is None
    assert compiled.step_for(model, latent, 1, False) is None
    assert compiled.step_for(model, full, 1, True) is None
    assert not compiled.covers(build(TINY.replace(attention="mha")))
    with use_backend("numpy"):
        assert not compiled.covers(model)


def test_a_cache_that_meets_another_model_is_served_by_that_models_weights():
    a, b = build(TINY, seed=0), build(TINY, seed=5)
    cache = LatentCache(TINY, 1, a.dtype)
    read(a, TOKENS[None, :4], cache)
    cache.rewind(0)
    hidden = read(b, TOKENS[None, :4], cache)[0]
    assert np.abs(logits_of(b, hidden, cache) - b.logits(TOKENS[None, :4])[0]).max() < 1e-10
