"""Symptoms of the mistakes in learning from rewards; see ``symptoms.py``."""

import numpy as np

from minids.inference.generate import Ending
from minids.lab.mistakes.stamp import STAMP, Measured, build, text
from minids.ops import policy_loss
from minids.training.process_group import ProcessGroup
from minids.training.reward_model import RewardModel


def divergence() -> Measured:
    """D of an answer, by how much likelier the reference says it."""
    log_q = np.linspace(-2, 2, 41)
    return log_q, policy_loss.k3(log_q)[0]


def push_on_a_bad_answer() -> Measured:
    """Derivative of the loss by ln ρ where the advantage is −1: positive makes the answer rarer."""
    rho = np.linspace(0.5, 1.5, 101)
    return rho, -policy_loss.surrogate(rho, np.full_like(rho, -1.0), 0.2)[1]


def advantages_of_two_questions() -> Measured:
    """Of four answers each: one question is easy, three are right; one is hard, one is right."""
    rewards, groups = np.array([1.0, 1, 1, 0, 1, 0, 0, 0]), np.repeat([0, 1], 4)
    return np.arange(1, 9), policy_loss.advantages(rewards, groups)


def learning_to_answer() -> Measured:
    """Probability of the one answer that is rewarded, of eight answers of one token, while the loss is followed downhill."""
    logits, answers, found = np.zeros(8), np.arange(8), []  # (V,), (A,)
    advantage = policy_loss.advantages((answers == 3).astype(float), np.zeros(8, int))
    for _ in range(40):
        rows = np.tile(logits, (8, 1))  # (A, V): one prompt before all answers
        now = policy_loss.log_probabilities(rows, answers)
        found.append(float(np.exp(now[3])))
        saved = policy_loss.forward(rows, answers, answers, advantage, now)[1]
        logits = logits - policy_loss.backward(1.0, saved).sum(axis=0)
    return np.arange(40), np.array(found)


def bias_after_rollouts() -> Measured:
    """Largest routing bias after answers were drawn again and again, with no step."""
    model, source, found = build(lively=False), np.random.default_rng(10), []
    for _ in range(20):
        ProcessGroup().sampled(model, [[1, 2, 3]], 2, 4, 1.0, Ending(frozenset(), (), None), source)
        found.append(max(np.abs(b).max() for b in model.parameters.buffers.values()))
    return np.arange(1, 21), np.array(found)


def worth_beside_another() -> Measured:
    """Reward of one answer of six tokens, by the length of the answer that is judged beside it."""
    judge_of_answers = RewardModel.copy_of(build(dtype=np.float32))
    judge_of_answers.model.head.weight.value[...] = np.random.default_rng(11).normal(size=STAMP.hidden_size)
    mine, longest = text(size=1, length=6)[0][0], text(size=1, length=30, seed=3)[0][0]
    lengths = np.arange(2, 31, 2)
    return lengths, np.array([judge_of_answers.of_tokens([mine, longest[:length]])[0] for length in lengths])
