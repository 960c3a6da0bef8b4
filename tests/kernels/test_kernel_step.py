"""A whole training step is the same in both backends."""

import numpy as np
import pytest
from agreement import TOLERANCE

import minids
from minids.backend import use_backend
from minids.model import routing_fixed

SMALL = dict(
    vocab_size=31, hidden_size=24, num_hidden_layers=3, first_k_dense_replace=1, intermediate_size=40, moe_intermediate_size=12,
    num_attention_heads=4, q_lora_rank=12, kv_lora_rank=10, qk_nope_head_dim=6, qk_rope_head_dim=4, v_head_dim=6,
    n_routed_experts=8, n_group=4, topk_group=2, num_experts_per_tok=3, max_position_embeddings=64, bos_token_id=None,
    eos_token_id=None, initializer_range=0.3, aux_loss_alpha=0.1,
)  # fmt: skip
V2 = dict(
    scoring_func="softmax", topk_method="group_limited_greedy", norm_topk_prob=False, balance="aux_loss", q_lora_rank=None
)
KINDS = {
    "V3, two MTP modules": dict(num_nextn_predict_layers=2),
    "V2": dict(V2, seq_aux=False, rope_interleave=False),
    "MHA": dict(attention="mha"),
    "GQA": dict(attention="gqa", num_key_value_heads=2),
    "MQA, tied embedding": dict(attention="mqa", tie_word_embeddings=True),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_every_gradient_agree(kind, dtype):
    config = minids.ModelConfig(**SMALL).replace(**KINDS[kind])
    tokens = np.random.default_rng(0).integers(0, 31, (3, 20))
    targets = np.roll(tokens, -1, axis=1)
    targets[0, 5:] = -100
    model = minids.DeepSeekV3(config, 0, dtype)
    results = {}
    with use_backend("numpy"):
        chosen = model.choices(tokens, targets)  # held still: a near tie may fall either way
        results["numpy"] = model.loss_and_grads(tokens, targets)
    with use_backend("numba"), routing_fixed(model, chosen):
        results["numba"] = model.loss_and_grads(tokens, targets)
    (losses, grads), (ours, our_grads) = results["numpy"], results["numba"]
    tolerance = 5 * TOLERANCE[np.dtype(dtype)]  # rounding adds up through the layers
    np.testing.assert_allclose(ours.total, losses.total, rtol=tolerance)
    np.testing.assert_array_equal(ours.counts, losses.counts)
    for name, grad in grads.items():
        error = np.abs(our_grads[name] - grad).max() / np.abs(grad).max()
        assert error < tolerance, f"{name}: off by {error:.1e} of its largest element"


def test_the_same_step_twice_gives_the_same_bits():
    config = minids.ModelConfig(**SMALL)
    tokens = np.random.default_rng(0).integers(0, 31, (3, 20))
    model = minids.DeepSeekV3(config, 0)
    with use_backend("numba"):
        first, second = (model.loss_and_grads(tokens, np.roll(tokens, -1, axis=1)) for _ in range(2))
    assert first[0].total == second[0].total
    for name in first[1]:
        np.testing.assert_array_equal(first[1][name], second[1][name], err_msg=name)
