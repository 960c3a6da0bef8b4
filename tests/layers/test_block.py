"""One Transformer block: two residual branches, each normalised before and added once."""

import naive
import numpy as np
import pytest
import support

from minids.layers.block import Block

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("index", [0, 1], ids=["dense", "MoE"])
@pytest.mark.parametrize("attention", ["mla", "mha"])
def test_forward_is_two_residual_branches(index, attention):
    config = support.TINY.replace(attention=attention, rms_norm_eps=0.1)
    block, parameters = support.layer(lambda p: Block(config, p, index))
    assert (block.moe is not None) == (index == 1)
    x, angles = RNG.standard_normal((2, 4, 12)), support.angles(config, 4)

    def normed(x, name):
        gain = parameters[f"model.layers.{index}.{name}.weight"].value
        return np.array([[naive.rmsnorm(token, gain, 0.1) for token in sequence] for sequence in x])

    middle = x + block.attention.forward(normed(x, "input_layernorm"), angles)[0]
    want = middle + block.ffn.forward(normed(middle, "post_attention_layernorm"))[0]
    support.assert_close(block.forward(x, angles)[0], want, 1e-11)


@pytest.mark.parametrize("index", [0, 1], ids=["dense", "MoE"])
def test_gradient(index):
    block, parameters = support.layer(lambda p: Block(support.TINY, p, index))
    x, angles = RNG.standard_normal((1, 4, 12)), support.angles(support.TINY, 4)
    held = {"chosen": block.forward(x, angles)[1].ffn.routing.chosen} if index else None

    def run(x, chosen=None):
        if index:
            block.moe.fixed_choice = chosen
        y, saved = block.forward(x, angles)
        return {"y": y, "balance": np.array(saved.ffn.balance_loss if index else 0.0)}, saved

    def back(dy, saved):
        return block.backward(dy["y"], saved, float(dy["balance"]))

    support.check_layer(parameters, run, back, frozen=held, x=x)


def test_a_block_whose_branches_give_nothing_passes_its_input_on():
    """With both output projections at zero only the residual is left, once."""
    block, parameters = support.layer(lambda p: Block(support.TINY, p, 1))
    for p in parameters:
        if p.name.endswith(("o_proj.weight", "down_proj.weight")):
            p.value[...] = 0
    x = RNG.standard_normal((1, 3, 12))
    np.testing.assert_array_equal(block.forward(x, support.angles(support.TINY, 3))[0], x)
