"""MHA, GQA and MQA against their definition; they differ in the number of key-value heads and in nothing else."""

import naive
import numpy as np
import pytest
import support

from minids.layers.attention import Attention

RNG = np.random.default_rng(0)
CONFIGS = {
    "mha": support.TINY.replace(attention="mha"),
    "gqa": support.TINY.replace(attention="gqa", num_key_value_heads=2, attention_bias=True),
    "mqa": support.TINY.replace(attention="mqa", rope_interleave=False),
}
KV_HEADS = {"mha": 4, "gqa": 2, "mqa": 1}


@pytest.mark.parametrize("kind", CONFIGS)
def test_forward_is_the_definition(kind):
    config, kv_heads = CONFIGS[kind], KV_HEADS[kind]
    layer, parameters = support.layer(lambda p: Attention(config, p, "a"))
    x = RNG.standard_normal((2, 5, 12))
    got = layer.forward(x, support.angles(config, 5))[0]
    w = {p.name.removeprefix("a."): p.value for p in parameters}
    frequencies = [1.0, 10000.0**-0.5]

    def heads(name, count):
        return (x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)).reshape(2, 5, count, -1)

    def turned(z):
        out = z.copy()
        for b, t, h in np.ndindex(*z.shape[:3]):
            out[b, t, h, 6:] = naive.turned(z[b, t, h, 6:], t, frequencies, config.rope_interleave)
        return out

    o = naive.attention(turned(heads("q_proj", 4)), turned(heads("k_proj", kv_heads)), heads("v_proj", kv_heads), 10**-0.5)
    want = o.reshape(2, 5, -1) @ w["o_proj.weight"].T + w.get("o_proj.bias", 0)
    support.assert_close(got, want, 1e-11)


@pytest.mark.parametrize("kind", CONFIGS)
def test_gradient(kind):
    layer, parameters = support.layer(lambda p: Attention(CONFIGS[kind], p, "a"))
    angles = support.angles(CONFIGS[kind], 4)
    x = RNG.standard_normal((2, 4, 12))
    support.check_layer(parameters, lambda x: layer.forward(x, angles), layer.backward, x=x)


def test_mha_is_gqa_with_a_head_each_and_mqa_is_gqa_with_one():
    x, angles = RNG.standard_normal((1, 3, 12)), support.angles(support.TINY, 3)
    for kind, heads in (("mha", 4), ("mqa", 1)):
        own, _ = support.layer(lambda p, k=kind: Attention(support.TINY.replace(attention=k), p, "a"))
        gqa, _ = support.layer(
            lambda p, h=heads: Attention(support.TINY.replace(attention="gqa", num_key_value_heads=h), p, "a")
        )
        np.testing.assert_array_equal(own.forward(x, angles)[0], gqa.forward(x, angles)[0])
