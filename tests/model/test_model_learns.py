"""The model begins where an untrained one must, and can learn one small batch by heart in every variant."""

import math

import numpy as np
import pytest
import support

from minids.config import ModelConfig
from minids.model import DeepSeekV3

pytestmark = pytest.mark.usefixtures("reference_backend")


@pytest.mark.parametrize("preset", ["tiny", "small", "laptop"])
def test_the_first_loss_is_that_of_a_uniform_guess(preset):
    config = ModelConfig.preset(preset)
    tokens, targets = support.batch(config, 2, 48)
    losses = DeepSeekV3(config, seed=0).losses(tokens, targets)
    assert abs(losses.main / math.log(config.vocab_size) - 1) < 0.01, f"main loss {losses.main:.3f} at the start"
    for depth, loss in enumerate(losses.mtp, start=1):
        per_token = loss * 48 / (48 - depth)  # T − k terms, divided by T
        assert abs(per_token / math.log(config.vocab_size) - 1) < 0.01, f"MTP loss of depth {depth} is {per_token:.3f}"


WIDER = support.TINY.replace(hidden_size=24, intermediate_size=32, moe_intermediate_size=16, aux_loss_alpha=1e-4)
VARIANTS = {
    "mla, V3 router, no MTP": dict(num_nextn_predict_layers=0),
    "mla, V3 router, MTP depth 1": dict(num_nextn_predict_layers=1),
    "mla, V3 router, MTP depth 2": dict(num_nextn_predict_layers=2),
    "mla, V2 router": dict(num_nextn_predict_layers=0, **support.V2_ROUTER),
    "mla, greedy softmax router, two shared experts": dict(
        num_nextn_predict_layers=0,
        n_group=1,
        topk_group=1,
        n_shared_experts=2,
        **{**support.V2_ROUTER, "topk_method": "greedy"},
    ),
    "mla, no shared expert, no groups": dict(num_nextn_predict_layers=0, n_shared_experts=0, n_group=1, topk_group=1),
    "mla, no query latent": dict(num_nextn_predict_layers=0, q_lora_rank=None),
    "mla, every block with experts": dict(num_nextn_predict_layers=0, first_k_dense_replace=0),
    "mla, every block dense": dict(num_nextn_predict_layers=0, first_k_dense_replace=2),
    "mha": dict(num_nextn_predict_layers=1, attention="mha"),
    "gqa": dict(num_nextn_predict_layers=0, attention="gqa", num_key_value_heads=2),
    "mqa": dict(num_nextn_predict_layers=0, attention="mqa"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_it_learns_one_batch_by_heart(name):
    config = WIDER.replace(**VARIANTS[name])
    model = support.build(config, dtype=np.float32, lively=False)
    tokens, targets = support.batch(config, 2, 6, seed=1)
    history = support.adam(model, tokens, targets, steps=300, rate=0.01, enough=0.05)
    last = history[-1]
    assert min(history[0].main, *history[0].mtp, 9) > 1, "there was nothing to learn"
    assert last.main < 0.05, f"main loss still {last.main:.3f} after {len(history)} steps"
    assert all(loss < 0.05 for loss in last.mtp), f"MTP losses still {last.mtp} after {len(history)} steps"
    assert len(last.mtp) == config.num_nextn_predict_layers
