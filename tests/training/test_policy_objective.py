"""GRPO's loss through the whole model: its gradient by every parameter, with the experts of the rollouts."""

import numpy as np
import pytest
import support

from minids.config.policy import PolicyConfig
from minids.inference.generate import checked_ending
from minids.model import routing_fixed
from minids.ops.policy_loss import advantages
from minids.training.policy_objective import PolicyObjective, Reference, replayed
from minids.training.rollout import sample

CONFIG = support.TINY.replace(num_nextn_predict_layers=1)


def a_round(**settings):
    """A model that has moved away from the one that drew the answers, which is the reference too; and the objective."""
    model = support.build(CONFIG)
    rng = np.random.default_rng(4)
    config = PolicyConfig(questions=2, group=3, beta=0.4, **settings)
    r = sample(model, [[3, 1, 4], [5]], 3, 4, config.temperature, checked_ending(model, 4, [7]), rng, config.top_p)
    log_ref = Reference(model.parameters).log_probs(model, r, config.temperature)
    model.parameters.values += rng.normal(0, 0.02, model.parameters.values.shape)
    advantage = advantages(rng.random(6), r.groups, config.by_std)
    return model, r, PolicyObjective(r, advantage, config, log_ref)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"by": "answer", "temperature": 0.7},
        {"corrected": False, "by_std": False, "divisor": 4.0, "mtp": False},
        {"top_p": 0.8, "drop_above": 0.01, "updates": 2, "temperature": 0.9},
    ],
    ids=["V3.2", "as printed", "Dr. GRPO", "V3.2 with top-p"],
)
def test_the_gradient_by_every_parameter_is_that_of_central_differences(settings):
    model, r, objective = a_round(**settings)

    def loss() -> float:
        with routing_fixed(model, fixed):
            return model.forward(r.tokens, r.targets, mtp=objective.config.mtp, objective=objective)[0].total

    with routing_fixed(model, replayed(model, r)):  # MTP modules choose for themselves: held still while weights are moved
        free = [s.routing.chosen for s in model.forward(r.tokens, r.targets)[1].moe]
    fixed = free if objective.config.mtp else replayed(model, r)
    model.parameters.zero_grads()
    with routing_fixed(model, fixed):
        model.forward_backward(r.tokens, r.targets, mtp=objective.config.mtp, objective=objective)
    assert objective.measured.drift > 1e-3, "the case is there to have ratios that are not 1"
    assert support.worst_slope(loss, model.parameters) < 1e-6


def test_without_mtp_its_modules_get_no_gradient_and_the_main_model_does():
    model, r, objective = a_round(mtp=False)
    model.parameters.zero_grads()
    with routing_fixed(model, replayed(model, r)):
        losses = model.forward_backward(r.tokens, r.targets, mtp=False, objective=objective)
    own = [p for p in model.parameters if p.name.startswith(f"model.layers.{CONFIG.num_hidden_layers}.")]
    assert own and not any(p.grad.any() for p in own) and model.head.weight.grad.any()
    assert losses.mtp == () and losses.balance == 0.0 and losses.total == losses.main


def test_the_reference_is_the_same_as_the_policy_while_the_weights_are():
    model = support.build(CONFIG)
    r = sample(model, [[3, 1, 4]], 3, 4, 0.9, checked_ending(model, 4, []), np.random.default_rng(1))
    reference = Reference(model.parameters)
    np.testing.assert_allclose(reference.log_probs(model, r, 0.9), r.log_probs, rtol=1e-9)
    before = model.parameters.values.copy()
    model.parameters.values *= 1.1
    moved = model.parameters.values.copy()
    np.testing.assert_allclose(reference.log_probs(model, r, 0.9), r.log_probs, rtol=1e-9)
    assert (model.parameters.values == moved).all(), "the model itself is left alone"
    masked = sample(model, [[3, 1, 4]], 3, 4, 0.9, checked_ending(model, 4, []), np.random.default_rng(1), 0.8)
    reference.replace()
    np.testing.assert_allclose(reference.log_probs(model, masked, 0.9), masked.log_probs, rtol=1e-9)
    assert (reference.values == moved).all() and (reference.values != before).any()
