"""The one-file model against numbers worked out by hand, central differences, and the properties the papers promise."""

import ast
import inspect
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parity.small_models import CONFIGS, weight_shapes

from minids import pico
from minids.config import ModelConfig, Yarn

CONFIG = ModelConfig(
    vocab_size=23,
    hidden_size=12,
    num_hidden_layers=2,
    first_k_dense_replace=1,
    intermediate_size=10,
    moe_intermediate_size=5,
    num_attention_heads=3,
    q_lora_rank=7,
    kv_lora_rank=6,
    qk_nope_head_dim=4,
    qk_rope_head_dim=4,
    v_head_dim=5,
    n_routed_experts=8,
    num_experts_per_tok=3,
    n_group=4,
    topk_group=2,
    num_nextn_predict_layers=2,
    max_position_embeddings=64,
    rope_scaling=Yarn(factor=4.0, original_max_position_embeddings=16),
)


def random_weights(c: ModelConfig = CONFIG, dtype=np.float64) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    d, H, E, I = c.hidden_size, c.num_attention_heads, c.n_routed_experts, c.moe_intermediate_size
    w: dict[str, np.ndarray] = {}

    def matrix(name, *shape):
        w[name + ".weight"] = rng.normal(0, 0.4, shape).astype(dtype)

    def gain(name, n):
        w[name + ".weight"] = rng.uniform(0.8, 1.2, n).astype(dtype)

    def feed_forward(p, width, *stack):
        for name, shape in (("gate", (width, d)), ("up", (width, d)), ("down", (d, width))):
            matrix(f"{p}.{name}_proj", *stack, *shape)

    matrix("model.embed_tokens", c.vocab_size, d)
    matrix("lm_head", c.vocab_size, d)
    gain("model.norm", d)
    for layer in range(c.num_hidden_layers + c.num_nextn_predict_layers):
        p = f"model.layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm", "enorm", "hnorm", "shared_head.norm"):
            gain(p + name, d)
        matrix(p + "eh_proj", d, 2 * d)
        matrix(p + "self_attn.q_a_proj", c.q_lora_rank, d)
        gain(p + "self_attn.q_a_layernorm", c.q_lora_rank)
        matrix(p + "self_attn.q_b_proj", H * c.qk_head_dim, c.q_lora_rank)
        matrix(p + "self_attn.kv_a_proj_with_mqa", c.kv_lora_rank + c.qk_rope_head_dim, d)
        gain(p + "self_attn.kv_a_layernorm", c.kv_lora_rank)
        matrix(p + "self_attn.kv_b_proj", H * (c.qk_nope_head_dim + c.v_head_dim), c.kv_lora_rank)
        matrix(p + "self_attn.o_proj", d, H * c.v_head_dim)
        if c.is_moe(layer):
            matrix(p + "mlp.gate", E, d)
            w[p + "mlp.gate.e_score_correction_bias"] = rng.uniform(-1, 0.2, E).astype(dtype)
            feed_forward(p + "mlp.experts", I, E)
            feed_forward(p + "mlp.shared_experts", I * c.n_shared_experts)
        else:
            feed_forward(p + "mlp", c.intermediate_size)
    return w


TOKENS = np.random.default_rng(1).integers(CONFIG.vocab_size, size=(2, 9))


def test_it_stands_alone():
    """It checks the package only as long as it shares nothing with it."""
    tree = ast.parse(inspect.getsource(pico))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"numpy", "pathlib", "sys", "time", "types", "typing"}


def test_it_stays_short_enough_to_read_in_an_hour():
    assert len(inspect.getsource(pico).splitlines()) <= 550


# Positions.


def test_yarn_frequencies_of_deepseek_v3():
    """θ_i = 10000^(-2i/64): pairs 0..10 are kept, those from 23 on are divided by 40, with a ramp between."""
    theta = 10000.0 ** (-np.arange(32) / 32)
    frequency = pico.rope_frequencies(ModelConfig.preset("deepseek-v3"))
    np.testing.assert_allclose(frequency[:11], theta[:11], rtol=1e-12)
    np.testing.assert_allclose(frequency[23:], theta[23:] / 40, rtol=1e-12)
    hand = {10: 0.0562341325, 11: 0.0390069266, 16: 0.0055, 22: 1.77827941e-4, 23: 3.33380358e-5, 31: 3.33380358e-6}
    for i, value in hand.items():
        assert frequency[i] == pytest.approx(value, rel=1e-8), f"pair {i}"


