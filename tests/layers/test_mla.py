"""Multi-head Latent Attention against eqs 1-11 of the DeepSeek-V3 report written out token by token and head by head."""

import naive
import numpy as np
import pytest
import support

from minids import check
from minids.layers.mla import MLA
from minids.ops import yarn

RNG = np.random.default_rng(0)
TINY = support.TINY
CONFIGS = {
    "V3": TINY,
    "no query latent": TINY.replace(q_lora_rank=None),
    "biases": TINY.replace(attention_bias=True),
    "half-split": TINY.replace(rope_interleave=False),
    "YaRN": TINY.replace(rope_scaling=support.SHORT_YARN, rope_theta=10.0),
    "one head": TINY.replace(num_attention_heads=1),
    "no content dimensions": TINY.replace(qk_nope_head_dim=0),
}


def by_equations(config, parameters, x):
    """u (B, T, d) by eqs 1-11, each vector computed alone."""
    c, weights = config, {p.name.removeprefix("a."): p.value for p in parameters}

    def project(name, v):
        return weights[f"{name}.weight"] @ v + weights.get(f"{name}.bias", 0.0)

    frequencies, scale, amplitude = (
        [c.rope_theta ** (-2 * i / c.qk_rope_head_dim) for i in range(c.qk_rope_head_dim // 2)],
        1.0,
        1.0,
    )
    if c.rope_scaling:
        s = c.rope_scaling
        frequencies = yarn.yarn_frequencies(
            c.qk_rope_head_dim, c.rope_theta, s.factor, s.original_max_position_embeddings, s.beta_fast, s.beta_slow
        )
        scale = (0.1 * s.mscale_all_dim * np.log(s.factor) + 1) ** 2
        amplitude = (0.1 * s.mscale * np.log(s.factor) + 1) / (0.1 * s.mscale_all_dim * np.log(s.factor) + 1)
    batch, time, heads, nope = *x.shape[:2], c.num_attention_heads, c.qk_nope_head_dim
    q = np.zeros((batch, time, heads, c.qk_head_dim))
    k, v = np.zeros_like(q), np.zeros((batch, time, heads, c.v_head_dim))
    for b, t in np.ndindex(batch, time):
        if c.q_lora_rank:
            c_q = naive.rmsnorm(project("q_a_proj", x[b, t]), weights["q_a_layernorm.weight"], 1e-6)
            queries = project("q_b_proj", c_q).reshape(heads, -1)
        else:
            queries = project("q_proj", x[b, t]).reshape(heads, -1)
        down = project("kv_a_proj_with_mqa", x[b, t])
        c_kv = naive.rmsnorm(down[: c.kv_lora_rank], weights["kv_a_layernorm.weight"], 1e-6)
        k_rope = naive.turned(down[c.kv_lora_rank :], t, frequencies, c.rope_interleave, amplitude)  # one for all heads
        up = project("kv_b_proj", c_kv).reshape(heads, -1)
        for h in range(heads):
            q[b, t, h, :nope] = queries[h, :nope]
            q[b, t, h, nope:] = naive.turned(queries[h, nope:], t, frequencies, c.rope_interleave, amplitude)
            k[b, t, h, :nope], k[b, t, h, nope:] = up[h, :nope], k_rope
            v[b, t, h] = up[h, nope:]
    o = naive.attention(q, k, v, scale * c.qk_head_dim**-0.5)
    return np.array([[project("o_proj", o[b, t].reshape(-1)) for t in range(time)] for b in range(batch)])


def forward_equals_the_equations(name):
    config = CONFIGS[name]
    mla, parameters = support.layer(lambda p: MLA(config, p, "a"))
    x = RNG.standard_normal((2, 5, config.hidden_size))
    got = mla.forward(x, support.angles(config, 5))[0]
    support.assert_close(got, by_equations(config, parameters, x), 1e-11, f"MLA, {name}")


def test_forward_is_the_papers_equations():
    forward_equals_the_equations("V3")


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "V3"])
def test_forward_is_the_papers_equations_in_every_variant(name):
    forward_equals_the_equations(name)


