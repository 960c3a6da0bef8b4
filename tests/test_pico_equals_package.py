"""The one-file model and the package were written apart, and give the same numbers: forward, backward and each update."""

import inspect
import types

import numpy as np
import pytest
from support import SHORT_YARN, TINY, V2_ROUTER, assert_close, batch, build, error

from minids import pico
from minids.config import TrainConfig
from minids.training.optimizer import AdamW

GREEDY = dict(**{**V2_ROUTER, "topk_method": "greedy"}, n_group=1, topk_group=1)
CONFIGS = {
    "V3": TINY,
    "no query latent": TINY.replace(q_lora_rank=None),
    "half-split RoPE": TINY.replace(rope_interleave=False),
    "YaRN": TINY.replace(rope_scaling=SHORT_YARN),
    "half-split RoPE with YaRN": TINY.replace(rope_scaling=SHORT_YARN, rope_interleave=False),
    "biases, tied embedding": TINY.replace(attention_bias=True, tie_word_embeddings=True),
    "biases, no query latent": TINY.replace(attention_bias=True, q_lora_rank=None),
    "V2 router": TINY.replace(**V2_ROUTER),
    "V2-Lite": TINY.replace(**GREEDY, q_lora_rank=None, num_nextn_predict_layers=0),
    "sigmoid scores as they are": TINY.replace(norm_topk_prob=False),
    "groups off": TINY.replace(n_group=1, topk_group=1),
    "no shared expert, all layers experts": TINY.replace(n_shared_experts=0, first_k_dense_replace=0),
    "two shared experts": TINY.replace(n_shared_experts=2),
    "all layers dense": TINY.replace(first_k_dense_replace=2),
    "three MTP modules": TINY.replace(num_nextn_predict_layers=3),
    "no MTP": TINY.replace(num_nextn_predict_layers=0),
    "balance loss of the whole batch": TINY.replace(seq_aux=False),
    "balance loss counts the unbiased choice": TINY.replace(aux_loss_counts="unbiased"),
    "no balance": TINY.replace(balance="none"),
    "large epsilon": TINY.replace(rms_norm_eps=0.3),
}
cases = pytest.mark.parametrize("name", CONFIGS)


def both(name):
    """The package's model, and its weights and routing biases by name."""
    model = build(CONFIGS[name])
    return model, {p.name: p.value for p in model.parameters} | model.parameters.buffers


@cases
def test_logits_and_mtp_logits_agree(name):
    model, weights = both(name)
    tokens, _ = batch(size=1, length=20)
    assert np.abs(pico.deepseek_v3(tokens, weights, model.config) - model.logits(tokens)).max() < 1e-10
    hidden = pico.hidden_states(tokens, weights, model.config)
    for depth, want in enumerate(model.mtp_logits(tokens), start=1):
        got = pico.mtp_logits(tokens, hidden, weights, model.config, depth)
        assert np.abs(got - want).max() < 1e-10, f"depth {depth}"