def test_equal_turns_of_kimi_k2_leave_a_ramp_one_pair_wide():
    theta = 50000.0 ** (-np.arange(32) / 32)
    frequency = pico.rope_frequencies(ModelConfig.preset("kimi-k2"))
    np.testing.assert_allclose(frequency[:20], theta[:20], rtol=1e-12)
    np.testing.assert_allclose(frequency[20:], theta[20:] / 32, rtol=1e-12)


@pytest.mark.parametrize(
    ("preset", "changes", "scale"),
    [
        ("deepseek-v3", {}, 0.1352337788),  # 192^-1/2 · 1.3688879454²
        ("deepseek-v3", {"rope_scaling": None}, 0.0721687836),  # 192^-1/2
        ("deepseek-v2-lite", {}, 0.1147213868),  # 192^-1/2 · 1.2608037774²
    ],
)
def test_softmax_scale(preset, changes, scale):
    assert pico.softmax_scale(ModelConfig.preset(preset, **changes)) == pytest.approx(scale, rel=1e-9)


def test_mscale_stretches_the_rotation_by_its_ratio():
    x = np.random.default_rng(0).normal(size=(1, 5, 4))
    plain, stretched = (CONFIG.replace(rope_scaling=Yarn(factor=40.0, mscale=m, mscale_all_dim=1.0)) for m in (1.0, 2.0))
    ratio = (0.2 * np.log(40) + 1) / (0.1 * np.log(40) + 1)
    np.testing.assert_allclose(pico.rope(x, stretched), ratio * pico.rope(x, plain), rtol=1e-12)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.integers(0, 20), st.integers(0, 20), st.integers(0, 30))
def test_rope_keeps_norms_and_sees_only_distances(seed, interleave, m, n, shift):
    c = CONFIG.replace(rope_interleave=interleave)
    q, k = np.random.default_rng(seed).normal(size=(2, c.qk_rope_head_dim))

    def at(x, position):
        return pico.rope(np.tile(x, (position + 1, 1)), c)[position]

    assert np.linalg.norm(at(q, m)) == pytest.approx(np.linalg.norm(q))
    assert at(q, m) @ at(k, n) == pytest.approx(at(q, m + shift) @ at(k, n + shift), abs=1e-9)


def test_rope_layouts_are_one_rotation_of_reordered_pairs():
    """Half-split slot i is interleaved slot 2i, half-split slot d_r/2 + i is slot 2i + 1."""
    x = np.random.default_rng(0).normal(size=(7, 4))
    order = [0, 2, 1, 3]
    half = pico.rope(x[:, order], CONFIG.replace(rope_interleave=False))
    np.testing.assert_allclose(half, pico.rope(x, CONFIG)[:, order], rtol=1e-12)


def test_rope_turns_the_first_pair_by_one_radian_a_token():
    turned = pico.rope(np.tile([1.0, 0.0, 0.0, 0.0], (3, 1)), CONFIG.replace(rope_scaling=None))
    np.testing.assert_allclose(turned[:, 0] + 1j * turned[:, 1], np.exp(1j * np.arange(3)), atol=1e-12)


# Attention.


@pytest.mark.parametrize("q_lora_rank", [7, None], ids=["query latent", "no query latent"])
def test_mla_equals_its_equations_token_by_token_and_head_by_head(q_lora_rank):
    c, w, rng = CONFIG.replace(q_lora_rank=q_lora_rank, rms_norm_eps=0.5), random_weights(), np.random.default_rng(3)
    H, d_h, d_r, d_v, d_c, p = 3, 4, 4, 5, 6, "model.layers.0.self_attn."
    w[p + "q_proj.weight"] = rng.normal(0, 0.4, (H * (d_h + d_r), 12))
    for name in ("q_a_proj", "kv_a_proj_with_mqa", "o_proj"):
        w[f"{p}{name}.bias"] = rng.normal(size=len(w[f"{p}{name}.weight"]))
    h = rng.normal(size=(1, 5, 12))

    def at(x, t):
        return pico.rope(np.tile(x, (t + 1, 1)), c)[t]

    def norm(x, name):  # both latents: ε = 1e-6, not rms_norm_eps
        return x / np.sqrt(np.mean(x**2) + 1e-6) * w[f"{p}{name}.weight"]

    def project(x, name):
        return w[f"{p}{name}.weight"] @ x + w.get(f"{p}{name}.bias", 0)

    keys, values = {}, {}
    for t, h_t in enumerate(h[0]):
        if q_lora_rank is None:
            q = project(h_t, "q_proj")
        else:
            q = project(norm(project(h_t, "q_a_proj"), "q_a_layernorm"), "q_b_proj")
        both = project(h_t, "kv_a_proj_with_mqa")
        kv = project(norm(both[:d_c], "kv_a_layernorm"), "kv_b_proj").reshape(H, d_h + d_v)
        o = []
        for i, q_i in enumerate(q.reshape(H, d_h + d_r)):
            keys[t, i], values[t, i] = np.concatenate([kv[i, :d_h], at(both[d_c:], t)]), kv[i, d_h:]
            query = np.concatenate([q_i[:d_h], at(q_i[d_h:], t)])
            weight = np.exp([query @ keys[j, i] * (0.1 * np.log(4) + 1) ** 2 / np.sqrt(8) for j in range(t + 1)])
            o.append(sum(weight[j] * values[j, i] for j in range(t + 1)) / weight.sum())
        expected = project(np.concatenate(o), "o_proj")
        np.testing.assert_allclose(pico.mla(h, w, p, c)[0][0, t], expected, rtol=1e-10, err_msg=f"token {t}")


