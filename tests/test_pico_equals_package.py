"""The one-page forward pass and the package were written apart, and give the same numbers."""

import numpy as np
import pytest
from support import SHORT_YARN, TINY, V2_ROUTER, batch, build

from minids import pico

CONFIGS = {
    "V3": TINY,
    "no query latent": TINY.replace(q_lora_rank=None),
    "half-split RoPE": TINY.replace(rope_interleave=False),
    "YaRN": TINY.replace(rope_scaling=SHORT_YARN),
    "biases, tied embedding": TINY.replace(attention_bias=True, tie_word_embeddings=True),
    "V2 router": TINY.replace(**V2_ROUTER),
    "greedy softmax router": TINY.replace(**{**V2_ROUTER, "topk_method": "greedy"}, n_group=1, topk_group=1),
    "no shared expert, all layers experts": TINY.replace(n_shared_experts=0, first_k_dense_replace=0),
    "two shared experts": TINY.replace(n_shared_experts=2),
    "all layers dense": TINY.replace(first_k_dense_replace=2),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_mtp_logits_agree(name):
    model = build(CONFIGS[name])
    tokens, _ = batch(size=1, length=20)
    weights = {p.name: p.value for p in model.parameters} | model.parameters.buffers
    logits, hidden = model.logits(tokens), model._hidden(tokens)[0]
    assert np.abs(pico.deepseek_v3(tokens, weights, model.config) - logits).max() < 1e-10
    for depth, want in enumerate(model.mtp_logits(tokens), start=1):
        got = pico.mtp_logits(tokens, hidden, weights, model.config, depth)
        got = got[0] if isinstance(got, tuple) else got
        assert np.abs(got - want).max() < 1e-10, f"depth {depth}"
