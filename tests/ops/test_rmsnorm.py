"""RMSNorm against its definition and central differences."""

import math

import numpy as np
import pytest
import support
from hypothesis import given
from hypothesis import strategies as st

from minids import check
from minids.ops import rmsnorm

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 3), (2, 4, 7)], ids=str)
@pytest.mark.parametrize("eps", [1e-6, 0.3])
def test_forward_is_the_formula(shape, eps):
    x, gain = RNG.standard_normal(shape), RNG.standard_normal(shape[-1])
    want = np.zeros(shape)
    for token in np.ndindex(*shape[:-1]):
        rms = math.sqrt(sum(v * v for v in x[token]) / shape[-1] + eps)
        for i in range(shape[-1]):
            want[(*token, i)] = x[(*token, i)] / rms * gain[i]
    support.assert_close(rmsnorm.forward(x, gain, eps)[0], want)


@pytest.mark.parametrize("shape", [(1, 6), (5, 3), (2, 4, 7)], ids=str)
@pytest.mark.parametrize("eps", [1e-6, 0.3])
def test_gradient(shape, eps):
    inputs = {"x": RNG.standard_normal(shape), "gain": RNG.standard_normal(shape[-1]), "eps": eps}
    check.gradient(rmsnorm.forward, rmsnorm.backward, inputs).raise_if_wrong()


@given(st.integers(1, 9), st.floats(1e-2, 1e3), st.integers(0, 2**31))
def test_scaling_the_input_changes_nothing_and_the_gradient_is_orthogonal_to_it(size, factor, seed):
    rng = np.random.default_rng(seed)
    x, gain = rng.standard_normal((3, size)) + 0.1, rng.standard_normal(size)
    y, saved = rmsnorm.forward(x, gain, 0.0)
    support.assert_close(rmsnorm.forward(x * factor, gain, 0.0)[0], y, 1e-11)
    dx, _ = rmsnorm.backward(rng.standard_normal(x.shape), saved)
    along = np.abs(np.sum(dx * x, axis=-1))
    assert along.max() <= 1e-10 * max(1.0, np.abs(dx).max() * np.abs(x).max()), "moving along x must not move the loss"


def test_a_zero_token_stays_finite():
    y, saved = rmsnorm.forward(np.zeros((1, 4), np.float32), np.ones(4, np.float32))
    dx, _ = rmsnorm.backward(np.ones((1, 4), np.float32), saved)
    assert not y.any() and np.isfinite(dx).all() and y.dtype == dx.dtype == np.float32
