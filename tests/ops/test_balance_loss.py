"""The balance loss against eqs 17-20 written as loops; its gradient must not be lost."""

import math

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minids import check
from minids.ops import balance_loss

RNG = np.random.default_rng(0)


CASES = [(1, 1, 4, 2), (6, 3, 5, 2), (6, 6, 5, 2), (8, 2, 3, 1), (4, 4, 6, 5)]  # tokens, tokens per group, experts, top-k


def some(tokens, experts, top_k):
    scores = RNG.uniform(0.05, 1, (tokens, experts))
    return scores, np.argsort(-RNG.random((tokens, experts)), axis=-1)[:, :top_k]


@pytest.mark.parametrize(("tokens", "length", "experts", "top_k"), CASES)
def test_forward_is_the_mean_over_sequences(tokens, length, experts, top_k):
    scores, chosen = some(tokens, experts, top_k)
    assert math.isclose(balance_loss.forward(scores, chosen, length)[0], naive.balance(scores, chosen, length), rel_tol=1e-12)


def test_gradient_reaches_every_score_chosen_or_not():
    for tokens, length, experts, top_k in CASES:
        scores, chosen = some(tokens, experts, top_k)

        def forward(scores, chosen=chosen, length=length):
            loss, saved = balance_loss.forward(scores, chosen, length)
            return np.array(loss), saved

        check.gradient(forward, balance_loss.backward, {"scores": scores}).raise_if_wrong()


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**31))
def test_it_is_one_when_the_load_is_even(experts, top_k, seed):
    """Σ f P with f = 1 for all is Σ P = 1, whatever the scores are."""
    top_k = min(top_k, experts)
    # Token t chooses experts t, t + 1, … (mod E): over E tokens each gets K.
    chosen = (np.arange(experts)[:, None] + np.arange(top_k)) % experts
    scores = np.random.default_rng(seed).uniform(0.01, 1, (experts, experts))
    assert math.isclose(balance_loss.forward(scores, chosen, experts)[0], 1.0, rel_tol=1e-12)


def test_where_every_expert_is_chosen_the_loss_is_one_and_nothing_can_be_gained():
    scores, chosen = some(4, 6, 6)
    loss, saved = balance_loss.forward(scores, chosen, 4)
    assert math.isclose(loss, 1.0, rel_tol=1e-12) and np.abs(balance_loss.backward(1.0, saved)).max() < 1e-15


def test_collapse_costs_e_over_k():
    scores = np.full((7, 6), 1e-9)
    scores[:, :2] = 1.0
    chosen = np.tile([0, 1], (7, 1))
    assert math.isclose(balance_loss.forward(scores, chosen, 7)[0], 6 / 2, rel_tol=1e-6)


def test_a_step_down_the_gradient_lowers_the_share_of_the_overloaded_expert():
    scores, _ = some(5, 4, 1)
    chosen = np.zeros((5, 1), int)  # everyone chose expert 0
    _, saved = balance_loss.forward(scores, chosen, 5)
    moved = scores - 0.1 * balance_loss.backward(1.0, saved)
    assert (moved[:, 0] / moved.sum(1) < scores[:, 0] / scores.sum(1)).all()


def test_sequences_and_the_whole_batch_differ():
    """Two sequences that each use one half of the experts: uneven for each, even in all."""
    scores = np.ones((4, 2)) * [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]]
    chosen = np.array([[0], [0], [1], [1]])
    assert math.isclose(balance_loss.forward(scores, chosen, 2)[0], 1.8)
    assert math.isclose(balance_loss.forward(scores, chosen, 4)[0], 1.0)
