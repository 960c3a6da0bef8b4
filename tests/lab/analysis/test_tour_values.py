"""The tour through a real model: its arrays have the shapes that the paper walk gives them, and their own numbers."""

import numpy as np
import pytest
from support import TINY, batch, build

from minids.errors import MinidsError
from minids.lab.analysis.tour import tour, tour_steps
from minids.lab.analysis.tour_values import step_values

CONFIG = TINY.replace(max_position_embeddings=64)


@pytest.mark.parametrize(
    "config", [CONFIG, CONFIG.replace(q_lora_rank=None), CONFIG.replace(n_shared_experts=0, balance="none")]
)
def test_nearly_every_array_of_the_tour_is_at_hand(config):
    tokens, targets = batch(config, length=8)
    values = step_values(build(config), tokens, targets)
    steps = tour_steps(config, 2, 8)
    assert "shape than on paper" not in tour(config, "model", 2, 8, values=values)
    saved = {array.name for step in steps for array in step.saved}
    missing = {name for name in saved if name not in values and not name.startswith(("layers.2", "layers.3"))}
    assert not missing, f"saved arrays without a value: {sorted(missing)}"
    weights = {array.name.replace("experts.*.", "experts.") for step in steps for array in step.weights}
    assert weights <= set(values)
    assert {f"d {name}" for name in weights if not name.endswith("correction_bias")} <= set(values)


def test_the_numbers_are_the_models_own():
    tokens, targets = batch(CONFIG, length=8)
    model = build(CONFIG)
    values = step_values(model, tokens, targets)
    losses, gradients = model.loss_and_grads(tokens, targets)
    assert float(values["loss"]) == pytest.approx(losses.main, rel=1e-12)
    np.testing.assert_allclose(values["d model.norm.weight"], gradients["model.norm.weight"], rtol=1e-10)
    np.testing.assert_allclose(values["layers.1.p"].sum(axis=-1), 1.0)
    c_kv = values["layers.0.c_kv_norm"]  # the latent that is cached, from the equations
    x = values["layers.0.x_norm"] @ values["model.layers.0.self_attn.kv_a_proj_with_mqa.weight"].T
    x = x[..., : CONFIG.kv_lora_rank]
    gain = values["model.layers.0.self_attn.kv_a_layernorm.weight"]
    np.testing.assert_allclose(c_kv, x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-6) * gain, rtol=1e-10)


def test_an_array_of_another_shape_is_refused():
    with pytest.raises(MinidsError, match="another shape than on paper"):
        tour(CONFIG, "model", 2, 8, values={"layers.0.c_kv_norm": np.zeros((2, 8, 3))})