@cases
@pytest.mark.parametrize("ignored", [False, True], ids=["every target", "some targets do not count"])
def test_losses_and_gradients_agree(name, ignored):
    model, weights = both(name)
    tokens, targets = batch(size=3, length=11, ignored=ignored)
    want, want_grads = model.loss_and_grads(tokens, targets)
    got, grads = pico.loss_and_grads(tokens, targets, weights, model.config)
    assert got.total == pytest.approx(want.total, rel=1e-12)
    assert got.main == pytest.approx(want.main, rel=1e-12)
    assert got.mtp == pytest.approx(want.mtp, rel=1e-12)
    assert got.balance == pytest.approx(want.balance, rel=1e-12)
    for ours, theirs in zip(got.choices.values(), model.choices(tokens, targets), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert set(grads) == set(want_grads)
    for parameter, gradient in grads.items():
        assert_close(gradient, want_grads[parameter], 1e-10, parameter)


def test_no_target_that_counts_is_no_loss():
    model, weights = both("V3")
    tokens, targets = batch()
    losses, grads = pico.loss_and_grads(tokens, np.full_like(targets, pico.IGNORE), weights, model.config)
    assert losses.main == 0 and losses.mtp == (0, 0) and losses.total == losses.balance > 0
    assert np.all(grads["lm_head.weight"] == 0)


@pytest.mark.parametrize("rule", ["sign", "proportional"])
def test_bias_updates_agree(rule):
    config = TINY.replace(bias_update_rule=rule, bias_update_speed=0.03, first_k_dense_replace=0)
    model, (tokens, targets) = build(config), batch(size=3, length=11)
    biases = {name: bias.copy() for name, bias in model.parameters.buffers.items()}
    weights = {p.name: p.value for p in model.parameters} | biases
    losses, _ = pico.loss_and_grads(tokens, targets, weights, config)
    pico.update_biases(weights, losses.choices, config)
    before = {name: bias.copy() for name, bias in model.parameters.buffers.items()}
    model.update_biases(model.losses(tokens, targets).counts, config.bias_update_speed)
    assert len(biases) == 4
    for name, bias in model.parameters.buffers.items():
        assert not np.array_equal(bias, before[name])
        np.testing.assert_array_equal(biases[name], bias, err_msg=name)


def test_without_a_bias_nothing_is_updated():
    model, weights = both("V2 router")
    tokens, targets = batch()
    before = {name: weight.copy() for name, weight in weights.items()}
    pico.update_biases(weights, pico.forward(tokens, targets, weights, model.config)[0].choices, model.config)
    assert all(np.array_equal(weights[name], before[name]) for name in before)


@pytest.mark.parametrize("size", [1e-3, 1.0, 50.0], ids=["gradient not clipped", "just so", "clipped"])
def test_adamw_agrees_over_steps(size):
    model = build(TINY.replace(attention_bias=True))
    weights = {p.name: p.value.copy() for p in model.parameters}
    optimizer, moments, rng = AdamW(model.parameters, TrainConfig()), {}, np.random.default_rng(0)
    for step in range(1, 5):
        grads = {name: size * rng.standard_normal(w.shape) / 30 for name, w in weights.items()}
        for p in model.parameters:
            p.grad[...] = grads[p.name]
        optimizer.step(0.01 * step)
        pico.adamw(weights, grads, moments, step, 0.01 * step)
    for p in model.parameters:
        assert_close(weights[p.name], p.value, 1e-12, p.name)


def test_ten_training_steps_in_float32_stay_together():
    """Forward, backward, clipping, AdamW and the biases, one after the other, as both train."""
    model, moments = build(dtype=np.float32, lively=False), {}
    weights = {p.name: p.value.copy() for p in model.parameters} | {n: b.copy() for n, b in model.parameters.buffers.items()}
    optimizer = AdamW(model.parameters, TrainConfig())
    for step in range(1, 11):
        tokens, targets = batch(size=4, length=16, seed=step)
        want, _ = model.loss_and_grads(tokens, targets)
        optimizer.step(0.003)
        model.update_biases(want.counts, model.config.bias_update_speed)
        got, grads = pico.loss_and_grads(tokens, targets, weights, model.config)
        pico.adamw(weights, grads, moments, step, 0.003)
        pico.update_biases(weights, got.choices, model.config)
        assert got.total == pytest.approx(want.total, rel=1e-4), f"step {step}"
        assert {weight.dtype for weight in weights.values()} == {np.dtype(np.float32)}


# Lines of the backward pass, and wrong ones that run: a falling loss would notice none of them. (name, right, wrong)
MISTAKES = [
    ("gradient of the shared RoPE key not summed", "rope(dk_rope.sum(axis=1), c, -1)", "rope(dk_rope[:, 0], c, -1)"),
    ("RoPE turned forward again", "rope(dk_rope.sum(axis=1), c, -1)", "rope(dk_rope.sum(axis=1), c)"),
    ("queries turned forward again", "rope(dq_rope, c, -1)", "rope(dq_rope, c)"),
    ("values' way to the latent forgotten", "[dk_nope, dv]", "[dk_nope, 0 * dv]"),
    ("scale of the softmax forgotten", "softmax_backward(da, a) * softmax_scale(c)", "softmax_backward(da, a)"),
    ("softmax without its sum", "y * (dy - (dy * y).sum(axis=-1, keepdims=True))", "y * dy"),
    ("key-value part of h forgotten", "return dh + linear_backward(dc_q", "return linear_backward(dc_q"),
    ("root of RMSNorm held still", "r * (dn - n * np.mean(dn * n, axis=-1, keepdims=True))", "r * dn"),
    ("slope of the sigmoid for that of silu", "dm * b * s * (1 + a * (1 - s))", "dm * b * s * (1 - s)"),
    ("normaliser of the gates held still", " - (d_picked * picked).sum(axis=-1, keepdims=True) / S) / S", ") / S"),
    ("balance loss detached", "ds = alpha / (B * T)", "ds = 0 * alpha / (B * T)"),
    ("normaliser of the balance loss held still", "(f - (f * share).sum(axis=-1, keepdims=True))", "(f + 0 * share)"),
    ("balance loss summed over sequences", "ds = alpha / (B * T)", "ds = alpha / T"),
    ("gates of the experts have no gradient", "d_gates[n, k] = (flat[n] * out).sum(axis=-1)", "pass"),
    ("experts' rows without their gates", "gates[n, k, None] * flat[n], saved", "flat[n], saved"),
    ("residual forgotten", "return dx + rmsnorm_backward(dh, saved_h", "return rmsnorm_backward(dh, saved_h"),
    ("MTP cut off from the main model", "dh[:, :-1] += d_hidden", "pass"),
    ("MTP shifted by one token", "dh[:, :-1] += d_hidden", "dh[:, 1:] += d_hidden"),
    (
        "embedding of MTP has no gradient",
        'embedding_backward(rmsnorm_backward(d_ahead, saved_e, w, g, p + "enorm"), tokens',
        "(lambda *_: 0)(tokens",
    ),
    ("MTP halves swapped", "d_ahead, d_so_far = np.split", "d_so_far, d_ahead = np.split"),
    ("MTP weight not divided by D", "c.mtp_loss_weight / D if k", "c.mtp_loss_weight if k"),
    ("equal tokens counted once", "[present] += np.add.reduceat(rows(dx)[order], starts, axis=0)", "[tokens] += dx"),
    ("ignored targets pull", "d_logits * counted / divisor", "d_logits / divisor"),
]


@pytest.mark.parametrize(("right", "wrong"), [pytest.param(a, b, id=name) for name, a, b in MISTAKES])
def test_a_wrong_gradient_is_noticed(right, wrong):
    source = inspect.getsource(pico)
    assert source.count(right) == 1, f"pico.py should hold {right!r} once"
    mistaken = types.ModuleType("mistaken")
    exec(compile(source.replace(right, wrong), "mistaken.py", "exec"), mistaken.__dict__)
    model, weights = both("V3")
    tokens, targets = batch(size=3, length=11, ignored=True)
    _, want = model.loss_and_grads(tokens, targets)
    _, got = mistaken.loss_and_grads(tokens, targets, weights, model.config)
    assert max(error(got[name], want[name]) for name in want) > 1e-4
