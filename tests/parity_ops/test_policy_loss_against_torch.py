"""GRPO's loss, written in PyTorch from eqs 26-28, distillation's and a reward model's, by autograd: to 1e-10 in float64."""

import math

import numpy as np
import pytest
import support
import torch

from minids.ops import distillation, policy_loss, preference_loss

pytestmark = pytest.mark.parity

ANSWER = np.array([0, 0, 0, 1, 2, 2, 3, 3])


def theirs(logits, tokens, rewards, old, ref, by, by_std, clip, beta, corrected, divisor, kept=None, drop_above=math.inf):
    logits = logits if kept is None else logits.masked_fill(~kept, -math.inf)
    groups = rewards.view(2, 2)
    advantage = groups - groups.mean(1, keepdim=True)
    if by_std:
        advantage = advantage / groups.std(1, keepdim=True, correction=0)
    advantage = advantage.reshape(-1)
    log_pi = torch.log_softmax(logits, -1).gather(1, tokens[:, None])[:, 0]
    per_answer = []
    for i in range(4):
        mine = torch.tensor(np.flatnonzero(i == ANSWER))
        log_rho, log_q = (log_pi - old)[mine], (ref - log_pi)[mine]
        if by == "answer":
            log_rho, log_q = log_rho.sum()[None], log_q.sum()[None]
        rho, a = log_rho.exp(), advantage[i]
        kl = log_q.exp() - log_q - 1
        counts = 0.0 if a < 0 and (old - log_pi)[mine].mean() > drop_above else 1.0
        terms = counts * torch.minimum(rho * a, rho.clamp(1 - clip, 1 + clip) * a) - beta * (rho * kl if corrected else kl)
        per_answer.append(terms.sum() / (divisor or len(terms)))
    return -torch.stack(per_answer).mean()


@pytest.mark.parametrize("by_std", [True, False])
@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize(("by", "divisor"), [("token", None), ("token", 7.0), ("answer", None)])
@pytest.mark.parametrize("clip", [0.2, 10.0])
def test_loss_and_gradient(by, divisor, corrected, by_std, clip):
    rng = np.random.default_rng(3)
    logits, tokens = rng.normal(0, 1.5, (8, 5)), rng.integers(0, 5, 8)
    now = policy_loss.log_probabilities(logits, tokens)
    old, ref = now + rng.normal(0, 0.3, 8), now + rng.normal(0, 0.4, 8)
    rewards = np.array([1.0, 0.0, 0.25, 0.5])
    advantage = policy_loss.advantages(rewards, np.array([0, 0, 1, 1]), by_std)
    loss, saved = policy_loss.forward(logits, tokens, ANSWER, advantage, old, ref, by, clip, 0.3, corrected, divisor)
    tensor = torch.tensor(logits, requires_grad=True)
    arguments = (torch.tensor(tokens), torch.tensor(rewards), torch.tensor(old), torch.tensor(ref))
    want = theirs(tensor, *arguments, by, by_std, clip, 0.3, corrected, divisor)
    want.backward()
    support.assert_close(loss, want.item(), 1e-10, "loss")
    support.assert_close(policy_loss.backward(1.0, saved), tensor.grad.numpy(), 1e-10, "gradient")


@pytest.mark.parametrize("by", ["token", "answer"])
def test_v32s_mask_and_dropped_answers(by):
    rng = np.random.default_rng(5)
    logits, tokens = rng.normal(0, 1.5, (8, 5)), rng.integers(0, 5, 8)
    kept = rng.random((8, 5)) < 0.6
    kept[np.arange(8), tokens] = True
    now = policy_loss.log_probabilities(logits, tokens, kept)
    old, ref = now + rng.normal(0, 0.1, 8) + np.array([0.3, 0.3, -0.2, 0.2])[ANSWER], now + rng.normal(0, 0.4, 8)
    rewards = np.array([1.0, 0.0, 0.5, 0.25])
    advantage = policy_loss.advantages(rewards, np.array([0, 0, 1, 1]))
    found = policy_loss.forward(logits, tokens, ANSWER, advantage, old, ref, by, 0.2, 0.3, True, None, 0.05, kept)
    assert found[1].dropped.tolist() == [False, True, False, True], "the case is there to have both"
    tensor = torch.tensor(logits, requires_grad=True)
    arguments = (torch.tensor(tokens), torch.tensor(rewards), torch.tensor(old), torch.tensor(ref))
    want = theirs(tensor, *arguments, by, True, 0.2, 0.3, True, None, torch.tensor(kept), 0.05)
    want.backward()
    support.assert_close(found[0], want.item(), 1e-10, "loss")
    support.assert_close(policy_loss.backward(1.0, found[1]), tensor.grad.numpy(), 1e-10, "gradient")


def test_distillation():
    rng = np.random.default_rng(1)
    logits, teacher = rng.normal(0, 2, (6, 5)), rng.normal(0, 2, (6, 5))
    tensor = torch.tensor(logits, requires_grad=True)
    log_p, q = torch.log_softmax(tensor, -1), torch.softmax(torch.tensor(teacher), -1)
    want = torch.nn.functional.kl_div(log_p, q, reduction="batchmean")
    want.backward()
    loss, saved = distillation.forward(logits, teacher)
    support.assert_close(loss, want.item(), 1e-10, "loss")
    support.assert_close(distillation.backward(1.0, saved), tensor.grad.numpy(), 1e-10, "gradient")


def test_preference_loss():
    rng = np.random.default_rng(2)
    pair = chosen, rejected = rng.normal(0, 3, 9), rng.normal(0, 3, 9)
    tensors = [torch.tensor(rewards, requires_grad=True) for rewards in pair]
    want = -torch.nn.functional.logsigmoid(tensors[0] - tensors[1]).mean()
    want.backward()
    loss, saved = preference_loss.forward(chosen, rejected)
    support.assert_close(loss, want.item(), 1e-10, "loss")
    for got, tensor in zip(preference_loss.backward(1.0, saved), tensors, strict=True):
        support.assert_close(got, tensor.grad.numpy(), 1e-10, "gradient")
