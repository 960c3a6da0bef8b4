"""Cross-entropy against its definition: ignored targets, another divisor, extreme logits."""

import math

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minids import check
from minids.ops import cross_entropy

RNG = np.random.default_rng(0)


CASES = [
    ([2], None),  # one token
    ([0, 4, 1, 4], None),
    ([0, -100, 1, 4, -100], None),  # two that do not count
    ([0, -100, 1], 7),  # eq. 24: divided by T although fewer terms are summed
]


@pytest.mark.parametrize(("targets", "divisor"), CASES)
def test_forward_is_the_definition(targets, divisor):
    targets = np.array(targets)
    logits = RNG.normal(0, 2, (len(targets), 5))
    want = naive.cross_entropy(logits, targets, divisor or (targets != -100).sum())
    assert math.isclose(cross_entropy.forward(logits, targets, divisor)[0], want, rel_tol=1e-13)


@pytest.mark.parametrize(("targets", "divisor"), CASES)
def test_gradient(targets, divisor):
    def forward(logits):
        loss, saved = cross_entropy.forward(logits, np.array(targets), divisor)
        return np.array(loss), saved

    check.gradient(forward, cross_entropy.backward, {"logits": RNG.normal(0, 2, (len(targets), 5))}).raise_if_wrong()


@given(st.integers(1, 6), st.integers(2, 9), st.integers(0, 2**31))
def test_rows_of_the_gradient_sum_to_zero(tokens, vocabulary, seed):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, vocabulary, tokens)
    targets[rng.random(tokens) < 0.3] = -100
    _, saved = cross_entropy.forward(rng.normal(0, 5, (tokens, vocabulary)), targets)
    d_logits = cross_entropy.backward(1.7, saved)
    assert np.abs(d_logits.sum(-1)).max() < 1e-14
    assert not d_logits[targets == -100].any(), "an ignored target must get no gradient"
    counted = np.flatnonzero(targets != -100)
    assert (d_logits[counted, targets[counted]] < 0).all(), "the token that came must be pushed up"


def test_nothing_to_predict_costs_nothing():
    loss, saved = cross_entropy.forward(RNG.standard_normal((3, 4)), np.full(3, -100))
    assert loss == 0.0 and not cross_entropy.backward(1.0, saved).any()


def test_extreme_logits_stay_finite_and_uniform_ones_cost_ln_v():
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        loss, saved = cross_entropy.forward(np.array([[1e4, -1e4, 0.0]], np.float32), np.array([1]))
        d_logits = cross_entropy.backward(1.0, saved)
    assert math.isclose(loss, 2e4) and d_logits.dtype == np.float32
    assert math.isclose(cross_entropy.forward(np.zeros((2, 11)), np.array([3, 7]))[0], math.log(11))
