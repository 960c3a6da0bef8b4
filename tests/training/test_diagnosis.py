"""A run whose numbers are none any more stops before a weight is spoilt, and says where it began."""

import numpy as np
import pytest
from support import batch, build

from minids.training.diagnosis import exploded, where_it_began


@pytest.fixture
def model():
    return build()


def spoilt(model, name, seed=0):
    model.parameters[name].value.flat[3] = np.nan
    return where_it_began(model, [batch(seed=seed)])


def test_a_weight_that_is_no_number_is_named(model):
    name = "model.layers.1.mlp.shared_experts.up_proj.weight"
    assert spoilt(model, name) == f"the weight {name} is not finite"


@pytest.mark.parametrize(
    ("names", "where"),
    [
        (["model.layers.0.self_attn.kv_b_proj", "model.layers.0.self_attn.o_proj"], "the output of model.layers.0.self_attn"),
        (["model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"], "the output of model.layers.0.mlp"),
        (["model.layers.1.self_attn.kv_b_proj", "model.layers.1.self_attn.o_proj"], "the output of model.layers.1.self_attn"),
        (["model.norm", "lm_head"], "the logits of lm_head"),
    ],
)
def test_the_layer_where_the_forward_pass_overflows_is_named(model, names, where):
    for name in names:  # either alone is finite, their product is not
        model.parameters[f"{name}.weight"].value[...] *= 1e160
    assert where_it_began(model, [batch()]).startswith(where)


def test_the_gradient_nearest_to_the_loss_is_named_when_the_forward_pass_is_finite(model):
    model.loss_and_grads(*batch())
    for name in ("model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.gate.weight"):
        model.parameters[name].grad[0] = np.inf
    assert where_it_began(model, [batch()]).startswith("the gradient of model.layers.1.mlp.gate.weight is not finite")


def test_a_sound_model_is_said_to_be_sound(model):
    model.loss_and_grads(*batch())
    assert where_it_began(model, [batch()]).startswith("nowhere")


def test_what_counts_as_exploded():
    guessing = np.log(258)
    assert not exploded(guessing, 258) and not exploded(2 * guessing, 258)
    assert exploded(3.1 * guessing, 258) and exploded(float("nan"), 258) and exploded(float("inf"), 258)
