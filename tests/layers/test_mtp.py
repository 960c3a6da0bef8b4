"""One multi-token-prediction module against eqs 21-23."""

import naive
import numpy as np
import support

from minids.layers.mtp import MTPModule

RNG = np.random.default_rng(0)
CONFIG = support.TINY.replace(rms_norm_eps=0.1)


def some():
    module, parameters = support.layer(lambda p: MTPModule(CONFIG, p, 2))
    embedding, hidden = RNG.standard_normal((2, 2, 4, 12))
    return module, parameters, embedding, hidden, support.angles(CONFIG, 4)


def test_forward_joins_runs_its_own_block_and_norms():
    module, parameters, embedding, hidden, angles = some()
    w = {p.name.removeprefix("model.layers.3."): p.value for p in parameters}  # L = 2, depth 2: layer 3
    joined = np.zeros((2, 4, 12))
    for b, t in np.ndindex(2, 4):
        e = naive.rmsnorm(embedding[b, t], w["enorm.weight"], 0.1)
        h = naive.rmsnorm(hidden[b, t], w["hnorm.weight"], 0.1)
        joined[b, t] = w["eh_proj.weight"] @ np.concatenate([e, h])
    out = module.block.forward(joined, angles)[0]
    want = [[naive.rmsnorm(token, w["shared_head.norm.weight"], 0.1) for token in sequence] for sequence in out]
    support.assert_close(module.forward(embedding, hidden, angles)[0], np.array(want), 1e-11)


def test_every_position_sees_the_earlier_ones_through_the_modules_own_block():
    """The causal chain: without the block, position i would depend on position i alone."""
    module, _, embedding, hidden, angles = some()
    before = module.forward(embedding, hidden, angles)[0]
    hidden[:, 1] += 1.0
    after = module.forward(embedding, hidden, angles)[0]
    np.testing.assert_allclose(after[:, 0], before[:, 0], rtol=1e-12)
    assert (np.abs(after[:, 1:] - before[:, 1:]).max(-1) > 1e-6).all(), "later positions must see the change"


def test_gradient():
    module, parameters, embedding, hidden, angles = some()
    held = module.forward(embedding, hidden, angles)[1].block.ffn.routing.chosen

    def run(embedding, hidden, chosen=None):
        module.block.moe.fixed_choice = chosen
        y, saved = module.forward(embedding, hidden, angles)
        return {"y": y, "balance": np.array(saved.block.ffn.balance_loss)}, saved

    def back(dy, saved):
        return module.backward(dy["y"], saved, float(dy["balance"]))

    support.check_layer(parameters, run, back, frozen={"chosen": held}, embedding=embedding, hidden=hidden, samples=6)


def test_it_has_an_attention_and_experts_of_its_own_and_no_embedding_or_head():
    _, parameters, *_ = some()
    names = {p.name.removeprefix("model.layers.3.") for p in parameters}
    assert {"enorm.weight", "hnorm.weight", "eh_proj.weight", "shared_head.norm.weight"} <= names
    assert "self_attn.o_proj.weight" in names and "mlp.experts.gate_proj.weight" in names
    assert not {"embed_tokens.weight", "shared_head.head.weight"} & names, "these belong to the main model"
    assert parameters["model.layers.3.eh_proj.weight"].shape == (12, 24)