# The router and the experts.


def router(scores, bias=None, **config):
    """Route one token whose router logits give these scores."""
    scores = np.asarray(scores)
    settings = dict(
        n_routed_experts=scores.size,
        n_group=1,
        topk_group=1,
        num_experts_per_tok=2,
        topk_method="noaux_tc",
        scoring_func="sigmoid",
        norm_topk_prob=False,
        routed_scaling_factor=1.0,
    )
    c = SimpleNamespace(**(settings | config))
    logits = np.log(scores / (1 - scores)) if c.scoring_func == "sigmoid" else np.log(scores)
    weights = {"gate.weight": logits[:, None]}  # the token is the number 1
    weights["gate.e_score_correction_bias"] = np.zeros(scores.size) if bias is None else np.asarray(bias)
    _, chosen, gates = pico.route(np.ones((1, 1)), weights, "", c, {})
    return dict(zip(chosen[0].tolist(), gates[0].tolist(), strict=True))


def test_bias_decides_who_and_never_how_much():
    assert router([0.5, 0.6, 0.7, 0.2]) == pytest.approx({2: 0.7, 1: 0.6})
    assert router([0.5, 0.6, 0.7, 0.2], bias=[0.0, 0.0, -0.4, 0.9]) == pytest.approx({3: 0.2, 1: 0.6})


def test_chosen_gates_are_normalised_then_scaled():
    gates = router([0.5, 0.6, 0.7, 0.2], norm_topk_prob=True, routed_scaling_factor=2.5)
    assert gates == pytest.approx({2: 2.5 * 0.7 / 1.3, 1: 2.5 * 0.6 / 1.3})


def test_a_v3_group_counts_by_its_two_best_and_a_v2_group_by_its_best():
    scores, groups = [0.35, 0.05, 0.3, 0.3], dict(n_group=2, topk_group=1)
    assert set(router(scores, **groups)) == {2, 3}
    assert set(router(scores, **groups, scoring_func="softmax", topk_method="group_limited_greedy")) == {0, 1}


def test_experts_of_forbidden_groups_lose_to_negative_scores():
    bias = [-0.9, -0.9, -0.95, -0.95]
    assert set(router([0.6, 0.5, 0.4, 0.4], bias=bias, n_group=2, topk_group=1)) == {0, 1}


def test_v2_lite_takes_the_likeliest_experts_and_ignores_any_bias():
    gates = router([0.1, 0.4, 0.2, 0.3], bias=[9.0, 0.0, 0.0, 0.0], scoring_func="softmax", topk_method="greedy")
    assert gates == pytest.approx({1: 0.4, 3: 0.3})


def test_moe_equals_running_every_expert_on_every_token():
    w, p = random_weights(), "model.layers.1.mlp."
    h = np.random.default_rng(2).normal(size=(2, 4, CONFIG.hidden_size))
    _, chosen, gates = pico.route(h.reshape(8, -1), w, p, CONFIG, {})
    expected = pico.feed_forward(h, w, p + "shared_experts.")[0].reshape(8, -1)
    for token in range(8):
        for e, g in zip(chosen[token], gates[token], strict=True):
            gate, up, down = (w[f"{p}experts.{name}_proj.weight"][e] for name in ("gate", "up", "down"))
            a, b = gate @ h.reshape(8, -1)[token], up @ h.reshape(8, -1)[token]
            expected[token] += g * (down @ (a / (1 + np.exp(-a)) * b))
    np.testing.assert_allclose(pico.moe(h, w, p, CONFIG, {})[0].reshape(8, -1), expected, rtol=1e-12)


