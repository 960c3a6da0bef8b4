"""The mixture-of-experts layer against eqs 12-20 written as loops over tokens and experts."""

import math

import naive
import numpy as np
import pytest
import support

from minids.layers.moe import MoE

RNG = np.random.default_rng(0)
TINY = support.TINY
CONFIGS = {
    "V3": TINY,
    "V2": TINY.replace(**support.V2_ROUTER),
    "V2-Lite, two shared": TINY.replace(
        **{**support.V2_ROUTER, "topk_method": "greedy"}, n_group=1, topk_group=1, n_shared_experts=2, seq_aux=False
    ),
    "no shared expert, no groups": TINY.replace(n_shared_experts=0, n_group=1, topk_group=1),
    "load counted without the bias": TINY.replace(aux_loss_counts="unbiased"),
    "no balancing": TINY.replace(balance="none"),
    "a loss over the batch, no bias": TINY.replace(balance="aux_loss", seq_aux=False),
    "a loss within sequences, no bias": TINY.replace(balance="aux_loss"),
    "bias and a loss over the batch": TINY.replace(seq_aux=False),
    "softmax with a bias": TINY.replace(scoring_func="softmax"),
    "every node": TINY.replace(topk_group=4),
    "two nodes of two": TINY.replace(n_group=2, topk_group=1),
    "all experts": TINY.replace(num_experts_per_tok=4, topk_group=2, n_shared_experts=0),
}


def by_equations(config, moe, parameters, x):
    """y (B, T, d), the balance loss with its weight, and what was chosen (N, K)."""
    c, w = config, {p.name.removeprefix("m."): p.value for p in parameters}
    flat = x.reshape(-1, x.shape[-1])
    rule = (c.num_experts_per_tok, c.n_group, c.topk_group, c.scoring_func, c.topk_method, c.norm_topk_prob)
    gates, chosen, scores = naive.route(flat @ w["gate.weight"].T, moe.bias, *rule, c.routed_scaling_factor)
    y = np.zeros_like(flat)
    for n, u in enumerate(flat):
        for gate, e in zip(gates[n], chosen[n], strict=True):
            y[n] += gate * naive.ffn(u, *(w[f"experts.{name}_proj.weight"][e] for name in ("gate", "up", "down")))
        if c.n_shared_experts:
            y[n] += naive.ffn(u, *(w[f"shared_experts.{name}_proj.weight"] for name in ("gate", "up", "down")))
    counted = chosen
    if c.aux_loss_counts == "unbiased":
        counted = np.array([sorted(range(len(s)), key=lambda i, s=s: (-s[i], i))[: c.num_experts_per_tok] for s in scores])
    alpha = 0.0 if c.balance == "none" else c.aux_loss_alpha
    loss = alpha * naive.balance(scores, counted, x.shape[1] if c.seq_aux else len(flat))
    return y.reshape(x.shape), loss, chosen


def forward_equals_the_equations(name):
    config = CONFIGS[name]
    moe, parameters = support.layer(lambda p: MoE(config, p, "m"))
    x = RNG.standard_normal((2, 5, config.hidden_size))
    y, saved = moe.forward(x)
    want, loss, chosen = by_equations(config, moe, parameters, x)
    np.testing.assert_array_equal(saved.routing.chosen, chosen)
    support.assert_close(y, want, 1e-11, f"MoE, {name}: without the residual, which the block adds")
    assert math.isclose(saved.balance_loss, loss, rel_tol=1e-11), "α Σ f P"
    np.testing.assert_array_equal(saved.plan.counts, np.bincount(chosen.reshape(-1), minlength=8))


def test_forward_is_the_papers_equations():
    forward_equals_the_equations("V3")


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "V3"])
def test_forward_is_the_papers_equations_in_every_variant(name):
    forward_equals_the_equations(name)


def gradient_is_right(name, shape):
    """The gradient of the output and of the balance loss at once, with the choice held still."""
    config = CONFIGS[name]
    moe, parameters = support.layer(lambda p: MoE(config, p, "m"))
    x = RNG.standard_normal((*shape, config.hidden_size))
    held = moe.forward(x)[1].routing.chosen

    def run(x, chosen=None):
        moe.fixed_choice = chosen
        y, saved = moe.forward(x)
        return {"y": y, "balance": np.array(saved.balance_loss), "chosen": saved.routing.chosen}, saved

    def back(dy, saved):
        return moe.backward(dy["y"], saved, float(dy["balance"]))

    support.check_layer(parameters, run, back, frozen={"chosen": held}, x=x)


def test_gradient():
    gradient_is_right("V3", (2, 3))


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "V3"])
def test_gradient_in_every_variant(name):
    gradient_is_right(name, (2, 3))


def test_gradient_of_one_token():
    gradient_is_right("V3", (1, 1))


def test_the_bias_changes_who_is_chosen_and_never_the_weight_it_gets():
    moe, _ = support.layer(lambda p: MoE(TINY, p, "m"))
    x = RNG.standard_normal((1, 6, 12))
    before = moe.forward(x)[1].routing
    moe.bias[...] += np.where(np.arange(8) < 2, 5.0, 0.0)  # group 0 wins everywhere
    after = moe.forward(x)[1].routing
    assert (after.chosen[:, :2] < 2).all() and not np.array_equal(before.chosen, after.chosen)
    np.testing.assert_array_equal(before.scores, after.scores)
    s = np.take_along_axis(after.scores, after.chosen, axis=-1)
    support.assert_close(after.gates, 2.5 * s / s.sum(-1, keepdims=True), what="gates from the unbiased scores")


def test_update_bias_touches_the_bias_alone_and_the_forward_pass_does_not_touch_it():
    moe, parameters = support.layer(lambda p: MoE(TINY, p, "m"))
    bias, values = moe.bias.copy(), parameters.values.copy()
    y, saved = moe.forward(RNG.standard_normal((2, 5, 12)))
    moe.backward(y, saved)
    np.testing.assert_array_equal(moe.bias, bias)
    counts = saved.plan.counts
    moe.update_bias(counts, 0.01)
    np.testing.assert_allclose(moe.bias - bias, 0.01 * np.sign(counts.mean() - counts), atol=1e-7)
    np.testing.assert_array_equal(parameters.values, values)


def test_the_proportional_rule_is_used_when_asked_for():
    moe, _ = support.layer(lambda p: MoE(TINY.replace(bias_update_rule="proportional"), p, "m"))
    bias = moe.bias.copy()
    moe.update_bias(np.array([8, 0, 0, 0, 0, 0, 0, 0]), 0.1)
    np.testing.assert_allclose(moe.bias - bias, [-0.7, *[0.1] * 7], atol=1e-6)


def test_routers_of_v2_have_no_bias():
    moe, parameters = support.layer(lambda p: MoE(CONFIGS["V2"], p, "m"))
    assert moe.bias is None and not parameters.buffers


def test_two_shared_experts_are_one_of_twice_the_width():
    moe, parameters = support.layer(lambda p: MoE(CONFIGS["V2-Lite, two shared"], p, "m"))
    w = [parameters[f"m.shared_experts.{name}_proj.weight"].value for name in ("gate", "up", "down")]
    assert w[0].shape == (2 * 6, 12)
    u = RNG.standard_normal(12)
    apart = naive.ffn(u, w[0][:6], w[1][:6], w[2][:, :6]) + naive.ffn(u, w[0][6:], w[1][6:], w[2][:, 6:])
    support.assert_close(moe.shared.forward(u[None])[0][0], apart)