def gradient_is_right(name, length):
    config = CONFIGS[name]
    mla, parameters = support.layer(lambda p: MLA(config, p, "a"))
    angles = support.angles(config, length)
    x = RNG.standard_normal((2, length, config.hidden_size))
    support.check_layer(parameters, lambda x: mla.forward(x, angles), mla.backward, x=x)


def test_gradient():
    gradient_is_right("V3", 4)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "V3"])
def test_gradient_in_every_variant(name):
    gradient_is_right(name, 3)


def test_one_token_attends_to_itself_so_its_query_has_no_gradient():
    mla, parameters = support.layer(lambda p: MLA(TINY, p, "a"))
    angles, x = support.angles(TINY, 1), RNG.standard_normal((2, 1, 12))
    check.gradient(lambda x: mla.forward(x, angles), mla.backward, {"x": x}).raise_if_wrong()
    parameters.zero_grads()
    y, saved = mla.forward(x, angles)
    mla.backward(np.ones_like(y), saved)
    for p in parameters:
        largest = np.abs(p.grad).max()
        assert largest < 1e-14 if ".q_" in p.name else largest > 1e-3, f"{p.name}: largest gradient {largest:.1e}"


def test_parameters_have_the_checkpoints_names_and_shapes():
    _, parameters = support.layer(lambda p: MLA(TINY.replace(attention_bias=True), p, "a"))
    assert {p.name: p.shape for p in parameters} == {
        "a.q_a_proj.weight": (7, 12),
        "a.q_a_proj.bias": (7,),
        "a.q_a_layernorm.weight": (7,),
        "a.q_b_proj.weight": (4 * 10, 7),
        "a.kv_a_proj_with_mqa.weight": (5 + 4, 12),
        "a.kv_a_proj_with_mqa.bias": (9,),
        "a.kv_a_layernorm.weight": (5,),
        "a.kv_b_proj.weight": (4 * 9, 5),
        "a.o_proj.weight": (12, 4 * 3),
        "a.o_proj.bias": (12,),
    }


def test_all_heads_share_one_rope_key_straight_from_the_hidden_state():
    """What is cached per token: the latent and one rotary key, which must not pass the latent's norm."""
    mla, parameters = support.layer(lambda p: MLA(TINY, p, "a"))
    x, angles = RNG.standard_normal((2, 5, 12)), support.angles(TINY, 5)
    c_kv, k_rope, _ = mla.latent(x, angles)
    assert c_kv.shape == (2, 5, 5) and k_rope.shape == (2, 5, 1, 4), "the cache holds d_c + d_r numbers a token"
    k, _, _ = mla.keys_values(c_kv, k_rope)
    for head in range(4):
        np.testing.assert_array_equal(k[:, :, head, 6:], k_rope[:, :, 0], err_msg=f"head {head} has a rotary key of its own")
    weight = parameters["a.kv_a_proj_with_mqa.weight"].value[5:]
    support.assert_close(k_rope[:, 0, 0], x[:, 0] @ weight.T, what="the rotary key at position 0, where nothing is turned")
    _, doubled, _ = mla.latent(2 * x, angles)
    support.assert_close(doubled, 2 * k_rope, what="the rotary key of twice the input (a norm would undo the factor)")


def test_the_latent_norms_keep_their_own_epsilon():
    """DeepSeek's code has 1e-6 on the latents whatever rms_norm_eps says."""
    (one, _), (two, _) = (support.layer(lambda p, e=e: MLA(TINY.replace(rms_norm_eps=e), p, "a")) for e in (1e-6, 0.5))
    x, angles = RNG.standard_normal((1, 3, 12)), support.angles(TINY, 3)
    np.testing.assert_array_equal(one.forward(x, angles)[0], two.forward(x, angles)[0])