# The model.


def test_one_dense_layer_by_hand():
    """Two tokens, one head, queries of zero: attention is the mean over the past, and all can be done on paper.

    Embeddings (1, 1) and (1, -1) have unit root-mean-square, so the latents and values are the embeddings. After attention
    the stream is (1, 1) + (1, 1) = (2, 2) and (1, -1) + (1, 0) = (2, -1), normalised n = (1, 1) and (1.26491, -0.63246). The
    feed-forward network adds silu(n_1) · n_2 = 0.73106 and -0.62390 to the first component; then comes the final norm.
    """
    c = SimpleNamespace(
        num_hidden_layers=1,
        first_k_dense_replace=1,
        num_attention_heads=1,
        q_lora_rank=None,
        kv_lora_rank=2,
        qk_nope_head_dim=2,
        qk_rope_head_dim=2,
        rope_theta=10000.0,
        rope_scaling=None,
        rope_interleave=True,
        rms_norm_eps=1e-12,
        tie_word_embeddings=False,
    )
    p, one, I = "model.layers.0.", np.ones(2), np.eye(2)
    weights = {
        "model.embed_tokens.weight": np.array([[1.0, 1.0], [1.0, -1.0]]),
        p + "input_layernorm.weight": one,
        p + "self_attn.q_proj.weight": np.zeros((4, 2)),
        p + "self_attn.kv_a_proj_with_mqa.weight": np.vstack([I, I]),
        p + "self_attn.kv_a_layernorm.weight": one,
        p + "self_attn.kv_b_proj.weight": np.vstack([I, I]),
        p + "self_attn.o_proj.weight": I,
        p + "post_attention_layernorm.weight": one,
        p + "mlp.gate_proj.weight": np.array([[1.0, 0.0]]),
        p + "mlp.up_proj.weight": np.array([[0.0, 1.0]]),
        p + "mlp.down_proj.weight": np.array([[1.0], [0.0]]),
        "model.norm.weight": one,
        "lm_head.weight": I,
    }
    logits = pico.deepseek_v3(np.array([[0, 1]]), weights, c)[0]
    np.testing.assert_allclose(logits, [[1.1409818, 0.8355601], [1.1440429, -0.8313639]], atol=1e-6)


def test_no_token_sees_the_future():
    weights, T = random_weights(), TOKENS.shape[1]
    before = pico.deepseek_v3(TOKENS, weights, CONFIG)
    for t in range(T):
        changed = TOKENS.copy()
        changed[:, t] = (changed[:, t] + 1) % CONFIG.vocab_size
        after = pico.deepseek_v3(changed, weights, CONFIG)
        # Not to the bit: the changed token may join another expert's rows, and BLAS rounds a product by the number of its rows.
        assert np.abs(after[:, :t] - before[:, :t]).max(initial=0) < 1e-12, f"token {t} reaches back"
        assert np.all(np.abs(after[:, t:] - before[:, t:]).max(axis=-1) > 1e-6), f"token {t} is not seen by all after it"


def test_an_mtp_module_equals_its_equations():
    """eq. 21: project [norm(Emb(t_{i+1})); norm(h_i)]; eq. 22: one block, then the module's own norm; eq. 23: shared head."""
    c, w = CONFIG.replace(rms_norm_eps=0.1, tie_word_embeddings=True), random_weights()
    hidden, p, E = pico.hidden_states(TOKENS, w, c), "model.layers.2.", w["model.embed_tokens.weight"]

    def norm(x, name):
        return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 0.1) * w[f"{p}{name}.weight"]

    x = np.concatenate([norm(E[TOKENS[:, 1:]], "enorm"), norm(hidden[:, :8], "hnorm")], axis=-1) @ w[p + "eh_proj.weight"].T
    x = x + pico.mla(norm(x, "input_layernorm"), w, p + "self_attn.", c)[0]
    x = x + pico.moe(norm(x, "post_attention_layernorm"), w, p + "mlp.", c, {})[0]
    expected = norm(x, "shared_head.norm") @ E.T
    np.testing.assert_allclose(pico.mtp_logits(TOKENS, hidden, w, c, 1), expected, rtol=1e-10)


