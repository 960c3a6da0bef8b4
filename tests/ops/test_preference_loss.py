"""The loss of a reward model against its definition and central differences."""

import math

import numpy as np
import pytest

from minids import check
from minids.ops import preference_loss

RNG = np.random.default_rng(0)
CHOSEN, REJECTED = RNG.normal(0, 2, 7), RNG.normal(0, 2, 7)


def test_forward_is_the_definition():
    want = -sum(math.log(1 / (1 + math.exp(r - c))) for c, r in zip(CHOSEN, REJECTED, strict=True)) / 7
    assert math.isclose(preference_loss.forward(CHOSEN, REJECTED)[0], want, rel_tol=1e-12)


def test_gradient():
    def forward(chosen, rejected):
        loss, saved = preference_loss.forward(chosen, rejected)
        return np.array(loss), saved

    check.gradient(forward, preference_loss.backward, {"chosen": CHOSEN, "rejected": REJECTED}).raise_if_wrong()


def test_equal_rewards_cost_one_bit_and_a_constant_changes_nothing():
    assert math.isclose(preference_loss.forward(CHOSEN, CHOSEN)[0], math.log(2), rel_tol=1e-15)
    loss, saved = preference_loss.forward(CHOSEN, REJECTED)
    moved, saved_moved = preference_loss.forward(CHOSEN + 5, REJECTED + 5)
    assert math.isclose(loss, moved, rel_tol=1e-12)
    for got, want in zip(preference_loss.backward(1.0, saved_moved), preference_loss.backward(1.0, saved), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)


def test_the_chosen_answer_is_pushed_up_and_the_more_the_worse_it_stands():
    d_chosen, d_rejected = preference_loss.backward(1.0, preference_loss.forward(CHOSEN, REJECTED)[1])
    assert (d_chosen < 0).all() and (d_chosen == -d_rejected).all()
    order = np.argsort(CHOSEN - REJECTED)
    assert (np.diff(d_chosen[order]) > 0).all(), "a pair that is right already is pushed less"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_margins_beyond_every_exponential(dtype):
    chosen, rejected = np.array([1e4, -1e4], dtype), np.array([-1e4, 1e4], dtype)
    loss, saved = preference_loss.forward(chosen, rejected)
    assert loss == 1e4  # 0 of the first pair, 20,000 of the second
    d_chosen, d_rejected = preference_loss.backward(1.0, saved)
    assert d_chosen.dtype == dtype and d_chosen.tolist() == [0.0, -0.5] and d_rejected.tolist() == [0.0, 0.5]
