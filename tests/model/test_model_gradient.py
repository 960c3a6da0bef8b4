"""The gradient of the whole model against central differences in float64, with every loss term on and two MTP modules.

Every parameter tensor is probed: at the entry with the largest gradient, at random ones, and along a random direction, in which
all entries take part. The chosen experts are held still, because the choice is a step; that it would not have flipped anyway is
asserted too, and the flip is tested by itself at the end.
"""

import numpy as np
import pytest
import support

from minids.model import routing_fixed

pytestmark = pytest.mark.usefixtures("reference_backend")

TINY = support.TINY
STRETCHED = dict(rope_scaling=support.SHORT_YARN, rope_theta=10.0)
CONFIGS = {
    "mla, V3 router, YaRN": TINY.replace(**STRETCHED),
    "mla, V2 router, no query latent, half-split, biases, tied": TINY.replace(
        **support.V2_ROUTER,
        q_lora_rank=None,
        rope_interleave=False,
        attention_bias=True,
        tie_word_embeddings=True,
        seq_aux=False,
    ),
    "mla, no groups, no shared expert, no dense block, batch-wise balance": TINY.replace(
        n_group=1, topk_group=1, n_shared_experts=0, first_k_dense_replace=0, num_hidden_layers=1, seq_aux=False, **STRETCHED
    ),
    "mha, V3 router, half-split, YaRN, biases": TINY.replace(
        attention="mha", rope_interleave=False, attention_bias=True, **STRETCHED
    ),
    "gqa, V2 router, normalised": TINY.replace(
        **{**support.V2_ROUTER, "norm_topk_prob": True}, attention="gqa", num_key_value_heads=2, attention_bias=True
    ),
    "mla, V3 router, MTP modules that hand on what is not normed": TINY.replace(mtp_state="unnormed"),
    "mla, V3 router, MTP modules with an embedding and a head of their own": TINY.replace(mtp_own_matrices=True),
    "mqa, V3 router, YaRN, tied": TINY.replace(attention="mqa", tie_word_embeddings=True, **STRETCHED),
}
WORST = 1e-6


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_by_central_differences(name):
    config = CONFIGS[name]
    model = support.build(config, seed=2 if config.mtp_state == "unnormed" else 1)  # seeds for which no choice is a near tie
    tokens, targets = support.batch(config, 2, 5, ignored=True)
    losses = model.losses(tokens, targets)
    assert losses.main > 0 and losses.balance > 0 and len(losses.mtp) == 2, "a loss term is off, so it would not be checked"
    probed, wrong = set(), []
    for probe in support.probes(model, tokens, targets, entries=3):
        assert not probe.flipped, f"{probe.name}: the choice of experts flipped within the probe; use another seed"
        probed.add(probe.name.split(",")[0])
        size = max(abs(probe.analytic), abs(probe.numeric), probe.scale / 1000)
        # 1e-11: the round-off of differences of a loss near 10, which is all there is where a gradient is zero.
        if abs(probe.analytic - probe.numeric) > WORST * size + 1e-11:
            wrong.append(f"{probe.name}: {probe.analytic:.9g}, numerically {probe.numeric:.9g}")
    assert not wrong, "gradients of the whole model that are wrong:\n" + "\n".join(wrong)
    assert probed == {p.name for p in model.parameters}, "a parameter was not probed"


def test_every_parameter_gets_a_gradient():
    """So that no probe above compares zero with zero: every tensor has one, unless no token came to one of its experts."""
    for name, config in CONFIGS.items():
        model = support.build(config)
        gradients = model.loss_and_grads(*support.batch(config, 2, 5))[1]
        silent = [n for n, g in gradients.items() if not g.any()]
        assert not silent, f"{name}: no gradient reaches {', '.join(silent)}"
        assert gradients.keys() == {p.name for p in model.parameters}


def test_a_bias_large_enough_changes_the_choice_and_the_loss_but_not_through_the_gates():
    model = support.build()
    tokens, targets = support.batch()
    before, loss = model.choices(tokens, targets), model.losses(tokens, targets)
    for layer in model.moe_layers:
        layer.bias[...] = np.where(np.arange(8) >= 6, 3.0, 0.0)
    after = model.choices(tokens, targets)
    for one, two in zip(before, after, strict=True):
        assert (np.sort(two)[:, -2:] >= 6).all() and not np.array_equal(one, two)
    assert model.losses(tokens, targets).main != loss.main
    # With the old choice prescribed the bias has no way left to act.
    with routing_fixed(model, before):
        held = model.losses(tokens, targets)
    assert held.total == loss.total and held.mtp == loss.mtp


def test_a_small_bias_changes_nothing_at_all():
    model = support.build()
    tokens, targets = support.batch()
    before, loss = model.choices(tokens, targets), model.losses(tokens, targets)
    for layer in model.moe_layers:
        layer.bias[...] += 1e-6 * np.arange(8)
    for one, two in zip(before, model.choices(tokens, targets), strict=True):
        np.testing.assert_array_equal(one, two)
    assert model.losses(tokens, targets).total == loss.total


def test_prescribing_the_models_own_choice_changes_nothing():
    model = support.build()
    tokens, targets = support.batch(ignored=True)
    free, free_gradients = model.loss_and_grads(tokens, targets)
    with routing_fixed(model, model.choices(tokens, targets)):
        held, held_gradients = model.loss_and_grads(tokens, targets)
    assert free[:4] == held[:4]
    for name, gradient in free_gradients.items():
        np.testing.assert_array_equal(gradient, held_gradients[name], err_msg=name)