@pytest.mark.parametrize("depth", [1, 2])
def test_mtp_sees_exactly_the_tokens_before_the_one_it_predicts(depth):
    """At position i depth k knows tokens up to i+k and predicts token i+k+1."""
    weights, T = random_weights(), TOKENS.shape[1]

    def logits(tokens):
        return pico.mtp_logits(tokens, pico.hidden_states(tokens, weights, CONFIG), weights, CONFIG, depth)

    before = logits(TOKENS)
    assert before.shape == (2, T - depth, CONFIG.vocab_size)
    for t in range(T):
        changed = TOKENS.copy()
        changed[:, t] = (changed[:, t] + 1) % CONFIG.vocab_size
        moved = np.abs(logits(changed) - before).max(axis=(0, 2)) > 1e-9  # (T-k,)
        np.testing.assert_array_equal(moved, np.arange(T - depth) >= t - depth, err_msg=f"token {t}")


def test_values_carry_no_position():
    """Wherever attention looks in a sequence of one repeated token, it finds the same value: equal logits everywhere."""
    same = np.full((1, 6), 5)
    logits = pico.deepseek_v3(same, random_weights(), CONFIG)
    np.testing.assert_allclose(logits, np.broadcast_to(logits[:, :1], logits.shape), atol=1e-12)


def test_float32_stays_float32_and_close():
    exact, rounded = random_weights(), random_weights(dtype=np.float32)
    hidden = pico.hidden_states(TOKENS, rounded, CONFIG)
    for logits, reference in [
        (pico.deepseek_v3(TOKENS, rounded, CONFIG), pico.deepseek_v3(TOKENS, exact, CONFIG)),
        (
            pico.mtp_logits(TOKENS, hidden, rounded, CONFIG, 2),
            pico.mtp_logits(TOKENS, pico.hidden_states(TOKENS, exact, CONFIG), exact, CONFIG, 2),
        ),
    ]:
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, reference, atol=1e-4)


def test_extreme_logits_neither_overflow_nor_vanish():
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_allclose(pico.sigmoid(np.array([-700.0, 0.0, 700.0])), [np.exp(-700.0), 0.5, 1.0], rtol=1e-12)
        np.testing.assert_allclose(pico.softmax(np.array([1e4, 1e4, -1e4])), [0.5, 0.5, 0.0], atol=1e-15)


def test_generate_appends_the_likeliest_token():
    weights = random_weights()
    longer = pico.generate(TOKENS, weights, CONFIG, 3)
    assert longer.shape == (2, TOKENS.shape[1] + 3)
    np.testing.assert_array_equal(longer[:, : TOKENS.shape[1]], TOKENS)
    likeliest = pico.deepseek_v3(longer, weights, CONFIG).argmax(axis=-1)
    np.testing.assert_array_equal(longer[:, -3:], likeliest[:, -4:-1])


# The backward pass, by central differences; the other proof is its equality with the package's.

STILL = CONFIG.replace(aux_loss_alpha=0.5, mtp_loss_weight=0.7)
TARGETS = np.roll(TOKENS, -1, axis=1)
TARGETS[0, 2] = TARGETS[1, -1] = pico.IGNORE


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"q_lora_rank": None, "tie_word_embeddings": True, "rope_interleave": False},
        {"scoring_func": "softmax", "topk_method": "greedy", "n_group": 1, "topk_group": 1, "balance": "aux_loss"},
    ],
    ids=["V3", "no query latent, tied, half-split", "greedy softmax router"],
)
def test_gradients_equal_central_differences(changes):
    """Of every weight, along one random direction and at its largest entry, with the choice of experts held still."""
    c, rng, h = STILL.replace(**changes), np.random.default_rng(4), 5e-4
    w = {
        name: rng.uniform(0.8, 1.2, shape[:1]) if len(shape) == 1 else rng.normal(0, 0.4, shape)
        for name, shape in weight_shapes(c).items()
    }
    losses, g = pico.loss_and_grads(TOKENS, TARGETS, w, c)
    assert losses.balance > 1e-3 and len(losses.mtp) == 2
    for name, gradient in g.items():
        largest = np.zeros(gradient.size)
        largest[np.abs(gradient).argmax()] = 1.0
        for direction in (rng.standard_normal(gradient.shape), largest.reshape(gradient.shape)):
            direction = direction / np.linalg.norm(direction)

            def loss(times, name=name, direction=direction):
                moved = w | {name: w[name] + times * h * direction}
                return pico.forward(TOKENS, TARGETS, moved, c, losses.choices)[0].total

            slope = (8 * (loss(1) - loss(-1)) - (loss(2) - loss(-2))) / (12 * h)
            expected = np.sum(gradient * direction)
            assert abs(slope - expected) <= 1e-7 * np.abs(gradient).max() + 1e-11, name


