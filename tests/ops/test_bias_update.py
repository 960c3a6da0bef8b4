"""The balancing bias moves the right way, by the right step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minids.ops import bias_update


def test_an_overloaded_expert_goes_down_and_an_underloaded_one_up():
    got = bias_update.updated(np.zeros(4, np.float32), np.array([9, 5, 5, 1]), 0.001)
    np.testing.assert_array_equal(got, np.array([-0.001, 0.0, 0.0, 0.001], np.float32))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.sampled_from(["sign", "proportional"]))
def test_signs(counts, rule):
    bias = np.linspace(-1, 1, len(counts)).astype(np.float32)
    moved = bias_update.updated(bias, np.array(counts), 0.01, rule).astype(np.float64) - bias
    mean = np.mean(counts)
    for expert, count in enumerate(counts):
        if count == mean:
            assert moved[expert] == 0, "an expert with exactly the mean load stays"
        elif rule == "sign":
            assert np.sign(moved[expert]) == np.sign(mean - count)
            assert abs(abs(moved[expert]) - 0.01) < 1e-6, "the sign rule has one size of step"
        else:
            assert abs(moved[expert] - 0.01 * (mean - count) / max(mean, 1)) < 1e-6


def test_a_speed_of_zero_freezes_it():
    bias = np.array([0.25, -0.5], np.float32)
    np.testing.assert_array_equal(bias_update.updated(bias, np.array([7, 1]), 0.0), bias)


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.float64])
def test_the_result_is_float32_and_the_old_bias_is_left_alone(kind):
    bias = np.zeros(3, np.float32)
    got = bias_update.updated(bias, np.array([3, 0, 0], kind), 0.001)
    assert got.dtype == np.float32 and not bias.any()


def test_repeated_updates_even_out_a_router():
    """What it is for: an expert everyone prefers loses its lead, although no score changes."""
    rng = np.random.default_rng(0)
    scores = rng.random((400, 6)) + np.array([0.5, 0.3, 0, 0, -0.2, -0.4])
    bias = np.zeros(6, np.float32)

    def load(b):
        return np.bincount(np.argsort(-(scores + b), axis=-1)[:, :2].reshape(-1), minlength=6)

    before = load(bias)
    for _ in range(300):
        bias = bias_update.updated(bias, load(bias), 0.005)
    assert before.max() / before.mean() > 2.2 and load(bias).max() / load(bias).mean() < 1.1
