"""Mistakes of learning from rewards, by GRPO and of reward models, as public implementations repeat them. See the package for
how they are made."""

import numpy as np

from minids.lab.mistakes import Mistake, Replace
from minids.ops import policy_loss
from minids.training import preferences, process_group, reward_model


def divergence_as_a_difference_of_logs(replace: Replace) -> None:
    """The loss has ln π − ln π_ref in the place of D: on the policy's own answers its gradient is 0 on average, mere noise."""
    replace(policy_loss, k3=lambda log_q: (-log_q, np.ones_like(log_q)))


def larger_term_in_the_clip(replace: Replace) -> None:
    """max in the place of min: a bad answer that became likelier is let go, and one that was given up for good is pushed on."""

    def wrong(rho, advantage, clip):
        free, held = rho * advantage, np.clip(rho, 1 - clip, 1 + clip) * advantage
        clipped = held > free
        return np.where(clipped, held, free), np.where(clipped, 0.0, free), clipped

    replace(policy_loss, surrogate=wrong)


def group_numbers_lost(replace: Replace) -> None:
    """Every answer is a group of its own, where no mean is taken off: there is no baseline, and no answer is made rarer."""
    replace(policy_loss, advantages=lambda rewards, groups, by_std=True: np.asarray(rewards, np.float64))


def old_log_probabilities_with_gradient(replace: Replace) -> None:
    """ln π_old is taken from the pass that is trained, and not held constant: ρ = π / π is 1, and its gradient 0."""
    right = policy_loss.forward

    def wrong(logits, tokens, answer, advantage, log_old, *rest, **named):
        now = policy_loss.log_probabilities(logits, tokens)
        loss, saved = right(logits, tokens, answer, advantage, now, *rest, **named)
        of_divergence = right(logits, tokens, answer, np.zeros(len(advantage)), now, *rest, **named)[1]
        return loss, saved._replace(slopes=of_divergence.slopes)

    replace(policy_loss, forward=wrong)


def balancing_bias_moved_by_rollouts(replace: Replace) -> None:
    """The balancing bias goes on following the load, now that of a few answers to a few questions."""
    right = process_group.sample

    def wrong(model, *arguments, **more):
        rollouts = right(model, *arguments, **more)
        for layer, chosen in zip(model.moe_layers, rollouts.chosen, strict=False):  # of the MTP modules' layers none is known
            counts = np.bincount(chosen.reshape(-1), minlength=model.config.n_routed_experts)
            layer.update_bias(counts, model.config.bias_update_speed)
        return rollouts

    replace(process_group, sample=wrong)


def reward_read_behind_the_padding(replace: Replace) -> None:
    """The reward is read at the end of the row, where a text shorter than its neighbours is filled up, and not at its last
    token: what an answer is worth depends on what it is judged beside."""
    right = reward_model.padded

    def wrong(texts, at_once=reward_model.READ_AT_ONCE):
        for tokens, _ in right(texts, at_once):
            yield tokens, (np.arange(len(tokens)) + 1) * tokens.shape[1] - 1

    for module in (reward_model, preferences):
        replace(module, padded=wrong)


IN_POLICY: list[Mistake] = [
    divergence_as_a_difference_of_logs, larger_term_in_the_clip, group_numbers_lost, old_log_probabilities_with_gradient,
    balancing_bias_moved_by_rollouts, reward_read_behind_the_padding,
]  # fmt: skip
"""Of learning from rewards."""