def test_prescribed_choices_are_used_and_the_others_made():
    w, p = random_weights(), "model.layers.1.mlp."
    free = pico.forward(TOKENS, TARGETS, w, CONFIG)[0]
    other = (free.choices[p] + 1) % CONFIG.n_routed_experts
    held = pico.forward(TOKENS, TARGETS, w, CONFIG, {p: other})[0]
    np.testing.assert_array_equal(held.choices[p], other)
    assert set(held.choices) == set(free.choices) == {f"model.layers.{layer}.mlp." for layer in (1, 2, 3)}
    assert held.total != free.total


@pytest.mark.parametrize(("field", "value"), [("attention", "mha"), ("precision", "fp8"), ("mtp_state", "unnormed")])
def test_what_it_does_not_know_it_refuses(field, value):
    with pytest.raises(ValueError, match=f"{field} = '{value}': pico knows '.*' only"):
        pico.loss_and_grads(TOKENS, TARGETS, random_weights(), CONFIG.replace(**{field: value}))


# Training.


@pytest.mark.parametrize(
    "name", ["base", "attention_bias", "no_query_latent", "tied_embeddings", "v2_lite_like", "one_group", "three_mtp"]
)
def test_initial_weights_have_the_names_and_shapes_of_the_checkpoint(name):
    w = pico.init_weights(CONFIGS[name], np.random.default_rng(0))
    assert {key: array.shape for key, array in w.items()} == weight_shapes(CONFIGS[name])
    assert all(array.dtype == np.float32 for array in w.values())
    assert w["model.embed_tokens.weight"].std() == pytest.approx(CONFIGS[name].initializer_range, rel=0.1)


def test_its_own_configuration_is_one_of_the_package():
    assert vars(pico.CONFIG).items() <= vars(ModelConfig(**vars(pico.CONFIG), bos_token_id=None, eos_token_id=None)).items()


TEXT = b"".join(b"%d times %d is %d.\n" % (a, b, a * b) for a in range(20) for b in range(20))


def run(*arguments, folder):
    """The file alone, in a folder of its own: it needs nothing but NumPy."""
    shutil.copy(inspect.getsourcefile(pico), folder / "alone.py")
    return subprocess.run([sys.executable, "alone.py", *arguments], cwd=folder, capture_output=True, text=True, timeout=600)


def test_the_file_alone_trains_and_writes(tmp_path):
    (tmp_path / "some.txt").write_bytes(TEXT)
    done = run("some.txt", "5", folder=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    before, after = (line for line in done.stdout.splitlines() if line.startswith(("before: ", "after: ")))
    assert float(after.split()[1]) < float(before.split()[1]) < 6.0
    samples = done.stdout.split("[...]:\n")[1:]
    prompts = [sample.partition("[...]")[0] for sample in samples]
    assert prompts[0] == prompts[1] and prompts[0].encode() in TEXT
    assert "tokens/s" in done.stdout


def test_as_a_module_of_the_package_on_a_console_that_knows_ascii_only(tmp_path):
    (tmp_path / "some.txt").write_bytes("Grüße, \x1b[31m größer. ".encode() * 200)
    done = subprocess.run(
        [sys.executable, "-m", "minids.pico", tmp_path / "some.txt", "0"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "step    1" in done.stdout and "after: " in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give the name of a text file"),
        (["nowhere.txt"], "No such file"),
        (["short.txt"], "has 10 bytes; give a text of at least 2,580"),
        (["."], "directory"),
        (["some.txt", "soon"], "'soon'"),
    ],
    ids=["nothing", "missing", "too short", "a folder", "no number"],
)
def test_what_cannot_be_read_gets_one_line_and_exit_code_2(arguments, says, tmp_path, monkeypatch, capsys):
    (tmp_path / "short.txt").write_bytes(b"ten bytes.")
    (tmp_path / "some.txt").write_bytes(TEXT)
    monkeypatch.chdir(tmp_path)
    assert pico.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and says in err
